"""Models and pictures that several test modules use."""

from __future__ import annotations

import qkutils._torchvision

import os
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import jaxtyping
import pytest
import torch
from huggingface_hub import constants
from PIL import Image
from timm.models.beit import Beit
from timm.models.vision_transformer import VisionTransformer

import qkutils as qk

# No test waits for the network; those of the hub have one of their own on this machine.
os.environ["HF_HUB_OFFLINE"] = "1"
constants.HF_HUB_OFFLINE = True

# Two workers with two threads each would wait for one another on two cores.
torch.set_num_threads(1 if "PYTEST_XDIST_WORKER" in os.environ else 2)

# Small vision transformers that differ in everything an attention head can differ in.
SHAPES: dict[str, dict] = {
    "plain": {"embed_dim": 64, "num_heads": 4},
    "no-class-token": {"embed_dim": 48, "num_heads": 3, "class_token": False, "global_pool": "avg"},
    "registers": {"embed_dim": 64, "num_heads": 2, "reg_tokens": 3, "no_embed_class": True},
    "no-bias": {"embed_dim": 64, "num_heads": 4, "qkv_bias": False},
    "odd-d-head": {"embed_dim": 45, "num_heads": 5},
    "one-head": {"embed_dim": 24, "num_heads": 1},
}
REAL = (
    "deit_tiny_patch16_224.fb_in1k",
    "vit_tiny_patch16_224.augreg_in21k_ft_in1k",
    "vit_small_patch14_dinov2.lvd142m",
)


def fill_at_random(net: torch.nn.Module, seed: int) -> torch.nn.Module:
    """Gives every parameter a random value of a size that makes attention neither flat nor hard."""
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for name, tensor in net.named_parameters():
            noise = torch.randn(tensor.shape, generator=generator)
            if "norm" in name and name.endswith("weight"):
                tensor.copy_(1 + 0.3 * noise)
            elif tensor.ndim > 1 and "embed" not in name and "token" not in name:
                tensor.copy_(noise * 1.2 / tensor.shape[-1] ** 0.5)
            else:
                tensor.copy_(0.5 * noise)
    return net.eval()


def random_vit(seed: int = 0, **changes) -> VisionTransformer:
    """A random plain vision transformer for 32 × 32 pixels with three layers."""
    small = {"img_size": 32, "patch_size": 8, "depth": 3, "num_classes": 7}
    small |= {"embed_dim": 64, "num_heads": 4}
    return fill_at_random(VisionTransformer(**(small | changes)), seed)


def random_beit(seed: int = 0, **changes) -> Beit:
    """A random BEiT for 32 × 32 pixels with three layers, whose position bias is strong."""
    small = {"img_size": 32, "patch_size": 8, "depth": 3, "num_classes": 7, "init_values": 0.5}
    small |= {"embed_dim": 48, "num_heads": 4, "use_abs_pos_emb": False, "use_rel_pos_bias": True}
    net = fill_at_random(Beit(**(small | changes)), seed)
    with torch.no_grad():
        for name, table in net.named_parameters():
            if name.endswith("relative_position_bias_table"):
                table.mul_(4)
                table[-3:] += torch.tensor([[3.0], [-3.0], [5.0]])  # to, from and of the class
    return net


@pytest.fixture(scope="session")
def make_beit():
    """The function that makes a random BEiT of a given shape."""
    return random_beit


@pytest.fixture(scope="session")
def make_vit():
    """The function that makes a random vision transformer of a given shape."""
    return random_vit


@pytest.fixture(scope="session")
def fill():
    """The function that gives a module random parameters."""
    return fill_at_random


@pytest.fixture(scope="session", params=SHAPES)
def vit(request) -> VisionTransformer:
    """Each of the small random vision transformers."""
    return random_vit(seed=1, **SHAPES[request.param])


@pytest.fixture(scope="session")
def plain_vit() -> VisionTransformer:
    """One small random vision transformer, for what does not depend on its shape."""
    return random_vit(seed=1, **SHAPES["plain"])


@pytest.fixture(scope="session")
def images() -> torch.Tensor:
    """Three random images for the small models."""
    return torch.randn(3, 3, 32, 32, generator=torch.Generator().manual_seed(0))


def folder_of(variable: str) -> Path:
    """The folder that an environment variable names; skips the test where there is none."""
    folder = Path(os.environ.get(variable) or "")
    if not os.environ.get(variable) or not folder.is_dir():
        pytest.skip(f"{variable} names no folder on this machine")
    return folder


@pytest.fixture(scope="session", params=REAL)
def real_model(request) -> qk.models.Model:
    """Each of the three real models."""
    path = folder_of("QKUTILS_WEIGHTS") / f"{request.param}.safetensors"
    if not path.is_file():
        pytest.skip(f"QKUTILS_WEIGHTS holds no {path.name}")
    return qk.load(request.param)


@pytest.fixture(scope="session")
def real_names() -> list[str]:
    """The names of the real models whose weights are at hand."""
    folder = folder_of("QKUTILS_WEIGHTS")
    if names := [name for name in REAL if (folder / f"{name}.safetensors").is_file()]:
        return names
    pytest.skip(f"{folder} holds none of {REAL}")


@pytest.fixture(scope="session")
def real_images(real_model) -> torch.Tensor:
    """Three photographs, as the real model takes them."""
    folder = folder_of("QKUTILS_IMAGES") / "imagenet-sample"
    paths = sorted(folder.glob("*.jpg"))[:3]
    if not paths:
        pytest.skip(f"{folder} holds no photographs")
    return torch.stack([real_model.transform(Image.open(p).convert("RGB")) for p in paths])


@pytest.fixture(scope="session")
def image_folder() -> Path:
    """The folder with samples of real data sets."""
    return folder_of("QKUTILS_IMAGES")


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Marks the tests that drive a browser or need real models, so that they can be left out."""
    for item in items:
        names = set(getattr(item, "fixturenames", ()))
        if "browser" in names:
            item.add_marker("browser")
            # A busy machine may keep a page waiting for longer than Playwright does, but not twice.
            item.add_marker(pytest.mark.flaky(reruns=2, only_rerun=["TimeoutError"]))
        if names & {"real_model", "real_names", "real_images", "image_folder"}:
            item.add_marker("real")


# ---- a browser -------------------------------------------------------------------------------

BROWSERS = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable")
FLAGS = ["--no-sandbox", "--disable-gpu", "--disable-background-networking", "--no-first-run"]
SHOTS = Path(__file__).parents[1] / "_build" / "screenshots"
_kept: set[str] = set()  # views of which this run has a picture


def _skip_or_fail(reason: str) -> Any:
    if os.environ.get("CI") == "true":
        pytest.fail(reason)
    pytest.skip(f"NOTHING WAS LOOKED AT: {reason}")


@pytest.fixture(scope="session")
def skip_or_fail() -> Callable[[str], Any]:
    """Skips a test, saying why; in CI nothing may be left untested."""
    return _skip_or_fail


@pytest.fixture(scope="session")
def browser() -> Iterator[Any]:
    """The system's Chromium or Chrome, else the one that Playwright downloaded."""
    sync_api = pytest.importorskip("playwright.sync_api")
    path = next(filter(None, map(shutil.which, BROWSERS)), None)
    with sync_api.sync_playwright() as playwright:
        try:
            started = playwright.chromium.launch(executable_path=path, args=FLAGS)
        except sync_api.Error as error:
            _skip_or_fail(f"no Chromium or Chrome to run ({str(error).splitlines()[0]})")
        yield started
        started.close()


@pytest.fixture
def open_view(browser, tmp_path) -> Iterator[Callable[..., Any]]:
    """A function that shows a view in the browser, as `to_html` writes it, and gives the page.

    The page's `faults` are what went wrong on the way; a picture of each kind of view is kept.
    """
    pages = []

    def show(view: Any, **context: Any) -> Any:
        page = browser.new_context(**context).new_page()
        page.faults = []
        page.on("pageerror", lambda error: page.faults.append(f"error: {error}"))
        page.on("console", lambda m: page.faults.append(m.text) if m.type == "error" else None)
        page.goto(view.to_html(tmp_path / f"view{len(pages)}.html").as_uri())
        page.wait_for_selector(".qk-view")
        pages.append((page, type(view).__name__))
        return page

    yield show
    SHOTS.mkdir(parents=True, exist_ok=True)
    for page, name in pages:
        if name not in _kept:
            page.screenshot(path=SHOTS / f"view-{name}.png", full_page=True)
            _kept.add(name)
        page.context.close()


# ---- what a user meets, who has no type checks -----------------------------------------------


@pytest.fixture
def unchecked() -> Iterator[None]:
    """Calls are not checked against the library's annotations, as outside of the tests."""
    jaxtyping.config.update("jaxtyping_disable", True)
    yield
    jaxtyping.config.update("jaxtyping_disable", False)
