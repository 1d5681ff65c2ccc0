"""Still figures: what is drawn is what was given."""

from __future__ import annotations

import matplotlib.pyplot as plt
import numpy as np
import pytest
import xarray as xr
from matplotlib.colors import to_rgb
from PIL import Image

import qkutils as qk
from qkutils import statistics
from qkutils.views import figures as plots


@pytest.fixture
def ax():
    figure, axes = plt.subplots()
    yield axes
    plt.close(figure)


def test_maps_share_the_scale_that_they_are_given(ax):
    values = np.array([[-1.0, 0.5], [0.25, 0.0]])
    assert plots.token_map(ax, values, limit=3.0).get_clim() == (-3, 3)
    assert plots.token_map(ax, values).get_clim() == (-1, 1)
    assert plots.token_map(ax, abs(values), cmap=plots.SEQUENTIAL).get_clim() == (0, 1)


def test_a_trend_shows_every_head_and_their_mean(ax):
    values = xr.DataArray(
        np.arange(12.0).reshape(4, 3), {"layer": range(4), "head": range(3)}, ("layer", "head")
    )
    plots.trend(ax, values, "model", plots.looks(["model"])["model"])
    *heads, mean = ax.lines
    for head, line in enumerate(heads):
        np.testing.assert_array_equal(line.get_ydata(), values[:, head])
    np.testing.assert_allclose(mean.get_ydata(), values.mean("head"))
    np.testing.assert_allclose(mean.get_xdata(), [0, 1 / 3, 2 / 3, 1])
    assert mean.get_label() == "model" and ax.get_xlabel()


@pytest.mark.parametrize(("count", "shape"), [(1, (1, 1)), (4, (1, 4)), (5, (2, 4)), (8, (2, 4))])
def test_each_model_has_a_panel_and_rows_are_no_longer_than_four(count, shape):
    figure, axes = plots.panels(count)
    grid = axes[0].get_gridspec()
    assert len(set(axes)) == count and (grid.nrows, grid.ncols) == shape
    assert [ax.axison for ax in figure.axes] == [n < count for n in range(shape[0] * shape[1])]


def test_looks_differ_for_as_many_models_as_the_paper_has():
    looks = plots.looks(str(n) for n in range(16))
    assert len({tuple(look.values()) for look in looks.values()}) == 16


def test_a_patch_is_framed_where_it_lies(ax):
    plots.mark_patch(ax, patch=11, columns=8)
    assert ax.patches[0].get_xy() == (3, 1)


def test_masks_of_scenes_have_the_colour_of_the_role():
    world = qk.world.make(0, 0, 2, odd=["kind"])
    image, mask = plots.scenes_and_masks(world)[:2]
    np.testing.assert_array_equal(image, world.image[0].movedim(0, -1))
    body = world.mask(qk.world.TARGET)[0] & (world.part[0] == 1)
    np.testing.assert_allclose(
        mask[body.numpy()], [to_rgb(plots.PALETTE[1])] * int(body.sum()), 1e-6
    )
    assert (mask[(world.slot[0] < 0).numpy()] == 1).all()


def test_scenes_stand_side_by_side_in_their_order():
    pictures = list(np.random.default_rng(0).random((3, 4, 4, 3)))
    figure = plots.scene_frame(pictures, "odd: size")
    for panel, picture in zip(figure.axes, pictures, strict=True):
        np.testing.assert_array_equal(panel.images[0].get_array(), picture)
    lefts = [panel.get_position().x0 for panel in figure.axes]
    assert lefts == sorted(set(lefts)) and figure.get_suptitle() == "odd: size"


def curve_of(values):
    table = np.asarray(values, dtype=float)
    return xr.DataArray(
        table, {"layer": range(len(table)), "head": range(table.shape[1])}, ("layer", "head")
    )


def test_runs_are_thin_lines_and_their_mean_a_thick_one(ax):
    curves = [curve_of([[0, 2], [4, 6]]), curve_of([[1, 1], [1, 3]])]
    plots.runs(ax, curves, plots.looks(["simmim"])["simmim"])
    thin, other, mean = ax.lines
    assert thin.get_ydata().tolist() == [1, 5] and other.get_ydata().tolist() == [1, 2]
    assert mean.get_ydata().tolist() == [1, 3.5]
    assert mean.get_linewidth() > thin.get_linewidth()


@pytest.mark.parametrize(("runs", "bars"), [([0.1, 0.3, 0.2], 1), ([0.1], 0)])
def test_replicates_have_a_bar_only_where_there_is_an_interval(ax, runs, bars):
    interval = statistics.over_runs(runs)
    plots.replicates(ax, 2, runs, interval, plots.looks(["dino"])["dino"])
    dots, *bar, mean = ax.lines
    assert dots.get_xdata().tolist() == runs and set(dots.get_ydata()) == {2}
    assert len(bar) == bars
    assert [b.get_xdata().tolist() for b in bar] == bars * [
        [float(interval.low), float(interval.high)]
    ]
    assert mean.get_xdata() == [float(interval.estimate)]


def test_before_and_after_are_open_and_filled(ax):
    before, after = curve_of([[0, 2], [4, 6]]), curve_of([[1, 1], [1, 3]])
    plots.before_and_after(ax, before, after, plots.looks(["a"])["a"])
    open_dots, filled = ax.lines
    assert open_dots.get_ydata().tolist() == [1, 5] and filled.get_ydata().tolist() == [1, 2]
    assert open_dots.get_markerfacecolor() == "white" != filled.get_markerfacecolor()


def test_heads_of_runs_shows_every_head_of_every_run(ax):
    curves = [curve_of([[0, 0.2], [0.4, 0.6]]), curve_of([[0.1, -0.1], [0.1, 0.3]])]
    half_width = xr.DataArray([0.1, 0.1], {"layer": [0, 1]}, "layer")
    plots.heads_of_runs(ax, curves, half_width, plots.looks(["a"])["a"])
    zero, *drawn = ax.lines
    assert [line.get_ydata().tolist() for line in drawn] == [
        [0, 0.2, 0.4, 0.6],
        [0.1, -0.1, 0.1, 0.3],
    ]


def test_histograms_of_layers_share_one_scale_of_whole_counts():
    heights = []
    for cosines in ([0.01, 0.02, 0.5], [-0.9]):
        figure = plots.layer_histogram(xr.DataArray(cosines, dims="mode"), 0.1, "a title", 7)
        ax = figure.axes[0]
        assert ax.get_ylim() == (0, 7) and ax.get_title() == "a title"
        assert all(tick == round(tick) for tick in ax.get_yticks())
        heights.append(sum(bar.get_height() for bar in ax.patches[1:]))
    assert heights == [3, 1]


def test_trends_apart_have_a_panel_and_a_band_each(plain_vit, make_vit):
    networks = [plain_vit, make_vit(embed_dim=24, num_heads=2, depth=2)]
    curves = [qk.trend(net).sel(convention="exact") for net in networks]
    curves[1] = curves[1].assign_coords(model="predictor")
    axes = plots.trends_apart(curves).axes
    assert [ax.get_title() for ax in axes] == ["VisionTransformer", "predictor"]
    for ax, curve in zip(axes, curves, strict=True):
        zero, *heads, mean = ax.lines
        np.testing.assert_allclose(mean.get_ydata(), curve.weighted_cosine.mean("head"))
        drawn = [line.get_ydata() for line in heads]
        np.testing.assert_allclose(drawn, curve.weighted_cosine.transpose("head", "layer"))
        corners = ax.collections[0].get_paths()[0].vertices
        np.testing.assert_allclose(corners[:, 1].max(), curve.null.max())
        assert ax.get_xlabel() and ax.get_legend()
    assert "exact" in axes[0].get_ylabel()
    colours = {ax.lines[-1].get_color() for ax in axes}
    assert len(colours) == 2 and axes[0].get_ylim() == axes[1].get_ylim()


def test_relations_are_drawn_with_what_an_even_spread_would_give(ax):
    relations = ["same", "different", "background"]
    run = xr.DataArray(
        [[0.1, 0.2], [0.3, 0.1], [0.6, 0.7]],
        {"relation": relations, "layer": [0, 1]},
        ("relation", "layer"),
    )
    area = xr.DataArray([0.1, 0.2, 0.7], {"relation": relations}, "relation")
    plots.relations(ax, [run, run + 0.2], area)
    means = {line.get_label(): list(line.get_ydata()) for line in ax.lines}
    assert means["same"] == pytest.approx([0.2, 0.3])
    assert means["background"] == pytest.approx([0.7, 0.8])
    dotted = [line.get_ydata()[0] for line in ax.lines if line.get_linestyle() == ":"]
    assert dotted == [0.1, 0.2, 0.7]


def test_an_interval_is_a_band_around_its_estimate(ax):
    of_layer = {"layer": [0, 1]}
    values = xr.Dataset(
        {k: ("layer", v) for k, v in {"estimate": [1, 2], "low": [0, 1], "high": [2, 4]}.items()},
        of_layer,
    )
    plots.with_interval(ax, values, "modes", plots.looks(["modes"])["modes"])
    (line,), (band,) = ax.lines, ax.collections
    assert list(line.get_ydata()) == [1, 2]
    corners = band.get_paths()[0].vertices
    assert corners[:, 1].min() == 0 and corners[:, 1].max() == 4


def test_outlines_differ_by_more_than_colour(ax):
    masks = np.zeros((2, 16, 16), dtype=bool)
    masks[0, :4, :4] = masks[1, 8:12, 8:12] = True
    plots.outlined(ax, Image.new("RGB", (32, 32)), list(masks))
    styles = [c.get_linestyles()[0][1] for c in ax.collections]
    assert len(ax.collections) == 4 and styles[2] is None and styles[3] is not None
    assert ax.images[0].get_array().shape == (16, 16, 3)


def test_heads_by_case_draws_each_head_over_the_cases():
    cases = [xr.DataArray([0.1, 0.2], dims="head"), xr.DataArray([0.3, 0.4], dims="head")]
    figure = plots.heads_by_case(cases, ["own", "other"], "layer 1", (0.0, 1.0))
    first, second, _zero = figure.axes[0].lines
    assert list(first.get_ydata()) == [0.1, 0.3] and list(second.get_ydata()) == [0.2, 0.4]
    assert [t.get_text() for t in figure.axes[0].get_xticklabels()] == ["own", "other"]


def test_shares_lie_beside_an_even_spread(ax):
    names = ["target", "distractors", "background", "class token"]
    shares, even = np.array([0.4, 0.3, 0.2, 0.1]), np.array([0.1, 0.2, 0.6, 0.1])
    plots.shares_and_even(ax, names, shares, even)
    assert [bar.get_width() for bar in ax.patches] == shares.tolist()
    assert ax.lines[0].get_xdata().tolist() == even.tolist()
    assert [label.get_text() for label in ax.get_yticklabels()] == names
    assert len({bar.get_facecolor() for bar in ax.patches}) == 4


def test_a_model_looks_the_same_wherever_it_is_drawn():
    alone = plots.looks(["tiny-simmim"])["tiny-simmim"]
    named = [
        "tiny-dino-s2",
        "deit_tiny_patch16_224.fb_in1k (computed elsewhere)",
        "other",
        "simmim",
    ]
    together = plots.looks(named)
    assert together["simmim"] == alone
    assert together[named[1]] == plots.looks(["deit_tiny_patch16_224.fb_in1k"])[named[1][:29]]
    assert len({look["color"] for look in together.values()}) == 4


def test_two_seeds_of_one_objective_differ():
    one, other = plots.looks(["tiny-dino", "tiny-dino-s1"]).values()
    assert one["color"] != other["color"]
