"""Galleries against brute force over all tokens, and what may not change their result."""

from __future__ import annotations

import itertools
import os
import signal
import subprocess
import sys
import threading
import time
import weakref
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from types import SimpleNamespace

import distributed
import numpy as np
import pytest
import torch
import xarray as xr
from PIL import Image

import qkutils as qk
from qkutils import cli
from qkutils.atlas._reading import logit_variances, sinks
from qkutils.atlas._state import Atlas, decode, empty, encode, exact
from qkutils.datasets import Reading, Report
from qkutils.gauge import prepare, watching
from qkutils.passes import visit_layers
from qkutils.records import Sample

ALL = ("variance", "anisotropy", "sinks")


def scan(*args, **options) -> xr.Dataset:
    return qk.scan(*args, progress=False, **options)


def random_images(count: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(count, 3, 32, 32, generator=torch.Generator().manual_seed(seed))


def tokens_of(model, images: torch.Tensor) -> np.ndarray:
    """The residual stream [layer, image, token, d_model] at every block's input, in float64."""
    layers: list[list[np.ndarray]] = [[] for _ in model.net.blocks]
    visit_layers(model, images, lambda n, _, x: layers[n].append(x.double().numpy()))
    return np.stack([np.concatenate(layer) for layer in layers])


def normalised(x: np.ndarray, eps: float) -> np.ndarray:
    x = x - x.mean(-1, keepdims=True)
    return x / np.sqrt((x**2).mean(-1, keepdims=True) + eps)


def weights_of(net, layer: int) -> tuple[np.ndarray, ...]:
    """W_q, W_k, b_q, LayerNorm's gain and shift of timm's own module, in float64."""
    attn, norm = net.blocks[layer].attn, net.blocks[layer].norm1
    weight = attn.qkv.weight.double().numpy().reshape(3, attn.num_heads, -1, len(norm.weight))
    bias = np.zeros(weight.shape[:3])
    if attn.qkv.bias is not None:
        bias = attn.qkv.bias.double().numpy().reshape(bias.shape)
    gain, shift = norm.weight.double().numpy(), norm.bias.double().numpy()
    return weight[0], weight[1], bias[0], gain, shift


def brute_force(net, images: torch.Tensor, convention: str) -> dict[str, np.ndarray]:
    """Scores and patches of all images, and both statistics, from full matrices in numpy.

    Scores are [layer, head, mode, sign, image], with 0 where a maximum is not positive.
    """
    model = qk.load(net)
    found: dict[str, list] = {"score": [], "query": [], "key": [], "variance": [], "kappa": []}
    for layer, x in enumerate(tokens_of(model, images)):
        w_q, w_k, b_q, gain, shift = weights_of(model.net, layer)
        token, through = x, np.eye(len(gain))
        if convention == "exact":
            token = normalised(x, model.net.blocks[layer].norm1.eps)
            through = np.diag(gain) @ (np.eye(len(gain)) - 1 / len(gain))
        per_head: dict[str, list] = {name: [] for name in found}
        for q, k, b in zip(w_q, w_k, b_q, strict=True):
            u, sigma, vt = np.linalg.svd(through.T @ q.T @ k @ through)
            u, sigma, v = u[:, : len(q)], sigma[: len(q)], vt[: len(q)].T
            turn = np.sign(u[np.abs(u).argmax(0), range(len(q))])
            a, c = token @ (u * turn), token @ (v * turn)
            power, spread = (a**2).mean(1), c.var(1)
            per_head["variance"].append((sigma**2 * power * spread).mean(0) / len(q))
            kappa = through.T @ k.T @ (b + q @ shift)
            per_head["kappa"].append((token @ kappa).var(1).mean() / len(q))
            a, c = (each[:, model.prefix_tokens :] for each in (a, c))
            signed = [(s * a, s * c) for s in (1, -1)]
            tops = [(p.max(1).clip(0) * r.max(1).clip(0)).T for p, r in signed]
            per_head["score"].append(np.stack(tops, 1))
            for name, which in (("query", 0), ("key", 1)):
                per_head[name].append(np.stack([pair[which].argmax(1).T for pair in signed], 1))
        for name, values in per_head.items():
            found[name].append(np.stack(values))
    return {name: np.stack(values) for name, values in found.items()}


def check_against_brute_force(net, images: torch.Tensor, convention: str, k: int) -> xr.Dataset:
    """Asserts that scores, images and patches are those of brute force, ties apart."""
    atlas = scan(net, images, k=k, convention=convention, statistics=ALL[:2], batch_size=4)
    wanted = brute_force(net, images, convention)
    best = -np.sort(-wanted["score"], -1)[..., :k]
    score = atlas.score.fillna(0).values
    largest = wanted["score"].max((-1, -2, -3), keepdims=True).max((0, 1), keepdims=True)
    tolerance = 3e-5 * best + 1e-6 * largest
    assert (np.abs(score - best) <= tolerance).all()
    # Whichever image stands at a rank, its own true score must be the one that is stored.
    there = atlas.image.values >= 0
    number = np.where(there, atlas.image.values, 0)
    own = np.take_along_axis(wanted["score"], number, -1)
    assert (np.abs(own - score) <= tolerance)[there].all()
    assert (best[~there] <= tolerance[~there]).all()
    # Where the ranks are clear, image and patches are the same.
    padded = -np.sort(-wanted["score"], -1)[..., : k + 1]
    gap = padded[..., :-1] - padded[..., 1:] if padded.shape[-1] > k else np.diff(-padded)
    gap = np.pad(gap, [(0, 0)] * 4 + [(0, k - gap.shape[-1])], constant_values=np.inf)
    clear = there & (gap > 4 * tolerance)
    clear[..., 1:] &= gap[..., :-1] > 4 * tolerance[..., 1:]
    assert clear.mean() > 0.5 * there.mean()
    order = np.argsort(-wanted["score"], -1, kind="stable")[..., :k]
    assert (order == number)[clear].all()
    for name in ("query", "key"):
        patch = np.take_along_axis(wanted[name], number, -1)
        assert (patch == atlas[f"{name}_patch"].values)[clear].mean() > 0.999
    np.testing.assert_allclose(atlas.logit_variance, wanted["variance"], rtol=1e-3, atol=1e-5)
    if convention == "exact":
        np.testing.assert_allclose(atlas.salience_variance, wanted["kappa"], rtol=1e-3, atol=1e-6)
    else:
        assert (atlas.salience_variance == 0).all()
    return atlas


@pytest.mark.parametrize("convention", ["exact", "paper"])
def test_a_scan_equals_brute_force(vit, convention):
    atlas = check_against_brute_force(vit, random_images(11), convention, k=3)
    patches = atlas.attrs["grid"][0] * atlas.attrs["grid"][1]
    found = atlas.query_patch.values[atlas.image.values >= 0]
    assert found.min() == 0 and found.max() == patches - 1


@pytest.mark.parametrize("convention", ["exact", "paper"])
def test_a_scan_of_an_embedded_model_equals_brute_force(convention):
    images = (qk.world.make(0, 0, 12).image - 0.5) / 0.5
    check_against_brute_force(qk.load("tiny-supervised").net, images, convention, k=4)


@pytest.mark.parametrize("convention", ["exact", "paper"])
def test_real_models_equal_brute_force(real_model, real_images, convention):
    check_against_brute_force(real_model.net, real_images, convention, k=2)


@pytest.mark.parametrize("k", [5, 9])
def test_more_ranks_than_images_leave_empty_places(plain_vit, k):
    atlas = scan(plain_vit, random_images(4), k=k)
    last = atlas.isel(rank=slice(4, None))
    assert last.score.isnull().all()
    assert (last.image == -1).all() and (last.query_patch == -1).all()
    assert (last.key_patch == -1).all()
    check_against_brute_force(plain_vit, random_images(4), "exact", k=4)


def two_prefix_tokens(make_vit):
    return make_vit(seed=2, reg_tokens=1, no_embed_class=True)


def test_a_prefix_token_is_never_optimal(make_vit):
    net = two_prefix_tokens(make_vit)
    with torch.no_grad():  # prefix tokens that would win everywhere
        net.cls_token.mul_(100)
        net.reg_token.mul_(100)
    for convention in ("exact", "paper"):
        check_against_brute_force(net, random_images(6), convention, k=2)


def test_the_gauge_leaves_attention_as_it_is_and_is_used(vit, images):
    model = qk.load(vit)
    projections = prepare(model, "exact")
    square = projections.heads.w_q.shape[2] == projections.heads.w_q.shape[3]
    if square:  # centring takes one dimension from it, so it has a null mode
        return
    assert all(layer.rows is None for layer in projections.layers)
    logits: list[torch.Tensor] = []
    before = {name: tensor.clone() for name, tensor in vit.state_dict().items()}
    visit = lambda n, q, k: logits.append(q @ k.mT * projections.heads.scale)  # noqa: E731
    with watching(projections, visit) as forward:
        forward(images)
    wanted = qk.observed_attention(model, images).values
    np.testing.assert_allclose(torch.stack(logits).softmax(-1), wanted, atol=1e-5)
    assert all((before[name] == tensor).all() for name, tensor in vit.state_dict().items())
    assert not any(b.attn.q_norm._forward_hooks or b._forward_pre_hooks for b in vit.blocks)


def test_null_modes_take_the_explicit_way(make_vit):
    net = make_vit(seed=5)
    with torch.no_grad():
        net.blocks[1].attn.qkv.weight[0] = net.blocks[1].attn.qkv.weight[1]
    explicit = [layer.rows is not None for layer in prepare(qk.load(net), "exact").layers]
    assert explicit == [False, True, False]
    atlas = scan(net, random_images(5), k=2, statistics=("variance",))
    wanted = brute_force(net, random_images(5), "exact")
    np.testing.assert_allclose(atlas.logit_variance, wanted["variance"], rtol=1e-3, atol=1e-5)
    np.testing.assert_allclose(atlas.salience_variance, wanted["kappa"], rtol=1e-3)
    # The null mode itself has no direction of its own to compare.
    best = -np.sort(-wanted["score"], -1)[:, 1:, :, :, :2]
    np.testing.assert_allclose(atlas.score.fillna(0)[:, 1:], best, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("fused", [True, False])
def test_eva_takes_the_gauge(fill, fused):
    from timm.models.eva import Eva

    net = Eva(
        img_size=32, patch_size=8, embed_dim=48, depth=2, num_heads=3, num_classes=4,
        qkv_fused=fused, use_rot_pos_emb=False, scale_attn_inner=False,
    )  # fmt: skip
    fill(net, 3)
    model = qk.load(net)
    turned = prepare(model, "exact")
    assert turned.parameters
    images, got = random_images(3), {"turned": [], "plain": []}
    for name, parameters in (("turned", turned.parameters), ("plain", {})):
        one = type(turned)(turned.model, turned.heads, "exact", turned.layers, parameters)
        keep = lambda _, q, k, name=name: got[name].append(q @ k.mT)  # noqa: E731
        with watching(one, keep) as forward:
            forward(images)
    for one, other in zip(got["turned"], got["plain"], strict=True):
        torch.testing.assert_close(one, other, atol=1e-4, rtol=1e-4)


def test_anisotropy_is_the_mean_cosine_of_centre_tokens(make_vit):
    for size, change in ((32, {}), (40, {"img_size": 40})):
        net = make_vit(seed=6, **change)
        images = torch.randn(7, 3, size, size, generator=torch.Generator().manual_seed(1))
        model, rows = qk.load(net), size // 8
        middle = [1, 2] if rows == 4 else [2]
        for convention in ("paper", "exact"):
            x = tokens_of(model, images)
            x = normalised(x, 1e-6) if convention == "exact" else x
            centre = x[:, :, 1:].reshape(*x.shape[:2], rows, rows, -1)[:, :, middle][
                :, :, :, middle
            ]
            centre = centre.mean((2, 3))
            centre = centre / np.linalg.norm(centre, axis=-1, keepdims=True)
            pairs = list(itertools.combinations(range(7), 2))
            wanted = np.mean([(centre[:, a] * centre[:, b]).sum(-1) for a, b in pairs], 0)
            atlas = scan(
                net, images, k=1, convention=convention, statistics=("anisotropy",), batch_size=3
            )
            np.testing.assert_allclose(atlas.anisotropy, wanted, atol=1e-6)


def test_sinks_are_counted_in_the_models_own_attention(make_vit):
    net, images = make_vit(seed=7), random_images(9)
    with torch.no_grad():  # in one layer a bias draws every query to whatever key has most of it
        net.blocks[1].attn.qkv.bias[:16] += 6
        net.blocks[2].attn.qkv.bias[:64] += 6
    attention = qk.observed_attention(net, images).values
    share = (attention >= 0.5).mean(3)
    wanted = (share.max(-1) >= 0.9).mean(1)
    on_prefix = ((share.max(-1) >= 0.9) & (share.argmax(-1) == 0)).mean(1)
    atlas = scan(net, images, k=1, statistics=("sinks",), batch_size=4)
    assert 0 < wanted.sum() < wanted.size
    np.testing.assert_allclose(atlas.sink, wanted)
    np.testing.assert_allclose(atlas.sink_on_prefix, on_prefix)
    assert all(block.attn.fused_attn for block in net.blocks)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """Pictures of every colour mode, turned, copied, in subfolders, and two that are broken."""
    folder = tmp_path_factory.mktemp("pictures")
    (folder / "sub").mkdir()
    rng = np.random.default_rng(0)
    for n, mode in enumerate(["RGB", "L", "CMYK", "P", "RGBA", "1", "LA", "RGB", "RGB", "L"]):
        kind = "jpg" if mode == "CMYK" else "png"
        noise = Image.fromarray(rng.integers(0, 255, (5, 6, 3), dtype=np.uint8)).resize((48, 40))
        noise.convert(mode).save(folder / ("sub" if n % 3 == 0 else "") / f"{n}.{kind}")
    exif = Image.Exif()
    exif[274] = 6
    Image.open(folder / "7.png").save(folder / "turned.jpg", exif=exif)
    for copy in ("a_copy.png", "z_copy.png"):
        (folder / copy).write_bytes((folder / "7.png").read_bytes())
    whole = (folder / "8.png").read_bytes()
    (folder / "cut_off.png").write_bytes(whole[: len(whole) // 2])
    (folder / "text.jpg").write_text("no picture")
    return folder


@pytest.fixture(scope="module")
def atlas(plain_vit, folder) -> xr.Dataset:
    """A scan of the folder with all statistics, one picture at a time."""
    with pytest.warns(UserWarning, match="2 images can't be read"):
        return scan(plain_vit, folder, k=3, statistics=ALL, batch_size=1, workers=1)


def test_broken_files_are_reported_and_left_out(atlas, plain_vit, folder, tmp_path):
    faults = dict(zip(atlas.key.values, atlas.fault.values, strict=True))
    assert {key for key, why in faults.items() if why} == {"cut_off.png", "text.jpg"}
    assert "text.jpg" in faults["text.jpg"]
    assert not set(atlas.image.values.ravel()) & set(np.flatnonzero(atlas.fault.values != ""))
    assert int(atlas.done.sum()) == 13
    (tmp_path / "only.png").write_text("no picture")
    with pytest.raises(ValueError, match="none of 1 images can be read.*only.png"):
        scan(plain_vit, tmp_path)


def test_a_turned_picture_is_turned_back(plain_vit, folder):
    model = qk.load(plain_vit)
    pictures = qk.pictures_of(folder, model)
    upright = Image.open(folder / "turned.jpg").transpose(Image.Transpose.ROTATE_270)
    got = pictures.read(pictures.keys.index("turned.jpg"))
    assert (got == model.transform(upright)).all()


@pytest.mark.filterwarnings("ignore:2 images can't be read")
@pytest.mark.parametrize(("batch_size", "workers"), [(2, 1), (3, 4), (5, 2), (64, 3)])
def test_batches_and_workers_change_nothing(atlas, plain_vit, folder, batch_size, workers):
    again = scan(plain_vit, folder, k=3, statistics=ALL, batch_size=batch_size, workers=workers)
    assert again.identical(atlas)


def test_memory_does_not_grow_with_the_number_of_images(plain_vit):
    """Pictures of four batches are there at most: in use, being gathered, and two ahead."""
    lock, there, most = threading.RLock(), 0, 0

    def count(step: int) -> None:
        nonlocal there, most
        with lock:
            there += step
            most = max(most, there)

    def read(number: int) -> torch.Tensor:
        image = torch.randn(3, 32, 32, generator=torch.Generator().manual_seed(number))
        count(1)
        weakref.finalize(image, count, -1)
        return image

    pictures = qk.pictures.Pictures([f"{n:03d}" for n in range(120)], read)
    atlas = scan(plain_vit, pictures, k=2, batch_size=4)
    assert int(atlas.done.sum()) == 120
    assert 4 <= most <= 16


def test_order_changes_nothing_and_copies_tie_by_key(plain_vit):
    images = random_images(9)
    images[[1, 4]] = images[7].clone()
    keys = ["e", "p2", "b", "i", "p1", "a", "z", "p3", "c"]
    atlas = scan(plain_vit, images, k=4, statistics=ALL, keys=keys)
    order = [3, 7, 0, 8, 1, 2, 6, 4, 5]
    shuffled = scan(
        plain_vit,
        images[order],
        k=4,
        statistics=ALL,
        keys=[keys[n] for n in order],
        batch_size=2,
    )
    assert shuffled.identical(atlas)
    copies = [atlas.key.values.tolist().index(key) for key in ("p1", "p2", "p3")]
    rows = atlas.image.values.reshape(-1, 4)
    with_copies = [row for row in rows if row[0] == copies[0]]
    assert len(with_copies) > 5
    assert all(list(row[:3]) == copies for row in with_copies)
    assert not np.isin(rows[:, 0], copies[1:]).any()


def test_rounding_of_the_forward_pass_does_not_part_copies(make_vit):
    net, images = make_vit(seed=8), random_images(1).repeat(6, 1, 1, 1)
    noise = torch.Generator().manual_seed(0)

    def disturb(_, args):
        x = args[0]
        return (x * (1 + 1e-7 * torch.randn(x.shape, generator=noise)),)

    hook = net.blocks[0].register_forward_pre_hook(disturb)
    atlas = scan(net, images, k=3)
    hook.remove()
    there = atlas.image.values[..., 0] >= 0
    # Some scores lie so near to where rounding turns that noise parts them all the same.
    assert (atlas.image.values[there] == [0, 1, 2]).all(-1).mean() > 0.8


def test_a_code_sorts_by_score_then_by_number():
    score = torch.tensor([3.0, 3.0 * (1 + 1e-7), 1e-20, 0.0, -2.0, 3.1])
    code = encode(score, torch.arange(6))
    assert code.argsort(descending=True, stable=True).tolist() == [5, 0, 1, 2, 3, 4]
    back, number = decode(code)
    np.testing.assert_allclose(back[:3], score[:3], rtol=2**-17)
    assert back[3:5].isnan().all() and number.tolist() == [0, 1, 2, -1, -1, 5]


@pytest.mark.parametrize("precision", [torch.float32, torch.bfloat16])
def test_what_is_added_on_a_gpu_waits_for_nothing(plain_vit, precision):
    """Tensors on `meta` have no numbers to wait for, and do not mix with those on the CPU."""
    projections = prepare(qk.load(plain_vit), "exact")
    layer = projections.layers[1]
    met = {n: v.to("meta") for n, v in vars(layer).items() if isinstance(v, torch.Tensor)}
    layer, at = replace(layer, **met), {"device": "meta", "dtype": precision}
    atlas = Atlas(empty(projections, list("abcde"), 3, ALL), torch.device("meta"))
    query, key = torch.zeros(5, 4, 16, 16, **at), torch.zeros(5, 4, 16, 16, **at)
    numbers = torch.arange(5, device="meta")
    assert atlas.offer(1, numbers, layer, query, key).device.type == "meta"
    assert atlas.best.device.type == atlas.patches.device.type == "meta"
    terms = logit_variances(layer, query.float(), key.float(), 0.25)[0]
    atlas.sums["logit_variance_sum"][1] += exact(terms).sum(0)
    on_sinks, _ = sinks(torch.zeros(5, 4, 17, 17, device="meta"), 1)
    atlas.sums["sink_sum"][1] += exact(on_sinks).sum(0)


def test_an_exact_sum_knows_no_order():
    terms = torch.randn(1000, 3, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    terms *= torch.tensor([1e-6, 1.0, 1e12], dtype=torch.float64)
    sums = []
    for order in (torch.arange(1000), torch.randperm(1000)):
        words = sum(exact(part).sum(0) for part in terms[order].split(7))
        sums.append(words)
    assert (sums[0] == sums[1]).all()
    coarse, fine = sums[0].double().unbind(-1)
    np.testing.assert_allclose(coarse * 2**10 + fine / 2**30, terms.sum(0), rtol=1e-9, atol=1e-6)


class Stop(Exception):
    """What cuts a scan off in the test."""


@pytest.mark.filterwarnings("ignore:2 images can't be read")
@pytest.mark.parametrize("after", [0, 2])
def test_a_scan_that_was_cut_off_goes_on(atlas, plain_vit, folder, tmp_path, monkeypatch, after):
    qk.atlas.save(atlas, tmp_path / "whole.nc")
    out, note = tmp_path / "new" / "atlas.nc", Atlas.note
    seen: list[int] = []

    def stop(*given):
        if len(seen) == after:
            raise Stop
        count(*given)

    def count(*given):
        seen.append(1)
        note(*given)

    options = {"statistics": ALL, "out": out, "batch_size": 5, "save_every": 0.0}
    monkeypatch.setattr(Atlas, "note", stop)
    with pytest.raises(Stop):
        scan(plain_vit, folder, k=3, **options)
    assert not out.exists() and out.with_name("atlas.nc.partial").exists() == (after > 0)
    monkeypatch.setattr(Atlas, "note", count)
    result = scan(plain_vit, folder, k=3, **options)
    assert len(seen) == 3
    assert result.identical(atlas)
    assert [p.name for p in out.parent.iterdir()] == ["atlas.nc"]
    assert out.read_bytes() == (tmp_path / "whole.nc").read_bytes()
    assert qk.open_atlas(out).identical(atlas)
    assert scan(plain_vit, folder, k=3, **options).identical(atlas) and len(seen) == 3


SLOW_SCAN = """
import sys

import qkutils as qk
from qkutils.atlas._state import Atlas
note, noted = Atlas.note, []
def wait(*given):
    note(*given)
    noted.append(1)
    if len(noted) == 5:
        print("five are done", flush=True)
        sys.stdin.read()
Atlas.note = wait
qk.scan("tiny-supervised", sys.argv[1], k=3, out=sys.argv[2], batch_size=1, save_every=0.0)
"""


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore:2 images can't be read")
def test_a_killed_process_leaves_what_can_be_gone_on_with(folder, tmp_path):
    wanted = scan("tiny-supervised", folder, k=3)
    out = tmp_path / "atlas.nc"
    partial = tmp_path / "atlas.nc.partial"
    command = [sys.executable, "-c", SLOW_SCAN, str(folder), str(out)]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as process:
        assert process.stdout.readline() == b"five are done\n"
        with pytest.raises(BlockingIOError, match=f"atlas.nc.*{process.pid}"):
            scan("tiny-supervised", folder, k=3, out=out)
        process.kill()
    done = qk.open_atlas(partial)
    assert int(done.done.sum()) + int((done.fault != "").sum()) == 4 and not out.exists()
    assert scan("tiny-supervised", folder, k=3, out=out).identical(wanted)
    assert [path.name for path in tmp_path.iterdir()] == ["atlas.nc"]


@pytest.mark.parametrize(
    ("change", "named"),
    [({"k": 2}, "k"), ({"convention": "paper"}, "convention"), ({"statistics": ()}, "statistics")],
)
def test_the_file_of_another_scan_is_not_touched(plain_vit, tmp_path, change, named):
    out = tmp_path / "atlas.nc"
    options = {"k": 3, "statistics": ALL, "out": out}
    scan(plain_vit, random_images(3), **options)
    before = out.read_bytes()
    with pytest.raises(ValueError, match=f"other .*{named}"):
        scan(plain_vit, random_images(3), **(options | change))
    with pytest.raises(ValueError, match="other images"):
        scan(plain_vit, random_images(4), **options)
    assert out.read_bytes() == before


def test_shards_merge_exactly(plain_vit):
    images, keys = random_images(14), [f"{n * 5 % 14:02d}" for n in range(14)]
    images[3] = images[11]
    whole = scan(plain_vit, images, k=3, statistics=ALL, keys=keys)
    shards = [
        scan(plain_vit, images[part], k=3, statistics=ALL, keys=[keys[n] for n in part])
        for part in ([0, 3, 6, 9, 12], [1, 4, 7], [2], [5, 8, 10, 11, 13])
    ]
    for order in ([0, 1, 2, 3], [3, 1, 0, 2]):
        assert qk.merge(*(shards[n] for n in order)).identical(whole)
    pairs = [qk.merge(*shards[:2]), qk.merge(*shards[2:])]
    assert qk.merge(*pairs).identical(whole)
    assert qk.merge(whole).identical(whole)


def test_what_does_not_fit_together_is_not_merged(plain_vit, make_vit):
    first = scan(plain_vit, random_images(3), k=2, keys="abc")
    with pytest.raises(ValueError, match="1 images are in two atlases, the first 'c'"):
        qk.merge(first, scan(plain_vit, random_images(2), k=2, keys="cd"))
    with pytest.raises(ValueError, match="differ in k;"):
        qk.merge(first, scan(plain_vit, random_images(2), k=3, keys="de"))
    with pytest.raises(ValueError, match="differ in model"):
        qk.merge(first, scan(make_vit(seed=9), random_images(2), k=2, keys="de"))
    with pytest.raises(ValueError, match="at least one atlas"):
        qk.merge()


def test_records_pictures_and_tensors_are_the_same_images(plain_vit):
    model = qk.load(plain_vit)
    rng = np.random.default_rng(1)
    pictures = [Image.fromarray(rng.integers(0, 255, (32, 32, 3), dtype=np.uint8)) for _ in "abc"]
    tensor = torch.stack([model.transform(p) for p in pictures])
    wanted, of_pictures = scan(model, tensor, k=2), scan(model, pictures, k=2)
    assert of_pictures.drop_vars("digest").identical(wanted.drop_vars("digest"))
    records = [SimpleNamespace(image=p, masks={}) for p in pictures]
    assert scan(model, records, k=2).identical(of_pictures)
    assert scan(model, list(tensor), k=2).identical(wanted)
    keys = ["c", "a", "b"]
    records = dict(zip(keys, pictures, strict=True))
    reading = Reading(keys, lambda key: Sample(key, records[key], {}), Report("pictures", 3, {}))
    assert scan(model, reading, k=2).identical(scan(model, pictures, k=2, keys=keys))


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"k": 0}, "k=0"),
        ({"k": True}, "k=True"),
        ({"batch_size": 0}, "batch_size=0"),
        ({"workers": 0}, "workers=0"),
        ({"workers": -1}, "workers=-1"),
        ({"save_every": float("nan")}, "save_every=nan"),
        ({"save_every": -1.0}, "save_every=-1.0"),
        ({"overfetch": 0}, "overfetch=0"),
        ({"statistics": ("sinks", "sinks")}, "statistics"),
        ({"statistics": "variance"}, "statistics='variance'"),
        ({"statistics": ("entropy",)}, "entropy"),
        ({"keys": ["a", "a", "b"]}, "keys: 2 different ones for 3"),
        ({"keys": ["a"]}, "keys: 1 different ones for 3"),
    ],
)
def test_bad_options_are_refused(plain_vit, options, message):
    with pytest.raises(ValueError, match=message):
        scan(plain_vit, random_images(3), **options)


def test_bad_images_are_refused(plain_vit, tmp_path):
    with pytest.raises(FileNotFoundError, match="no such folder"):
        scan(plain_vit, tmp_path / "none")
    with pytest.raises(ValueError, match="images"):
        scan(plain_vit, torch.zeros(2, 3, 16, 16))
    with pytest.raises(ValueError, match="keyed by their paths"):
        scan(plain_vit, tmp_path, keys=["a"])
    with pytest.raises(ValueError, match="none of 2 images.*int is not a picture"):
        scan(plain_vit, [1, 2])
    with pytest.raises(FileNotFoundError, match="no such atlas"):
        qk.open_atlas(tmp_path / "none.nc")


def test_projections_that_are_not_finite_are_refused(make_vit):
    net = make_vit(seed=10)
    net.blocks[0].register_forward_hook(lambda _, __, x: x * torch.inf)
    with pytest.raises(ArithmeticError, match="layer 1.*not finite"):
        scan(net, random_images(2))


def logits_of(net, image: torch.Tensor, layer: int) -> np.ndarray:
    """timm's own logits [head, query, key] from its qkv layer's output."""
    kept = []
    attn = net.blocks[layer].attn
    hook = attn.qkv.register_forward_hook(lambda _, __, out: kept.append(out.double().numpy()))
    with torch.inference_mode():
        net(image[None])
    hook.remove()
    q, k, _ = kept[0][0].reshape(len(kept[0][0]), 3, attn.num_heads, -1).transpose(1, 2, 0, 3)
    return q @ k.swapaxes(-1, -2) / q.shape[-1] ** 0.5


@pytest.mark.parametrize("query_patch", [None, 0, 6])
def test_what_explains_an_image_sums_to_the_models_logits(vit, query_patch):
    image, model = random_images(1)[0], qk.load(vit)
    parts = qk.studies.one_image(model, image, layer=1, head=0, query_patch=query_patch)
    logits = logits_of(vit, image, 1)[0][model.prefix_tokens :]
    wanted = logits.mean(0) if query_patch is None else logits[query_patch]
    whole = parts.logit.sum("mode") + parts.salience + parts.constant
    np.testing.assert_allclose(whole, wanted, atol=1e-4)
    asked = logits if query_patch is None else logits[[query_patch]]
    spread = asked - asked.mean(1, keepdims=True)
    np.testing.assert_allclose(parts.share.sum() + parts.salience_share, 1, atol=1e-9)
    if query_patch is not None:  # one query: a share is a covariance over keys
        for mode in (0, 5):
            term = parts.logit.isel(mode=mode).values
            share = (term * spread).sum() / (spread**2).sum()
            np.testing.assert_allclose(parts.share[mode], share, atol=1e-4)
    assert (np.diff(parts.contribution) <= 0).all()


@pytest.mark.parametrize("convention", ["exact", "paper"])
def test_contributions_are_those_of_the_gallery(plain_vit, convention):
    image = random_images(1)
    atlas = scan(plain_vit, image, k=1, convention=convention).isel(layer=2, head=3, rank=0)
    wanted = atlas.sigma * atlas.score.fillna(0).max("sign")
    parts = qk.studies.one_image(plain_vit, image[0], layer=2, head=3, convention=convention)
    np.testing.assert_allclose(parts.sortby("mode").contribution, wanted, rtol=1e-4)
    first = parts.isel(mode=0)
    sign = atlas.score.fillna(0).idxmax("sign").sel(mode=first.mode)
    best = (first.query_map * sign).values.argmax()
    assert best == atlas.query_patch.sel(mode=first.mode, sign=sign)


def test_paper_logits_are_those_of_the_raw_tokens(plain_vit):
    image = random_images(1)
    x = tokens_of(qk.load(plain_vit), image)[1, 0]
    w_q, w_k, *_ = weights_of(plain_vit, 1)
    parts = qk.studies.one_image(
        plain_vit, image[0], layer=1, head=2, query_patch=4, convention="paper", order="sigma"
    )
    wanted = x[5] @ w_q[2].T @ w_k[2] @ x.T / 4
    np.testing.assert_allclose(parts.logit.sum("mode"), wanted, rtol=1e-4, atol=1e-4)
    assert parts.mode.values.tolist() == list(range(16))
    assert (np.diff(parts.sigma) <= 0).all() and parts.salience_share == 0


@pytest.mark.parametrize(
    ("where", "message"),
    [
        ((3, 0, None), "layer=3: .* 0 to 2"),
        ((0, -1, None), "head=-1: .* 0 to 3"),
        ((0, 0, 16), "query_patch=16: .* 0 to 15"),
    ],
)
def test_what_is_not_there_is_not_explained(plain_vit, where, message):
    with pytest.raises(ValueError, match=message):
        qk.studies.one_image(plain_vit, random_images(1)[0], *where[:2], query_patch=where[2])
    with pytest.raises(ValueError, match="order='size'"):
        qk.studies.one_image(plain_vit, random_images(1)[0], layer=0, head=0, order="size")


@pytest.mark.filterwarnings("ignore:3 images can't be read")
def test_the_command_line_scans_and_sums_up(tmp_path, capsys):
    images = qk.world.make(0, 0, 5).image.movedim(1, -1)
    for n, image in enumerate(images):
        Image.fromarray((image * 255).byte().numpy()).save(tmp_path / f"{n}.png")
    for n in range(3):
        (tmp_path / f"broken{n}.png").write_text("no picture")
    out = tmp_path / "atlas.nc"
    arguments = ["scan", "--model", "tiny-supervised", "--images", str(tmp_path)]
    arguments += ["--out", str(out), "--k", "2", "--statistics", "variance"]
    assert cli.main(arguments) == 0
    said = capsys.readouterr()
    assert "5 images of 8, 768 modes of tiny-supervised in the convention exact" in said.out
    assert "3 files could not be read" in said.out and "broken1.png" in said.out
    assert "largest variance of logits: L" in said.out and "atlas.nc" in said.out
    assert "images: 100%" in said.err
    assert qk.open_atlas(out).sizes["rank"] == 2


@pytest.fixture(scope="module")
def client():
    """A local cluster of two processes."""
    with (
        distributed.LocalCluster(
            n_workers=2, threads_per_worker=1, processes=True, dashboard_address=None
        ) as cluster,
        distributed.Client(cluster) as client,
    ):
        yield client


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore:2 images can't be read")
def test_shards_on_a_cluster_give_the_same_though_a_worker_is_killed(client, folder):
    wanted = scan(qk.load("tiny-supervised"), folder, k=3, statistics=ALL)
    processes = client.run(os.getpid)
    pool = ThreadPoolExecutor(1)
    found = pool.submit(
        qk.scan_on, client, "tiny-supervised", str(folder), k=3, statistics=ALL, shard_size=2
    )
    busy: list[str] = []
    while not busy and not found.done():
        busy = [worker for worker, tasks in client.processing().items() if tasks]
        time.sleep(0.01)
    os.kill(processes[busy[0]], signal.SIGKILL)
    assert not found.done()
    assert found.result(timeout=300).identical(wanted)


def test_a_cluster_needs_dask_and_sensible_shards(monkeypatch, folder):
    monkeypatch.setitem(sys.modules, "distributed", None)
    with pytest.raises(ImportError, match=r"pip install 'qkutils\[dask\]'"):
        qk.scan_on(None, "tiny-supervised", str(folder))
    monkeypatch.setitem(sys.modules, "distributed", SimpleNamespace(as_completed=None))
    with pytest.raises(ValueError, match="shard_size=0"):
        qk.scan_on(None, "tiny-supervised", str(folder), shard_size=0)
