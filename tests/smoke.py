"""What an installed wheel has to do, outside of the repository and without the extras."""

from __future__ import annotations

import importlib.util
import subprocess
import sys
import tempfile
from importlib.metadata import version
from pathlib import Path

import qkutils as qk


def main() -> None:
    """Decomposes, scans, studies and calls the command; raises where something fails."""
    assert "site-packages" in Path(qk.__file__).parts, "the repository was imported"
    absent = ("matplotlib", "anywidget", "ipywidgets", "jupyterlab", "myst_nb")
    assert not any(importlib.util.find_spec(name) for name in absent)
    model = qk.load("tiny-supervised")
    modes = qk.decompose(model)
    samples = qk.world.samples(0, 0, 4)
    images = qk.pictures.images(samples, model, 4)
    far = qk.total_variation(
        qk.observed_attention(model, images), qk.rebuild_attention(model, images, modes)
    )
    assert float(far.max()) < 1e-4
    with tempfile.TemporaryDirectory() as folder:
        atlas = qk.scan(model, images, k=2, out=Path(folder) / "atlas.nc", progress=False)
        assert qk.open_atlas(Path(folder) / "atlas.nc").identical(atlas)
    assert qk.studies.odd_one_out(model, samples).sizes["image"] == 4
    assert min(qk.datasets.photographs()[0].image.size) == 256
    shown = subprocess.run(
        [Path(sys.executable).with_name("qkutils"), "models", "list"],
        capture_output=True,
        text=True,
    )
    assert shown.returncode == 0 and "tiny-supervised" in shown.stdout
    print(f"qkutils {version('qkutils')} works in {Path(qk.__file__).parent}")


if __name__ == "__main__":
    main()
