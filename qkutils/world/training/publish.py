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
from qkutils.world.training.config import Config
from qkutils.world.training.evaluate import measure
from qkutils.world.training.objectives import OBJECTIVES, MaskedPixels, Objective, Supervised

_CARD = """# {name}

A vision transformer of {parameters:,} parameters for {size} × {size} pixels ({patch} × {patch}
patches, 8 layers, 4 heads, width 96), trained on the procedural odd-one-out world of
`qkutils.world`. Objective: {does}. {scenes_seen:,} scenes, each seen once.

| measured on held-out scenes | as trained (float32) | as published (float16) | untrained |
|---|---|---|---|
{rows}

The linear probe and the nearest neighbours name the kind and colour that the scene's many like
objects share, one of 36, from frozen features; chance is 0.028. Errors of masked pixels are mean
absolute errors in units of half the range from black to white; the two baselines see the same
visible patches. Kind, colour and odd factor are the questions that a supervised model answers;
where size, orientation, texture or position is odd, kind and colour are those of all objects, and
the distractors alone give part of the odd factor away. Chapter 3 measures each odd factor apart,
and how much of it is right with the target hidden.

Made by `qkutils train {objective} --seed {seed} --publish` with
{config}.

Intended for this book: to learn and test methods on a network whose world is known exactly.
Not a model of natural images. Licence: MIT, as the code.
"""


def publish(objective: Objective, config: Config, folder: Path = FOLDER) -> Path:
    """Writes the weights file and its card under the name that `qkutils.load` takes."""
    name = architecture.published_name(config.objective, config.seed)
    path = store.check_writable(folder / f"{name}.safetensors")
    objective = objective.cpu().eval()
    state = objective.net.state_dict()
    halves = {k: v.detach().half().contiguous() for k, v in state.items()}
    published = copy.deepcopy(objective)
    published.net.load_state_dict({k: v.float() for k, v in halves.items()})
    kinds = {Supervised: "supervised", MaskedPixels: "simmim"}
    asked = next((n for k, n in kinds.items() if isinstance(objective, k)), config.objective)
    measured = [measure(o) for o in (objective, published, OBJECTIVES[asked](config.seed))]
    card = _CARD.format(
        name=name,
        does=objective.does,
        parameters=sum(p.numel() for p in objective.net.parameters()),
        size=architecture.SIZE,
        patch=architecture.PATCH,
        scenes_seen=config.steps * config.batch,
        rows="\n".join(_row(key, [m[key] for m in measured]) for key in measured[0]),
        objective=config.objective,
        seed=config.seed,
        config=asdict(config),
    )
    store.write(folder / f"{name}.md", card)
    return store.write(path, save(halves, architecture.METADATA))


def _row(name: str, values: list[float]) -> str:
    return f"| {name} | " + " | ".join(f"{value:.4f}" for value in values) + " |"


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
