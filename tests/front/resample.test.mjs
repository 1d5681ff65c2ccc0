import assert from "node:assert/strict";
import { test } from "node:test";

import { prepared } from "../../qkutils/views/front/math/resample.js";
import { cases } from "./cases.mjs";

function floats(view) {
  return new Float32Array(view.buffer);
}

for (const { width, height, pixels, recipe, image } of cases.pictures) {
  test(`${width} × ${height} pixels by ${JSON.stringify(recipe)}`, () => {
    const found = prepared(new Uint8ClampedArray(pixels.buffer), width, height, recipe);
    const expected = floats(image);
    assert.deepEqual([found.height, found.width], recipe.size);
    assert.equal(found.image.length, expected.length);
    assert.equal(
      expected.findIndex((value, n) => value !== found.image[n]),
      -1,
    );
    const area = found.height * found.width;
    const apart = found.rgb.findIndex((byte, n) => {
      return Math.fround(byte / 255) !== expected[(n % 3) * area + Math.floor(n / 3)];
    });
    assert.equal(apart, -1);
  });
}
