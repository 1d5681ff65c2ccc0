// Weighted cosine over depth: a curve for each model, heads of the chosen one as dots.

import { addChoice, addLabelled, addRange, addSelect } from "./controls.js";
import { element, sample, shape } from "./dom.js";
import { addAxes, tell } from "./drawing.js";
import { Frame } from "./frame.js";
import { curveOf, depthOf, rangeOf } from "./math/trends.js";
import { signed } from "./words.js";

const DASHES = ["", "6 3", "2 2", "8 3 2 3", "1 3", "10 4"];
const WIDTH = 640;
const NEAR = 18; // how far from a curve a pointer may be

function render(context) {
  const view = new Frame(context);
  view.root.classList.add("qk-low");
  const curves = view.data.curves.map(curveOf);
  const [low, high] = rangeOf(curves);
  const chart = addAxes(view, {
    x: [0, 1],
    y: [low, high],
    xticks: [0, 0.25, 0.5, 0.75, 1],
    yticks: [-1, -0.5, 0, 0.5, 1].filter((value) => value >= low && value <= high),
    xlabel: "depth (layer ÷ last layer)",
    ylabel: "weighted cosine",
    width: WIDTH,
    height: 300,
  });
  const models = () => curves.map(({ name }) => ({ value: name, label: name }));
  const offer = addSelect(view, "model", "model", models());
  const conventions = [...new Set(curves.flatMap((each) => each.conventions))];
  addChoice(
    view,
    "convention",
    "convention",
    conventions.map((value) => ({ value, label: value })),
  );
  const slider = addRange(view, "layer", "layer", { min: 0, max: curves[0].layers - 1 });
  const addSwitch = switches(view);
  curves.forEach(addSwitch);
  followPointer(view, chart, curves);
  const draw = (state) => {
    const chosen = curves.find((each) => each.name === state.model);
    slider.max = chosen.layers - 1;
    drawCurves(view, chart, curves, chosen, state);
  };
  return view.begin(draw, ({ at_hand }) => {
    offerModels(view, at_hand, (found) => {
      curves.push(curveOf(found));
      addSwitch(curves.at(-1), curves.length - 1);
      offer(models());
      view.set({ model: found.name });
    });
  });
}

// Boxes that show and hide curves; returns a function that adds one.
function switches(view) {
  const legend = element("fieldset", { class: "qk-control" }, element("legend", {}, "show"));
  view.controls.append(legend);
  return (one, number) => {
    const { name } = one;
    const box = element("input", { type: "checkbox" });
    box.addEventListener("change", () => {
      const rest = view.state.hidden.filter((other) => other !== name);
      view.set({ hidden: box.checked ? rest : [...rest, name] });
    });
    view.bound.push((state) => (box.checked = !state.hidden.includes(name)));
    legend.append(element("label", {}, box, sample(28, 10, line(one, number, "M0 5H28")), name));
  };
}

// A pointer near a curve chooses its model and layer.
function followPointer(view, chart, curves) {
  chart.svg.addEventListener("pointermove", (event) => {
    const box = chart.svg.getBoundingClientRect();
    const scale = WIDTH / box.width;
    const at = [(event.clientX - box.left) * scale, (event.clientY - box.top) * scale];
    let [nearest, change] = [NEAR, null];
    for (const one of curves) {
      const means = one.means(view.state.convention);
      if (!means || view.state.hidden.includes(one.name)) continue;
      means.forEach((mean, layer) => {
        const far = Math.hypot(across(chart, one, layer) - at[0], chart.y(mean) - at[1]);
        if (far < nearest) [nearest, change] = [far, { model: one.name, layer }];
      });
    }
    const { model, layer } = view.state;
    if (change && (change.model !== model || change.layer !== layer)) view.set(change);
  });
}

// In a notebook, further models.
function offerModels(view, names, take) {
  if (!names.length) return;
  const add = element("select", {}, element("option", {}, "…"));
  add.append(...names.map((name) => element("option", {}, name)));
  addLabelled(view, "add a model", add);
  add.addEventListener("change", () => {
    view.ask({ model: add.value }, ({ curve }) => {
      add.selectedOptions[0].remove();
      take(curve);
    });
  });
}

function drawCurves(view, chart, curves, chosen, { convention, layer, hidden }) {
  const at = Math.min(layer, chosen.layers - 1);
  const zero = `M${chart.left} ${chart.y(0)}H${chart.right}`;
  const marks = [shape("path", { d: zero, class: "qk-zero" })];
  const chance = chosen.null(convention);
  if (chance) marks.push(band(chart, chosen, chance));
  curves.forEach((one, number) => {
    const means = one.means(convention);
    if (means && !hidden.includes(one.name)) marks.push(line(one, number, path(chart, one, means)));
  });
  const means = chosen.means(convention);
  if (means && !hidden.includes(chosen.name)) {
    marks.push(...dots(chart, chosen, convention, at, colourOf(chosen)));
  }
  chart.ink.replaceChildren(...marks);
  const shown = curves.filter(({ name }) => !hidden.includes(name)).map(({ name }) => name);
  const said = `weighted cosine over depth of ${shown.join(", ")}; convention ${convention}`;
  chart.svg.setAttribute("aria-label", said);
  const nothing = [[chosen.name, `no values in the convention ${convention}`]];
  tell(view.facts, means ? facts(chosen, convention, at) : nothing);
}

function across(chart, one, layer) {
  return chart.x(depthOf(one, layer));
}

// Black can't be seen in the dark.
function colourOf({ colour }) {
  return colour === "#000000" ? "currentColor" : colour;
}

function line(one, number, d) {
  const dash = DASHES[Math.floor(number / 6) % DASHES.length];
  const look = { fill: "none", stroke: colourOf(one), "stroke-width": 2 };
  return shape("path", { d, ...look, "stroke-dasharray": dash, class: "qk-curve" });
}

function points(chart, one, values) {
  return Array.from(values, (value, layer) => `${across(chart, one, layer)} ${chart.y(value)}`);
}

function path(chart, one, means) {
  return `M${points(chart, one, means).join("L")}`;
}

function band(chart, one, chance) {
  const down = points(
    chart,
    one,
    chance.map((half) => -half),
  ).reverse();
  const d = `M${[...points(chart, one, chance), ...down].join("L")}Z`;
  return shape("path", { d, class: "qk-band" });
}

function dots(chart, one, convention, at, fill) {
  const drawn = [];
  for (let layer = 0; layer < one.layers; layer++) {
    for (const value of one.heads(convention, layer)) {
      const place = { cx: across(chart, one, layer), cy: chart.y(value) };
      drawn.push(shape("circle", { ...place, r: 2.5, fill, opacity: 0.45 }));
    }
  }
  const place = { cx: across(chart, one, at), cy: chart.y(one.means(convention)[at]) };
  const edge = { stroke: "var(--qk-text)", "stroke-width": 1.5 };
  return [...drawn, shape("circle", { ...place, r: 6, fill, ...edge })];
}

function facts(one, convention, layer) {
  const heads = Array.from(one.heads(convention, layer), (value) => signed(value)).join(" · ");
  const chance = one.null(convention);
  const width = chance ? `±${chance[layer].toFixed(3)} (grey band)` : "not known for this model";
  return [
    [one.name, `layer ${layer}, convention ${convention}`],
    ["mean over heads", signed(one.means(convention)[layer])],
    ["heads", heads],
    ["95 % of chance", width],
  ];
}

export default { render };
