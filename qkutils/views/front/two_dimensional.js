// A head with two dimensions: directions to drag, scores over the plane, who attends to whom.

import { addRange, addSelect, addToggle } from "./controls.js";
import { element, shape } from "./dom.js";
import { addBar, addGrid, paintMap, tell } from "./drawing.js";
import { Frame } from "./frame.js";
import { unpack } from "./math/arrays.js";
import {
  attentionOf,
  bestOf,
  dot,
  headOf,
  likeness,
  numbersOf,
  pairs,
  turned,
  wrapped,
} from "./math/plane.js";
import { signed } from "./words.js";

const HALF = 184; // half the side of the plane, in units of its drawing
const CELLS = 64; // of the score field along each side
const INK = "#1f2328"; // the plane is light in the dark, too
const GREY = "#50575e";
const TOUCHABLE = 25; // how far from a token a click may be

function render(context) {
  const view = new Frame(context);
  const known = facts(view);
  addControls(view, known);
  const drawPlane = plane(view, known);
  const drawMap = attentionMap(view, known);
  view.root.classList.add("qk-low");
  view.tools.append(howToRead());
  return view.begin((state) => {
    const { tokens } = known;
    const head = headOf(state);
    const wanted = tokens.map((z) => turned(head.matrix, z));
    const scores = tokens.map((z) => dot(wanted[state.token], z));
    const attention = attentionOf(tokens, wanted);
    const liked = bestOf(scores, known.limit);
    const now = { state, head, wanted, scores, attention, liked };
    drawPlane(now);
    drawMap(now);
    tell(view.facts, inWords(known, now));
  });
}

// What does not change: tokens and scales.
function facts(view) {
  const { names, extent, limit, top, strongest } = view.data;
  const tokens = pairs(unpack(view.data.tokens).values);
  const farthest = Math.max(...tokens.map((z) => Math.hypot(...z)));
  const [blue, orange] = view.look.palette;
  return {
    names,
    extent,
    limit,
    top,
    strongest,
    tokens,
    blue,
    orange,
    scale: HALF / extent,
    shrunk: (0.2 * extent) / strongest / farthest, // of arrows Mᵀz
    roomy: tokens.length <= 24 && names.every((name) => name.length <= 4),
  };
}

function addControls(view, { names, strongest }) {
  addSelect(
    view,
    "token that asks",
    "token",
    names.map((label, value) => ({ value, label })),
  );
  const angle = { min: -180, max: 180, show: degrees };
  addRange(view, "angle of u₀", "u0", angle);
  addRange(view, "angle of v₀", "v0", angle);
  const strength = { min: 0, max: strongest, step: 0.05, show: (value) => value.toFixed(2) };
  const lower = (value) => ({ sigma1: Math.min(value, view.state.sigma1) });
  const raise = (value) => ({ sigma0: Math.max(value, view.state.sigma0) });
  addRange(view, "strength σ₀", "sigma0", { ...strength, change: lower });
  addRange(view, "strength σ₁", "sigma1", { ...strength, change: raise });
  addToggle(view, "second pair mirrored", "mirrored");
}

// ---- the plane -----------------------------------------------------------------------------------

// Returns a function that draws the plane.
function plane(view, known) {
  const { limit, blue, orange, scale } = known;
  const field = addGrid(view, "", [CELLS, CELLS]);
  const [ground, ink] = [0, 1].map(() => shape("g", { "aria-hidden": "true" }));
  field.figure.classList.add("qk-plane");
  field.box.setAttribute("role", "group"); // its handles are controls
  field.marks.setAttribute("viewBox", `${-HALF} ${-HALF} ${2 * HALF} ${2 * HALF}`);
  field.marks.removeAttribute("aria-hidden");
  ground.append(...axesAndCircle(scale));
  field.marks.append(ground, ink);
  field.marks.addEventListener("click", (event) => chooseNearest(view, known, field, event));
  const setBar = addBar(view, "PuOr", "score", field.figure);
  setBar(`${number(-limit)} or less`, `+${number(limit)} or more`);
  field.caption.remove();
  const round = shape("circle", { r: 10 });
  const square = shape("path", { d: "M0 -8L8 0L0 8L-8 0Z" });
  const handles = [
    addHandle(view, known, field, {
      key: "u0",
      name: "query direction u₀",
      label: "u₀",
      colour: orange,
      tip: round,
    }),
    addHandle(view, known, field, {
      key: "v0",
      name: "key direction v₀",
      label: "v₀",
      colour: blue,
      tip: square,
    }),
  ];
  return (now) => {
    drawField(view, known, field, now);
    ink.replaceChildren(...drawnOn(known, now));
    for (const handle of handles) moveHandle(known, handle, now);
  };
}

function axesAndCircle(scale) {
  const stroke = "#8c959f";
  const axes = `M${-HALF} 0H${HALF}M0 ${-HALF}V${HALF}`;
  return [
    shape("path", { d: axes, stroke, "stroke-width": 1 }),
    shape("circle", { r: scale, fill: "none", stroke, "stroke-dasharray": "3 4" }),
  ];
}

function legend({ orange, blue }) {
  const look = { width: 34, height: 14, viewBox: "0 -7 34 14", "aria-hidden": "true" };
  const entry = (drawn, text) =>
    element("span", {}, shape("svg", look, arrow([2, 0], [32, 0], drawn)), text);
  return element(
    "div",
    { class: "qk-legend" },
    entry({ colour: orange, width: 3 }, "u₀ asks (round tip)"),
    entry({ colour: blue, width: 3 }, "v₀ answers (square tip)"),
    entry({ colour: orange, width: 2, dash: "5 3" }, "u₁"),
    entry({ colour: blue, width: 2, dash: "5 3" }, "v₁"),
    entry({ colour: GREY, width: 1.2 }, "Mᵀz: to the key that z likes best"),
    entry({ colour: INK, width: 2.5 }, "from who asks to its favourite"),
  );
}

// Where a pointer is, in the plane's coordinates.
function placeOf(event, field, extent) {
  const { left, top, width, height } = field.box.getBoundingClientRect();
  const across = ((event.clientX - left) / width) * 2 - 1;
  const down = ((event.clientY - top) / height) * 2 - 1;
  return [across * extent, -down * extent];
}

function chooseNearest(view, { tokens, extent, scale }, field, event) {
  if (event.target.closest(".qk-handle")) return;
  const [x, y] = placeOf(event, field, extent);
  const far = tokens.map((z) => Math.hypot(z[0] - x, z[1] - y) * scale);
  const nearest = far.indexOf(Math.min(...far));
  if (far[nearest] < TOUCHABLE) view.set({ token: nearest });
}

// ---- handles -------------------------------------------------------------------------------------

// A tip to drag, or to turn with the arrow keys.
function addHandle(view, { extent }, field, { key, name, label, colour, tip }) {
  const look = { "text-anchor": "middle", "font-size": 17, fill: colour, "font-weight": 700 };
  const text = halo(shape("text", look, label));
  const drawn = { fill: colour, stroke: "#fff", "stroke-width": 2 };
  for (const [attribute, value] of Object.entries(drawn)) tip.setAttribute(attribute, value);
  const grip = shape("circle", { r: key === "u0" ? 24 : 15, fill: "transparent" });
  const spoken = { "aria-label": name, "aria-valuemin": -180, "aria-valuemax": 180 };
  const group = shape(
    "g",
    { class: "qk-handle", role: "slider", tabindex: 0, ...spoken },
    grip,
    tip,
    text,
  );
  field.marks.append(group);
  // a finger on a tip drags it, elsewhere it scrolls; `touch-action` has no effect within a drawing
  group.addEventListener("touchstart", (event) => event.preventDefault(), { passive: false });
  group.addEventListener("pointerdown", (event) => {
    group.setPointerCapture(event.pointerId);
    event.preventDefault();
    group.focus({ preventScroll: true });
  });
  group.addEventListener("pointermove", (event) => {
    if (!group.hasPointerCapture(event.pointerId)) return;
    const [x, y] = placeOf(event, field, extent);
    const angle = Math.round(Math.atan2(y, x) * (180 / Math.PI));
    if (Math.hypot(x, y) > 0.05) view.set({ [key]: angle });
  });
  group.addEventListener("keydown", (event) => {
    const way = { ArrowRight: 1, ArrowUp: 1, ArrowLeft: -1, ArrowDown: -1 }[event.key];
    if (!way) return;
    event.preventDefault();
    view.set({ [key]: wrapped(view.state[key] + way * (event.shiftKey ? 1 : 5)) });
  });
  return { key, group, text };
}

function moveHandle({ scale }, { key, group, text }, { state, head: { u, v } }) {
  const [x, y] = onPlane(scale, key === "u0" ? u[0] : v[0]);
  const length = Math.hypot(x, y);
  const side = key === "u0" ? 1 : -1;
  group.setAttribute("transform", `translate(${x} ${y})`);
  text.setAttribute("x", (side * 21 * y) / length);
  text.setAttribute("y", (side * -21 * x) / length + 5);
  group.setAttribute("aria-valuenow", state[key]);
  const aligned = signed(dot(u[0], v[0]));
  group.setAttribute("aria-valuetext", `${degrees(state[key])}, u₀ · v₀ = ${aligned}`);
}

// ---- what is drawn on the plane --------------------------------------------------------------------

function onPlane(scale, [x, y]) {
  return [x * scale, -y * scale];
}

function drawField(view, known, field, { state: { token }, wanted, liked }) {
  const { names, extent, limit } = known;
  const values = Float32Array.from({ length: CELLS * CELLS }, (_, n) => {
    const x = (((n % CELLS) + 0.5) / CELLS) * 2 - 1;
    const y = 1 - ((Math.floor(n / CELLS) + 0.5) / CELLS) * 2;
    return dot(wanted[token], [x * extent, y * extent]);
  });
  const scores = `the scores of token ${names[token]} with every place`;
  const name = `plane of tokens over ${scores}; ${likes(known, token, liked)}`;
  paintMap(view, field, values, { low: -limit, high: limit, colours: "PuOr", name });
}

function drawnOn(known, { state: { token }, head, wanted, liked }) {
  const { tokens } = known;
  const [second, first] = [1, 0].map((mode) => modeArrows(known, head, mode));
  return [
    ...levels(known, wanted[token]),
    ...wanted.map((tip, n) => wish(known, tip, n)),
    ...second,
    ...first,
    ...tokens.map((_, n) => dotOf(known, n, token, liked)),
    ...choices(known, token, liked),
  ];
}

// Lines of equal score; the score is linear, so they are straight.
function levels({ extent, limit, scale }, wanted) {
  const size = Math.hypot(...wanted);
  const step = limit > 8 ? 4 : limit > 3 ? 1 : limit > 1.5 ? 0.5 : 0.25;
  const reach = 0.93 * extent;
  const across = [-wanted[1] / size, wanted[0] / size];
  const drawn = [];
  for (let n = -Math.floor(limit / step); n <= limit / step; n++) {
    const away = (n * step) / size; // from the origin
    if (!(Math.abs(away) < reach)) continue;
    const on = (along) =>
      onPlane(
        scale,
        [0, 1].map((i) => (wanted[i] / size) * away + across[i] * along),
      );
    const [a, b, label] = [-3 * extent, 3 * extent, Math.sqrt(reach ** 2 - away ** 2)].map(on);
    const look = { stroke: GREY, "stroke-width": n ? 0.6 : 1.4, class: "qk-level" };
    const said = n > 0 ? `+${number(n * step)}` : number(n * step);
    drawn.push(shape("path", { d: `M${a}L${b}`, ...look }), word(label, said, 11));
  }
  return drawn;
}

function wish({ tokens, scale, shrunk }, wanted, n) {
  const tip = [0, 1].map((i) => tokens[n][i] + wanted[i] * shrunk);
  const look = { colour: GREY, width: 1.4, name: "qk-wish" };
  return arrow(onPlane(scale, tokens[n]), onPlane(scale, tip), look);
}

function modeArrows({ orange, blue, scale }, { u, v }, mode) {
  const look = mode ? { width: 2.2, dash: "7 4" } : { width: 4 };
  const ends = [
    [u[mode], orange, "u₁"],
    [v[mode], blue, "v₁"],
  ];
  const arrows = ends.map(([tip, colour]) => {
    return arrow([0, 0], onPlane(scale, tip), { colour, ...look, name: "qk-mode" });
  });
  if (!mode) return arrows;
  const letters = ends.map(([tip, colour, letter]) => {
    const text = word(
      onPlane(
        scale,
        tip.map((part) => part * 1.12),
      ),
      letter,
      15,
    );
    text.setAttribute("fill", colour);
    return text;
  });
  return [...arrows, ...letters];
}

function dotOf({ tokens, names, scale, roomy }, n, token, liked) {
  const [cx, cy] = onPlane(scale, tokens[n]);
  const special = n === token || liked.includes(n);
  const group = shape("g", { class: "qk-token" }, shape("title", {}, `token ${names[n]}`));
  const ring = { r: 9, fill: "#fff", stroke: INK, "stroke-width": 2.5 };
  if (n === token) group.append(shape("circle", { cx, cy, ...ring }));
  const look = { r: special ? 5 : 4, fill: INK, stroke: "#fff", "stroke-width": 1 };
  group.append(shape("circle", { cx, cy, ...look }));
  const inside = 1 - (n === token ? 20 : 15) / (Math.hypot(cx, cy) || 1);
  const name = short(names[n]);
  if (roomy || special) group.append(word([cx * inside, cy * inside], name, special ? 14 : 11));
  return group;
}

// From the token that asks to those that it likes best; a ring where that is itself.
function choices({ tokens, scale }, token, liked) {
  if (liked.length === tokens.length) return [];
  const [cx, cy] = onPlane(scale, tokens[token]);
  const ring = { r: 14, fill: "none", stroke: INK, "stroke-width": 3, class: "qk-choice" };
  const look = { colour: INK, width: 3, short: 7, name: "qk-choice" };
  return liked.map((n) => {
    if (n === token) return shape("circle", { cx, cy, ...ring });
    return arrow([cx, cy], onPlane(scale, tokens[n]), look);
  });
}

// ---- who attends to whom ---------------------------------------------------------------------------

// Returns a function that draws the map.
function attentionMap(view, known) {
  const { tokens, names, top, orange } = known;
  const map = addGrid(view, "", [tokens.length, tokens.length]);
  map.figure.classList.add("qk-square");
  map.box.addEventListener("click", (event) => {
    const { top: start, height } = map.box.getBoundingClientRect();
    const row = Math.floor(((event.clientY - start) / height) * tokens.length);
    view.set({ token: Math.min(tokens.length - 1, Math.max(0, row)) });
  });
  const side = (way, text) => {
    const said = [short(names[0]), text, short(names.at(-1))];
    return element(
      "div",
      { class: `qk-side qk-${way}` },
      ...said.map((each) => element("span", {}, each)),
    );
  };
  const sided = element(
    "div",
    { class: "qk-sided" },
    side("above", "answers →"),
    side("left", "asks →"),
  );
  map.box.before(sided);
  sided.append(map.box);
  addBar(view, "cividis", "attention", map.figure)("0", top.toFixed(2));
  map.caption.remove();
  map.figure.append(legend(known));
  return ({ state: { token }, attention, liked }) => {
    const name = `attention of ${tokens.length} tokens on each other; ${likes(known, token, liked)}`;
    paintMap(view, map, attention.flat(), { low: 0, high: top, colours: "cividis", name });
    const cells = liked.length < tokens.length ? liked : [];
    const frames = [[0, tokens.length], ...cells.map((n) => [n, 1])];
    map.marks.replaceChildren(
      ...frames.flatMap(([x, width]) => [
        frame(x, token, width, "#fff", 5),
        frame(x, token, width, orange, 2.5),
      ]),
    );
  };
}

function frame(x, y, width, stroke, thick) {
  const place = { x, y, width, height: 1, fill: "none" };
  return shape("rect", {
    ...place,
    stroke,
    "stroke-width": thick,
    "vector-effect": "non-scaling-stroke",
  });
}

// ---- words -----------------------------------------------------------------------------------------

function likes({ names, tokens }, token, liked) {
  if (liked.length === tokens.length) return `token ${names[token]} likes all tokens alike`;
  const others = liked.map((n) => (n === token ? "itself" : `token ${names[n]}`));
  return `token ${names[token]} likes ${others.join(" and ")} best`;
}

function inWords(known, { state, head, scores, attention, liked }) {
  const { cosines, weighted, trace, determinant, nuclear, ratio } = numbersOf(head);
  const none = "not defined: M is zero";
  const same = state.sigma0 === state.sigma1 && state.sigma0 > 0;
  const way = state.mirrored ? "the opposite" : "the same";
  const free = `σ₀ = σ₁: turn u₀ by any angle and v₀ by ${way} one, and M stays as it is`;
  const parts = `${signed(trace)} ÷ ${nuclear.toFixed(2)}`;
  const most = attention[state.token][liked[0]].toFixed(2);
  const score = `score ${signed(scores[liked[0]])}, attention ${most}`;
  return [
    ["matrix M", matrixOf(head.matrix)],
    ["determinant", signed(determinant)],
    ["cosine u₀ · v₀", signed(cosines[0])],
    ["cosine u₁ · v₁", signed(cosines[1])],
    ["weighted cosine", weighted === null ? none : signed(weighted)],
    ["tr M ÷ ‖M‖∗", ratio === null ? none : `${signed(ratio)} = ${parts}`],
    ["favourite", `${likes(known, state.token, liked)}: ${score}`],
    ["in short", inShort(known.tokens, attention)],
    ...(same ? [["degenerate", free]] : []),
  ];
}

// How alike a token and what it attends to are, next to attention that is spread evenly.
function inShort(tokens, attention) {
  const { found, even } = likeness(tokens, attention);
  const more = found - even;
  const [similar, dissimilar] = [more > 0.05, more < -0.05];
  const kind = similar ? "similar" : dissimilar ? "dissimilar" : "neither similar nor dissimilar";
  const cosine = `mean cosine ${signed(found)} (evenly spread: ${signed(even)})`;
  return `tokens attend to ${kind} tokens: ${cosine}`;
}

function howToRead() {
  const said = [
    "Plane: colour and numbered lines are the scores that the asking token gives to a key at that place. " +
      "Drag the tips of u₀ and v₀, or turn them with the arrow keys (Shift: by 1°). Click a token to let it ask. " +
      "Across: a token's first coordinate; up: its second. Dashed circle: length 1.",
    "Map: a row is the token that asks, a column the one that answers. A row is the softmax over its scores ÷ √2, " +
      "and sums to 1. Framed: the asking token's row, and in it the largest attention. Click a row to choose its token.",
  ];
  const notes = said.map((text) => element("p", { class: "qk-note" }, text));
  return element("details", {}, element("summary", {}, "How to read this"), ...notes);
}

function matrixOf(matrix) {
  const said = matrix.map((row) => row.map((entry) => signed(entry)));
  const name = `rows ${said.map((row) => row.join(", ")).join(" and ")}`;
  const cells = said.flat().map((entry) => element("span", {}, entry));
  return element("span", { class: "qk-matrix", role: "img", "aria-label": name }, ...cells);
}

function degrees(value) {
  return `${number(Math.round(value * 10) / 10)}°`;
}

function number(value) {
  return String(Math.round(value * 100) / 100).replace("-", "−");
}

function short(name) {
  return name.length > 8 ? `${name.slice(0, 7)}…` : name;
}

// ---- shapes ----------------------------------------------------------------------------------------

function halo(drawn) {
  const look = { stroke: "#fff", "stroke-width": 3, "paint-order": "stroke" };
  for (const [name, value] of Object.entries(look)) drawn.setAttribute(name, value);
  return drawn;
}

function word([x, y], text, size) {
  const look = { x, y: y + size / 3, "text-anchor": "middle", "font-size": size, fill: INK };
  return halo(shape("text", look, text));
}

// `short`: how far before its end the arrow stops.
function arrow(from, to, { colour, width, dash = "", short: gap = 0, name = "" }) {
  const [dx, dy] = [to[0] - from[0], to[1] - from[1]];
  const length = Math.hypot(dx, dy) || 1;
  const [x, y] = [dx / length, dy / length];
  const tip = [to[0] - x * gap, to[1] - y * gap];
  const long = Math.min(3 + 2.6 * width, length);
  const base = [tip[0] - x * long, tip[1] - y * long];
  const wide = long * 0.45;
  const sides = [1, -1].map((side) => [base[0] - side * y * wide, base[1] + side * x * wide]);
  const line = { d: `M${from}L${base}`, fill: "none" };
  const head = `M${tip}L${sides[0]}L${sides[1]}Z`;
  return shape(
    "g",
    { class: name },
    shape("path", { ...line, stroke: "#fff", "stroke-width": width + 2 }),
    shape("path", { ...line, stroke: colour, "stroke-width": width, "stroke-dasharray": dash }),
    shape("path", { d: head, fill: colour, stroke: "#fff", "stroke-width": 0.8 }),
  );
}

export default { render };
