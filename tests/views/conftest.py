"""What tests of views share."""

from __future__ import annotations

import shutil

import pytest


@pytest.fixture(scope="session")
def node(skip_or_fail):
    """The path of node, which runs the views' scripts without a browser."""
    return shutil.which("node") or skip_or_fail("there is no node to run the views' scripts")
