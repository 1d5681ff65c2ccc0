// A mode's query and key maps over a picture.

// The patch to which each pixel belongs.
export function patchOfPixel([height, width], [rows, columns]) {
  return Uint32Array.from({ length: height * width }, (_, n) => {
    const row = Math.floor((Math.floor(n / width) * rows) / height);
    return row * columns + Math.floor(((n % width) * columns) / width);
  });
}

// Mean of red, green and blue of pixels that have four channels.
export function greyOf(pixels) {
  return Float32Array.from({ length: pixels.length / 4 }, (_, n) => {
    return (pixels[4 * n] + pixels[4 * n + 1] + pixels[4 * n + 2]) / 3;
  });
}

// The same as Python's overlay: a dim picture under red, cyan, and white where both are.
export function compose(into, grey, patches, query, key) {
  for (let n = 0; n < grey.length; n++) {
    const red = query ? query[patches[n]] : 0;
    const cyan = key ? key[patches[n]] : 0;
    const dim = 0.5 * grey[n] * (1 - Math.max(red, cyan));
    into[4 * n] = dim + 255 * red;
    into[4 * n + 1] = into[4 * n + 2] = dim + 255 * cyan;
    into[4 * n + 3] = 255;
  }
}

// Projections as shares of the one that has full colour.
export function clipped(values, limit) {
  return values.map((value) => Math.min(1, Math.max(0, value / limit)));
}

// Where a picture asks and answers most, and the score there; null where an end has nothing.
export function strongest(query, key) {
  const [asks, answers] = [query, key].map((values) => values.indexOf(Math.max(...values)));
  const both = query[asks] > 0 && key[answers] > 0;
  return { asks, answers, score: both ? query[asks] * key[answers] : null };
}
