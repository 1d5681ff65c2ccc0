import assert from "node:assert/strict";
import { test } from "node:test";

import { attentionRow } from "../../qkutils/views/front/math/attention.js";
import { askersOf, takenApart } from "../../qkutils/views/front/math/explain.js";
import {
  confidences,
  headOf,
  holds,
  masksOf,
  switched,
} from "../../qkutils/views/front/math/run.js";
import { TASKS } from "../../qkutils/views/front/math/tasks.js";
import { assertNear, cases } from "./cases.mjs";

const { size, scale, prefix, patches, off, masks, run, rows, questions, answers, tasks } = cases;

test("places are put into a list and taken out", () => {
  const some = [
    [1, 0, 2],
    [0, 1, 3],
  ];
  assert.ok(holds(some, [0, 1, 3]) && !holds(some, [0, 1, 2]) && !holds([], [0]));
  assert.deepEqual(switched(some, [1, 0, 2]), [[0, 1, 3]]);
  assert.deepEqual(switched(some, [1, 0, 3]), [...some, [1, 0, 3]]);
  assert.equal(some.length, 2); // a state is never changed in place
});

test("masks are Python's", () => {
  const found = masksOf(off, size);
  assert.deepEqual(Object.keys(found), Object.keys(masks));
  for (const [name, { shape, values }] of Object.entries(masks)) {
    assert.deepEqual(found[name].shape, shape);
    assertNear(found[name].data, values, 0);
  }
});

test("attention of a run is Python's, with some of the model off", () => {
  const of = {};
  for (const [name, values] of Object.entries(run)) of[name] = Float32Array.from(values);
  for (const { layer, head, asking, row, share, salience } of rows) {
    const found = headOf(of, { size, scale }, off, layer, head);
    assertNear(attentionRow(found, asking), row, 1e-5);
    const apart = takenApart(found, [asking], { first: prefix.length, patches });
    assertNear([...apart.share, apart.salience], [...share, salience], 1e-4);
  }
  const place = { prefix, patches, first: prefix.length };
  assert.deepEqual(askersOf({ asks: "patch", patch: 3 }, place), [prefix.length + 3]);
});

test("confidences are a softmax for each question", () => {
  const found = confidences(Float32Array.from(answers.all), questions);
  found.forEach(({ row, order, choices }, n) => {
    assertNear(row, answers.rows[n], 1e-6);
    assert.deepEqual(order, answers.orders[n]);
    assert.deepEqual(choices, questions[n].choices);
  });
});

tasks.forEach(({ key, now, done }, n) =>
  test(`task ${key}, case ${n}`, () => assert.equal(TASKS[key](now).done, done)),
);
