// Maps, colour bars, axes and facts.

import { element, shape } from "./dom.js";

export function addPanel(view, caption = "") {
  const text = element("figcaption", {}, caption);
  const figure = element("figure", { class: "qk-panel" }, text);
  view.stage.append(figure);
  return { figure, caption: text };
}

// A map over a grid of patches. With `key`, a click or the arrow keys choose a patch; `key` is
// an entry of the state, or {at(), choose(number)} where a choice is more than one entry.
export function addGrid(view, caption, [rows, columns], key = null) {
  const { figure, caption: text } = addPanel(view, caption);
  const canvas = element("canvas");
  const marks = shape("svg", { "aria-hidden": "true" });
  const box = element("div", { class: "qk-grid" }, canvas, marks);
  figure.prepend(box);
  const map = { figure, box, canvas, marks, caption: text, under: null };
  resize(map, [rows, columns]);
  if (key) makePickable(view, map, key);
  else box.setAttribute("role", "img");
  return map;
}

// Give a map another number of patches, which empties it.
export function resize(map, [rows, columns]) {
  Object.assign(map, { rows, columns });
  Object.assign(map.canvas, { width: columns, height: rows });
  map.marks.setAttribute("viewBox", `0 0 ${columns} ${rows}`);
  map.box.style.aspectRatio = `${columns} / ${rows}`;
}

function makePickable(view, map, key) {
  const entry = { at: () => view.state[key] ?? 0, choose: (patch) => view.set({ [key]: patch }) };
  const { at, choose } = typeof key === "string" ? entry : key;
  const { box } = map;
  box.tabIndex = 0;
  box.setAttribute("role", "application");
  box.setAttribute("aria-roledescription", "patch grid; arrow keys choose a patch");
  box.addEventListener("click", (event) => {
    const { left, top, width, height } = box.getBoundingClientRect();
    const { rows, columns } = map;
    const column = Math.min(columns - 1, Math.floor(((event.clientX - left) / width) * columns));
    const row = Math.min(rows - 1, Math.floor(((event.clientY - top) / height) * rows));
    choose(row * columns + column);
  });
  const moves = { ArrowLeft: [0, -1], ArrowRight: [0, 1], ArrowUp: [-1, 0], ArrowDown: [1, 0] };
  box.addEventListener("keydown", (event) => {
    const move = moves[event.key];
    if (!move) return;
    event.preventDefault();
    const { rows, columns } = map;
    const patch = at();
    const row = Math.min(rows - 1, Math.max(0, Math.floor(patch / columns) + move[0]));
    const column = Math.min(columns - 1, Math.max(0, (patch % columns) + move[1]));
    choose(row * columns + column);
  });
}

// Paint values, in reading order, with a colour map of Python's from low to high.
export function paintMap(view, map, values, { low, high, colours, name }) {
  const table = view.maps[colours];
  const image = new ImageData(map.columns, map.rows);
  for (let n = 0; n < values.length; n++) {
    const share = Math.min(1, Math.max(0, (values[n] - low) / (high - low || 1)));
    const at = 3 * Math.round(255 * share);
    image.data.set([table[at], table[at + 1], table[at + 2], 255], 4 * n);
  }
  map.canvas.getContext("2d").putImageData(image, 0, 0);
  map.box.setAttribute("aria-label", name);
}

// Paint a whole picture, pixel by pixel.
export function paintPixels(canvas, pixels) {
  Object.assign(canvas, { width: pixels.width, height: pixels.height });
  canvas.getContext("2d").putImageData(pixels, 0, 0);
}

// Show a picture (an address) instead of, or below, painted values.
export function showPicture(map, address, name) {
  if (!map.under) {
    map.under = element("img", { alt: "" });
    map.box.prepend(map.under);
  }
  if (map.under.src !== address) map.under.src = address;
  map.box.setAttribute("aria-label", name);
}

export function framePatch(view, map, patch, colour = view.look.palette[1], edge = "#fff") {
  const [x, y] = [patch % map.columns, Math.floor(patch / map.columns)];
  const common = { x, y, width: 1, height: 1, fill: "none" };
  map.marks.replaceChildren(
    shape("rect", { ...common, stroke: edge, "stroke-width": 0.24 }),
    shape("rect", { ...common, stroke: colour, "stroke-width": 0.14 }),
  );
}

// A colour bar, on the stage or in a figure; returns a function that sets its numbers.
export function addBar(view, colours, text, place = view.stage) {
  const canvas = element("canvas", { width: 256, height: 1, "aria-hidden": "true" });
  const image = new ImageData(256, 1);
  for (let n = 0; n < 256; n++)
    image.data.set([...view.maps[colours].subarray(3 * n, 3 * n + 3), 255], 4 * n);
  canvas.getContext("2d").putImageData(image, 0, 0);
  const [low, high] = [element("span"), element("span")];
  place.append(element("div", { class: "qk-bar" }, element("span", {}, text), low, canvas, high));
  return (from, to) => {
    low.textContent = from;
    high.textContent = to;
  };
}

// Axes for curves: {svg, x(value), y(value), ink}; draw into `ink`, and empty it before drawing.
export function addAxes(view, { x, y, xlabel, ylabel, xticks, yticks, width, height }) {
  const { figure, caption } = addPanel(view);
  const svg = shape("svg", { viewBox: `0 0 ${width} ${height}`, role: "img", class: "qk-axes" });
  svg.style.maxWidth = `${width}px`;
  const [left, right, top, bottom] = [52, width - 10, 10, height - 42];
  const across = (v) => left + ((v - x[0]) / (x[1] - x[0])) * (right - left);
  const up = (v) => bottom - ((v - y[0]) / (y[1] - y[0])) * (bottom - top);
  const word = (place, text) => shape("text", { "text-anchor": "middle", ...place }, String(text));
  const middle = (top + bottom) / 2;
  const ink = shape("g");
  svg.append(
    shape("path", { d: `M${left} ${top}V${bottom}H${right}`, class: "qk-axis" }),
    ...xticks.map((at) => word({ x: across(at), y: bottom + 16 }, at)),
    ...yticks.map((at) => word({ x: left - 6, y: up(at) + 4, "text-anchor": "end" }, at)),
    word({ x: (left + right) / 2, y: height - 6 }, xlabel),
    word({ transform: `translate(13 ${middle}) rotate(-90)` }, ylabel),
    ink,
  );
  figure.prepend(svg);
  return { x: across, y: up, svg, ink, left, right, top, bottom, figure, caption };
}

// Facts in words: [[name, value], …].
export function tell(place, rows) {
  const cells = rows.flatMap(([name, value]) => [
    element("dt", {}, name),
    element("dd", {}, value),
  ]);
  place.replaceChildren(element("dl", {}, ...cells));
}
