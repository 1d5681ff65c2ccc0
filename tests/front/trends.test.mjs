import assert from "node:assert/strict";
import { test } from "node:test";

import { curveOf, depthOf, rangeOf } from "../../qkutils/views/front/math/trends.js";
import { assertNear, cases } from "./cases.mjs";

for (const { sent, heads, means, chance } of cases.curves) {
  test(`curves of ${sent.name}`, () => {
    const curve = curveOf(sent);
    sent.conventions.forEach((convention, n) => {
      assertNear(curve.means(convention), means[n], 1e-6);
      heads[n].forEach((values, layer) => assertNear(curve.heads(convention, layer), values, 1e-6));
      if (chance) assertNear(curve.null(convention), chance[n], 1e-6);
      else assert.ok(!curve.null(convention));
    });
    assert.equal(curve.means("none"), undefined);
    assert.ok(!curve.null("none"));
  });
}

test("depth goes from 0 to 1", () => {
  assert.deepEqual(
    [0, 1, 4].map((layer) => depthOf({ layers: 5 }, layer)),
    [0, 0.25, 1],
  );
  assert.equal(depthOf({ layers: 1 }, 0), 0);
});

test("axes hold all values and zero, with some room", () => {
  const [low, high] = rangeOf([{ values: [0.31, 0.42] }, { values: [-0.18] }]);
  assertNear([low, high], [-0.3, 0.5]);
  assertNear(rangeOf([{ values: [0.4] }])[0], -0.1);
});
