// What a picture's first bytes say, read before anything decodes it.

const MOST_PIXELS = 40e6;
const ONLY = "only PNG, JPEG and WebP are read here";
const READ = { PNG: /^\x89PNG\r\n/, JPEG: /^\xff\xd8\xff/, WebP: /^RIFF[^]{4}WEBP/ };
const OTHERS = {
  "an SVG drawing": /^[^<]{0,3}\s*<(svg|[?!][^]*<svg)\b/i,
  "a GIF": /^GIF8/,
  "a BMP picture": /^BM/,
  "a TIFF picture": /^(II\*|MM[^]\*)/,
  "an AVIF or HEIC picture": /^[^]{4}ftyp(avi|hei|mif|msf)/,
  "a PDF document": /^%PDF/,
  "a text": /^[\s\x20-\xff]+$/,
};

function nameOfMatch(patterns, text) {
  return Object.keys(patterns).find((name) => patterns[name].test(text));
}

// Which of the three a file is, by its first bytes; an error says what else it is.
export function kindOf(bytes) {
  if (!bytes.length) throw new Error("is empty");
  const text = String.fromCharCode(...bytes.subarray(0, 512));
  const kind = nameOfMatch(READ, text);
  if (kind) return kind;
  const other = nameOfMatch(OTHERS, text) ?? "no kind of picture that is known here";
  throw new Error(`is ${other}; ${ONLY}`);
}

// Four letters; where a file ends before, reading raises RangeError.
function fourAt(file, at) {
  return String.fromCharCode(...[0, 1, 2, 3].map((n) => file.getUint8(at + n)));
}

function sizeOfPng(file) {
  if (fourAt(file, 12) !== "IHDR") throw new Error("is broken: it does not begin with its size");
  let [part, at, animated] = ["", 8, false];
  while (part !== "IEND") {
    part = fourAt(file, at + 4);
    animated ||= part === "acTL";
    at += 12 + file.getUint32(at);
  }
  file.getUint8(at - 1);
  return { width: file.getUint32(16), height: file.getUint32(20), animated };
}

function sizeOfJpeg(file) {
  let at = 2;
  for (;;) {
    const mark = file.getUint16(at);
    const frame = mark >= 0xffc0 && mark <= 0xffcf && ![0xffc4, 0xffc8, 0xffcc].includes(mark);
    if (frame) return { width: file.getUint16(at + 7), height: file.getUint16(at + 5) };
    if (mark < 0xff00 || mark === 0xffda) throw new Error("is broken: it does not say its size");
    at += mark === 0xffff ? 1 : 2 + file.getUint16(at + 2);
  }
}

function sizeOfWebp(file) {
  const end = file.getUint32(4, true) + 8;
  file.getUint8(end - 1);
  const number = (at, bits) => (file.getUint32(at, true) & (2 ** bits - 1)) >>> 0;
  const kind = fourAt(file, 12);
  if (kind === "VP8 ") return { width: number(26, 14), height: number(26, 30) >>> 16 };
  if (kind === "VP8L") return { width: number(21, 14) + 1, height: (number(21, 28) >>> 14) + 1 };
  if (kind !== "VP8X") throw new Error("is broken: it does not begin with its size");
  for (
    let at = 12;
    at < end;
    at += 8 + file.getUint32(at + 4, true) + (file.getUint8(at + 4) & 1)
  ) {
    if (fourAt(file, at) === "EXIF" && isTurned(file, at + 8)) {
      throw new Error("is to be turned, which browsers don't do with WebP; save it upright");
    }
  }
  const animated = Boolean(file.getUint8(20) & 2);
  return { width: number(24, 24) + 1, height: number(27, 24) + 1, animated };
}

// Whether EXIF, whose first directory is read, says that a picture does not stand upright.
function isTurned(file, start) {
  const from = fourAt(file, start) === "Exif" ? start + 6 : start;
  const small = file.getUint8(from) === 0x49;
  const first = from + file.getUint32(from + 4, small);
  const entries = Array.from(
    { length: file.getUint16(first, small) },
    (_, n) => first + 2 + 12 * n,
  );
  const turn = entries.find((at) => file.getUint16(at, small) === 0x0112);
  return turn !== undefined && [2, 3, 4, 5, 6, 7, 8].includes(file.getUint16(turn + 8, small));
}

const SIZES = { PNG: sizeOfPng, JPEG: sizeOfJpeg, WebP: sizeOfWebp };

function read(kind, bytes) {
  try {
    return SIZES[kind](new DataView(bytes.buffer, bytes.byteOffset, bytes.byteLength));
  } catch (error) {
    if (!(error instanceof RangeError)) throw error;
    throw new Error(`breaks off: it is only a part of a ${kind} picture`, { cause: error });
  }
}

// Width and height of a file of that kind; an error says why it can't be shown.
export function sizeOf(kind, bytes) {
  const { width, height, animated } = read(kind, bytes);
  if (animated) throw new Error("is an animation; save one picture of it");
  if (!width || !height) throw new Error(`has no pixels: it says ${width} × ${height}`);
  if (width * height > MOST_PIXELS) {
    const millions = Math.ceil((width * height) / 1e6);
    const told = `${width} × ${height} pixels, ${millions} million`;
    throw new Error(
      `has ${told}; at most ${MOST_PIXELS / 1e6} million can be read, make it smaller`,
    );
  }
  return { width, height };
}
