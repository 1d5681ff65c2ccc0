import assert from "node:assert/strict";
import { test } from "node:test";

import { unpack, upTo } from "../../qkutils/views/front/math/arrays.js";
import {
  HALF,
  cellAt,
  centreOf,
  changed,
  factorsOf,
  inside,
  moved,
  objectAt,
  oddIn,
  readScene,
  sceneAt,
  withOdd,
  withOneMore,
  writeScene,
} from "../../qkutils/views/front/math/scene.js";
import { assertNear, cases } from "./cases.mjs";

const { world, factors, centres, slots, paintedSlots, odd, seed } = cases;
const { lattice } = world;
const scenes = upTo(slots.length).map((number) => sceneAt(world.scenes, number));

// Numbers from 0 to 1 that are the same in every run (Park and Miller).
function chances(start) {
  let state = start;
  return () => (state = (48271 * state) % 2147483647) / 2147483647;
}
const chance = chances(seed);
const between = (low, high) => low + (high - low) * chance();
const oneOf = (values) => values[Math.floor(chance() * values.length)];

// Every object has a cell of its own, and lies within it.
function assertWhole({ objects }) {
  assert.equal(new Set(objects.map(({ slot }) => slot)).size, objects.length);
  for (const { slot, x, y, radius } of objects) {
    assert.ok(Number.isInteger(slot) && slot >= 0 && slot < lattice ** 2);
    assert.ok(Math.max(Math.abs(x), Math.abs(y)) <= 0.5 - radius + 1e-6);
  }
}

test("objects stand where Python puts them, and a place has the slot that Python says", () => {
  scenes.forEach((scene, n) => {
    for (const object of scene.objects)
      assertNear(centreOf(scene, lattice, object), centres[n][object.slot], 1e-5);
    for (const pixel of upTo(4 * HALF ** 2)) {
      const place = [pixel % (2 * HALF), Math.floor(pixel / (2 * HALF))].map((v) => v + 0.5 - HALF);
      const found = cellAt(scene, lattice, place);
      assertNear(centreOf(scene, lattice, found), place, 1e-9);
      assert.equal(found.slot, slots[n][pixel], `scene ${n}, pixel ${pixel}`);
      if (paintedSlots[n][pixel] >= 0) assert.ok(objectAt(scene, paintedSlots[n][pixel]));
    }
  });
});

test("the renderer takes the very factors that were drawn", () => {
  scenes.forEach((scene, n) => {
    const made = factorsOf(scene, lattice);
    for (const [name, sent] of Object.entries(factors)) {
      const { shape, values } = unpack(sent);
      const width = values.length / shape[0];
      const wanted = values.subarray(n * width, (n + 1) * width);
      assert.deepEqual(made[name].shape, [1, ...shape.slice(1)], name);
      const perSlot = width / lattice ** 2; // numbers that a slot has; below 1 for a whole scene's
      const there = (at) => perSlot < 1 || objectAt(scene, Math.floor(at / perSlot));
      const some = (all) => [...all].filter((_, at) => name === "role" || there(at));
      assert.deepEqual(some(made[name].data), some(wanted), name);
    }
    assert.ok(made.radius.data.every((radius) => radius > 0)); // it divides, in empty cells too
  });
});

test("an object that is dragged anywhere keeps to its cell, and to itself", () => {
  for (const start of scenes) {
    let scene = start;
    let { slot } = oneOf(scene.objects);
    const look = objectAt(scene, slot);
    for (let n = 0; n < 200; n++) {
      const place = [between(-60, 60), between(-60, 60)];
      const at = scene.objects.findIndex((object) => object.slot === slot);
      scene = moved(scene, lattice, slot, place);
      assertWhole(scene);
      slot = scene.objects[at].slot;
      assert.equal(scene.objects.length, start.objects.length);
      assert.deepEqual(
        { ...objectAt(scene, slot), ...{ slot: 0, x: 0, y: 0 } },
        { ...look, ...{ slot: 0, x: 0, y: 0 } },
      );
      if (inside(centreOf(start, lattice, look)))
        assert.ok(inside(centreOf(scene, lattice, { slot, x: 0, y: 0 })) || slot === look.slot);
    }
    assert.deepEqual(
      scene.objects.filter((o) => o.slot !== slot),
      start.objects.filter((o) => o !== look),
    );
  }
});

test("an object follows as near as its cell allows", () => {
  for (const scene of scenes) {
    const { slot, radius } = oneOf(scene.objects);
    const room = 0.5 - radius;
    const [x, y] = [between(-room, room), between(-room, room)];
    const place = centreOf(scene, lattice, { slot, x, y });
    const there = objectAt(moved(scene, lattice, slot, place), slot);
    assertNear([there.x, there.y], [x, y], 1e-9);
    const right = scene.objects.find((o) => o.slot % lattice && objectAt(scene, o.slot - 1));
    const next = centreOf(scene, lattice, { ...right, x: 0, y: 0 });
    const stopped = objectAt(moved(scene, lattice, right.slot - 1, next), right.slot - 1);
    assertNear([stopped.x, stopped.y], [0.5 - stopped.radius, 0], 1e-9); // nobody gives way
  }
});

test("an object that grows is moved back into its cell", () => {
  const [scene] = scenes;
  const { slot } = scene.objects[0];
  const small = changed(scene, slot, { radius: 0.2, x: 0.3, y: -0.3 });
  assertNear([objectAt(small, slot).x, objectAt(small, slot).y], [0.3, -0.3]);
  const large = objectAt(changed(small, slot, { radius: 0.46 }), slot);
  assertNear([large.x, large.y], [0.04, -0.04]);
});

test("objects are added where the picture has room, until it has none", () => {
  for (const start of scenes) {
    let scene = start;
    for (;;) {
      const more = withOneMore(scene, lattice, scene.objects[0]);
      if (!more) break;
      scene = more;
      assertWhole(scene);
      const added = scene.objects.at(-1);
      assert.ok(inside(centreOf(scene, lattice, added)) && !added.odd);
    }
    for (const slot of upTo(lattice ** 2))
      if (inside(centreOf(scene, lattice, { slot, x: 0, y: 0 }))) assert.ok(objectAt(scene, slot));
  }
  const empty = { ...scenes[0], objects: [] };
  assert.equal(withOneMore(empty, lattice, undefined).objects.length, 1);
});

test("what is odd is what Python drew as odd", () => {
  scenes.forEach((scene, n) => assert.deepEqual(oddIn(scene, lattice), odd[n], `scene ${n}`));
  const none = withOdd(scenes[0], null);
  assert.deepEqual(oddIn(none, lattice), []);
  const [one] = scenes[0].objects;
  const marked = withOdd(scenes[0], one.slot).objects.filter((object) => object.odd);
  assert.deepEqual(
    marked.map(({ slot }) => slot),
    [one.slot],
  );
});

// ---- links -------------------------------------------------------------------------------------

const LIMITS = { pitch: [20, 28], tilt: [-0.3, 0.3], shift: [0, 1], background: [0, 1] };

function assertHeld(scene) {
  assertWhole(scene);
  for (const [name, [low, high]] of Object.entries(LIMITS))
    for (const value of [scene[name]].flat()) assert.ok(value >= low && value <= high, name);
  for (const object of scene.objects) {
    assert.ok(object.kind in world.kinds && object.colour in world.colours);
    assert.ok(object.texture in world.textures && typeof object.odd === "boolean");
    assert.ok(object.radius >= 0.2 && object.radius <= 0.46 && Math.abs(object.angle) <= 10);
  }
}

test("a scene comes back from its link", () => {
  for (const scene of scenes) {
    const link = writeScene(scene);
    assert.match(link, /^[\w=-]+$/);
    const found = readScene(link, world);
    assertHeld(found);
    const flat = (of) => [
      of.pitch,
      of.tilt,
      of.shift,
      of.background,
      of.objects.map(Object.values),
    ];
    const sorted = (of) => ({
      ...of,
      objects: of.objects.map((o) => Object.fromEntries(Object.entries(o).sort())),
    });
    const numbers = (of) => flat(sorted(of)).flat(3).map(Number);
    assertNear(numbers(found), numbers(scene), 1e-4);
    assert.deepEqual(Object.keys(sorted(found).objects[0]), Object.keys(sorted(scene).objects[0]));
  }
});

function linkOf(value) {
  return btoa(typeof value === "string" ? value : JSON.stringify(value));
}

test("a hostile link gives no scene, or one within the limits", () => {
  const [scene] = scenes;
  const [object] = scene.objects;
  const withObject = (change) => ({ ...scene, objects: [{ ...object, ...change }] });
  const refused = [
    ...[null, 5, "text", [], {}, { objects: 4 }, { objects: {} }].map(linkOf),
    ...["", "{", "%", "☃", "a".repeat(100_001)],
    ...Object.keys(LIMITS).flatMap((name) => [
      linkOf({ ...scene, [name]: undefined }),
      linkOf({ ...scene, [name]: "1" }),
      linkOf({ ...scene, [name]: [null] }),
    ]),
    linkOf({ ...scene, shift: [0.5] }),
    linkOf({ ...scene, background: scene.background.slice(1) }),
    linkOf(JSON.stringify(scene).replace(/"pitch":[\d.]+/, '"pitch":1e999')), // read as Infinity
    linkOf({ ...scene, objects: [null] }),
    linkOf({ ...scene, objects: [object, { ...object, kind: 0 }] }), // both in the same slot
    linkOf({ ...scene, objects: upTo(10_000).map((slot) => ({ ...object, slot })) }),
    linkOf({ ...scene, objects: Array(10_000).fill(object) }),
    ...["slot", "kind", "colour", "texture"].flatMap((name) =>
      [-1, 49, 0.5, 1e300, null, "0", "__proto__", [0]].map((value) =>
        linkOf(withObject({ [name]: value })),
      ),
    ),
    ...["radius", "angle", "x", "y"].flatMap((name) =>
      [null, NaN, "0", {}, [0.3]].map((value) => linkOf(withObject({ [name]: value }))),
    ),
  ];
  for (const link of refused) assert.equal(readScene(link, world), null, link.slice(0, 60));
  const held = [
    { ...scene, pitch: 1e308, tilt: -1e308, shift: [1e308, -7] },
    { ...scene, background: Array(5000).fill(9) },
    withObject({ radius: 1e308, angle: -1e308, x: 1e308, y: -1e308 }),
    withObject({ radius: -1, odd: "yes" }),
    { ...scene, objects: [] },
  ];
  for (const each of held) assertHeld(readScene(linkOf(each), world));
});

test("a link brings nothing along", () => {
  const text = JSON.stringify(scenes[0]);
  const more = text.replace(
    "{",
    '{"__proto__":{"spoilt":1},"constructor":{"prototype":{"spoilt":1}},',
  );
  const every = more.replaceAll('"slot"', '"__proto__":{"spoilt":1},"more":1,"slot"');
  const found = readScene(linkOf(every), world);
  assertHeld(found);
  assert.deepEqual(found, readScene(linkOf(text), world));
  for (const each of [found, ...found.objects, {}]) assert.equal(each.spoilt, undefined);
});
