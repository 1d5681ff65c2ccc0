"""Trains an embedded model: `python -m qkutils.tiny.train supervised --seed 0`.

The scenes of a step depend on the step alone, so a run that is interrupted and resumed ends with
the same weights as one that is not.
"""

from __future__ import annotations

import argparse
import math
import os
from dataclasses import asdict, dataclass
from pathlib import Path

import torch
from jaxtyping import Float
from timm.models.vision_transformer import VisionTransformer
from torch import Tensor
from tqdm import tqdm

from qkutils import scenes
from qkutils.tiny import architecture

TRAINING_SCENES, HELD_OUT_SCENES = 1_000_000, 2_000_000  # world seeds that nothing else uses


@dataclass(frozen=True)
class Config:
    """What a run depends on; the budget is `steps × batch` scenes, each seen once."""

    objective: str = "supervised"
    seed: int = 0
    steps: int = 5000
    batch: int = 128
    learning_rate: float = 1e-3
    warmup: int = 200
    weight_decay: float = 0.05


def normalise(image: Float[Tensor, "scene 3 h w"]) -> Float[Tensor, "scene 3 h w"]:
    """Maps pixel values from [0, 1] to [-1, 1], as the embedded models expect them."""
    return (image - 0.5) / 0.5


def learning_rate(step: int, config: Config) -> float:
    """Linear warm-up, then half a cosine down to zero at the last step."""
    warm = min(1.0, (step + 1) / config.warmup)
    rest = max(0.0, (step - config.warmup) / max(1, config.steps - config.warmup))
    return config.learning_rate * warm * 0.5 * (1 + math.cos(math.pi * rest))


def optimiser_for(net: VisionTransformer, config: Config) -> torch.optim.Optimizer:
    """AdamW, with weight decay on matrices only."""
    matrices = [p for p in net.parameters() if p.ndim > 1]
    others = [p for p in net.parameters() if p.ndim <= 1]
    groups = [
        {"params": matrices, "weight_decay": config.weight_decay},
        {"params": others, "weight_decay": 0.0},
    ]
    return torch.optim.AdamW(groups, lr=config.learning_rate, betas=(0.9, 0.98))


def train(
    config: Config, checkpoint: Path, device: str = "cpu", save_every: int = 250
) -> tuple[VisionTransformer, list[float]]:
    """Trains to the end of the budget, from the checkpoint where there is one; model and losses."""
    net = architecture.build(config.seed).to(device).train()
    optimiser = optimiser_for(net, config)
    losses = _resume(checkpoint, config, net, optimiser)
    bar = tqdm(range(len(losses), config.steps), initial=len(losses), total=config.steps)
    for step in bar:
        for group in optimiser.param_groups:
            group["lr"] = learning_rate(step, config)
        batch = scenes.make(
            TRAINING_SCENES, step * config.batch, (step + 1) * config.batch, device=device
        )
        logits = net(normalise(batch.image))
        loss = torch.nn.functional.cross_entropy(logits, batch.factors.label.to(device))
        optimiser.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(net.parameters(), 1.0)
        optimiser.step()
        losses.append(loss.item())
        bar.set_postfix(loss=f"{sum(losses[-50:]) / len(losses[-50:]):.3f}")
        if (step + 1) % save_every == 0 or step + 1 == config.steps:
            _save(checkpoint, config, net, optimiser, losses)
    return net.eval(), losses


def _resume(checkpoint: Path, config: Config, net, optimiser) -> list[float]:
    """Restores a run and returns its losses so far; refuses a checkpoint of another config."""
    if not checkpoint.exists():
        return []
    state = torch.load(checkpoint, weights_only=True)
    if state["config"] != asdict(config):
        raise ValueError(
            f"{checkpoint} belongs to the run {state['config']}, not to {asdict(config)}; "
            "name another file or remove this one"
        )
    net.load_state_dict(state["net"])
    optimiser.load_state_dict(state["optimiser"])
    return state["losses"]


def _save(checkpoint: Path, config: Config, net, optimiser, losses: list[float]) -> None:
    """Writes the run's state beside its place and renames it, so that it is never half-written."""
    checkpoint.parent.mkdir(parents=True, exist_ok=True)
    partial = checkpoint.with_suffix(".partial")
    state = {
        "config": asdict(config),
        "net": net.state_dict(),
        "optimiser": optimiser.state_dict(),
        "losses": losses,
    }
    torch.save(state, partial)
    os.replace(partial, checkpoint)


@torch.inference_mode()
def accuracy(net: VisionTransformer, count: int = 8192, batch: int = 256) -> dict[str, float]:
    """Share of held-out scenes whose odd object gets the right class, kind and colour."""
    right = torch.zeros(3)
    device = next(net.parameters()).device
    colours = len(scenes.COLOURS)
    for start in range(0, count, batch):
        held_out = scenes.make(HELD_OUT_SCENES, start, min(start + batch, count))
        guess = net(normalise(held_out.image).to(device)).argmax(1).cpu()
        label = held_out.factors.label
        hits = [
            guess == label,
            guess // colours == label // colours,
            guess % colours == label % colours,
        ]
        right += torch.stack(hits).sum(1)
    return dict(zip(("class", "kind", "colour"), (right / count).tolist(), strict=True))


def main() -> None:
    """Trains one model from the command line and prints its accuracy on held-out scenes."""
    parser = argparse.ArgumentParser(prog="python -m qkutils.tiny.train", description=__doc__)
    parser.add_argument("objective", choices=["supervised"])
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--steps", type=int, default=Config.steps)
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--out", type=Path, default=Path("_build/training"))
    args = parser.parse_args()
    config = Config(args.objective, args.seed, args.steps)
    net, _ = train(config, args.out / f"{args.objective}-{args.seed}.pt", args.device)
    print({name: round(value, 4) for name, value in accuracy(net).items()})


if __name__ == "__main__":
    main()
