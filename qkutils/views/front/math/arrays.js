// Numbers that Python packed.

function half(bits) {
  const sign = bits & 0x8000 ? -1 : 1;
  const exponent = (bits >> 10) & 31;
  const fraction = bits & 1023;
  if (exponent === 31) return fraction ? NaN : sign * Infinity;
  if (exponent === 0) return sign * fraction * 2 ** -24;
  return sign * (1 + fraction / 1024) * 2 ** (exponent - 15);
}

// {shape, form, low, high, bytes} as {shape, values}, values in reading order as Float32Array.
export function unpack({ shape, form, low, high, bytes }) {
  const buffer = bytes.buffer.slice(bytes.byteOffset, bytes.byteOffset + bytes.byteLength);
  if (form === "float32") return { shape, values: new Float32Array(buffer) };
  if (form === "float16")
    return { shape, values: Float32Array.from(new Uint16Array(buffer), half) };
  const step = (high - low) / 255;
  return { shape, values: Float32Array.from(new Uint8Array(buffer), (n) => low + step * n) };
}

// The part of unpacked numbers at the first indices, e.g. part(cosine, layer, head).
export function part({ shape, values }, ...at) {
  let size = values.length;
  let start = 0;
  at.forEach((index, n) => {
    size /= shape[n];
    start += index * size;
  });
  return values.subarray(start, start + size);
}

export function upTo(count) {
  return Array.from({ length: count }, (_, n) => n);
}

// The largest value, or zero where all are below it.
export function largest(values) {
  return values.reduce((most, value) => Math.max(most, value), 0);
}
