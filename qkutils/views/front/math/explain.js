// A head's scores on one image taken apart into modes, and its attention built up again from them
// (Python's explain and build_up).

import { unpack, upTo } from "./arrays.js";
import { attentionRow, softmax } from "./attention.js";

// One image and one model; a head is unpacked when it is first looked at.
export function sceneOf(data) {
  const heads = new Map();
  const opened = new Map(); // not kept in the data, which are the widget's state
  const add = (sent) => heads.set(`${sent.layer},${sent.head}`, sent);
  data.heads.forEach(add);
  const unique = (name) => [...new Set(data.heads.map((each) => each[name]))];
  const find = (layer, head) => {
    const name = `${layer},${head}`;
    if (!heads.has(name)) return undefined;
    if (!opened.has(name)) opened.set(name, openedHead(heads.get(name), data.scale));
    return opened.get(name);
  };
  const [rows, columns] = data.grid;
  const first = data.prefix.length;
  const modes = data.heads[0].sigma.shape[0];
  const carried = { layers: unique("layer"), ofLayer: unique("head") };
  return { ...data, heads, add, find, first, modes, patches: rows * columns, ...carried };
}

// A head with what attentionRow needs: `query` is z·u times σ and the head's scale.
function openedHead({ layer, head, ...sent }, scale) {
  const names = ["query", "key", "salience", "sigma", "cosine"];
  const [ask, key, salience, sigma, cosine] = names.map((name) => unpack(sent[name]).values);
  const modes = sigma.length;
  const query = ask.map((value, at) => value * sigma[at % modes] * scale);
  const sizes = { modes, tokens: salience.length };
  return { layer, head, ...sizes, ask, query, key, salience, sigma, cosine, memo: new Map() };
}

export function once(head, name, make) {
  if (!head.memo.has(name)) head.memo.set(name, make());
  return head.memo.get(name);
}

// Numbers of the tokens that ask; null where there is no such token.
export function askersOf({ asks, patch }, { prefix, patches, first }) {
  if (asks === "all") return upTo(patches).map((n) => first + n);
  const token = asks === "patch" ? first + patch : prefix.indexOf(asks);
  return token >= 0 && token < first + patches ? [token] : null;
}

// Of each mode its contribution and its share of the logit; the share of key salience.
export function takenApart(head, askers, scene) {
  return once(head, `apart ${askers}`, () => ({
    contribution: contributions(head, askers, scene),
    ...sharesOf(head, askers),
  }));
}

// σ × the largest projection of an asker × the largest of a patch, for the better sign.
function contributions(head, askers, { first, patches }) {
  const answering = upTo(patches).map((n) => first + n);
  return Array.from(head.sigma, (sigma, mode) => {
    const asked = extremes(head.ask, head.modes, mode, askers);
    const answered = extremes(head.key, head.modes, mode, answering);
    return sigma * Math.max(asked.high * answered.high, asked.low * answered.low);
  });
}

// How far a mode's values reach above zero, and below it.
function extremes(side, modes, mode, tokens) {
  let [low, high] = [0, 0];
  for (const token of tokens) {
    const value = side[token * modes + mode];
    if (value > high) high = value;
    if (-value > low) low = -value;
  }
  return { low, high };
}

export function orderOf(by, head, contribution) {
  const values = by === "sigma" ? head.sigma : contribution;
  return upTo(head.modes).sort((a, b) => values[b] - values[a]);
}

// Each mode's covariance over keys with the whole logit ÷ the whole's variance, askers pooled; from
// the products of modes over keys and over askers, so that no logit has to be computed.
function sharesOf(head, askers) {
  const { modes, query } = head;
  const keys = once(head, "keys", () => products(head));
  const sums = new Float64Array(modes);
  const pairs = new Float64Array(modes * modes);
  for (const token of askers) {
    const asking = query.subarray(token * modes, (token + 1) * modes);
    for (let n = 0; n < modes; n++) {
      sums[n] += asking[n];
      for (let m = 0; m < modes; m++) pairs[n * modes + m] += asking[n] * asking[m];
    }
  }
  const terms = Array.from(sums, (sum, n) => sum * keys.pull[n]);
  pairs.forEach((pair, at) => (terms[Math.floor(at / modes)] += pair * keys.gram[at]));
  const alone = askers.length * keys.salience;
  const salience = sums.reduce((total, sum, n) => total + sum * keys.pull[n], alone);
  const whole = terms.reduce((total, term) => total + term, salience) || 1;
  return { share: terms.map((term) => term / whole), salience: salience / whole };
}

// Products over keys, each less its mean: of mode with mode, of mode with key salience, of salience.
function products({ modes, tokens, key, salience }) {
  const mean = new Float64Array(modes);
  key.forEach((value, at) => (mean[at % modes] += value / tokens));
  const level = salience.reduce((total, value) => total + value / tokens, 0);
  const gram = new Float64Array(modes * modes);
  const pull = new Float64Array(modes);
  const centred = new Float64Array(modes);
  let alone = 0;
  for (let token = 0; token < tokens; token++) {
    const more = salience[token] - level;
    alone += more * more;
    for (let n = 0; n < modes; n++) centred[n] = key[token * modes + n] - mean[n];
    for (let n = 0; n < modes; n++) {
      pull[n] += centred[n] * more;
      for (let m = 0; m < modes; m++) gram[n * modes + m] += centred[n] * centred[m];
    }
  }
  return { gram, pull, salience: alone };
}

export function ownRow(head, asking) {
  return once(head, `own ${asking}`, () => attentionRow(head, asking));
}

// Total variation from the head's own row with the first 0, 1, … modes of an order.
export function distances(head, asking, order, salience) {
  const { modes, tokens, query, key } = head;
  const own = ownRow(head, asking);
  const logits = salience ? Float64Array.from(head.salience) : new Float64Array(tokens);
  const found = new Float64Array(modes + 1);
  found[0] = totalVariation(softmax(logits), own);
  order.forEach((mode, n) => {
    const asked = query[asking * modes + mode];
    for (let token = 0; token < tokens; token++) {
      logits[token] += asked * key[token * modes + mode];
    }
    found[n + 1] = totalVariation(softmax(logits), own);
  });
  return found;
}

export function totalVariation(row, other) {
  let far = 0;
  for (let token = 0; token < row.length; token++) far += Math.abs(row[token] - other[token]);
  return far / 2;
}

// The mean of `distances` over all patches; it pauses after each.
export function* meanDistances(head, { first, patches }, order, salience) {
  const mean = new Float64Array(head.modes + 1);
  for (let n = 0; n < patches; n++) {
    const far = distances(head, first + n, order, salience);
    far.forEach((value, kept) => (mean[kept] += value / patches));
    yield;
  }
  return mean;
}
