// Numbers and places in words.

export function signed(value, digits = 2) {
  const text = Math.abs(value).toFixed(digits);
  return (value < 0 && Number(text) !== 0 ? "−" : "+") + text;
}

export function placeName(patch, [, columns]) {
  return `row ${Math.floor(patch / columns)}, column ${patch % columns}`;
}

// At least two digits that count, with the sign.
export function exact(value) {
  if (Math.abs(value) >= 0.1 || value === 0) return signed(value);
  return (value < 0 ? "−" : "+") + Number(Math.abs(value).toPrecision(2));
}

export function nth(number) {
  // codespell:ignore-next-line
  const ending = ["th", "st", "nd", "rd"][number % 10] ?? "th";
  return `${number}${Math.floor(number / 10) % 10 === 1 ? "th" : ending}`;
}

// 0, 1, 2, 5 as "0–2, 5".
export function listed(numbers) {
  const runs = [];
  for (const n of numbers) {
    if (runs.length && runs.at(-1)[1] === n - 1) runs.at(-1)[1] = n;
    else runs.push([n, n]);
  }
  return runs.map(([from, to]) => (from === to ? `${from}` : `${from}–${to}`)).join(", ");
}
