import assert from "node:assert/strict";
import { test } from "node:test";

import {
  clipped,
  compose,
  greyOf,
  patchOfPixel,
  strongest,
} from "../../qkutils/views/front/math/overlay.js";
import { cases } from "./cases.mjs";

test("the patch of each pixel", () => {
  for (const { size, grid, patches } of cases.pixels) {
    assert.deepEqual(Array.from(patchOfPixel(size, grid)), patches);
  }
});

for (const { size, grid, pixels, query, key, limits, overlays } of cases.overlays) {
  test(`an overlay on ${size} pixels is the one that figures have`, () => {
    const patches = patchOfPixel(size, grid);
    const grey = greyOf(pixels.flat(2));
    const maps = { query: clipped(query, limits[0]), key: clipped(key, limits[1]) };
    for (const [shown, expected] of Object.entries(overlays)) {
      const into = new Uint8ClampedArray(4 * grey.length);
      const on = (side) => ["both", side].includes(shown) && maps[side];
      compose(into, grey, patches, on("query"), on("key"));
      const opaque = expected.flat().flatMap((colour) => [...colour, 255]);
      into.forEach((value, n) => assert.ok(Math.abs(value - opaque[n]) <= 0.51, `${shown}, ${n}`));
    }
  });
}

test("where a picture asks and answers most, and its score", () => {
  assert.deepEqual(strongest([0.5, 2, -3], [-1, 0.25, 0]), { asks: 1, answers: 1, score: 0.5 });
  assert.equal(strongest([-0.5, -2], [1, 3]).score, null);
  assert.equal(strongest([0.5, 2], [-1, -3]).score, null);
});
