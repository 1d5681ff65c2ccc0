// What the view of one image computes of a head, from the view's own data: numbers for a test.

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
import { cases } from "./cases.mjs";

function last(work) {
  let step = work.next();
  while (!step.done) step = work.next();
  return step.value;
}

const { data, asked } = cases;
const scene = sceneOf(data);
const found = asked.map((one) => {
  const head = scene.find(one.layer, one.head);
  const askers = askersOf(one, scene);
  const { contribution, share, salience } = takenApart(head, askers, scene);
  const order = orderOf(one.order, head, contribution);
  const ranks = order.slice(0, one.kept);
  const source = one.salience ? head : { ...head, salience: head.salience.map(() => 0) };
  return {
    order,
    contribution,
    share,
    kappa: salience,
    row: [...meanOf(askers, (asking) => attentionRow(source, asking, ranks))],
    own: [...meanOf(askers, (asking) => ownRow(head, asking))],
    mean: [...last(meanDistances(head, scene, order, one.salience))],
    one: [...distances(head, askers[0], order, one.salience)],
  };
});
console.log(JSON.stringify(found));
