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
})();
