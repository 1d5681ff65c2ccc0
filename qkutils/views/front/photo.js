// A photograph of the reader's own. It stays in the page.

import { addFile } from "./controls.js";
import { element } from "./dom.js";
import { kindOf, sizeOf } from "./math/photo_header.js";

const MOST_BYTES = 100e6;
// Colours are the file's own numbers, as in Python.
const DECODED = {
  colorSpaceConversion: "none",
  imageOrientation: "from-image",
  premultiplyAlpha: "none",
};

async function bytesOf(blob) {
  const buffer = await blob.arrayBuffer().catch((cause) => {
    throw new Error("can't be read; is it a file, and still there?", { cause });
  });
  return new Uint8Array(buffer);
}

async function decoded(bytes, kind, { width, height }) {
  const blob = new Blob([bytes], { type: `image/${kind.toLowerCase()}` });
  const bitmap = await createImageBitmap(blob, DECODED).catch((cause) => {
    throw new Error(`can't be decoded: it breaks off, or is no ${kind} picture`, { cause });
  });
  const size = [bitmap.width, bitmap.height];
  const canvas = element("canvas", { width: size[0], height: size[1] });
  const context = canvas.getContext("2d", { willReadFrequently: true });
  context.drawImage(bitmap, 0, 0);
  bitmap.close();
  if (![`${[width, height]}`, `${[height, width]}`].includes(`${size}`)) {
    throw new Error(`says ${width} × ${height} pixels, and has ${size.join(" × ")}`);
  }
  return { pixels: context.getImageData(0, 0, ...size).data, width: size[0], height: size[1] };
}

function isOpaque(pixels) {
  for (let n = 3; n < pixels.length; n += 4) if (pixels[n] < 255) return false;
  return true;
}

async function photoOf(file) {
  const kind = kindOf(await bytesOf(file.slice(0, 512)));
  if (file.size > MOST_BYTES)
    throw new Error(`has more than ${MOST_BYTES / 1e6} MB; make it smaller`);
  const bytes = await bytesOf(file);
  const photo = await decoded(bytes, kind, sizeOf(kind, bytes));
  // Python takes the colours below, and no canvas has them.
  if (!isOpaque(photo.pixels)) throw new Error("is transparent in parts; save it without that");
  return photo;
}

// {pixels, width, height} of a file, upright, as RGBA bytes; or an Error with one sentence.
export async function openPhoto(file) {
  try {
    return await photoOf(file);
  } catch (error) {
    throw new Error(`${file.name} ${error.message}`, { cause: error });
  }
}

// Drop one file on a view.
function addDrop(frame, take) {
  const { root } = frame;
  const show = (over) => root.classList.toggle("qk-over", over);
  root.addEventListener("dragover", (event) => {
    if (!event.dataTransfer.types.includes("Files")) return;
    event.preventDefault();
    show(true);
  });
  root.addEventListener("dragleave", ({ relatedTarget }) => {
    if (!root.contains(relatedTarget)) show(false);
  });
  root.addEventListener("drop", (event) => {
    const { files } = event.dataTransfer;
    show(false);
    if (!files.length) return;
    event.preventDefault();
    if (files.length > 1) frame.complain(`${files.length} files were dropped; drop one`);
    else take(files[0]);
  });
}

// A button for a file, and the view as a place to drop one. Calls take({name, pixels, width,
// height}) for the last file that was chosen, or complains.
export function pickPhoto(frame, take) {
  let last = null;
  const open = (file) => {
    last = file;
    const act = (then) => (found) => file === last && !frame.closed && then(found);
    const taken = (photo) => frame.guard(() => take({ name: file.name, ...photo }));
    return openPhoto(file).then(
      act(taken),
      act((error) => frame.complain(error.message)),
    );
  };
  addFile(frame, "a photograph of your own", "image/png,image/jpeg,image/webp", open);
  addDrop(frame, open);
}
