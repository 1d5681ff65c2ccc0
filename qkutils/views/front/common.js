// What every view is made of. Each view's own source follows below this one in the same module.

const SVG = "http://www.w3.org/2000/svg";

function fill(made, attributes, children) {
  for (const [name, value] of Object.entries(attributes)) made.setAttribute(name, value);
  made.append(...children); // text stays text: nothing here is ever read as markup
  return made;
}

function element(tag, attributes = {}, ...children) {
  return fill(document.createElement(tag), attributes, children);
}

function shape(tag, attributes = {}, ...children) {
  return fill(document.createElementNS(SVG, tag), attributes, children);
}

// ---- numbers that Python packed -------------------------------------------------------------

function half(bits) {
  const sign = bits & 0x8000 ? -1 : 1;
  const exponent = (bits >> 10) & 31;
  const fraction = bits & 1023;
  if (exponent === 31) return fraction ? NaN : sign * Infinity;
  if (exponent === 0) return sign * fraction * 2 ** -24;
  return sign * (1 + fraction / 1024) * 2 ** (exponent - 15);
}

// {shape, form, low, high, bytes} as {shape, values}, values in reading order as Float32Array.
function unpack({ shape, form, low, high, bytes }) {
  const buffer = bytes.buffer.slice(bytes.byteOffset, bytes.byteOffset + bytes.byteLength);
  if (form === "float32") return { shape, values: new Float32Array(buffer) };
  if (form === "float16") return { shape, values: Float32Array.from(new Uint16Array(buffer), half) };
  const step = (high - low) / 255;
  return { shape, values: Float32Array.from(new Uint8Array(buffer), (n) => low + step * n) };
}

// The part of unpacked numbers at the first indices, e.g. part(cosine, layer, head).
function part({ shape, values }, ...at) {
  let size = values.length;
  let start = 0;
  at.forEach((index, n) => {
    size /= shape[n];
    start += index * size;
  });
  return values.subarray(start, start + size);
}

// One row of attention from what tokens bring (Python's token_factors): query [token, rank], key
// [token, rank], salience [token]; `ranks` are those that count, all of them if left out.
function attentionRow({ query, key, salience }, asking, ranks = null) {
  const tokens = salience.length;
  const width = query.length / tokens;
  const used = ranks ?? Array.from({ length: width }, (_, n) => n);
  const row = new Float64Array(tokens);
  let largest = -Infinity;
  for (let token = 0; token < tokens; token++) {
    let score = salience[token];
    for (const rank of used) score += query[asking * width + rank] * key[token * width + rank];
    row[token] = score;
    largest = Math.max(largest, score);
  }
  let total = 0;
  for (let token = 0; token < tokens; token++) total += row[token] = Math.exp(row[token] - largest);
  return row.map((value) => value / total);
}

function picture(bytes, type = "image/png") {
  return URL.createObjectURL(new Blob([bytes], { type }));
}

function signed(value, digits = 2) {
  const text = Math.abs(value).toFixed(digits);
  return (value < 0 && Number(text) !== 0 ? "−" : "+") + text;
}

// JupyterLab cancels Enter in a field of a cell, so that no change is reported; leaving it does that.
function confirmed({ key, target }) {
  if (key !== "Enter" || target.type !== "number") return;
  target.blur();
  target.focus();
}

// ---- the frame of a view --------------------------------------------------------------------

// state: what is chosen, shared with Python. draw() is called after every change of it.
class Frame {
  constructor({ model, el }) {
    this.model = model;
    this.data = model.get("data");
    this.look = model.get("look");
    this.maps = {};
    for (const [name, bytes] of Object.entries(this.look.maps)) {
      this.maps[name] = new Uint8Array(bytes.buffer, bytes.byteOffset, bytes.byteLength);
    }
    this.controls = element("div", { class: "qk-controls" });
    this.stage = element("div", { class: "qk-stage" });
    this.facts = element("div", { class: "qk-facts", "aria-live": "polite" });
    this.fault = element("div", { class: "qk-error", role: "alert", hidden: "" });
    this.tools = element("div", { class: "qk-tools" });
    this.root = element(
      "section",
      { class: "qk-view", "aria-label": this.look.title },
      this.controls, this.stage, this.facts, this.fault, this.tools
    );
    this.root.addEventListener("keydown", confirmed);
    el.replaceChildren(this.root);
    this.bound = [];
    this.waiting = new Map();
    this.asked = 0;
    this.origin();
    model.on("change:state", () => this.redraw());
    model.on("change:answer", () => this.answered());
  }

  get state() {
    return this.model.get("state");
  }

  set(change) {
    this.model.set("state", { ...this.state, ...change });
    this.model.save_changes();
  }

  // An error is shown to the person who caused it.
  guard(act) {
    try {
      this.fault.hidden = true;
      return act();
    } catch (error) {
      this.complain(error.message);
      throw error;
    }
  }

  complain(message) {
    this.fault.textContent = message;
    this.fault.hidden = false;
  }

  redraw() {
    this.guard(() => {
      for (const show of this.bound) show(this.state);
      this.draw(this.state);
    });
  }

  // The last step of a view's set-up: how it draws. `live` is called where Python answers.
  begin(draw, live = () => {}) {
    this.draw = draw;
    this.redraw();
    this.whenAttached(() => {
      const still = this.root.closest(".cell_output, .qk-page")?.querySelector(".qk-still");
      if (still) still.hidden = true;
    });
    this.ask({ hello: true }).then(live);
  }

  // A widget manager may draw a view before it stands on the page.
  whenAttached(act) {
    if (this.root.isConnected) act();
    else requestAnimationFrame(() => this.whenAttached(act));
  }

  // Ask Python for what the data do not hold; never answered on a static page.
  ask(request) {
    const id = ++this.asked;
    this.root.setAttribute("aria-busy", request.hello ? "false" : "true");
    const answer = new Promise((resolve) => this.waiting.set(id, resolve));
    this.model.send({ id, request });
    return answer;
  }

  answered() {
    const answer = this.model.get("answer");
    const resolve = this.waiting.get(answer.id);
    if (!resolve) return;
    this.waiting.delete(answer.id);
    this.root.setAttribute("aria-busy", "false");
    if (answer.error) this.complain(answer.error);
    else this.guard(() => resolve(answer.found));
  }

  origin() {
    const code = this.model.get("code");
    if (code) {
      const said = element("span", { role: "status" });
      const copy = element("button", { type: "button" }, "Copy the code that makes this");
      copy.addEventListener("click", async () => {
        await navigator.clipboard.writeText(code);
        said.textContent = "copied";
      });
      this.tools.append(copy, said);
    }
    const source = document.querySelector('.bd-header-article a[href$=".ipynb"]');
    if (source) {
      this.tools.append(element("a", { href: source.href, download: "" }, "This chapter's notebook"));
    }
  }

  // ---- controls; each belongs to one entry of the state -------------------------------------

  label(text, control) {
    control.setAttribute("aria-label", text); // a slider's label also holds its value
    this.controls.append(element("label", { class: "qk-control" }, element("span", {}, text), control));
    return control;
  }

  // choices: [{value, label}]; returns a function that replaces them.
  select(text, key, choices) {
    const control = this.label(text, element("select"));
    let values = [];
    const offer = (next) => {
      values = next.map(({ value }) => value);
      control.replaceChildren(...next.map(({ label }) => element("option", {}, String(label))));
      control.selectedIndex = values.indexOf(this.state[key]);
    };
    offer(choices);
    control.addEventListener("change", () => this.set({ [key]: values[control.selectedIndex] }));
    this.bound.push((state) => (control.selectedIndex = values.indexOf(state[key])));
    return offer;
  }

  // change(value): what else a new value means for the state.
  range(text, key, { min, max, step = 1, show = String, change = () => ({}) }) {
    const control = element("input", { type: "range", min, max, step });
    const value = element("output");
    this.label(text, control).after(value);
    control.addEventListener("input", () => {
      this.set({ [key]: control.valueAsNumber, ...change(control.valueAsNumber) });
    });
    this.bound.push((state) => {
      control.value = state[key];
      control.setAttribute("aria-valuetext", show(state[key]));
      value.textContent = show(state[key]);
    });
    return control;
  }

  // A slider over listed values, numbers or not; returns a function that replaces them.
  steps(text, key, values, show = String, change = () => ({})) {
    const control = element("input", { type: "range", min: 0, step: 1 });
    const said = element("output");
    this.label(text, control).after(said);
    const tell = (state) => {
      control.value = values.indexOf(state[key]);
      said.textContent = show(state[key]);
      control.setAttribute("aria-valuetext", said.textContent);
    };
    const offer = (next) => {
      values = next;
      control.max = next.length - 1;
      tell(this.state);
    };
    offer(values);
    control.addEventListener("input", () => {
      const value = values[control.valueAsNumber];
      this.set({ [key]: value, ...change(value) });
    });
    this.bound.push(tell);
    return offer;
  }

  toggle(text, key) {
    const control = this.label(text, element("input", { type: "checkbox" }));
    control.addEventListener("change", () => this.set({ [key]: control.checked }));
    this.bound.push((state) => (control.checked = Boolean(state[key])));
    return control;
  }

  // change(value): what else a new value means for the state.
  choice(text, key, choices, change = () => ({})) {
    const group = element("fieldset", { class: "qk-control" }, element("legend", {}, text));
    const name = `qk-${Math.random().toString(36).slice(2)}`;
    for (const { value, label } of choices) {
      const control = element("input", { type: "radio", name });
      control.addEventListener("change", () => this.set({ [key]: value, ...change(value) }));
      this.bound.push((state) => (control.checked = state[key] === value));
      group.append(element("label", {}, control, label));
    }
    this.controls.append(group);
    return group;
  }

  // ---- pictures ------------------------------------------------------------------------------

  panel(caption = "") {
    const text = element("figcaption", {}, caption);
    const figure = element("figure", { class: "qk-panel" }, text);
    this.stage.append(figure);
    return { figure, caption: text };
  }

  // A map over a grid of patches. With `key`, a click or the arrow keys choose a patch; `key` is
  // an entry of the state, or {at(), choose(number)} where a choice is more than one entry.
  grid(caption, [rows, columns], key = null) {
    const { figure, caption: text } = this.panel(caption);
    const canvas = element("canvas");
    const marks = shape("svg", { "aria-hidden": "true" });
    const box = element("div", { class: "qk-grid" }, canvas, marks);
    figure.prepend(box);
    const map = { figure, box, canvas, marks, caption: text, under: null };
    this.size(map, [rows, columns]);
    if (key) this.pickable(map, key);
    else box.setAttribute("role", "img");
    return map;
  }

  // Give a map another number of patches, which empties it.
  size(map, [rows, columns]) {
    Object.assign(map, { rows, columns });
    Object.assign(map.canvas, { width: columns, height: rows });
    map.marks.setAttribute("viewBox", `0 0 ${columns} ${rows}`);
    map.box.style.aspectRatio = `${columns} / ${rows}`;
  }

  pickable(map, key) {
    const entry = { at: () => this.state[key] ?? 0, choose: (patch) => this.set({ [key]: patch }) };
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
  paint(map, values, { low, high, colours, name }) {
    const table = this.maps[colours];
    const image = new ImageData(map.columns, map.rows);
    for (let n = 0; n < values.length; n++) {
      const share = Math.min(1, Math.max(0, (values[n] - low) / (high - low || 1)));
      const at = 3 * Math.round(255 * share);
      image.data.set([table[at], table[at + 1], table[at + 2], 255], 4 * n);
    }
    map.canvas.getContext("2d").putImageData(image, 0, 0);
    map.box.setAttribute("aria-label", name);
  }

  // Show a picture (an address) instead of, or below, painted values.
  show(map, address, name) {
    if (!map.under) {
      map.under = element("img", { alt: "" });
      map.box.prepend(map.under);
    }
    if (map.under.src !== address) map.under.src = address;
    map.box.setAttribute("aria-label", name);
  }

  frame(map, patch, colour = this.look.palette[1], edge = "#fff") {
    const [x, y] = [patch % map.columns, Math.floor(patch / map.columns)];
    const common = { x, y, width: 1, height: 1, fill: "none" };
    map.marks.replaceChildren(
      shape("rect", { ...common, stroke: edge, "stroke-width": 0.24 }),
      shape("rect", { ...common, stroke: colour, "stroke-width": 0.14 })
    );
  }

  // A colour bar, on the stage or in a figure; returns a function that sets its numbers.
  bar(colours, text, place = this.stage) {
    const canvas = element("canvas", { width: 256, height: 1, "aria-hidden": "true" });
    const image = new ImageData(256, 1);
    for (let n = 0; n < 256; n++) image.data.set([...this.maps[colours].subarray(3 * n, 3 * n + 3), 255], 4 * n);
    canvas.getContext("2d").putImageData(image, 0, 0);
    const [low, high] = [element("span"), element("span")];
    place.append(element("div", { class: "qk-bar" }, element("span", {}, text), low, canvas, high));
    return (from, to) => {
      low.textContent = from;
      high.textContent = to;
    };
  }

  // Axes for curves: {svg, x(value), y(value), ink}; draw into `ink`, and empty it before drawing.
  axes(caption, { x, y, xlabel, ylabel, xticks, yticks, width = 520, height = 320 }) {
    const { figure, caption: text } = this.panel(caption);
    const svg = shape("svg", { viewBox: `0 0 ${width} ${height}`, role: "img", class: "qk-axes" });
    svg.style.maxWidth = `${width}px`;
    const [left, right, top, bottom] = [52, width - 10, 10, height - 42];
    const place = { x: (v) => left + ((v - x[0]) / (x[1] - x[0])) * (right - left) };
    place.y = (v) => bottom - ((v - y[0]) / (y[1] - y[0])) * (bottom - top);
    svg.append(shape("path", { d: `M${left} ${top}V${bottom}H${right}`, class: "qk-axis" }));
    for (const at of xticks) {
      svg.append(shape("text", { x: place.x(at), y: bottom + 16, "text-anchor": "middle" }, String(at)));
    }
    for (const at of yticks) {
      svg.append(shape("text", { x: left - 6, y: place.y(at) + 4, "text-anchor": "end" }, String(at)));
    }
    const middle = (top + bottom) / 2;
    svg.append(shape("text", { x: (left + right) / 2, y: height - 6, "text-anchor": "middle" }, xlabel));
    const turned = { "text-anchor": "middle", transform: `translate(13 ${middle}) rotate(-90)` };
    svg.append(shape("text", turned, ylabel));
    const ink = shape("g");
    svg.append(ink);
    figure.prepend(svg);
    return { ...place, svg, ink, left, right, top, bottom, figure, caption: text };
  }

  // Facts in words below the stage: [[name, value], …].
  tell(rows, place = this.facts) {
    const cells = rows.flatMap(([name, value]) => [element("dt", {}, name), element("dd", {}, value)]);
    place.replaceChildren(element("dl", {}, ...cells));
  }
}
