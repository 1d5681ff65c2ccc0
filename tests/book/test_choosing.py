"""What a chapter compares and shows: which pictures, how many of them, and which other models."""

from __future__ import annotations

import qkutils._torchvision

from types import SimpleNamespace

import pytest
import timm
import torch

import qkutils as qk
from qkutils import book
from qkutils.book import _choosing

STORED = "vit_small_patch14_dinov2.lvd142m"


def test_a_model_sees_pictures_of_the_kind_that_it_was_trained_on(plain_vit):
    drawn = book.pictures_for(qk.load("tiny-supervised"), 30)
    assert len(drawn) == 30 and drawn[0].size == (64, 64)
    for count, wanted in ((4, 4), (64, 20)):
        shown = book.pictures_for(qk.load(plain_vit), count)
        assert [each.key for each in shown] == qk.datasets.photographs().keys[:wanted]


# ---- how many pictures ---------------------------------------------------------------------------


@pytest.fixture
def large(monkeypatch, plain_vit):
    """A model that counts as large, and takes two seconds a picture."""
    monkeypatch.setattr(_choosing, "LARGE", 0)
    monkeypatch.setattr(_choosing, "seconds", lambda net: 2.0)
    return qk.load(plain_vit)


@pytest.mark.parametrize(
    ("count", "passes", "besides", "taken", "minutes"),
    [
        (100, 2, 20, 50, "4"),
        (100, 1, 0, 100, "3.3"),
        (1000, 1, 0, 120, "4"),
        (100, 1, 10_000, 4, "3.3e+02"),
        (3, 1, 10_000, 3, "3.3e+02"),
    ],
)
def test_a_large_model_gets_what_four_minutes_allow(
    large, capsys, count, passes, besides, taken, minutes
):
    chosen = list(book.few_enough(large, range(count), passes, besides))
    assert len(set(chosen)) == taken and chosen == sorted(chosen) and chosen[0] == 0
    assert chosen[-1] >= count - -(-count // taken)  # up to the end
    told = capsys.readouterr().out
    assert told.startswith(f"{taken} of {count} ") and f"about {minutes} minutes" in told
    assert large.name in told and told.count("\n") == 1


def test_what_is_left_out_is_not_read(large):
    class Pictures(list):
        def __getitem__(self, at):
            assert at % 2 == 0
            return super().__getitem__(at)

    assert list(book.few_enough(large, Pictures(range(240)))) == list(range(0, 240, 2))


def test_a_small_model_gets_all_and_is_not_timed(monkeypatch, capsys, plain_vit):
    monkeypatch.setattr(_choosing, "seconds", lambda net: pytest.fail("it was timed"))
    given = range(10_000)
    assert book.few_enough(qk.load(plain_vit), given, 100) is given
    assert capsys.readouterr().out == ""


@pytest.mark.parametrize(
    ("name", "size", "is_large"),
    [
        ("vit_base_patch16_224", 224, False),
        ("vit_base_patch32_384", 384, False),
        ("vit_base_patch14_reg4_dinov2", 224, False),
        ("vit_small_patch14_dinov2", 518, True),
        ("vit_large_patch16_224", 224, True),
        ("vit_huge_patch14_224", 224, True),
    ],
)
def test_large_is_more_than_vit_b_at_224_pixels(name, size, is_large, monkeypatch, unchecked):
    monkeypatch.setattr(_choosing, "seconds", lambda net: 1000.0)
    with torch.device("meta"):
        net = timm.create_model(name, img_size=size)
    tokens = net.patch_embed.num_patches + net.num_prefix_tokens
    model = SimpleNamespace(net=net, token_count=tokens, name=name)
    assert (len(book.few_enough(model, range(100))) < 100) == is_large


def test_the_shortest_time_counts_for_each_picture_of_a_batch(monkeypatch, plain_vit):
    clock, costs = [0.0], iter([9.0, 6.0, 7.0])
    net, shapes = qk.load(plain_vit).net, []

    def passes(_, args):
        clock[0] += next(costs)
        shapes.append(tuple(args[0].shape))

    monkeypatch.setattr(_choosing.time, "perf_counter", lambda: clock[0])
    hook = net.register_forward_pre_hook(passes)
    assert _choosing.seconds(net, batch=4, times=3) == 1.5
    hook.remove()
    assert shapes == [(4, 3, 32, 32)] * 3


# ---- models beside ------------------------------------------------------------------------------


@pytest.fixture
def nothing_fetched(monkeypatch, tmp_path):
    monkeypatch.delenv("QKUTILS_WEIGHTS", raising=False)
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    monkeypatch.setenv("HF_HOME", str(tmp_path))


def test_what_is_at_hand_is_live_and_what_is_stored_is_left_to_its_numbers(nothing_fetched):
    file = qk.models._catalogue.embedded("tiny-dino-s1")
    assert file is not None
    found = book.live(["tiny-simmim", STORED, str(file)])
    assert found == {"tiny-simmim": "tiny-simmim", "tiny-dino-s1": str(file)}


def test_without_names_nothing_is_computed():
    assert book.live([]) == {}


def test_a_model_neither_at_hand_nor_stored_is_refused(nothing_fetched):
    for name in ("vit_base_patch16_224.dino", "nobody", "no/such/file.safetensors"):
        with pytest.raises(ValueError, match=f"^{name}: [^\n]*$"):
            book.live(["tiny-dino", name])
