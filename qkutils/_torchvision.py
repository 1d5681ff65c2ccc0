"""Lets timm import where a CPU build of torch meets a CUDA build of torchvision.

To be imported before timm and torchvision are.
"""

import importlib
import sys

import torch

try:
    importlib.import_module("torchvision")
except RuntimeError as error:  # its binary can't load: two operators that it declares are missing
    if "torchvision::" not in str(error):
        raise
    for name in [n for n in sys.modules if n.split(".")[0] == "torchvision"]:
        del sys.modules[name]
    for operator in ("nms", "qnms"):
        schema = "(Tensor dets, Tensor scores, float iou_threshold) -> Tensor"
        torch.library.define(f"torchvision::{operator}", schema)
    importlib.import_module("torchvision")
