// Controls; each belongs to one entry of the state.

import { element } from "./dom.js";

export function addLabelled(view, text, control) {
  control.setAttribute("aria-label", text); // a slider's label also holds its value
  view.controls.append(
    element("label", { class: "qk-control" }, element("span", {}, text), control),
  );
  return control;
}

// choices: [{value, label}]; returns a function that replaces them.
export function addSelect(view, text, key, choices) {
  const control = addLabelled(view, text, element("select"));
  let values = [];
  const offer = (next) => {
    values = next.map(({ value }) => value);
    control.replaceChildren(...next.map(({ label }) => element("option", {}, String(label))));
    control.selectedIndex = values.indexOf(view.state[key]);
  };
  offer(choices);
  control.addEventListener("change", () => view.set({ [key]: values[control.selectedIndex] }));
  view.bound.push((state) => (control.selectedIndex = values.indexOf(state[key])));
  return offer;
}

// change(value): what else a new value means for the state.
export function addRange(
  view,
  text,
  key,
  { min, max, step = 1, show = String, change = () => ({}) },
) {
  const control = element("input", { type: "range", min, max, step });
  const value = element("output");
  addLabelled(view, text, control).after(value);
  control.addEventListener("input", () => {
    view.set({ [key]: control.valueAsNumber, ...change(control.valueAsNumber) });
  });
  view.bound.push((state) => {
    control.value = state[key];
    control.setAttribute("aria-valuetext", show(state[key]));
    value.textContent = show(state[key]);
  });
  return control;
}

// A slider over listed values, numbers or not; returns a function that replaces them.
export function addSteps(view, text, key, values, show = String, change = () => ({})) {
  const control = element("input", { type: "range", min: 0, step: 1 });
  const said = element("output");
  addLabelled(view, text, control).after(said);
  const tell = (state) => {
    control.value = values.indexOf(state[key]);
    said.textContent = show(state[key]);
    control.setAttribute("aria-valuetext", said.textContent);
  };
  const offer = (next) => {
    values = next;
    control.max = next.length - 1;
    tell(view.state);
  };
  offer(values);
  control.addEventListener("input", () => {
    const value = values[control.valueAsNumber];
    view.set({ [key]: value, ...change(value) });
  });
  view.bound.push(tell);
  return offer;
}

export function addToggle(view, text, key) {
  const control = addLabelled(view, text, element("input", { type: "checkbox" }));
  control.addEventListener("change", () => view.set({ [key]: control.checked }));
  view.bound.push((state) => (control.checked = Boolean(state[key])));
  return control;
}

// change(value): what else a new value means for the state.
export function addChoice(view, text, key, choices, change = () => ({})) {
  const group = element("fieldset", { class: "qk-control" }, element("legend", {}, text));
  const name = `qk-${Math.random().toString(36).slice(2)}`;
  for (const { value, label } of choices) {
    const control = element("input", { type: "radio", name });
    control.addEventListener("change", () => view.set({ [key]: value, ...change(value) }));
    view.bound.push((state) => (control.checked = state[key] === value));
    group.append(element("label", {}, control, label));
  }
  view.controls.append(group);
  return group;
}

// A button for one file; the same file can be chosen again.
export function addFile(view, text, accept, take) {
  const control = addLabelled(view, text, element("input", { type: "file", accept }));
  control.addEventListener("click", () => (control.value = ""));
  control.addEventListener("change", () => control.files.length && take(control.files[0]));
}
