"""The command `qkutils`: scan pictures, fetch models and data sets, train, store numbers.

Every subcommand imports what it needs when it runs, so that `qkutils --help` answers at once.
"""

from __future__ import annotations

import argparse
import os
import re
import sys
import time
import traceback
import warnings
from collections.abc import Callable, Sequence
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING, Any, NoReturn

from qkutils import options

if TYPE_CHECKING:
    import xarray as xr
    from PIL.Image import Image

# What the library takes; written out here because reading it there would load torch.
CONVENTIONS = ("paper", "exact")
STATISTICS = ("variance", "anisotropy", "sinks")
PRECISIONS = ("float32", "bfloat16")
DATASETS = ("o3", "p3", "ade20k", "bsds500")
OBJECTIVES = (
    *("supervised", "simmim", "dino"),
    *("simmim-finetuned", "simmim-continued", "untrained"),
)


class _Parser(argparse.ArgumentParser):
    """A parser whose refusal is one line."""

    def error(self, message: str) -> NoReturn:
        self.exit(2, f"{self.prog}: {_line(message)}; see {self.prog} --help\n")


def parser() -> argparse.ArgumentParser:
    """The command line."""
    root = _Parser(prog="qkutils", description="Query-key interaction in vision transformers.")
    root.add_argument("--version", action="version", version=f"qkutils {version('qkutils')}")
    commands = root.add_subparsers(required=True, metavar="COMMAND")
    _add_scan(commands)
    _add_models(commands)
    _add_datasets(commands)
    _add_store(commands)
    _add_train(commands)
    return root


def main(arguments: list[str] | None = None) -> int:
    """Runs one command; what can be foreseen to go wrong is told in one line.

    Returns the exit status: 0, 1 where it could not be done, 2 for a wrong command line, 130 where
    it was stopped.
    """
    for stream in (sys.stdout, sys.stderr):
        stream.reconfigure(errors="backslashreplace")  # type: ignore[union-attr]  # odd file names
    args = parser().parse_args(arguments)
    try:
        with warnings.catch_warnings():
            warnings.showwarning = _warn
            args.run(args)
        sys.stdout.flush()
    except KeyboardInterrupt:
        print(f"\nstopped; {args.kept.format(**vars(args))}", file=sys.stderr)
        return 130
    except BrokenPipeError:  # whoever read our output has seen enough
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 1
    except (OSError, ValueError, RuntimeError) as error:
        if not _foreseen(error):
            raise
        print(f"qkutils: {_line(str(error))}", file=sys.stderr)
        return 1
    return 0


def _foreseen(error: Exception) -> bool:
    """Whether it is of files and hosts, or raised by our own code, which then says what to do."""
    *_, (innermost, _) = traceback.walk_tb(error.__traceback__)
    ours = innermost.f_globals.get("__name__", "").startswith("qkutils.")
    return isinstance(error, OSError) or ours


def _warn(message: Warning | str, *_: Any, **__: Any) -> None:
    print(f"qkutils: {_line(str(message))}", file=sys.stderr)


def _line(text: str) -> str:
    return " ".join(text.split())


# ---- what an argument may be -----------------------------------------------------------------


def _whole(least: int) -> Callable[[str], int]:
    """Reads a whole number that is not less."""
    return lambda text: _checked(int, text, lambda n: options.count("value", n, least))


def _positive(text: str) -> float:
    return _checked(float, text, lambda x: options.number("value", x, low=0))


def _checked(kind: Callable[[str], Any], text: str, check: Callable[[Any], Any]) -> Any:
    try:
        value: Any = kind(text)
    except ValueError:
        value = text
    try:
        return check(value)
    except ValueError as error:
        raise argparse.ArgumentTypeError(str(error).removeprefix("value=")) from None


def _path(text: str) -> Path:
    if not text:
        raise argparse.ArgumentTypeError("is empty; name a file or folder")
    return Path(text)


def _device(text: str) -> str:
    if not re.fullmatch(r"cpu|cuda(:\d+)?", text):
        raise argparse.ArgumentTypeError(f"{text!r}: cpu, cuda or cuda:NUMBER is needed")
    return text


def _odd(text: str) -> tuple[str, Path]:
    name, _, folder = text.partition("=")
    if not name or not folder:
        raise argparse.ArgumentTypeError(f"{text!r}: NAME=FOLDER is needed")
    return name, Path(folder)


def _check_device(device: str | None) -> None:
    """Raises ValueError for a GPU that is not there."""
    import torch

    kind, _, number = (device or "cpu").partition(":")
    there = torch.cuda.device_count()
    if kind == "cuda" and int(number or 0) >= there:
        raise ValueError(f"--device {device}: torch sees {there} GPUs; leave --device out")


# ---- scan ------------------------------------------------------------------------------------


def _add_scan(commands: Any) -> None:
    command = commands.add_parser("scan", help="find every mode's optimal pictures in a folder")
    command.add_argument("--model", required=True, help="a name, or a checkpoint file")
    command.add_argument("--images", required=True, type=_path, metavar="DIR", help="a folder")
    command.add_argument("--out", required=True, type=_path, metavar="FILE", help="netCDF file")
    command.add_argument("--k", type=_whole(1), default=8, help="pictures per mode and sign")
    command.add_argument("--convention", choices=CONVENTIONS, default="exact")
    command.add_argument("--statistics", nargs="*", choices=STATISTICS, default=[])
    command.add_argument(
        "--precision",
        choices=PRECISIONS,
        default="float32",
        help="bfloat16: fetch candidates in half precision and rank them again in float32",
    )
    command.add_argument("--overfetch", type=_whole(1), default=2, help="candidates for each place")
    command.add_argument("--batch-size", type=_whole(1), default=16)
    command.add_argument("--workers", type=_whole(1), default=2, help="threads that decode files")
    command.add_argument("--save-every", type=_positive, default=60.0, metavar="SECONDS")
    command.add_argument("--device", type=_device, help="cpu or cuda; default: cpu")
    kept = "what was saved lies beside {out}; the same command goes on from there"
    command.set_defaults(run=_scan, kept=kept)


def _scan(args: argparse.Namespace) -> None:
    from qkutils import atlas as atlases
    from qkutils import models
    from qkutils.pictures import picture_files
    from qkutils.store import check_writable

    start = time.perf_counter()
    if not args.out.is_file():
        check_writable(args.out)
    picture_files(args.images)
    _check_device(args.device)
    atlas = atlases.scan(
        models.load(args.model, device=args.device),
        args.images,
        k=args.k,
        convention=args.convention,
        statistics=args.statistics,
        precision=args.precision,
        overfetch=args.overfetch,
        batch_size=args.batch_size,
        workers=args.workers,
        out=args.out,
        save_every=args.save_every,
    )
    print(_summary(atlas))
    size = args.out.stat().st_size / 1e6
    print(f"{args.out} ({size:.1f} MB), {time.perf_counter() - start:.0f} s")


def _summary(atlas: xr.Dataset) -> str:
    """What a scan found, in a few lines."""
    sizes, faults = atlas.sizes, atlas.fault.values
    modes = sizes["layer"] * sizes["head"] * sizes["mode"]
    lines = [
        f"{int(atlas.done.sum())} images of {sizes['picture']}, {modes} modes of "
        f"{atlas.model.item()} in the convention {atlas.convention.item()}"
    ]
    broken = [f"  {key}: {why}" for key, why in zip(atlas.key.values, faults, strict=True) if why]
    if broken:
        lines += [f"{len(broken)} files could not be read:", *broken[:10]]
        lines += [f"  and {len(broken) - 10} more"] * (len(broken) > 10)
    short = int(atlas.score.isel(rank=-1).isnull().sum())
    if short:
        lines.append(f"{short} of {2 * modes} galleries have fewer than {sizes['rank']} images")
    if "ranked_again" in atlas:
        lines.append(
            f"{int(atlas.ranked_again)} of {sizes['picture']} images ranked again in float32; "
            f"{float(atlas.from_candidates):.2%} of the places are held by the mode's candidates"
        )
    if "logit_variance" in atlas:
        strongest = atlas.logit_variance.stack(at=("layer", "head", "mode")).astype(float)
        top = strongest.sortby(strongest, ascending=False)[:5]
        names = [
            f"L{at[0]} H{at[1]} M{at[2]} ({value:.2g})"
            for at, value in zip(top.at.values, top.values, strict=True)
        ]
        lines.append(f"largest variance of logits: {', '.join(names)}")
    return "\n".join(lines)


# ---- models and data sets --------------------------------------------------------------------


def _add_models(commands: Any) -> None:
    command = commands.add_parser("models", help="list the models that have a name")
    command.set_defaults(run=_models, kept="nothing was written")
    command = commands.add_parser("fetch", help="keep a model's weights in a folder")
    command.add_argument("name", help="a name that `qkutils models` or timm lists")
    command.add_argument("--folder", type=_path, help="default: QKUTILS_WEIGHTS, else weights")
    command.set_defaults(run=_fetch, kept="nothing half-fetched is left; run it again")


def _models(args: argparse.Namespace) -> None:
    from qkutils import models

    here = models.at_hand()
    for name, row in models.catalogue().iterrows():
        print(f"{name:44} {row.objective:24} {'at hand' if name in here else '-'}")


def _fetch(args: argparse.Namespace) -> None:
    from qkutils import models

    folder = args.folder or Path(os.environ.get(models.WEIGHTS_VARIABLE) or "weights")
    path = models.fetch(args.name, folder)
    print(f"{path} ({path.stat().st_size / 1e6:.0f} MB)")
    print(f"set {models.WEIGHTS_VARIABLE}={path.parent.resolve()} to load it by its name")


def _add_datasets(commands: Any) -> None:
    datasets = commands.add_parser("datasets", help="list or fetch data sets of other people")
    commands = datasets.add_subparsers(required=True, metavar="COMMAND")
    command = commands.add_parser("list", help="list them, with the pages of their terms")
    command.set_defaults(run=_list_datasets, kept="nothing was written")
    command = commands.add_parser("fetch", help="fetch a data set from its authors and unpack it")
    command.add_argument("name", choices=DATASETS)
    command.add_argument("--to", type=_path, default="datasets", help="the folder to keep it in")
    command.add_argument("--url", default="", help="another address of the archive")
    command.add_argument("--sha256", default="", help="the checksum that the archive must have")
    kept = "what was fetched is kept in {to}; the same command goes on from there"
    command.set_defaults(run=_fetch_dataset, kept=kept)


def _list_datasets(args: argparse.Namespace) -> None:
    from qkutils import datasets

    for name, dataset in datasets.DATASETS.items():
        print(f"{name:8} {dataset.page}")


def _fetch_dataset(args: argparse.Namespace) -> None:
    from qkutils import datasets

    folder = datasets.fetch(args.name, args.to, args.url, args.sha256)
    dataset = datasets.DATASETS[args.name]
    print(f"its terms of use: {dataset.page}")
    print(f"read it with qkutils.datasets.{dataset.reader}({str(folder)!r})")


# ---- what the book needs made ----------------------------------------------------------------


def _add_store(commands: Any) -> None:
    command = commands.add_parser("store", help="store numbers that the book shows of a model")
    command.add_argument("model", help="a name, or a checkpoint file")
    command.add_argument("--images", type=_path, help="a folder; default: drawn scenes")
    command.add_argument("--count", type=_whole(1), default=48, help="number of pictures")
    command.add_argument(
        "--odd", nargs="*", type=_odd, default=[], metavar="NAME=FOLDER", help="in O3's layout"
    )
    command.add_argument("--camvid", type=_path, help="a folder of CamVid")
    command.add_argument("--bsds", type=_path, help="a folder of BSDS500")
    command.add_argument("--to", type=_path, metavar="DIR", help="default: into the package")
    command.set_defaults(run=_store, kept="the files named above are whole; run it again")


def _store(args: argparse.Namespace) -> None:
    from qkutils import datasets, models, world
    from qkutils import pictures as sources
    from qkutils.book import stored
    from qkutils.store import check_writable

    to = args.to or stored.FOLDER
    check_writable(to / "new.csv")
    drawn: Sequence[Image] = world.pictures(0, 0, args.count)
    pictures = sources.pictures(args.images, args.count) if args.images else drawn
    sets = {name: datasets.odd_one_out(folder) for name, folder in args.odd}
    camvid = datasets.camvid(args.camvid) if args.camvid else None
    bsds = datasets.bsds500(args.bsds) if args.bsds else None
    model = models.load(args.model)
    print(stored.store_modes(model, to))
    print(stored.store_salience(model, str(args.images or ""), args.count, to))
    if sets:
        own = world.samples(5_000_000, 0, args.count, size=model.image_size[0])
        print(stored.store_preference(model, sets | {"drawn scenes": own}, pictures, to))
    if camvid is not None:
        print(stored.store_same_object(model, camvid, "CamVid, validation", to))
    if bsds is not None:
        print(stored.store_grouping(model, bsds, "BSDS500, validation", to))


def _add_train(commands: Any) -> None:
    command = commands.add_parser("train", help="train an embedded model again")
    command.add_argument("objective", choices=OBJECTIVES)
    command.add_argument("--seed", type=_whole(0), default=0)
    command.add_argument("--steps", type=_whole(0), help="default: the published budget")
    command.add_argument("--device", type=_device, default="cpu", help="cpu or cuda")
    command.add_argument("--out", type=_path, default=Path("_build/training"), metavar="DIR")
    command.add_argument("--publish", action="store_true", help="put the result into the package")
    kept = "what was saved lies in {out}; the same command goes on from there"
    command.set_defaults(run=_train, kept=kept)


def _train(args: argparse.Namespace) -> None:
    from dataclasses import replace

    from qkutils.store import check_writable
    from qkutils.world.training.architecture import FOLDER
    from qkutils.world.training.evaluate import measure
    from qkutils.world.training.publish import publish
    from qkutils.world.training.train import DEPARTURES, Config, train

    _check_device(args.device)
    checkpoint = args.out / f"{args.objective}-{args.seed}.pt"
    check_writable(FOLDER / "new.safetensors" if args.publish else checkpoint)
    config = Config(args.objective, args.seed, **DEPARTURES.get(args.objective, {}))
    config = config if args.steps is None else replace(config, steps=args.steps)
    objective, _ = train(config, checkpoint, args.device)
    if args.publish:
        print(publish(objective, config))
    else:
        print({name: round(value, 4) for name, value in measure(objective.cpu()).items()})
