"""The command `qkutils`: scan pictures, fetch models and data sets, train, store numbers.

`commands.toml` lists the commands and their options; each is run by a function of this module.
What these use is loaded when they run, so that `qkutils --help` answers at once.
"""

from __future__ import annotations

import argparse
import os
import pkgutil
import re
import sys
import time
import tomllib
import traceback
import warnings
from collections.abc import Callable
from importlib.metadata import version
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any, NoReturn

import qkutils as qk

if TYPE_CHECKING:
    import xarray as xr

Place = Path | None
COMMANDS = tomllib.loads(Path(__file__).with_name("commands.toml").read_text("utf-8"))


def _like(pattern: str, make: Callable[..., Any]) -> Callable[[str], Any]:
    """What makes a value of a pattern's groups in a text, and raises ValueError for another."""

    def read(text: str) -> Any:
        if found := re.fullmatch(pattern, text, re.DOTALL):
            return make(*found.groups())
        raise ValueError(text)

    return read


KINDS: dict[str, Callable[[str], Any]] = {  # what makes a value of an option's text
    "path": _like("(.+)", Path),
    "whole number from 0": lambda text: qk.options.count("", int(text), 0),
    "whole number from 1": lambda text: qk.options.count("", int(text)),
    "number above 0": lambda text: qk.options.number("", float(text), low=0),
    "cpu, cuda or cuda:NUMBER": _like(r"(cpu|cuda(?::\d+)?)", str),
    "NAME=FOLDER": _like("([^=]+)=(.+)", lambda name, folder: (name, Path(folder))),
}


class _Parser(argparse.ArgumentParser):
    """A parser that knows these kinds, and whose refusal is one line."""

    def __init__(self, *args: Any, **more: Any) -> None:
        super().__init__(*args, **more)
        for name, kind in KINDS.items():
            self.register("type", name, kind)

    def error(self, message: str) -> NoReturn:
        self.exit(2, f"{self.prog}: {_line(message)}; see {self.prog} --help\n")


def parser() -> argparse.ArgumentParser:
    """The command line."""
    root = _Parser(prog="qkutils", description="Query-key interaction in vision transformers.")
    root.add_argument("--version", action="version", version=f"qkutils {version('qkutils')}")
    groups = {"": root.add_subparsers(required=True, metavar="COMMAND")}
    for name, about in COMMANDS.items():
        group, _, last = name.rpartition(" ")
        command = groups[group].add_parser(last, help=about["help"])
        command.set_defaults(about=about)
        if "run" not in about:
            groups[name] = command.add_subparsers(required=True, metavar="COMMAND")
        for option, details in about.get("options", {}).items():
            command.add_argument(option, **details)
    return root


def main(arguments: list[str] | None = None) -> int:
    """Runs one command; what can be foreseen to go wrong is told in one line.

    Returns the exit status: 0, 1 where it could not be done, 2 for a wrong command line, 130 where
    it was stopped.
    """
    for stream in (sys.stdout, sys.stderr):
        stream.reconfigure(errors="backslashreplace")  # type: ignore[union-attr]  # odd file names
    given = vars(parser().parse_args(arguments))
    about = given.pop("about")
    try:
        with warnings.catch_warnings():
            warnings.showwarning = lambda message, *_, **__: _say(message)
            status = pkgutil.resolve_name(about["run"])(**given)
        sys.stdout.flush()
    except KeyboardInterrupt:
        print(f"\nstopped; {about['kept'].format(**given)}", file=sys.stderr)
        return 130
    except BrokenPipeError:  # whoever read our output has seen enough
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 1
    except (OSError, ValueError, RuntimeError, MemoryError) as error:
        if not _foreseen(error):
            raise
        _say(error)
        return 1
    return status or 0


def _foreseen(error: Exception) -> bool:
    """Whether it is of files and hosts, or raised by our own code, which then says what to do."""
    *_, (innermost, _) = traceback.walk_tb(error.__traceback__)
    ours = innermost.f_globals.get("__name__", "").startswith("qkutils.")
    return isinstance(error, OSError | MemoryError) or ours


def _say(message: object) -> None:
    print(f"qkutils: {_line(str(message))}", file=sys.stderr)


def _line(text: str) -> str:
    return " ".join(text.split())


def scan(model: str, images: Path, out: Path, device: str | None, **more: Any) -> None:
    """Scans a folder and tells what was found."""
    start = time.perf_counter()
    if not out.is_file():
        qk.store.check_writable(out)
    qk.pictures.picture_files(images)
    loaded = qk.models.load(model, device=device)
    print(_summary(qk.atlas.scan(loaded, images, out=out, **more)))
    print(f"{out} ({out.stat().st_size / 1e6:.1f} MB), {time.perf_counter() - start:.0f} s")


def _summary(atlas: xr.Dataset) -> str:
    """What a scan found, in a few lines."""
    sizes, found = atlas.sizes, int(atlas.done.sum())
    modes = sizes["layer"] * sizes["head"] * sizes["mode"]
    name = f"{atlas.model.item()} in the convention {atlas.convention.item()}"
    lines = [f"{found} images of {sizes['picture']}, {modes} modes of {name}"]
    reasons = zip(atlas.key.values, atlas.fault.values, strict=True)
    broken = [f"  {key}: {why}" for key, why in reasons if why]
    if broken:
        lines += [f"{len(broken)} files could not be read:", *broken[:10]]
        lines += [f"  and {len(broken) - 10} more"] * (len(broken) > 10)
    short = int(atlas.score.isel(rank=-1).isnull().sum())
    if short:
        lines.append(f"{short} of {2 * modes} galleries have fewer than {sizes['rank']} images")
    if "ranked_again" in atlas:
        held = f"{float(atlas.from_candidates):.2%} of the places are held by the mode's candidates"
        lines.append(f"{int(atlas.ranked_again)} images ranked again in float32; {held}")
    if "logit_variance" in atlas:
        top = atlas.logit_variance.to_series().nlargest(5)
        names = [f"L{at[0]} H{at[1]} M{at[2]} ({value:.2g})" for at, value in top.items()]
        lines.append(f"largest variance of logits: {', '.join(names)}")
    return "\n".join(lines)


def list_models() -> None:
    """Prints the models that have a name, their size and licence, and whether they are at hand."""
    here = qk.models.at_hand()
    for name, row in qk.catalogue().iterrows():
        size = f"{row.megabytes} MB" if row.megabytes else ""
        at = "at hand" if name in here else "-"
        print(f"{name:44} {row.objective:34} {size:8} {at:8} {row.licence}")


def fetch_models(name: list[str], folder: Place) -> int:
    """Fetches models' weights and tells how to load them by their names."""
    variable = qk.models.WEIGHTS_VARIABLE
    to = folder or Path(os.environ.get(variable) or "weights")
    status = _each(name, lambda each: str(qk.models.fetch(each, to)))
    if not status:
        print(f"set {variable}={to.resolve()} to load by name")
    return status


def verify_models() -> int:
    """Loads every model at hand and holds its attention to a picture against its weights."""
    picture = qk.datasets.photographs()[0].image

    def verify(name: str) -> str:
        model = qk.models.load(name)
        with qk.passes.watching(model) as run:
            run(model.transform(picture)[None])
        recorded = "as recorded" if model.facts["fingerprint"] else "none recorded"
        return f"{name:44} {model.fingerprint} {recorded}"

    return _each(qk.models.at_hand(), verify)


def _each(names: list[str], done: Callable[[str], str]) -> int:
    """Prints what is done with each model, or what went wrong; the exit status of all."""
    status = 0
    for name in names:
        try:
            print(done(name), flush=True)
        except (OSError, ValueError, RuntimeError, ArithmeticError) as error:
            if not _foreseen(error):
                raise
            _say(error)
            status = 1
    return status


def list_datasets() -> None:
    """Prints the data sets that can be fetched, and where their terms are."""
    for name, dataset in qk.datasets.DATASETS.items():
        print(f"{name:8} {dataset.page}")


def fetch_dataset(name: str, to: Path, url: str, sha256: str) -> None:
    """Fetches a data set and tells how to read it."""
    folder = qk.datasets.fetch(name, to, url, sha256)
    dataset = qk.datasets.DATASETS[name]
    print(f"its terms of use: {dataset.page}")
    print(f"read it with qkutils.datasets.{dataset.reader}({str(folder)!r})")


def notebooks(to: Path) -> None:
    """Writes the student notebooks into a folder, and tells how to open them."""
    if find_spec("jupyterlab") is None:
        raise ValueError('JupyterLab is not installed; install the wheel as "FILE.whl[lab]"')
    from qkutils.book import handout

    for file in handout.copies(handout.student(), to):
        _say(f"{file}: kept, you changed it; rename it to get the new one")
    print(f'open them with: "{sys.executable}" -m jupyterlab "{to}"')


def store(
    model: str,
    images: Place,
    count: int,
    odd: list[tuple],
    camvid: Place,
    bsds: Place,
    only: list[str],
    to: Place,
) -> None:
    """Stores the numbers that the book shows of a model, and those of the given data sets."""
    from qkutils.book import stored, stored_maps, stored_views

    to = to or stored.FOLDER
    qk.store.check_writable(to / "new.csv")
    pictures: Any = qk.world.pictures(0, 0, count)
    pictures = qk.pictures.pictures(images, count) if images else pictures
    sets = {name: qk.datasets.odd_one_out(folder) for name, folder in odd}
    streets = qk.datasets.camvid(camvid) if camvid else None
    people = qk.datasets.bsds500(bsds) if bsds else None
    loaded = qk.models.load(model)
    makers: dict[str, Callable[[], Path]] = {
        "modes": lambda: stored.store_modes(loaded, to),
        "null_band": lambda: stored.store_null_band(loaded, to),
        "salience": lambda: stored.store_salience(loaded, str(images or ""), count, to),
    }
    if images:
        makers["photographs"] = lambda: stored_maps.store_photographs(loaded, images, to)
        makers["taken_apart"] = lambda: stored_maps.store_taken_apart(loaded, to)
        makers["mode_browser"] = lambda: stored_views.store_mode_browser(loaded, to)
        makers["few_modes"] = lambda: stored.store_few_modes(loaded, to)
    if images and loaded.heads.position_bias is None:
        makers["one_image"] = lambda: stored_views.store_one_image(loaded, to)
    if sets:
        own = qk.world.samples(5_000_000, 0, count, size=loaded.image_size[0])
        every: Any = sets | {"drawn scenes": own}
        makers["preference"] = lambda: stored.store_preference(loaded, every, pictures, to)
    if streets:
        source = "CamVid, validation"
        makers["same_object"] = lambda: stored.store_same_object(loaded, streets, source, to)
    if people:
        told = "BSDS500, validation"
        makers["grouping"] = lambda: stored.store_grouping(loaded, people, told, to)
        makers["grouping_references"] = lambda: stored.store_grouping_references(
            loaded, people, told, to
        )
    for kind in qk.options.choices("--only", only, makers) or makers:
        print(makers[kind]())


def causes(model: str, count: int, random: int, to: Place) -> None:
    """Stores what the answers of a model lose without each of its modes."""
    from qkutils.book import stored

    to = to or stored.FOLDER
    qk.store.check_writable(to / "new.csv")
    print(stored.store_causes(qk.models.load(model), count, random, to))


def report(models: list[str], count: int, out: Path, device: str | None, **folders: Place) -> None:
    """Gives the claims of the paper their verdicts for several models, and tells where."""
    from qkutils.book import report as replication

    given = {name: folder for name, folder in folders.items() if folder}
    print(replication.write(models, given, count, out, device))


def train(
    objective: str, seed: int, steps: int | None, device: str, out: Path, publish: bool
) -> None:
    """Trains an embedded model, and publishes it or tells how good it is."""
    import torch

    from qkutils.world.training.architecture import FOLDER
    from qkutils.world.training.evaluate import measure
    from qkutils.world.training.publish import publish as put_into_package
    from qkutils.world.training.train import DEPARTURES, Config
    from qkutils.world.training.train import train as train_or_resume

    if device.startswith("cuda") and int(device[5:] or 0) >= torch.cuda.device_count():
        raise ValueError(f"--device {device}: torch sees no such GPU; leave --device out")
    checkpoint = out / f"{objective}-{seed}.pt"
    qk.store.check_writable(FOLDER / "new.safetensors" if publish else checkpoint)
    changes = DEPARTURES.get(objective, {}) | ({} if steps is None else {"steps": steps})
    config = Config(objective, seed, **changes)
    trained, _ = train_or_resume(config, checkpoint, device)
    if publish:
        print(put_into_package(trained, config, device=device))
    else:
        print({name: round(value, 4) for name, value in measure(trained.cpu()).items()})
