// One image, many modes: what each mode of a head gives to its scores, and their sum, mode by mode.

const [EVEN, TWO_SIDED] = ["cividis", "PuOr"];
const LARGEST_UPLOAD = 7e6; // bytes; Jupyter takes messages of ten million, and text is a third more
const STRIP = { width: 430, height: 112, left: 52, top: 12, bottom: 92 };
const SLICE = 4; // milliseconds of computing before the browser may do something else
const ORDERS = [{ value: "contribution", label: "contribution" }, { value: "sigma", label: "σ" }];

function render(context) {
  const view = new Frame(context);
  const palette = view.look.palette;
  let scene = sceneOf(view.data);
  let here = { model: scene.model, image: 0 };
  let live = false;
  let timer = 0;
  let drawn = null; // what is on the stage: the head, its modes in order, the shown one

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
  const change = () => ({ mode: null }); // another head's modes are other ones
  const offerLayers = view.steps("layer", "layer", scene.layers, String, change);
  const offerHeads = view.steps("head", "head", scene.ofLayer, String, change);
  const offerAskers = view.select("asks", "asks", askerChoices(scene));
  const photo = view.grid("", scene.grid, { at: () => view.state.patch, choose: (patch) => view.set({ patch, asks: "patch" }) });

  begin("One mode alone");
  view.choice("order by", "order", ORDERS, () => ({ mode: drawn.mode }));
  const stepper = element("input", { type: "range", min: 0, step: 1 });
  const shownMode = element("output");
  view.label("look at mode", stepper).after(shownMode);
  stepper.addEventListener("input", () => view.set({ mode: drawn.order[stepper.valueAsNumber] }));
  const [queryMap, keyMap, modeBar] = pair(TWO_SIDED, "projection of a patch");

  const strip = view.panel(
    "share of the logit: covariance with the whole, ÷ its variance; below zero: works against the rest. " +
      "κ: key salience; then the modes in this order. Full colour: added up below; framed: the mode above"
  );
  const bars = shape("svg", { viewBox: `0 0 ${STRIP.width} ${STRIP.height}`, role: "img", class: "qk-axes qk-small" });
  strip.figure.prepend(bars);

  begin("The first modes added up", "qk-wide");
  const keeper = view.range("add up the first", "kept", { min: 0, max: 0, show: (kept) => `${modesIn(kept)} by ${orderName(view.state)}` });
  view.toggle("add key salience κ · z", "salience");
  const [builtMap, ownMap, rowBar] = pair(EVEN, "attention");
  for (const map of [builtMap, ownMap]) {
    map.before = element("div", { class: "qk-cells" });
    map.box.before(map.before);
  }
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
    chart.svg.classList.add("qk-small");
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
    const mode = state.mode ?? order[0];
    if (!order.includes(mode)) return view.complain(`mode ${mode}: there are 0 to ${head.modes - 1}`);
    const kept = Math.max(0, Math.min(state.kept, head.modes));
    const now = { state, head, askers, about, order, at: order.indexOf(mode), kept, mode, who: whoAsks(state) };
    drawn = now;
    for (const map of maps) mark(map, state);
    view.show(photo, address, `the picture; ${now.who}`);
    photo.caption.textContent = `${scene.name}: ${now.who}. Click, or use the arrow keys`;
    drawMode(now);
    drawShares(now);
    drawRows(now);
    measure(now);
  }

  function mark(map, { asks, patch }) {
    if (asks === "patch") view.frame(map, patch, "#fff", "#000");
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
      const range = `from ${exact(Math.min(...values[n]))} to ${exact(Math.max(...values[n]))}`;
      view.paint(map, values[n], { low: -limit, high: limit, colours: TWO_SIDED, name: `M${mode}, ${name}, ${range}` });
      map.caption.textContent = `M${mode}, ${name}`;
    });
    modeBar(exact(-limit), exact(limit));
    stepper.value = at;
    shownMode.textContent = ranked({ mode, at, state });
    stepper.setAttribute("aria-valuetext", shownMode.textContent);
  }

  function ranked({ mode, at, state }) {
    return `M${mode} (${nth(at + 1)} by ${orderName(state)})`;
  }

  // A bar for key salience and one for each mode, up from zero or down from it.
  function drawShares({ head, about, order, at, kept, mode, state }) {
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
    const frame = { x: middle(at + 1) - 0.5 * step, y: STRIP.top - 4, width: step, height: STRIP.bottom - STRIP.top + 8 };
    const end = { x: STRIP.left - 5, "text-anchor": "end" };
    const below = { y: STRIP.height - 3, "text-anchor": "middle" };
    const ends = [[high, STRIP.top + 4], [low, STRIP.bottom + 4]].filter(([value, y]) => value && Math.abs(y - zero) > 16);
    bars.replaceChildren(
      ...all.map(rect),
      shape("path", { d: `M${STRIP.left} ${zero}H${STRIP.width}`, class: "qk-axis" }),
      shape("rect", { ...frame, fill: "none", stroke: "var(--qk-text)", "stroke-width": 1.5 }),
      ...ends.map(([value, y]) => shape("text", { ...end, y }, share(value, 0))),
      shape("text", { ...end, y: zero + 4 }, "0"),
      shape("text", { ...below, x: middle(0) }, "κ"),
      shape("text", { ...below, x: Math.max(middle(at + 1), middle(0) + 24) }, `M${mode}`)
    );
    const first = order.slice(0, 3).map((number) => `M${number} ${share(about.share[number])}`).join(", ");
    bars.setAttribute("aria-label", `share of the logit: key salience ${share(about.salience)}; modes in this order, beginning with ${first}; now M${mode}`);
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
    const high = Math.max(...built, ...own);
    const mean = askers.length > 1 ? ", mean over all patches" : "";
    const names = [`rebuilt${mean}: ${counted(kept, state)}`, `the model's own${mean}`];
    [builtMap, ownMap].forEach((map, n) => {
      drawCells(map, [built, own][n], high, state);
      const most = Math.max(...rows[n]);
      const place = rows[n].indexOf(most);
      const where = `most, ${percent(most)}, in row ${Math.floor(place / scene.grid[1])}, column ${place % scene.grid[1]}`;
      view.paint(map, rows[n], { low: 0, high, colours: EVEN, name: `attention, ${names[n]}; ${where}` });
      map.caption.textContent = names[n];
    });
    rowBar("0", percent(high));
  }

  // Prefix tokens have no place on the grid: a cell for each, in the colours of the map.
  function drawCells(map, row, high, { asks }) {
    const cells = scene.prefix.map((name, n) => {
      const at = 3 * Math.round((255 * row[n]) / (high || 1));
      const fill = `rgb(${view.maps[EVEN].subarray(at, at + 3).join(" ")})`;
      const kind = asks === name ? "qk-cell qk-asks" : "qk-cell";
      const cell = element("span", { class: kind, style: `background: ${fill}`, "aria-hidden": "true" });
      return element("span", { class: "qk-item" }, cell, `${name} ${percent(row[n])}`);
    });
    map.before.replaceChildren(...cells);
  }

  function counted(kept, { salience }) {
    return `${modesIn(kept)}${salience ? " and key salience" : ", no key salience"}`;
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

  function facts({ state, head, about, mode, at, kept, askers, who }, one, means) {
    const rows = [
      ["head", `layer ${head.layer}, head ${head.head}; ${who}`],
      ["mode", `${ranked({ mode, at, state })}; ${sides(head, mode, askers)}`],
      ["σ", head.sigma[mode].toPrecision(3)],
      ["cosine", signed(head.cosine[mode])],
      ["contribution", about.contribution[mode].toPrecision(3)],
      ["share of the logit", `${share(about.share[mode])}; key salience ${share(about.salience)}`],
      ["attention elsewhere", elsewhere(one, means, kept, state)],
    ];
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
    if (asked === 0) return "the asker has 0, so no key gains";
    return `the asker has ${exact(asked)}, so ${asked < 0 ? "negative (orange)" : "positive (purple)"} keys gain`;
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
      mode: state.mode < scene.modes ? state.mode : null, kept: Math.min(state.kept, scene.modes),
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

function share(value, digits = 1) {
  return `${signed(100 * value, digits)}\u00a0%`;
}

// At least two digits that count, with the sign.
function exact(value) {
  if (Math.abs(value) >= 0.1 || value === 0) return signed(value);
  return (value < 0 ? "−" : "+") + Number(Math.abs(value).toPrecision(2));
}

function nth(number) {
  // codespell:ignore-next-line
  const ending = ["th", "st", "nd", "rd"][number % 10] ?? "th";
  return `${number}${Math.floor(number / 10) % 10 === 1 ? "th" : ending}`;
}

function modesIn(count) {
  return `${count} mode${count === 1 ? "" : "s"}`;
}

function orderName({ order }) {
  return order === "sigma" ? "σ" : "contribution";
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
