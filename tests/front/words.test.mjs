import assert from "node:assert/strict";
import { test } from "node:test";

import { exact, listed, nth, placeName, signed } from "../../qkutils/views/front/words.js";

test("numbers have a sign, and no −0", () => {
  assert.deepEqual(
    [1.234, -0.5, -0.001, 0].map((value) => signed(value)),
    ["+1.23", "−0.50", "+0.00", "+0.00"],
  );
  assert.equal(signed(-12.34, 1), "−12.3");
});

test("small numbers keep two digits that count", () => {
  assert.deepEqual([0.00345, -0.00345, 0.1, -2.5, 0].map(exact), [
    "+0.0034",
    "−0.0034",
    "+0.10",
    "−2.50",
    "+0.00",
  ]);
});

test("places in an order are ordinal numbers", () => {
  const special = {
    1: "1st",
    2: "2nd",
    3: "3rd",
    21: "21st",
    22: "22nd",
    23: "23rd",
    101: "101st",
  };
  for (const n of [...Array(25).keys(), 101, 111, 112]) {
    assert.equal(nth(n), special[n] ?? `${n}th`);
  }
});

test("runs of numbers are shortened; a patch has its row and column", () => {
  assert.equal(listed([0, 1, 2, 5]), "0–2, 5");
  assert.equal(listed([4]), "4");
  assert.equal(placeName(11, [3, 4]), "row 2, column 3");
});
