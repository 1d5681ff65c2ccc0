// Elements of a page. Text stays text: nothing here is ever read as markup.

const SVG = "http://www.w3.org/2000/svg";

function fill(made, attributes, children) {
  for (const [name, value] of Object.entries(attributes)) made.setAttribute(name, value);
  made.append(...children);
  return made;
}

export function element(tag, attributes = {}, ...children) {
  return fill(document.createElement(tag), attributes, children);
}

export function shape(tag, attributes = {}, ...children) {
  return fill(document.createElementNS(SVG, tag), attributes, children);
}

// A small drawing in a line of text.
export function sample(width, height, ...ink) {
  return shape("svg", { width, height, "aria-hidden": "true" }, ...ink);
}
