"""Interactive views: alive on a static page with no kernel, and with a kernel they compute."""

from qkutils.views.base import View
from qkutils.views.browsing import mode_browser
from qkutils.views.building import one_image
from qkutils.views.plane import two_dimensional
from qkutils.views.stepping import stepper
from qkutils.views.stepping_attention import attention_stepper
from qkutils.views.trending import trends

__all__ = [
    "View",
    "attention_stepper",
    "mode_browser",
    "one_image",
    "stepper",
    "trends",
    "two_dimensional",
]
