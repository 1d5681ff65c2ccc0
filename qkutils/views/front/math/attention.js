// Attention of one token on all, from what tokens bring (Python's token_factors).

import { largest } from "./arrays.js";

// Query [token, rank], key [token, rank], salience [token], and position bias [asking, token] where
// the model has one; `ranks` are those that count, all of them if left out.
export function attentionRow({ query, key, salience, bias }, asking, ranks = null) {
  const tokens = salience.length;
  const width = query.length / tokens;
  const used = ranks ?? Array.from({ length: width }, (_, n) => n);
  const row = new Float64Array(tokens);
  for (let token = 0; token < tokens; token++) {
    row[token] = salience[token] + (bias ? bias[asking * tokens + token] : 0);
    for (const rank of used) row[token] += query[asking * width + rank] * key[token * width + rank];
  }
  return softmax(row);
}

export function softmax(logits) {
  let most = -Infinity;
  for (const logit of logits) if (logit > most) most = logit;
  const row = logits.map((logit) => Math.exp(logit - most));
  let total = 0;
  for (const value of row) total += value;
  for (let n = 0; n < row.length; n++) row[n] /= total;
  return row;
}

// The mean of row(asking) over those who ask.
export function meanOf(askers, row) {
  if (askers.length === 1) return row(askers[0]);
  const mean = new Float64Array(row(askers[0]).length);
  for (const asking of askers) {
    row(asking).forEach((value, token) => (mean[token] += value / askers.length));
  }
  return mean;
}

// One token's rows in every [layer][head], their means over heads, and the most that a row, or a
// mean, has on any patch: on any token but the `prefix` first.
export function allRows(factors, asking, prefix) {
  const rows = factors.map((heads) => heads.map((head) => attentionRow(head, asking)));
  const means = rows.map((heads) => meanOf([...heads.keys()], (head) => heads[head]));
  const top = (some) => Math.max(...some.map((row) => largest(row.subarray(prefix))));
  return { rows, means, top: top(rows.flat()), topOfMeans: top(means) };
}

// How much of a row falls on each of `count` regions, to which patches belong by their shares
// `member` [patch, region], and on each prefix token.
export function sharesOn(row, member, count, prefix) {
  const found = [...Array(count).fill(0), ...row.subarray(0, prefix)];
  member.forEach((area, n) => (found[n % count] += area * row[prefix + Math.floor(n / count)]));
  return found;
}
