"""Interactive views: alive on a static page with no kernel, and with a kernel they compute."""

from qkutils.views._attention_stepper import attention_stepper
from qkutils.views._base import View
from qkutils.views._mode_browser import ModeBrowser, mode_browser
from qkutils.views._one_image import OneImage, one_image
from qkutils.views._playground import Playground, playground
from qkutils.views._stepper import stepper
from qkutils.views._trends import trends
from qkutils.views._two_dimensional import two_dimensional

__all__ = [
    "ModeBrowser",
    "OneImage",
    "Playground",
    "View",
    "attention_stepper",
    "mode_browser",
    "one_image",
    "playground",
    "stepper",
    "trends",
    "two_dimensional",
]
