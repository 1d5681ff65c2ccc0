// What a page of the book does for its reader: a figure can be enlarged, what was unfolded can be
// scrolled, and printing opens what is folded.

const FIGURES = ".bd-article .cell_output img, .bd-article figure img";
const OF_A_VIEW = ".qk-view, .qk-still";

function enlarge({ src, alt, className }) {
  const dialog = document.createElement("dialog");
  dialog.className = "qk-enlarged";
  dialog.setAttribute("aria-label", "Figure, enlarged");
  const close = document.createElement("button");
  close.textContent = "Close";
  close.addEventListener("click", () => dialog.close());
  const figure = document.createElement("div");
  figure.tabIndex = 0; // so that the keyboard scrolls it
  figure.append(Object.assign(document.createElement("img"), { src, alt, className }));
  dialog.append(close, figure);
  dialog.addEventListener("close", () => dialog.remove());
  dialog.addEventListener("click", (event) => event.target === dialog && dialog.close());
  document.body.append(dialog);
  dialog.showModal();
}

function offer(image) {
  if (image.closest(OF_A_VIEW)) return;
  const link = image.closest("a.image-reference"); // which shows it alone, without scripts
  link?.replaceWith(...link.children);
  const button = document.createElement("button");
  button.className = "qk-enlarge";
  button.textContent = "Enlarge";
  button.setAttribute("aria-label", `Enlarge: ${image.alt}`);
  image.addEventListener("click", () => enlarge(image));
  button.addEventListener("click", () => enlarge(image));
  image.classList.add("qk-can-enlarge");
  image.after(button);
}

for (const image of document.querySelectorAll(FIGURES)) offer(image);

// The theme lets the keyboard scroll what is wide; it measures folded parts once they are open.
const measure = () => window.dispatchEvent(new Event("resize"));
document.querySelector("article")?.addEventListener("toggle", measure, { capture: true });

let opened = [];
window.addEventListener("beforeprint", () => {
  opened = [...document.querySelectorAll("article details:not([open])")];
  for (const box of opened) box.open = true;
});
window.addEventListener("afterprint", () => {
  for (const box of opened) box.open = false;
});
