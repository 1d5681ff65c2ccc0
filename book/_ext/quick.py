"""What makes a page's text appear at once: scripts wait, pictures say their size, icons are few."""

import re
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import PIL.Image
from fontTools import subset
from fontTools.ttLib import TTFont
from matplotlib.colors import rgb_to_hsv
from scipy import ndimage
from sphinx.errors import ExtensionError

SCRIPT = re.compile(r"<script (?![^>]*\b(?:defer|async|type)\b)(?=[^>]*\bsrc=)")
ICON_SCRIPT = re.compile(r"<script [^>]*fontawesome\.js[^>]*></script>\n?")
OPTIONS = re.compile(r'<script src="[^"]*documentation_options\.js[^"]*"></script>')
PICTURE = re.compile(r'<img (?![^>]*\bwidth=)[^>]*?\bsrc="([^":]+)"[^>]*?(?=\s*/?>)')
# In a cell of a table a long name may break after these.
CODE = '<code class="docutils literal notranslate"><span class="pre">'
JOINT = re.compile(r"[_/]|\.(?=[a-z])")
CELL = re.compile(rf"(?<=<td><p>)[^<]+(?=</p>)|(?<=<td><p>{CODE})[^<]+")
FIXED = re.compile(r' style="width: \d+px; height: \d+px;"')  # that no narrow screen changes
ICON = re.compile(r"\bfa-([a-z0-9-]+)")
PHOTOS = (".png", ".jpg", ".jpeg")
DOTS = 100  # of an inch, where a figure is no finer than a page
# A colour turned for the dark, as the style sheet turns charts: invert(0.93) hue-rotate(180deg)
TURNED = np.array([[-0.574, 1.43, 0.144], [0.426, 0.43, 0.144], [0.426, 1.43, -0.856]])
HUES = np.array([26, 41, 56, 164, 202, 327])  # of the book's palette, in degrees
FRAME = 200  # what is darker may be the frame of a map
RIM, TICK, LETTER = 3, 12, 12  # pixels
GROUND = 240  # what is lighter is the white that a figure stands on
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
        text = CELL.sub(lambda found: JOINT.sub(r"\g<0><wbr>", found[0]), text)
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
    size = f'{late}width="{width}" height="{height}" '

    def shown(kind: str, name: str) -> str:
        return found[0].replace("<img ", f"<img {kind}{size}").replace(found[1], name)

    if " class=" in found[0]:
        return shown("", name)
    if is_chart(picture):
        return shown('class="qk-chart" ', name)
    night = path.with_name(f"{path.stem}-night.webp")
    if not night.exists() and (turned := for_the_dark(picture)):
        turned.save(night, "webp", quality=85)
    if not night.exists():
        return shown("", name)
    at_night = found[1].replace(path.name, night.name)
    pair = [shown('class="qk-day" ', name), shown('class="qk-night" ', at_night)]
    return " />".join(pair).replace("/>", "/>\n")


def is_chart(picture: PIL.Image.Image) -> bool:
    """Whether a figure is lines or bars on white, which the dark may turn, and no map or picture.

    What is coloured in it has hues of the book's palette alone, but for a few lines.
    """
    pixels = np.asarray(picture.convert("RGB"))
    light, dark = pixels.max(2).astype(int), pixels.min(2).astype(int)
    coloured = light - dark > 40
    white = (dark > 245).mean()
    if white > 0.8 and coloured.mean() < 0.09:
        return True
    if not coloured.any():  # maps in grey, which nothing tells from bars in grey
        return False
    hues = 360 * rgb_to_hsv(pixels[coloured] / 255)[:, 0]
    apart = abs((hues[:, None] - HUES + 180) % 360 - 180)
    return bool(white > 0.6 and (apart < 6).any(1).mean() > 0.95)


def for_the_dark(picture: PIL.Image.Image) -> PIL.Image.Image | None:
    """A figure whose maps and photographs stay as they are, and what lies around them is turned.

    None where they cannot be told from the white around them, so that no value changes its colour.
    """
    pixels = np.asarray(picture.convert("RGB"))
    inked = pixels.min(2) < GROUND
    kept = np.zeros(inked.shape, bool)
    for box in ndimage.find_objects(ndimage.label(inked, np.ones((3, 3)))[0]):
        if min(inked[box].shape) < LETTER or inked[box].size < 2000:
            continue  # a letter, a line
        box = framed(pixels, inked, box)
        if box is None:
            return None
        kept[box] = filled(pixels[box].mean(2) < FRAME, inked[box])
    turned = (255 * 0.93 - 0.86 * pixels) @ TURNED.T
    made = np.where(kept[..., None], pixels, turned.clip(0, 255)).astype(np.uint8)
    return PIL.Image.fromarray(made) if kept.any() and not kept.all() else None


def framed(
    pixels: np.ndarray, inked: np.ndarray, box: tuple[slice, slice]
) -> tuple[slice, slice] | None:
    """A box without its ticks, if its four sides are dark; None where that leaves out more.

    A rim of a few pixels may go: a thin line is grey at its edge.
    """
    top, bottom, left, right = (end for side in box for end in (side.start, side.stop))
    dark = pixels.mean(2) < FRAME
    gone, full = np.zeros(4, int), np.zeros(4, int)  # lines of each side, and those full of ink
    while min(bottom - top, right - left) >= LETTER - 2 * RIM:
        sides = of_sides(dark[top:bottom, left:right])
        worst = int(sides.argmin())
        if sides[worst] > 0.9:
            return slice(top, bottom), slice(left, right)
        gone[worst] += 1
        full[worst] += of_sides(inked[top:bottom, left:right])[worst] > 0.5
        if gone[worst] > TICK or full[worst] > RIM:
            return None
        top, bottom = top + (worst == 0), bottom - (worst == 1)
        left, right = left + (worst == 2), right - (worst == 3)
    return None


def of_sides(part: np.ndarray) -> np.ndarray:
    """Which share of the first and last row and column is true."""
    return np.array([line.mean() for line in (part[0], part[-1], part[:, 0], part[:, -1])])


def filled(dark: np.ndarray, inked: np.ndarray) -> np.ndarray:
    """Which pixels are no gap between two frames: it is white, and has no frame at its ends.

    A line beside it belongs to it if it has no frame either: compression leaves traces there.
    """
    kept = np.ones(dark.shape, bool)
    for axis in (0, 1):
        open_ended = ~dark.take([0, -1], axis).any(axis)
        white = open_ended & (inked.mean(axis) < 0.1)
        kept &= np.expand_dims(~(open_ended & ndimage.binary_dilation(white)), axis)
    return kept


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
