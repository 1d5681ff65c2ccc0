// A picture as a model takes it: resized as Pillow does it, to the last bit, and cut to the middle.

const FRACTION_BITS = 22; // behind the point: weights are whole numbers, and every pass ends in 8 bits
const ROUND = 2 ** (FRACTION_BITS - 1);

function triangle(x) {
  return Math.max(0, 1 - Math.abs(x));
}

function cubic(x) {
  const far = Math.abs(x);
  if (far < 1) return (1.5 * far - 2.5) * far * far + 1;
  return far < 2 ? (((far - 5) * far + 8) * far - 4) * -0.5 : 0;
}

const RESAMPLERS = { bilinear: { curve: triangle, reach: 1 }, bicubic: { curve: cubic, reach: 2 } };

function fixedPoint(weight) {
  return Math.trunc(weight * 2 ** FRACTION_BITS + (weight < 0 ? -0.5 : 0.5));
}

// Which pixels of a line of `from` make pixel `at` of the line resized to `to`, and how much of
// each: of none where that line does not reach.
function weightsOf(at, from, to, { curve, reach }) {
  if (at < 0 || at >= to) return { start: 0, weights: [] };
  const scale = from / to;
  const wide = Math.max(scale, 1);
  const center = (at + 0.5) * scale;
  const start = Math.max(0, Math.trunc(center - reach * wide + 0.5));
  const end = Math.min(from, Math.trunc(center + reach * wide + 0.5));
  const slope = 1 / wide; // Pillow multiplies, which rounds otherwise than to divide
  const weights = Array.from({ length: end - start }, (_, n) =>
    curve((n + start - center + 0.5) * slope),
  );
  const whole = weights.reduce((sum, weight) => sum + weight, 0);
  return { start, weights: Int32Array.from(weights, (weight) => fixedPoint(weight / whole)) };
}

// As Python rounds: halves to the even number.
function halvedEven(number) {
  const below = Math.floor(number / 2);
  return number % 2 ? below + (below % 2) : below;
}

// The weights of the middle `kept` pixels; those outside of the line stay black.
function middleWeights(from, to, kept, filter) {
  const first = kept > to ? -Math.floor((kept - to) / 2) : halvedEven(to - kept);
  return Array.from({ length: kept }, (_, n) => weightsOf(first + n, from, to, filter));
}

// Every row resized, or every column where it is `upright`; what is no colour is left out.
function resampled({ pixels, channels, width, height }, weightsOfEach, upright) {
  const count = weightsOfEach.length;
  const [lines, next, step] = upright ? [width, 1, width] : [height, width, 1];
  const [nextInto, stepInto] = upright ? [1, width] : [count, 1];
  const made = new Uint8ClampedArray(3 * lines * count);
  weightsOfEach.forEach(({ start, weights }, n) => {
    for (let line = 0; line < lines; line++) {
      let [red, green, blue] = [ROUND, ROUND, ROUND];
      let at = channels * (line * next + start * step);
      for (let m = 0; m < weights.length; m++, at += channels * step) {
        red += pixels[at] * weights[m];
        green += pixels[at + 1] * weights[m];
        blue += pixels[at + 2] * weights[m];
      }
      const into = 3 * (line * nextInto + n * stepInto);
      made[into] = red >> FRACTION_BITS;
      made[into + 1] = green >> FRACTION_BITS;
      made[into + 2] = blue >> FRACTION_BITS;
    }
  });
  const size = upright ? { width, height: count } : { width: count, height };
  return { pixels: made, channels: 3, ...size };
}

function sizeAfter(width, height, resize) {
  if (Array.isArray(resize)) return resize;
  const long = (other, short) => Math.trunc((resize * other) / short);
  return width <= height ? [long(height, width), resize] : [resize, long(width, height)];
}

// RGBA bytes by a recipe of Python's: `image` [3, height, width] from 0 to 1 as ToTensor gives it,
// and the same as `rgb` bytes. As in Python, transparency is left out.
export function prepared(pixels, width, height, { resize, filter, size }) {
  const [rows, columns] = sizeAfter(width, height, resize);
  const across = middleWeights(width, columns, size[1], RESAMPLERS[filter]);
  const down = middleWeights(height, rows, size[0], RESAMPLERS[filter]);
  // Pillow begins, since version 13, with the columns of a picture that loses more there.
  const upright = height > rows && height - rows > 2 * (width - columns);
  const passes = upright ? [down, across] : [across, down];
  const between = resampled({ pixels, channels: 4, width, height }, passes[0], upright);
  const rgb = resampled(between, passes[1], !upright).pixels;
  const area = size[0] * size[1];
  const image = new Float32Array(3 * area);
  rgb.forEach((value, n) => (image[(n % 3) * area + Math.floor(n / 3)] = value / 255));
  return { image, rgb, height: size[0], width: size[1] };
}
