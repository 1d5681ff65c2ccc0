// What a model computed of one picture, and what of it was switched off.

import { upTo } from "./arrays.js";
import { softmax } from "./attention.js";

// Whether a list of places holds this one.
export function holds(places, place) {
  return places.some((other) => other.every((value, n) => value === place[n]));
}

// A list of places with this one put in, or taken out where it was in.
export function switched(places, place) {
  const rest = places.filter((other) => !other.every((value, n) => value === place[n]));
  return rest.length < places.length ? rest : [...places, place];
}

// The model's three inputs for removal: ones, and 0 for what is off.
export function masksOf({ modes, heads, salience }, [layers, perLayer, perHead]) {
  const all = (shape, places) => {
    const data = new Float32Array(shape.reduce((product, size) => product * size)).fill(1);
    for (const place of places) data[place.reduce((at, n, dim) => at * shape[dim] + n, 0)] = 0;
    return { shape, data };
  };
  return {
    modes: all([layers, perLayer, perHead], modes),
    heads: all([layers, perLayer], heads),
    salience: all([layers, perLayer], salience),
  };
}

// One head of a run, as `attentionRow` and `takenApart` take it. Coordinates hold √σ, so that a
// score is a sum of products and every mode counts 1 times its own.
export function headOf(run, { size, scale }, off, layer, head) {
  const [, perLayer, modes] = size;
  const tokens = run.kappa.length / size[0] / perLayer;
  const at = layer * perLayer + head;
  const of = (values, width) => values.subarray(at * tokens * width, (at + 1) * tokens * width);
  const [ask, key, kappa] = [of(run.query, modes), of(run.key, modes), of(run.kappa, 1)];
  const on = holds(off.heads, [layer, head]) ? 0 : 1;
  const there = upTo(modes).map((mode) => (holds(off.modes, [layer, head, mode]) ? 0 : on));
  const salient = holds(off.salience, [layer, head]) ? 0 : on;
  return {
    ...{ layer, head, modes, tokens, ask, key, memo: new Map() },
    sigma: new Float32Array(modes).fill(1),
    query: ask.map((value, n) => value * scale * there[n % modes]),
    salience: kappa.map((value) => value * scale * salient),
  };
}

// Confidences of each question, from all answers in a row.
export function confidences(answer, questions) {
  let from = 0;
  return questions.map(({ name, choices }) => {
    const row = softmax(Float64Array.from(answer.subarray(from, from + choices.length)));
    from += choices.length;
    const order = upTo(choices.length).sort((a, b) => row[b] - row[a]);
    return { name, choices, row, order };
  });
}
