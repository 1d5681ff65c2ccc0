import assert from "node:assert/strict";
import { test } from "node:test";

import { kindOf, sizeOf } from "../../qkutils/views/front/math/photo_header.js";
import { cases } from "./cases.mjs";

// The bytes of a file in the middle of others, as they may lie in memory.
function within(view) {
  const around = new Uint8Array(view.byteLength + 20).fill(0xff);
  around.set(new Uint8Array(view.buffer), 10);
  return around.subarray(10, -10);
}

cases.files.forEach(({ kind, bytes, size }, n) => {
  test(`${kind}, file ${n}`, () => {
    assert.equal(kindOf(within(bytes)), kind);
    assert.deepEqual({ ...sizeOf(kind, within(bytes)) }, size);
  });
});

cases.refused.forEach(({ bytes, told }, n) => {
  test(`refused: ${told}, file ${n}`, () => {
    const open = () => sizeOf(kindOf(within(bytes)), within(bytes));
    assert.throws(open, (error) => error.message.includes(told));
  });
});
