"""Query-key interaction in vision transformers: decompose heads, study what tokens attend to."""

from qkutils._torchvision import ensure_torchvision

ensure_torchvision()

from qkutils import data, preference, scenes  # noqa: E402
from qkutils.attention import observed_attention, rebuild_attention  # noqa: E402
from qkutils.models import catalogue, load  # noqa: E402
from qkutils.modes import (  # noqa: E402
    decompose,
    null_band,
    null_weighted_cosine,
    weighted_cosine,
)

__all__ = [
    "catalogue",
    "data",
    "decompose",
    "load",
    "null_band",
    "null_weighted_cosine",
    "observed_attention",
    "preference",
    "rebuild_attention",
    "scenes",
    "weighted_cosine",
]
