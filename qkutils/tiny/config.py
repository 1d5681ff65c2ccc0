"""What a training run depends on."""

from dataclasses import dataclass


@dataclass(frozen=True)
class Config:
    """What a run depends on; the budget is `steps × batch` scenes, each seen once."""

    objective: str = "supervised"
    seed: int = 0
    steps: int = 4000
    batch: int = 128
    learning_rate: float = 1e-3
    warmup: int = 200
    weight_decay: float = 0.05
