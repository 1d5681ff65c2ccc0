"""Models: the catalogue, and `load`, which takes a name, a file, a folder or a timm module."""

from qkutils.models._catalogue import WEIGHTS_VARIABLE as WEIGHTS_VARIABLE
from qkutils.models._catalogue import at_hand, catalogue, family
from qkutils.models._loading import AnyModel, fetch, load, network
from qkutils.models._model import Model, Network
from qkutils.models._predictor import (
    Masked,
    Predictor,
    masked,
    predicting,
    predictor,
)

__all__ = [
    "AnyModel",
    "Masked",
    "Model",
    "Network",
    "Predictor",
    "at_hand",
    "catalogue",
    "family",
    "fetch",
    "load",
    "masked",
    "network",
    "predicting",
    "predictor",
]
