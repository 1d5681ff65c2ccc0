// Weighted cosine over depth: a curve for each model, heads of the chosen one as dots.

const DASHES = ["", "6 3", "2 2", "8 3 2 3", "1 3", "10 4"];

function render(context) {
  const view = new Frame(context);
  const palette = view.look.palette.slice(0, 6); // its black can't be seen in the dark
  const curves = view.data.curves.map(curve);
  const named = (name) => curves.find((each) => each.name === name);
  const chart = view.axes("", {
    x: [0, 1], y: range(curves), xticks: [0, 0.25, 0.5, 0.75, 1], yticks: [-1, -0.5, 0, 0.5, 1].filter(within(range(curves))),
    xlabel: "depth (layer ÷ last layer)", ylabel: "weighted cosine", width: 640, height: 360,
  });

  const choices = () => curves.map(({ name }) => ({ value: name, label: name }));
  const offer = view.select("model", "model", choices());
  const conventions = [...new Set(curves.flatMap((each) => each.conventions))];
  view.choice("convention", "convention", conventions.map((value) => ({ value, label: value })));
  const slider = view.range("layer", "layer", { min: 0, max: curves[0].layers - 1 });
  const legend = element("fieldset", { class: "qk-control" }, element("legend", {}, "show"));
  view.controls.append(legend);
  curves.forEach(switchFor);

  function switchFor(one, number) {
    const box = element("input", { type: "checkbox" });
    const sample = shape("svg", { width: 28, height: 10, "aria-hidden": "true" }, line(one, number, "M0 5H28"));
    box.addEventListener("change", () => {
      const rest = view.state.hidden.filter((name) => name !== one.name);
      view.set({ hidden: box.checked ? rest : [...rest, one.name] });
    });
    view.bound.push((state) => (box.checked = !state.hidden.includes(one.name)));
    legend.append(element("label", {}, box, sample, one.name));
  }

  function line(one, number, d) {
    return shape("path", {
      d, fill: "none", stroke: palette[number % palette.length], "stroke-width": 2,
      "stroke-dasharray": DASHES[Math.floor(number / palette.length) % DASHES.length],
      class: "qk-curve",
    });
  }

  function depth(one, layer) {
    return chart.x(one.layers > 1 ? layer / (one.layers - 1) : 0);
  }

  function path(one, means) {
    return "M" + Array.from(means, (mean, layer) => `${depth(one, layer)} ${chart.y(mean)}`).join("L");
  }

  function band(one, null_) {
    const up = Array.from(null_, (half, layer) => `${depth(one, layer)} ${chart.y(half)}`);
    const down = Array.from(null_, (half, layer) => `${depth(one, layer)} ${chart.y(-half)}`).reverse();
    return shape("path", { d: `M${[...up, ...down].join("L")}Z`, class: "qk-band" });
  }

  // A pointer near a curve chooses its model and layer.
  chart.svg.addEventListener("pointermove", (event) => {
    const box = chart.svg.getBoundingClientRect();
    const scale = 640 / box.width;
    const at = [(event.clientX - box.left) * scale, (event.clientY - box.top) * scale];
    let [nearest, change] = [18, null];
    for (const one of curves) {
      const means = one.means(view.state.convention);
      if (!means || view.state.hidden.includes(one.name)) continue;
      means.forEach((mean, layer) => {
        const far = Math.hypot(depth(one, layer) - at[0], chart.y(mean) - at[1]);
        if (far < nearest) [nearest, change] = [far, { model: one.name, layer }];
      });
    }
    if (change && (change.model !== view.state.model || change.layer !== view.state.layer)) view.set(change);
  });

  function draw({ model, convention, layer, hidden }) {
    const chosen = named(model);
    const at = Math.min(layer, chosen.layers - 1);
    slider.max = chosen.layers - 1;
    const marks = [shape("path", { d: `M${chart.left} ${chart.y(0)}H${chart.right}`, class: "qk-zero" })];
    const null_ = chosen.null(convention);
    if (null_) marks.push(band(chosen, null_));
    curves.forEach((one, number) => {
      const means = one.means(convention);
      if (means && !hidden.includes(one.name)) marks.push(line(one, number, path(one, means)));
    });
    const means = chosen.means(convention);
    if (means && !hidden.includes(model)) marks.push(...dots(chosen, convention, at));
    chart.ink.replaceChildren(...marks);
    const shown = curves.filter(({ name }) => !hidden.includes(name)).map(({ name }) => name);
    chart.svg.setAttribute("aria-label", `weighted cosine over depth of ${shown.join(", ")}; convention ${convention}`);
    view.tell(means ? facts(chosen, convention, at) : [[model, `no values in the convention ${convention}`]]);
  }

  function dots(one, convention, at) {
    const colour = palette[curves.indexOf(one) % palette.length];
    const drawn = [];
    for (let layer = 0; layer < one.layers; layer++) {
      for (const value of one.heads(convention, layer)) {
        drawn.push(shape("circle", { cx: depth(one, layer), cy: chart.y(value), r: 2.5, fill: colour, opacity: 0.45 }));
      }
    }
    const mean = one.means(convention)[at];
    drawn.push(shape("circle", { cx: depth(one, at), cy: chart.y(mean), r: 6, fill: colour, stroke: "var(--qk-text)", "stroke-width": 1.5 }));
    return drawn;
  }

  function facts(one, convention, layer) {
    const heads = Array.from(one.heads(convention, layer), (value) => signed(value)).join(" · ");
    const null_ = one.null(convention);
    return [
      [one.name, `layer ${layer}, convention ${convention}`],
      ["mean over heads", signed(one.means(convention)[layer])],
      ["heads", heads],
      ["95 % of chance", null_ ? `±${null_[layer].toFixed(2)} (grey band)` : "not known for this model"],
    ];
  }

  view.begin(draw, ({ at_hand }) => {
    if (!at_hand.length) return;
    const add = element("select", {}, element("option", {}, "…"));
    add.append(...at_hand.map((name) => element("option", {}, name)));
    view.label("add a model", add);
    add.addEventListener("change", async () => {
      const { curve: found } = await view.ask({ model: add.value });
      add.selectedOptions[0].remove();
      curves.push(curve(found));
      switchFor(curves.at(-1), curves.length - 1);
      offer(choices());
      view.set({ model: found.name });
    });
  });
}

// What Python sent of one model, with its means.
function curve({ name, conventions, heads, null: null_ }) {
  const values = unpack(heads);
  const widths = null_ && unpack(null_);
  const at = (convention) => conventions.indexOf(convention);
  const means = conventions.map((_, c) =>
    Array.from({ length: values.shape[1] }, (_, layer) => {
      const some = part(values, c, layer);
      return some.reduce((sum, value) => sum + value, 0) / some.length;
    })
  );
  return {
    name,
    conventions,
    layers: values.shape[1],
    values: values.values,
    heads: (convention, layer) => part(values, at(convention), layer),
    means: (convention) => means[at(convention)],
    null: (convention) => widths && at(convention) >= 0 && part(widths, at(convention)),
  };
}

// Curves fill the axes, in steps of a tenth, and zero is always there.
function range(curves) {
  const all = curves.flatMap(({ values }) => Array.from(values));
  return [Math.floor(Math.min(0, ...all) * 10 - 0.5) / 10, Math.ceil(Math.max(0, ...all) * 10 + 0.5) / 10];
}

function within([low, high]) {
  return (value) => value >= low && value <= high;
}

export default { render };
