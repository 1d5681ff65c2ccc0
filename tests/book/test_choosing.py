"""Which pictures a chapter shows a model where its reader names none."""

from __future__ import annotations

import qkutils as qk
from qkutils import book


def test_a_model_sees_pictures_of_the_kind_that_it_was_trained_on(plain_vit):
    drawn = book.pictures_for(qk.load("tiny-supervised"), 30)
    assert len(drawn) == 30 and drawn[0].size == (64, 64)
    for count, wanted in ((4, 4), (64, 20)):
        shown = book.pictures_for(qk.load(plain_vit), count)
        assert [each.key for each in shown] == qk.datasets.photographs().keys[:wanted]
