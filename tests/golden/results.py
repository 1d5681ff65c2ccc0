"""Every public result on two small models, by the name that it had in version 0.1."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import torch
import xarray as xr
from timm.models.vision_transformer import VisionTransformer

import qkutils as qk
from qkutils import attention, heads, models, statistics
from qkutils.book import stored
from qkutils.modes import null_from_strengths, trend
from qkutils.studies import _regions
from qkutils.world.training import evaluate

FILE = Path(__file__).with_name("results.npz")
MOST = 3000  # numbers kept of one array, spread evenly over it


def random_model() -> VisionTransformer:
    """A random network with a grid that is not square, registers and biases."""
    net = VisionTransformer(
        img_size=(32, 48), patch_size=8, depth=3, num_classes=5, embed_dim=48, num_heads=3,
        reg_tokens=3, no_embed_class=True,
    )  # fmt: skip
    generator = torch.Generator().manual_seed(5)
    with torch.no_grad():
        for name, tensor in net.named_parameters():
            noise = torch.randn(tensor.shape, generator=generator)
            if "norm" in name and name.endswith("weight"):
                tensor.copy_(1 + 0.3 * noise)
            elif tensor.ndim > 1 and "embed" not in name and "token" not in name:
                tensor.copy_(noise * 1.2 / tensor.shape[-1] ** 0.5)
            else:
                tensor.copy_(0.5 * noise)
    return net.eval()


def of_model(name: str, model: models.Model) -> Iterator[tuple[str, Any]]:
    """Results on one model."""
    samples = qk.world.samples(7, 0, 6)
    objects = qk.world.segmentations(11, 0, 6)
    parts = qk.world.segmentations(11, 0, 6, by="part", background=True)
    images = torch.stack([model.transform(s.image) for s in qk.world.samples(3, 0, 4)])
    yield "transform", images
    yield "heads", {k: getattr(model.heads, k) for k in ("w_q", "w_k", "w_v", "w_o", "b_q",
                    "b_k", "b_v", "ln_gain", "ln_shift")}  # fmt: skip
    yield "fingerprint", model.fingerprint
    yield "key_salience", heads.key_salience(model.heads)
    for convention in ("paper", "exact"):
        modes = qk.decompose(model, convention=convention)
        yield f"decompose.{convention}", modes
        yield f"fold.{convention}", heads.fold(model.heads, 1, convention)
        yield f"weighted_cosine.{convention}", qk.weighted_cosine(model, convention=convention)
        band = qk.null_band(model, convention=convention)
        yield f"null_band.{convention}", band
        yield (
            f"null_weighted_cosine.{convention}",
            qk.null_weighted_cosine(model, convention=convention, draws=20),
        )
        from_strengths = null_from_strengths(modes.sigma, band)
        yield f"null_from_strengths.{convention}", from_strengths
        atlas = qk.scan(
            model, images, k=2, convention=convention, progress=False,
            statistics=("variance", "anisotropy", "sinks"),
        )  # fmt: skip
        yield f"scan.{convention}", atlas
        yield (
            f"maps.{convention}",
            qk.mode_maps(model, images, layer=1, head=2, convention=convention),
        )
        yield (
            f"optimal.{convention}",
            qk.optimal_pictures(
                model, qk.pictures_of(images, model), atlas, layer=1, head=2, mode=0
            ),
        )
        explained = qk.studies.one_image(
            model, images[0], layer=1, head=2, query_patch=5, convention=convention
        )
        yield f"explain.{convention}", explained
        if convention == "exact":
            yield "build_up", qk.studies.build_up(explained)
        found = qk.studies.same_object(model, objects, k=2, convention=convention)
        yield f"same_object.{convention}", found
        yield f"same_object.optimal.{convention}", qk.studies.optimal_objects(found)
        yield f"probability.{convention}", qk.studies.probability(found, ["head"])
    yield "curves", trend(model)
    yield "scan.bfloat16", qk.scan(model, images, k=2, precision="bfloat16", progress=False)
    halves = [qk.scan(model, images[s], k=2, keys=k, progress=False)
              for s, k in ((slice(0, 2), ["a", "b"]), (slice(2, 4), ["c", "d"]))]  # fmt: skip
    yield "merge", qk.merge(*halves)
    exact = qk.decompose(model, convention="exact")

    def first(count: int) -> xr.Dataset:
        return exact.isel(mode=slice(count))

    own = qk.observed_attention(model, images)
    yield "observed_attention", own
    yield "rebuild_attention", qk.rebuild_attention(model, images)
    few = qk.rebuild_attention(model, images, first(4), salience=("bias",))
    yield "rebuild_attention.4.bias", few
    yield (
        "rebuild_attention.list",
        qk.rebuild_attention(model, images, exact.isel(mode=[3, 1]), salience=()),
    )
    yield "total_variation", attention.total_variation(own, few)
    yield "token_factors", attention.token_factors(model, images)
    yield "token_factors.3", attention.token_factors(model, images, first(3))
    directions = torch.eye(model.net.blocks[0].attn.head_dim)[:3]
    removed = qk.studies.removal(model, images, layer=1, head=2, directions=directions)
    yield "remove", removed
    yield "relative_change", qk.studies.relative_change(removed)
    four = qk.decompose(model, convention="exact").isel(mode=slice(4))
    for query, patches, prefix, few_modes in (
        ("largest", "fraction", "left out", None), ("weighted", "half", "counted", four)
    ):  # fmt: skip
        try:
            shares = qk.studies.odd_one_out(
                model, samples, query=query, patches=patches, prefix=prefix, modes=few_modes
            )
        except ValueError as error:  # remembered, so that the options' names are right
            yield f"study.{query}.refused", str(error)
            continue
        yield f"study.{query}", shares
        yield f"excess.{query}", qk.studies.share_excess(shares)
        yield f"relations.{query}", qk.studies.relations(shares.share)
        yield f"area_of_relations.{query}", qk.studies.area_of_relations(shares)
        contrast = qk.studies.late_minus_early(shares)
        ends = [float(contrast[name]) for name in ("estimate", "low", "high")]
        yield f"late_minus_early.{query}", np.array(ends)
        over = statistics.bootstrap(qk.studies.relations(qk.studies.share_excess(shares)))
        yield f"over_images.{query}", over
    pairs = qk.studies.grouping(model, parts)
    yield "grouping", pairs
    yield "grouping.excess", qk.studies.grouping_excess(pairs)
    yield "grouping.4", qk.studies.grouping(model, objects, modes=four, salience=())
    layouts = _regions.read_layouts(model, samples)
    yield "layouts", [layouts.place, layouts.fraction]


def of_world() -> Iterator[tuple[str, Any]]:
    """Results that ask no second model."""
    made = qk.world.make(5, 2, 8)
    yield "scenes.make", [made.image, made.slot, made.part]
    yield "scenes.label", made.factors.label
    labels = qk.world.patch_labels(made, 8)
    yield "labels", {name: [each.fine, each.base] for name, each in labels.items()}
    yield (
        "name_modes",
        qk.studies.names(
            "tiny-supervised",
            *qk.world.labelled(qk.load("tiny-supervised"), 24),
            permutations=19,
            directions=50,
        ),
    )
    yield "accuracy", evaluate.accuracy(models.load("tiny-supervised").net, 64)
    for kind in ("modes", "salience", "preference", "same_object", "grouping"):
        for name in stored.names(kind):
            yield f"stored.{kind}.{name}", stored.read(kind, name)
    yield "at_hand", "\n".join(sorted(n for n in models.catalogue().index if "tiny" in n))


def flat(name: str, value: Any) -> Iterator[tuple[str, np.ndarray]]:
    """A result as named arrays; of a large one, entries spread evenly over it."""
    if isinstance(value, xr.Dataset):
        skipped = {"key", "digest"}
        for key in sorted({*value.data_vars} - skipped):
            yield from flat(f"{name}.{key}", value[key].values)
    elif isinstance(value, dict):
        for key, each in value.items():
            yield from flat(f"{name}.{key}", each)
    elif isinstance(value, (list, tuple)):
        for n, each in enumerate(value):
            yield from flat(f"{name}.{n}", each)
    else:
        array = np.asarray(value.values if isinstance(value, xr.DataArray) else value)
        if array.dtype == object:
            array = np.array([str(each) for each in array.ravel()]).reshape(array.shape)
        step = -(-array.size // MOST)
        yield name, array.ravel()[:: max(step, 1)]
        yield f"{name}.shape", np.array(array.shape)


def everything() -> dict[str, np.ndarray]:
    """All named arrays."""
    found: dict[str, np.ndarray] = {}
    runs: list[tuple[str, Callable[[], Iterator[tuple[str, Any]]]]] = [
        ("supervised", lambda: of_model("supervised", models.load("tiny-supervised"))),
        ("random", lambda: of_model("random", models.load(random_model()))),
        ("world", of_world),
    ]
    for run, results in runs:
        for name, value in results():
            for key, array in flat(f"{run}.{name}", value):
                assert key not in found, key
                found[key] = array
    return found


if __name__ == "__main__":
    np.savez_compressed(FILE, **everything())
    print(FILE, FILE.stat().st_size)
