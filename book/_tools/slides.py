"""Slides of the chapters, made by rules from the built pages.

usage: slides.py HTML_FOLDER    writes HTML_FOLDER/slides/NN_name.html

A section gives its heading with its first sentences and formulas, its open figures, its
predictions, and each answer after its prediction.  A view lives on its slide, too, as large as the
slide has room for; without scripts, its still picture stands there.
"""

import copy
import html
import re
import sys
from itertools import takewhile
from pathlib import Path
from typing import Any

from bs4 import BeautifulSoup, Tag

WORDS = 45  # of a paragraph, at most; what is longer is cut after a sentence
ROWS = 12  # of a table, at most; the page has all of them
PREDICTION = "Predict, then look"
FOUND = "What was found"
END = re.compile(r"(?<!Fig)(?<!al)[.?!](?=\s|$)")  # of a sentence
CONCLUSION = re.compile(r"(So|In short)\b")  # how a paragraph begins that sums up an answer
PARAGRAPHS = {"Exercise ": 2, "Quiz": 9}  # how many a section shows whose heading begins so
CLUTTER = "a.headerlink, script, style, .copybtn, input, .glue-error"
PAGE = """<!DOCTYPE html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>{title}</title>
<link rel="stylesheet" href="../_static/vendor/reveal/reveal.css">
<link rel="stylesheet" href="../_static/vendor/katex/katex.min.css">
<link rel="stylesheet" href="../_static/slides.css">
</head>
<body>
<div class="reveal"><div class="slides">
{slides}
</div></div>
<script src="../_static/vendor/reveal/reveal.js"></script>
<script>
// A slide whose text is too long for it gets smaller letters; a view gets the room that is left.
function fit() {{
  const slide = Reveal.getCurrentSlide();
  const box = slide.querySelector(".cell_output");
  const full = () => slide.scrollHeight > 700;
  if (box) return fitView(slide, box, full);
  for (let size = 28; size >= 17; size--) {{
    slide.style.fontSize = `${{size}}px`;
    if (!full()) return;
  }}
}}
// One that is too high at letters that are read from afar scrolls, and so does one that grows.
function fitView(slide, box, full) {{
  let zoom = 1.5;
  box.style.maxHeight = "";
  for (box.style.zoom = zoom; full() && zoom > 0.81; box.style.zoom = zoom) zoom -= 0.05;
  box.style.maxHeight = `${{box.offsetHeight - (slide.scrollHeight - 700) / zoom}}px`;
}}
Reveal.on("ready", fit);
Reveal.on("slidechanged", () => requestAnimationFrame(fit)); // it has no size before it is shown
document.querySelector(".slides").addEventListener("load", ({{ target }}) => {{
  if (!target.closest(".qk-view")) fit(); // a view that is used keeps its size
}}, true);
const mounted = new MutationObserver(([{{ target }}]) => {{
  if (Reveal.getCurrentSlide().contains(target)) fit();
}});
const turns = {{ PageDown: () => Reveal.next(), PageUp: () => Reveal.prev() }}; // of a clicker
for (const place of document.querySelectorAll(".qk-mount")) {{
  mounted.observe(place, {{ attributeFilter: ["aria-busy"] }});
  // a view's keys move no slide; with Escape the slides have them again
  place.addEventListener("keydown", (event) => {{
    event.stopPropagation();
    if (event.key === "Escape") document.activeElement.blur();
    if (!turns[event.key]) return;
    event.preventDefault();
    turns[event.key]();
  }});
}}
Reveal.initialize({{
  width: 1280, height: 720, margin: 0, center: false, hash: true, slideNumber: true,
  transition: "none",
}});
</script>
<script src="../_static/views/mount.js"></script>
</body>
</html>
"""
VIEW = '<div class="cell_output" data-prevent-swipe>{}{}</div>'


def inner(part: Any) -> str:
    """A part of a page for a slide: without links, names and buttons."""
    part = copy.copy(part)
    for each in part.select(CLUTTER):
        each.decompose()
    for each in part.find_all("a"):
        each.unwrap()
    for each in [part, *part.find_all(id=True)]:
        each.attrs.pop("id", None)
    for each in part.select("img[loading]"):
        del each["loading"]
    return str(part)


def heading(section: Any) -> str:
    """The heading of a section, as HTML."""
    found = section.find(["h1", "h2", "h3"], recursive=False)
    return re.sub(r"^<h\d[^>]*>|</h\d>$", "", inner(found).strip())


def sentences(paragraph: Any) -> str:
    """A paragraph; where it is long, its first sentences; formulas are never cut."""
    kept = copy.copy(paragraph)
    count = 0
    for node in list(kept.children):
        before, count = count, count + len(node.get_text().split())
        if count <= WORDS or isinstance(node, Tag):
            continue
        ends = [end.end() for end in END.finditer(str(node))]
        fits = [end for end in ends if before + len(str(node)[:end].split()) <= WORDS]
        if ends and (fits or before > WORDS // 2 or node is kept.contents[0]):
            rest = list(node.next_siblings)
            node.replace_with(str(node)[: (fits or ends[:1])[-1]])
            for each in rest:
                each.extract()
            break
    return inner(kept)


def outside(part: Any, section: Any) -> bool:
    """Whether a part belongs to this section itself, and is not behind a click or in a note."""
    for above in part.parents:
        if above is section:
            return True
        if above.name in ("section", "details") or "admonition" in above.get("class", ()):
            return False
    return False


def figure(part: Any) -> str:
    """A figure with its number and the first sentence of its caption."""
    caption = part.find("figcaption")
    number = caption.select_one(".caption-number")
    words = caption.select_one(".caption-text")
    text = words.get_text().strip()
    said = text[: end.end()] if (end := END.search(text)) else text
    shown = f"{number.get_text().strip()} {said}" if number else said
    return (
        f"<figure>{inner(part.find('img'))}<figcaption>{html.escape(shown)}</figcaption></figure>"
    )


def tabled(table: Any) -> str:
    """The verdicts of a chapter: claim, number and verdict of each row; of very many, the first."""
    rows = [row.find_all("td") for row in table.select("tbody tr")][:ROWS]
    cells = [(c.find(string=True), r.find(string=True), v.get_text()) for c, r, v in rows]
    made = ["".join(f"<td>{html.escape(cell)}</td>" for cell in row) for row in cells]
    return f"<table>{''.join(f'<tr>{row}</tr>' for row in made)}</table>"


def opening(section: Any, own: list[Any]) -> list[Any]:
    """The paragraphs with which a section begins; none from its prediction on."""
    heads = [lead for lead in PARAGRAPHS if re.search(rf"\b{lead}", heading(section))]
    before = list(takewhile(lambda part: PREDICTION not in told(part), own))
    places = (section, *section.select(":scope > div"))
    paragraphs = [p for p in before if p.name == "p" and p.parent in places]
    return paragraphs[: PARAGRAPHS[heads[0]] if heads else 1]


def answered(prediction: Any, section: Any) -> str:
    """The slide that answers a prediction: the figure behind a click, and the words.

    The words are the paragraph that concludes, or else the first ones of the dropdown, which is in
    the prediction's own section or in the next; where neither has one, there is no slide.
    """
    box = prediction.find_next("details", class_="sd-dropdown")
    if not box or box.find_parent("section") not in (section, section.find_next_sibling("section")):
        return ""
    after = prediction.find_all_next(["figure", "details"])
    parts = [*takewhile(lambda part: part is not box, after), *box.find_all("figure")]
    folded = [part for part in parts if part.name == "figure" and part.find_parent("details")]
    figures = [figure(part) for part in folded if part.find("img")][:1]
    end = box.find_next_sibling()
    if end and end.name == "p" and CONCLUSION.match(end.get_text()):
        words = [end]
    else:
        words = box.select(".sd-card-body > p:first-of-type, .sd-card-body > ul:first-of-type")
    title = f"<h2>{heading(box.find_parent('section'))}</h2>"
    return title + "".join([*figures, *map(sentences, words)])


def of_section(section: Any) -> list[str]:
    """The slides of a section, without those of the sections in it."""
    title = f"<h2>{heading(section)}</h2>"
    own = [part for part in section.find_all(True) if outside(part, section)]
    formulas = [p for p in own if p.name == "div" and "math" in p.get("class", ())][:2]
    tables = [tabled(p) for p in own if "ledger" in p.get("class", ())]
    words = [*map(sentences, opening(section, own)), *map(inner, formulas), *tables]
    made = [title + "".join(words)] if words else []
    for part in own:
        if part.name == "figure" and part.find("img"):
            made.append(title + figure(part))
        elif "qk-mount" in part.get("class", ()):
            made.append(title + VIEW.format(inner(part.find_previous("img")), part))
        elif PREDICTION in told(part):
            asked = "".join(inner(p) for p in part.find_all("p")[1:])
            made.append(f'{title}<div class="asks"><strong>{PREDICTION}</strong>{asked}</div>')
            made += filter(None, [answered(part, section)])
    return made or [title]


def told(part: Any) -> str:
    """The title of an admonition, or nothing."""
    if "admonition" not in part.get("class", ()):
        return ""
    return part.find("p").get_text()


def found(section: Any) -> str:
    """The last slide: the lead of each finding."""
    points = section.find("ul").find_all("li", recursive=False)
    leads = [f"<li>{inner(point.find('strong') or point)}</li>" for point in points]
    return f"<h2>{heading(section)}</h2><ul>{''.join(leads)}</ul>"


def slides(page: str, name: str) -> str:
    """A built page as slides."""
    soup: Any = BeautifulSoup(page, "html.parser")
    chapter = soup.select_one("article.bd-article section")
    own = [bold for bold in chapter.find_all("strong") if bold.find_parent("section") is chapter]
    question = [bold for bold in own if "?" in bold.get_text()][:1]
    first = f"<h1>{heading(chapter)}</h1>" + "".join(f"<p>{inner(q)}</p>" for q in question)
    made = [(first, ""), *((each, "") for each in of_section(chapter)[1:])]
    for section in chapter.find_all("section"):
        last = heading(section).endswith(FOUND)
        parts = [found(section)] if last else of_section(section)
        made += [(each, section["id"]) for each in parts]
    link = '<p class="page"><a href="../notebooks/{}.html#{}">on the page</a></p>'
    shown = [f"<section>{each}{link.format(name, at)}</section>" for each, at in made]
    return PAGE.format(title=soup.title.get_text(), slides="\n".join(shown))


def main() -> None:
    """Write the slides of every chapter that is built."""
    folder = Path(sys.argv[1])
    (folder / "slides").mkdir(exist_ok=True)
    for page in sorted((folder / "notebooks").glob("[0-9]*.html")):
        made = slides(page.read_text("utf-8"), page.stem)
        (folder / "slides" / page.name).write_text(made, "utf-8")


if __name__ == "__main__":
    main()
