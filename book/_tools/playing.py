"""The page on which a model runs, with all tasks of the playground."""

from pathlib import Path

import mount

from qkutils import views
from qkutils.views import _playground

MODEL = "tiny-supervised"
HERE = "<!-- the playground -->"


def write(page: Path, stage: Path) -> None:
    """Put the playground into its page."""
    view = views.playground(MODEL, tasks=tuple(_playground.TASKS))
    mount.put(view, page, HERE, stage, "qk-playing")
