// Loaded between require.js and the widget manager: lets both find their parts in this folder.
(() => {
  const vendor = document.currentScript.src.replace(/[^/]*$/, "vendor/");
  window.requirejs.config({
    paths: {
      anywidget: vendor + "anywidget",
      "@jupyter-widgets": vendor + "html-manager",
      "@jupyter-widgets/html-manager/dist": vendor + "html-manager",
    },
  });
  window.__jupyter_widgets_assets_path__ = vendor + "html-manager/";
  // The manager calls MathJax 2's queue for a formula in a widget; hand it on to MathJax 3.
  window.addEventListener("load", () => {
    const mathjax = window.MathJax;
    if (!mathjax || !mathjax.startup || mathjax.Hub) return;
    mathjax.Hub = {
      Queue: ([, , element]) => {
        element.classList.add("mathjax_process"); // elsewhere on the page MathJax looks at nothing
        return mathjax.startup.promise.then(() => mathjax.typesetPromise([element]));
      },
    };
  });
})();
