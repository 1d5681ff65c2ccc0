"""Models of the hub: a host on this machine speaks the little of its protocol that is needed."""

from __future__ import annotations

import qkutils._torchvision

import errno
import hashlib
import http.server
import json
import os
import resource
import shutil
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import PIL.Image
import pytest
import timm
import torch
import transformers as hf
import yaml
from huggingface_hub import constants
from safetensors.torch import save_file
from timm.data import create_transform

import qkutils as qk
from qkutils import book, cli, models
from qkutils.models import _catalogue
from qkutils.models._catalogue import entry, recipes

NAME = "google/vit-base-patch32-384"
TIMM = "test_vit.r160_in1k"  # timm's smallest
DEIT = "deit_tiny_distilled_patch16_224.fb_in1k"
TINY = "deit_tiny_patch16_224.fb_in1k"  # the first that publishing fetches
SIZES: dict[str, Any] = {
    "hidden_size": 96,
    "num_hidden_layers": 2,
    "num_attention_heads": 12,  # as the catalogue has it
    "intermediate_size": 64,
    "image_size": 32,
    "patch_size": 8,
    "attn_implementation": "eager",
}
GREY = {"do_resize": True, "size": 32, "image_mean": [0.5] * 3, "image_std": [0.5] * 3}
IMAGES = torch.randn(2, 3, 32, 32, generator=torch.Generator().manual_seed(3))


@dataclass
class Hub:
    """What the local host has, how it misbehaves, and what it was asked."""

    url: str = ""
    files: dict[str, bytes] = field(default_factory=dict)  # by REPOSITORY/FILE
    refused: tuple[int, str] = (0, "")  # its answer to everything, where it is set
    cuts: list[int] = field(default_factory=list)  # bytes until each download breaks off
    asked: list[tuple[str, str, str]] = field(default_factory=list)  # method, file, range


class Handler(http.server.BaseHTTPRequestHandler):
    """Answers as the server's `hub` says."""

    protocol_version = "HTTP/1.1"

    def do_HEAD(self) -> None:
        hub: Hub = self.server.hub  # type: ignore[attr-defined]
        name = self.path.lstrip("/").replace("/resolve/main/", "/")
        hub.asked.append((self.command, name, self.headers.get("Range", "")))
        repository = name.rpartition("/")[0]
        there = any(each.startswith(f"{repository}/") for each in hub.files)
        if hub.refused[0]:
            return self.refuse(*hub.refused)
        if name not in hub.files:
            return self.refuse(404, "EntryNotFound" if there else "RepoNotFound")
        self.send(hub.files[name], hub)

    do_GET = do_HEAD

    def refuse(self, status: int, code: str) -> None:
        self.send_response(status)
        for key, value in {"X-Error-Code": code, "Content-Length": "0"}.items():
            self.send_header(key, value)
        self.end_headers()

    def send(self, content: bytes, hub: Hub) -> None:
        asked = self.headers.get("Range", "")
        start = int(asked.removeprefix("bytes=").removesuffix("-") or 0)
        self.send_response(206 if asked else 200)
        if asked:
            told = f"bytes {start}-{len(content) - 1}/{len(content)}"
            self.send_header("Content-Range", told)
        self.send_header("ETag", f'"{hashlib.sha256(content).hexdigest()}"')
        self.send_header("X-Repo-Commit", "0" * 40)
        self.send_header("X-Linked-Size", str(len(content)))
        self.send_header("Accept-Ranges", "bytes")
        self.send_header("Content-Length", str(len(content) - start))
        self.end_headers()
        if self.command == "GET":
            part = content[start:]
            if hub.cuts and len(part) > 10_000:  # weights
                part, self.close_connection = part[: hub.cuts.pop(0)], True
            self.wfile.write(part)

    def log_message(self, *_: Any) -> None:
        pass


@pytest.fixture
def hub(monkeypatch, tmp_path) -> Iterator[Hub]:
    """A hub on this machine, with an empty cache; its client does not pause between tries."""
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.hub = found = Hub(f"http://127.0.0.1:{server.server_port}")  # type: ignore[attr-defined]
    threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True).start()
    template = found.url + "/{repo_id}/resolve/{revision}/{filename}"
    for key, value in {
        "ENDPOINT": found.url,
        "HUGGINGFACE_CO_URL_TEMPLATE": template,
        "HF_HUB_CACHE": str(tmp_path / "cache"),
        "HF_HUB_OFFLINE": False,
        "HF_HUB_DISABLE_XET": True,
        "DOWNLOAD_CHUNK_SIZE": 5_000,  # what it goes on from is a multiple
    }.items():
        monkeypatch.setattr(constants, key, value)
    monkeypatch.setattr(time, "sleep", lambda _: None)
    monkeypatch.delenv(models.WEIGHTS_VARIABLE, raising=False)
    yield found
    server.shutdown()
    server.server_close()


@pytest.fixture(scope="module")
def theirs(fill) -> Any:
    """A small random model of transformers with as many heads as the catalogue says."""
    return fill(hf.ViTForImageClassification(hf.ViTConfig(**SIZES)), 1)


@pytest.fixture
def saved(theirs, tmp_path) -> Path:
    """Its folder, with the preprocessing that the hub's has."""
    theirs.save_pretrained(tmp_path / "theirs")
    (tmp_path / "theirs" / "preprocessor_config.json").write_text(json.dumps(GREY))
    return tmp_path / "theirs"


@pytest.fixture
def there(hub, saved) -> Hub:
    """The hub with that model in it."""
    hub.files = {f"{NAME}/{path.name}": path.read_bytes() for path in saved.iterdir()}
    return hub


def attends_as(model: qk.Model, theirs: Any) -> bool:
    with torch.inference_mode():
        wanted = torch.stack(theirs.vit(IMAGES, output_attentions=True).attentions).numpy()
    return bool(np.allclose(qk.observed_attention(model, IMAGES), wanted, atol=1e-5))


# ---- what is there is read -----------------------------------------------------------------------


def test_a_model_of_the_hub_is_loaded_once_by_its_name(there, theirs, monkeypatch):
    model = qk.load(NAME)
    assert attends_as(model, theirs) and model.name == NAME
    assert model.facts["paper"] == "ViT-B/32-384" and model.heads.w_q.shape[1] == 12
    assert model.facts["preprocessing"] == "paper" and model.assumed == ""
    there.asked.clear()
    for offline in (False, True):
        monkeypatch.setattr(constants, "HF_HUB_OFFLINE", offline)
        assert qk.load(NAME).identity == model.identity
    assert not there.asked and NAME in models.at_hand()


def test_weights_may_be_torchs(there, theirs):
    del there.files[f"{NAME}/model.safetensors"]
    path = Path(constants.HF_HUB_CACHE).parent / "pytorch_model.bin"
    torch.save(theirs.state_dict(), path)
    there.files[f"{NAME}/pytorch_model.bin"] = path.read_bytes()
    assert attends_as(qk.load(NAME), theirs)


def test_without_its_preprocessing_the_catalogue_knows_it(there):
    model = qk.load(NAME)
    shutil.rmtree(constants.HF_HUB_CACHE)
    del there.files[f"{NAME}/preprocessor_config.json"]
    again = qk.load(NAME)
    assert (again.assumed, again.identity) == ("", model.identity)


def test_a_download_that_breaks_off_goes_on(there, theirs):
    there.cuts = [10_000, 20_000]
    assert attends_as(qk.load(NAME), theirs)
    ranges = [part for method, name, part in there.asked if method == "GET" and "model" in name]
    assert ranges == ["", "bytes=10000-", "bytes=30000-"]


def test_what_was_fetched_is_loaded_without_the_hub(there, theirs, monkeypatch, tmp_path):
    folder = tmp_path / "weights"
    assert models.fetch(NAME, folder) == folder / NAME
    there.refused = (503, "")
    shutil.rmtree(constants.HF_HUB_CACHE)
    monkeypatch.setenv(models.WEIGHTS_VARIABLE, str(folder))
    model = qk.load(NAME)
    assert attends_as(model, theirs) and model.name == NAME
    assert NAME in models.at_hand()


def test_a_model_of_timms_comes_over_the_same_way(hub, fill, tmp_path):
    net = fill(timm.create_model(TIMM), seed=3)
    save_file(net.state_dict(), tmp_path / "model.safetensors")
    hub.files[f"timm/{TIMM}/model.safetensors"] = (tmp_path / "model.safetensors").read_bytes()
    model = qk.load(TIMM)
    assert model.facts["preprocessing"] == "timm" and model.identity == qk.load(net).identity
    path = models.fetch(TIMM, tmp_path / "weights")
    assert qk.load(path).identity == model.identity


# ---- what goes wrong -----------------------------------------------------------------------------

FAULTS = {  # what the hub does, and what the message names
    "not found": ({"refused": (404, "RepoNotFound")}, "no such repository"),
    "gated": ({"refused": (401, "GatedRepo")}, "gated"),
    "down": ({"refused": (503, "")}, "reached"),
    "cut short again and again": ({"cuts": [0] * 99}, "breaks off"),
}


def weights_in(folder: str | Path) -> list[Path]:
    """Files that are larger than a configuration."""
    files = (path for path in Path(folder).rglob("*") if path.is_file())
    return [path for path in files if path.stat().st_size > 9_000]


@pytest.mark.parametrize("fault", FAULTS)
def test_a_fault_of_the_hub_is_told_in_a_line(fault, there, theirs, tmp_path):
    change, named = FAULTS[fault]
    for key, value in change.items():
        setattr(there, key, value)
    for what in (lambda: qk.load(NAME), lambda: models.fetch(NAME, tmp_path / "weights")):
        with pytest.raises(FileNotFoundError, match=named) as caught:
            what()
        assert NAME in str(caught.value) and "\n" not in str(caught.value)
    assert not weights_in(constants.HF_HUB_CACHE) and not weights_in(tmp_path / "weights")
    there.refused, there.cuts = (0, ""), []
    assert attends_as(qk.load(NAME), theirs)


def test_a_hub_that_is_not_there(there, monkeypatch):
    nowhere = "http://127.0.0.1:9/{repo_id}/resolve/{revision}/{filename}"
    monkeypatch.setattr(constants, "HUGGINGFACE_CO_URL_TEMPLATE", nowhere)
    for name in (NAME, TIMM):
        with pytest.raises(FileNotFoundError, match=f"{name}.*reached"):
            qk.load(name)


def test_a_repository_without_weights(there):
    del there.files[f"{NAME}/model.safetensors"]
    with pytest.raises(FileNotFoundError, match=f"{NAME}.*model.safetensors"):
        qk.load(NAME)


def test_offline_and_nothing_at_hand(there, monkeypatch):
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    with pytest.raises(FileNotFoundError, match=f"OFFLINE.*qkutils models fetch {NAME}"):
        qk.load(NAME)
    assert not there.asked


@pytest.fixture
def full_disk() -> Iterator[None]:
    """No file can become larger than 20 kB."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (20_000, before[1]))
    yield
    resource.setrlimit(resource.RLIMIT_FSIZE, before)


@pytest.mark.parametrize("name", [NAME, TIMM])
def test_a_full_disk(name, there, full_disk):
    there.files[f"timm/{TIMM}/model.safetensors"] = bytes(30_000)
    with pytest.raises(OSError, match=f"{name}.*full") as caught:
        qk.load(name)
    assert caught.value.errno == errno.EFBIG and not weights_in(constants.HF_HUB_CACHE)


DIFFERS = {  # what a configuration says otherwise than the catalogue, and what the message names
    "heads": ("config.json", {"num_attention_heads": 6}, "heads 6, not 12"),
    "activation": ("config.json", {"hidden_act": "quick_gelu"}, "QuickGELU, not GELU"),
    "eps": ("config.json", {"layer_norm_eps": 1e-3}, "eps 0.001"),
    "preprocessing": ("preprocessor_config.json", {"image_mean": [0.4] * 3}, r"mean.*0\.4.*0\.5"),
}


@pytest.mark.parametrize("case", DIFFERS)
def test_a_configuration_that_says_otherwise_than_the_catalogue(case, there):
    file, change, named = DIFFERS[case]
    said = json.loads(there.files[f"{NAME}/{file}"]) | change
    there.files[f"{NAME}/{file}"] = json.dumps(said).encode()
    with pytest.raises(ValueError, match=named):
        qk.load(NAME)


def test_a_bare_file_may_be_like_a_model_of_the_catalogue(saved, theirs):
    (saved / "config.json").unlink()
    model = qk.load(saved / "model.safetensors", like=NAME)
    assert attends_as(model, theirs) and model.facts["objective"] == "unknown"
    assert (model.heads.ln_eps, model.assumed) == (1e-6, "")


# ---- the command ---------------------------------------------------------------------------------


def test_one_failure_does_not_keep_others_from_being_fetched(there, tmp_path, capsys):
    wanted = ["ijepa_vith14_1k_predictor", "tiny-dino", NAME]
    folder = str(tmp_path / "weights")
    assert cli.main(["models", "fetch", *wanted, "--folder", folder]) == 1
    said = capsys.readouterr()
    assert NAME in said.out and [name in said.err for name in wanted] == [True, True, False]
    assert cli.main(["models", "fetch", NAME, "--folder", folder]) == 0
    assert models.WEIGHTS_VARIABLE in capsys.readouterr().out


def test_what_is_at_hand_is_verified(there, monkeypatch, tmp_path, capsys):
    models.fetch(NAME, tmp_path / "weights")
    monkeypatch.setenv(models.WEIGHTS_VARIABLE, str(tmp_path / "weights"))
    assert NAME in models.at_hand()
    names = [NAME, "tiny-dino"]
    monkeypatch.setattr(models, "at_hand", lambda: names)
    assert cli.main(["models", "verify"]) == 0
    assert [line.split()[0] for line in capsys.readouterr().out.splitlines()] == names
    path = tmp_path / "weights" / NAME / "model.safetensors"
    path.write_bytes(path.read_bytes()[:-100])
    assert cli.main(["models", "verify"]) == 1
    said = capsys.readouterr()
    assert said.out.split()[0] == "tiny-dino" and str(path) in said.err


def test_verifying_compares_attention_with_the_weights(monkeypatch, capsys):
    monkeypatch.setattr(models, "at_hand", lambda: ["tiny-dino"])
    assert cli.main(["models", "verify"]) == 0
    monkeypatch.setattr(qk.passes, "MISS_LIMIT", 0)
    assert cli.main(["models", "verify"]) == 1 and "tiny-dino" in capsys.readouterr().err


def test_the_hubs_own_settings_count(there, tmp_path):
    settings = {"HF_ENDPOINT": there.url, "HF_HOME": str(tmp_path), "HF_HUB_DISABLE_XET": "1"}
    command = [sys.executable, "-m", "qkutils", "models", "fetch", NAME]
    done = subprocess.run(
        [*command, "--folder", tmp_path / "weights"],
        env=os.environ | settings | {"HF_HUB_OFFLINE": "0"},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    assert (tmp_path / "weights" / NAME / "model.safetensors").is_file()


# ---- publishing ----------------------------------------------------------------------------------

PUBLISH = Path(__file__).parents[1] / ".github" / "workflows" / "publish.yml"


@pytest.fixture
def checkout(hub, fill, tmp_path, monkeypatch) -> Path:
    """Where publishing runs: `make` writes down its last argument, and the hub has one model."""
    where = tmp_path / "checkout"
    for path, line in {
        ".venv/bin/qkutils": f'exec "{sys.executable}" -m qkutils "$@"',
        "bin/make": 'for last; do :; done; printf %s "$last" >made',
    }.items():
        (where / path).parent.mkdir(parents=True)
        (where / path).write_text(f"#!/bin/sh\n{line}\n")
        (where / path).chmod(0o755)
    settings = {"HF_ENDPOINT": hub.url, "HF_HOME": str(tmp_path), "HF_HUB_OFFLINE": "0"}
    settings["PATH"] = f"{where / 'bin'}:{os.environ['PATH']}"
    for key, value in settings.items():
        monkeypatch.setenv(key, value)
    save_file(fill(timm.create_model(TINY), seed=2).state_dict(), where / "random")
    hub.files[f"timm/{TINY}/model.safetensors"] = (where / "random").read_bytes()
    return where


def test_publishing_compares_what_the_hub_gave_and_what_is_stored(checkout, monkeypatch):
    def run(step: dict) -> int:
        return subprocess.run(["bash", "-e", "-c", step["run"]], cwd=checkout).returncode

    steps = yaml.safe_load(PUBLISH.read_text("utf-8"))["jobs"]["publish"]["steps"]
    fetch, build, *_ = (step for step in steps if "run" in step)
    assert run(fetch) == 1 and fetch["continue-on-error"]
    assert os.listdir(checkout / "weights") == [f"{TINY}.safetensors"]
    assert run(build) == 0
    compared = (checkout / "made").read_text().removeprefix("MODELS=").split()
    assert set(compared) == set(book.stored.names())  # this model's are among them
    for key, value in build["env"].items():
        monkeypatch.setenv(key, value.replace("${{ github.workspace }}", str(checkout)))
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    monkeypatch.setitem(_catalogue._by_any_name()[TINY], "fingerprint", "")
    assert book.live(compared) == {TINY: TINY}


# ---- preprocessing -------------------------------------------------------------------------------

IMAGENET = {"image_mean": [0.485, 0.456, 0.406], "image_std": [0.229, 0.224, 0.225]}
THEIRS = {  # what the paper's code prepared pictures with
    NAME: hf.ViTImageProcessor(size={"height": 224, "width": 224}),
    DEIT: hf.DeiTImageProcessor(size={"height": 224, "width": 224}, **IMAGENET),
    "vit_base_patch16_clip_quickgelu_224.openai": hf.CLIPImageProcessor(),
    "vit_small_patch16_224.dino": hf.ViTImageProcessor(**IMAGENET),
}


@pytest.mark.parametrize("name", THEIRS)
def test_the_papers_preprocessing_is_that_of_transformers(name):
    transform = create_transform((3, 224, 224), **recipes(entry(name))["paper"])
    picture = qk.datasets.photographs()[2].image
    wanted = THEIRS[name](picture, return_tensors="pt")["pixel_values"][0]
    assert float((transform(picture) - wanted).abs().mean()) < 0.02


@pytest.fixture(scope="module")
def deit(fill, tmp_path_factory) -> Path:
    """A random file that is called as one of the paper's models."""
    path = tmp_path_factory.mktemp("deit") / f"{DEIT}.safetensors"
    save_file(fill(timm.create_model(DEIT), seed=1).state_dict(), path)
    return path


def test_the_preprocessing_that_is_asked_for_is_used_and_told(deit, monkeypatch):
    monkeypatch.setenv(models.WEIGHTS_VARIABLE, str(deit.parent))
    plain = qk.load(deit)
    found = {who: qk.load(DEIT, preprocessing=who) for who in ("timm", "authors", "paper")}
    assert found["timm"].identity == plain.identity
    assert len({model.identity for model in found.values()}) == 3
    for who, size in {"timm": 248, "authors": 256, "paper": 224}.items():
        assert found[who].facts["preprocessing"] == who
        assert f"size={size}" in repr(found[who].transform).replace("(224, 224)", "224")
    shape = (1, 100, 300)
    corner = np.zeros(shape, dtype=bool)
    corner[:, :, :60] = True  # which a crop loses, and the square keeps
    picture = PIL.Image.new("RGB", shape[:0:-1])
    kept = {w: qk.alignment.align(m, picture, corner)[1].float().mean() for w, m in found.items()}
    assert kept["timm"] == kept["authors"] == 0 and abs(float(kept["paper"]) - 0.2) < 0.01


def test_preprocessing_that_is_not_known_is_refused(there, deit, plain_vit, unchecked):
    for model, asked in (
        (NAME, "timm"),
        (NAME, "authors"),
        ("tiny-dino", "timm"),
        (plain_vit, "paper"),
        (TIMM, "paper"),
        (deit, "theirs"),
    ):
        with pytest.raises(ValueError, match=f"preprocessing='{asked}'"):
            qk.load(model, preprocessing=asked)
