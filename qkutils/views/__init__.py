"""Interactive views: alive on a static page with no kernel, and with a kernel they compute."""

from qkutils.views.base import View
from qkutils.views.browsing import mode_browser
from qkutils.views.stepping import stepper
from qkutils.views.trending import trends

__all__ = ["View", "mode_browser", "stepper", "trends"]
