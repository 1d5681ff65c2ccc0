// What stands in for Jupyter on a page with no kernel.

// Values as a file carries them: bytes are text there.
export function revived(text) {
  return JSON.parse(text, (key, value) => {
    if (!value || value.$bytes === undefined) return value;
    return new DataView(Uint8Array.from(atob(value.$bytes), (c) => c.charCodeAt(0)).buffer);
  });
}

// The model of a view: it keeps what is set, and nobody answers.
export function standIn(values) {
  const heard = {};
  return {
    get: (name) => values[name],
    set: (name, value) => {
      if (JSON.stringify(values[name]) === JSON.stringify(value)) return; // as in Jupyter
      values[name] = value;
      for (const act of heard[`change:${name}`] ?? []) act();
    },
    on: (event, act) => (heard[event] ??= []).push(act),
    save_changes() {},
    send() {},
  };
}
