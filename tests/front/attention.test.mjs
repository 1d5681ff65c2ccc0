import assert from "node:assert/strict";
import { test } from "node:test";

import {
  allRows,
  attentionRow,
  meanOf,
  sharesOn,
  softmax,
} from "../../qkutils/views/front/math/attention.js";
import { assertNear, cases } from "./cases.mjs";

const factors = ({ query, key, salience, bias }) => ({
  query: Float64Array.from(query.flat()),
  key: Float64Array.from(key.flat()),
  salience: Float64Array.from(salience),
  bias: bias && Float64Array.from(bias.flat()),
});

for (const { logits, row } of cases.softmax) {
  test(`softmax of ${logits.length} logits`, () => {
    assertNear(softmax(Float64Array.from(logits)), row);
  });
}

for (const { head, asking, ranks, row } of cases.rows) {
  test(`attention of token ${asking} from ranks ${ranks ?? "all"}`, () => {
    assertNear(attentionRow(factors(head), asking, ranks), row);
  });
}

test("the mean over askers, and one asker's own row", () => {
  const rows = [
    [0.5, 0.5],
    [0.1, 0.9],
  ].map((row) => Float64Array.from(row));
  assertNear(
    meanOf([0, 1], (asking) => rows[asking]),
    [0.3, 0.7],
  );
  assert.equal(
    meanOf([1], (asking) => rows[asking]),
    rows[1],
  );
});

test("rows of all heads, their means, and the most on any patch", () => {
  const { heads, asking, prefix, rows, means, top, topOfMeans } = cases.all;
  const found = allRows(
    heads.map((layer) => layer.map(factors)),
    asking,
    prefix,
  );
  assertNear(found.rows, rows);
  assertNear(found.means, means);
  assertNear([found.top, found.topOfMeans], [top, topOfMeans]);
});

test("shares on regions and prefix tokens", () => {
  for (const { row, member, prefix, shares } of cases.shares) {
    const areas = Float64Array.from(member.flat());
    assertNear(sharesOn(Float64Array.from(row), areas, member[0].length, prefix), shares);
  }
});
