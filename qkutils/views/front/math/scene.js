// A drawn scene that a reader changes: objects in the cells of a lattice (Python's world.Factors).

import { part, unpack, upTo } from "./arrays.js";

const PLACE = { pitch: 1, tilt: 1, shift: 2, background: 20 }; // numbers of a scene as a whole
export const HALF = 32; // pixels from the picture's centre to its edge
export const SMALLEST = 0.2; // radius of an object, in units of the pitch
export const LARGEST = 0.46;

function turned([x, y], angle) {
  const [cos, sin] = [Math.cos(angle), Math.sin(angle)];
  return [x * cos - y * sin, x * sin + y * cos];
}

function clamped(value, low, high) {
  return Math.min(high, Math.max(low, value));
}

// One of the scenes that Python packed: fields [scene, slot, …].
export function sceneAt(sent, number) {
  const of = {};
  for (const [name, numbers] of Object.entries(sent)) of[name] = part(unpack(numbers), number);
  const objects = upTo(of.role.length).flatMap((slot) => {
    if (!of.role[slot]) return [];
    const look = { kind: of.kind[slot], colour: of.colour[slot], texture: of.texture[slot] };
    const [x, y] = of.offset.subarray(2 * slot, 2 * slot + 2);
    const place = { radius: of.radius[slot], angle: of.angle[slot], x, y };
    return [{ slot, ...look, odd: of.role[slot] === 2, ...place }];
  });
  const { shift, background } = of;
  const rest = { shift: [...shift], background: [...background] };
  return { objects, pitch: of.pitch[0], tilt: of.tilt[0], ...rest };
}

// A scene as the renderer takes it: {name: {shape, data}}.
export function factorsOf(scene, lattice) {
  const slots = lattice ** 2;
  const [kind, colour, texture, role] = upTo(4).map(() => new Int32Array(slots));
  const radius = new Float32Array(slots).fill(LARGEST); // also of cells that are empty
  const angle = new Float32Array(slots);
  const offset = new Float32Array(2 * slots);
  for (const object of scene.objects) {
    const { slot } = object;
    kind[slot] = object.kind;
    colour[slot] = object.colour;
    texture[slot] = object.texture;
    role[slot] = object.odd ? 2 : 1;
    radius[slot] = object.radius;
    angle[slot] = object.angle;
    offset.set([object.x, object.y], 2 * slot);
  }
  const of = { kind, colour, texture, role, radius, angle };
  const made = {};
  for (const [name, data] of Object.entries(of)) made[name] = { shape: [1, slots], data };
  made.offset = { shape: [1, slots, 2], data: offset };
  for (const [name, count] of Object.entries(PLACE)) {
    const data = Float32Array.from([scene[name]].flat());
    made[name] = { shape: count === 1 ? [1] : [1, count], data };
  }
  return made;
}

// Where an object's centre lies, in pixels from the picture's centre.
export function centreOf(scene, lattice, { slot, x, y }) {
  const middle = Math.floor(lattice / 2);
  const cell = [
    (slot % lattice) - middle + x - (scene.shift[0] - 0.5),
    Math.floor(slot / lattice) - middle + y - (scene.shift[1] - 0.5),
  ];
  return turned(cell, scene.tilt).map((value) => value * scene.pitch);
}

// The slot at a place, and how far the place lies from the middle of its cell.
export function cellAt(scene, lattice, point) {
  const middle = Math.floor(lattice / 2);
  const cell = turned(point, -scene.tilt).map((v, n) => v / scene.pitch + scene.shift[n] - 0.5);
  const index = cell.map((value) => clamped(Math.floor(value + 0.5), -middle, middle));
  const [x, y] = cell.map((value, n) => value - index[n]);
  return { slot: (index[1] + middle) * lattice + index[0] + middle, x, y };
}

export function inside([x, y]) {
  return Math.abs(x) < HALF && Math.abs(y) < HALF;
}

export function objectAt(scene, slot) {
  return scene.objects.find((object) => object.slot === slot);
}

function within(object) {
  const room = Math.max(0, 0.5 - object.radius);
  return { ...object, x: clamped(object.x, -room, room), y: clamped(object.y, -room, room) };
}

// The scene with one object changed; it stays within its cell.
export function changed(scene, slot, change) {
  const objects = scene.objects.map((object) => {
    return object.slot === slot ? within({ ...object, ...change }) : object;
  });
  return { ...scene, objects };
}

// The scene with an object moved towards a place: into its cell, if that is in the picture and
// nobody is there, else as far as its own cell reaches.
export function moved(scene, lattice, slot, point) {
  const found = cellAt(scene, lattice, point);
  const there = inside(centreOf(scene, lattice, { ...found, x: 0, y: 0 }));
  if (found.slot === slot || (there && !objectAt(scene, found.slot)))
    return changed(scene, slot, found);
  const [column, row] = [slot % lattice, Math.floor(slot / lattice)];
  const x = found.x + (found.slot % lattice) - column;
  const y = found.y + Math.floor(found.slot / lattice) - row;
  return changed(scene, slot, { x, y });
}

// The empty cell in the picture that lies nearest to its centre; undefined where all are full.
export function freeSlot(scene, lattice) {
  const far = (slot) => Math.hypot(...centreOf(scene, lattice, { slot, x: 0, y: 0 }));
  const empty = upTo(lattice ** 2).filter((slot) => !objectAt(scene, slot));
  const seen = empty.filter((slot) => inside(centreOf(scene, lattice, { slot, x: 0, y: 0 })));
  return seen.sort((a, b) => far(a) - far(b))[0];
}

// The scene with one object more, which looks as `like` does.
export function withOneMore(scene, lattice, like) {
  const slot = freeSlot(scene, lattice);
  if (slot === undefined) return null;
  const plain = { kind: 0, colour: 0, texture: 0, radius: 0.4, angle: 0 };
  const object = { ...plain, ...like, slot, x: 0, y: 0, odd: false };
  return { ...scene, objects: [...scene.objects, object] };
}

export function without(scene, slot) {
  return { ...scene, objects: scene.objects.filter((object) => object.slot !== slot) };
}

// The scene in which this object alone is marked as the odd one; `null`: none is.
export function withOdd(scene, slot) {
  return { ...scene, objects: scene.objects.map((o) => ({ ...o, odd: o.slot === slot })) };
}

// What the marked object has that no other object in the picture has, of what is asked.
export function oddIn(scene, lattice) {
  const seen = scene.objects.filter((object) => inside(centreOf(scene, lattice, object)));
  const odd = seen.find((object) => object.odd);
  const others = seen.filter((object) => object !== odd);
  if (!odd || others.length < 3) return [];
  return ["kind", "colour", "texture"].filter((name) => {
    const values = new Set(others.map((object) => object[name]));
    return values.size === 1 && !values.has(odd[name]);
  });
}

// ---- a scene in a link ---------------------------------------------------------------------------

export function writeScene(scene) {
  const short = (key, value) => (typeof value === "number" ? Number(value.toFixed(4)) : value);
  return btoa(JSON.stringify(scene, short)).replaceAll("+", "-").replaceAll("/", "_");
}

// The scene of a link, with every number held to what the world has; null where it is none.
export function readScene(text, { lattice, kinds, colours, textures }) {
  try {
    const given = JSON.parse(atob(text.replaceAll("-", "+").replaceAll("_", "/")));
    const counts = { kind: kinds.length, colour: colours.length, texture: textures.length };
    const objects = given.objects.map((object) => readObject(object, counts, lattice));
    if (new Set(objects.map(({ slot }) => slot)).size < objects.length) return null;
    const held = (value, low, high) => clamped(finite(value), low, high);
    return {
      objects,
      pitch: held(given.pitch, 20, 28),
      tilt: held(given.tilt, -0.3, 0.3),
      shift: upTo(2).map((n) => held(given.shift[n], 0, 1)),
      background: upTo(20).map((n) => held(given.background[n], 0, 1)),
    };
  } catch {
    return null;
  }
}

function readObject(given, counts, lattice) {
  const object = { slot: whole(given.slot, lattice ** 2), odd: given.odd === true };
  for (const [name, count] of Object.entries(counts)) object[name] = whole(given[name], count);
  for (const name of ["angle", "x", "y"]) object[name] = clamped(finite(given[name]), -10, 10);
  object.radius = clamped(finite(given.radius), SMALLEST, LARGEST);
  return within(object);
}

function finite(value) {
  if (!Number.isFinite(value)) throw new RangeError("a number is needed");
  return value;
}

function whole(value, count) {
  if (!Number.isInteger(value) || value < 0 || value >= count) throw new RangeError("out of range");
  return value;
}
