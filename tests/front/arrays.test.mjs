import assert from "node:assert/strict";
import { test } from "node:test";

import { largest, part, unpack, upTo } from "../../qkutils/views/front/math/arrays.js";
import { assertNear, cases } from "./cases.mjs";

for (const { sent, values, tolerance } of cases.packed) {
  test(`numbers packed as ${sent.form} come back`, () => {
    const found = unpack(sent);
    assert.deepEqual(found.shape, sent.shape);
    assertNear(found.values, values, tolerance);
  });
}

test("every number of half precision is read", () => {
  const { values } = unpack(cases.halves.sent);
  const expected = cases.halves.values.map((value) => Number(value));
  assert.deepEqual(Array.from(values), expected);
});

for (const { sent, at, values } of cases.parts) {
  test(`the part at ${at}`, () => assertNear(part(unpack(sent), ...at), values, 1e-6));
}

test("the largest value, and zero where all are below", () => {
  assert.equal(largest([0.25, 0.5]), 0.5);
  assert.equal(largest(Float64Array.of(-2, -1)), 0);
  assert.deepEqual(upTo(3), [0, 1, 2]);
});
