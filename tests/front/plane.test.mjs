import assert from "node:assert/strict";
import { test } from "node:test";

import {
  attentionOf,
  bestOf,
  headOf,
  likeness,
  numbersOf,
  pairs,
  turned,
  wrapped,
} from "../../qkutils/views/front/math/plane.js";
import { assertNear, cases } from "./cases.mjs";

for (const {
  state,
  matrix,
  sigma,
  cosines,
  weighted,
  trace,
  determinant,
  nuclear,
} of cases.heads) {
  test(`matrix and numbers of ${Object.values(state)}`, () => {
    const head = headOf(state);
    assertNear(head.matrix, matrix);
    const found = numbersOf(head);
    assertNear([found.trace, found.determinant, found.nuclear], [trace, determinant, nuclear]);
    sigma.forEach((strength, mode) => {
      if (strength) assertNear(found.cosines[mode], cosines[mode]); // else it may point either way
    });
    if (!sigma[0]) return assert.deepEqual([found.weighted, found.ratio], [null, null]);
    assertNear([found.weighted, found.ratio], [weighted, trace / nuclear], 1e-7);
  });
}

for (const { state, tokens, attention, best, likeness: alike } of cases.tokens) {
  test(`attention of ${tokens.length} tokens`, () => {
    const { matrix } = headOf(state);
    const wanted = tokens.map((z) => turned(matrix, z));
    const found = attentionOf(tokens, wanted);
    assertNear(found, attention);
    assertNear(Object.values(likeness(tokens, found)), alike);
    const scores = tokens.map((z) => wanted[0][0] * z[0] + wanted[0][1] * z[1]);
    assert.deepEqual(bestOf(scores, 1), best);
  });
}

test("values that differ by rounding only are equally large", () => {
  assert.deepEqual(bestOf([1, 3, 3 - 1e-9, 2], 1), [1, 2]);
  assert.deepEqual(bestOf([0, 0, 0], 1), [0, 1, 2]);
});

test("angles go on past half a turn; values pair up", () => {
  assert.deepEqual([185, -185, 180, -180, 30].map(wrapped), [-175, 175, -180, -180, 30]);
  assert.deepEqual(pairs([1, 2, 3, 4]), [
    [1, 2],
    [3, 4],
  ]);
});
