# ---
# jupyter:
#   jupytext:
#     comment_magics: false
#     text_representation:
#       extension: .py
#       format_name: percent
#   kernelspec:
#     display_name: Python 3
#     language: python
#     name: python3
# ---

# %% [markdown]
# (ch-same-object)=
# # Do a mode's two directions prefer the same object?
#
# A mode has a direction that asks and a direction that answers. Below are the best scenes of two modes. In
# each scene, a solid orange outline shows the object on which the asking direction is strongest. A dashed blue
# outline shows the object on which the answering direction is strongest. In the first row they mostly meet on
# one object. In the second row they do not. Does the first mode tie objects together?

# %% tags=["parameters", "hide-input"]
# MODEL: a name that qkutils.load takes, or the path of a checkpoint file
MODEL = "tiny-supervised"
# IMAGES: not needed here: objects have to be known, so scenes are drawn
IMAGES = ""
# IMAGE_SIZE: the side of the pictures that the model gets, in pixels; 0: as it is used by default
IMAGE_SIZE = 0
# MODELS: models whose stored numbers are drawn, none is computed; where none of them has any:
# all that are stored
MODELS = []
# How many drawn scenes
COUNT = 64

# %% tags=["hide-input"]
import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
from matplotlib.figure import Figure
from scipy import stats

import qkutils as qk
from qkutils import models, statistics, views
from qkutils.views import figures as plots
from qkutils.book import few_enough, ledger, stacked, stored, tell
from qkutils.book.checks import same_object as check

# %% tags=["hide-input"]
shown_model = qk.load(MODEL, image_size=IMAGE_SIZE or None)
scenes = qk.world.segmentations(5_000_000, 0, COUNT, size=shown_model.image_size[0])
in_scenes = qk.studies.same_object(shown_model, scenes, convention="paper")
of_cases = qk.studies.optimal_objects(in_scenes).sel(sign=1)
of_modes = of_cases.sel(case="modes")
parts = qk.decompose(shown_model, convention="paper")
strong = parts.cosine.where(parts["mode"] < 4)  # the four strongest of every head
flat = strong.stack(which=("layer", "head", "mode")).dropna("which")
chosen = [
    flat.which.values[int(n)] for n in (flat.argmax("which"), flat.argmin("which"))
]
names = [f"L{la} H{h} M{m}" for la, h, m in chosen]

# %% tags=["hide-input"]
rows = []
for layer, head, mode in chosen:
    at = of_modes.sel(layer=layer, head=head, mode=mode)
    fields = at[["place", "query_object", "key_object"]].to_array()
    rows.append(fields.transpose("rank", "variable").values.astype(int).tolist())
agree = [sum(query == key for _, query, key in ranked) for ranked in rows]
exact = qk.decompose(shown_model, convention="exact").cosine
others = [float(exact.sel(layer=la, head=h, mode=m)) for la, h, m in chosen]
tell(high=names[0], low=names[1], high_same=agree[0], low_same=agree[1])
top = dict(zip(("layer", "head", "mode"), chosen[0], strict=True))
tell(high_masked=int(of_cases.same.sel(case="other masks", **top).sum()))
tell(high_cosine=float(flat.max()), low_cosine=float(flat.min()))
tell(high_exact=others[0], low_exact=others[1], k=in_scenes.attrs["k"])

# %% tags=["hide-input"] mystnb={"figure": {"name": "fig-best-scenes", "caption": "The best scenes of two modes, for one of their two signs. We looked at the four strongest modes of every head. Top: the mode with the highest cosine. Bottom: the mode with the lowest. Solid orange: the object that the query direction prefers. Dashed blue: the object that the key direction prefers. Both colours around one object: both directions prefer it."}, "image": {"alt": "Two rows of drawn scenes, one row for each mode. In each scene one object has an orange outline and one a blue outline; they often coincide in the first row and seldom in the second."}}
fig, axes = plt.subplots(2, len(rows[0]), figsize=(7.5, 3.4), layout="constrained")
for line, name, ranked in zip(axes, names, rows, strict=True):
    for ax, (place, query, key) in zip(line, ranked, strict=True):
        objects = qk.studies.objects_of(shown_model, scenes[place])
        masks = [objects.where == each for each in (query, key)]
        plots.outlined(ax, scenes[place].image, masks)
    line[0].set_ylabel(name, fontsize=9)

# %% [markdown]
# {numref}`fig-best-scenes` shows two modes. {glue:text}`high` has cosine {glue:text}`high_cosine:.2f`. Its directions
# prefer the same object in {glue:text}`high_same` of {glue:text}`k` scenes. {glue:text}`low` has cosine {glue:text}`low_cosine:.2f`, and
# its directions agree in {glue:text}`low_same` of {glue:text}`k`.
#
# **Where we stand.** {doc}`03_cosine_trends` measured how alike the two directions of a mode are, without any
# picture. {doc}`05_odd_one_out` measured where attention goes in pictures, but attention mixes all modes.
#
# :::{admonition} Before you start
# **After this chapter you can**
# - find the pictures that drive a mode most, and the objects that its two directions prefer there;
# - turn this into a probability for each head, and say what chance would give;
# - choose a null that fits the claim: random directions, or other masks;
# - test whether a number measures what its name says.
#
# **You need** {doc}`01_svd_derivation`, {doc}`03_cosine_trends` and {doc}`05_odd_one_out`: modes, weighted
# cosine, geometry-matched nulls.
#
# **Time**: 45 minutes to read with a pencil, 15 minutes for the exploration, 60 minutes to teach; exercises
# 55 minutes. The computer needs about a minute, no GPU and no network.
# :::
#
# ## From a mode to a probability
#
# For every mode we look for its {term}`optimal pictures <optimal picture>`. In each picture, take the largest
# query projection of a patch, and the largest key projection of a patch. The pictures with the largest product
# of the two are optimal. In each of them, the *query object* is the object with the largest mean query
# projection over its patches. The *key object* is the one with the largest mean key projection. If we flip both
# directions of a mode, it is still the same mode. So we look at both signs.
#
# For mode $n$, let $p_n$ be the share of its best pictures in which the two objects are the same. A head's
# probability weights its modes by their strength:
#
# ```{math}
# P = \frac{\sum_n \sigma_n\, p_n}{\sum_n \sigma_n} .
# ```
#
# This is Pan et al., Fig. 6 {cite}`pan2024dissecting`.

# %%
SEED = 5_000_000  # scenes that no model was trained on
model = qk.load(MODEL, image_size=IMAGE_SIZE or None)
drawn = qk.world.segmentations(SEED, 0, COUNT, size=model.image_size[0])
drawn = few_enough(model, drawn)
found = qk.studies.same_object(model, drawn, convention="paper")
best = qk.studies.optimal_objects(found).sel(case="modes")
p = best.same.mean("rank").mean("sign")  # layer, head, mode
by_hand = p.weighted(found.sigma).mean("mode")
assert by_hand.dims == ("layer", "head")

# %% tags=["hide-input"]
per_head = qk.studies.probability(found, draws=2).estimate.sel(of="modes")
counts = found.objects.values
tell(own_level=float(per_head.mean()))
tell(model=model.name, count=COUNT, small=found.attrs["objects too small"])
tell(error=float(abs(by_hand.values - per_head.values).max()))
tell(
    fewest=int(counts.min()), most=int(counts.max()), chance=float((1 / counts).mean())
)
tell(one_of_mean=float(1 / counts.mean()))

# %% [markdown]
# The model is {glue:text}`model`, and it sees {glue:text}`count` drawn scenes. The library's probability differs
# from ours by {glue:text}`error:.0e`. Objects that cover no patch by half are left out ({glue:text}`small` in
# all scenes together).
#
# What would chance give? Suppose that both directions pick an object blindly. In a scene with $n$ objects they
# pick the same one with probability $1/n$. The scenes have {glue:text}`fewest` to {glue:text}`most` objects, and
# the mean of $1/n$ over scenes is **{glue:text}`chance:.2f`**. (This is more than 1 divided by the mean number of
# objects, {glue:text}`one_of_mean:.2f`: scenes with few objects raise the mean.)
#
# :::{admonition} One mode, two cosines
# :class: note
# This chapter decomposes the raw weights and projects the raw residual stream, as the paper does: convention
# `paper`. The chapters on galleries and names use convention `exact`, which includes LayerNorm
# ({ref}`notation-conventions`). The decompositions differ, so a mode of the same number has another cosine
# there: {glue:text}`high` has {glue:text}`high_cosine:.2f` here and {glue:text}`high_exact:.2f` there. The stored
# tables of real models below use convention `paper`, too.
# :::
#
# ## Above blind chance. And above other nulls?
#
# Over all modes of {glue:text}`model`, the two directions agree with a probability of {glue:text}`own_level:.2f`. Blind
# chance is {glue:text}`chance:.2f`. But blind chance is a weak null. We use two harder ones.
#
# - **Random directions**: pairs of random unit vectors in place of the modes, on the true objects. They keep the
#   objects. They do not keep how alike the two directions of a mode are.
# - **Other masks**: the modes themselves, but with the objects of *another* scene. They keep the two maps that the
#   mode makes. The masks now lie where the other scene's objects are. Only by chance do they cover one of this scene.
#
# :::{admonition} Predict, then look
# :class: tip
# Suppose that a mode has two equal directions, so that it makes the same map twice. How often do the two agree
# with other masks? Which of the two nulls is then harder to beat?
# :::
#
# :::{dropdown} The answer
# Always. Two equal maps have their maximum on the same mask, wherever the masks lie. So such a mode has
# probability 1 with any masks. It beats random directions easily, and it can never beat other masks. Other masks
# are the harder null.
# :::

# %% tags=["hide-input"]
family = models.family().dropna(axis=1)
world = qk.world.segmentations(SEED, 0, COUNT)
heads_of = {
    objective: [
        qk.studies.probability(
            qk.studies.same_object(name, world, convention="paper"), draws=2
        ).estimate
        for name in names_of
    ]
    for objective, names_of in family.iterrows()
}
cosine_of = {
    objective: [qk.weighted_cosine(name, convention="paper") for name in names_of]
    for objective, names_of in family.iterrows()
}

# %% tags=["hide-input"]
cases = ("modes", "random directions", "other masks")
styles = (("black", "o"), ("0.55", "P"), ("#44AA99", "D"))  # of no model
looks = {
    case: {"color": colour, "marker": marker}
    for case, (colour, marker) in zip(cases, styles, strict=True)
}


def legend_below(figure, ax):
    """One legend for all panels, below them."""
    figure.legend(
        *ax.get_legend_handles_labels(), fontsize=8, loc="outside lower center", ncols=3
    )


# %% tags=["hide-input"] mystnb={"figure": {"name": "fig-same-object", "caption": "Probability that the two directions of a mode prefer the same object, mean over heads. Thin lines: training runs. Thick line with markers: their mean. Dotted: blind chance, the mean of 1/n."}, "image": {"alt": "One panel for each training objective with three curves over depth: modes, random directions and other masks, beside a dotted line at blind chance."}}
fig, axes = plt.subplots(
    2, 3, figsize=(7.5, 4.8), sharex=True, sharey=True, layout="constrained"
)
for ax, (objective, runs) in zip(axes.flat, heads_of.items(), strict=True):
    for case in cases:
        plots.runs(ax, [run.sel(of=case) for run in runs], looks[case], case)
    ax.axhline(float((1 / counts).mean()), color="0.4", lw=1, ls=":")
    ax.set_title(objective, fontsize=9)
    ax.set_xlabel("relative depth")
    ax.label_outer()
fig.supylabel("probability of the same object", fontsize=9)
legend_below(fig, axes[0, 0])


# %% tags=["hide-input"]
def over_runs(of, objectives, layers=slice(None)):
    """Over training runs: a mean over the heads of these layers and over objectives."""
    runs = range(family.shape[1])
    values = [
        np.mean([heads_of[o][n].sel(of=of)[layers].mean() for o in objectives])
        for n in runs
    ]
    return statistics.over_runs([float(value) for value in values])


trained = [objective for objective in heads_of if objective != "untrained"]
levels = {case: over_runs(case, trained) for case in cases}
both_nulls = over_runs("excess over both", trained)
over_random = over_runs("excess over random directions", trained)
over_masks = over_runs("excess over other masks", trained)

# %% tags=["hide-input"]
tell(runs=family.shape[1], trained=len(trained))
tell(
    modes_level=float(levels["modes"].estimate),
    masks_level=float(levels["other masks"].estimate),
)
tell(random_level=float(levels["random directions"].estimate))
tell(over_random=statistics.text(over_random), over_masks=statistics.text(over_masks))
tell(random_shift=f"{float(over_masks.estimate - both_nulls.estimate):+.2f}")
tell(both_nulls=statistics.text(both_nulls))
own_both = qk.studies.probability(found, ["layer", "head"], 200).sel(
    of="excess over both"
)
tell(own_both=statistics.text(own_both))
begins = {o: over_runs("excess over both", [o], slice(1)) for o in trained}
tell(
    begins=", ".join(f"{o} {statistics.text(of)}" for o, of in begins.items()),
    begins_modes=float(over_runs("modes", ["supervised"], slice(1)).estimate),
    begins_masks=float(over_runs("other masks", ["supervised"], slice(1)).estimate),
)
tell(both_verdict=statistics.verdict(both_nulls, 1, "same object"))

# %% [markdown]
# In {numref}`fig-same-object` the modes of trained models lie above random directions. In *supervised* only those of
# the early layers do. In the mean of the {glue:text}`trained` trained objectives it is {glue:text}`modes_level:.2f` against
# {glue:text}`random_level:.2f`, a difference of {glue:text}`over_random`. So far this confirms the paper. (Random
# directions lie a little above blind chance, probably because the mean over a small object is more often extreme.)
#
# But look at other masks, the harder null. They give {glue:text}`masks_level:.2f`, a little *more* than the true masks.
# True masks minus other masks is {glue:text}`over_masks`. Take {glue:text}`high`, from the opening: on its own masks its
# directions agree in {glue:text}`high_same` of its {glue:text}`k` best scenes, on other masks in
# {glue:text}`high_masked` of {glue:text}`k`. That is one mode and a few scenes, so the means count.
#
# Is this difference fair? The masks of another scene cut across things, so they differ less from each other than
# objects do. That alone makes *any* two directions agree more often. Random directions with other masks tell us
# how much: for them, true masks minus other masks is {glue:text}`random_shift`. We subtract this part; what remains is
# the *excess over both*:
#
# ```{math}
# \begin{aligned}
# \text{excess over both} = {} & (\text{modes} - \text{modes, other masks}) \\
# & - (\text{random} - \text{random, other masks}) .
# \end{aligned}
# ```

# %% tags=["hide-input"] mystnb={"figure": {"name": "fig-over-both", "caption": "What is left over the nulls, mean over heads. Left: over random directions. Right: over both nulls. Thin lines: training runs. Thick lines with markers: their mean."}, "image": {"alt": "Two panels with one curve for each training objective over depth. On the left all trained objectives but the late layers of supervised lie above zero; on the right all curves lie near zero."}}
fig, axes = plt.subplots(1, 2, figsize=(7.5, 3.6), sharey=True, layout="constrained")
several = zip(axes, ("excess over random directions", "excess over both"), strict=True)
for ax, of in several:
    for objective, look in plots.looks(heads_of).items():
        plots.runs(ax, [run.sel(of=of) for run in heads_of[objective]], look, objective)
    ax.axhline(0, **plots.ZERO)
    ax.set_title(of, fontsize=9)
    ax.set_xlabel("relative depth")
axes[0].set_ylabel("probability, over the null")
legend_below(fig, axes[0])

# %% [markdown]
# The left panel of {numref}`fig-over-both` is what Pan et al., Fig. 6, compares with chance. The right panel is
# what is left for objects: {glue:text}`both_nulls` in the mean over layers, heads and the trained objectives.
# Verdict: {glue:text}`both_verdict`. (The margin was fixed beforehand: {doc}`11_what_survives` lists all.) For
# {glue:text}`model` alone it is {glue:text}`own_both`, over scenes.
#
# A mean can hide layers. In the first layer the objectives differ: {glue:text}`begins`. There the two
# directions of supervised modes agree with a probability of {glue:text}`begins_modes:.2f` on the true masks, and of
# {glue:text}`begins_masks:.2f` on other masks. We saw this
# afterwards, among many layers.
#
# ## What Pan et al., Fig. 6, measures
#
# If the objects do not make the probability, what does? Two similar directions make two similar maps, wherever the
# objects are. So the probability should follow the weighted cosine, which knows no picture at all. And it should
# do so with any masks. We correlate the two over all heads of the six objectives, for each training run.


# %%
def correlation(of, run, objectives):
    """Over heads: weighted cosine and probability, in one training run."""
    cosines = [cosine_of[o][run].values.ravel() for o in objectives]
    chances = [heads_of[o][run].sel(of=of).values.ravel() for o in objectives]
    return float(np.corrcoef(np.concatenate(cosines), np.concatenate(chances))[0, 1])


# %% tags=["hide-input"]
compared = ("modes", "other masks", "excess over both")
every_run = range(family.shape[1])
r = {
    of: statistics.over_runs([correlation(of, n, heads_of) for n in every_run])
    for of in compared
}
within = {
    o: float(np.mean([correlation("modes", n, [o]) for n in every_run]))
    for o in trained
}
tell(**{f"r_{of.replace(' ', '_')}": statistics.text(each) for of, each in r.items()})
tell(within_low=min(within.values()), within_high=max(within.values()))

# %% tags=["hide-input"] mystnb={"figure": {"name": "fig-cosine-object", "caption": "Every head of the first training run of each objective. Horizontal: weighted cosine. Vertical: the probability with the true masks (left), with other scenes' masks (middle), and its excess over both nulls (right). r: correlation over heads, mean and 95 % interval over training runs."}, "image": {"alt": "Three scatter plots of heads. The first two rise in the same way from left to right; the third is a flat cloud around zero."}}
fig, axes = plt.subplots(1, 3, figsize=(7.5, 3.4), layout="constrained")
for ax, of in zip(axes, compared, strict=True):
    for o, look in plots.looks(heads_of).items():
        points = (
            cosine_of[o][0].values.ravel(),
            heads_of[o][0].sel(of=of).values.ravel(),
        )
        ax.plot(*points, ls="", ms=3.5, alpha=0.8, label=o, **look)
    ax.set_title(f"{of}\nr = {statistics.text(r[of])}", fontsize=9)
    ax.set_xlabel("weighted cosine")
    ax.set_ylim((-0.75, 0.75) if of == compared[-1] else (-0.05, 1.05))
axes[0].set_ylabel("probability of the same object")
legend_below(fig, axes[0])

# %% [markdown]
# The first two panels of {numref}`fig-cosine-object` are nearly the same picture. With the true masks the
# correlation is {glue:text}`r_modes`. With the masks of *other* scenes it is {glue:text}`r_other_masks`. Over both
# nulls it is {glue:text}`r_excess_over_both`: if anything is left, it is small. Mixing objectives does not make this.
# Within single trained objectives the correlation (true masks) is {glue:text}`within_low:.2f` to
# {glue:text}`within_high:.2f`.
#
# So the probability of Pan et al., Fig. 6, mostly follows the cosine, whatever the masks. It is correct as a number,
# but it needs no objects.
#
# ## Explore: move the masks
#
# Now do the experiment step by step, with the first *simmim* run, whose probability is high. We push all masks of
# a scene to the right, patch by patch, and leave the
# scene where it is. What leaves on the right comes back on the left. The objects are the same, but the masks slide
# off them.
#
# **Before you move the slider**: will the curve of the modes fall, stay or rise? And that of random directions?

# %% tags=["hide-input"]
simmim = qk.load(family.loc["simmim"].iloc[0])
columns = simmim.grid[1]
steps = sorted({round(part * columns / 2) for part in (0, 0.25, 0.5, 0.75, 1)})


def moved(segmented, patches):
    """The same picture with its label map pushed to the right."""
    width = segmented.labels[0].shape[1]
    labels = np.roll(segmented.labels[0], round(patches * width / columns), axis=1)
    return type(segmented)(segmented.key, segmented.image, (labels,), segmented.names)


# %% tags=["hide-input"]
pushed = {n: [moved(each, n) for each in world] for n in steps}
curves = {
    n: qk.studies.probability(
        qk.studies.same_object(simmim, each, convention="paper", instances=True),
        ["head"],
        2,
    ).estimate
    for n, each in pushed.items()
}


# %% tags=["hide-input"]
def curves_at(ax, patches):
    """Probabilities with the moved masks, and dotted with the masks in their place."""
    for case in cases[:2]:
        plots.over_depth(ax, curves[patches].sel(of=case), case, looks[case])
        at_start = {**looks[case], "marker": ""}
        plots.over_depth(
            ax, curves[0].sel(of=case), f"{case}, not moved", at_start, ":"
        )
    ax.set(ylim=(0, 1), ylabel="probability of the same object")


# %% tags=["hide-input"]
def frame(patches):
    """One scene with the moved masks, and the probabilities that they give."""
    figure = Figure(figsize=(7.2, 3.4), layout="constrained")
    left, right = figure.subplots(1, 2, width_ratios=(1, 1.6))
    objects = qk.studies.objects_of(simmim, pushed[patches][0], instances=True)
    left.imshow(world[0].image.resize(objects.where.shape[::-1]))
    for n in range(len(objects.label)):
        left.contour(objects.where == n, levels=[0.5], colors=["white"], linewidths=1.5)
    left.set(xticks=[], yticks=[])
    left.set_title(f"masks moved by {patches} patches", fontsize=9)
    curves_at(right, patches)
    figure.legend(fontsize=8, loc="outside lower center", ncols=2)
    return figure


# %% tags=["hide-input"]
means = {n: curves[n].mean("layer") for n in steps}
said = "With masks moved by {} patches the modes agree in {:.0%} and random directions in {:.0%}."
pair = {n: [float(of.sel(of=case)) for case in cases[:2]] for n, of in means.items()}
texts = [said.format(n, *pair[n]) for n in steps]
listed = "; ".join(f"moved by {n}: {a:.2f} and {b:.2f}" for n, (a, b) in pair.items())
gaps = {n: a - b for n, (a, b) in pair.items()}
tell(listed=listed, furthest=steps[-1], gap_start=gaps[0], gap_end=gaps[steps[-1]])
tell(smallest_gap=min(gaps, key=gaps.get))
views.stepper([frame(n) for n in steps], steps, texts, "patches moved")

# %% [markdown]
# **Try it.**
#
# 1. Move the masks by one step, then further. Does the curve of the modes fall to blind chance?
# 2. At which step is the gap between modes and random directions smallest?
# 3. What would you expect of a mode that really ties objects together?
#
# :::{dropdown} Answers
# 1. It does not: neither curve falls. The means over layers (modes, then random directions) are:
#    {glue:text}`listed`.
# 2. At {glue:text}`smallest_gap` patches, but it changes little. The gap is {glue:text}`gap_start:.2f` on the true masks and
#    {glue:text}`gap_end:.2f` at {glue:text}`furthest` patches.
# 3. Its probability would fall when the masks leave the objects, while that of random directions would not. There is
#    one exception: two nearly equal directions agree on any masks. For such a mode this test is blind.
# :::
#
# ## Photographs
#
# Do photographs change this? The figure shows real models on the street scenes of CamVid
# {cite}`brostow2009semantic`, where people have drawn the segments. The numbers were computed elsewhere, by the same
# study in convention `paper`. CamVid is not part of this book. So these numbers stay the stored ones, whatever models
# are at hand.

# %% tags=["hide-input"]
tables = stored.chosen("same_object")
drawn_models = [*stored.chosen("same_object", MODELS)]
tell(tensors=stored.tensors(tables))
short = {name: name.partition(".")[0] for name in tables}
of_heads = {n: t.sel(head="all") for n, t in tables.items()}
real_both = {
    n: statistics.mean(t.sel(of="excess over both"), "layer")
    for n, t in of_heads.items()
}
ends = {n: t.sel(of="modes").isel(layer=[0, -1]) for n, t in of_heads.items()}
real_change = {
    n: statistics.difference(t.isel(layer=1), t.isel(layer=0)) for n, t in ends.items()
}
images = {n: int(t.attrs["images"].split()[0]) for n, t in tables.items()}
every_layer = [t.sel(of="excess over both") for t in of_heads.values()]
before_last = {
    n.split("_patch")[0]: statistics.text(t.sel(of="excess over both").isel(layer=-2))
    for n, t in of_heads.items()
}
tell(
    looked_at=sum(t.sizes["layer"] for t in every_layer),
    layers_above=sum(int((t.low > 0).sum()) for t in every_layer),
    layers_below=sum(int((t.high < 0).sum()) for t in every_layer),
    before_last=", ".join(f"{value} ({n})" for n, value in before_last.items()),
)

# %% tags=["hide-input"] mystnb={"figure": {"name": "fig-camvid", "caption": "Real models on street scenes (CamVid, stored numbers), mean over heads, with 95 % intervals over pictures. Top: the probability and its nulls. Bottom: what is left over both nulls."}, "image": {"alt": "Two panels for each stored real model. Top: three curves over depth, for modes, random directions and other masks. Bottom: the excess over both nulls, around zero."}}
size = {"figsize": (7.5, 4.8), "layout": "constrained", "squeeze": False}
fig, axes = plt.subplots(2, len(drawn_models), sharex=True, sharey="row", **size)
for (top, bottom), name in zip(axes.T, drawn_models, strict=True):
    t = of_heads[name]
    for case in cases:
        plots.with_interval(top, t.sel(of=case), case, looks[case])
    look = plots.looks([name])[name]
    plots.with_interval(bottom, t.sel(of="excess over both"), "", look)
    bottom.axhline(0, **plots.ZERO)
    top.set_title(short[name], fontsize=8)
    top.set_xlabel("")
axes[0, 0].set_ylabel("probability")
axes[1, 0].set_ylabel("over both nulls")
legend_below(fig, axes[0, 0])


# %% tags=["hide-input"]
def real_correlation(name, of):
    """Over the heads of a real model: correlation with its weighted cosine, and its interval."""
    modes = stored.read("modes", name).sel(convention="paper")
    weighted = modes.cosine.weighted(modes.sigma).mean("mode")
    heads = tables[name].estimate.sel(of=of).drop_sel(head="all")
    heads = heads.transpose("layer", "head").values.ravel()
    test = stats.pearsonr(weighted.transpose("layer", "head").values.ravel(), heads)
    return statistics.interval(test.statistic, *test.confidence_interval())


# %% tags=["hide-input"]
real_r = {
    f"r, {of}": {
        short[n]: statistics.text(real_correlation(n, of)) for n in drawn_models
    }
    for of in compared
}
levels_of = {
    "over both": {short[n]: statistics.text(real_both[n]) for n in drawn_models}
}
facts = "{} (weights {fingerprint}, {images}, computed {computed})"
tell(provenance="; ".join(facts.format(n, **t.attrs) for n, t in tables.items()))
stacked(pd.DataFrame(levels_of | real_r))

# %% [markdown]
# In {numref}`fig-camvid`, modes and other masks run together. In the mean over layers, the excess over both nulls is
# near zero (first column). Of {glue:text}`looked_at` single layers, {glue:text}`layers_above` have an interval above zero and
# {glue:text}`layers_below` below it. The last layer but one lies highest: {glue:text}`before_last`. We saw this afterwards and
# did not correct for the number of layers. It is a question for new pictures.
#
# The correlation with the weighted cosine (over heads, with its interval over heads) is as
# high with other masks as with the true ones. Over both nulls, no correlation above zero can be told. (In ViT-tiny it
# lies below zero; we have no explanation.)
#
# Streets look alike: road below, sky above. The masks of another street lie almost at the same places. So other masks
# are a very severe null here. On street scenes, then, the probability follows the cosine as well. Whether objects add
# anything cannot be told from them.
#
# :::{dropdown} Where these numbers come from
# Stored by `qkutils store` in convention `paper`: {glue:text}`provenance`. {glue:text}`tensors` The paper used
# ADE20K. If you have it, these lines do the same for any model; `qk.datasets.camvid` and `qk.datasets.label_maps`
# read other folders.
#
# ```python
# photographs = qk.datasets.ade20k("path/to/ADE20K", on_error="skip")
# print(photographs.report)  # what was read, and what was left out
# preferred = qk.studies.same_object(model, photographs, convention="paper")
# qk.studies.probability(preferred, ["head"])
# ```
# :::

# %% tags=["hide-input"]
starts = over_runs("excess over random directions", ["supervised"], slice(1))
first, last = (
    [float(run.sel(of="modes")[n].mean()) for run in heads_of["supervised"]]
    for n in (0, -1)
)
falls = statistics.over_runs(list(np.subtract(last, first)))
tell(supervised_falls=statistics.text(falls))
dino_change = [
    float((run.sel(of="modes")[-1] - run.sel(of="modes")[0]).mean())
    for run in heads_of["dino"]
]
tell(dino_rises=statistics.text(statistics.over_runs(dino_change)))


# %% tags=["hide-input"]
def blind_fall(of_several):
    """The same change for random directions, in words."""
    blind = [one.sel(of="random directions") for one in of_several]
    change = np.mean([float((b[-1] - b[0]).mean()) for b in blind])
    return f"random directions: {change:+.2f}"


# %% [markdown]
# ## Exercises
#
# Write in the notebook, where `...` stands. The line below each exercise checks what you wrote. It says what
# holds, and what does not hold yet.
#
# ### Exercise 6.1. Which object does a direction prefer?
#
# *Easy, 10 minutes. Trains: means over objects.*
#
# A direction has a projection on every patch. An object covers some patches fully and others in part. Write a
# function that gives the number of the object with the largest mean projection. In the mean, a patch counts by how
# much of it the object covers.


# %% tags=["exercise"]
def preferred(projection, share):
    """Number of the preferred object.

    From projection [patch] and share [object, patch].
    """
    mean = share @ projection / share.sum(1)  # solution
    return mean.argmax()  # solution


# %% tags=["check"]
check.preferred(preferred)

# %% [markdown]
# :::{dropdown} Hint 1
# A weighted mean is a weighted sum, divided by the sum of the weights.
# :::
#
# :::{dropdown} Hint 2
# `share @ projection` gives the weighted sum of every object at once.
# :::
#
# :::{dropdown} What you should see
# Five ticks: size alone does not decide, an object that is lifted wins, and a small difference of means is enough.
# :::

# %% [markdown] tags=["solution"]
# :::{dropdown} What it means
# A sum would choose the largest object wherever projections are positive. A mean does not. But a mean over few patches
# varies more, so a small object more often has the largest mean. The next exercise asks what this does to chance.
# :::

# %% [markdown]
# ### Exercise 6.2. Chance that has a taste
#
# *Medium, 15 minutes, predict first. Trains: what blind chance assumes.*
#
# Two directions know nothing of each other. Both prefer small objects, with the same probabilities. Predict first: do
# they choose the same object *more often* than 1/n, *as often*, or *less often*? Then write the function. It takes
# counts of how often each object was chosen in a scene, and gives how often two such choices agree, on average over
# scenes. A scene with fewer objects has zeros in its row.

# %% tags=["exercise"]
# "more often", "as often" or "less often"
prediction = "more often"  # solution


def agreement(counts):
    """How often two choices agree, from counts [scene, object]."""
    p = counts / counts.sum(1, keepdims=True)  # solution
    return (p**2).sum(1).mean()  # solution


# %% tags=["check"]
check.agreement(agreement, prediction)
at_random = found.sel(case="random directions").transpose("image", ...)
choices = [each.values.ravel() for each in at_random.query_object]
how_often = np.stack([np.bincount(of, minlength=counts.max()) for of in choices])
rates = {
    "blind chance": (1 / counts).mean(),
    "with their preferences": agreement(how_often),
}
rates["as measured"] = (at_random.query_object == at_random.key_object).mean()
{which: f"{float(rate):.3f}" for which, rate in rates.items()}

# %% [markdown]
# :::{dropdown} Hint 1
# Make probabilities of each row first. Both choose object i with probability $p_i \cdot p_i$.
# :::
#
# :::{dropdown} Hint 2
# The objects of two scenes have nothing in common. So average over scenes at the very end.
# :::
#
# :::{dropdown} What you should see
# Three ticks. Below them, three numbers for the random directions of this chapter, over all its scenes. Compare the last
# two. "More often" was right: a taste that both share never lowers how often they agree. A tick only says that you
# made a prediction.
# :::

# %% [markdown] tags=["solution"]
# :::{dropdown} What it means
# The sum of $p_i^2$ is smallest where all objects are chosen alike. Any taste that both share makes them agree *more
# often*. So random directions can lie above 1/n: they know no objects, but share a taste for some sizes.
# A null from data contains such a taste. A formula for blind chance does not.
# :::

# %% [markdown]
# ### Exercise 6.3. Build a null, then try to fool it
#
# *Hard, 20 minutes, in pairs. Trains: a null that keeps everything but the claim.*
#
# Write the null of other masks. The function says how often two maps prefer the same object, minus how often they do so
# on the masks of *another* scene: those of the scene before. Then one of you makes maps and masks: equal maps without
# objects, or maps that know objects. The other has to tell which, by this number alone. Change roles. If you work alone, let `np.random` choose which of the two you
# get, and look at the number only.


# %% tags=["exercise"]
def over_masks(query, key, masks):
    """Agreement on the true masks, minus agreement on other masks.

    From maps [scene, patch] and masks [scene, object, patch].
    """

    def agree(masks):
        area = masks.sum(-1)  # solution
        of_query = np.einsum("sop,sp->so", masks, query) / area  # solution
        of_key = np.einsum("sop,sp->so", masks, key) / area  # solution
        return (of_query.argmax(1) == of_key.argmax(1)).mean()  # solution

    return agree(masks) - agree(np.roll(masks, 1, axis=0))  # solution


# %% tags=["check"]
check.over_masks(over_masks)

# %% [markdown]
# :::{dropdown} Hint 1
# `agree(masks)` is a number: in what share of scenes do both maps have their largest mean on the same object?
# :::
#
# :::{dropdown} Hint 2
# `np.einsum("sop,sp->so", masks, query)` sums each object's projections, scene by scene.
# :::
#
# :::{dropdown} Hint 3
# `np.roll(masks, 1, axis=0)` gives every scene the masks of the scene before. The maps stay where they are.
# :::
#
# :::{dropdown} What you should see
# Two ticks. Equal maps gain exactly nothing. Maps that are strong on one object gain.
# :::

# %% [markdown] tags=["solution"]
# :::{dropdown} What it means
# Two equal maps agree always, on any masks. Random directions would call this a success. Other masks keep the two maps
# and move the objects, so only objects can make a difference. The null can still be too hard: where all scenes look
# alike, other masks lie on objects, too.
# :::

# %% [markdown]
# ### Exercise 6.4. What changes with the masks, and what does not
#
# *Easy, 10 minutes, with the view. Trains: reading an effect beside its null.*
#
# Go back to the view *Explore: move the masks*. Push the masks as far as they go. Read three probabilities of the last
# layer: the modes on the moved masks, the modes on the masks in their place, and random directions on the moved masks.

# %% tags=["exercise"]
modes_moved = float(curves[steps[-1]].sel(of="modes")[-1])  # solution
# the dotted line of the modes
modes_at_start = float(curves[0].sel(of="modes")[-1])  # solution
# random directions on the moved masks
random_moved = float(curves[steps[-1]].sel(of="random directions")[-1])  # solution

# %% tags=["check"]
check.reading(
    modes_moved,
    modes_at_start,
    random_moved,
    curves[steps[-1]].sel(of="modes"),
    curves[0].sel(of="modes"),
    curves[steps[-1]].sel(of="random directions"),
)

# %% [markdown]
# :::{dropdown} Hint 1
# The last layer is at depth 1, on the right of the figure.
# :::
#
# :::{dropdown} Hint 2
# Solid lines hold for the moved masks, dotted lines for the masks in their place.
# :::
#
# :::{dropdown} What you should see
# Two ticks. Compare two differences: modes minus random directions, and modes before minus after the move.
# :::

# %% [markdown] tags=["solution"]
# :::{dropdown} What it means
# The first difference says how much the modes agree beyond chance. The second says how much of this needs the objects to
# lie where they are. Only the second speaks of objects. A large first difference with a small second one is a
# number that measures something else.
# :::

# %% [markdown]
# ## Quiz
#
# Choose an answer: each one says why it is right or wrong.
#
# **1. Modes beat random directions, but not other masks. What does the probability measure?**
#
# :::{dropdown} How well modes know objects
# :class-container: option
# No. On other masks the objects are gone, and the number stays.
# :::
#
# :::{dropdown} How alike the two maps of a mode are
# :class-container: option right
# Right. Two similar maps have their maximum at the same place, whatever lies there.
# :::
#
# :::{dropdown} Nothing, since it equals its null
# :class-container: option
# No. It is far above random directions. It measures something, but not what its name says.
# :::
#
# **2. A mode has the cosine −0.9, and its tokens differ in many directions. Which probability is plausible?**
#
# :::{dropdown} A high one: the two directions are closely related
# :class-container: option
# No. They are nearly opposite: where one projection is large, the other one is small.
# :::
#
# :::{dropdown} One close to blind chance
# :class-container: option
# No. Blind chance needs two maps that are unrelated. These two are related, in the opposite way.
# :::
#
# :::{dropdown} One below blind chance
# :class-container: option right
# Right. The object that one direction likes best is among those that the other likes least.
# :::
#
# **3. The excess over both nulls has an interval around zero. What may you say?**
#
# :::{dropdown} On average over modes, these scenes show no effect of objects
# :class-container: option right
# Right. The mean and the scenes belong into the sentence.
# :::
#
# :::{dropdown} No mode ties objects together
# :class-container: option
# No. A mean over all modes can hide a few, and a severe null can hide a small effect.
# :::
#
# :::{dropdown} The paper's number is wrong
# :class-container: option
# No. The number can be repeated. What is in doubt is its reading.
# :::

# %% [markdown]
# ## Did we reproduce it?

# %% tags=["hide-input"]
of_runs = {"measure": "same object", "over": f"{family.shape[1]} runs"}
supervised = {"subject": "supervised, drawn scenes", "said_by": "paper", **of_runs}
higher = "In the first layer, modes prefer the same object more than random directions."
lower = (
    "The probability of the same object is lower in the last layer than in the first."
)
in_first = f"other masks: {over_runs('excess over other masks', ['supervised'], slice(1)).estimate:+.2f}"
in_first = f"over {in_first}; over both nulls: {statistics.text(begins['supervised'])}"
rows = [
    ledger.claim(higher, starts, 1, more=in_first, **supervised),
    ledger.claim(
        lower, falls, -1, more=blind_fall(heads_of["supervised"]), **supervised
    ),
]
for n in tables:
    more = f"over both nulls, mean of layers: {statistics.text(real_both[n])}"
    more = f"{blind_fall([of_heads[n].estimate])}; {more}"
    named = {"subject": f"{n}, CamVid", "over": f"{images[n]} pictures", "more": more}
    named |= {"measure": "same object", "said_by": "paper", "images": images[n]}
    rows += [ledger.claim(lower, real_change[n], -1, **named)]

# %% tags=["hide-input"]
pooled = {"subject": f"{len(trained)} trained objectives, drawn scenes", **of_runs}
matter = "The probability of the same object lies above both nulls (mean over layers)."
rows += [ledger.claim(matter, both_nulls, 1, **pooled)]
pooled |= {"measure": "correlation", "seen": True}
pooled["subject"] = "heads of six objectives, drawn scenes"
follows = "The probability of the same object follows the weighted cosine of the head"
with_others = f"other masks: {statistics.text(r['other masks'])}"
rows += [ledger.claim(f"{follows}.", r["modes"], 1, more=with_others, **pooled)]
over_nulls = r["excess over both"]
rows += [ledger.claim(f"{follows}, over both nulls.", over_nulls, 1, **pooled)]
ledger.Rows(rows)

# %% [markdown]
# ## What was found
#
# - The modes of trained models prefer the same object more often than random directions:
#   {glue:text}`over_random` over {glue:text}`runs` runs, against a blind chance of {glue:text}`chance:.2f`.
# - With the masks of other scenes, their modes agree a little more often ({glue:text}`masks_level:.2f` against
#   {glue:text}`modes_level:.2f`). Random directions do so, too. Over both nulls, {glue:text}`both_nulls` is left:
#   {glue:text}`both_verdict`. So two directions that meet on objects need not tie objects together.
# - The probability follows the weighted cosine (r = {glue:text}`r_modes`), and does so just as well with other
#   masks ({glue:text}`r_other_masks`). Over both nulls the correlation is {glue:text}`r_excess_over_both`.
# - As in the paper, the probability falls from the first layer to the last: in *supervised*
#   {glue:text}`supervised_falls`. In *dino* it does not fall ({glue:text}`dino_rises`). It falls in the three real models
#   on street scenes, and follows the cosine there.
#
# Worth keeping: a null should keep everything but the claim. Random directions do not keep how alike the two
# directions are; other masks do.
#
# **Limits.** A mode with two nearly equal directions has no excess over other masks, whether it follows objects or
# not. Objects that cover no patch by half are left out. The mean projection over an object favours small
# objects, whose means vary more. Optimal pictures are the extremes of a small set. Other masks may lie on other
# objects by chance, so a small effect of objects can be lost in the subtraction. A number that objects do not make
# is no proof that modes ignore objects: {doc}`08_mode_gallery` looks at modes one by one.
#
# **Further reading.** Pan et al., Fig. 6 and the section on modes {cite}`pan2024dissecting`.
#
# **Next.** This chapter asked about single modes and single objects: {doc}`07_human_grouping` asks whether whole
# attention maps follow the segments that people see.
