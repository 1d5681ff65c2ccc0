"""Puts a trained model into the package: its weights in half precision, and its card."""

from __future__ import annotations

import copy
from dataclasses import asdict
from pathlib import Path

import pandas as pd
from safetensors.torch import save

from qkutils import store
from qkutils.world.training import architecture
from qkutils.world.training.architecture import FOLDER
from qkutils.world.training.evaluate import measure
from qkutils.world.training.objectives import MaskedPixels, Objective, Supervised
from qkutils.world.training.train import Config

CARD = Path(__file__).with_name("card.md").read_text("utf-8")


def publish(
    objective: Objective, config: Config, folder: Path = FOLDER, device: str = "cpu"
) -> Path:
    """Writes the weights file and its card under the name that `qkutils.load` takes.

    `device` is where it was trained, which the card says.
    """
    name = architecture.published_name(config.objective, config.seed)
    path = store.check_writable(folder / f"{name}.safetensors")
    objective = objective.cpu().eval()
    halves = copy.deepcopy(objective.net).half().state_dict()
    published = copy.deepcopy(objective)
    published.net.load_state_dict(halves)
    plain = next(k for k in (Supervised, MaskedPixels, type(objective)) if isinstance(objective, k))
    measured = [measure(each) for each in (objective, published, plain(config.seed))]
    told = pd.DataFrame(measured).map("{:.4f}".format)
    rows = [f"| {what} | {' | '.join(values)} |" for what, values in told.items()]
    card = CARD.format(
        name=name,
        does=objective.does,
        parameters=sum(p.numel() for p in objective.net.parameters()),
        net=architecture,
        scenes_seen=config.steps * config.batch,
        rows="\n".join(rows),
        config=config,
        options=asdict(config),
        where="" if device == "cpu" else f" --device {device}",
    )
    store.write(folder / f"{name}.md", card)
    return store.write(path, save(halves, architecture.METADATA))


def measured(name: str, folder: Path = FOLDER) -> pd.DataFrame:
    """What a published model's card says was measured, as trained, as published and untrained.

    Raises FileNotFoundError for a name without a card.
    """
    path = folder / f"{name}.md"
    if not path.is_file():
        raise FileNotFoundError(f"{name}: no card in {folder}; see qkutils.models.family()")
    lines = [line for line in path.read_text("utf-8").splitlines() if line.startswith("| ")]
    head, *rows = [[cell.strip() for cell in line.strip("| ").split("|")] for line in lines]
    table = pd.DataFrame([row[1:] for row in rows], [row[0] for row in rows], head[1:])
    return table.astype(float)
