// One image, many modes: what each mode of a head gives to its scores, and their sum, mode by mode.

import {
  addChoice,
  addFile,
  addLabelled,
  addRange,
  addSelect,
  addSteps,
  addToggle,
} from "./controls.js";
import { element, sample, shape } from "./dom.js";
import {
  addAxes,
  addBar,
  addGrid,
  addPanel,
  framePatch,
  paintMap,
  resize,
  showPicture,
  tell,
} from "./drawing.js";
import { Frame } from "./frame.js";
import { upTo } from "./math/arrays.js";
import { attentionRow, meanOf } from "./math/attention.js";
import {
  askersOf,
  distances,
  meanDistances,
  once,
  orderOf,
  ownRow,
  sceneOf,
  takenApart,
} from "./math/explain.js";
import { exact, listed, nth, placeName, signed } from "./words.js";

const [EVEN, TWO_SIDED] = ["cividis", "PuOr"];
const LARGEST_UPLOAD = 7e6; // bytes; Jupyter takes messages of ten million, and text is a third more
const STRIP = { width: 370, height: 112, left: 52, top: 12, bottom: 92 };
const SLICE = 4; // milliseconds of computing before the browser may do something else
const ORDERS = [
  { value: "contribution", label: "contribution" },
  { value: "sigma", label: "σ" },
];
const WORDS =
  "Contribution: σ times the asker's projection on the query direction, times the largest projection of a " +
  "patch on the key direction. The better of the two signs counts, and the largest of several askers. " +
  "Share: the mode's covariance over keys with the whole logit, divided by the variance of the whole. " +
  "A mode with a share below zero works against the others. Key salience, κ · z: what is added to a key's " +
  "score whoever asks. It comes from the query bias and from LayerNorm's shift. The switch removes it from " +
  "the rebuilt attention only. Attention elsewhere: total variation from the model's own attention.";

function render(context) {
  const view = new Frame(context);
  const scene = sceneOf(view.data);
  // `drawn` is what was drawn last: the head, its modes in order, the shown one.
  const shown = {
    scene,
    here: { model: scene.model, image: 0 },
    live: false,
    drawn: null,
    address: "",
  };
  const addPart = parts(view);
  addPart("Who asks?", "qk-narrow");
  const asker = askerPart(view, shown);
  addPart("One mode alone");
  const mode = modePart(view, shown, addPart);
  addPart("The first modes added up", "qk-wide");
  const sum = sumPart(view, shown);
  const note = element("p", { class: "qk-note" });
  view.facts.after(note);
  const maps = [...asker.maps, ...mode.maps, ...sum.maps];

  // Everything that depends on the image and the model, not on what is chosen.
  const furnish = () => {
    view.giveBack(shown.address);
    const { bytes, type } = shown.scene.picture;
    shown.address = view.address(bytes, type);
    for (const map of maps) resize(map, shown.scene.grid);
    mode.furnish();
    sum.furnish();
    if (shown.live) asker.offer();
    note.textContent = `${WORDS} ${cargo(shown)}`;
  };
  const draw = (state) => {
    const now = chosen(view, shown, state);
    if (!now) return;
    shown.drawn = now;
    for (const map of maps) mark(view, map, state);
    for (const each of [asker, mode, sum]) each.draw(now);
  };
  furnish();
  return view.begin(draw, (offers) => {
    shown.live = true;
    offerMore(view, shown, offers, furnish);
    furnish();
    view.redraw();
  });
}

// Returns a function that begins a part of the view with a name of its own: controls and panels
// that are made after it belong to that part.
function parts(view) {
  const all = element("div", { class: "qk-parts" });
  view.stage.replaceWith(all);
  return (name, kind = "") => {
    view.controls = element("div", { class: "qk-controls" });
    view.stage = element("div", { class: "qk-stage" });
    const look = { class: `qk-part ${kind}`, role: "group", "aria-label": name };
    const heading = element("div", { class: "qk-name" }, name);
    all.append(element("div", look, heading, view.controls, view.stage));
  };
}

// Two maps with one scale stay together.
function addPair(view, { grid }, colours, text) {
  const outer = view.stage;
  view.stage = element("div", { class: "qk-stage qk-pair" });
  outer.append(view.stage);
  const made = [addGrid(view, "", grid), addGrid(view, "", grid), addBar(view, colours, text)];
  view.stage = outer;
  return made;
}

function mark(view, map, { asks, patch }) {
  if (asks === "patch") framePatch(view, map, patch, "#fff", "#000");
  else map.marks.replaceChildren();
}

// ---- what is chosen ----------------------------------------------------------------------------

// What a state says of the scene; nothing where it is not here, or Python still has to be asked.
function chosen(view, shown, state) {
  const { scene } = shown;
  const head = headAt(view, shown, state);
  if (!head) return null;
  const askers = askersOf(state, scene);
  if (!askers)
    return view.complain(`${state.asks}, patch ${state.patch}: ${scene.model} has no such token`);
  const about = takenApart(head, askers, scene);
  const order = orderOf(state.order, head, about.contribution);
  const mode = state.mode ?? order[0];
  if (!order.includes(mode)) return view.complain(`mode ${mode}: there are 0 to ${head.modes - 1}`);
  const kept = Math.max(0, Math.min(state.kept, head.modes));
  const at = order.indexOf(mode);
  return { state, scene, head, askers, about, order, at, kept, mode, who: whoAsks(state, scene) };
}

function headAt(view, shown, { layer, head }) {
  const { scene, here, live } = shown;
  const found = scene.find(layer, head);
  if (found) return found;
  if (!live)
    return view.complain(
      `layer ${layer}, head ${head} is not on this page; a notebook with the model computes it`,
    );
  view.ask({ ...here, layer, head }, ({ head: sent }) => {
    scene.add(sent);
    if (scene === shown.scene) view.redraw();
  });
  return null;
}

// ---- who asks ----------------------------------------------------------------------------------

function askerPart(view, shown) {
  const { scene } = shown;
  const change = () => ({ mode: null }); // another head's modes are other ones
  const offerLayers = addSteps(view, "layer", "layer", scene.layers, String, change);
  const offerHeads = addSteps(view, "head", "head", scene.ofLayer, String, change);
  const offerAskers = addSelect(view, "asks", "asks", askerChoices(scene));
  const choose = (patch) => view.set({ patch, asks: "patch" });
  const photo = addGrid(view, "", scene.grid, { at: () => view.state.patch, choose });
  const offer = () => {
    offerLayers(upTo(shown.scene.size[0]));
    offerHeads(upTo(shown.scene.size[1]));
    offerAskers(askerChoices(shown.scene));
  };
  const draw = ({ scene: { name }, who }) => {
    showPicture(photo, shown.address, `the picture; ${who}`);
    photo.caption.textContent = `${name}: ${who}. Click, or use the arrow keys`;
  };
  return { maps: [photo], offer, draw };
}

function askerChoices({ prefix }) {
  const others = prefix.map((name) => ({ value: name, label: `the ${name}` }));
  const patches = [
    { value: "patch", label: "the framed patch" },
    { value: "all", label: "all patches" },
  ];
  return [...patches, ...others];
}

// ---- one mode ----------------------------------------------------------------------------------

function modePart(view, shown, addPart) {
  addChoice(view, "order by", "order", ORDERS, () => ({ mode: shown.drawn.mode }));
  const slider = element("input", { type: "range", min: 0, step: 1 });
  const said = element("output");
  addLabelled(view, "look at mode", slider).after(said);
  slider.addEventListener("input", () =>
    view.set({ mode: shown.drawn.order[slider.valueAsNumber] }),
  );
  const [queryMap, keyMap, setBar] = addPair(view, shown.scene, TWO_SIDED, "projection of a patch");
  addPart("Share of the logit");
  const strip = addPanel(
    view,
    "First κ, key salience, then the modes in this order. Full colour: added up below. Frame: the mode " +
      "looked at. A share below zero works against the others.",
  );
  const look = { viewBox: `0 0 ${STRIP.width} ${STRIP.height}`, role: "img" };
  const bars = shape("svg", { ...look, class: "qk-axes qk-small" });
  strip.figure.prepend(bars);
  const maps = [queryMap, keyMap];
  const draw = (now) => {
    const limit = drawSides(view, maps, now);
    setBar(exact(-limit), exact(limit));
    slider.value = now.at;
    said.textContent = `M${now.mode} (${nth(now.at + 1)})`;
    slider.setAttribute("aria-valuetext", ranked(now));
    drawShares(bars, now, view.look.palette);
  };
  return { maps, furnish: () => (slider.max = shown.scene.modes - 1), draw };
}

// Query and key map of a mode; returns the largest projection on both.
function drawSides(view, maps, { scene, head, mode }) {
  const names = ["query map: what asks", "key map: what answers"];
  const values = [head.ask, head.key].map((side) => patchesOf(scene, side, head.modes, mode));
  const limit = Math.max(...values.flatMap((some) => Array.from(some, Math.abs)));
  maps.forEach((map, n) => {
    const range = `from ${exact(Math.min(...values[n]))} to ${exact(Math.max(...values[n]))}`;
    const name = `M${mode}, ${names[n]}, ${range}`;
    paintMap(view, map, values[n], { low: -limit, high: limit, colours: TWO_SIDED, name });
    map.caption.textContent = `M${mode}, ${names[n]}`;
  });
  return limit;
}

function patchesOf({ patches, first }, side, modes, mode) {
  return Float32Array.from({ length: patches }, (_, n) => side[(first + n) * modes + mode]);
}

// A bar for key salience and one for each mode, up from zero or down from it.
function drawShares(bars, { head, about, order, at, kept, mode, state }, palette) {
  const all = [about.salience, ...order.map((number) => about.share[number])];
  const [low, high] = [Math.min(0, ...all), Math.max(0, ...all)];
  const unit = (STRIP.bottom - STRIP.top) / (high - low || 1);
  const [zero, step] = [STRIP.top + high * unit, (STRIP.width - STRIP.left) / (head.modes + 2)];
  const middle = (n) => STRIP.left + (n ? n + 1.5 : 0.75) * step; // a gap after key salience
  const rect = (value, n) => {
    const used = n ? n <= kept : state.salience;
    const place = { x: middle(n) - 0.4 * step, width: 0.8 * step, height: Math.abs(value) * unit };
    const look = { fill: palette[n ? 0 : 2], opacity: used ? 1 : 0.35, class: "qk-curve" };
    return shape("rect", { ...place, y: zero - Math.max(value, 0) * unit, ...look });
  };
  const box = { x: middle(at + 1) - 0.5 * step, width: step };
  const frame = { ...box, y: STRIP.top - 4, height: STRIP.bottom - STRIP.top + 8, fill: "none" };
  const left = { x: STRIP.left - 5, "text-anchor": "end" };
  const below = { y: STRIP.height - 3, "text-anchor": "middle" };
  const ends = [
    [high, STRIP.top + 4],
    [low, STRIP.bottom + 4],
  ];
  const apart = ends.filter(([value, y]) => value && Math.abs(y - zero) > 16);
  bars.replaceChildren(
    ...all.map(rect),
    shape("path", { d: `M${STRIP.left} ${zero}H${STRIP.width}`, class: "qk-axis" }),
    shape("rect", { ...frame, stroke: "var(--qk-text)", "stroke-width": 1.5 }),
    ...apart.map(([value, y]) => shape("text", { ...left, y }, share(value, 0))),
    shape("text", { ...left, y: zero + 4 }, "0"),
    shape("text", { ...below, x: middle(0) }, "κ"),
    shape("text", { ...below, x: Math.max(middle(at + 1), middle(0) + 24) }, `M${mode}`),
  );
  const first = order
    .slice(0, 3)
    .map((n) => `M${n} ${share(about.share[n])}`)
    .join(", ");
  const salience = `key salience ${share(about.salience)}`;
  const said = `share of the logit: ${salience}; modes in this order, beginning with ${first}; now M${mode}`;
  bars.setAttribute("aria-label", said);
}

// ---- modes added up ----------------------------------------------------------------------------

function sumPart(view, shown) {
  const show = (kept) => `${modesIn(kept)} by ${orderName(view.state)}`;
  const slider = addRange(view, "add up the first", "kept", { min: 0, max: 0, show });
  addToggle(view, "add key salience κ · z", "salience");
  const [builtMap, ownMap, setBar] = addPair(view, shown.scene, EVEN, "attention");
  const maps = [builtMap, ownMap];
  for (const map of maps) {
    map.before = element("div", { class: "qk-cells" });
    map.box.before(map.before);
  }
  const stage = view.stage;
  let chart = null;
  const furnish = () => {
    slider.max = shown.scene.modes;
    chart?.figure.remove();
    view.stage = stage;
    chart = addChart(view, shown.scene);
  };
  const draw = (now) => {
    setBar("0", percent(drawRows(view, maps, now)));
    measure(view, chart, now);
  };
  return { maps, furnish, draw };
}

function addChart(view, { modes }) {
  const xticks = [0, 0.25, 0.5, 0.75, 1].map((part) => Math.round(part * modes));
  const chart = addAxes(view, {
    x: [0, modes],
    y: [0, 1],
    xticks,
    yticks: [0, 0.5, 1],
    xlabel: "modes kept",
    ylabel: "attention elsewhere",
    width: 380,
    height: 190,
  });
  chart.svg.classList.add("qk-small");
  const dash = (dashes) => sample(28, 10, line(view, dashes, "M0 5H28"));
  chart.caption.append(dash(""), " this asker ", dash("6 3"), " mean over all patches, same modes");
  return chart;
}

function line(view, dash, d) {
  const look = { fill: "none", stroke: view.look.palette[0], "stroke-width": 2 };
  return shape("path", { d, ...look, "stroke-dasharray": dash, class: "qk-curve" });
}

// Rebuilt and own attention; returns the most of both.
function drawRows(view, maps, { scene, head, askers, order, kept, state }) {
  const ranks = order.slice(0, kept);
  const source = state.salience ? head : { ...head, salience: new Float32Array(head.tokens) };
  const built = meanOf(askers, (asking) => attentionRow(source, asking, ranks));
  const own = once(head, `own of ${askers}`, () =>
    meanOf(askers, (asking) => ownRow(head, asking)),
  );
  const high = Math.max(...built, ...own);
  const mean = askers.length > 1 ? ", mean over all patches" : "";
  const names = [`rebuilt${mean}: ${counted(kept, state)}`, `the model's own${mean}`];
  maps.forEach((map, n) => {
    const row = [built, own][n];
    const patches = row.slice(scene.first);
    drawCells(view, map, scene, row, high, state);
    const most = Math.max(...patches);
    const where = `most, ${percent(most)}, in ${placeName(patches.indexOf(most), scene.grid)}`;
    const name = `attention, ${names[n]}; ${where}`;
    paintMap(view, map, patches, { low: 0, high, colours: EVEN, name });
    map.caption.textContent = names[n];
  });
  return high;
}

// Prefix tokens have no place on the grid: a cell for each, in the colours of the map.
function drawCells(view, map, { prefix }, row, high, { asks }) {
  const cells = prefix.map((name, n) => {
    const at = 3 * Math.round((255 * row[n]) / (high || 1));
    const style = `background: rgb(${view.maps[EVEN].subarray(at, at + 3).join(" ")})`;
    const kind = asks === name ? "qk-cell qk-asks" : "qk-cell";
    const cell = element("span", { class: kind, style, "aria-hidden": "true" });
    return element("span", { class: "qk-item" }, cell, `${name} ${percent(row[n])}`);
  });
  map.before.replaceChildren(...cells);
}

// Distances for every number of modes: of this asker at once, of all patches when they are there.
function measure(view, chart, now) {
  const { head, scene, askers, order, state } = now;
  view.stop();
  const one = askers.length === 1 ? distances(head, askers[0], order, state.salience) : null;
  const name = `means of ${state.salience} ${order}`;
  const drawAll = () => drawCurves(view, chart, now, one, head.memo.get(name));
  if (head.memo.has(name)) return drawAll();
  inSlices(view, meanDistances(head, scene, order, state.salience), (means) => {
    head.memo.set(name, means);
    drawAll();
  });
  return head.memo.has(name) || drawAll();
}

function inSlices(view, work, done) {
  const until = performance.now() + SLICE;
  let step = work.next();
  while (!step.done && performance.now() < until) step = work.next();
  if (step.done) done(step.value);
  else view.later(() => inSlices(view, work, done));
}

function drawCurves(view, chart, now, one, means) {
  const path = (values) => {
    return `M${Array.from(values, (value, kept) => `${chart.x(kept)} ${chart.y(value)}`).join("L")}`;
  };
  const point = { stroke: "var(--qk-text)", "stroke-width": 1.5, fill: view.look.palette[0] };
  const [at, marks] = [chart.x(now.kept), []];
  if (means) {
    const place = { x: at - 4.5, y: chart.y(means[now.kept]) - 4.5, width: 9, height: 9 };
    marks.push(line(view, "6 3", path(means)), shape("rect", { ...place, ...point }));
  }
  if (one) {
    const place = { cx: at, cy: chart.y(one[now.kept]), r: 5.5 };
    marks.push(line(view, "", path(one)), shape("circle", { ...place, ...point }));
  }
  chart.ink.replaceChildren(...marks);
  const said = [
    one && `${fixed(one[now.kept])} for this asker`,
    means && `${fixed(means[now.kept])} as mean over all patches`,
  ];
  const what = `attention elsewhere against the number of modes kept; at ${now.kept}`;
  chart.svg.setAttribute("aria-label", `${what}: ${said.filter(Boolean).join(", ")}`);
  tell(view.facts, facts(now, one, means));
}

// ---- where Python answers ----------------------------------------------------------------------

// Controls for other models and pictures; `changed` is called once another scene is there.
function offerMore(view, shown, { models, pictures }, changed) {
  const turn = (request) =>
    view.ask(request, ({ data, image }) => {
      shown.scene = sceneOf(data);
      shown.here = { model: shown.scene.model, image };
      changed();
      view.set(nearest(view.state, shown.scene));
      view.redraw(); // Jupyter reports no change where the same state is set
    });
  view.controls = element("div", { class: "qk-controls" });
  view.tools.before(view.controls);
  const names = element("select", {}, ...models.map((name) => element("option", {}, name)));
  addLabelled(view, "model", names);
  names.addEventListener("change", () => turn({ model: names.value, image: shown.here.image }));
  if (pictures > 1) offerPictures(view, shown, pictures, turn);
  addFile(view, "a picture of your own", "image/*", (file) => upload(view, shown, file, turn));
}

function offerPictures(view, shown, count, turn) {
  const look = { type: "number", min: 0, max: count - 1, value: 0, required: "" };
  const number = element("input", look);
  addLabelled(view, `picture (0 to ${count - 1})`, number);
  number.addEventListener("change", () => {
    if (number.reportValidity()) turn({ model: shown.here.model, image: number.valueAsNumber });
  });
}

function upload(view, shown, file, turn) {
  if (file.size > LARGEST_UPLOAD) {
    return view.complain(`${file.name} has more than ${LARGEST_UPLOAD / 1e6} MB; make it smaller`);
  }
  const reader = new FileReader();
  reader.addEventListener("load", () => {
    const content = reader.result.split(",")[1] ?? "";
    turn({ model: shown.here.model, upload: content, name: file.name });
  });
  return reader.readAsDataURL(file);
}

// The choice, kept as far as it exists in another scene.
function nearest(state, { size, prefix, patches, modes }) {
  const known = ["patch", "all", ...prefix].includes(state.asks);
  return {
    layer: Math.min(state.layer, size[0] - 1),
    head: Math.min(state.head, size[1] - 1),
    asks: known ? state.asks : "patch",
    patch: Math.min(state.patch, patches - 1),
    mode: state.mode < modes ? state.mode : null,
    kept: Math.min(state.kept, modes),
  };
}

// ---- words -------------------------------------------------------------------------------------

function cargo({ scene, live }) {
  const [layers, heads] = scene.size;
  const astray = Math.max(...[...scene.heads.values()].map((head) => head.astray));
  const all = scene.heads.size === layers * heads;
  const some = `layers ${listed(scene.layers)}, heads ${listed(scene.ofLayer)}`;
  const rest = all || live ? "" : "; a notebook with the model has them all";
  const what = `${all ? "all heads" : some} of ${layers} layers × ${heads}${rest}`;
  return (
    `Carried here: ${scene.model} on ${scene.name}, ${what}. Numbers are rounded: ` +
    `attention from all modes is within ${astray.toFixed(4)} of that inside the model.`
  );
}

function facts({ state, head, about, mode, at, kept, askers, who }, one, means) {
  const told = means ? fixed(means[kept]) : "…";
  const elsewhere = `${one ? `${fixed(one[kept])}; ` : ""}mean over all patches ${told}`;
  return [
    ["head", `layer ${head.layer}, head ${head.head}; ${who}`],
    ["mode", `${ranked({ mode, at, state })}; ${sides(head, mode, askers)}`],
    ["σ", head.sigma[mode].toPrecision(3)],
    ["cosine", signed(head.cosine[mode])],
    ["contribution", about.contribution[mode].toPrecision(3)],
    ["share of the logit", `${share(about.share[mode])}; key salience ${share(about.salience)}`],
    ["attention elsewhere", `with ${counted(kept, state)}: ${elsewhere}`],
  ];
}

// Which keys gain, in words: the asker's own sign says it.
function sides(head, mode, askers) {
  if (askers.length > 1) return "where both maps have one sign, scores grow";
  const asked = head.ask[askers[0] * head.modes + mode];
  if (asked === 0) return "the asker has 0, so no key gains";
  const gain = asked < 0 ? "negative (orange)" : "positive (purple)";
  return `the asker has ${exact(asked)}, so ${gain} keys gain`;
}

function whoAsks({ asks, patch }, { grid }) {
  if (asks === "all") return "all patches ask";
  return asks === "patch" ? `the patch in ${placeName(patch, grid)} asks` : `the ${asks} asks`;
}

function ranked({ mode, at, state }) {
  return `M${mode} (${nth(at + 1)} by ${orderName(state)})`;
}

function counted(kept, { salience }) {
  return `${modesIn(kept)}${salience ? " and key salience" : ", no key salience"}`;
}

function fixed(value) {
  return value.toFixed(3);
}

function percent(value) {
  return `${(100 * value).toFixed(1)}\u00a0%`;
}

function share(value, digits = 1) {
  return `${signed(100 * value, digits)}\u00a0%`;
}

function modesIn(count) {
  return `${count} mode${count === 1 ? "" : "s"}`;
}

function orderName({ order }) {
  return order === "sigma" ? "σ" : "contribution";
}

export default { render };
