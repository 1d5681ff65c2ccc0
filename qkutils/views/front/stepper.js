// Finished figures, one at a time.

import { addSteps } from "./controls.js";
import { element } from "./dom.js";
import { addPanel } from "./drawing.js";
import { Frame } from "./frame.js";

// Boxes as one shape, whose line runs round each and back to the first corner.
function outline(boxes) {
  const corner = (x, y) => `${100 * x}% ${100 * y}%`;
  const round = ([x, y, right, bottom]) => [
    corner(x, y),
    corner(right, y),
    corner(right, bottom),
    corner(x, bottom),
    corner(x, y),
  ];
  const start = boxes.slice(0, 1).map(([x, y]) => corner(x, y));
  return `polygon(${boxes.flatMap((box) => [...round(box), ...start]).join(", ") || "0 0"})`;
}

function render(context) {
  const view = new Frame(context);
  const { label, names, texts, pictures, kept, sizes } = view.data;
  // a page of the book names files; elsewhere the pixels are here
  const addresses = pictures.map((it) => (typeof it === "string" ? it : view.address(it)));
  const steps = names.map((_, number) => number);
  addSteps(view, label, "step", steps, (number) => names[number]);
  const image = element("img", { class: "qk-finished" });
  const maps = element("img", { class: "qk-kept", alt: "" }); // in the dark, over what is turned
  addPanel(view).figure.prepend(element("div", { class: "qk-frames" }, image, maps));

  return view.begin(({ step }) => {
    [image.width, image.height] = sizes[step]; // so that nothing moves when it comes
    image.src = maps.src = addresses[step];
    maps.style.clipPath = outline(kept[step]);
    image.alt = texts[step];
  });
}

export default { render };
