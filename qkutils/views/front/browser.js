// Every head's modes on a map; of the chosen mode its optimal pictures, red asking, cyan answering.

const MAPS = {
  weighted: { label: "weighted cosine", of: "weighted cosine of the head", colours: "PuOr" },
  cosine: { label: "cosine of the mode", of: "cosine of the mode", colours: "PuOr" },
  sigma: { label: "σ of the mode", of: "σ of the mode", colours: "cividis" },
};
const SHOWN = { both: "both", query: "query", key: "key", picture: "picture alone" };

function render(context) {
  const view = new Frame(context);
  const { sizes, grid, shape: size, top, carried } = view.data;
  const facts = Object.fromEntries(Object.entries(view.data.facts).map(([name, sent]) => [name, unpack(sent)]));
  const shelf = new Map(Object.entries(view.data.pictures));
  const galleries = [opened(view.data.gallery)];
  const cells = patchOfPixel(size, grid);
  const live = { is: false, waits: "", others: new Map() };

  view.select("colour heads by", "colour", Object.entries(MAPS).map(([value, { label }]) => ({ value, label })));
  const heads = headMap();
  const bars = { PuOr: bar("PuOr"), cividis: bar("cividis") };
  const second = element("div", { class: "qk-controls qk-row" });
  view.stage.append(second);
  [view.controls, view.controls_] = [second, view.controls]; // what follows belongs to the mode
  view.range("mode", "mode", { min: 0, max: sizes.mode - 1 });
  view.choice("sign", "sign", [{ value: 1, label: "+" }, { value: -1, label: "−" }]);
  view.choice("show", "show", Object.entries(SHOWN).map(([value, label]) => ({ value, label })));
  const note = element("p", { class: "qk-note", role: "status" });
  view.stage.append(note);
  const slots = Array.from({ length: top }, () => slot());
  const other = slot();
  legend();
  view.stage.append(element("p", { class: "qk-note" }, carried));
}
