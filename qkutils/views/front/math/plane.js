// A head with two dimensions: its directions, its matrix, and who attends to whom.

import { attentionRow } from "./attention.js";

export function pairs(values) {
  return Array.from({ length: values.length / 2 }, (_, n) => [values[2 * n], values[2 * n + 1]]);
}

export function dot(a, b) {
  return a[0] * b[0] + a[1] * b[1];
}

// Mᵀz, the direction of keys that token z likes best.
export function turned(matrix, z) {
  return [0, 1].map((column) => matrix[0][column] * z[0] + matrix[1][column] * z[1]);
}

// Directions as [mode][coordinate], and M = Σ σ u vᵀ as [row][column].
export function headOf({ u0, v0, sigma0, sigma1, mirrored }) {
  const direction = (degrees) => {
    const angle = (degrees * Math.PI) / 180;
    return [Math.cos(angle), Math.sin(angle)];
  };
  const u = [direction(u0), direction(u0 + 90)];
  const v = [direction(v0), direction(v0 + (mirrored ? -90 : 90))];
  const entry = (row, column) => {
    return sigma0 * u[0][row] * v[0][column] + sigma1 * u[1][row] * v[1][column];
  };
  const matrix = [0, 1].map((row) => [entry(row, 0), entry(row, 1)]);
  return { u, v, sigma: [sigma0, sigma1], matrix };
}

// Cosines of the modes, and what the entries of M alone say; null where M is zero.
export function numbersOf({ u, v, sigma, matrix }) {
  const cosines = [0, 1].map((mode) => dot(u[mode], v[mode]));
  const [[a, b], [c, d]] = matrix;
  const total = sigma[0] + sigma[1];
  const determinant = a * d - b * c;
  const nuclear = Math.sqrt(a * a + b * b + c * c + d * d + 2 * Math.abs(determinant));
  return {
    cosines,
    determinant,
    nuclear,
    trace: a + d,
    weighted: total ? dot(sigma, cosines) / total : null,
    ratio: nuclear ? (a + d) / nuclear : null,
  };
}

// Attention [asking][answering], from Mᵀz of each token.
export function attentionOf(tokens, wanted) {
  const salience = new Float64Array(tokens.length);
  const key = tokens.flat().map((x) => x / Math.SQRT2);
  const factors = { query: wanted.flat(), key, salience };
  return tokens.map((_, asking) => Array.from(attentionRow(factors, asking)));
}

// Where the largest values are; values that differ by rounding only are equal.
export function bestOf(values, size) {
  const most = Math.max(...values);
  return values.flatMap((value, n) => (value > most - 1e-6 * size ? [n] : []));
}

// The mean cosine of a token with what it attends to, and the same for attention spread evenly.
export function likeness(tokens, attention) {
  const unit = tokens.map((z) => z.map((x) => x / (Math.hypot(...z) || 1)));
  const mean = (weight) => {
    let sum = 0;
    unit.forEach((a, i) => unit.forEach((b, j) => (sum += weight(i, j) * dot(a, b))));
    return sum / tokens.length;
  };
  return { found: mean((i, j) => attention[i][j]), even: mean(() => 1 / tokens.length) };
}

// An angle in degrees from −180 to below 180.
export function wrapped(angle) {
  return ((((angle + 180) % 360) + 360) % 360) - 180;
}
