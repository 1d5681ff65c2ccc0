// Every head's modes on a map; of the chosen mode its optimal pictures, red asking, cyan answering.

import { addChoice, addLabelled, addRange, addSelect } from "./controls.js";
import { element, sample, shape } from "./dom.js";
import { addAxes, addBar, addGrid, framePatch, paintMap, tell } from "./drawing.js";
import { Frame } from "./frame.js";
import { part, unpack } from "./math/arrays.js";
import { clipped, compose, greyOf, patchOfPixel, strongest } from "./math/overlay.js";
import { placeName, signed } from "./words.js";

const MAPS = {
  weighted_cosine: { label: "weighted cosine", colours: "PuOr" },
  cosine: { label: "cosine", colours: "PuOr" },
  sigma: { label: "σ", colours: "cividis" },
  carried: { label: "carried share", colours: "cividis" },
};
const SHOWN = { both: "both", query: "query", key: "key" };
const SIGNS = { 1: "+", "-1": "−" };
const MARKS = [
  null,
  "null mode: the weights can't tell its σ from zero",
  "degenerate: another mode has nearly its σ, and rounding alone would turn its directions",
  "null and degenerate mode: the weights can't tell its σ from zero",
];
const NUMBERS = [
  "image",
  "score",
  "query_patch",
  "key_patch",
  "query",
  "key",
  "query_limit",
  "key_limit",
];
const REST = 150; // milliseconds; a slider passes many modes

function render(context) {
  const view = new Frame(context);
  const { sizes, naming } = view.data;
  const facts = {};
  for (const [name, sent] of Object.entries(view.data.facts)) facts[name] = unpack(sent);
  const known = {
    facts,
    shelf: new Map(),
    galleries: [opened(view.data.gallery)],
    live: false, // whether Python answers
    waits: "", // for what
    others: new Map(), // maps of modes on pictures that were asked for
  };

  putOnShelf(known, view.data.pictures);
  addControls(view, known);
  const drawHeads = headMap(view, facts);
  const drawSpectrum = spectrum(view, facts);
  const drawGallery = pictures(view, known);
  const note = element("p", { class: "qk-note", role: "status" });
  const scale = legend();
  const carried = element("p", { class: "qk-note" }, cargo(view.data));
  view.stage.append(view.facts, note, scale.row);
  const tellNames = naming ? disclosure(view, known) : () => {};
  view.tools.before(carried);

  const draw = (state) => {
    check(state, sizes, facts);
    drawHeads(state);
    drawSpectrum(state);
    scale.set(drawGallery(state));
    tell(view.facts, rows(state, facts));
    tellNames(state);
    note.textContent = missing(view, known, state);
  };
  return view.begin(draw, ({ pictures: count }) => {
    known.live = true;
    offerPictures(view, count);
    view.redraw();
  });
}

function addControls(view, known) {
  const { sizes } = view.data;
  const choices = (names) => Object.entries(names).map(([value, label]) => ({ value, label }));
  const colourings = Object.entries(MAPS).filter(([name]) => known.facts[name]);
  const labels = colourings.map(([value, { label }]) => ({ value, label }));
  addSelect(view, "colour heads by", "colour", labels);
  const show = (mode) => `M${mode} of ${sizes.mode}${reach(view, known)}`;
  addRange(view, "mode", "mode", { min: 0, max: sizes.mode - 1, show });
  const signs = [1, -1].map((value) => ({ value, label: SIGNS[value] }));
  addChoice(view, "sign", "sign", signs);
  addChoice(view, "show", "show", choices(SHOWN));
}

// Where the pictures of the chosen head stop.
function reach(view, { live }) {
  const { layers, heads, modes } = view.data.gallery;
  const { layer, head } = view.state;
  if (live || modes.length === view.data.sizes.mode) return "";
  if (!layers.includes(layer) || !heads.includes(head)) return " (no pictures of this head)";
  if (modes.at(-1) === modes.length - 1) return ` (pictures to M${modes.at(-1)})`;
  return ` (pictures of ${modes.map((mode) => `M${mode}`).join(", ")})`;
}

function offerPictures(view, count) {
  const look = { type: "number", min: 0, max: count - 1, placeholder: "none" };
  const control = element("input", look);
  addLabelled(view, `one more picture (0 to ${count - 1})`, control);
  control.addEventListener("change", () => {
    view.set({ picture: control.value === "" ? null : control.valueAsNumber });
  });
  view.bound.push(({ picture }) => (control.value = picture ?? ""));
}

function check(state, sizes, facts) {
  for (const [name, count] of Object.entries(sizes)) {
    const value = state[name];
    if (!Number.isInteger(value) || value < 0 || value >= count) {
      throw new Error(`${name} ${value}: there are 0 to ${count - 1}`);
    }
  }
  if (state.colour === "carried" && !facts.carried) {
    throw new Error("colour carried: it was not measured in this scan");
  }
  for (const [name, choices] of Object.entries({ sign: SIGNS, show: SHOWN, colour: MAPS })) {
    if (state[name] in choices) continue;
    throw new Error(`${name} ${state[name]}: there are ${Object.keys(choices).join(", ")}`);
  }
}

// ---- the map of heads ----------------------------------------------------------------------------

// Returns a function that draws the map.
function headMap(view, facts) {
  const { sizes } = view.data;
  const at = () => view.state.head * sizes.layer + view.state.layer;
  const placeOf = (n) => ({ layer: n % sizes.layer, head: Math.floor(n / sizes.layer) });
  const caption = "Click or arrow key to choose";
  const choose = (n) => view.set(placeOf(n));
  const map = addGrid(view, caption, [sizes.head, sizes.layer], { at, choose });
  map.figure.classList.add("qk-heads");
  map.figure.style.flexBasis = `${Math.max(16.2, 1.35 * sizes.layer) + 2.4}rem`;
  map.box.setAttribute("aria-roledescription", "map of heads; arrow keys choose a head");
  map.box.append(ticks(sizes));
  const bars = {
    PuOr: barOf(view, map, "PuOr", "cosine"),
    cividis: barOf(view, map, "cividis", ""),
  };

  return (state) => {
    const { label, colours } = MAPS[state.colour];
    const values = Float32Array.from({ length: sizes.layer * sizes.head }, (_, n) =>
      valueOf(facts[state.colour], { ...placeOf(n), mode: state.mode }),
    );
    const share = state.colour === "carried";
    const [low, high] = colours === "PuOr" ? [-1, 1] : [0, Math.max(...values)];
    const say = share ? percent : number;
    const here = say(valueOf(facts[state.colour], state));
    const what = state.colour === "weighted_cosine" ? label : `${label} of mode ${state.mode}`;
    const name = `${what} by layer and head; layer ${state.layer}, head ${state.head}: ${here}`;
    paintMap(view, map, values, { low, high, colours, name });
    framePatch(view, map, at(), "#000");
    for (const [each, { row }] of Object.entries(bars)) row.hidden = each !== colours;
    bars[colours].set(say(low), say(high));
    bars.cividis.text.textContent = share ? "carried share" : "σ";
  };
}

function barOf(view, map, colours, text) {
  const set = addBar(view, colours, text, map.figure);
  const row = map.figure.lastElementChild;
  return { set, row, text: row.firstElementChild };
}

function ticks({ layer, head }) {
  const look = { viewBox: `0 0 ${layer} ${head}`, class: "qk-ticks", "aria-hidden": "true" };
  const svg = shape("svg", look);
  const unit = Math.min(1, layer / 12); // cells of fewer layers are larger, words are not
  const plain = { "text-anchor": "middle", "font-size": 0.56 * unit };
  const word = (place, text) => shape("text", { ...plain, ...place }, String(text));
  const step = layer > 14 ? 2 : 1;
  for (let n = 0; n < layer; n += step) svg.append(word({ x: n + 0.5, y: head + 0.7 * unit }, n));
  for (let n = 0; n < head; n++) {
    svg.append(word({ x: -0.2 * unit, y: n + 0.5 + 0.2 * unit, "text-anchor": "end" }, n));
  }
  const turned = { transform: `translate(${-1.2 * unit} ${head / 2}) rotate(-90)` };
  svg.append(word({ x: layer / 2, y: head + 1.4 * unit }, "layer"), word(turned, "head"));
  return svg;
}

// A number of a head, or of its mode.
function valueOf({ shape: size, values }, { layer, head, mode }) {
  const at = layer * size[1] + head;
  return size.length === 2 ? values[at] : values[at * size[2] + mode];
}

// ---- the modes of the chosen head ------------------------------------------------------------------

// Bars for what modes carry, under a line for what they have of the sum of σ; returns a function
// that draws them.
function spectrum(view, facts) {
  const count = view.data.sizes.mode;
  const [last, width] = [count - 1, 300];
  const xticks = [...new Set([0, 1, 2, 3].map((third) => Math.round((third * last) / 3)))];
  const chart = addAxes(view, {
    x: [-0.5, last + 0.5],
    y: [0, 1],
    xticks,
    yticks: [0, 0.5, 1],
    xlabel: "mode of the chosen head",
    ylabel: "share",
    width,
    height: 170,
  });
  const fill = view.look.palette[0];
  const item = (...parts) => element("span", { class: "qk-item" }, ...parts);
  const bar = shape("rect", { width: 14, height: 10, fill, class: "qk-curve" });
  const line = shape("path", { d: "M0 5H14", class: "qk-strength" });
  if (facts.carried) {
    chart.caption.append(item(sample(14, 10, bar), "carried share"));
  }
  chart.caption.append(item(sample(14, 10, line), "share of σ"), "Click to choose");
  chart.svg.classList.add("qk-small", "qk-pick");
  chart.svg.addEventListener("click", (event) => {
    const box = chart.svg.getBoundingClientRect();
    const at = ((event.clientX - box.left) / box.width) * width - chart.left;
    const mode = Math.floor((at / (chart.right - chart.left)) * count);
    view.set({ mode: Math.min(last, Math.max(0, mode)) });
  });
  return (state) => drawShares(chart, facts, state, fill);
}

function drawShares({ x, y, ink, svg, bottom, top }, facts, { layer, head, mode }, fill) {
  const [sigma, carries] = [facts.share, facts.carried].map(
    (each) => each && part(each, layer, head),
  );
  const bars = Array.from(carries ?? [], (value, n) => {
    const place = { x: x(n - 0.4), y: y(value), width: x(0.8) - x(0), height: bottom - y(value) };
    return shape("rect", { ...place, fill, class: "qk-curve" });
  });
  const line = (value, n) => `M${x(n - 0.45)} ${y(value)}H${x(n + 0.45)}`;
  const lines = Array.from(sigma, line).join("");
  const place = { x: x(mode - 0.5), y: top, width: x(1) - x(0), height: bottom - top };
  ink.replaceChildren(
    ...bars,
    shape("path", { d: lines, class: "qk-strength" }),
    shape("rect", { ...place, class: "qk-chosen" }),
  );
  const order = Array.from(sigma.keys()).sort(
    (a, b) => (carries ?? sigma)[b] - (carries ?? sigma)[a],
  );
  const both = (n) => `${percent(carries[n])} (σ ${percent(sigma[n])})`;
  const say = (n) => `M${n} ${carries ? both(n) : percent(sigma[n])}`;
  const what = carries ? "carried share and share of σ" : "share of σ";
  const most = order.slice(0, 3).map(say).join(", ");
  svg.setAttribute(
    "aria-label",
    `${what} of each mode of layer ${layer}, head ${head}; most: ${most}`,
  );
}

// ---- pictures --------------------------------------------------------------------------------------

// Returns a function that draws the chosen mode's pictures and gives the projections of full
// colour; null where this mode has no pictures here.
function pictures(view, known) {
  const { shape: size, grid, top } = view.data;
  const easel = { view, known, size, grid, patches: patchOfPixel(size, grid) };
  const [other, ...slots] = pictureSlots(view, size, top + 1);
  return (state) => {
    const found = placed(known, state);
    if (!found) {
      for (const slot of [...slots, other]) clear(slot, "");
      return null;
    }
    slots.forEach((slot, rank) => drawRank(easel, slot, found, state, rank));
    const { gallery, at } = found;
    const [query, key] = [gallery.query_limit, gallery.key_limit].map(
      (each) => part(each, ...at)[0],
    );
    drawOther(easel, other, state, { query, key });
    return { query, key };
  };
}

// Figures of a picture above its overlay; the first is made for a picture that was asked for.
function pictureSlots(view, [height, width], count) {
  const stage = view.stage;
  view.stage = element("div", { class: "qk-pictures" });
  stage.append(element("div", { class: "qk-shelf" }, view.stage));
  const slots = Array.from({ length: count }, () => {
    const slot = addGrid(view, "", [height, width]);
    const plain = element("canvas", { width, height });
    const above = element("div", { class: "qk-grid qk-plain", role: "img" }, plain);
    above.style.aspectRatio = slot.box.style.aspectRatio;
    slot.figure.classList.add("qk-picture");
    slot.box.classList.add("qk-overlay");
    slot.box.before(above);
    return { ...slot, above, plain };
  });
  view.stage.append(slots[0].figure); // last
  view.stage = stage;
  return slots;
}

function placed({ galleries }, { layer, head, mode }) {
  for (const gallery of galleries) {
    const { layers, heads, modes } = gallery;
    const at = [layers.indexOf(layer), heads.indexOf(head), modes.indexOf(mode)];
    if (!at.includes(-1)) return { gallery, at };
  }
  return null;
}

function drawRank(easel, slot, { gallery, at }, { sign, show }, rank) {
  if (rank >= gallery.image.shape[4]) return clear(slot, "");
  const numbers = (name) => part(gallery[name], ...at, sign === 1 ? 0 : 1, rank);
  const [image] = numbers("image");
  if (image < 0)
    return clear(slot, "no further picture has patches at this end of both directions");
  const [[score], [asks], [answers]] = ["score", "query_patch", "key_patch"].map(numbers);
  const maps = { query: numbers("query"), key: numbers("key") };
  return paint(easel, slot, { image, maps, show, title: `${rank + 1}. `, score, asks, answers });
}

// A picture that was asked for by its number, on the scale of the mode's optimal pictures.
function drawOther(easel, slot, state, limits) {
  const { picture: image, show } = state;
  const one = easel.known.others.get(placeKey(state, image));
  if (!one) return clear(slot, "");
  const [query, key] = [0, 1].map((side) => part(one, side).map((value) => value * state.sign));
  const maps = { query: clipped(query, limits.query), key: clipped(key, limits.key) };
  const found = strongest(query, key);
  return paint(easel, slot, { image, maps, show, title: `picture ${image}: `, ...found });
}

function clear(slot, why) {
  slot.wanted = null;
  slot.figure.hidden = !why;
  slot.caption.textContent = why;
  for (const canvas of [slot.plain, slot.canvas]) {
    canvas.getContext("2d").clearRect(0, 0, canvas.width, canvas.height);
  }
  for (const box of [slot.above, slot.box]) box.setAttribute("aria-label", why || "no picture");
}

// A picture is decoded once; until it is, what the slot showed before stays there.
function paint(easel, slot, wanted) {
  slot.wanted = wanted;
  const sent = easel.known.shelf.get(String(wanted.image));
  if (sent.pixels) return put(easel, slot, wanted, sent);
  sent.decoding ??= decoded(sent, easel.size).then((pixels) => (sent.pixels = pixels));
  return sent.decoding.then(
    () => slot.wanted === wanted && put(easel, slot, wanted, sent),
    () => easel.view.complain(`the picture ${sent.key} can't be decoded`),
  );
}

async function decoded({ bytes, type }, [height, width]) {
  const bitmap = await createImageBitmap(new Blob([bytes], { type }));
  const canvas = element("canvas", { width, height });
  const pen = canvas.getContext("2d", { willReadFrequently: true });
  pen.drawImage(bitmap, 0, 0);
  const image = pen.getImageData(0, 0, width, height);
  return { image, grey: greyOf(image.data) };
}

function put({ size, grid, patches }, slot, wanted, { key, pixels }) {
  const { maps, show, title, score, asks, answers } = wanted;
  slot.figure.hidden = false;
  const [query, answer] = ["query", "key"].map(
    (side) => ["both", side].includes(show) && maps[side],
  );
  const image = new ImageData(size[1], size[0]);
  compose(image.data, pixels.grey, patches, query, answer);
  slot.canvas.getContext("2d").putImageData(image, 0, 0);
  slot.plain.getContext("2d").putImageData(pixels.image, 0, 0);
  slot.above.setAttribute("aria-label", `${title}${key}, the picture itself`);
  const said = score === null ? "no score: nothing at one end" : `score ${number(score)}`;
  slot.caption.textContent = `${title}${key}, ${said}`;
  const where = `asks most at ${placeName(asks, grid)}, answers most at ${placeName(answers, grid)}`;
  slot.box.setAttribute("aria-label", `${title}${key}; shown: ${SHOWN[show]}; ${said}; ${where}`);
}

// For full colours: red is what asks, cyan is what answers, with the projections they stand for.
function legend() {
  const ends = { query: element("span"), key: element("span") };
  const item = (...parts) => element("span", { class: "qk-item" }, ...parts);
  const ramp = (name) => {
    return element("span", { class: `qk-ramp qk-ramp-${name}`, "aria-hidden": "true" });
  };
  const row = element(
    "div",
    { class: "qk-bar" },
    item("red asks (query): 0", ramp("query"), ends.query),
    item("cyan answers (key): 0", ramp("key"), ends.key),
    item(ramp("both"), "white does both"),
  );
  const set = (limits) => {
    row.hidden = !limits;
    for (const side of limits ? ["query", "key"] : [])
      ends[side].textContent = number(limits[side]);
  };
  return { row, set };
}

// ---- facts -----------------------------------------------------------------------------------------

function rows(state, facts) {
  const { layer, head, mode, sign } = state;
  const value = (name) => valueOf(facts[name], state);
  const whole = `weighted, of the whole head: ${signed(value("weighted_cosine"))}`;
  const of = "of the logit variance of the head's modes and key salience on the pictures";
  const told = [
    [`mode ${mode}`, `layer ${layer}, head ${head}, sign ${SIGNS[sign]}`],
    ["cosine", `${signed(value("cosine"))} (${whole})`],
    ["σ", `${number(value("sigma"))}, ${percent(value("share"))} of the sum over the head`],
    [
      "carried share",
      facts.carried ? `${percent(value("carried"))} ${of}` : "not measured in this scan",
    ],
  ];
  const mark = MARKS[value("mark")];
  return mark ? [...told, ["mark", mark]] : told;
}

// Names are told on demand, so that a reader can look first.
function disclosure(view, known) {
  const button = element("button", { type: "button" }, `show the ${view.data.naming}`);
  const place = element("div", { class: "qk-facts", "aria-live": "polite" });
  view.stage.append(element("div", { class: "qk-disclosure" }, button, place));
  button.addEventListener("click", () => view.set({ named: !view.state.named }));
  return (state) => {
    button.setAttribute("aria-expanded", String(Boolean(state.named)));
    place.hidden = !state.named;
    if (!state.named) return tell(place, []);
    const names = placed(known, state)?.gallery.names[placeKey(state)] ?? [];
    const told = names.map((name) => nameOf(name, state.sign));
    return tell(place, told.length ? told : [["name", "none here for this mode"]]);
  };
}

// ---- what the page does not carry ------------------------------------------------------------------

function placeKey({ layer, head, mode }, ...more) {
  return [layer, head, mode, ...more].join(" ");
}

// Says what is not there, and has Python compute it where it can.
function missing(view, known, state) {
  const { layer, head, mode, picture } = state;
  if (!placed(known, state)) {
    const what = `layer ${layer}, head ${head}, mode ${mode}`;
    if (!known.live)
      return `This page has no pictures of ${what}; a notebook with the model computes them.`;
    want(view, known, { layer, head, mode }, ({ gallery }) =>
      known.galleries.push(opened(gallery)),
    );
    return "Looking for the pictures of this mode …";
  }
  const place = placeKey(state, picture);
  if (!known.live || picture === null || known.others.has(place)) {
    known.waits = "";
    return "";
  }
  const take = ({ maps }) => known.others.set(place, unpack(maps));
  want(view, known, { layer, head, mode, picture }, take);
  return `Looking at picture ${picture} …`;
}

// Ask once, and only for what is still wanted a moment later.
function want(view, known, request, take) {
  const place = Object.values(request).join(" ");
  if (known.waits === place) return;
  known.waits = place;
  const ask = () => {
    if (known.waits === place) view.ask(request, received);
  };
  const received = (found) => {
    putOnShelf(known, found.pictures);
    take(found);
    if (known.waits === place) known.waits = "";
    view.redraw();
  };
  view.later(ask, REST);
}

// Copies of what was sent, since pixels are kept with them and not with the widget's state.
function putOnShelf({ shelf }, sent) {
  for (const [n, one] of Object.entries(sent)) if (!shelf.has(n)) shelf.set(n, { ...one });
}

// What Python sent of some modes: numbers over [layer, head, mode, sign, rank], maps over patches.
function opened(sent) {
  return { ...sent, ...Object.fromEntries(NUMBERS.map((name) => [name, unpack(sent[name])])) };
}

// Three digits that count.
function number(value) {
  return String(Number(value.toPrecision(3))).replace("-", "−");
}

function percent(share) {
  return `${Number((100 * share).toPrecision(2))} %`;
}

// A given name, or the measured one of a direction.  A test that is not passed shows no equality.
function nameOf(name, sign) {
  if (name.text !== undefined) return ["name", name.text];
  const short = (value) => Number(value.toPrecision(2));
  const verdict = (what, p, q) =>
    `${q < 0.05 ? "passes" : "does not pass"} the test against ${what} ` +
    `(p = ${short(p)}, corrected ${short(q)})`;
  const share = (100 * name.share).toFixed(0).replace("-", "−");
  const said = [
    `${sign > 0 ? name.high : name.low} (family ${name.family})`,
    `explained share ${share} % on other scenes`,
    verdict("labels of other scenes", name.p, name.q),
    verdict("leaning random directions", name.p_random, name.q_random),
  ];
  return [`${name.side} name`, said.join("; ")];
}

// Whose pictures a page without a kernel has.
function cargo({ gallery, pictures: shown, sizes }) {
  const some = (name) => {
    const numbers = gallery[`${name}s`];
    const last = numbers.at(-1);
    if (numbers.length === sizes[name]) return `all ${name}s`;
    if (numbers.length === 1) return `${name} ${last}`;
    const inTurn = numbers.length > 2 && last - numbers[0] === numbers.length - 1;
    if (inTurn) return `${name}s ${numbers[0]} to ${last}`;
    return `${name}s ${numbers.slice(0, -1).join(", ")} and ${last}`;
  };
  const whose = ["mode", "head", "layer"].map(some).join(" of ");
  const [each, different] = [gallery.image.shape.at(-1), Object.keys(shown).length];
  const many = `${each} for each sign (${different} different ones)`;
  return `Carried here: facts of all modes; pictures of ${whose}, ${many}.`;
}

export default { render };
