// Finished figures, one at a time.

import { addSteps } from "./controls.js";
import { element } from "./dom.js";
import { addPanel } from "./drawing.js";
import { Frame } from "./frame.js";

function render(context) {
  const view = new Frame(context);
  const { label, names, texts, pictures, sizes } = view.data;
  // a page of the book names files; elsewhere the pixels are here
  const addresses = pictures.map((it) => (typeof it === "string" ? it : view.address(it)));
  const steps = names.map((_, number) => number);
  addSteps(view, label, "step", steps, (number) => names[number]);
  const image = element("img", { class: "qk-finished" });
  addPanel(view).figure.prepend(image);

  return view.begin(({ step }) => {
    [image.width, image.height] = sizes[step]; // so that nothing moves when it comes
    image.src = addresses[step];
    image.alt = texts[step];
  });
}

export default { render };
