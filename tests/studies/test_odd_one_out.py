"""The odd-one-out study against brute force from timm's own attention maps, and its null."""

from __future__ import annotations

from itertools import permutations

import numpy as np
import pytest
import torch
import xarray as xr
from PIL import Image

import qkutils as qk
from qkutils import statistics
from qkutils.records import Sample
from qkutils.studies import _odd_one_out

SIZE, PATCH = 32, 8
SHARES = ("share", "share_others", "null_share", "null_share_others")
REGIONS = ["target", "distractor", "background"]
DIMS = ("image", "layer", "head", "region")


def blob(generator: np.random.Generator, size: int, side: int) -> np.ndarray:
    """A mask with one square somewhere."""
    mask = np.zeros((size, size), dtype=bool)
    y, x = generator.integers(size - side, size=2)
    mask[y : y + side, x : x + side] = True
    return mask


def noise_samples(count: int, size: int = SIZE, seed: int = 0, cell: int = 1) -> list[Sample]:
    """Pictures of noise with square masks that have nothing to do with them, and may overlap."""
    generator = np.random.default_rng(seed)
    out = []
    for n in range(count):
        grey = generator.integers(256, size=(size // cell, size // cell, 3), dtype=np.uint8)
        image = Image.fromarray(grey.repeat(cell, 0).repeat(cell, 1))
        masks = {name: blob(generator, size, size * 2 // 5) for name in REGIONS[:2]}
        out.append(Sample(f"noise-{n}", image, masks))
    return out


def timm_maps(model, image: Image.Image) -> np.ndarray:
    """Attention [layer, head, query, key] of timm's own unfused softmax."""
    maps, net = [], model.net
    hooks = [
        block.attn.attn_drop.register_forward_hook(lambda _, args, __: maps.append(args[0][0]))
        for block in net.blocks
    ]
    fused = [block.attn.fused_attn for block in net.blocks]
    for block in net.blocks:
        block.attn.fused_attn = False
    with torch.inference_mode():
        net(model.transform(image.convert("RGB"))[None])
    for hook, block, was in zip(hooks, net.blocks, fused, strict=True):
        hook.remove()
        block.attn.fused_attn = was
    return torch.stack(maps).double().numpy()


def covered(model, sample: Sample) -> np.ndarray:
    """Area of every patch [target or distractor, patch] that is covered, in plain loops."""
    masks = np.stack([sample.masks["target"], sample.masks["distractor"]])
    masks = qk.alignment.align(model, sample.image, masks)[1].numpy()
    masks[1] &= ~masks[0]
    rows, columns = model.grid
    high, wide = masks.shape[1] // rows, masks.shape[2] // columns
    return np.array(
        [
            [
                mask[r * high : (r + 1) * high, c * wide : (c + 1) * wide].mean()
                for r in range(rows)
                for c in range(columns)
            ]
            for mask in masks
        ]
    )


def brute_force(model, maps, sample, query="largest", patches="fraction", prefix="left out"):
    """Shares [without the own patch, layer, head, query, region] of one picture, in plain loops."""
    area = covered(model, sample)
    member = area if patches == "fraction" else (area >= 0.5).astype(float)
    if patches == "half":
        member[1] *= 1 - member[0]
    regions = np.vstack([member, 1 - member.sum(0)])
    first = model.prefix_tokens
    if prefix == "counted":
        regions = np.pad(regions, ((0, 1), (first, 0)))
        regions[3, :first] = 1
    out = np.full((2, *maps.shape[:2], 2, len(regions)), np.nan)
    for asking in range(2):
        if area[asking].max() < 0.5:
            continue
        weights = member[asking] / member[asking].sum()
        if query == "largest":
            weights = np.eye(len(weights))[list(area[asking]).index(area[asking].max())]
        for without in range(2):
            total = 0
            for i in np.flatnonzero(weights):
                row = maps[:, :, first + i].copy()
                if without:
                    row[..., first + i] = 0
                if prefix == "left out":
                    row = row[..., first:]
                row /= row.sum(-1, keepdims=True)
                total = total + weights[i] * row @ regions.T
            out[without, :, :, asking] = total
    return out


def assert_is_brute_force(found: xr.Dataset, model, samples, maps_of, atol: float, **options):
    """Every share and null share of a study, the null by laying masks on each other picture."""
    maps = {sample.key: maps_of(sample.image) for sample in samples}
    laid_on: dict[str, dict[str, str]] = {"target": {}, "distractor": {}}
    for sample in samples:
        one = found.sel(image=sample.key)
        wanted = brute_force(model, maps[sample.key], sample, **options)
        for name, values in zip(SHARES[:2], wanted, strict=True):
            np.testing.assert_allclose(one[name], values, atol=atol)
        for other in samples:
            null = brute_force(model, maps[other.key], sample, **options)
            for at, (query, hosts) in enumerate(laid_on.items()):
                close = [
                    np.allclose(one[name].sel(query=query), values[..., at, :], atol=atol)
                    for name, values in zip(SHARES[2:], null, strict=True)
                ]
                if all(close):
                    hosts[sample.key] = other.key
    for query, hosts in laid_on.items():
        asked = set(found.image.values[found.share.sel(query=query).notnull().any(DIMS[1:])])
        assert set(hosts) == asked and len(set(hosts.values())) == len(hosts)
        assert all(key != other for key, other in hosts.items())


OPTIONS = [
    {},
    {"query": "weighted"},
    {"patches": "half"},
    {"prefix": "counted"},
    {"query": "weighted", "patches": "half", "prefix": "counted"},
]


@pytest.mark.parametrize("options", OPTIONS, ids=str)
def test_every_option_is_brute_force_from_timms_own_attention(plain_vit, options):
    assert_is_timms_own(plain_vit, options)


@pytest.mark.parametrize("options", [OPTIONS[0], OPTIONS[-1]], ids=str)
def test_shares_of_any_shape_of_model_are_those_of_timms_own_attention(vit, options):
    assert_is_timms_own(vit, options)


@pytest.mark.parametrize("options", [OPTIONS[0], OPTIONS[-1]], ids=str)
def test_shares_count_the_position_bias(make_beit, options):
    assert_is_timms_own(make_beit(), options)


def assert_is_timms_own(net, options):
    model, samples = qk.load(net), noise_samples(3)
    found = qk.studies.odd_one_out(model, samples, batch_size=2, **options)
    assert_is_brute_force(
        found, model, samples, lambda image: timm_maps(model, image), 2e-6, **options
    )


@pytest.mark.parametrize("options", [{}, {"query": "weighted", "prefix": "counted"}], ids=str)
def test_shares_of_real_models_are_those_of_timms_own_attention(real_model, options):
    samples = noise_samples(3, 224, cell=28)
    found = qk.studies.odd_one_out(real_model, samples, **options)
    assert_is_brute_force(
        found, real_model, samples, lambda image: timm_maps(real_model, image), 2e-5, **options
    )


@pytest.mark.parametrize(
    ("modes", "salience"), [(slice(3), ("bias",)), ([0, 5], ()), (None, ("shift",))]
)
def test_shares_of_a_choice_of_modes_are_those_of_rebuilt_attention(plain_vit, modes, salience):
    model, samples = qk.load(plain_vit), noise_samples(3)
    modes = None if modes is None else qk.decompose(model, convention="exact").isel(mode=modes)

    def rebuilt(image):
        images = model.transform(image)[None]
        return (
            qk.rebuild_attention(model, images, modes, salience=salience).values[:, 0].astype(float)
        )

    found = qk.studies.odd_one_out(model, samples, modes=modes, salience=salience)
    assert_is_brute_force(found, model, samples, rebuilt, 1e-5)
    assert found.attrs["salience"] == ("+".join(salience) or "none")


def test_prefix_tokens_that_are_left_out_might_as_well_not_be_in_the_softmax(plain_vit):
    counted, left_out = (
        qk.studies.odd_one_out(plain_vit, noise_samples(4), prefix=p)
        for p in ("counted", "left out")
    )
    assert list(counted.region.values) == [*REGIONS, "prefix"]
    patches = counted.share.sel(region=REGIONS)
    assert counted.share.sel(region="prefix").max() > 0.01
    np.testing.assert_allclose(patches / patches.sum("region"), left_out.share, atol=1e-6)


@pytest.mark.parametrize("options", OPTIONS, ids=str)
def test_shares_and_areas_sum_to_one(plain_vit, options):
    found = qk.studies.odd_one_out(plain_vit, noise_samples(9), **options)
    small = found.share.isnull().any("region")  # distractors that cover no patch by half
    assert small.sel(query="distractor").any() and not small.sel(query="target").any()
    for name in (*SHARES, "area", "area_others"):
        total = found[name].sel(region=REGIONS if "area" in name else found.region)
        total = total.sum("region", skipna=False)
        np.testing.assert_allclose(total.fillna(1), 1, atol=1e-6)
    assert found.share.dims == ("image", "layer", "head", "query", "region")


def test_areas_are_those_of_plain_loops(plain_vit):
    model, samples = qk.load(plain_vit), noise_samples(4)
    found = qk.studies.odd_one_out(model, samples)
    for sample in samples:
        area, one = covered(model, sample), found.sel(image=sample.key)
        np.testing.assert_allclose(one.area[:2], area.mean(1), atol=1e-6)
        for q in range(2):
            others = np.delete(area, area[q].argmax(), axis=1)
            np.testing.assert_allclose(one.area_others[q, :2], others.mean(1), atol=1e-6)


def test_order_of_images_changes_nothing(plain_vit):
    samples = noise_samples(7)
    straight = qk.studies.odd_one_out(plain_vit, samples, batch_size=3)
    turned = qk.studies.odd_one_out(
        plain_vit, [samples[i] for i in (4, 2, 6, 0, 5, 1, 3)], batch_size=3
    )
    xr.testing.assert_allclose(turned.sel(image=straight.image), straight, atol=1e-6)
    null = noise_samples(3, seed=5)
    pictures = [sample.image for sample in null]
    straight = qk.studies.odd_one_out(plain_vit, samples[:2], null_images=pictures)
    turned = qk.studies.odd_one_out(plain_vit, samples[1::-1], null_images=pictures[::-1])
    xr.testing.assert_allclose(turned.sel(image=straight.image), straight, atol=1e-6)


def test_a_mask_that_covers_everything_is_neither_preferred_nor_avoided(plain_vit):
    everything = np.ones((SIZE, SIZE), dtype=bool)
    samples = [
        Sample(s.key, s.image, {"target": everything, "distractor": ~everything})
        for s in noise_samples(3)
    ]
    found = qk.studies.odd_one_out(plain_vit, samples).sel(query="target", region="target")
    for suffix in ("", "_others"):
        np.testing.assert_allclose(found["share" + suffix] / found["area" + suffix], 1, atol=1e-6)


def test_null_images_carry_every_mask_and_are_averaged(plain_vit):
    model, (one, two, *others) = qk.load(plain_vit), noise_samples(7)
    found = qk.studies.odd_one_out(model, [one], null_images=[other.image for other in others])
    wanted = [brute_force(model, timm_maps(model, other.image), one) for other in others]
    np.testing.assert_allclose(found.null_share[0], np.mean(wanted, 0)[0], atol=2e-6)
    np.testing.assert_allclose(found.null_share_others[0], np.mean(wanted, 0)[1], atol=2e-6)
    assert found.null_on_object.isnull().all()  # nobody knows what lies there
    both = qk.studies.odd_one_out(model, [one, two], null_images=[others[0].image])
    for sample in (one, two):
        wanted = brute_force(model, timm_maps(model, others[0].image), sample)
        np.testing.assert_allclose(both.null_share.sel(image=sample.key), wanted[0], atol=2e-6)


def test_the_null_asks_from_the_same_sort_of_object_as_far_as_there_are_some(plain_vit):
    """Of all ways in which every layout is on another picture, none has more on such objects."""
    model, samples = qk.load(plain_vit), noise_samples(7, seed=1)
    found = qk.studies.odd_one_out(model, samples)
    keys = found.image.values.tolist()
    samples = [sample for sample in samples if sample.key in keys]
    maps = [timm_maps(model, sample.image) for sample in samples]
    area = np.stack([covered(model, sample) for sample in samples])
    for query in range(2):
        asks = area[:, query].argmax(-1)
        lies = area[None, :, query][..., asks][0].T  # [layout, picture]
        lies[area[:, query].max(-1) < 0.5] = 0
        ways = [p for p in permutations(range(len(keys))) if all(a != b for a, b in enumerate(p))]
        best = max(sum(lies[n, on] for n, on in enumerate(way)) for way in ways)
        chance = np.mean([sum(lies[n, on] for n, on in enumerate(way)) for way in ways])
        assert best > chance + 0.5
        told, null = found.null_on_object[:, query], found.null_share[:, :, :, query]
        assert float(told.sum()) == pytest.approx(best, abs=1e-5)
        for n in np.flatnonzero(told > 0.5):
            of_pictures = [brute_force(model, each, samples[n])[0, :, :, query] for each in maps]
            host = [np.allclose(null[n], values, atol=2e-6) for values in of_pictures].index(True)
            assert lies[n, host] == pytest.approx(float(told[n]), abs=1e-6)


def made_up_vit(make_vit, seen: torch.Tensor, of_place: torch.Tensor, asks: torch.Tensor):
    """One layer whose token holds its patch's mean colour and its place; queries = keys = asks."""
    width = 24
    net = make_vit(embed_dim=width, num_heads=1, depth=3, class_token=False, global_pool="avg")
    with torch.no_grad():
        for tensor in net.parameters():
            tensor.zero_()
        net.patch_embed.proj.weight[: len(seen)] = seen[..., None, None] / PATCH**2
        net.pos_embed[0, :, -of_place.shape[1] :] = of_place
        for block in net.blocks:
            block.norm1.weight.fill_(1)
            block.attn.qkv.weight[:width] = torch.diag(asks)
            block.attn.qkv.weight[width : 2 * width] = torch.diag(asks)
    net.pretrained_cfg = {"mean": (0.5,) * 3, "std": (0.5,) * 3, "crop_pct": 1.0}
    return net


# So that LayerNorm does not blow up the colour of a grey patch.
UNREAD = torch.tensor([1.0, -1]).repeat(16, 4)


def waves() -> torch.Tensor:
    """Cosines and sines of a patch's row and column: their products depend on distance alone."""
    axis = torch.arange(SIZE // PATCH) * torch.pi / 4
    row, column = torch.meshgrid(axis, axis, indexing="ij")
    parts = [f(t.flatten()) for t in (row, column) for f in (torch.cos, torch.sin)]
    return torch.stack([*parts, *(-p for p in parts)], 1)  # of mean zero


def coloured_samples(count: int) -> list[Sample]:
    """A red square and a green one on noisy grey."""
    out = []
    for sample in noise_samples(count, cell=PATCH, seed=3):
        pixels = np.asarray(sample.image) // 8 + 112
        pixels[sample.masks["distractor"]] = (20, 200, 20)
        pixels[sample.masks["target"]] = (200, 20, 20)
        out.append(Sample(sample.key, Image.fromarray(pixels), sample.masks))
    return out


def excess_on_own(found: xr.Dataset, others: bool) -> xr.Dataset:
    excess = qk.studies.share_excess(found, others).sel(query="target", region="target")
    return statistics.bootstrap(excess.isel(head=0, layer=0))


@pytest.mark.parametrize("content", [0.0, 1.0])
def test_attention_by_distance_alone_has_no_excess_over_the_null(make_vit, content):
    """Content that attention does not read still changes LayerNorm's scale: noise, no excess."""
    seen = content * torch.eye(3)[[0, 0, 1, 1, 2, 2]] * torch.tensor([1, -1.0])[[0, 1] * 3][:, None]
    asks = torch.cat([torch.zeros(16), 3 * torch.ones(8)])
    net = made_up_vit(make_vit, seen, waves(), asks)
    found = qk.studies.odd_one_out(net, noise_samples(150, cell=PATCH))
    enrichment = (found.share_others / found.area_others).sel(query="target", region="target")
    assert enrichment.mean() > 1.3  # what looks like grouping, and is geometry
    for others in (False, True):
        excess = excess_on_own(found, others)
        if content:
            assert 0 < excess.high - excess.low < 0.1
            assert excess.low < 0 < excess.high
        else:
            assert abs(qk.studies.share_excess(found, others)).max() < 1e-6


def test_attention_by_colour_has_excess_over_the_null(make_vit):
    seen = torch.eye(3)[[0, 0, 1, 1, 2, 2]] * torch.tensor([1, -1.0])[[0, 1] * 3][:, None]
    asks = torch.cat([2 * torch.ones(6), torch.zeros(18)])
    found = qk.studies.odd_one_out(made_up_vit(make_vit, seen, UNREAD, asks), coloured_samples(40))
    for others in (False, True):
        assert excess_on_own(found, others).low > 0.05


def test_the_contrast_of_early_and_late_is_told_with_its_sign(make_vit):
    """Of three equal layers only the first keeps its queries."""
    seen = torch.eye(3)[[0, 0, 1, 1, 2, 2]] * torch.tensor([1, -1.0])[[0, 1] * 3][:, None]
    asks = torch.cat([2 * torch.ones(6), torch.zeros(18)])
    net = made_up_vit(make_vit, seen, UNREAD, asks)
    found = qk.studies.odd_one_out(net, coloured_samples(40))
    assert qk.studies.late_minus_early(found).estimate == pytest.approx(0, abs=1e-6)
    with torch.no_grad():
        net.blocks[2].attn.qkv.weight.zero_()
    found = qk.studies.odd_one_out(net, coloured_samples(40))
    contrast = qk.studies.late_minus_early(found)
    assert statistics.sign(contrast) == -1 and contrast.high < 0
    assert statistics.sign(qk.studies.late_minus_early(found, "different")) == 1


def test_relations_group_as_in_the_paper(plain_vit):
    share = qk.studies.odd_one_out(plain_vit, noise_samples(5)).share
    found = qk.studies.relations(share)
    assert list(found.relation.values) == ["same", "different", "background"]
    np.testing.assert_allclose(found.sum("relation"), 1, atol=1e-6)
    same = (share[..., 0, 0] + share[..., 1, 1]) / 2
    np.testing.assert_allclose(found.sel(relation="same"), same, atol=1e-6)


def test_samples_that_cannot_be_studied_are_counted_and_left_out(make_vit):
    net = make_vit(seed=2)
    net.pretrained_cfg = {"crop_pct": 0.5}  # the middle half of each side is seen
    middle, corner, dot, none = (np.zeros((SIZE, SIZE), dtype=bool) for _ in range(4))
    middle[8:24, 8:24], corner[:6, :6], dot[15:17, 15:17] = True, True, True
    masks = {"whole": (middle, none), "away": (corner, middle), "small": (dot, middle)}
    masks |= {"nothing": (none, middle), "both": (middle & (np.arange(SIZE) < 16), middle)}
    samples = [
        Sample(key, noise.image, dict(zip(REGIONS, pair, strict=False)))
        for noise, (key, pair) in zip(noise_samples(5), masks.items(), strict=True)
    ]
    found = qk.studies.odd_one_out(net, samples)
    assert list(found.image.values) == ["whole", "both"]
    assert found.attrs["left out: no target"] == 1
    assert found.attrs["left out: target cut away"] == 1
    assert found.attrs["left out: target too small"] == 1
    assert found.attrs["distractor too small"] == 1
    assert found.share.sel(image="whole", query="distractor").isnull().all()
    assert found.share.sel(query="target").notnull().all()
    assert found.share.sel(image="both").notnull().all()


class Interrupted(Exception):
    """What stands for a person's Ctrl-C."""


def test_an_interrupted_run_is_taken_up_where_it_stood(plain_vit, tmp_path, monkeypatch):
    samples, path = noise_samples(7), tmp_path / "o3 shares.nc"
    unbroken = qk.studies.odd_one_out(plain_vit, samples, batch_size=2)
    measure, calls = _odd_one_out._shares, []

    def limited(*args, **kwargs):
        calls.append(1)
        if len(calls) == 3 * 2 + 1:  # three layers a batch
            raise Interrupted
        return measure(*args, **kwargs)

    monkeypatch.setattr(_odd_one_out, "_shares", limited)
    with pytest.raises(Interrupted):
        qk.studies.odd_one_out(plain_vit, samples, batch_size=2, path=path)
    assert not path.exists()
    kept = sorted(p.name for p in tmp_path.rglob("*.npy"))
    assert kept == ["0.npy", "2.npy"]
    resumed = qk.studies.odd_one_out(plain_vit, samples, batch_size=2, path=path)
    assert len(calls) == 2 * 3 + 1 + 2 * 3  # two batches, what failed, and the two that were left
    xr.testing.assert_equal(resumed, unbroken)
    assert [p.name for p in tmp_path.iterdir()] == [path.name]
    again = qk.studies.odd_one_out(plain_vit, samples, batch_size=2, path=path)
    assert len(calls) == 13
    xr.testing.assert_equal(again, unbroken)
    assert again.attrs == resumed.attrs


@pytest.mark.parametrize("change", ["options", "pictures", "masks", "model", "null"])
def test_a_file_with_another_study_is_not_taken_for_this_one(plain_vit, make_vit, tmp_path, change):
    samples, path = noise_samples(3), tmp_path / "shares.nc"
    qk.studies.odd_one_out(plain_vit, samples, path=path)
    other = noise_samples(3, seed=1)
    options = {"query": "weighted"} if change == "options" else {}
    if change == "null":
        options = {"null_images": [other[0].image]}
    if change == "pictures":
        samples = [Sample(s.key, o.image, s.masks) for s, o in zip(samples, other, strict=True)]
    if change == "masks":
        samples = [Sample(s.key, s.image, o.masks) for s, o in zip(samples, other, strict=True)]
    model = make_vit(seed=9) if change == "model" else plain_vit
    with pytest.raises(ValueError, match="shares.nc"):
        qk.studies.odd_one_out(model, samples, path=path, **options)


def test_parts_of_another_study_are_not_taken_for_this_ones(plain_vit, tmp_path, monkeypatch):
    samples, path = noise_samples(3), tmp_path / "shares.nc"
    with monkeypatch.context() as patch:
        patch.setattr(_odd_one_out, "_label", lambda *_: (_ for _ in ()).throw(Interrupted))
        with pytest.raises(Interrupted):
            qk.studies.odd_one_out(plain_vit, samples, path=path)
    assert len(list(tmp_path.rglob("*.npy"))) == 1
    found = qk.studies.odd_one_out(plain_vit, samples, path=path, patches="half")
    xr.testing.assert_equal(found, qk.studies.odd_one_out(plain_vit, samples, patches="half"))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"query": "centre"}, "query='centre': it is one of 'largest', 'weighted'"),
        ({"patches": "any"}, "patches='any'"),
        ({"prefix": "in"}, "prefix='in'"),
        ({"batch_size": 0}, "batch_size=0"),
        ({"modes": 99}, "modes: .* decompose"),
        ({"salience": ("value",)}, "salience=.* 'bias', 'shift'"),
    ],
)
def test_unknown_options_are_refused_before_a_picture_is_read(
    plain_vit, change, message, unchecked
):
    with pytest.raises(ValueError, match=message):
        qk.studies.odd_one_out(plain_vit, [None, None], **change)


def test_samples_that_do_not_fit_are_refused_by_name(plain_vit):
    first, second = noise_samples(2)
    with pytest.raises(ValueError, match="null_images: one sample"):
        qk.studies.odd_one_out(plain_vit, [first])
    with pytest.raises(ValueError, match="'noise-0' occur more than once"):
        qk.studies.odd_one_out(plain_vit, [first, first])
    with pytest.raises(ValueError, match="'noise-1' has masks .*'target'.* distractor"):
        less = Sample(second.key, second.image, {"target": second.masks["target"]})
        qk.studies.odd_one_out(plain_vit, [first, less])
    with pytest.raises(ValueError, match="none of 0 samples"):
        qk.studies.odd_one_out(plain_vit, [])
    nothing = np.zeros((SIZE, SIZE), dtype=bool)
    empty = Sample("empty", first.image, {"target": nothing, "distractor": nothing})
    with pytest.raises(ValueError, match="none of 1 samples .*'no target': 1"):
        qk.studies.odd_one_out(plain_vit, [empty])
    other = {"target": nothing, "distractor": np.zeros((64, 64), dtype=bool)}
    with pytest.raises(ValueError, match="'two sizes': target mask .* one size"):
        qk.studies.odd_one_out(plain_vit, [Sample("two sizes", first.image, other)])


def test_grey_and_transparent_pictures_are_read_as_colour(plain_vit):
    samples = noise_samples(3)
    grey = [Sample(s.key, s.image.convert("L"), s.masks) for s in samples]
    colour = [Sample(s.key, s.image.convert("L").convert("RGB"), s.masks) for s in samples]
    found, wanted = (qk.studies.odd_one_out(plain_vit, s).share for s in (grey, colour))
    np.testing.assert_array_equal(found, wanted)


def test_results_say_where_they_come_from(plain_vit):
    attributes = qk.studies.odd_one_out(plain_vit, noise_samples(2), query="weighted").attrs
    assert attributes["query"] == "weighted" and attributes["patches"] == "fraction"
    assert "salience" in attributes


def test_scenes_come_as_samples_with_their_masks():
    samples = qk.world.samples(seed=4, start=60, stop=130)
    world = qk.world.make(4, 60, 130, odd=qk.world.ODD_FACTORS[:-1])
    assert len(samples) == 70
    for at in (0, 5, 69, 63, 64):
        sample = samples[at]
        assert sample.key == f"scene-4-{60 + at}"
        drawn = np.asarray(sample.image) / 255
        assert abs(drawn - world.image[at].movedim(0, -1).numpy()).max() <= 1.1 / 255
        for name, role in (("target", qk.world.TARGET), ("distractor", qk.world.DISTRACTOR)):
            assert (sample.masks[name] == world.mask(role)[at].numpy()).mean() > 0.999
        assert sample.masks["target"].any()
    assert samples[-1].key == samples[69].key
    assert len({sample.key for sample in samples[60:]}) == 10
    with pytest.raises(IndexError):
        samples[70]
    with pytest.raises(ValueError, match="stop="):
        qk.world.samples(0, 3, 3)
    with pytest.raises(ValueError, match="odd="):
        qk.world.samples(0, 0, 3, odd=["shape"])


def test_the_embedded_world_is_studied():
    found = qk.studies.odd_one_out("tiny-supervised", qk.world.samples(seed=0, start=0, stop=6))
    assert found.sizes["image"] + found.attrs["left out: target too small"] == 6
    assert found.sizes["layer"] == 8 and found.share.notnull().all()


def test_interval_over_images_covers_the_standard_error():
    values = np.random.default_rng(0).normal(size=(3, 400))
    found = statistics.bootstrap(xr.DataArray(values, dims=("layer", "image"), name="x"))
    np.testing.assert_allclose(found.estimate, values.mean(1))
    width = (found.high - found.low) / (2 * 1.96)
    np.testing.assert_allclose(width, values.std(1) / 20, rtol=0.1)


def test_images_without_a_value_do_not_count_in_an_interval():
    values = np.array([1.0, np.nan, 3, np.nan, 5, 7])
    found = statistics.bootstrap(xr.DataArray(values, dims="image"))
    assert found.estimate == 4 and 1 <= found.low < found.high <= 7
    with pytest.raises(ValueError, match="values: 1 "):
        statistics.bootstrap(xr.DataArray(values[:2], dims="image"))


def test_contrast_over_images_keeps_an_images_layers_together():
    """Images differ much in level and not at all in their trend: the contrast is certain."""
    level = np.random.default_rng(0).normal(size=(50, 1))
    values = xr.DataArray(level + np.arange(6.0), dims=("image", "layer"))
    contrast = statistics.late_minus_early(values)
    assert contrast.estimate == pytest.approx(4)
    assert contrast.high - contrast.low < 1e-9
    noisy = values + np.random.default_rng(1).normal(size=values.shape)
    width = statistics.late_minus_early(noisy)
    assert (width.high - width.low) / 3.92 == pytest.approx(1 / 50**0.5, rel=0.25)


def test_area_of_relations_is_what_even_attention_gives(make_vit):
    model = qk.load(make_vit(embed_dim=24, num_heads=2, img_size=64, patch_size=8))
    with torch.no_grad():
        for block in model.net.blocks:  # every score is zero: attention is spread evenly
            block.attn.qkv.weight.zero_()
            block.attn.qkv.bias.zero_()
    found = qk.studies.odd_one_out(model, qk.world.samples(3, 0, 4))
    even = qk.studies.relations(found.share).mean(["image", "head", "layer"])
    area = qk.studies.area_of_relations(found)
    np.testing.assert_allclose(even.sel(relation=area.relation), area, atol=1e-6)
