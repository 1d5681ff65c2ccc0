"""What makes a page's text appear at once: scripts wait, pictures say their size, icons are few."""

import re
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path
from typing import Any

import PIL.Image
from fontTools import subset
from fontTools.ttLib import TTFont
from PIL import ImageChops
from sphinx.errors import ExtensionError

SCRIPT = re.compile(r"<script (?![^>]*\b(?:defer|async|type)\b)(?=[^>]*\bsrc=)")
ICON_SCRIPT = re.compile(r"<script [^>]*fontawesome\.js[^>]*></script>\n?")
OPTIONS = re.compile(r'<script src="[^"]*documentation_options\.js[^"]*"></script>')
PICTURE = re.compile(r'<img (?![^>]*\bwidth=)[^>]*?\bsrc="([^":]+)"[^>]*?(?=\s*/?>)')
CELL = re.compile(r"(?<=<td><p>)[^<]+(?=</p>)")  # of a table, where long names may break
FIXED = re.compile(r' style="width: \d+px; height: \d+px;"')  # that no narrow screen changes
ICON = re.compile(r"\bfa-([a-z0-9-]+)")
PHOTOS = (".png", ".jpg", ".jpeg")
DOTS = 100  # of an inch, where a figure is no finer than a page
FONT = "fa-solid-900.ttf"
TOGGLE = '<summary><span class="toctree-toggle"'  # of the contents, which the theme gives no name
NAMED_TOGGLE = TOGGLE.replace("<summary>", '<summary aria-label="Pages below this one">')
MEASURE = "forEach((e=>{e.tabIndex="  # in the theme's script: what scrolls takes the focus
FOLDED = 'e.closest("details:not([open])")'


def settle(app: Any, error: Exception | None) -> None:
    """Change every page that was written, and make the font of icons that they use."""
    if error or app.builder.format != "html":
        return
    out = Path(app.outdir)
    with ThreadPoolExecutor() as pool:
        list(pool.map(smaller, [p for p in (out / "_images").glob("*") if p.suffix in PHOTOS]))
    used: set[str] = set()
    settings = (out / "_static" / "documentation_options.js").read_text("utf-8")
    said = f"<script>{settings}</script>"
    for page in out.rglob("*.html"):
        text = page.read_text("utf-8")
        used |= set(ICON.findall(text))
        text = ICON_SCRIPT.sub("", text)
        text = OPTIONS.sub(lambda _: said, text)  # scripts in the page read them at once
        text = SCRIPT.sub("<script defer ", text)
        text = CELL.sub(lambda found: re.sub(r"([_/])", r"\1<wbr>", found[0]), text)
        text = FIXED.sub("", text)
        text = text.replace(TOGGLE, NAMED_TOGGLE)
        text = PICTURE.sub(partial(sized, page.parent, iter([""])), text)
        page.write_text(text, "utf-8")
    icons(out / "_static", used)
    pass_over_folded(out / "_static" / "scripts" / "pydata-sphinx-theme.js")


def sized(folder: Path, first: Any, found: re.Match) -> str:
    """A picture with its size, as WebP where that is smaller; all but the first load late."""
    path = folder / found[1].partition("?")[0]
    if not path.is_file() or path.suffix not in PHOTOS:
        return found[0]
    picture = PIL.Image.open(path)
    finer = picture.info.get("dpi", [DOTS])[0] / DOTS if path.suffix == ".png" else 1
    width, height = (round(side / finer) for side in picture.size)
    name = found[1].replace(path.name, smaller(path).name)
    late = next(first, 'loading="lazy" ')
    kind = 'class="qk-chart" ' if is_chart(picture) and " class=" not in found[0] else ""
    return (
        found[0]
        .replace("<img ", f'<img {kind}{late}width="{width}" height="{height}" ')
        .replace(found[1], name)
    )


def is_chart(picture: PIL.Image.Image) -> bool:
    """Whether a figure is lines on white, which the dark may turn, and no map or photograph."""
    red, green, blue = picture.convert("RGB").split()
    light = ImageChops.lighter(ImageChops.lighter(red, green), blue)
    dark = ImageChops.darker(ImageChops.darker(red, green), blue)
    coloured = sum(ImageChops.subtract(light, dark).histogram()[41:])
    white = sum(dark.histogram()[246:])
    pixels = picture.width * picture.height
    return white > 0.8 * pixels and coloured < 0.09 * pixels


def smaller(path: Path) -> Path:
    """The picture as WebP, or as it is where WebP has more bytes."""
    made = path.with_suffix(".webp")
    if not made.exists():
        PIL.Image.open(path).save(made, "webp", lossless=path.suffix == ".png", quality=80)
    return made if made.stat().st_size < path.stat().st_size else path


def pass_over_folded(script: Path) -> None:
    """Keep the theme from measuring what is folded, which lays every such part out."""
    text = script.read_text("utf-8")
    passing = MEASURE.replace("e.tabIndex", f"if(!{FOLDED})e.tabIndex")
    if text.count(MEASURE) + text.count(passing) != 1:
        raise ExtensionError(f"{script.name} has no {MEASURE!r}: see what this theme measures")
    script.write_text(text.replace(MEASURE, passing), "utf-8")


def icons(static: Path, used: set[str]) -> None:
    """Write a font of the icons that pages and styles use; custom.css puts it before the whole."""
    styles = (static / "styles" / "pydata-sphinx-theme.css").read_text("utf-8")
    names = "|".join(sorted(used | {"xmark"}))
    points = re.findall(rf'\.fa-(?:{names}):before[^}}]*content:"\\([0-9a-f]+)"', styles)
    needed = {int(point, 16) for point in points}
    needed |= {ord(c) for c in "".join(re.findall(r'--pst-icon-[a-z-]+:\s*"([^"]*)"', styles))}
    font = TTFont(static / "vendor" / "fontawesome" / "webfonts" / FONT)
    cut = subset.Subsetter(subset.Options(layout_features=[], notdef_outline=True))
    cut.populate(unicodes=needed)
    cut.subset(font)
    font.flavor = "woff"
    font.save(static / "icons.woff")
