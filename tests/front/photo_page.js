// A page that takes photographs: what it was given is in `taken`, or in the view's complaint.

import { Frame } from "/front/frame.js";
import { pickPhoto } from "/front/photo.js";
import { standIn } from "/front/stand_in.js";

const { body } = globalThis.document;
const model = standIn({ data: {}, look: { title: "A photograph", maps: {} }, state: {} });
globalThis.taken = [];
pickPhoto(new Frame({ model, el: body }), (photo) => {
  body.dataset.taken = globalThis.taken.push(photo);
});
