// Views of the book's pages: the text comes first, and a view is set up when it comes near the
// screen. Its script and its data are plain scripts, since a page that is opened without a server
// may load nothing else.

import { element } from "./dom.js";
import { revived, standIn } from "./stand_in.js";

const NEAR = "1000px";
const asked = new Map();

// Load a file of the views once, whoever asks for it.
function load(folder, name) {
  const address = folder + name;
  if (!asked.has(address)) {
    const style = name.endsWith(".css");
    const part = style
      ? element("link", { rel: "stylesheet", href: address })
      : element("script", { src: address });
    const done = new Promise((resolve, reject) => {
      part.addEventListener("load", resolve);
      part.addEventListener("error", () => reject(new Error(`${name} was not loaded`)));
    });
    document.head.append(part);
    asked.set(address, done);
  }
  return asked.get(address);
}

async function mount(place) {
  const { folder, style, front, values } = place.dataset;
  place.setAttribute("aria-busy", "true");
  try {
    await Promise.all([style, front, values].map((name) => load(folder, name)));
    const { fronts, texts } = window.qkViews;
    fronts[front]({ model: standIn(revived(texts[values])), el: place });
  } catch (error) {
    const said = `The interactive view is not here (${error.message}); the picture stands in for it.`;
    place.replaceChildren(element("p", { role: "alert" }, said));
  }
  place.removeAttribute("aria-busy");
}

const watch = new IntersectionObserver(
  (seen) => {
    for (const { isIntersecting, target } of seen) {
      if (!isIntersecting) continue;
      watch.unobserve(target);
      mount(target);
    }
  },
  { rootMargin: NEAR },
);
for (const place of document.querySelectorAll(".qk-mount")) watch.observe(place);
