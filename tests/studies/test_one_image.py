"""One image's options at the door, and its parts against attention that the model computes."""

from __future__ import annotations

import numpy as np
import pytest

import qkutils as qk


@pytest.mark.parametrize(
    "bad",
    [{"layer": 3}, {"layer": -1}, {"head": 4}, {"query_patch": 16}, {"order": "size"}],
    ids=str,
)
def test_what_is_not_there_is_refused(plain_vit, images, bad):
    asked = {"layer": 0, "head": 0, **bad}
    with pytest.raises(ValueError, match=f"{[*bad][0]}="):
        qk.studies.one_image(plain_vit, images[0], **asked)


def test_all_modes_add_up_to_the_models_own_attention(vit, images):
    patch, model = 5, qk.load(vit)
    found = qk.studies.one_image(model, images[0], layer=1, head=0, query_patch=patch)
    own = qk.observed_attention(model, images[:1])
    wanted = own.isel(layer=1, image=0, head=0, query=patch + model.prefix_tokens)
    np.testing.assert_allclose(qk.studies.build_up(found)[-1], wanted, atol=1e-5)
    assert float(found.share.sum() + found.salience_share) == pytest.approx(1)


def test_the_paper_s_convention_knows_no_salience(plain_vit, images):
    found = qk.studies.one_image(plain_vit, images[0], layer=1, head=0, convention="paper")
    assert (found.salience == 0).all() and float(found.constant) == 0
    with pytest.raises(ValueError, match="build_up"):
        qk.studies.build_up(found)
