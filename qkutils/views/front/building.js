// One image, many modes: what each mode of a head gives to its scores, and their sum, mode by mode.

const [EVEN, TWO_SIDED] = ["cividis", "PuOr"];
const LARGEST_UPLOAD = 7e6; // bytes; Jupyter takes messages of ten million, and text is a third more
const STRIP = { width: 430, height: 90, left: 46 };
const SLICE = 4; // milliseconds of computing before the browser may do something else
const ORDERS = [{ value: "contribution", label: "contribution" }, { value: "sigma", label: "σ" }];

function render(context) {
  const view = new Frame(context);
  const palette = view.look.palette;
  let scene = sceneOf(view.data);
  let here = { model: scene.model, image: 0 };
  let live = false;
  let timer = 0;

  // Controls and panels that are made after this belong to a part of the view with its own name.
  const parts = element("div", { class: "qk-parts" });
  view.stage.replaceWith(parts);
  function begin(name, kind = "") {
    [view.controls, view.stage] = ["qk-controls", "qk-stage"].map((kind) => element("div", { class: kind }));
    const heading = element("div", { class: "qk-name" }, name);
    parts.append(element("div", { class: `qk-part ${kind}`, role: "group", "aria-label": name }, heading, view.controls, view.stage));
  }

  // Two maps with one scale stay together.
  function pair(colours, text) {
    const together = element("div", { class: "qk-stage qk-pair" });
    const outer = view.stage;
    outer.append(together);
    view.stage = together;
    const made = [view.grid("", scene.grid), view.grid("", scene.grid), view.bar(colours, text)];
    view.stage = outer;
    return made;
  }

  begin("Who asks?", "qk-narrow");
  const offerLayers = view.steps("layer", "layer", scene.layers);
  const offerHeads = view.steps("head", "head", scene.ofLayer);
  const offerAskers = view.select("asks", "asks", askerChoices(scene));
  const photo = view.grid("", scene.grid, { at: () => view.state.patch, choose: (patch) => view.set({ patch, asks: "patch" }) });

  begin("One mode");
  view.choice("order by", "order", ORDERS);
  const stepper = view.range("mode", "step", { min: 0, max: 0, show: (step) => `no. ${step + 1}` });
  const [queryMap, keyMap, modeBar] = pair(TWO_SIDED, "projection of a patch");

  const strip = view.panel("share of the logit, modes in this order; full colour: kept; framed: the one above");
  const bars = shape("svg", { viewBox: `0 0 ${STRIP.width} ${STRIP.height}`, role: "img", class: "qk-axes" });
  strip.figure.prepend(bars);

  begin("Modes added up", "qk-wide");
  const keeper = view.range("modes kept", "kept", { min: 0, max: 0 });
  view.toggle("add key salience κ · z", "salience");
  const [builtMap, ownMap, rowBar] = pair(EVEN, "attention");
  const stage = view.stage;
  let chart = null;

  const note = element("p", { class: "qk-note" });
  view.facts.after(note);
  const maps = [photo, queryMap, keyMap, builtMap, ownMap];
  let address = "";
  furnish();

  // Everything that depends on the image and the model, not on what is chosen.
  function furnish() {
    URL.revokeObjectURL(address);
    address = picture(scene.picture.bytes, scene.picture.type);
    for (const map of maps) view.size(map, scene.grid);
    stepper.max = scene.modes - 1;
    keeper.max = scene.modes;
    chart?.figure.remove();
    view.stage = stage;
    const xticks = [0, 0.25, 0.5, 0.75, 1].map((share) => Math.round(share * scene.modes));
    chart = view.axes("", {
      x: [0, scene.modes], y: [0, 1], xticks, yticks: [0, 0.5, 1],
      xlabel: "modes kept", ylabel: "attention elsewhere", width: 380, height: 250,
    });
    chart.caption.append(...legend());
    note.textContent = `${words()} ${cargo()}`;
  }

  function words() {
    return "Contribution: σ times the asker's projection on the mode's query direction times the largest " +
      "projection of a patch on its key direction, for the better of the two signs; of several askers the " +
      "largest counts. Share: the mode's covariance over keys with the whole logit, as a part of the whole's " +
      "variance; below zero, it works against the others. Key salience: what a key's score gains whoever " +
      "asks, κ · z, from the query bias and from LayerNorm's shift; switched off, both are left out of the " +
      "rebuilt attention, and stay in the model's own and in the shares. Attention elsewhere: total " +
      "variation from the model's own attention.";
  }

  function cargo() {
    const [layers, heads] = scene.size;
    const astray = Math.max(...[...scene.heads.values()].map((head) => head.astray));
    const all = scene.heads.size === layers * heads;
    const shown = all ? "all heads" : `layers ${listed(scene.layers)}, heads ${listed(scene.ofLayer)}`;
    const rest = all || live ? "" : "; a notebook has them all";
    return `Carried here: ${scene.model} on ${scene.name}, ${shown} of ${layers} layers × ${heads}${rest}. ` +
      `Numbers are rounded: attention from all modes is within ${astray.toFixed(4)} of that inside the model.`;
  }

  function line(dash, d) {
    return shape("path", { d, fill: "none", stroke: palette[0], "stroke-width": 2, "stroke-dasharray": dash, class: "qk-curve" });
  }

  function legend() {
    const sample = (dash) => shape("svg", { width: 28, height: 10, "aria-hidden": "true" }, line(dash, "M0 5H28"));
    return [sample(""), " this asker ", sample("6 3"), " mean over all patches, same modes"];
  }

  // The head that is chosen; nothing where it is not here, or Python still has to be asked for it.
  function headAt({ layer, head }) {
    const found = scene.find(layer, head);
    if (found) return found;
    if (!live) return view.complain(`layer ${layer}, head ${head} is not on this page; a notebook can compute it`);
    const asked = scene;
    view.ask({ ...here, layer, head }).then(({ head: sent }) => {
      asked.add(sent);
      if (asked === scene) view.redraw();
    });
    return null;
  }

  function draw(state) {
    const head = headAt(state);
    if (!head) return;
    const askers = askersOf(state, scene);
    if (!askers) return view.complain(`${state.asks}, patch ${state.patch}: ${scene.model} has no such token`);
    const about = takenApart(head, askers, scene);
    const order = orderOf(state.order, head, about.contribution);
    const at = Math.max(0, Math.min(state.step, head.modes - 1));
    const kept = Math.max(0, Math.min(state.kept, head.modes));
    const now = { state, head, askers, about, order, at, kept, mode: order[at], who: whoAsks(state) };
    for (const map of maps) mark(map, state);
    view.show(photo, address, `the picture; ${now.who}`);
    photo.caption.textContent = `${scene.name}: ${now.who}. Click, or use the arrow keys`;
    drawMode(now);
    drawShares(now);
    now.given = drawRows(now);
    measure(now);
  }

  function mark(map, { asks, patch }) {
    if (asks === "patch") view.frame(map, patch);
    else map.marks.replaceChildren();
  }

  function whoAsks({ asks, patch }) {
    if (asks === "all") return "all patches ask";
    const columns = scene.grid[1];
    return asks === "patch" ? `the patch in row ${Math.floor(patch / columns)}, column ${patch % columns} asks` : `the ${asks} asks`;
  }

  function drawMode({ head, mode, at, state }) {
    const sides = [[queryMap, head.ask, "query map: what asks"], [keyMap, head.key, "key map: what answers"]];
    const values = sides.map(([, side]) => patchesOf(side, head.modes, mode));
    const limit = Math.max(...values.flatMap((some) => Array.from(some, Math.abs)));
    sides.forEach(([map, , name], n) => {
      const range = `from ${signed(Math.min(...values[n]))} to ${signed(Math.max(...values[n]))}`;
      view.paint(map, values[n], { low: -limit, high: limit, colours: TWO_SIDED, name: `M${mode}, ${name}, ${range}` });
      map.caption.textContent = `M${mode}, ${name}`;
    });
    modeBar(signed(-limit), signed(limit));
    const rank = `M${mode}, number ${at + 1} of ${head.modes} by ${state.order === "sigma" ? "σ" : "contribution"}`;
    stepper.setAttribute("aria-valuetext", rank);
  }

  // A bar for each mode, up from zero or down from it, all as wide as the strip allows.
  function drawShares({ head, about, order, at, kept, mode }) {
    const top = Math.max(0, ...about.share);
    const unit = (STRIP.height - 16) / (top - Math.min(0, ...about.share) || 1);
    const [zero, step] = [12 + top * unit, (STRIP.width - STRIP.left) / head.modes];
    const all = order.map((number, rank) => {
      const up = about.share[number] * unit;
      const place = { x: STRIP.left + (rank + 0.1) * step, width: 0.8 * step };
      const look = { fill: palette[0], opacity: rank < kept ? 1 : 0.35, class: "qk-curve" };
      return shape("rect", { ...place, y: zero - Math.max(up, 0), height: Math.abs(up), ...look });
    });
    const now = { x: STRIP.left + at * step, y: 4, width: step, height: STRIP.height - 6 };
    bars.replaceChildren(
      ...all,
      shape("path", { d: `M${STRIP.left} ${zero}H${STRIP.width}`, class: "qk-axis" }),
      shape("rect", { ...now, fill: "none", stroke: "var(--qk-text)", "stroke-width": 1.5 }),
      shape("text", { x: STRIP.left - 5, y: 16, "text-anchor": "end" }, `${(100 * top).toFixed(0)} %`),
      shape("text", { x: STRIP.left - 5, y: zero + 4, "text-anchor": "end" }, "0")
    );
    const first = order.slice(0, 3).map((number) => `M${number} ${share(about.share[number])}`).join(", ");
    bars.setAttribute("aria-label", `share of the logit of every mode in this order, beginning with ${first}; now M${mode}`);
  }

  function patchesOf(side, modes, mode) {
    return Float32Array.from({ length: scene.patches }, (_, n) => side[(scene.first + n) * modes + mode]);
  }

  function drawRows({ head, askers, order, kept, state }) {
    const ranks = order.slice(0, kept);
    const source = state.salience ? head : { ...head, salience: new Float32Array(head.tokens) };
    const built = meanOf(askers, (asking) => attentionRow(source, asking, ranks));
    const own = once(head, `own of ${askers}`, () => meanOf(askers, (asking) => ownRow(head, asking)));
    const rows = [built, own].map((row) => row.slice(scene.first));
    const high = Math.max(...rows[0], ...rows[1]);
    const names = [`rebuilt: ${counted(kept, state)}`, "the model's own"];
    [builtMap, ownMap].forEach((map, n) => {
      const most = Math.max(...rows[n]);
      const place = rows[n].indexOf(most);
      const where = `most, ${percent(most)}, in row ${Math.floor(place / scene.grid[1])}, column ${place % scene.grid[1]}`;
      view.paint(map, rows[n], { low: 0, high, colours: EVEN, name: `attention, ${names[n]}; ${where}` });
      map.caption.textContent = names[n];
    });
    rowBar("0", percent(high));
    return { built, own };
  }

  function counted(kept, { salience }) {
    return `${kept} mode${kept === 1 ? "" : "s"}${salience ? " and key salience" : ", no key salience"}`;
  }

  // Distances for every number of modes: of this asker at once, of all patches when they are there.
  function measure(now) {
    const { head, askers, order, state } = now;
    const name = `means of ${state.salience} ${order}`;
    const one = askers.length === 1 ? distances(head, askers[0], order, state.salience) : null;
    clearTimeout(timer);
    if (!head.memo.has(name)) inSlices(meanDistances(head, scene, order, state.salience), (means) => {
      head.memo.set(name, means);
      drawCurves(now, one, means);
    });
    else return drawCurves(now, one, head.memo.get(name));
    if (!head.memo.has(name)) drawCurves(now, one, null);
  }

  function inSlices(work, done) {
    const until = performance.now() + SLICE;
    let step = work.next();
    while (!step.done && performance.now() < until) step = work.next();
    if (step.done) done(step.value);
    else timer = setTimeout(() => inSlices(work, done));
  }

  function drawCurves(now, one, means) {
    const marks = [];
    const point = { stroke: "var(--qk-text)", "stroke-width": 1.5, fill: palette[0] };
    const at = chart.x(now.kept);
    if (means) {
      const y = chart.y(means[now.kept]);
      marks.push(line("6 3", path(means)), shape("rect", { x: at - 4.5, y: y - 4.5, width: 9, height: 9, ...point }));
    }
    if (one) marks.push(line("", path(one)), shape("circle", { cx: at, cy: chart.y(one[now.kept]), r: 5.5, ...point }));
    chart.ink.replaceChildren(...marks);
    const said = [one && `${fixed(one[now.kept])} for this asker`, means && `${fixed(means[now.kept])} as mean over all patches`];
    chart.svg.setAttribute("aria-label", `attention elsewhere against the number of modes kept; at ${now.kept}: ${said.filter(Boolean).join(", ")}`);
    facts(now, one, means);
  }

  function path(values) {
    return "M" + Array.from(values, (value, kept) => `${chart.x(kept)} ${chart.y(value)}`).join("L");
  }

  function facts({ state, head, about, mode, at, kept, askers, given, who }, one, means) {
    const order = state.order === "sigma" ? "σ" : "contribution";
    const rows = [
      ["head", `layer ${head.layer}, head ${head.head}; ${who}`],
      ["mode", `M${mode}, number ${at + 1} of ${head.modes} by ${order}; ${sides(head, mode, askers)}`],
      ["σ", head.sigma[mode].toPrecision(3)],
      ["cosine", signed(head.cosine[mode])],
      ["contribution", about.contribution[mode].toPrecision(3)],
      ["share of the logit", `${share(about.share[mode])}; key salience ${share(about.salience)}`],
      ["attention elsewhere", elsewhere(one, means, kept, state)],
    ];
    const before = scene.prefix.map((name, n) => `${name}: rebuilt ${percent(given.built[n])}, the model ${percent(given.own[n])}`);
    if (before.length) rows.push(["not on the maps", before.join("; ")]);
    view.tell(rows);
  }

  function elsewhere(one, means, kept, state) {
    const mean = means ? fixed(means[kept]) : "…";
    return `with ${counted(kept, state)}: ${one ? `${fixed(one[kept])}; ` : ""}mean over all patches ${mean}`;
  }

  // Which keys gain, in words: the asker's own sign says it.
  function sides(head, mode, askers) {
    if (askers.length > 1) return "where both maps have one sign, scores grow";
    const asked = head.ask[askers[0] * head.modes + mode];
    return `the asker has ${signed(asked)}, so ${asked < 0 ? "negative (orange)" : "positive (purple)"} keys gain`;
  }

  // ---- where Python answers ------------------------------------------------------------------

  function alive({ models, pictures }) {
    live = true;
    const extra = element("div", { class: "qk-controls" });
    view.controls = extra;
    view.tools.before(extra);
    const names = element("select", {}, ...models.map((name) => element("option", {}, name)));
    view.label("model", names);
    names.addEventListener("change", () => turn({ model: names.value, image: here.image }));
    if (pictures > 1) offerPictures(pictures);
    const file = view.label("a picture of your own", element("input", { type: "file", accept: "image/*" }));
    file.addEventListener("change", () => file.files.length && upload(file.files[0]));
    offerAll();
    view.redraw();
  }

  function offerPictures(count) {
    const number = element("input", { type: "number", min: 0, max: count - 1, value: 0, required: "" });
    view.label(`picture (0 to ${count - 1})`, number);
    number.addEventListener("change", () => {
      if (number.reportValidity()) turn({ model: here.model, image: number.valueAsNumber });
    });
  }

  async function upload(file) {
    if (file.size > LARGEST_UPLOAD) return view.complain(`${file.name} has more than ${LARGEST_UPLOAD / 1e6} MB; make it smaller`);
    const reader = new FileReader();
    reader.addEventListener("load", () => {
      turn({ model: here.model, upload: reader.result.split(",")[1] ?? "", name: file.name });
    });
    reader.readAsDataURL(file);
  }

  // Another image or model, with the choice kept as far as it exists there.
  async function turn(request) {
    const { data, image } = await view.ask(request);
    scene = sceneOf(data);
    here = { model: scene.model, image };
    furnish();
    offerAll();
    view.set(nearest(view.state));
    view.redraw(); // Jupyter reports no change where the same state is set
  }

  function offerAll() {
    offerLayers(upTo(scene.size[0]));
    offerHeads(upTo(scene.size[1]));
    offerAskers(askerChoices(scene));
    note.textContent = `${words()} ${cargo()}`;
  }

  function nearest(state) {
    const known = ["patch", "all", ...scene.prefix].includes(state.asks);
    return {
      layer: Math.min(state.layer, scene.size[0] - 1), head: Math.min(state.head, scene.size[1] - 1),
      asks: known ? state.asks : "patch", patch: Math.min(state.patch, scene.patches - 1),
      step: Math.min(state.step, scene.modes - 1), kept: Math.min(state.kept, scene.modes),
    };
  }

  view.begin(draw, alive);
}

// ---- what was sent ----------------------------------------------------------------------------

// One image and one model; a head is unpacked when it is first looked at.
function sceneOf(data) {
  const heads = new Map();
  const add = (sent) => heads.set(`${sent.layer},${sent.head}`, sent);
  data.heads.forEach(add);
  const unique = (name) => [...new Set(data.heads.map((each) => each[name]))];
  const find = (layer, head) => {
    const sent = heads.get(`${layer},${head}`);
    return sent && (sent.opened ??= opened(sent, data.scale));
  };
  const [rows, columns] = data.grid;
  const first = data.prefix.length;
  const modes = data.heads[0].sigma.shape[0];
  return { ...data, heads, add, find, first, modes, patches: rows * columns, layers: unique("layer"), ofLayer: unique("head") };
}

// A head with what common.js's attentionRow needs: `query` is z·u times σ and the head's scale.
function opened({ layer, head, ...sent }, scale) {
  const numbers = ["query", "key", "salience", "sigma", "cosine"].map((name) => unpack(sent[name]).values);
  const [ask, key, salience, sigma, cosine] = numbers;
  const modes = sigma.length;
  const query = ask.map((value, at) => value * sigma[at % modes] * scale);
  return { layer, head, modes, tokens: salience.length, ask, query, key, salience, sigma, cosine, memo: new Map() };
}

function once(head, name, make) {
  if (!head.memo.has(name)) head.memo.set(name, make());
  return head.memo.get(name);
}

function askerChoices({ prefix }) {
  const others = prefix.map((name) => ({ value: name, label: `the ${name}` }));
  return [{ value: "patch", label: "the framed patch" }, { value: "all", label: "all patches" }, ...others];
}

// Numbers of the tokens that ask; null where there is no such token.
function askersOf({ asks, patch }, { prefix, patches, first }) {
  if (asks === "all") return upTo(patches).map((n) => first + n);
  const token = asks === "patch" ? first + patch : prefix.indexOf(asks);
  return token >= 0 && token < first + patches ? [token] : null;
}

// ---- a head taken apart (qkutils.gallery.explain) -----------------------------------------------

function takenApart(head, askers, scene) {
  return once(head, `apart ${askers}`, () => ({ contribution: contributions(head, askers, scene), ...sharesOf(head, askers) }));
}

// σ × the largest projection of an asker × the largest of a patch, for the better sign.
function contributions(head, askers, { first, patches }) {
  const answering = upTo(patches).map((n) => first + n);
  return Array.from(head.sigma, (sigma, mode) => {
    const [asked, answered] = [extremes(head.ask, head.modes, mode, askers), extremes(head.key, head.modes, mode, answering)];
    return sigma * Math.max(asked.high * answered.high, asked.low * answered.low);
  });
}

// How far a mode's values reach above zero, and below it.
function extremes(side, modes, mode, tokens) {
  let [low, high] = [0, 0];
  for (const token of tokens) {
    const value = side[token * modes + mode];
    if (value > high) high = value;
    if (-value > low) low = -value;
  }
  return { low, high };
}

function orderOf(by, head, contribution) {
  const values = by === "sigma" ? head.sigma : contribution;
  return upTo(head.modes).sort((a, b) => values[b] - values[a]);
}

// Each mode's covariance over keys with the whole logit ÷ the whole's variance, askers pooled; from
// the products of modes over keys and over askers, so that no logit has to be computed.
function sharesOf(head, askers) {
  const { modes, query } = head;
  const keys = once(head, "keys", () => products(head));
  const sums = new Float64Array(modes);
  const pairs = new Float64Array(modes * modes);
  for (const token of askers) {
    const asking = query.subarray(token * modes, (token + 1) * modes);
    for (let n = 0; n < modes; n++) {
      sums[n] += asking[n];
      for (let m = 0; m < modes; m++) pairs[n * modes + m] += asking[n] * asking[m];
    }
  }
  const terms = Array.from(sums, (sum, n) => sum * keys.pull[n]);
  pairs.forEach((pair, at) => (terms[Math.floor(at / modes)] += pair * keys.gram[at]));
  const salience = sums.reduce((total, sum, n) => total + sum * keys.pull[n], askers.length * keys.salience);
  const whole = terms.reduce((total, term) => total + term, salience) || 1;
  return { share: terms.map((term) => term / whole), salience: salience / whole };
}

// Products over keys, each less its mean: of mode with mode, of mode with key salience, of salience.
function products({ modes, tokens, key, salience }) {
  const mean = new Float64Array(modes);
  key.forEach((value, at) => (mean[at % modes] += value / tokens));
  const level = salience.reduce((total, value) => total + value / tokens, 0);
  const found = { gram: new Float64Array(modes * modes), pull: new Float64Array(modes), salience: 0 };
  const centred = new Float64Array(modes);
  for (let token = 0; token < tokens; token++) {
    const more = salience[token] - level;
    found.salience += more * more;
    for (let n = 0; n < modes; n++) centred[n] = key[token * modes + n] - mean[n];
    for (let n = 0; n < modes; n++) {
      found.pull[n] += centred[n] * more;
      for (let m = 0; m < modes; m++) found.gram[n * modes + m] += centred[n] * centred[m];
    }
  }
  return found;
}

// ---- and built up ---------------------------------------------------------------------------------

function ownRow(head, asking) {
  return once(head, `own ${asking}`, () => attentionRow(head, asking));
}

function meanOf(askers, row) {
  if (askers.length === 1) return row(askers[0]);
  const mean = new Float64Array(row(askers[0]).length);
  for (const asking of askers) row(asking).forEach((value, token) => (mean[token] += value / askers.length));
  return mean;
}

// Total variation from the head's own row with the first 0, 1, … modes of an order.
function distances(head, asking, order, salience) {
  const { modes, tokens, query, key } = head;
  const own = ownRow(head, asking);
  const logits = salience ? Float64Array.from(head.salience) : new Float64Array(tokens);
  const found = new Float64Array(modes + 1);
  found[0] = apart(logits, own);
  order.forEach((mode, n) => {
    const asked = query[asking * modes + mode];
    for (let token = 0; token < tokens; token++) logits[token] += asked * key[token * modes + mode];
    found[n + 1] = apart(logits, own);
  });
  return found;
}

// Total variation between the softmax of logits and a row.
function apart(logits, own) {
  let largest = -Infinity;
  for (const logit of logits) if (logit > largest) largest = logit;
  const made = logits.map((logit) => Math.exp(logit - largest));
  let total = 0;
  for (const value of made) total += value;
  let far = 0;
  for (let token = 0; token < own.length; token++) far += Math.abs(made[token] / total - own[token]);
  return far / 2;
}

// The mean of `distances` over all patches; it pauses after each.
function* meanDistances(head, { first, patches }, order, salience) {
  const mean = new Float64Array(head.modes + 1);
  for (let n = 0; n < patches; n++) {
    distances(head, first + n, order, salience).forEach((value, kept) => (mean[kept] += value / patches));
    yield;
  }
  return mean;
}

// ---- words ------------------------------------------------------------------------------------------

function upTo(count) {
  return Array.from({ length: count }, (_, n) => n);
}

function fixed(value) {
  return value.toFixed(3);
}

function percent(value) {
  return `${(100 * value).toFixed(1)}\u00a0%`;
}

function share(value) {
  return `${signed(100 * value, 1)}\u00a0%`;
}

// 0, 1, 2, 5 as "0–2, 5".
function listed(numbers) {
  const runs = [];
  for (const n of numbers) {
    if (runs.length && runs.at(-1)[1] === n - 1) runs.at(-1)[1] = n;
    else runs.push([n, n]);
  }
  return runs.map(([from, to]) => (from === to ? `${from}` : `${from}–${to}`)).join(", ");
}

export default { render };
