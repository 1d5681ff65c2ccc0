// Curves over depth.

import { part, unpack, upTo } from "./arrays.js";

// What Python sent of one model, with its means over heads.
export function curveOf({ name, colour, conventions, heads, null: chance }) {
  const values = unpack(heads);
  const widths = chance && unpack(chance);
  const layers = values.shape[1];
  const at = (convention) => conventions.indexOf(convention);
  const means = conventions.map((_, c) =>
    upTo(layers).map((layer) => {
      const some = part(values, c, layer);
      return some.reduce((sum, value) => sum + value, 0) / some.length;
    }),
  );
  return {
    name,
    colour,
    conventions,
    layers,
    values: values.values,
    heads: (convention, layer) => part(values, at(convention), layer),
    means: (convention) => means[at(convention)],
    null: (convention) => widths && at(convention) >= 0 && part(widths, at(convention)),
  };
}

// Where a layer lies between the first, 0, and the last, 1.
export function depthOf({ layers }, layer) {
  return layers > 1 ? layer / (layers - 1) : 0;
}

// Curves fill the axes, in steps of a tenth, and zero is always there.
export function rangeOf(curves) {
  const all = curves.flatMap(({ values }) => Array.from(values));
  const [low, high] = [Math.min(0, ...all), Math.max(0, ...all)];
  return [Math.floor(low * 10 - 0.5) / 10, Math.ceil(high * 10 + 0.5) / 10];
}
