// The editor of a drawn scene: objects are dragged, or moved by keys; undo, reset, chance, a link.

import { element, shape } from "./dom.js";
import { paintPixels } from "./drawing.js";
import { upTo } from "./math/arrays.js";
import {
  HALF,
  LARGEST,
  SMALLEST,
  centreOf,
  changed,
  inside,
  moved,
  objectAt,
  readScene,
  sceneAt,
  withOdd,
  withOneMore,
  without,
  writeScene,
} from "./math/scene.js";

const HASH = "#scene=";
const STEPS = { ArrowLeft: [-1, 0], ArrowRight: [1, 0], ArrowUp: [0, -1], ArrowDown: [0, 1] };
const MOST_UNDONE = 200;
const STILL = 1e-6; // what a place may move by rounding

// Returns what draws the scene, and what is done when the model runs for the first time.
export function sceneEditor(view, shown, addPart, pixelsOf) {
  const part = addPart("A scene of your own", "qk-input");
  const { world } = view.data;
  const first = view.state.scene;
  const past = [];
  const edit = {
    part,
    lattice: world.lattice,
    // `whole`: a change of its own, which one undo takes back
    set(scene, { chosen = view.state.chosen, whole = true } = {}) {
      if (whole) edit.remember();
      view.set({ scene, chosen });
    },
    remember() {
      const { scene, chosen } = view.state;
      past.push({ scene, chosen });
      if (past.length > MOST_UNDONE) past.shift();
    },
    undo() {
      if (shown.engine && past.length) view.set(past.pop());
    },
    reset: () => edit.set(first, { chosen: null }),
  };
  const canvas = element("canvas", { "aria-hidden": "true" });
  const marks = shape("svg", {
    viewBox: "-32 -32 64 64",
    role: "group",
    "aria-label": "objects",
    tabindex: -1,
  });
  const box = element("div", { class: "qk-grid qk-scene" }, canvas, marks);
  const hint = "Drag an object. Or choose one with Tab and move it with the arrow keys.";
  const figure = element("figure", { class: "qk-panel" }, box, element("figcaption", {}, hint));
  view.stage.append(figure);
  const drawObjects = dragging(view, shown, edit, marks);
  const drawBars = toolbars(view, shown, edit, past);
  part.addEventListener("keydown", (event) => {
    if (event.key === "z" && (event.ctrlKey || event.metaKey)) {
      event.preventDefault();
      edit.undo();
    }
  });
  const linked =
    location.hash.startsWith(HASH) && readScene(location.hash.slice(HASH.length), world);
  if (linked)
    figure.append(
      element("p", { class: "qk-note" }, "The link’s scene is shown when the model runs."),
    );
  const draw = (state) => {
    if (shown.run) paintPixels(canvas, pixelsOf(shown.run));
    drawObjects(state);
    drawBars();
  };
  const live = () => {
    if (linked) edit.set(linked, { chosen: null });
    figure.querySelector(".qk-note")?.remove();
  };
  return { draw, live };
}

// ---- objects -----------------------------------------------------------------------------------

function nameOf(world, { kind, colour, texture, odd }) {
  const words = [world.textures[texture], world.colours[colour], world.kinds[kind]];
  return words.filter((word) => word !== "plain").join(" ") + (odd ? ", the odd one" : "");
}

// A handle for every object in the picture; returns what draws them.
function dragging(view, shown, edit, marks) {
  const { world } = view.data;
  let held = null; // while a pointer moves an object
  const at = ({ clientX, clientY }) => {
    const { left, top, width, height } = marks.getBoundingClientRect();
    return [((clientX - left) / width) * 64 - HALF, ((clientY - top) / height) * 64 - HALF];
  };
  // The slot in which the object lies then; null where it stays, against an edge or a neighbour.
  const follow = (slot, point, whole) => {
    const scene = moved(view.state.scene, edit.lattice, slot, point);
    const n = view.state.scene.objects.findIndex((object) => object.slot === slot);
    const [was, is] = [view.state.scene, scene].map(({ objects }) => objects[n]);
    if (["slot", "x", "y"].every((place) => Math.abs(was[place] - is[place]) < STILL)) return null;
    edit.set(scene, { chosen: is.slot, whole });
    return is.slot;
  };
  marks.addEventListener("pointerdown", (event) => {
    const slot = slotOf(view, shown, event);
    if (slot === null) return;
    event.preventDefault();
    marks.setPointerCapture(event.pointerId);
    const centre = centreOf(view.state.scene, edit.lattice, objectAt(view.state.scene, slot));
    held = { slot, by: at(event).map((value, n) => value - centre[n]), whole: true };
    view.set({ chosen: slot });
    marks.querySelector(`[data-slot="${slot}"]`)?.focus();
  });
  marks.addEventListener("pointermove", (event) => {
    if (!held || !shown.engine || !objectAt(view.state.scene, held.slot)) return;
    const point = at(event).map((value, n) => value - held.by[n]);
    const slot = follow(held.slot, point, held.whole);
    if (slot !== null) Object.assign(held, { slot, whole: false }); // one undo takes the drag back
  });
  for (const name of ["pointerup", "pointercancel"])
    marks.addEventListener(name, () => (held = null));
  marks.addEventListener("keydown", (event) => {
    const slot = slotOf(view, shown, event);
    if (slot !== null) keyed(view, edit, follow, slot, event);
  });
  marks.addEventListener("focusin", (event) => {
    const slot = slotOf(view, shown, event);
    if (slot !== null && !held && slot !== view.state.chosen) view.set({ chosen: slot });
  });
  return ({ scene, chosen }) => {
    const seen = scene.objects.filter((object) => inside(centreOf(scene, edit.lattice, object)));
    const handles = new Map([...marks.children].map((each) => [each.dataset.slot, each]));
    const focused = marks.contains(document.activeElement);
    const kept = seen.map((object) => handleOf(handles, world, scene, edit, object, chosen));
    for (const each of kept) each.setAttribute("tabindex", shown.engine ? 0 : -1);
    if (kept.length !== marks.children.length || kept.some((each, n) => each !== marks.children[n]))
      marks.replaceChildren(...kept);
    // a reader at the keyboard stays among the objects, also when theirs is gone
    if (focused)
      (marks.querySelector(`[data-slot="${chosen}"]`) ?? marks.firstElementChild)?.focus();
  };
}

// The slot of the object whose handle an event is about; null where it is about none, or where no
// model would follow.
function slotOf(view, shown, { target }) {
  const object = objectAt(view.state.scene, Number(target.dataset.slot));
  return shown.engine && object ? object.slot : null;
}

function handleOf(handles, world, scene, edit, object, chosen) {
  const key = String(object.slot);
  const made =
    handles.get(key) ?? shape("circle", { class: "qk-handle", "data-slot": key, role: "button" });
  const [x, y] = centreOf(scene, edit.lattice, object);
  const look = { cx: x, cy: y, r: object.radius * scene.pitch };
  for (const [name, value] of Object.entries(look)) made.setAttribute(name, value.toFixed(2));
  made.setAttribute("aria-label", nameOf(world, object));
  made.setAttribute("aria-pressed", String(object.slot === chosen));
  made.classList.toggle("qk-odd", object.odd);
  return made;
}

function keyed(view, edit, follow, slot, event) {
  const { scene } = view.state;
  const step = STEPS[event.key];
  if (step) {
    event.preventDefault();
    const far = event.shiftKey ? scene.pitch : 1;
    const centre = centreOf(scene, edit.lattice, objectAt(scene, slot));
    follow(
      slot,
      centre.map((value, n) => value + far * step[n]),
      true,
    );
  }
  if (event.key === "Delete" || event.key === "Backspace") {
    event.preventDefault();
    edit.set(without(scene, slot), { chosen: null });
  }
}

// ---- toolbars ----------------------------------------------------------------------------------

// Buttons for the scene, and controls of the chosen object; returns what draws them.
function toolbars(view, shown, edit, past) {
  const { world } = view.data;
  const scene = () => view.state.scene;
  const button = (text, act) => {
    const made = element("button", { type: "button", disabled: "" }, text);
    made.addEventListener("click", act);
    return made;
  };
  const said = element("span", { role: "status" });
  const add = () => {
    const like = objectAt(scene(), view.state.chosen) ?? scene().objects[0];
    const more = withOneMore(scene(), edit.lattice, like);
    if (more) edit.set(more, { chosen: more.objects.at(-1).slot });
    said.textContent = more ? "" : "Every cell has an object.";
  };
  const chance = () => {
    const count = world.scenes.role.shape[0];
    edit.set(sceneAt(world.scenes, Math.floor(Math.random() * count)), { chosen: null });
  };
  const ground = () => edit.set({ ...scene(), background: upTo(20).map(() => Math.random()) });
  const link = async () => {
    const address = `${location.href.split("#")[0]}${HASH}${writeScene(scene())}`;
    await navigator.clipboard.writeText(address);
    said.textContent = "The link is copied.";
  };
  const undo = button("undo", edit.undo);
  const always = [
    button("add an object", add),
    button("new background", ground),
    button("a random scene", chance),
    button("reset", edit.reset),
    button("copy a link", link),
  ];
  const own = ownControls(view, shown, edit, button);
  view.stage.append(
    element(
      "div",
      { class: "qk-editor" },
      element("div", { class: "qk-controls" }, ...always, undo, said),
      own.row,
    ),
  );
  return () => {
    for (const each of always) each.disabled = !shown.engine;
    undo.disabled = !shown.engine || !past.length;
    own.draw();
  };
}

// What the chosen object looks like.
function ownControls(view, shown, edit, button) {
  const { world } = view.data;
  const chosen = () => objectAt(view.state.scene, view.state.chosen);
  const change = (values, whole = true) =>
    edit.set(changed(view.state.scene, view.state.chosen, values), { whole });
  const labelled = (text, control) => {
    control.setAttribute("aria-label", text);
    return element("label", { class: "qk-control" }, element("span", {}, text), control);
  };
  const selects = [
    ["kind", world.kinds],
    ["colour", world.colours],
    ["texture", world.textures],
  ].map(([name, choices]) => {
    const control = element("select", {}, ...choices.map((each) => element("option", {}, each)));
    control.addEventListener("change", () => change({ [name]: control.selectedIndex }));
    const show = (object) => (control.selectedIndex = object[name]);
    return { place: labelled(name, control), show };
  });
  const sliders = [
    ["size", "radius", { min: SMALLEST, max: LARGEST, step: 0.01 }],
    ["turn", "angle", { min: -3.14, max: 3.14, step: 0.01 }],
  ].map(([text, name, limits]) => {
    const control = element("input", { type: "range", ...limits });
    let sliding = false; // from the first `input` to the `change` that ends it: one undo
    control.addEventListener("input", () => {
      if (chosen()?.[name] === control.valueAsNumber) return; // a press on its own place
      change({ [name]: control.valueAsNumber }, !sliding);
      sliding = true;
    });
    for (const end of ["change", "pointerup", "pointercancel"])
      control.addEventListener(end, () => (sliding = false));
    const show = (object) => (control.value = object[name]);
    return { place: labelled(text, control), show };
  });
  const odd = element("input", { type: "checkbox" });
  odd.addEventListener("change", () => {
    edit.set(withOdd(view.state.scene, odd.checked ? view.state.chosen : null));
  });
  const remove = button("remove", () =>
    edit.set(without(view.state.scene, view.state.chosen), { chosen: null }),
  );
  remove.disabled = false;
  const all = [...selects, ...sliders];
  const places = all.map(({ place }) => place);
  const own = [...places, labelled("the odd one", odd), remove];
  const row = element(
    "fieldset",
    { class: "qk-controls qk-own" },
    element("legend", {}, "the chosen object"),
    ...own,
  );
  const draw = () => {
    const object = chosen();
    row.disabled = !shown.engine || !object;
    if (!object) return;
    for (const { show } of all) show(object);
    odd.checked = object.odd;
  };
  return { row, draw };
}
