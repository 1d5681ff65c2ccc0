"""Trains an embedded model: `qkutils train simmim --seed 0`.

The scenes and the chances of a step depend on the step alone, so a run that is interrupted and
resumed ends with the same weights as one that is not.
"""

from __future__ import annotations

import io
import math
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch
from torch import nn
from tqdm import tqdm

from qkutils import options, store, world
from qkutils.world.training.config import Config
from qkutils.world.training.objectives import OBJECTIVES, Objective

PRECISIONS = ("float32", "bfloat16")
TRAINING_SCENES = 1_000_000  # a world seed that nothing else uses


def learning_rate(step: int, config: Config) -> float:
    """Linear warm-up, then half a cosine down to zero at the last step."""
    warm = min(1.0, (step + 1) / config.warmup)
    rest = max(0.0, (step - config.warmup) / max(1, config.steps - config.warmup))
    return config.learning_rate * warm * 0.5 * (1 + math.cos(math.pi * rest))


def optimiser_for(objective: Objective, config: Config) -> torch.optim.Optimizer:
    """AdamW, with weight decay on whatever has more than one dimension."""
    trained = [p for p in objective.parameters() if p.requires_grad]
    matrices = [p for p in trained if p.ndim > 1]
    others = [p for p in trained if p.ndim <= 1]
    groups = [
        {"params": matrices, "weight_decay": config.weight_decay},
        {"params": others, "weight_decay": 0.0},
    ]
    return torch.optim.AdamW(groups, lr=config.learning_rate, betas=(0.9, 0.98))


def train(
    config: Config, checkpoint: Path, device: str = "cpu", save_every: int = 250
) -> tuple[Objective, list[float]]:
    """Trains to the end of the budget, from the checkpoint where there is one; and the losses.

    Raises ValueError for a config that no run can have and for a checkpoint that is damaged or of
    another run; OSError where it can't be written, or while another process trains to it.
    """
    _check(config, save_every)
    with store.locked(checkpoint):
        objective = OBJECTIVES[config.objective](config.seed).to(device).train()
        if device == "cpu":  # where timm's written-out attention is the faster in half precision
            blocks: Any = objective.net.blocks
            for block in blocks:
                block.attn.fused_attn = False
        optimiser = optimiser_for(objective, config)
        losses = _resume(checkpoint, config, objective, optimiser)
        bar = tqdm(range(len(losses), config.steps), initial=len(losses), total=config.steps)
        for step in bar:
            losses.append(_step(step, config, objective, optimiser, device))
            bar.set_postfix(loss=f"{sum(losses[-50:]) / len(losses[-50:]):.3f}")
            if (step + 1) % save_every == 0 or step + 1 == config.steps:
                _save(checkpoint, config, objective, optimiser, losses)
    return objective.eval(), losses


def _check(config: Config, save_every: int) -> None:
    options.choice("objective", config.objective, OBJECTIVES)
    options.choice("precision", config.precision, PRECISIONS)
    options.count("steps", config.steps, int(config.objective != "untrained"))
    options.count("seed", config.seed, 0, 2**31 - 1)  # `chances_of` shifts it by 32 bits
    for name in ("batch", "warmup"):
        options.count(name, getattr(config, name))
    options.number("learning_rate", config.learning_rate, low=0.0)
    options.number("weight_decay", config.weight_decay, 0.0, closed=True)
    options.count("save_every", save_every)


def _step(
    step: int,
    config: Config,
    objective: Objective,
    optimiser: torch.optim.Optimizer,
    device: str,
) -> float:
    """One step of the optimiser on scenes of its own; the loss before it."""
    for group in optimiser.param_groups:
        group["lr"] = learning_rate(step, config)
    which = (step * config.batch, (step + 1) * config.batch)
    batch = world.make(TRAINING_SCENES, *which, device=device)
    half = config.precision == "bfloat16"
    with torch.autocast(torch.device(device).type, torch.bfloat16, enabled=half):
        loss = objective(batch, chances_of(step, config))
    optimiser.zero_grad()
    loss.backward()
    nn.utils.clip_grad_norm_(objective.parameters(), 1.0)
    optimiser.step()
    objective.after_step((step + 1) / config.steps)
    return loss.item()


def chances_of(step: int, config: Config) -> torch.Generator:
    """The generator of all masks and crops of one step; on the CPU, so that devices agree."""
    return torch.Generator().manual_seed((config.seed << 32) + step)


def _resume(
    checkpoint: Path, config: Config, objective: Objective, optimiser: torch.optim.Optimizer
) -> list[float]:
    """Restores a run and returns its losses so far; refuses a checkpoint of another config."""
    if not checkpoint.exists():
        return []
    data = checkpoint.read_bytes()
    try:
        state = torch.load(io.BytesIO(data), map_location="cpu", weights_only=True)
        run, losses = dict(state["config"]), [float(loss) for loss in state["losses"]]
    except Exception as error:  # what a file of another kind raises depends on that kind
        raise ValueError(
            f"{checkpoint}: is empty, cut short, or no checkpoint of a training "
            f"({type(error).__name__}); remove it, or name another file"
        ) from error
    store.check_identity(checkpoint, run, asdict(config))
    try:
        objective.load_state_dict(state["objective"])
        optimiser.load_state_dict(state["optimiser"])
    except (KeyError, RuntimeError, TypeError, ValueError, AttributeError) as error:
        raise ValueError(
            f"{checkpoint}: does not hold this run's weights; remove it, or name another file"
        ) from error
    return losses


def _save(
    checkpoint: Path,
    config: Config,
    objective: Objective,
    optimiser: torch.optim.Optimizer,
    losses: list[float],
) -> None:
    """Writes the run's state, whole or not at all."""
    state = {
        "config": asdict(config),
        "objective": objective.state_dict(),
        "optimiser": optimiser.state_dict(),
        "losses": losses,
    }
    memory = io.BytesIO()  # torch does not say that a disk is full
    torch.save(state, memory)
    store.write(checkpoint, memory.getvalue())
