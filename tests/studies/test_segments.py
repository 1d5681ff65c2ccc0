"""The studies of segments against explicit loops, made-up models and scenes."""

from __future__ import annotations

import inspect
import itertools

import numpy as np
import PIL.Image
import pytest
import torch
import xarray as xr
from scipy import ndimage
from timm.models.vision_transformer import VisionTransformer

import qkutils as qk
from qkutils import statistics
from qkutils.book import stored
from qkutils.records import Segmented
from qkutils.studies._grouping import FOLLOWED, MATCHING, pair_bins, pair_weights
from qkutils.studies._same_object import CASES
from qkutils.studies._streaming import pairing

SIDE, PATCH = 4, 8  # of the small models' grid, and of a patch in pixels


def pictures(count: int, people: int = 1, seed: int = 0, hole: bool = True) -> list[Segmented]:
    """Pictures of noise with random blocky label maps, as large as the small models take them."""
    rng = np.random.default_rng(seed)
    made = []
    for n in range(count):
        pixels = rng.integers(0, 256, (SIDE * PATCH, SIDE * PATCH, 3), dtype=np.uint8)
        blocks = rng.integers(-1 if hole else 0, 3, (people, SIDE * 2, SIDE * 2), dtype=np.int32)
        labels = tuple(np.kron(b, np.ones((PATCH // 2,) * 2, dtype=np.int32)) for b in blocks)
        made.append(Segmented(f"picture {n}", PIL.Image.fromarray(pixels), labels))
    return made


def whole(samples: list[Segmented]) -> list[Segmented]:
    return [
        Segmented(s.key, s.image, tuple(np.zeros_like(labels) for labels in s.labels))
        for s in samples
    ]


def uncropped(net) -> qk.models.Model:
    """The model, seeing all of a picture of its own size, pixel by pixel."""
    net.pretrained_cfg = {"mean": (0.5,) * 3, "std": (0.5,) * 3, "crop_pct": 1.0}
    return qk.load(net)


@pytest.fixture(scope="module")
def small(make_vit) -> qk.models.Model:
    return uncropped(make_vit(seed=3, embed_dim=24, num_heads=2, reg_tokens=1))


def inputs_of(model, samples: list[Segmented]) -> list[np.ndarray]:
    """The residual stream at each block's input, [image, token, d_model], by timm's own forward."""
    kept: list[np.ndarray] = []
    hooks = [
        block.register_forward_pre_hook(lambda _, args: kept.append(args[0].double().numpy()))
        for block in model.net.blocks
    ]
    with torch.inference_mode():
        model.net(torch.stack([model.transform(s.image) for s in samples]))
    for hook in hooks:
        hook.remove()
    return kept


def slow_objects(labels: np.ndarray, cover: float = 0.5) -> list[np.ndarray]:
    """Shares of patches of each connected component, by loops over patches."""
    found = []
    for label in sorted(set(labels.ravel().tolist()) - {-1}):
        components, count = ndimage.label(labels == label)
        for n in range(1, count + 1):
            share = [
                (components[r * PATCH : (r + 1) * PATCH, c * PATCH : (c + 1) * PATCH] == n).mean()
                for r, c in itertools.product(range(SIDE), repeat=2)
            ]
            if max(share) >= cover:
                found.append(np.array(share))
    return found


def test_objects_are_connected_components_that_fill_half_a_patch(small):
    for sample in pictures(5):
        objects = qk.studies.objects_of(small, sample)
        wanted = slow_objects(sample.labels[0])
        np.testing.assert_allclose(objects.share, np.array(wanted), atol=1e-6)
        total = sum(ndimage.label(sample.labels[0] == n)[1] for n in range(3))
        assert objects.left_out == total - len(wanted) > 0
        for n, label in enumerate(objects.label):
            assert (sample.labels[0][objects.where == n] == label).all()
            np.testing.assert_allclose(
                (objects.where == n).mean(), objects.share[n].mean(), atol=1e-6
            )


def test_instances_are_not_taken_apart(small):
    labels = np.full((32, 32), -1, dtype=np.int32)
    labels[:8, :8] = labels[24:, 24:] = 7
    sample = Segmented("two", PIL.Image.new("RGB", (32, 32)), (labels,))
    assert qk.studies.objects_of(small, sample, instances=True).label.tolist() == [7]
    assert qk.studies.objects_of(small, sample).label.tolist() == [7, 7]


def test_every_layout_is_laid_on_other_pictures_and_keys_alone_decide():
    keys = [f"picture {n}" for n in range(7)]
    guests = pairing(keys, 3)
    for picture, laid in enumerate(guests.tolist()):
        assert picture not in laid and len(set(laid)) == 3
    assert np.bincount(guests.ravel()).tolist() == [3] * 7
    turned = pairing(keys[::-1], 3)
    assert [keys[::-1][n] for n in turned[0]] == [keys[n] for n in guests[6]]


def brute_force(model, samples, parts: xr.Dataset, guests, exact: bool, layer, head, mode, sign):
    """Score, and objects of its own and of other masks, for each picture, by explicit loops."""
    x = inputs_of(model, samples)[layer][:, model.prefix_tokens :]
    if exact:
        x = x - x.mean(-1, keepdims=True)
        x = x / np.sqrt((x**2).mean(-1, keepdims=True) + model.net.blocks[layer].norm1.eps)
    u, v = (sign * parts[side].values[layer, head, mode].astype(float) for side in "uv")
    out = []
    for n in range(len(samples)):
        query, key = x[n] @ u, x[n] @ v
        score = query.max() * key.max() if query.max() > 0 and key.max() > 0 else np.nan
        picked = []
        for laid in (n, guests[n, 0]):
            shares = slow_objects(samples[laid].labels[0])
            for projection in (query, key):
                picked.append(np.argmax([(s * projection).sum() / s.sum() for s in shares]))
        out.append((score, *picked))
    return np.array(out)


@pytest.mark.parametrize("convention", ["paper", "exact"])
def test_scores_and_objects_are_those_of_explicit_loops(small, convention):
    samples = pictures(6)
    found = qk.studies.same_object(small, samples, convention=convention, batch_size=4)
    parts = qk.decompose(small, convention=convention)
    guests = pairing([s.key for s in samples])
    for layer, head, mode, sign in [(0, 0, 0, 1), (1, 1, 3, -1), (2, 0, 5, 1), (2, 1, 11, -1)]:
        at = {"layer": layer, "head": head, "mode": mode, "sign": sign}
        wanted = brute_force(
            small, samples, parts, guests, convention == "exact", layer, head, mode, sign
        )
        own = found.sel(case="modes", **at)
        np.testing.assert_allclose(own.score, wanted[:, 0], rtol=1e-4)
        for case, columns in (("modes", (1, 2)), ("other masks", (3, 4))):
            chosen = found.sel(case=case, **at)
            np.testing.assert_array_equal(chosen.query_object, wanted[:, columns[0]])
            np.testing.assert_array_equal(chosen.key_object, wanted[:, columns[1]])


def test_probability_is_that_of_explicit_loops(small):
    found = qk.studies.same_object(small, pictures(9), k=3)
    result = qk.studies.probability(found, draws=20)
    for case, layer, head in itertools.product(("modes", "other masks"), range(3), range(2)):
        total = weight = 0.0
        for mode in range(found.sizes["mode"]):
            of_signs = []
            for sign in (1, -1):
                one = found.sel(case=case, layer=layer, head=head, mode=mode, sign=sign)
                best = [i for i in np.argsort(-one.score.values)[:3] if one.score[i] > 0]
                if best:
                    agrees = [one.query_object.values[i] == one.key_object.values[i] for i in best]
                    of_signs.append(np.mean(agrees))
            if of_signs:
                sigma = float(found.sigma.sel(layer=layer, head=head, mode=mode))
                total, weight = total + sigma * np.mean(of_signs), weight + sigma
        got = float(result.estimate.sel(of=case, layer=layer, head=head))
        assert got == pytest.approx(total / weight, abs=1e-6)
    modes, random, other, both = (result.estimate.sel(of=case, drop=True) for case in CASES)
    for name, wanted in (
        ("excess over random directions", modes - random),
        ("excess over other masks", modes - other),
        ("excess over both", modes - other - random + both),
    ):
        got = result.estimate.sel(of=name, drop=True)
        np.testing.assert_allclose(got, wanted, atol=1e-12)


def test_optimal_pictures_are_the_best_ones(small):
    found = qk.studies.same_object(small, pictures(8), k=4)
    top = qk.studies.optimal_objects(found)
    best = found.score.fillna(-np.inf).max("image")
    np.testing.assert_array_equal(top.score.isel(rank=0).fillna(-np.inf), best)
    assert top.sizes["rank"] == 4
    assert (top.score.diff("rank").fillna(0) <= 0).all()
    one = dict(case=0, layer=1, head=1, mode=2, sign=0)
    at = int(top.place.isel(rank=0, **one))
    assert float(found.score.isel(image=at, **one)) == float(top.score.isel(rank=0, **one))


def test_one_segment_over_everything_is_always_the_same_object(small):
    result = qk.studies.probability(qk.studies.same_object(small, whole(pictures(5))), draws=10)
    cases = result.sel(of=list(CASES))
    for name in ("estimate", "low", "high"):
        np.testing.assert_allclose(cases[name], 1, atol=1e-12)


def test_order_of_pictures_and_batches_change_nothing(small):
    samples = pictures(6)
    first = qk.studies.same_object(small, samples, batch_size=2)
    second = qk.studies.same_object(small, samples[::-1], batch_size=5)
    second = second.sel(image=first.image)
    np.testing.assert_allclose(first.score, second.score, rtol=1e-3, atol=1e-5)
    assert float((first.query_object == second.query_object).mean()) > 0.999
    again = qk.studies.same_object(small, samples, seed=1)
    random = {"case": "random directions"}
    assert not np.allclose(first.score.sel(random), again.score.sel(random), equal_nan=True)


def test_intervals_hold_the_estimate_and_shrink_with_the_pictures_taken(small):
    samples, widths = pictures(16), []
    for k in (2, 8):
        found = qk.studies.same_object(small, samples, k=k)
        result = qk.studies.probability(found, ["layer", "head"], draws=100).sel(of="modes")
        assert result.low <= result.estimate <= result.high
        widths.append(float(result.high - result.low))
    assert widths[1] < widths[0]


def slow_attention(model, samples) -> np.ndarray:
    """Attention on other patches in units of its mean, [image, layer, head, query, key], by timm's
    own queries and keys."""
    kept: list[np.ndarray] = []
    hooks = [
        block.attn.qkv.register_forward_hook(lambda _, __, out: kept.append(out.double().numpy()))
        for block in model.net.blocks
    ]
    with torch.inference_mode():
        model.net(torch.stack([model.transform(s.image) for s in samples]))
    for hook in hooks:
        hook.remove()
    layers = []
    for qkv in kept:
        images, tokens, _ = qkv.shape
        q, k, _ = qkv.reshape(images, tokens, 3, model.net.blocks[0].attn.num_heads, -1).transpose(
            2, 0, 3, 1, 4
        )
        logits = q @ k.swapaxes(-1, -2) / q.shape[-1] ** 0.5
        weights = np.exp(logits - logits.max(-1, keepdims=True))
        weights = weights / weights.sum(-1, keepdims=True)  # prefix tokens in the softmax
        layers.append(on_other_patches(weights, model.prefix_tokens))
    return np.stack(layers, 1)


def on_other_patches(weights: np.ndarray, prefix_tokens: int) -> np.ndarray:
    weights = weights[..., prefix_tokens:, prefix_tokens:]
    weights = weights * (1 - np.eye(weights.shape[-1]))
    return weights / weights.sum(-1, keepdims=True) * (weights.shape[-1] - 1)


def slow_segments(labels: np.ndarray) -> list[int]:
    out = []
    for r, c in itertools.product(range(SIDE), repeat=2):
        patch = labels[r * PATCH : (r + 1) * PATCH, c * PATCH : (c + 1) * PATCH]
        values, counts = np.unique(patch, return_counts=True)
        full = [v for v, n in zip(values, counts, strict=True) if v >= 0 and n / patch.size >= 0.5]
        best = max(full, key=lambda v: (counts[list(values).index(v)], -v), default=-1)
        out.append(int(best))
    return out


def slow_comparison(attention: np.ndarray, segment: list[int], matching: str):
    """Mean attention of one head within and across one person's segments, pair by pair."""
    bins: dict = {}
    for i, j in itertools.permutations(range(SIDE**2), 2):
        if segment[i] >= 0 and segment[j] >= 0:
            down, right = j // SIDE - i // SIDE, j % SIDE - i % SIDE
            at = {"none": 0, "distance": np.hypot(down, right), "displacement": (down, right)}
            pair = bins.setdefault(at[matching], ([], []))
            pair[int(segment[i] != segment[j])].append(attention[i, j])
    both = [(len(s) * len(d) / (len(s) + len(d)), s, d) for s, d in bins.values() if s and d]
    if not both:
        return None
    total = sum(w for w, _, _ in both)
    return [sum(w * np.mean(pair[n]) for w, *pair in both) / total for n in (0, 1)]


@pytest.mark.parametrize("people", [1, 3])
def test_grouping_is_that_of_loops_over_pairs(small, people):
    samples = pictures(4, people)
    assert_is_that_of_loops(small, samples, slow_attention(small, samples))


def test_grouping_counts_the_position_bias(make_beit):
    model, samples = uncropped(make_beit()), pictures(4)
    images = torch.stack([model.transform(s.image) for s in samples])
    own = qk.observed_attention(model, images).transpose("image", ...).values.astype(float)
    assert_is_that_of_loops(model, samples, on_other_patches(own, 1))


def assert_is_that_of_loops(model, samples: list[Segmented], attention: np.ndarray) -> None:
    found = qk.studies.grouping(model, samples, nulls=2, batch_size=3)
    guests = pairing([s.key for s in samples], 2)
    for image, matching, (layer, head) in itertools.product(range(4), MATCHING, [(0, 0), (2, 1)]):
        layouts = [slow_segments(labels) for labels in samples[image].labels]

        def mean(on: int, at=(layer, head), layouts=layouts, matching=matching):
            each = [slow_comparison(attention[on][at], one, matching) for one in layouts]
            return np.mean([one for one in each if one is not None], 0)

        got = found.isel(image=image).sel(matching=matching, layer=layer, head=head)
        np.testing.assert_allclose([got.same, got.different], mean(image), rtol=1e-4)
        hosts = [n for n in range(4) if image in guests[n]]
        null = np.mean([mean(n) for n in hosts], 0)
        np.testing.assert_allclose([got.null_same, got.null_different], null, rtol=1e-4)


def test_both_means_give_every_displacement_the_same_weight(small):
    bins = pair_bins((SIDE, SIDE))
    people = qk.studies.segments_of_patches(small, pictures(1, 2)[0])
    weights = pair_weights(people, bins)
    np.testing.assert_allclose(weights.sum((-1, -2)), 1, rtol=1e-5)
    for n, of in enumerate(bins.values()):
        same, different = (np.bincount(of.ravel(), w.ravel()) for w in weights[n])
        np.testing.assert_allclose(same, different, atol=1e-6)


def test_one_segment_has_no_pairs_to_compare(small):
    found = qk.studies.grouping(small, whole(pictures(3)))
    assert found.same.isnull().all()
    assert found.attrs["pictures without pairs, matching displacement"] == 3


def made_up(
    patch_embedding: torch.Tensor, position: torch.Tensor, sharpness: float
) -> qk.models.Model:
    """A transformer of two blocks that change nothing, whose head compares its tokens as they are.

    Tokens have mean 0 and one length, so that LayerNorm leaves them alone.
    """
    width = position.shape[-1]
    net = VisionTransformer(
        img_size=64, patch_size=8, embed_dim=width, depth=2, num_heads=1, num_classes=2,
        class_token=False, global_pool="avg",
    )  # fmt: skip
    with torch.no_grad():
        for tensor in net.parameters():
            tensor.zero_()
        net.patch_embed.proj.weight.copy_(patch_embedding)
        net.pos_embed.copy_(position)
        for block in net.blocks:
            block.norm1.weight.fill_(1)
            block.norm2.weight.fill_(1)
            eye = torch.eye(width) * sharpness
            block.attn.qkv.weight.copy_(torch.cat([eye, eye, torch.zeros(width, width)]))
    return uncropped(net)


def attends_by_distance() -> qk.models.Model:
    """Attention that falls with distance and sees nothing of the picture."""
    at = torch.cartesian_prod(torch.arange(8.0), torch.arange(8.0))
    angles = torch.arange(8) * torch.pi / 8
    waves = at @ torch.stack([angles.cos(), angles.sin()]) * 0.7
    half = torch.cat([waves.cos(), waves.sin()], 1)
    position = torch.cat([half, -half], 1)[None]
    return made_up(torch.zeros(32, 3, 8, 8), position, 1.5)


def attends_by_colour() -> qk.models.Model:
    """Attention between patches of like hue, wherever they lie."""
    mixing = torch.tensor([[2.0, -1, -1], [-1, 2, -1], [-1, -1, 2]]) / 64
    half = mixing[:, :, None, None].expand(3, 3, 8, 8)
    return made_up(torch.cat([half, -half]), torch.zeros(1, 64, 6), 1.5)


@pytest.fixture(scope="module")
def world():
    return qk.world.segmentations(3, 0, 24, background=True)


def patchwork(count: int) -> list[Segmented]:
    """Pictures in which every patch belongs to the nearest of four points."""
    rng = np.random.default_rng(2)
    rows, columns = np.indices((8, 8))
    made = []
    for n in range(count):
        points = rng.uniform(0, 8, (4, 2))
        far = [np.hypot(rows - r, columns - c) for r, c in points]
        labels = np.kron(np.argmin(far, 0), np.ones((8, 8), dtype=np.int64)).astype(np.int32)
        made.append(Segmented(f"work {n}", PIL.Image.new("RGB", (64, 64)), (labels,)))
    return made


def test_attention_by_distance_alone_is_no_grouping():
    found = qk.studies.grouping(attends_by_distance(), patchwork(24))
    raw = abs(found.same - found.different).mean("image")
    assert (raw.sel(matching="none") > 0.5).all()  # nearness alone
    assert (raw.sel(matching=["distance", "displacement"]) < raw.sel(matching="none") / 5).all()
    np.testing.assert_allclose(qk.studies.grouping_excess(found), 0, atol=1e-5)


def test_attention_by_colour_is_grouping(world):
    found = qk.studies.grouping(attends_by_colour(), world)
    for matching in MATCHING:
        interval = statistics.bootstrap(qk.studies.grouping_excess(found).sel(matching=matching))
        assert (interval.low > 0.1).all()


def follows(labels: np.ndarray) -> np.ndarray:
    """Attention on a person's own segment alone, in units of its mean, by loops over patches."""
    segment = slow_segments(labels)
    attention = np.full((SIDE**2, SIDE**2), np.nan)
    for i, j in itertools.product(range(SIDE**2), repeat=2):
        mine = [k for k in range(SIDE**2) if k != i and segment[k] == segment[i] >= 0]
        attention[i, j] = (j in mine) / len(mine) if mine else 1 / (SIDE**2 - 1)
    return attention * (SIDE**2 - 1)


def follows_colour(model, sample: Segmented, sharpness: float) -> np.ndarray:
    pixels = np.asarray(sample.image) / 255
    of = pixels.reshape(SIDE, PATCH, SIDE, PATCH, 3).mean((1, 3)).reshape(-1, 3)
    far = ((of[:, None] - of[None]) ** 2).sum(-1)
    return on_other_patches(np.exp(-far / far.mean() * sharpness**2 / 2), 0)


def test_references_are_those_of_loops_over_pairs(small):
    samples, matching = pictures(4, people=3, hole=False), "displacement"
    found = qk.studies.grouping_references(small, samples, nulls=2).sel(matching=matching)
    guests = pairing([s.key for s in samples], 2)
    for image in range(4):
        labels = samples[image].labels
        segments = [slow_segments(each) for each in labels]
        own, others, null = [], [], []
        for a, b in itertools.product(range(3), repeat=2):
            judged = slow_comparison(follows(labels[a]), segments[b], matching)
            (own if a == b else others).append(judged)
        for host in (n for n in range(4) if image in guests[n]):
            maps = map(follows, samples[host].labels)
            pairs = itertools.product(maps, segments)
            null.append(np.mean([slow_comparison(m, s, matching) for m, s in pairs], 0))
        for of, wanted in zip(found.of.values[:2], (own, others), strict=True):
            got = found.isel(image=image).sel(of=of)
            np.testing.assert_allclose(
                [got.same, got.different], np.mean(wanted, 0), rtol=1e-4, atol=1e-6
            )
            np.testing.assert_allclose([got.null_same, got.null_different], np.mean(null, 0), 1e-4)
        colour = follows_colour(small, samples[image], 4)
        wanted = np.mean([slow_comparison(colour, each, matching) for each in segments], 0)
        got = found.isel(image=image).sel(of="colour 4")
        np.testing.assert_allclose([got.same, got.different], wanted, rtol=1e-3)


def test_nobody_else_judges_where_one_person_looked(small):
    found = qk.studies.grouping_references(small, pictures(4, hole=False))
    assert found.same.sel(of="another person's segments").isnull().all()
    own = qk.studies.grouping_excess(found).sel(of="own segments")
    assert (own.sel(matching="displacement") > 1).all()


def test_modes_and_salience_can_be_chosen(small):
    samples = pictures(3)
    own = qk.studies.grouping(small, samples)
    rebuilt = qk.studies.grouping(small, samples, modes=qk.decompose(small, convention="exact"))
    np.testing.assert_allclose(own.same, rebuilt.same, rtol=1e-3)
    less = qk.studies.grouping(
        small, samples, modes=qk.decompose(small, convention="exact").isel(mode=[0]), salience=()
    )
    assert abs(own.same - less.same).max() > 1e-3
    assert less.attrs["modes"] == "0" and less.attrs["salience"] == "none"


def test_scenes_have_exact_objects_and_parts():
    world = qk.world.make(3, 5, 9)
    by_object, by_part = (qk.world.segmentations(3, 5, 9, by=by) for by in ("object", "part"))
    assert len(by_object) == 4
    for n in range(4):
        objects, parts = by_object[n], by_part[n]
        np.testing.assert_array_equal(objects.labels[0], world.slot[n])
        assert set(np.unique(objects.labels[0])) - {-1} == set(objects.names)
        assert set(np.unique(parts.labels[0])) - {-1} == set(parts.names)
        for number, name in parts.names.items():
            mask = parts.labels[0] == number
            assert len(np.unique(world.slot[n][mask])) == len(np.unique(world.part[n][mask])) == 1
            slot = int(world.slot[n][mask][0])
            assert name == f"{objects.names[slot]}, {qk.world.PARTS[int(world.part[n][mask][0])]}"
        there = qk.world.segmentations(3, 5, 9, background=True)[n]
        assert (there.labels[0] >= 0).all() and "background" in there.names.values()
        pixels = np.asarray(objects.image) / 255
        np.testing.assert_allclose(pixels, world.image[n].movedim(0, -1), atol=1 / 255)


def test_bad_input_is_refused(small):
    two = pictures(2)
    with pytest.raises(ValueError, match="number of segmentations=1"):
        qk.studies.same_object(small, two[:1])
    with pytest.raises(ValueError, match="k=0"):
        qk.studies.same_object(small, two, k=0)
    with pytest.raises(ValueError, match="cover=0"):
        qk.studies.same_object(small, two, cover=0.0)
    unchecked = inspect.unwrap(qk.studies.same_object)  # without the type checks that tests have
    with pytest.raises(ValueError, match="patches='all'"):
        unchecked(small, two, patches="all")
    with pytest.raises(ValueError, match="'picture 0' has 2 label maps"):
        qk.studies.same_object(small, pictures(2, people=2))
    nothing = [Segmented(s.key, s.image, (np.full((32, 32), -1, np.int32),)) for s in two]
    with pytest.raises(ValueError, match="0 of 2 pictures hold an object"):
        qk.studies.same_object(small, nothing)
    with pytest.raises(ValueError, match="'picture 0' occur more than once"):
        qk.studies.grouping(small, [two[0], two[0]])
    with pytest.raises(ValueError, match="nulls=2"):
        qk.studies.grouping(small, two, nulls=2)
    with pytest.raises(ValueError, match="batch_size=0"):
        qk.studies.grouping(small, two, batch_size=0)
    with pytest.raises(ValueError, match="by='shape'"):
        inspect.unwrap(qk.world.segmentations)(0, 0, 2, by="shape")


def test_results_are_stored_and_read_again(tmp_path, monkeypatch, small):
    stored.store_same_object(small, pictures(5), "noise", tmp_path)
    stored.store_grouping(small, pictures(5, 2), "noise", tmp_path)
    monkeypatch.setattr(stored, "FOLDER", tmp_path)
    same, grouped = stored.read("same_object", small.name), stored.read("grouping", small.name)
    assert same.attrs["images"] == grouped.attrs["images"] == "5 of noise"
    assert list(same["head"].values) == ["0", "1", "all"]
    fresh = qk.studies.same_object(small, pictures(5), convention="paper")
    fresh = qk.studies.probability(fresh)
    np.testing.assert_allclose(
        same.estimate.sel(of=fresh.of, head=["0", "1"]), fresh.estimate, atol=1e-6
    )
    found = qk.studies.grouping(small, pictures(5, 2))
    stored.store_grouping_references(small, pictures(5, 2), "noise", tmp_path)
    bounds = stored.read("grouping_references", small.name)
    fresh = qk.studies.grouping_excess(qk.studies.grouping_references(small, pictures(5, 2)))
    assert bounds.attrs["images"] == "5 of noise"
    np.testing.assert_allclose(
        bounds.estimate.sel(of=fresh.of, matching=fresh.matching).transpose(*fresh.dims[1:]),
        fresh.mean("image"),
        atol=1e-5,
    )
    np.testing.assert_allclose(
        grouped.estimate.sel(of="excess", matching="displacement", head="all"),
        qk.studies.grouping_excess(found).sel(matching="displacement").mean(["image", "head"]),
        atol=1e-6,
    )


@pytest.mark.parametrize("name", stored.names())
def test_stored_tables_are_whole_and_say_where_they_come_from(name):
    same, grouped = stored.read("same_object", name), stored.read("grouping", name)
    heads = 1 + stored.read("modes", name).sizes["head"]  # and their mean
    assert dict(same.sizes) == {"of": 7, "layer": 12, "head": heads}
    assert dict(grouped.sizes) == {"of": 3, "matching": 3, "layer": 12, "head": heads}
    bounds = stored.read("grouping_references", name)
    assert dict(bounds.sizes) == {"of": 8, "matching": 3}
    own, another = (bounds.estimate.sel(of=of) for of in FOLLOWED[:2])
    assert (own > another).all() and (another > 0).all()
    for table, source in ((same, "CamVid"), (grouped, "BSDS500"), (bounds, "BSDS500")):
        assert {"model", "fingerprint", "convention", "computed", "level"} <= set(table.attrs)
        assert source in table.attrs["images"]
        assert table.attrs["fingerprint"] == stored.read("modes", name).attrs["fingerprint"]
        assert ((table.low <= table.estimate) & (table.estimate <= table.high)).mean() > 0.95


def test_both_studies_run_on_real_pictures(real_model, image_folder):
    found = qk.studies.same_object(real_model, qk.datasets.camvid(image_folder / "camvid-val")[:4])
    assert (found.objects >= 2).all()
    result = qk.studies.probability(found, draws=10)
    assert ((result.estimate.sel(of="modes") >= 0) & (result.estimate.sel(of="modes") <= 1)).all()
    grouped = qk.studies.grouping(real_model, qk.datasets.bsds500(image_folder / "bsds500-val")[:4])
    assert (grouped.same > 0).all() and grouped.attrs["people"] > 8
