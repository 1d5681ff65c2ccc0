// Attention of one token over a picture, layer by layer and head by head, and where it falls.

import { addSelect, addSteps, addLabelled, addToggle } from "./controls.js";
import { element, sample, shape } from "./dom.js";
import {
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
import { largest, part, unpack } from "./math/arrays.js";
import { allRows, sharesOn } from "./math/attention.js";
import { placeName } from "./words.js";

const MEAN = "mean";
const OBJECTS = ["target", "distractors"];
const REGIONS = [...OBJECTS, "background"];
const DASHES = ["none", "5 3"];

function render(context) {
  const view = new Frame(context);
  const scenes = view.data.scenes.map((sent) => sceneFrom(view, sent));
  const shelf = { scenes, shown: null, live: false };
  const controls = addControls(view, shelf);
  const stage = prepareStage(view, shelf);
  view.tools.append(element("span", {}, cargo(view.data)));

  const draw = (state) => {
    const one = lookUp(shelf, state);
    if (!one) return fetchScene(view, shelf, state);
    const needed = fitting(one, state);
    if (Object.keys(needed).length) return view.set(needed);
    if (one !== shelf.shown) {
      shelf.shown = one;
      controls.change(one);
      stage.change(one);
    }
    return stage.draw(one, state);
  };
  return view.begin(draw, ({ models, images }) => {
    shelf.live = true;
    addSelect(
      view,
      "model",
      "model",
      models.map((name) => ({ value: name, label: name })),
    );
    offerPictures(view, images);
    view.redraw();
  });
}

function lookUp({ scenes }, { model, image }) {
  return scenes.find((one) => one.model === model && one.place === image);
}

// ---- controls ----------------------------------------------------------------------------------

function addControls(view, shelf) {
  const [first] = shelf.scenes;
  const name = (head) => headName(shelf.shown ?? first, head);
  const offer = {
    pictures: addSelect(view, "picture", "image", picturesOf(shelf)),
    layers: addSteps(view, "layer", "layer", first.layers),
    heads: addSteps(view, "head", "head", [MEAN, ...first.heads], name),
    queries: addSelect(view, "asking", "query", queriesOf(first)),
  };
  const jumps = ["target’s patch", "distractors’ patch"].map((text, n) => {
    const button = element("button", { type: "button" }, text);
    button.addEventListener("click", () =>
      view.set({ patch: shelf.shown.asked[n], query: "patch" }),
    );
    view.controls.append(button);
    return button;
  });
  addToggle(view, "outlines", "outlines");
  addToggle(view, "own scale", "own");
  const change = (one) => {
    offer.pictures(picturesOf(shelf));
    offer.layers(one.layers);
    offer.heads([MEAN, ...one.heads]);
    offer.queries(queriesOf(one));
    jumps.forEach((button, n) => (button.disabled = one.asked[n] === null));
  };
  return { change };
}

function picturesOf({ scenes }) {
  const names = new Map(scenes.map((one) => [one.place, one.name]));
  const choices = Array.from(names, ([value, label]) => ({ value, label }));
  return choices.sort((a, b) => a.value - b.value);
}

function queriesOf({ prefix }) {
  const others = prefix.map((name) => ({ value: name, label: name }));
  return [{ value: "patch", label: "the framed patch" }, ...others];
}

function offerPictures(view, count) {
  const number = element("input", { type: "number", min: 0, max: count - 1 });
  addLabelled(view, `picture by number, 0 to ${count - 1}`, number);
  number.addEventListener(
    "change",
    () => number.value && view.set({ image: number.valueAsNumber }),
  );
  view.bound.push(({ image }) => (number.value = image));
}

// A picture or a model that is not here is computed where there is a kernel.
function fetchScene(view, shelf, { model, image }) {
  if (!shelf.live) {
    throw new Error(`picture ${image} of ${model} is not carried here; a kernel could compute it`);
  }
  view.ask({ model, image }, ({ scene }) => {
    if (lookUp(shelf, { model: scene.model, image: scene.place })) return;
    shelf.scenes.push(sceneFrom(view, scene));
    view.redraw();
  });
}

// ---- what was sent -----------------------------------------------------------------------------

// What Python sent of one picture and model, unpacked once.
function sceneFrom(view, sent) {
  const [query, key, salience] = [sent.query, sent.key, sent.salience].map(unpack);
  const bias = sent.position_bias && unpack(sent.position_bias);
  const member = unpack(sent.member).values;
  const prefix = sent.prefix.length;
  const tokens = prefix + member.length / REGIONS.length;
  const factors = (layer, head) => ({
    query: part(query, layer, head),
    key: part(key, layer, head),
    salience: part(salience, layer, head),
    bias: bias && part(bias, layer, head),
  });
  const shares = (row) => sharesOn(row, member, REGIONS.length, prefix);
  return {
    ...sent,
    member,
    factors,
    shares,
    regions: [...REGIONS, ...sent.prefix],
    kept: {},
    address: view.address(sent.picture.bytes, sent.picture.type),
    even: shares(new Float64Array(tokens).fill(1 / tokens)),
  };
}

// The chosen row of attention, and the most of all rows of its kind; kept until another token asks.
function attention(one, { layer, head }, asking) {
  if (one.kept.asking !== asking) {
    const factors = [...one.layers.keys()].map((l) => one.heads.map((_, h) => one.factors(l, h)));
    one.kept = { asking, ...allRows(factors, asking, one.prefix.length) };
  }
  const { rows, means, top, topOfMeans } = one.kept;
  const at = one.layers.indexOf(layer);
  if (head === MEAN) return { row: means[at], top: topOfMeans };
  return { row: rows[at][one.heads.indexOf(head)], top };
}

// Changes of the state that this scene asks for, such as a layer that it has.
function fitting(one, { layer, head, patch, query }) {
  const change = {};
  const near = (best, other) => (Math.abs(other - layer) < Math.abs(best - layer) ? other : best);
  const patches = one.grid[0] * one.grid[1];
  if (!one.layers.includes(layer)) change.layer = one.layers.reduce(near);
  if (![MEAN, ...one.heads].includes(head)) change.head = MEAN;
  if (!Number.isInteger(patch) || patch < 0 || patch >= patches) change.patch = one.asked[0] ?? 0;
  if (!["patch", ...one.prefix].includes(query)) change.query = "patch";
  return change;
}

// ---- drawing -----------------------------------------------------------------------------------

// Picture, map and table of shares, with what draws them.
function prepareStage(view, { scenes }) {
  view.root.classList.add("qk-asked");
  const choose = (patch) => view.set({ patch, query: "patch" });
  const ask = { at: () => view.state.patch, choose };
  const hint = "Click a patch, or use the arrow keys.";
  const seen = addGrid(view, hint, scenes[0].grid, ask);
  const map = addGrid(view, "", scenes[0].grid, ask);
  view.stage.append(view.facts);
  const edges = [seen, map].map(addEdges);
  const setBar = addBar(view, "cividis", "attention", map.figure);
  map.caption.before(map.figure.lastChild);
  const { figure, caption } = addPanel(
    view,
    "Shares of all attention. Marks: an even spread, by area.",
  );
  caption.before(element("div", { class: "qk-shares" }));
  const stage = { seen, map, edges, setBar, cells: null };
  const change = (one) => {
    for (const grid of [seen, map]) resize(grid, one.grid);
    for (const svg of edges) outline(svg, one, view.look.palette);
    stage.cells = table(one, view.look.palette);
    figure.firstChild.replaceWith(stage.cells.root);
  };
  const draw = (one, state) => {
    const patchAsks = state.query === "patch";
    const asking = patchAsks ? one.prefix.length + state.patch : one.prefix.indexOf(state.query);
    const { row, top } = attention(one, state, asking);
    drawMaps(view, stage, one, state, row, top);
    stage.cells.set(one.shares(row));
    tell(view.facts, facts(one, state, row));
  };
  return { change, draw };
}

function drawMaps(view, { seen, map, edges, setBar }, one, state, row, top) {
  const patches = patchesOf(one, row);
  const high = state.own ? largest(patches) : top;
  const [named, where] = [asks(one, state), whereOf(one, state)];
  const best = placeName(patches.indexOf(largest(patches)), one.grid);
  const outlined = state.outlines ? "target outlined solid, distractors dashed" : "no outlines";
  showPicture(seen, one.address, `picture ${one.name}, ${outlined}; ${named} asks`);
  const most = `most ${percent(largest(patches))} in ${best}`;
  const name = `attention of ${named} over the patches, ${where}: ${most}`;
  paintMap(view, map, patches, { low: 0, high, colours: "cividis", name });
  map.caption.textContent = scaleOf(state);
  setBar("0", percent(high));
  for (const svg of edges) svg.style.display = state.outlines ? "" : "none";
  for (const grid of [seen, map]) {
    if (state.query === "patch") framePatch(view, grid, state.patch, "#000");
    else grid.marks.replaceChildren();
  }
}

function addEdges(map) {
  const look = { preserveAspectRatio: "none", class: "qk-edges" };
  const svg = shape("svg", { "aria-hidden": "true", ...look });
  map.marks.before(svg);
  return svg;
}

function outline(svg, { size: [height, width], outlines: paths }, palette) {
  svg.setAttribute("viewBox", `0 0 ${width} ${height}`);
  const common = { fill: "none", "fill-rule": "evenodd", "vector-effect": "non-scaling-stroke" };
  const edge = (d, look) => shape("path", { d, ...common, ...look });
  const halos = paths.map((d) => edge(d, { stroke: "#fff", "stroke-width": 3.2 }));
  const lines = paths.map((d, n) => {
    const dash = { "stroke-dasharray": DASHES[n] };
    return edge(d, { stroke: palette[1 - n], "stroke-width": 2, ...dash });
  });
  svg.replaceChildren(...halos, ...lines);
}

// A row for each region: how it is outlined, its bar with the mark of an even spread, and numbers.
function table(one, palette) {
  const colours = [palette[1], palette[0], "#8c959f"];
  const bars = [];
  const head = (name, ...drawn) => element("th", { scope: "row" }, ...drawn, name);
  const rows = one.regions.map((name, n) => {
    const bar = element("div", { style: `background: ${colours[n] ?? palette[2]}` });
    const mark = element("i", { style: `left: ${100 * one.even[n]}%` });
    const share = element("td");
    bars.push({ bar, share });
    const track = element("div", { class: "qk-track" }, bar, mark);
    const cell = element("td", { "aria-hidden": "true" }, track);
    const even = element("td", {}, percent(one.even[n]));
    return element("tr", {}, head(name, dashOf(n, colours[n])), cell, share, even);
  });
  const heads = ["on", "", "attention", "even spread"].map((text) =>
    element(text ? "th" : "td", text ? { scope: "col" } : {}, text),
  );
  const sum = element("td");
  const whole = element("td", {}, percent(1));
  const last = element("tr", {}, head("all keys"), element("td"), sum, whole);
  const top = element("thead", {}, element("tr", {}, ...heads));
  const body = element("tbody", {}, ...rows, last);
  const set = (shares) => {
    shares.forEach((value, n) => {
      bars[n].bar.style.width = `${100 * value}%`;
      bars[n].share.textContent = percent(value);
    });
    sum.textContent = percent(shares.reduce((total, value) => total + value, 0));
  };
  return { root: element("table", { class: "qk-shares" }, top, body), set };
}

function dashOf(n, stroke) {
  if (n >= OBJECTS.length) return "";
  const look = { stroke, "stroke-width": 2.5, "stroke-dasharray": DASHES[n] };
  return sample(22, 10, shape("path", { d: "M0 5H22", ...look }));
}

// ---- words -------------------------------------------------------------------------------------

function patchesOf(one, row) {
  return row.subarray(one.prefix.length);
}

function percent(share) {
  return `${(100 * share).toFixed(1)} %`;
}

function asks(one, { query, patch }) {
  return query === "patch" ? `the patch in ${placeName(patch, one.grid)}` : `the ${query}`;
}

function whereOf(one, { layer, head }) {
  return `layer ${layer}, ${headName(one, head)}`;
}

// What a page without a kernel has.
function cargo({ scenes, counts }) {
  const many = (name, count) => `${name}${count > 1 ? "s" : ""}`;
  const [{ model, layers, heads }] = scenes;
  const parts = Object.entries({ layer: layers, head: heads }).map(([name, numbers]) =>
    numbers.length === counts[name]
      ? `all ${counts[name]} ${name}s`
      : `${many(name, numbers.length)} ${numbers.join(", ")} of ${counts[name]}`,
  );
  const pictures = `${scenes.length} ${many("picture", scenes.length)}`;
  return `Carried here, of ${model}: ${[pictures, ...parts].join("; ")}.`;
}

function headName({ mean }, head) {
  return head === MEAN ? mean : `head ${head}`;
}

function scaleOf({ own, head }) {
  if (own) return "This map’s own scale.";
  return head === MEAN ? "One scale for all layers." : "One scale for all layers and heads.";
}

function facts(one, state, row) {
  const patches = patchesOf(one, row);
  const best = patches.indexOf(largest(patches));
  const onPatches = patches.reduce((sum, value) => sum + value, 0);
  const list = (values) => REGIONS.map((name, n) => `${name} ${percent(values[n])}`).join(" · ");
  const rows = [[one.model, `${asks(one, state)}; ${whereOf(one, state)}`]];
  if (state.query === "patch") {
    const member = one.member.subarray(REGIONS.length * state.patch);
    rows.push(["it lies on", list(member)]);
  }
  rows.push(["looks most at", `${placeName(best, one.grid)} (${percent(patches[best])})`]);
  const alone = one.shares(row).map((share) => share / onPatches);
  if (one.prefix.length) rows.push(["among patches alone", list(alone)]);
  return rows;
}

export default { render };
