// The model runs here: the reader changes a scene, or drops a photograph, and all follows.

import { addRange, addSelect, addSteps } from "./controls.js";
import { element } from "./dom.js";
import { addBar, addGrid, framePatch, paintMap, paintPixels } from "./drawing.js";
import { startEngine } from "./engine.js";
import { Frame } from "./frame.js";
import { largest, unpack, upTo } from "./math/arrays.js";
import { attentionRow } from "./math/attention.js";
import { askersOf, distances, ownRow, takenApart } from "./math/explain.js";
import { clipped, compose, greyOf, patchOfPixel } from "./math/overlay.js";
import { prepared } from "./math/resample.js";
import { confidences, headOf, holds, masksOf, switched } from "./math/run.js";
import { factorsOf } from "./math/scene.js";
import { TASKS } from "./math/tasks.js";
import { pickPhoto } from "./photo.js";
import { sceneEditor } from "./scene_editor.js";
import { exact, placeName } from "./words.js";

const EVEN = "cividis";
const NOTHING_OFF = { modes: [], heads: [], salience: [] };
const TABLED = 8; // modes with a row of their own, besides those that are off

function render(context) {
  const view = new Frame(context);
  const shown = {
    run: view.data.first && opened(view.data.first),
    engine: null,
    seen: "", // what was last asked of the engine
    photo: null,
    kept: null,
    now: null,
  };
  const addPart = parts(view);
  const starter = addStarter(view, shown);
  const input = inputPart(view, shown, addPart);
  const sections = [
    answerPart(view, shown, addPart),
    attentionPart(view, addPart),
    modePart(view, addPart),
    sumPart(view, shown, addPart),
    removalPart(view, shown, addPart),
    ...(view.data.tasks.length ? [taskPart(view, shown, addPart)] : []),
  ];

  const draw = (state) => {
    input.draw(state);
    if (shown.engine) compute(view, shown, state);
    if (!shown.run) return;
    shown.now = chosen(view, shown, state);
    for (const each of sections) each.draw(state, shown.now);
  };
  const use = (engine) => {
    shown.engine = engine;
    shown.seen = "";
    starter.hidden = Boolean(engine);
    view.root.classList.toggle("qk-live", Boolean(engine));
    view.redraw();
  };
  let begun = false;
  shown.live = (engine) => {
    if (!begun) input.live();
    begun = true;
    use(engine);
  };
  shown.stopped = (message) => {
    use(null);
    view.complain(message);
  };
  const end = view.begin(draw, () => shown.live(kernelEngine(view)));
  return () => {
    shown.engine?.close();
    end();
  };
}

// Returns a function that begins a part of the view with a name of its own.
function parts(view) {
  const all = element("div", { class: "qk-parts" });
  view.stage.replaceWith(element("div", { class: "qk-play" }, all));
  return (name, kind = "") => {
    view.controls = element("div", { class: "qk-controls" });
    view.stage = element("div", { class: "qk-stage" });
    const heading = element("div", { class: "qk-name" }, name);
    const look = { class: `qk-part ${kind}`, role: "group", "aria-label": name };
    const part = element("div", look, heading, view.controls, view.stage);
    all.append(part);
    return part;
  };
}

// ---- the engine --------------------------------------------------------------------------------

// A button that fetches the runtime and the model, with a bar; what it says before that.
function addStarter(view, shown) {
  const files = view.model.get("files"); // which the page has, and no kernel needs
  const loading = element("progress", { max: 1, value: 0, hidden: "", "aria-label": "loading" });
  const said = element("span", { role: "status" });
  const bytes = Object.values(files ?? {}).reduce((sum, { size }) => sum + size, 0);
  const size = `${(bytes / 1e6).toFixed(1)} MB, once`;
  const button = element("button", { type: "button" }, `Start the model here (${size})`);
  const place = element("div", { class: "qk-starter" }, button, loading, said);
  view.controls.before(place);
  if (!files) {
    button.hidden = true;
    said.textContent = "The model runs where there is a kernel, and on the book’s page.";
  }
  const progress = (loaded, total) => (loading.value = loaded / total);
  button.addEventListener("click", async () => {
    button.disabled = true;
    loading.hidden = false;
    view.fault.hidden = true;
    try {
      shown.live(await startEngine(files, progress, shown.stopped));
    } catch (error) {
      view.complain(error.message);
    }
    button.disabled = false;
    loading.hidden = true;
  });
  return place;
}

// The kernel as an engine: one question at a time, and of those that wait the last.
function kernelEngine(view) {
  let [busy, waiting] = [false, null];
  const next = () => {
    if (busy || !waiting) return;
    const { request, resolve, reject } = waiting;
    [busy, waiting] = [true, null];
    const free = (settle) => (given) => {
      busy = false;
      settle(given);
      next();
    };
    const fail = (message) => reject(new Error(message));
    view.ask(request, free(resolve), free(fail));
  };
  const see = (_, request) => {
    waiting?.resolve(null);
    return new Promise((resolve, reject) => {
      waiting = { request, resolve, reject };
      next();
    });
  };
  return { see, close() {} };
}

// Numbers of one picture, as Python packed them or as the engine gives them, by name.
function opened(found) {
  const made = {};
  for (const [name, sent] of Object.entries(found)) made[name] = sent.data ?? unpack(sent).values;
  return made;
}

// Ask for what the state shows, unless that is here or under way.
async function compute(view, shown, state) {
  const wanted = JSON.stringify([state.scene, state.off, shown.photo?.number]);
  if (wanted === shown.seen) return;
  shown.seen = wanted;
  const { world, size } = view.data;
  const picture = world
    ? { factors: factorsOf(state.scene, world.lattice) }
    : shown.photo && { image: shown.photo.input };
  if (!picture) return;
  const request = { scene: state.scene, off: state.off, photo: shown.photo?.sent ?? null };
  try {
    const run = await shown.engine.see({ ...picture, ...masksOf(state.off, size) }, request);
    if (!run || view.closed) return;
    shown.run = opened(picture.image ? { ...run, image: picture.image } : run);
    view.redraw();
  } catch (error) {
    if (shown.seen === wanted) shown.seen = "";
    view.complain(error.message);
  }
}

// What the state looks at in the run that is here.
function chosen(view, shown, state) {
  const { data } = view;
  const place = { ...data, first: data.prefix.length, patches: data.grid[0] * data.grid[1] };
  const head = headOf(shown.run, data, state.off, state.layer, state.head);
  const [asking] = askersOf(state, place);
  const about = takenApart(head, [asking], place);
  const order = upTo(head.modes).sort(
    (a, b) => Math.abs(about.share[b]) - Math.abs(about.share[a]),
  );
  const mode = state.mode ?? order[0];
  const row = attentionRow(head, asking);
  return { ...place, head, asking, about, order, mode, row, picture: pixelsOf(shown.run) };
}

// The picture as four channels of bytes; a run keeps what was made of it.
function pixelsOf(run) {
  if (!run.pixels) {
    const { image } = run;
    const side = Math.sqrt(image.length / 3);
    run.pixels = new ImageData(side, side);
    for (let n = 0; n < side * side; n++) {
      const colour = [0, 1, 2].map((c) => Math.round(255 * image[c * side * side + n]));
      run.pixels.data.set([...colour, 255], 4 * n);
    }
  }
  return run.pixels;
}

// ---- the picture -------------------------------------------------------------------------------

function inputPart(view, shown, addPart) {
  if (view.data.world) return sceneEditor(view, shown, addPart, pixelsOf);
  addPart("A photograph of your own", "qk-input");
  const canvas = element("canvas", { role: "img", "aria-label": "no photograph yet" });
  const box = element("div", { class: "qk-grid qk-photo", hidden: "" }, canvas);
  view.stage.append(box);
  const place = Object.assign(Object.create(view), { controls: view.controls });
  let number = 0;
  const take = ({ name, pixels, width, height }) => {
    const made = prepared(pixels, width, height, view.data.recipe);
    const input = { data: made.image, shape: [1, 3, made.height, made.width] };
    shown.photo = { number: ++number, input, sent: { pixels: inText(made.rgb) } };
    canvas.setAttribute("aria-label", name);
    view.redraw();
  };
  const draw = () => {
    box.hidden = !shown.run;
    if (shown.run) paintPixels(canvas, pixelsOf(shown.run));
  };
  return { draw, live: () => pickPhoto(place, take) };
}

// Bytes as base64 text, for Python.
function inText(bytes) {
  let text = "";
  for (const byte of bytes) text += String.fromCharCode(byte);
  return btoa(text);
}

// ---- the answer --------------------------------------------------------------------------------

function answerPart(view, shown, addPart) {
  addPart("The answer", "qk-answer");
  const { stage } = view;
  stage.before(view.facts);
  const draw = () => {
    const { questions } = view.data;
    if (!questions.length)
      return stage.replaceChildren("This model answers nothing: it was trained without labels.");
    const answers = confidences(shown.run.answer, questions);
    const tables = answers.map(({ name, choices, row, order }) => {
      const rows = order.slice(0, 3).map((n) => bar(choices[n], row[n], view.look.palette[0]));
      const head = element("caption", {}, name);
      return element("table", { class: "qk-shares" }, head, element("tbody", {}, ...rows));
    });
    stage.replaceChildren(...tables);
    const first = answers.map(({ name, choices, order }) => `${name} ${choices[order[0]]}`);
    const said = `It says: ${first.join(", ")}.`;
    if (view.facts.textContent !== said) view.facts.textContent = said; // which is read out
  };
  return { draw };
}

function bar(name, share, colour) {
  const ink = element("div", {
    style: `width: ${100 * Math.min(1, Math.abs(share))}%; background: ${colour}`,
  });
  const track = element("div", { class: "qk-track" }, ink);
  const value = element("td", {}, share.toFixed(2));
  return element("tr", {}, element("th", { scope: "row" }, name), element("td", {}, track), value);
}

// ---- attention ---------------------------------------------------------------------------------

function attentionPart(view, addPart) {
  addPart("Who attends where");
  const { size, prefix, grid } = view.data;
  addSteps(view, "layer", "layer", upTo(size[0]));
  addSteps(view, "head", "head", upTo(size[1]));
  const others = prefix.map((name) => ({ value: name, label: name }));
  addSelect(view, "asking", "asks", [{ value: "patch", label: "the framed patch" }, ...others]);
  const choose = (patch) => view.set({ patch, asks: "patch" });
  const map = addGrid(view, "", grid, { at: () => view.state.patch, choose });
  const setBar = addBar(view, EVEN, "attention", map.figure);
  map.caption.before(map.figure.lastChild);
  const draw = (state, { row, first, prefix: names }) => {
    const values = row.subarray(first);
    const high = Math.max(largest(values), 1e-9);
    const name = state.asks === "patch" ? placeName(state.patch, grid) : state.asks;
    paintMap(view, map, values, { low: 0, high, colours: EVEN, name: `attention of ${name}` });
    if (state.asks === "patch") framePatch(view, map, state.patch, "#fff", "#000");
    else map.marks.replaceChildren();
    setBar("0", high.toFixed(2));
    const rest = names.map((each, n) => `${each} ${row[n].toFixed(2)}`).join(", ");
    map.caption.textContent = `Click, or use arrow keys.${rest && ` Besides: ${rest}.`}`;
  };
  return { draw };
}

// ---- one mode ----------------------------------------------------------------------------------

function modePart(view, addPart) {
  addPart("One mode");
  const modes = upTo(view.data.size[2]);
  addSteps(view, "mode", "mode", [null, ...modes], (mode) =>
    mode === null ? "first" : `M${mode}`,
  );
  const turn = element("button", { type: "button" }, "turn its sign");
  turn.addEventListener("click", () => view.set({ sign: -view.state.sign }));
  view.controls.append(turn);
  const map = addGrid(view, "", view.data.grid);
  const draw = (state, now) => {
    const { head, mode, first, picture } = now;
    const side = (values) =>
      Float32Array.from(
        { length: now.patches },
        (_, n) => state.sign * values[(first + n) * head.modes + mode],
      );
    const [query, key] = [side(head.ask), side(head.key)];
    const image = new ImageData(picture.width, picture.height);
    const patches = patchOfPixel([picture.height, picture.width], view.data.grid);
    const [red, cyan] = [query, key].map((values) =>
      clipped(values, Math.max(largest(values), 1e-9)),
    );
    compose(image.data, greyOf(picture.data), patches, red, cyan);
    paintPixels(map.canvas, image);
    map.box.setAttribute("aria-label", `query and key map of mode ${mode}`);
    const turned = state.sign > 0 ? "" : ", its sign turned";
    map.caption.textContent = `M${mode} of layer ${head.layer}, head ${head.head}${turned}: red asks, cyan answers.`;
  };
  return { draw };
}

// ---- the score as a sum ------------------------------------------------------------------------

function sumPart(view, shown, addPart) {
  addPart("The score as a sum over modes", "qk-wide");
  const [, , count] = view.data.size;
  addRange(view, "modes added up", "kept", { min: 0, max: count });
  const map = addGrid(view, "", view.data.grid);
  const table = element("table", { class: "qk-shares" });
  view.stage.append(table);
  const switchOff = (mode) => {
    const { layer, head, off } = view.state;
    view.set({ off: { ...off, modes: switched(off.modes, [layer, head, mode]) } });
  };
  const draw = (state, { head, asking, order, about, first }) => {
    const kept = order.slice(0, state.kept);
    const row = attentionRow(head, asking, kept);
    const far = distances(head, asking, order, true)[state.kept];
    const high = Math.max(largest(ownRow(head, asking).subarray(first)), 1e-9);
    const name = `attention from ${state.kept} modes`;
    paintMap(view, map, row.subarray(first), { low: 0, high, colours: EVEN, name });
    map.caption.textContent = `Attention from key salience and ${state.kept} of ${count} modes: ${far.toFixed(2)} away from all.`;
    const stays = (mode, n) =>
      n < TABLED || holds(state.off.modes, [state.layer, state.head, mode]);
    const rows = upTo(order.length)
      .filter((n) => stays(order[n], n))
      .map((n) => {
        const mode = order[n];
        return modeRow(view, state, { mode, share: about.share[mode], n }, switchOff);
      });
    const focus = table.contains(document.activeElement) && document.activeElement.dataset.mode;
    table.replaceChildren(
      element("tbody", {}, ...rows, bar("key salience", about.salience, "#888")),
    );
    if (focus) table.querySelector(`[data-mode="${focus}"]`)?.focus();
  };
  return { draw };
}

function modeRow(view, { off, layer, head, kept }, { mode, share, n }, switchOff) {
  const isOff = holds(off.modes, [layer, head, mode]);
  const label = `M${mode}: switch ${isOff ? "on" : "off"}`;
  const button = element(
    "button",
    { type: "button", "data-mode": mode, "aria-pressed": String(isOff), "aria-label": label },
    isOff ? "off" : "on",
  );
  button.addEventListener("click", () => switchOff(mode));
  const made = bar(`M${mode}`, share, view.look.palette[n < kept ? 0 : 1]);
  made.lastChild.textContent = exact(share);
  made.append(element("td", {}, button));
  return made;
}

// ---- removal -----------------------------------------------------------------------------------

function removalPart(view, shown, addPart) {
  addPart("Switched off, inside the softmax", "qk-wide");
  const { controls, stage } = view;
  const act = (text, change) => {
    const button = element("button", { type: "button" }, text);
    button.addEventListener("click", () => view.set({ off: change(view.state) }));
    controls.append(button);
    return button;
  };
  const toggle =
    (name) =>
    ({ off, layer, head }) => ({ ...off, [name]: switched(off[name], [layer, head]) });
  const shownMode = ({ off, layer, head }) => ({
    ...off,
    modes: switched(off.modes, [layer, head, shown.now.mode]),
  });
  const buttons = {
    mode: act("the shown mode", shownMode),
    heads: act("this head", toggle("heads")),
    salience: act("this head’s key salience", toggle("salience")),
    every: act("all key salience", (state) => ({
      ...state.off,
      salience: everyHead(view.data.size, state.off),
    })),
  };
  const none = act("everything on", () => NOTHING_OFF);
  const draw = ({ off, layer, head }, { mode }) => {
    buttons.mode.textContent = `this head’s M${mode}`;
    buttons.mode.setAttribute("aria-pressed", String(holds(off.modes, [layer, head, mode])));
    buttons.heads.setAttribute("aria-pressed", String(holds(off.heads, [layer, head])));
    buttons.salience.setAttribute("aria-pressed", String(holds(off.salience, [layer, head])));
    const [layers, perLayer] = view.data.size;
    const all = off.salience.length === layers * perLayer;
    buttons.every.setAttribute("aria-pressed", String(all));
    const said = [
      ...off.modes.map(([l, h, m]) => `M${m} of layer ${l}, head ${h}`),
      ...off.heads.map(([l, h]) => `layer ${l}, head ${h}`),
      ...(all
        ? ["all key salience"]
        : off.salience.map(([l, h]) => `key salience of layer ${l}, head ${h}`)),
    ];
    none.disabled = !said.length;
    stage.textContent = said.length
      ? `Off: ${said.join("; ")}.`
      : "Nothing is off. A head that is off attends to all tokens alike.";
  };
  return { draw };
}

function everyHead([layers, perLayer], { salience }) {
  if (salience.length === layers * perLayer) return [];
  return upTo(layers).flatMap((layer) => upTo(perLayer).map((head) => [layer, head]));
}

// ---- tasks -------------------------------------------------------------------------------------

function taskPart(view, shown, addPart) {
  addPart("Can you …?", "qk-wide");
  const { stage } = view;
  const keep = element("button", { type: "button" }, "keep this picture");
  keep.addEventListener("click", () => {
    shown.kept = rememberedFrom(shown.now);
    view.redraw();
  });
  const items = view.data.tasks.map(({ key, text }) => {
    const said = element("span");
    const item = element("li", { "data-task": key }, element("strong", {}, text), " ", said);
    if (key === "twins") item.append(" ", keep);
    return { key, item, said };
  });
  const solved = element("div", { role: "status" });
  stage.append(element("ul", { class: "qk-tasks" }, ...items.map(({ item }) => item)), solved);
  const draw = (state, now) => {
    const { eyes, limits, questions, world } = view.data;
    const answers = confidences(shown.run.answer, questions);
    const odd = answers.find(({ name }) => name === "odd factor");
    const said = odd?.choices[odd.order[0]];
    const { scene, off } = state;
    const about = { scene, lattice: world?.lattice, off, said, eyes, limits };
    const current = rememberedFrom(now);
    let count = 0;
    for (const { key, item, said: place } of items) {
      const { done, text } = TASKS[key]({ ...about, kept: shown.kept, current });
      item.classList.toggle("qk-done", done);
      place.textContent = text;
      count += done;
    }
    const told = count ? `Solved: ${count} of ${items.length}.` : "";
    if (solved.textContent !== told) solved.textContent = told;
  };
  return { draw };
}

function rememberedFrom({ head: { layer, head }, asking, row, about }) {
  return { layer, head, asking, row, share: [...about.share, about.salience] };
}

export default { render };
