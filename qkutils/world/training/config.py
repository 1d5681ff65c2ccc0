"""What a training run depends on."""

from dataclasses import dataclass


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
