import assert from "node:assert/strict";
import { test } from "node:test";

import { attentionRow, meanOf } from "../../qkutils/views/front/math/attention.js";
import {
  askersOf,
  distances,
  meanDistances,
  orderOf,
  ownRow,
  sceneOf,
  takenApart,
} from "../../qkutils/views/front/math/explain.js";
import { assertNear, cases } from "./cases.mjs";

const NEAR = 1e-4; // the view's numbers have single precision

for (const { name, data, asked, expected } of cases.heads) {
  const scene = sceneOf(data);
  const head = scene.find(0, 1);

  test(`${name}: who asks`, () => {
    assert.deepEqual(askersOf(asked, scene), expected.askers);
  });

  test(`${name}: contributions, shares and orders`, () => {
    const about = takenApart(head, expected.askers, scene);
    assertNear(about.contribution, expected.contribution, NEAR);
    assertNear(about.share, expected.share, NEAR);
    assertNear(about.salience, expected.salience_share, NEAR);
    assert.deepEqual(orderOf("sigma", head, about.contribution), expected.by_sigma);
    assert.deepEqual(orderOf("contribution", head, about.contribution), expected.by_contribution);
  });

  test(`${name}: attention, its own and rebuilt`, () => {
    assertNear(
      meanOf(expected.askers, (asking) => ownRow(head, asking)),
      expected.own,
      NEAR,
    );
    const ranks = expected.by_contribution.slice(0, 2);
    assertNear(
      meanOf(expected.askers, (asking) => attentionRow(head, asking, ranks)),
      expected.of_two,
      NEAR,
    );
  });

  test(`${name}: how far attention is from its own with 0, 1, … modes`, () => {
    const { by_contribution: order, askers } = expected;
    for (const salience of [true, false]) {
      const far = expected[salience ? "far" : "far_without_salience"];
      assertNear(distances(head, askers[0], order, salience), far.one, NEAR);
      const work = meanDistances(head, scene, order, salience);
      let steps = 0;
      let step = work.next();
      for (; !step.done; step = work.next()) steps++;
      assert.equal(steps, scene.patches);
      assertNear(step.value, far.mean, NEAR);
    }
  });
}

test("a scene says what it carries, and takes heads that come later", () => {
  const { data } = cases.heads[0];
  const scene = sceneOf(data);
  assert.deepEqual([scene.layers, scene.ofLayer, scene.patches], [[0], [1], 12]);
  assert.equal(scene.find(3, 2), undefined);
  scene.add({ ...data.heads[0], layer: 3, head: 2 });
  assert.equal(scene.find(3, 2).layer, 3);
});

test("a token that is not there asks nothing", () => {
  const scene = sceneOf(cases.heads[0].data);
  assert.equal(askersOf({ asks: "patch", patch: 12 }, scene), null);
  assert.equal(askersOf({ asks: "register 7", patch: 0 }, scene), null);
});
