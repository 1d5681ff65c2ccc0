// Finished figures, one at a time.

function render(context) {
  const view = new Frame(context);
  const { label, names, texts, pictures } = view.data;
  const addresses = pictures.map((bytes) => picture(bytes));
  const steps = names.map((_, number) => number);
  view.steps(label, "step", steps, (number) => names[number]);
  const image = element("img", { class: "qk-finished" });
  view.panel().figure.prepend(image);

  view.begin(({ step }) => {
    image.src = addresses[step];
    image.alt = texts[step];
  });
}

export default { render };
