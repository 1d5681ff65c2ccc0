// Attention of one token over a picture, layer by layer and head by head, and where it falls.

const MEAN = "mean";
const OBJECTS = ["target", "distractors"];
const REGIONS = [...OBJECTS, "background"];
const DASHES = ["none", "5 3"];

function render(context) {
  const view = new Frame(context);
  const { palette } = view.look;
  const scenes = view.data.scenes.map(scene);
  const lookUp = ({ model, image }) => scenes.find((one) => one.model === model && one.place === image);
  const names = new Map(scenes.map((one) => [one.place, one.name]));
  let live = null; // what Python could compute
  let shown = null; // the scene on display

  const pictures = () => Array.from(names, ([value, label]) => ({ value, label })).sort((a, b) => a.value - b.value);
  const offerPictures = view.select("picture", "image", pictures());
  const offerLayers = view.steps("layer", "layer", scenes[0].layers);
  const offerHeads = view.steps("head", "head", [MEAN, ...scenes[0].heads], (head) => headName(shown ?? scenes[0], head));
  const offerQueries = view.select("asking", "query", queries(scenes[0]));
  const jumps = ["target’s patch", "distractors’ patch"].map((text, n) => {
    const button = element("button", { type: "button" }, text);
    button.addEventListener("click", () => view.set({ patch: shown.asked[n], query: "patch" }));
    view.controls.append(button);
    return button;
  });
  view.toggle("outlines", "outlines");
  view.toggle("each map its own scale", "own");

  view.root.style.setProperty("--qk-grid", "min(16rem, 80vw)");
  const ask = { at: () => view.state.patch, choose: (patch) => view.set({ patch, query: "patch" }) };
  const seen = view.grid("Click a patch, or move with the arrow keys. Rows and columns count from 0.", scenes[0].grid, ask);
  const map = view.grid("", scenes[0].grid, ask);
  const edges = [seen, map].map(overlay);
  const setBar = view.bar("cividis", "attention", map.figure);
  map.caption.before(map.figure.lastChild);
  const { figure, caption } = view.panel("Shares of the attention on all keys, which sum to 1. Marks: what an even spread would give, by area.");
  caption.before(element("div", { class: "qk-shares" }));
  let cells = null;
  view.tools.append(element("span", {}, view.data.carries));

  function change(one) {
    shown = one;
    for (const grid of [seen, map]) view.size(grid, one.grid);
    offerPictures(pictures());
    offerLayers(one.layers);
    offerHeads([MEAN, ...one.heads]);
    offerQueries(queries(one));
    jumps.forEach((button, n) => (button.disabled = one.asked[n] === null));
    for (const svg of edges) outlines(svg, one, palette);
    cells = table(one, palette);
    figure.firstChild.replaceWith(cells.root);
  }

  function draw(state) {
    const one = lookUp(state);
    if (!one) return fetchScene(state);
    const needed = fitting(one, state);
    if (Object.keys(needed).length) return view.set(needed);
    if (one !== shown) change(one);
    const asking = state.query === "patch" ? one.prefix.length + state.patch : one.prefix.indexOf(state.query);
    const { row, top } = attention(one, state, asking);
    const named = asks(one, state);
    const where = `layer ${state.layer}, ${headName(one, state.head)}`;
    drawMaps(state, one, row, state.own ? largest(patchesOf(one, row)) : top, named, where);
    cells.set(one.shares(row));
    view.tell(facts(one, state, row, where));
  }

  function drawMaps(state, one, row, high, named, where) {
    const patches = patchesOf(one, row);
    const most = percent(largest(patches));
    const drawn = state.outlines ? "target outlined solid, distractors dashed" : "no outlines";
    view.show(seen, one.address, `picture ${one.name}, ${drawn}; ${named} asks`);
    view.paint(map, patches, {
      low: 0, high, colours: "cividis",
      name: `attention of ${named} over the patches, ${where}: most ${most} in ${place(one, patches.indexOf(largest(patches)))}`,
    });
    map.caption.textContent = `Attention of ${named}; ${where}. ${scaleOf(state)}`;
    setBar("0", percent(high));
    for (const svg of edges) svg.style.display = state.outlines ? "" : "none";
    for (const grid of [seen, map]) {
      if (state.query === "patch") view.frame(grid, state.patch, "#000");
      else grid.marks.replaceChildren();
    }
  }

  // A picture or a model that is not here is computed where there is a kernel.
  function fetchScene({ model, image }) {
    if (!live) throw new Error(`picture ${image} of ${model} is not carried here; a kernel could compute it`);
    view.ask({ model, image }).then(({ scene: found }) => {
      if (lookUp(found)) return;
      scenes.push(scene(found));
      names.set(found.place, found.name);
      view.redraw();
    });
  }

  view.begin(draw, (offers) => {
    live = offers;
    view.select("model", "model", offers.models.map((name) => ({ value: name, label: name })));
    const number = view.label(`picture by number, 0 to ${offers.images - 1}`, element("input", { type: "number", min: 0, max: offers.images - 1 }));
    number.addEventListener("change", () => number.value && view.set({ image: number.valueAsNumber }));
    view.bound.push(({ image }) => (number.value = image));
    view.redraw();
  });
}

// What Python sent of one picture and model, unpacked once.
function scene(sent) {
  const [query, key, salience] = [sent.query, sent.key, sent.salience].map(unpack);
  const member = unpack(sent.member).values;
  const prefix = sent.prefix.length;
  const tokens = prefix + member.length / REGIONS.length;
  const factors = (layer, head) => ({
    query: part(query, layer, head), key: part(key, layer, head), salience: part(salience, layer, head),
  });
  const regions = [...REGIONS, ...sent.prefix];
  const shares = (row) => {
    const found = [0, 0, 0, ...row.subarray(0, prefix)];
    member.forEach((area, n) => (found[n % REGIONS.length] += area * row[prefix + Math.floor(n / REGIONS.length)]));
    return found;
  };
  return {
    ...sent, member, factors, regions, shares, kept: {},
    address: picture(sent.picture.bytes, sent.picture.type),
    even: shares(new Float64Array(tokens).fill(1 / tokens)),
  };
}

// The token's attention in every layer and head, kept until another token asks.
function allRows(one, asking) {
  if (one.kept.asking !== asking) {
    const rows = one.layers.map((_, layer) => one.heads.map((_, head) => attentionRow(one.factors(layer, head), asking)));
    const means = rows.map((heads) => heads[0].map((_, key) => heads.reduce((sum, row) => sum + row[key], 0) / heads.length));
    const top = (some) => Math.max(...some.map((row) => largest(patchesOf(one, row))));
    one.kept = { asking, rows, means, top: top(rows.flat()), topOfMeans: top(means) };
  }
  return one.kept;
}

function attention(one, { layer, head }, asking) {
  const { rows, means, top, topOfMeans } = allRows(one, asking);
  const at = one.layers.indexOf(layer);
  if (head === MEAN) return { row: means[at], top: topOfMeans };
  return { row: rows[at][one.heads.indexOf(head)], top };
}

// Changes of the state that this scene asks for, such as a layer that it has.
function fitting(one, { layer, head, patch, query }) {
  const change = {};
  const near = (best, other) => (Math.abs(other - layer) < Math.abs(best - layer) ? other : best);
  if (!one.layers.includes(layer)) change.layer = one.layers.reduce(near);
  if (![MEAN, ...one.heads].includes(head)) change.head = MEAN;
  if (!Number.isInteger(patch) || patch < 0 || patch >= one.grid[0] * one.grid[1]) change.patch = one.asked[0] ?? 0;
  if (!["patch", ...one.prefix].includes(query)) change.query = "patch";
  return change;
}

function queries({ prefix }) {
  return [{ value: "patch", label: "the framed patch" }, ...prefix.map((name) => ({ value: name, label: name }))];
}

function patchesOf(one, row) {
  return row.subarray(one.prefix.length);
}

function largest(values) {
  return values.reduce((most, value) => Math.max(most, value), 0);
}

function percent(share) {
  return `${(100 * share).toFixed(1)} %`;
}

function place({ grid }, patch) {
  return `row ${Math.floor(patch / grid[1])}, column ${patch % grid[1]}`;
}

function asks(one, { query, patch }) {
  return query === "patch" ? `the patch in ${place(one, patch)}` : `the ${query}`;
}

function scaleOf({ own, head }) {
  if (own) return "The scale is this map’s own.";
  return head === MEAN ? "One scale for the means of all layers." : "One scale for all layers and heads.";
}

function headName({ mean }, head) {
  return head === MEAN ? mean : `head ${head}`;
}

function facts(one, state, row, where) {
  const patches = patchesOf(one, row);
  const best = patches.indexOf(largest(patches));
  const onPatches = patches.reduce((sum, value) => sum + value, 0);
  const list = (values) => REGIONS.map((name, n) => `${name} ${percent(values[n])}`).join(" · ");
  const rows = [[one.model, `${asks(one, state)}; ${where}`]];
  if (state.query === "patch") rows.push(["it lies on", list(one.member.subarray(3 * state.patch))]);
  rows.push(["looks most at", `${place(one, best)} (${percent(patches[best])})`]);
  if (one.prefix.length) rows.push(["among patches alone", list(one.shares(row).map((share) => share / onPatches))]);
  return rows;
}

// ---- drawing -----------------------------------------------------------------------------------

function overlay(map) {
  const svg = shape("svg", { "aria-hidden": "true", preserveAspectRatio: "none", class: "qk-edges" });
  map.marks.before(svg);
  return svg;
}

function outlines(svg, { size: [height, width], outlines: paths }, palette) {
  svg.setAttribute("viewBox", `0 0 ${width} ${height}`);
  const edge = (d, look) => shape("path", { d, fill: "none", "fill-rule": "evenodd", "vector-effect": "non-scaling-stroke", ...look });
  const halos = paths.map((d) => edge(d, { stroke: "#fff", "stroke-width": 3.2 }));
  const lines = paths.map((d, n) => edge(d, { stroke: palette[1 - n], "stroke-width": 2, "stroke-dasharray": DASHES[n] }));
  svg.replaceChildren(...halos, ...lines);
}

// A row for each region: how it is outlined, its bar with the mark of an even spread, and numbers.
function table(one, palette) {
  const colours = [palette[1], palette[0], "#8c959f"];
  const bars = [];
  const rows = one.regions.map((name, n) => {
    const bar = element("div", { style: `background: ${colours[n] ?? palette[2]}` });
    const mark = element("i", { style: `left: ${100 * one.even[n]}%` });
    const share = element("td");
    bars.push({ bar, share });
    const track = element("td", { "aria-hidden": "true" }, element("div", { class: "qk-track" }, bar, mark));
    return element("tr", {}, element("th", { scope: "row" }, sample(n, colours[n]), name), track, share, element("td", {}, percent(one.even[n])));
  });
  const heads = ["on", "", "attention", "even spread"].map((text) => element(text ? "th" : "td", text ? { scope: "col" } : {}, text));
  const sum = element("td");
  const last = element("tr", {}, element("th", { scope: "row" }, "all keys"), element("td"), sum, element("td", {}, percent(1)));
  const root = element("table", { class: "qk-shares" }, element("thead", {}, element("tr", {}, ...heads)), element("tbody", {}, ...rows, last));
  const set = (shares) => {
    shares.forEach((value, n) => {
      bars[n].bar.style.width = `${100 * value}%`;
      bars[n].share.textContent = percent(value);
    });
    sum.textContent = percent(shares.reduce((total, value) => total + value, 0));
  };
  return { root, set };
}

function sample(n, colour) {
  if (n >= OBJECTS.length) return "";
  const line = shape("path", { d: "M0 5H22", stroke: colour, "stroke-width": 2.5, "stroke-dasharray": DASHES[n] });
  return shape("svg", { width: 22, height: 10, "aria-hidden": "true" }, line);
}

export default { render };
