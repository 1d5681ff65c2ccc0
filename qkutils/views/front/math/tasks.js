// Guided tasks of the playground: what has to hold for each, and what still is missing.

import { totalVariation } from "./explain.js";
import { holds } from "./run.js";
import { oddIn } from "./scene.js";

// now: {scene, lattice, off, said, eyes, kept, current, limits}. Returns {done, text}.
export const TASKS = {
  miss({ scene, lattice, off, said }) {
    const [only, ...more] = oddIn(scene, lattice);
    if (!only) return missing("Mark one object as odd, and let it differ from all others.");
    if (more.length) return missing("It differs in more than one thing. Leave one of them.");
    if (Object.values(off).some(({ length }) => length)) return missing("Switch everything on.");
    if (said === only) return missing(`The model says “${said}”, and is right.`);
    return { done: true, text: `The ${only} is odd, and the model says “${said}”.` };
  },
  eyes({ off, eyes }) {
    const found = off.modes.find((place) => holds(eyes, place));
    if (found)
      return { done: true, text: `Off: layer ${found[0]}, head ${found[1]}, M${found[2]}.` };
    const wrong = off.modes.length ? "What is off does not answer to eyes." : "Nothing is off yet.";
    return missing(wrong);
  },
  twins({ kept, current, limits }) {
    if (!kept) return missing("Keep a picture first.");
    const place = ({ layer, head, asking }) => [layer, head, asking].join();
    if (place(kept) !== place(current))
      return missing("Ask with the same head and the same patch.");
    const near = totalVariation(kept.row, current.row);
    const far = totalVariation(portions(kept.share), portions(current.share));
    const text = `Attention differs by ${near.toFixed(2)}, its modes by ${far.toFixed(2)}.`;
    return { done: near <= limits.alike && far >= limits.unlike, text };
  },
};

function missing(text) {
  return { done: false, text };
}

// Shares without their signs, as portions of one whole.
function portions(share) {
  const sizes = Array.from(share, Math.abs);
  const total = sizes.reduce((sum, size) => sum + size, 0) || 1;
  return sizes.map((size) => size / total);
}
