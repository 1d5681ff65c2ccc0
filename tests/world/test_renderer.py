"""The exported renderer paints what the library paints."""

from __future__ import annotations

import numpy as np
import onnxruntime
import pytest
import torch

import qkutils as qk


def test_fifty_scenes(tmp_path):
    path = qk.world.export_renderer(tmp_path / "renderer.onnx")
    session = onnxruntime.InferenceSession(path)
    scenes = qk.world.make(11, 0, 50)
    names = [each.name for each in session.get_inputs()]
    assert names == [name for name in vars(scenes.factors) if name not in ("odd", "mixed")]
    for n in range(50):
        given = {name: getattr(scenes.factors, name)[n : n + 1] for name in names}
        whole = {k: v.int() if v.dtype == torch.int64 else v for k, v in given.items()}
        image, slot = session.run(None, {name: each.numpy() for name, each in whole.items()})
        np.testing.assert_allclose(image[0], scenes.image[n], atol=1e-5)
        assert slot.dtype == np.int32 and (slot[0] == scenes.slot[n].numpy()).mean() > 0.9995


@pytest.mark.parametrize("size", [0, 5000, 1.5])
def test_sizes_out_of_range_are_refused(size, tmp_path, unchecked):
    with pytest.raises(ValueError, match="size="):
        qk.world.export_renderer(tmp_path / "renderer.onnx", size)
