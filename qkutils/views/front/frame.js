// The frame of a view: the state that it shares with Python, and what it asks Python for.

import { element } from "./dom.js";

// JupyterLab cancels Enter in a field of a cell, so that no change is reported; leaving it does that.
function confirmed({ key, target }) {
  if (key !== "Enter" || target.type !== "number") return;
  target.blur();
  target.focus();
}

// A key that is pressed in a view is the view's: JupyterLab's shortcuts leave alone what says so.
// With Ctrl or Cmd it is JupyterLab's, as for saving; but undo is the view's.
function kept({ target, key, ctrlKey, metaKey }) {
  const ours = key === "z" || !(ctrlKey || metaKey);
  target.toggleAttribute("data-lm-suppress-shortcuts", ours);
}

// state: what is chosen, shared with Python. draw() is called after every change of it.
export class Frame {
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
      "div", // a section in a section would be a slide of its own
      { class: "qk-view", role: "region", "aria-label": this.look.title },
      this.controls,
      this.stage,
      this.facts,
      this.fault,
      this.tools,
    );
    this.root.addEventListener("keydown", confirmed);
    el.replaceChildren(this.root);
    this.bound = []; // what shows the state in controls
    this.waiting = new Map(); // what takes an answer of Python's
    this.asked = 0;
    this.addresses = new Set();
    this.closed = false;
    this.ended = new AbortController();
    const first = { capture: true, signal: this.ended.signal }; // JupyterLab hears it later
    const keep = (event) => this.root.contains(event.target) && kept(event);
    window.addEventListener("keydown", keep, first);
    this.origin();
    // entries of the state that are traits of their own, to which controls can be linked
    this.entries = Object.keys(this.state).filter((name) => model.get(name) !== undefined);
    for (const name of this.entries) model.on(`change:${name}`, () => this.follow(name));
    model.on("change:state", () => this.closed || this.redraw());
    model.on("change:answer", () => this.answered());
  }

  get state() {
    return this.model.get("state");
  }

  set(change) {
    this.model.set("state", { ...this.state, ...change });
    for (const name of this.entries) this.model.set(name, this.state[name]);
    this.model.save_changes();
  }

  follow(name) {
    const value = this.model.get(name);
    if (!this.closed && this.state[name] !== value) this.set({ [name]: value });
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

  // The last step of a view's set-up: how it draws. `live` is called where Python answers. Returns
  // what is to be done when the view is removed.
  begin(draw, live = () => {}) {
    this.draw = draw;
    this.redraw();
    this.whenAttached(() => {
      const still = this.root.closest(".cell_output, .qk-page")?.querySelector(".qk-still");
      if (still) still.hidden = true;
    });
    this.ask({ hello: true }, live);
    return () => this.close();
  }

  // Nothing of a view that was removed goes on, or is waited for.
  close() {
    this.closed = true;
    this.ended.abort();
    this.stop();
    this.waiting.clear();
    for (const address of this.addresses) URL.revokeObjectURL(address);
  }

  // A widget manager may draw a view before it stands on the page.
  whenAttached(act) {
    if (this.closed) return;
    if (this.root.isConnected) act();
    else requestAnimationFrame(() => this.whenAttached(act));
  }

  // Act later, instead of what was to be done later until now.
  later(act, milliseconds = 0) {
    this.stop();
    if (!this.closed) this.timer = setTimeout(act, milliseconds);
  }

  stop() {
    clearTimeout(this.timer);
  }

  // The address of a picture, until it is given back or the view is removed.
  address(bytes, type = "image/png") {
    const made = URL.createObjectURL(new Blob([bytes], { type }));
    this.addresses.add(made);
    return made;
  }

  giveBack(address) {
    this.addresses.delete(address);
    URL.revokeObjectURL(address);
  }

  // Ask Python for what the data do not hold, and take what it found, or fail with a message; never
  // on a static page.
  ask(request, take, fail = (message) => this.complain(message)) {
    if (this.closed) return;
    const id = ++this.asked;
    this.root.setAttribute("aria-busy", request.hello ? "false" : "true");
    this.waiting.set(id, { take, fail });
    this.model.send({ id, request });
  }

  answered() {
    const answer = this.model.get("answer");
    const asker = this.waiting.get(answer.id);
    if (!asker) return;
    this.waiting.delete(answer.id);
    this.root.setAttribute("aria-busy", "false");
    if (answer.error) asker.fail(answer.error);
    else this.guard(() => asker.take(answer.found));
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
      this.tools.append(
        element("a", { href: source.href, download: "" }, "This chapter's notebook"),
      );
    }
  }
}
