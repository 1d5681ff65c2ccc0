"""Interactive views: alive on a static page with no kernel, and with a kernel they compute."""

from qkutils.views.base import View
from qkutils.views.building import one_image
from qkutils.views.stepping import stepper
from qkutils.views.trending import trends

__all__ = ["View", "one_image", "stepper", "trends"]
