// Cases that Python wrote, with arrays as {shape, values}; and how near a number has to be.

import assert from "node:assert/strict";
import { readFileSync } from "node:fs";

const path = process.env.QKUTILS_CASES;
if (!path)
  throw new Error(
    "QKUTILS_CASES names no file: run these tests with pytest tests/views/test_math.py",
  );

function revived(key, value) {
  return value?.$bytes === undefined ? value : new DataView(bytesOf(value.$bytes).buffer);
}

function bytesOf(text) {
  return Uint8Array.from(atob(text), (letter) => letter.charCodeAt(0));
}

export const cases = JSON.parse(readFileSync(path, "utf-8"), revived);

// Every number of nested arrays, in reading order.
function flat(values) {
  if (typeof values === "number" || values === null) return [values];
  return Array.from(values, flat).flat();
}

export function assertNear(found, expected, tolerance = 1e-9) {
  const [some, others] = [flat(found), flat(expected)];
  assert.equal(some.length, others.length);
  some.forEach((value, n) => {
    const far = Math.abs(value - others[n]);
    assert.ok(far <= tolerance * (1 + Math.abs(others[n])), `${n}: ${value}, not ${others[n]}`);
  });
}
