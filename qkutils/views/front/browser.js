// Every head's modes on a map; of the chosen mode its optimal pictures, red asking, cyan answering.

const MAPS = {
  weighted_cosine: { label: "weighted cosine", colours: "PuOr" },
  cosine: { label: "cosine of the mode", colours: "PuOr" },
  sigma: { label: "σ of the mode", colours: "cividis" },
  carried: { label: "carried share of the mode", colours: "cividis" },
};
const SHOWN = { both: "both", query: "query", key: "key" };
const SIGNS = { 1: "+", "-1": "−" };
const MARKS = [
  null,
  "null mode: the weights can't tell its σ from zero",
  "degenerate: another mode has nearly its σ, and rounding alone would turn its directions",
  "null and degenerate mode: the weights can't tell its σ from zero",
];

function render(context) {
  const view = new Frame(context);
  const { sizes, grid, shape: size, top, carried, naming } = view.data;
  const facts = {};
  for (const [name, sent] of Object.entries(view.data.facts)) facts[name] = unpack(sent);
  const shelf = new Map(Object.entries(view.data.pictures));
  const galleries = [opened(view.data.gallery)];
  const patches = patchOfPixel(size, grid);
  const live = { is: false, waits: "", others: new Map() };

  const named = (names) => Object.entries(names).map(([value, label]) => ({ value, label }));
  const colourings = Object.entries(MAPS).filter(([name]) => facts[name]);
  view.select("colour heads by", "colour", colourings.map(([value, { label }]) => ({ value, label })));
  view.range("mode", "mode", { min: 0, max: sizes.mode - 1, show: (mode) => `M${mode} of ${sizes.mode}${reach()}` });
  view.choice("sign", "sign", [1, -1].map((value) => ({ value, label: SIGNS[value] })));
  view.choice("show", "show", named(SHOWN));
  const heads = headMap();
  const bars = { PuOr: bar("PuOr", "cosine"), cividis: bar("cividis", "") };
  const spectrum = shares();
  const [other, ...slots] = pictureSlots(top + 1);
  const note = element("p", { class: "qk-note", role: "status" });
  const scale = legend();
  view.stage.append(note, scale.row, element("p", { class: "qk-note" }, carried));
  const tellNames = naming ? disclosure() : () => {};

  // ---- the map of heads ---------------------------------------------------------------------

  function headMap() {
    const at = () => view.state.head * sizes.layer + view.state.layer;
    const choose = (n) => view.set({ head: Math.floor(n / sizes.layer), layer: n % sizes.layer });
    const caption = "layers from left to right, heads from top to bottom; the framed one is chosen";
    const map = view.grid(caption, [sizes.head, sizes.layer], { at, choose });
    map.figure.classList.add("qk-heads");
    map.figure.style.flexBasis = `${sizes.layer * 2 + 2.6}rem`;
    map.box.setAttribute("aria-roledescription", "map of heads; arrow keys choose a head");
    map.box.append(ticks(sizes));
    return map;
  }

  function bar(colours, text) {
    const set = view.bar(colours, text, heads.figure);
    const row = heads.figure.lastElementChild;
    return { set, row, text: row.firstElementChild };
  }

  function valueOf(name, { layer, head, mode }) {
    const { shape, values } = facts[name];
    const at = layer * shape[1] + head;
    return shape.length === 2 ? values[at] : values[at * shape[2] + mode];
  }

  function drawHeads(state) {
    const { label, colours } = MAPS[state.colour];
    const values = new Float32Array(sizes.layer * sizes.head);
    for (let n = 0; n < values.length; n++) {
      const place = { layer: n % sizes.layer, head: Math.floor(n / sizes.layer), mode: state.mode };
      values[n] = valueOf(state.colour, place);
    }
    const share = state.colour === "carried";
    const [low, high] = colours === "PuOr" ? [-1, 1] : [0, Math.max(...values)];
    const say = share ? percent : number;
    const here = say(valueOf(state.colour, state));
    const what = state.colour === "weighted_cosine" ? label : `${label} ${state.mode}`;
    const name = `${what} by layer and head; layer ${state.layer}, head ${state.head}: ${here}`;
    view.paint(heads, values, { low, high, colours, name });
    view.frame(heads, state.head * sizes.layer + state.layer, "#000");
    for (const [each, { row }] of Object.entries(bars)) row.hidden = each !== colours;
    bars[colours].set(say(low), say(high));
    if (colours === "cividis") bars.cividis.text.textContent = share ? "carried share" : "σ";
  }

  // ---- the modes of the chosen head -----------------------------------------------------------

  // Bars for what modes carry, under a line for what they have of the sum of σ.
  function shares() {
    const last = sizes.mode - 1;
    const xticks = [...new Set([0, 1, 2, 3].map((third) => Math.round((third * last) / 3)))];
    const made = view.axes("", {
      x: [-0.5, last + 0.5], y: [0, 1], xticks, yticks: [0, 0.5, 1],
      xlabel: "mode of the chosen head", ylabel: "share", width: 300, height: 200,
    });
    const sample = (...ink) => shape("svg", { width: 14, height: 10, "aria-hidden": "true" }, ...ink);
    const bar = shape("rect", { width: 14, height: 10, fill: view.look.palette[0], class: "qk-curve" });
    const line = shape("path", { d: "M0 5H14", class: "qk-strength" });
    const item = (...parts) => element("span", { class: "qk-item" }, ...parts);
    if (facts.carried) made.caption.append(item(sample(bar), "carried share (of the logit variance)"));
    made.caption.append(item(sample(line), "share of σ"), "A click chooses a mode");
    made.svg.classList.add("qk-small", "qk-pick");
    made.svg.addEventListener("click", (event) => {
      const { left, width } = made.svg.getBoundingClientRect();
      const at = ((event.clientX - left) / width) * 300 - made.left;
      const mode = Math.floor((at / (made.right - made.left)) * sizes.mode);
      view.set({ mode: Math.min(last, Math.max(0, mode)) });
    });
    return made;
  }

  function drawShares({ layer, head, mode }) {
    const { x, y, ink, svg, bottom, top } = spectrum;
    const [sigma, carries] = [facts.share, facts.carried].map((each) => each && part(each, layer, head));
    const bars = Array.from(carries ?? [], (value, n) => {
      const place = { x: x(n - 0.4), y: y(value), width: x(0.8) - x(0), height: bottom - y(value) };
      return shape("rect", { ...place, fill: view.look.palette[0], class: "qk-curve" });
    });
    const lines = Array.from(sigma, (value, n) => `M${x(n - 0.45)} ${y(value)}H${x(n + 0.45)}`).join("");
    const frame = { x: x(mode - 0.5), y: top, width: x(1) - x(0), height: bottom - top, class: "qk-chosen" };
    ink.replaceChildren(...bars, shape("path", { d: lines, class: "qk-strength" }), shape("rect", frame));
    const order = Array.from(sigma.keys()).sort((a, b) => (carries ?? sigma)[b] - (carries ?? sigma)[a]);
    const say = (n) => `M${n} ${carries ? `${percent(carries[n])} (σ ${percent(sigma[n])})` : percent(sigma[n])}`;
    const what = carries ? "carried share and share of σ" : "share of σ";
    svg.setAttribute("aria-label", `${what} of each mode of layer ${layer}, head ${head}; most: ${order.slice(0, 3).map(say).join(", ")}`);
  }

  // ---- pictures -----------------------------------------------------------------------------

  // Figures of a picture above its overlay; the first is made for a picture that was asked for.
  function pictureSlots(count) {
    const stage = view.stage;
    view.stage = element("div", { class: "qk-pictures" });
    stage.append(element("div", { class: "qk-shelf" }, view.stage));
    const slots = Array.from({ length: count }, () => {
      const slot = view.grid("", size);
      const plain = element("canvas", { width: size[1], height: size[0] });
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

  function placed({ layer, head, mode }) {
    for (const gallery of galleries) {
      const at = [gallery.layers.indexOf(layer), gallery.heads.indexOf(head), gallery.modes.indexOf(mode)];
      if (!at.includes(-1)) return { gallery, at };
    }
    return null;
  }

  function drawGallery(state) {
    const found = placed(state);
    scale.row.hidden = !found;
    if (!found) {
      slots.forEach((slot) => clear(slot, ""));
      return clear(other, "");
    }
    const { gallery, at } = found;
    const limits = { query: part(gallery.query_limit, ...at)[0], key: part(gallery.key_limit, ...at)[0] };
    scale.set(limits);
    const signAt = state.sign === 1 ? 0 : 1;
    slots.forEach((slot, rank) => {
      if (rank >= gallery.image.shape[4]) return clear(slot, "");
      const image = part(gallery.image, ...at, signAt, rank)[0];
      if (image < 0) return clear(slot, "no further picture has patches at this end of both directions");
      const [score, asks, answers] = ["score", "query_patch", "key_patch"].map((name) => part(gallery[name], ...at, signAt, rank)[0]);
      const maps = { query: part(gallery.query, ...at, signAt, rank), key: part(gallery.key, ...at, signAt, rank) };
      paint(slot, { image, maps, show: state.show, title: `${rank + 1}. `, score, asks, answers });
    });
    return drawOther(state, limits);
  }

  // A picture that was asked for by its number, on the scale of the mode's optimal pictures.
  function drawOther(state, limits) {
    const one = live.others.get(placeOf(state, state.picture));
    if (!one) return clear(other, "");
    const [query, key] = [0, 1].map((side) => part(one, side).map((value) => value * state.sign));
    const [asks, answers] = [query, key].map((values) => values.indexOf(Math.max(...values)));
    const score = query[asks] > 0 && key[answers] > 0 ? query[asks] * key[answers] : null;
    const maps = { query: within(query, limits.query), key: within(key, limits.key) };
    const title = `picture ${state.picture}: `;
    return paint(other, { image: state.picture, maps, show: state.show, title, score, asks, answers });
  }

  function clear(slot, why) {
    slot.wanted = null;
    slot.figure.hidden = !why;
    slot.caption.textContent = why;
    for (const canvas of [slot.plain, slot.canvas]) canvas.getContext("2d").clearRect(0, 0, size[1], size[0]);
    for (const box of [slot.above, slot.box]) box.setAttribute("aria-label", why || "no picture");
  }

  // A picture is decoded once; until it is, what the slot showed before stays there.
  function paint(slot, wanted) {
    slot.wanted = wanted;
    const sent = shelf.get(String(wanted.image));
    if (sent.pixels) return put(slot, wanted, sent);
    sent.decoding ??= decoded(sent, size).then((pixels) => (sent.pixels = pixels));
    return sent.decoding.then(
      () => slot.wanted === wanted && put(slot, wanted, sent),
      () => view.complain(`the picture ${sent.key} can't be decoded`)
    );
  }

  function put(slot, { maps, show, title, score, asks, answers }, { key, pixels }) {
    slot.figure.hidden = false;
    const on = { query: show === "both" || show === "query", key: show === "both" || show === "key" };
    const image = new ImageData(size[1], size[0]);
    compose(image.data, pixels.grey, patches, on.query && maps.query, on.key && maps.key);
    slot.canvas.getContext("2d").putImageData(image, 0, 0);
    slot.plain.getContext("2d").putImageData(pixels.image, 0, 0);
    slot.above.setAttribute("aria-label", `${title}${key}, the picture itself`);
    const said = score === null ? "no score: nothing at one end" : `score ${number(score)}`;
    slot.caption.textContent = `${title}${key}, ${said}`;
    const where = `asks most at ${patchName(asks, grid)}, answers most at ${patchName(answers, grid)}`;
    slot.box.setAttribute("aria-label", `${title}${key}; shown: ${SHOWN[show]}; ${said}; ${where}`);
  }

  // ---- facts --------------------------------------------------------------------------------

  function rows(state) {
    const { layer, head, mode, sign } = state;
    const share = facts.carried ? percent(valueOf("carried", state)) : null;
    const told = [
      [`mode ${mode}`, `layer ${layer}, head ${head}, sign ${SIGNS[sign]}`],
      ["cosine", `${signed(valueOf("cosine", state))} (weighted, of the whole head: ${signed(valueOf("weighted_cosine", state))})`],
      ["σ", `${number(valueOf("sigma", state))}, ${percent(valueOf("share", state))} of the sum over the head`],
      ["carried share", share ? `${share} of the logit variance of the head's modes and key salience on the pictures` : "not measured in this scan"],
    ];
    const mark = MARKS[valueOf("mark", state)];
    if (mark) told.push(["mark", mark]);
    return told;
  }

  // Names are told on demand, so that a reader can look first.
  function disclosure() {
    const button = element("button", { type: "button" }, `show the ${naming}`);
    const place = element("div", { class: "qk-facts", "aria-live": "polite" });
    view.facts.after(element("div", { class: "qk-disclosure" }, button, place));
    button.addEventListener("click", () => view.set({ named: !view.state.named }));
    return (state) => {
      const { layer, head, mode, sign, named } = state;
      button.setAttribute("aria-expanded", String(Boolean(named)));
      place.hidden = !named;
      if (!named) return view.tell([], place);
      const rows = placed(state)?.gallery.names[`${layer} ${head} ${mode}`]?.[sign] ?? [];
      return view.tell(rows.length ? rows : [["name", "none here for this mode"]], place);
    };
  }

  function check(state) {
    for (const [name, count] of Object.entries(sizes)) {
      const value = state[name];
      if (!Number.isInteger(value) || value < 0 || value >= count) throw new Error(`${name} ${value}: there are 0 to ${count - 1}`);
    }
    const known = { sign: SIGNS, show: SHOWN, colour: MAPS };
    if (state.colour === "carried" && !facts.carried) throw new Error("colour carried: it was not measured in this scan");
    for (const [name, choices] of Object.entries(known)) {
      if (!(state[name] in choices)) throw new Error(`${name} ${state[name]}: there are ${Object.keys(choices).join(", ")}`);
    }
  }

  function draw(state) {
    check(state);
    drawHeads(state);
    drawShares(state);
    drawGallery(state);
    view.tell(rows(state));
    tellNames(state);
    note.textContent = missing(state);
  }

  // ---- what the page does not carry ---------------------------------------------------------

  function placeOf({ layer, head, mode }, ...more) {
    return [layer, head, mode, ...more].join(" ");
  }

  // Where the pictures of the chosen head stop.
  function reach() {
    const { layers, heads, modes } = view.data.gallery;
    if (live.is || modes.length === sizes.mode) return "";
    if (!layers.includes(view.state.layer) || !heads.includes(view.state.head)) return " (no pictures of this head)";
    if (modes.at(-1) === modes.length - 1) return ` (pictures to M${modes.at(-1)})`;
    return ` (pictures of ${modes.map((mode) => `M${mode}`).join(", ")})`;
  }

  function missing(state) {
    const { layer, head, mode, picture } = state;
    if (!placed(state)) {
      if (!live.is) return `This page has no pictures of layer ${layer}, head ${head}, mode ${mode}; a notebook computes them.`;
      want(placeOf(state), { layer, head, mode }, ({ gallery }) => galleries.push(opened(gallery)));
      return "Looking for the pictures of this mode …";
    }
    const place = placeOf(state, picture);
    if (!live.is || picture === null || live.others.has(place)) {
      live.waits = "";
      return "";
    }
    want(place, { layer, head, mode, picture }, ({ maps }) => live.others.set(place, unpack(maps)));
    return `Looking at picture ${picture} …`;
  }

  // Ask once, and only for what is still wanted a moment later: a slider passes many modes.
  function want(place, request, take) {
    if (live.waits === place) return;
    live.waits = place;
    setTimeout(async () => {
      if (live.waits !== place) return;
      const found = await view.ask(request);
      for (const [n, sent] of Object.entries(found.pictures)) if (!shelf.has(n)) shelf.set(n, sent);
      take(found);
      if (live.waits === place) live.waits = "";
      view.redraw();
    }, 150);
  }

  view.begin(draw, ({ pictures }) => {
    live.is = true;
    const control = element("input", { type: "number", min: 0, max: pictures - 1, placeholder: "none" });
    view.label(`one more picture (0 to ${pictures - 1})`, control);
    control.addEventListener("change", () => view.set({ picture: control.value === "" ? null : control.valueAsNumber }));
    view.bound.push(({ picture }) => (control.value = picture ?? ""));
    view.redraw();
  });
}

// What Python sent of some modes: numbers over [layer, head, mode, sign, rank], maps over patches.
function opened(sent) {
  const numbers = ["image", "score", "query_patch", "key_patch", "query", "key", "query_limit", "key_limit"];
  return { ...sent, ...Object.fromEntries(numbers.map((name) => [name, unpack(sent[name])])) };
}

function ticks({ layer, head }) {
  const svg = shape("svg", { viewBox: `0 0 ${layer} ${head}`, class: "qk-ticks", "aria-hidden": "true" });
  const step = layer > 14 ? 2 : 1;
  for (let n = 0; n < layer; n += step) svg.append(shape("text", { x: n + 0.5, y: head + 0.55, "text-anchor": "middle" }, String(n)));
  for (let n = 0; n < head; n++) svg.append(shape("text", { x: -0.2, y: n + 0.65, "text-anchor": "end" }, String(n)));
  const turned = { "text-anchor": "middle", transform: `translate(-0.85 ${head / 2}) rotate(-90)` };
  svg.append(shape("text", { x: layer / 2, y: head + 1.1, "text-anchor": "middle" }, "layer"), shape("text", turned, "head"));
  return svg;
}

// For full colours: red is what asks, cyan is what answers, with the projections that they stand for.
function legend() {
  const ends = { query: element("span"), key: element("span") };
  const item = (...parts) => element("span", { class: "qk-item" }, ...parts);
  const ramp = (name) => element("span", { class: `qk-ramp qk-ramp-${name}`, "aria-hidden": "true" });
  const row = element(
    "div",
    { class: "qk-bar" },
    item("red asks (query): 0", ramp("query"), ends.query),
    item("cyan answers (key): 0", ramp("key"), ends.key),
    item(ramp("both"), "white does both")
  );
  const set = (limits) => {
    for (const side of ["query", "key"]) ends[side].textContent = number(limits[side]);
  };
  return { row, set };
}

function patchOfPixel([height, width], [rows, columns]) {
  return Uint32Array.from({ length: height * width }, (_, n) => {
    const row = Math.floor((Math.floor(n / width) * rows) / height);
    return row * columns + Math.floor(((n % width) * columns) / width);
  });
}

async function decoded({ bytes, type }, [height, width]) {
  const bitmap = await createImageBitmap(new Blob([bytes], { type }));
  const pen = element("canvas", { width, height }).getContext("2d", { willReadFrequently: true });
  pen.drawImage(bitmap, 0, 0);
  const image = pen.getImageData(0, 0, width, height);
  const colours = image.data;
  const grey = Float32Array.from({ length: height * width }, (_, n) => (colours[4 * n] + colours[4 * n + 1] + colours[4 * n + 2]) / 3);
  return { image, grey };
}

// The same as Python's plots.overlay: a dim picture under red, cyan, and white where both are.
function compose(into, grey, patches, query, key) {
  for (let n = 0; n < grey.length; n++) {
    const red = query ? query[patches[n]] : 0;
    const cyan = key ? key[patches[n]] : 0;
    const dim = 0.5 * grey[n] * (1 - Math.max(red, cyan));
    into[4 * n] = dim + 255 * red;
    into[4 * n + 1] = into[4 * n + 2] = dim + 255 * cyan;
    into[4 * n + 3] = 255;
  }
}

function within(values, limit) {
  return values.map((value) => Math.min(1, Math.max(0, value / limit)));
}

function patchName(patch, [, columns]) {
  return `row ${Math.floor(patch / columns)}, column ${patch % columns}`;
}

// Three digits that count.
function number(value) {
  return String(Number(value.toPrecision(3))).replace("-", "−");
}

function percent(share) {
  return `${Number((100 * share).toPrecision(2))} %`;
}

export default { render };
