// Finished figures, one at a time.

import { addSteps } from "./controls.js";
import { element } from "./dom.js";
import { addPanel } from "./drawing.js";
import { Frame } from "./frame.js";

function render(context) {
  const view = new Frame(context);
  const { label, names, texts, pictures } = view.data;
  const addresses = pictures.map((bytes) => view.address(bytes));
  const steps = names.map((_, number) => number);
  addSteps(view, label, "step", steps, (number) => names[number]);
  const image = element("img", { class: "qk-finished" });
  addPanel(view).figure.prepend(image);

  return view.begin(({ step }) => {
    image.src = addresses[step];
    image.alt = texts[step];
  });
}

export default { render };
