"""A photograph of the reader's own, chosen and dropped in a browser, against Pillow."""

from __future__ import annotations

import base64
import io
import struct
from pathlib import Path

import numpy as np
import PIL.Image
import PIL.ImageCms
import pytest

from qkutils.pictures import open_picture
from qkutils.views._page import FRONT, front_end

SITE = "https://book.test"
DRIVER = Path(__file__).parents[1] / "front" / "photo_page.js"
# As strict as a site may be.
POLICY = (
    "default-src 'self'; script-src 'self' 'wasm-unsafe-eval'; style-src 'self' 'unsafe-inline'; "
    "img-src 'self' blob: data:; worker-src 'self' blob:"
)
PAGE = '<!doctype html><title>A photograph</title><script type="module" src="/page.js"></script>'
SVG = (
    '<svg xmlns="http://www.w3.org/2000/svg" width="9" height="9" onload="window.ran = true">'
    "<script>window.ran = true; fetch('https://book.test/ran')</script></svg>"
)
BYTES = """() => taken.map(({ name, pixels, width, height }) => {
    const letters = Array.from(pixels, (byte) => String.fromCharCode(byte));
    return [name, btoa(letters.join("")), width, height]; })"""
COMPLAINT = ".qk-error:not([hidden])"
DROP = """([name, text, count]) => {
    const bytes = Uint8Array.from(atob(text), (letter) => letter.charCodeAt(0));
    const dataTransfer = new DataTransfer();
    for (let n = 0; n < count; n++) dataTransfer.items.add(new File([bytes], name));
    const send = (type) => document.querySelector(".qk-stage").dispatchEvent(
        new DragEvent(type, { dataTransfer, bubbles: true, cancelable: true }));
    const open = !send("dragover");
    const over = document.querySelector(".qk-view").classList.contains("qk-over");
    send("drop");
    return [open, over, document.querySelector(".qk-view").classList.contains("qk-over")]; }"""


@pytest.fixture
def page(browser):
    """A page with a picker of photographs; `asked` is what it asked the site for."""
    context = browser.new_context()
    page = context.new_page()
    page.faults, page.asked = [], []

    def serve(route):
        path = route.request.url.removeprefix(SITE)
        page.asked.append(path)
        headers = {"Content-Security-Policy": POLICY}
        if path == "/":
            route.fulfill(body=PAGE, content_type="text/html", headers=headers)
        else:
            file = DRIVER if path == "/page.js" else FRONT / path.removeprefix("/front/")
            route.fulfill(path=file, content_type="text/javascript", headers=headers)

    page.route("**/*", serve)
    page.on("pageerror", lambda error: page.faults.append(str(error)))
    page.on("console", lambda m: page.faults.append(m.text) if m.type == "error" else None)
    page.goto(SITE)
    page.wait_for_selector("input[type=file]")
    page.asked.clear()
    yield page
    assert page.asked == [] and page.faults == []  # nothing left the page
    context.close()


def drawn():
    rng = np.random.default_rng(0)
    pixels = np.kron(rng.integers(0, 256, (8, 10, 3), np.uint8), np.ones((13, 11, 1), np.uint8))
    return PIL.Image.fromarray(pixels)


def file_of(picture, form, **options):
    buffer = io.BytesIO()
    picture.save(buffer, form, **options)
    return buffer.getvalue()


def turned(orientation):
    exif = PIL.Image.Exif()
    exif[0x0112] = orientation
    return {"exif": exif}


def other_colours():
    """A colour profile whose red and green are exchanged."""
    made = PIL.ImageCms.ImageCmsProfile(PIL.ImageCms.createProfile("sRGB")).tobytes()
    for one, other in ((b"rXYZ", b"...."), (b"gXYZ", b"rXYZ"), (b"....", b"gXYZ")):
        made = made.replace(one, other)
    return {"icc_profile": made}


def choose(page, content, name, until="[data-taken]"):
    files = {"name": name, "mimeType": "image/png", "buffer": content}  # which is not believed
    page.get_by_label("a photograph of your own").set_input_files(files)
    page.wait_for_selector(until)


def taken(page):
    """Name and pixels of the photographs that the page was given."""
    found = []
    for name, text, width, height in page.evaluate(BYTES):
        pixels = np.frombuffer(base64.b64decode(text), np.uint8).reshape(height, width, 4)
        assert (pixels[..., 3] == 255).all()
        found.append((name, pixels[..., :3]))
    return found


PHOTOGRAPHS = {
    "PNG": ("PNG", {}),
    "palette": ("PNG", {"palette": True}),
    "JPEG": ("JPEG", {}),
    "profile": ("JPEG", other_colours()),
    **{f"JPEG turned {n}": ("JPEG", turned(n)) for n in (2, 3, 6, 8)},
    "WebP": ("WebP", {}),
    "lossless WebP": ("WebP", {"lossless": True}),
}


@pytest.mark.parametrize("kind", PHOTOGRAPHS)
def test_a_photograph_has_the_pixels_that_python_reads(kind, page):
    form, options = PHOTOGRAPHS[kind]
    picture = drawn().quantize(16) if options.pop("palette", False) else drawn()
    content = file_of(picture, form, **options)
    choose(page, content, "mine.txt")
    [(name, pixels)] = taken(page)
    expected = np.asarray(open_picture(io.BytesIO(content)))
    assert name == "mine.txt" and pixels.shape == expected.shape
    assert abs(pixels.astype(int) - expected).max() <= (0 if form == "PNG" else 2)
    assert page.locator(".qk-error").is_hidden()


def bomb():
    """The beginning of a PNG file of 60000 × 60000 pixels, then of its end."""
    png = file_of(PIL.Image.new("1", (1, 1)), "PNG")
    return png[:16] + struct.pack(">II", 60_000, 60_000) + png[24:]


def cut(form):
    content = file_of(drawn(), form)
    return content[: len(content) * 2 // 3]


def broken_inside():
    content = bytearray(file_of(drawn(), "PNG"))
    content[80:200] = bytes(120)
    return bytes(content)


def transparent():
    picture = drawn().convert("RGBA")
    picture.putpixel((50, 60), (1, 2, 3, 254))
    return picture


REFUSED = {
    "drawing.svg": (SVG.encode(), "SVG"),
    "drawing.png": (SVG.encode(), "SVG"),
    "text.png": (b"no picture, but a text", "a text"),
    "empty.png": (b"", "empty"),
    "bomb.png": (bomb(), "60000 × 60000 pixels, 3600 million"),
    "cut.png": (cut("PNG"), "breaks off"),
    "cut.jpg": (cut("JPEG"), "JPEG"),
    "cut.webp": (cut("WebP"), "breaks off"),
    "inside.png": (broken_inside(), "PNG"),
    "through.png": (file_of(transparent(), "PNG"), "transparent"),
    "<b>name</b>.gif": (file_of(drawn(), "GIF"), "a GIF"),
}


@pytest.mark.parametrize("name", REFUSED)
def test_what_is_no_photograph_is_refused(name, page):
    content, told = REFUSED[name]
    choose(page, content, name, COMPLAINT)
    said = page.get_by_role("alert").inner_text()
    assert said.startswith(name) and told in said and "\n" not in said
    assert page.evaluate("taken.length") == 0
    assert page.evaluate("[globalThis.ran, document.querySelectorAll('svg, b').length]") == [
        None,
        0,
    ]
    choose(page, file_of(drawn(), "PNG"), "good.png")
    assert page.locator(".qk-error").is_hidden()


def test_a_bomb_is_refused_before_anything_decodes_it(page):
    page.evaluate("() => { globalThis.createImageBitmap = () => globalThis.taken.push({}); }")
    choose(page, bomb(), "bomb.png", COMPLAINT)
    assert page.evaluate("taken.length") == 0


def test_dropping(page):
    content = base64.b64encode(file_of(drawn(), "PNG")).decode()
    assert page.evaluate(DROP, ["mine.png", content, 1]) == [True, True, False]
    page.wait_for_selector("[data-taken]")
    [(name, pixels)] = taken(page)
    assert name == "mine.png" and (pixels == np.asarray(drawn())).all()
    assert page.evaluate(DROP, ["mine.png", content, 2]) == [True, True, False]
    assert page.get_by_role("alert").inner_text().startswith("2 files")
    assert page.evaluate(DROP, ["", "", 0]) == [False, False, False]  # what is dragged is no file


def test_the_last_of_two_files_counts(page):
    """The first one takes longer."""
    page.evaluate("""() => {
        const decode = createImageBitmap;
        let first = true;
        globalThis.createImageBitmap = async (...given) => {
            if (!first) return decode(...given);
            first = false;
            await new Promise((go) => {
                globalThis.go = go;
                document.body.dataset.waits = ""; });
            return decode(...given); }; }""")
    content = base64.b64encode(file_of(drawn(), "PNG")).decode()
    page.evaluate(DROP, ["first.png", content, 1])
    page.wait_for_selector("[data-waits]")
    choose(page, file_of(drawn(), "PNG"), "second.png")
    page.evaluate("go()")
    choose(page, b"", "third.png", COMPLAINT)
    assert [name for name, _ in taken(page)] == ["second.png"]


def test_a_file_is_chosen_by_keyboard_and_again(page):
    control = page.get_by_label("a photograph of your own")
    assert control.get_attribute("accept") == "image/png,image/jpeg,image/webp"
    control.focus()
    assert control.evaluate("(it) => it === document.activeElement")
    for count in (1, 2):
        control.set_input_files(
            {"name": "a.png", "mimeType": "", "buffer": file_of(drawn(), "PNG")}
        )
        page.wait_for_selector(f"[data-taken='{count}']")
        control.dispatch_event("click")  # opens no dialogue, since no reader did it
        assert control.input_value() == ""  # else a browser keeps quiet when it is chosen again


def test_the_script_goes_in_one_piece():
    assert "import" not in front_end("photo").replace("important", "")
