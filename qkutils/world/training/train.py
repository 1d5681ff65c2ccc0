"""Trains an embedded model: `qkutils train simmim --seed 0`.

The scenes and the chances of a step depend on the step alone, so a run that is interrupted and
resumed ends with the same weights as one that is not.
"""

from __future__ import annotations

import io
import math
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
from timm.optim import param_groups_weight_decay
from torch import nn
from torch.optim import AdamW
from tqdm import tqdm

from qkutils import options, store, world
from qkutils.world.training.objectives import OBJECTIVES, Objective

TRAINING_SCENES = 1_000_000  # a world seed that nothing else uses


@dataclass(frozen=True)
class Config:
    """What a run depends on; the budget is `steps × batch` scenes, each seen once."""

    objective: str = "supervised"
    seed: int = 0
    steps: int = 4000
    batch: int = 64
    learning_rate: float = 2e-3
    warmup: int = 300
    weight_decay: float = 0.05
    precision: str = "bfloat16"  # of matrix products; weights and sums stay in float32


# Where a run departs from these: fine-tuning is shorter and gentler than training from nothing.
DEPARTURES: dict[str, dict] = {
    "simmim-finetuned": {"steps": 2000, "learning_rate": 5e-4},
    "simmim-continued": {"steps": 2000, "learning_rate": 5e-4},
    "untrained": {"steps": 0},
}


def train(
    config: Config, checkpoint: Path, device: str = "cpu", save_every: int = 250
) -> tuple[Objective, list[float]]:
    """Trains to the end of the budget, from the checkpoint where there is one; and the losses.

    Raises ValueError for a config that no run can have and for a checkpoint that is damaged or of
    another run; OSError where it can't be written, or while another process trains to it.
    """
    _check(config, save_every)
    with store.locked(checkpoint):
        objective = OBJECTIVES[config.objective](config.seed).to(options.device(device)).train()
        if device == "cpu":  # where timm's written-out attention is the faster in half precision
            blocks: Any = objective.net.blocks
            for block in blocks:
                block.attn.fused_attn = False
        groups = param_groups_weight_decay(objective, config.weight_decay)
        optimiser = AdamW(groups, lr=config.learning_rate, betas=(0.9, 0.98))
        run = {"objective": objective, "optimiser": optimiser}
        losses = _resume(checkpoint, config, run)
        bar = tqdm(range(len(losses), config.steps), initial=len(losses), total=config.steps)
        for step in bar:
            losses.append(_step(step, config, objective, optimiser))
            bar.set_postfix(loss=f"{sum(losses[-50:]) / len(losses[-50:]):.3f}")
            if (step + 1) % save_every == 0 or step + 1 == config.steps:
                _save(checkpoint, config, run, losses)
    return objective.eval(), losses


def _check(config: Config, save_every: int) -> None:
    options.choice("objective", config.objective, OBJECTIVES)
    options.choice("precision", config.precision, ("float32", "bfloat16"))
    options.count("steps", config.steps, int(config.objective != "untrained"))
    options.count("seed", config.seed, 0, 2**31 - 1)  # a step's generator shifts it by 32 bits
    options.count("batch", config.batch)
    options.count("warmup", config.warmup)
    options.number("learning_rate", config.learning_rate, low=0.0)
    options.number("weight_decay", config.weight_decay, 0.0, closed=True)
    options.count("save_every", save_every)


def _step(step: int, config: Config, objective: Objective, optimiser: AdamW) -> float:
    """One step of the optimiser on scenes of its own; the loss before it."""
    for group in optimiser.param_groups:
        group["lr"] = learning_rate(step, config)
    device = next(objective.parameters()).device
    first = step * config.batch
    batch = world.make(TRAINING_SCENES, first, first + config.batch, device=device)
    chances = torch.Generator().manual_seed((config.seed << 32) + step)  # the same on all devices
    half = config.precision == "bfloat16"
    with torch.autocast(device.type, torch.bfloat16, enabled=half):
        loss = objective(batch, chances)
    optimiser.zero_grad()
    loss.backward()
    nn.utils.clip_grad_norm_(objective.parameters(), 1.0)
    optimiser.step()
    objective.after_step((step + 1) / config.steps)
    return loss.item()


def learning_rate(step: int, config: Config) -> float:
    """Linear warm-up, then half a cosine down to zero at the last step."""
    warm = min(1.0, (step + 1) / config.warmup)
    rest = max(0.0, (step - config.warmup) / max(1, config.steps - config.warmup))
    return config.learning_rate * warm * 0.5 * (1 + math.cos(math.pi * rest))


def _resume(checkpoint: Path, config: Config, run: dict[str, Any]) -> list[float]:
    """Restores a run and returns its losses so far; refuses what holds no state of this run."""
    if not checkpoint.exists():
        return []
    data = io.BytesIO(checkpoint.read_bytes())
    try:
        state = torch.load(data, map_location="cpu", weights_only=True)
        found, losses = dict(state["config"]), [float(loss) for loss in state["losses"]]
        if found == asdict(config):
            for name, part in run.items():
                part.load_state_dict(state[name])
    except Exception as error:  # what a file of another kind raises depends on that kind
        raise ValueError(
            f"{checkpoint}: is empty, cut short, or no checkpoint of this training "
            f"({type(error).__name__}); remove it, or name another file"
        ) from error
    store.check_identity(checkpoint, found, asdict(config))
    return losses


def _save(checkpoint: Path, config: Config, run: dict[str, Any], losses: list[float]) -> None:
    """Writes the run's state, whole or not at all."""
    state = {name: part.state_dict() for name, part in run.items()}
    memory = io.BytesIO()  # torch does not say that a disk is full
    torch.save({"config": asdict(config), "losses": losses, **state}, memory)
    store.write(checkpoint, memory.getvalue())
