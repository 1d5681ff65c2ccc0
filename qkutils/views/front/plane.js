// A head with two dimensions: directions to drag, scores over the plane, who attends to whom.

const HALF = 184; // half the side of the plane, in units of its drawing
const CELLS = 64; // of the score field along each side
const INK = "#1f2328"; // the plane is light in the dark, too
const GREY = "#50575e";

function render(context) {
  const view = new Frame(context);
  const { names, extent, limit, top, strongest } = view.data;
  const tokens = pairs(unpack(view.data.tokens).values);
  const [blue, orange] = view.look.palette;
  const scale = HALF / extent;
  const shrunk = (0.2 * extent) / strongest / Math.max(...tokens.map((z) => Math.hypot(...z))); // arrows Mᵀz
  const roomy = tokens.length <= 24 && names.every((name) => name.length <= 4);
  const at = ([x, y]) => [x * scale, -y * scale];

  controls();
  const field = view.grid("", [CELLS, CELLS]);
  const [ground, ink] = [0, 1].map(() => shape("g", { "aria-hidden": "true" }));
  prepareField();
  const handles = [
    handle("u0", "query direction u₀", "u₀", orange, shape("circle", { r: 10 })),
    handle("v0", "key direction v₀", "v₀", blue, shape("path", { d: "M0 -8L8 0L0 8L-8 0Z" })),
  ];
  const map = view.grid("", [tokens.length, tokens.length]);
  prepareMap();

  // ---- set-up ----

  function controls() {
    view.select("token that asks", "token", names.map((label, value) => ({ value, label })));
    const angle = { min: -180, max: 180, show: degrees };
    view.range("angle of u₀", "u0", angle);
    view.range("angle of v₀", "v0", angle);
    const strength = { min: 0, max: strongest, step: 0.05, show: (value) => value.toFixed(2) };
    const lower = (value) => ({ sigma1: Math.min(value, view.state.sigma1) });
    const raise = (value) => ({ sigma0: Math.max(value, view.state.sigma0) });
    view.range("strength σ₀", "sigma0", { ...strength, change: lower });
    view.range("strength σ₁", "sigma1", { ...strength, change: raise });
    view.toggle("second pair mirrored (det M ≤ 0)", "mirrored");
  }

  function prepareField() {
    field.figure.classList.add("qk-plane");
    field.box.setAttribute("role", "group"); // its handles are controls
    field.marks.setAttribute("viewBox", `${-HALF} ${-HALF} ${2 * HALF} ${2 * HALF}`);
    field.marks.removeAttribute("aria-hidden");
    ground.append(...axesAndCircle(scale));
    field.marks.append(ground, ink);
    field.marks.addEventListener("click", chooseNearest);
    view.bar("PuOr", "score", field.figure)(`${number(-limit)} or less`, `+${number(limit)} or more`);
    field.figure.append(legend(), field.caption);
  }

  function prepareMap() {
    map.figure.classList.add("qk-square");
    map.box.addEventListener("click", (event) => {
      const { top: start, height } = map.box.getBoundingClientRect();
      const row = Math.floor(((event.clientY - start) / height) * tokens.length);
      view.set({ token: Math.min(tokens.length - 1, Math.max(0, row)) });
    });
    const side = (way, text) => element("div", { class: `qk-side qk-${way}` }, ...[short(names[0]), text, short(names.at(-1))].map((said) => element("span", {}, said)));
    const sided = element("div", { class: "qk-sided" }, side("above", "answers →"), side("left", "asks →"));
    map.box.before(sided);
    sided.append(map.box);
    view.bar("cividis", "attention", map.figure)("0", top.toFixed(2));
    map.figure.append(map.caption);
    map.caption.textContent =
      `Row: the token that asks. Column: the token that answers. A row is the softmax over its scores ÷ √2 and sums to 1. ` +
      `Framed: the chosen token's row, and ` +
      `in it the largest attention. Click a row to choose its token.`;
  }

  function legend() {
    const sample = (...parts) => shape("svg", { width: 34, height: 14, viewBox: "0 -7 34 14", "aria-hidden": "true" }, ...parts);
    const entry = (drawn, text) => element("span", {}, drawn, text);
    const pair = (from, to) => arrow([2, 0], [32, 0], { ...from, ...to });
    return element(
      "div",
      { class: "qk-legend" },
      entry(sample(pair({ colour: orange, width: 3 })), "u₀ asks (round tip)"),
      entry(sample(pair({ colour: blue, width: 3 })), "v₀ answers (square tip)"),
      entry(sample(pair({ colour: orange, width: 2, dash: "5 3" })), "u₁"),
      entry(sample(pair({ colour: blue, width: 2, dash: "5 3" })), "v₁"),
      entry(sample(pair({ colour: GREY, width: 1.2 })), "Mᵀz: the way to the key that token z likes best"),
      entry(sample(pair({ colour: INK, width: 2.5 })), "from the asking token to the one it likes best")
    );
  }

  // A tip to drag, or to turn with the arrow keys.
  function handle(key, name, label, colour, tip) {
    const text = halo(shape("text", { "text-anchor": "middle", "font-size": 17, fill: colour, "font-weight": 700 }, label));
    for (const [attribute, value] of Object.entries({ fill: colour, stroke: "#fff", "stroke-width": 2 })) tip.setAttribute(attribute, value);
    const grip = shape("circle", { r: key === "u0" ? 20 : 11, fill: "transparent" });
    const group = shape(
      "g",
      { class: "qk-handle", role: "slider", tabindex: 0, "aria-label": name, "aria-valuemin": -180, "aria-valuemax": 180 },
      grip, tip, text
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
      const [x, y] = place(event);
      if (Math.hypot(x, y) > 0.05) view.set({ [key]: Math.round(Math.atan2(y, x) * (180 / Math.PI)) });
    });
    group.addEventListener("keydown", (event) => {
      const way = { ArrowRight: 1, ArrowUp: 1, ArrowLeft: -1, ArrowDown: -1 }[event.key];
      if (!way) return;
      event.preventDefault();
      view.set({ [key]: wrapped(view.state[key] + way * (event.shiftKey ? 1 : 5)) });
    });
    return { key, group, text };
  }

  // Where a pointer is, in the plane's coordinates.
  function place(event) {
    const { left, top: start, width, height } = field.box.getBoundingClientRect();
    const across = ((event.clientX - left) / width) * 2 - 1;
    const down = ((event.clientY - start) / height) * 2 - 1;
    return [across * extent, -down * extent];
  }

  function chooseNearest(event) {
    if (event.target.closest(".qk-handle")) return;
    const [x, y] = place(event);
    const far = tokens.map((z) => Math.hypot(z[0] - x, z[1] - y) * scale);
    const nearest = far.indexOf(Math.min(...far));
    if (far[nearest] < 25) view.set({ token: nearest });
  }

  // ---- drawing ----

  function draw(state) {
    const head = headOf(state);
    const wanted = tokens.map((z) => turned(head.matrix, z));
    const scores = tokens.map((z) => dot(wanted[state.token], z));
    const attention = attentionOf(tokens, wanted);
    const liked = largest(scores, limit);
    drawField(state, head, wanted, liked);
    drawHandles(state, head);
    drawMap(state, attention, liked);
    view.tell(facts(state, head, scores, attention, liked));
  }

  function drawField({ token }, head, wanted, liked) {
    const values = new Float32Array(CELLS * CELLS);
    for (let n = 0; n < values.length; n++) {
      const x = (((n % CELLS) + 0.5) / CELLS) * 2 - 1;
      const y = 1 - ((Math.floor(n / CELLS) + 0.5) / CELLS) * 2;
      values[n] = dot(wanted[token], [x * extent, y * extent]);
    }
    const name = `plane of tokens over the scores of token ${names[token]} with every place; ${likes(token, liked)}`;
    view.paint(field, values, { low: -limit, high: limit, colours: "PuOr", name });
    field.caption.textContent =
      `Colour and numbered lines: the score that token ${names[token]} gives to a key at that place. ` +
      `Drag the tips of u₀ and v₀, or turn them with the arrow keys (Shift: by 1°). Click a token to let it ask. ` +
      `Across: a token's first coordinate; up: its second. Dashed circle: length 1.`;
    const [second, first] = [1, 0].map((mode) => modeArrows(head, mode));
    ink.replaceChildren(
      ...levels(wanted[token]), ...wanted.map(wish), ...second, ...first,
      ...tokens.map((z, n) => dotOf(z, n, token, liked)), ...choices(token, liked)
    );
  }

  // Lines of equal score; the score is linear, so they are straight.
  function levels(wanted) {
    const size = Math.hypot(...wanted);
    const step = limit > 8 ? 4 : limit > 3 ? 1 : limit > 1.5 ? 0.5 : 0.25;
    const reach = 0.93 * extent;
    const drawn = [];
    for (let n = -Math.floor(limit / step); n <= limit / step; n++) {
      const away = (n * step) / size; // from the origin
      if (!(Math.abs(away) < reach)) continue;
      const across = [-wanted[1] / size, wanted[0] / size];
      const on = (along) => at([0, 1].map((i) => (wanted[i] / size) * away + across[i] * along));
      const [a, b, label] = [on(-3 * extent), on(3 * extent), on(Math.sqrt(reach ** 2 - away ** 2))];
      drawn.push(
        shape("path", { d: `M${a}L${b}`, stroke: GREY, "stroke-width": n ? 0.6 : 1.4, class: "qk-level" }),
        word(label, n > 0 ? `+${number(n * step)}` : number(n * step), 11)
      );
    }
    return drawn;
  }

  function wish(wanted, n) {
    const tip = [0, 1].map((i) => tokens[n][i] + wanted[i] * shrunk);
    return arrow(at(tokens[n]), at(tip), { colour: GREY, width: 1.4, name: "qk-wish" });
  }

  function modeArrows({ u, v, sigma }, mode) {
    const look = mode ? { width: 2.2, dash: "7 4" } : { width: 4 };
    const both = [[u[mode], orange], [v[mode], blue]].map(([tip, colour]) =>
      arrow([0, 0], at(tip), { colour, ...look, name: "qk-mode" })
    );
    if (!mode) return both;
    const beside = (tip, letter, colour) => {
      const text = word(at(tip.map((part) => part * 1.12)), letter, 15);
      text.setAttribute("fill", colour);
      return text;
    };
    return [...both, beside(u[1], "u₁", orange), beside(v[1], "v₁", blue)];
  }

  function dotOf(z, n, token, liked) {
    const [cx, cy] = at(z);
    const special = n === token || liked.includes(n);
    const group = shape("g", { class: "qk-token" }, shape("title", {}, `token ${names[n]}`));
    if (n === token) group.append(shape("circle", { cx, cy, r: 9, fill: "#fff", stroke: INK, "stroke-width": 2.5 }));
    group.append(shape("circle", { cx, cy, r: special ? 5 : 4, fill: INK, stroke: "#fff", "stroke-width": 1 }));
    const inside = 1 - (n === token ? 20 : 15) / (Math.hypot(cx, cy) || 1);
    if (roomy || special) group.append(word([cx * inside, cy * inside], short(names[n]), special ? 14 : 11));
    return group;
  }

  // From the token that asks to those that it likes best; a ring where that is itself.
  function choices(token, liked) {
    if (liked.length === tokens.length) return [];
    const [x, y] = at(tokens[token]);
    return liked.map((n) => {
      if (n === token) return shape("circle", { cx: x, cy: y, r: 14, fill: "none", stroke: INK, "stroke-width": 3, class: "qk-choice" });
      return arrow([x, y], at(tokens[n]), { colour: INK, width: 3, short: 7, name: "qk-choice" });
    });
  }

  function drawHandles(state, { u, v }) {
    const aligned = dot(u[0], v[0]);
    for (const { key, group, text } of handles) {
      const [x, y] = at(key === "u0" ? u[0] : v[0]);
      const length = Math.hypot(x, y);
      const side = key === "u0" ? 1 : -1;
      group.setAttribute("transform", `translate(${x} ${y})`);
      text.setAttribute("x", (side * 21 * y) / length);
      text.setAttribute("y", (side * -21 * x) / length + 5);
      group.setAttribute("aria-valuenow", state[key]);
      group.setAttribute("aria-valuetext", `${degrees(state[key])}, u₀ · v₀ = ${signed(aligned)}`);
    }
  }

  function drawMap({ token }, attention, liked) {
    const name = `attention of ${tokens.length} tokens on each other; ${likes(token, liked)}`;
    view.paint(map, attention.flat(), { low: 0, high: top, colours: "cividis", name });
    const box = (x, width, stroke, thick) => shape("rect", {
      x, y: token, width, height: 1, fill: "none", stroke, "stroke-width": thick, "vector-effect": "non-scaling-stroke",
    });
    const cells = liked.length < tokens.length ? liked : [];
    const frames = [[0, tokens.length], ...cells.map((n) => [n, 1])];
    map.marks.replaceChildren(...frames.flatMap(([x, width]) => [box(x, width, "#fff", 5), box(x, width, orange, 2.5)]));
  }

  // ---- in words ----

  function likes(token, liked) {
    if (liked.length === tokens.length) return `token ${names[token]} likes all tokens alike`;
    const others = liked.map((n) => (n === token ? "itself" : `token ${names[n]}`));
    return `token ${names[token]} likes ${others.join(" and ")} best`;
  }

  function facts(state, { u, v, sigma, matrix }, scores, attention, liked) {
    const cosines = [0, 1].map((mode) => dot(u[mode], v[mode]));
    const total = sigma[0] + sigma[1];
    const weighted = (sigma[0] * cosines[0] + sigma[1] * cosines[1]) / total;
    const { trace, determinant, nuclear } = numbersOf(matrix);
    const none = "not defined: M is zero";
    const same = sigma[0] === sigma[1] && total > 0;
    const free = `σ₀ = σ₁: turn u₀ by any angle and v₀ by ${state.mirrored ? "the opposite" : "the same"} one, and M stays as it is`;
    return [
      ["matrix M", matrixOf(matrix)],
      ["determinant", signed(determinant)],
      ["cosine u₀ · v₀", signed(cosines[0])],
      ["cosine u₁ · v₁", signed(cosines[1])],
      ["weighted cosine", total ? signed(weighted) : none],
      ["tr M ÷ ‖M‖∗", nuclear ? `${signed(trace / nuclear)} = ${signed(trace)} ÷ ${nuclear.toFixed(2)}` : none],
      ["favourite", `${likes(state.token, liked)}: score ${signed(scores[liked[0]])}, attention ${attention[state.token][liked[0]].toFixed(2)}`],
      ["in short", inShort(tokens, attention)],
      ...(same ? [["degenerate", free]] : []),
    ];
  }

  view.begin(draw);
}

// ---- computing ----

function pairs(values) {
  return Array.from({ length: values.length / 2 }, (_, n) => [values[2 * n], values[2 * n + 1]]);
}

function dot(a, b) {
  return a[0] * b[0] + a[1] * b[1];
}

// Mᵀz, the direction of keys that token z likes best.
function turned(matrix, z) {
  return [0, 1].map((column) => matrix[0][column] * z[0] + matrix[1][column] * z[1]);
}

// Directions as [mode][coordinate], and M = Σ σ u vᵀ as [row][column].
function headOf({ u0, v0, sigma0, sigma1, mirrored }) {
  const direction = (angle) => [Math.cos((angle * Math.PI) / 180), Math.sin((angle * Math.PI) / 180)];
  const u = [direction(u0), direction(u0 + 90)];
  const v = [direction(v0), direction(v0 + (mirrored ? -90 : 90))];
  const sigma = [sigma0, sigma1];
  const entry = (row, column) => sigma0 * u[0][row] * v[0][column] + sigma1 * u[1][row] * v[1][column];
  const matrix = [0, 1].map((row) => [entry(row, 0), entry(row, 1)]);
  return { u, v, sigma, matrix };
}

// From the entries of M alone: no direction is needed.
function numbersOf([[a, b], [c, d]]) {
  const determinant = a * d - b * c;
  const nuclear = Math.sqrt(a * a + b * b + c * c + d * d + 2 * Math.abs(determinant));
  return { trace: a + d, determinant, nuclear };
}

function attentionOf(tokens, wanted) {
  const factors = { query: wanted.flat(), key: tokens.flat().map((x) => x / Math.SQRT2), salience: new Float64Array(tokens.length) };
  return tokens.map((_, asking) => Array.from(attentionRow(factors, asking)));
}

// Where the largest values are; values that differ by rounding only are equal.
function largest(values, size) {
  const most = Math.max(...values);
  return values.flatMap((value, n) => (value > most - 1e-6 * size ? [n] : []));
}

// How alike a token and what it attends to are, next to attention that is spread evenly.
function inShort(tokens, attention) {
  const unit = tokens.map((z) => z.map((x) => x / (Math.hypot(...z) || 1)));
  const mean = (weight) => {
    let sum = 0;
    unit.forEach((a, i) => unit.forEach((b, j) => (sum += weight(i, j) * dot(a, b))));
    return sum / tokens.length;
  };
  const [found, even] = [mean((i, j) => attention[i][j]), mean(() => 1 / tokens.length)];
  const more = found - even;
  const kind = more > 0.05 ? "similar tokens" : more < -0.05 ? "dissimilar tokens" : "neither similar nor dissimilar tokens";
  return `tokens attend to ${kind}: the cosine with what they attend to is ${signed(found)} on average (${signed(even)} if attention were even)`;
}

// ---- shapes and words ----

function axesAndCircle(scale) {
  return [
    shape("path", { d: `M${-HALF} 0H${HALF}M0 ${-HALF}V${HALF}`, stroke: "#8c959f", "stroke-width": 1 }),
    shape("circle", { r: scale, fill: "none", stroke: "#8c959f", "stroke-dasharray": "3 4" }),
  ];
}

function halo(drawn) {
  for (const [name, value] of Object.entries({ stroke: "#fff", "stroke-width": 3, "paint-order": "stroke" })) drawn.setAttribute(name, value);
  return drawn;
}

function word([x, y], text, size) {
  return halo(shape("text", { x, y: y + size / 3, "text-anchor": "middle", "font-size": size, fill: INK }, text));
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
  return shape(
    "g",
    { class: name },
    shape("path", { ...line, stroke: "#fff", "stroke-width": width + 2 }),
    shape("path", { ...line, stroke: colour, "stroke-width": width, "stroke-dasharray": dash }),
    shape("path", { d: `M${tip}L${sides[0]}L${sides[1]}Z`, fill: colour, stroke: "#fff", "stroke-width": 0.8 })
  );
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

function wrapped(angle) {
  return ((((angle + 180) % 360) + 360) % 360) - 180;
}

function short(name) {
  return name.length > 8 ? `${name.slice(0, 7)}…` : name;
}

export default { render };
