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
# (ch-grouping)=
# # Does attention group a picture as people do?
#
# The paper compares early layers with perceptual grouping: similar things go together, and objects emerge.
# We can test this. People have drawn the segments that they see in photographs. Does a patch attend more to
# patches of its own segment than to other patches *at the same distance*? The paper did not make this test.
# This chapter does, in drawn scenes and in photographs.
#
# :::{admonition} Before you start
# **After this chapter you can**
# - compare two sorts of pairs at matched distance, and say why it is needed;
# - read an effect beside its null and its interval over pictures;
# - distinguish grouping by similarity from looking nearby.
#
# **You need** chapter 5, {doc}`05_odd_one_out`: shares of attention, geometry-matched nulls.
#
# **Time**: 15 minutes to read, under a minute to run on a laptop, 10 minutes for the exploration, 30
# minutes to teach. Runs with no GPU and no network.
# :::

# %% tags=["parameters", "hide-input"]
# MODEL: a name that qkutils.load takes, or the path of a checkpoint file
MODEL = "tiny-supervised"
# IMAGES: a folder in the layout of BSDS500 (images, and people's segments as .mat files);
# any other folder has no segments, so drawn scenes take its place
IMAGES = ""
# IMAGE_SIZE: the side of the pictures that the model gets, in pixels; 0: as it is used by default
IMAGE_SIZE = 0
# MODELS: models whose stored numbers stand beside it; none: all that are stored
MODELS = []
# How many drawn scenes
COUNT = 64

# %% tags=["hide-input"]
import matplotlib.pyplot as plt
import pandas as pd

import qkutils as qk
from qkutils import models, statistics, views
from qkutils.views import figures as plots
from qkutils.book import few_enough, stored, tell

# %% [markdown]
# ## Near is not alike
#
# There are two kinds of pairs of patches: both patches lie in one segment, or they lie in two segments. Patches
# of one segment lie close together, and early layers look nearby. So a comparison of all pairs would compare
# near with far. We compare pairs at the same *distance*, or at the same *displacement*: the same number of
# rows and columns apart. Distances with many pairs of both kinds count more. Distances where one kind is
# missing are left out.
#
# We take attention over the other patches only, without prefix tokens and without the patch itself. We divide
# it by its mean. So 1 stands for even attention.
#
# In drawn scenes the background is a segment, too. Suppose that all patches look at the objects. Then patches
# of the background look away from their own segment, and the difference falls below zero. This shows that
# objects attract attention. It does not show a lack of grouping. So we also measure among objects alone.
#
# Finally we lay the segments on *another* picture, where they mark nothing. The result is the null. The true
# picture minus the null is the {term}`excess`.
#
# :::{admonition} Predict, then look
# :class: tip
# In which layers will attention follow segments most, in early or in late ones? In which layers will the
# effect change once we match the distance?
# :::

# %%
model = qk.load(MODEL, image_size=IMAGE_SIZE or None)
SEED = 5_000_000  # scenes that no model was trained on
drawn = qk.world.segmentations(
    SEED, 0, COUNT, background=True, size=model.image_size[0]
)
has_segments = IMAGES and qk.datasets.has_segments(IMAGES)
source = qk.datasets.bsds500(IMAGES) if has_segments else drawn
found = qk.studies.grouping(model, few_enough(model, source, passes=2))
difference = (found.same - found.different).mean("head")  # image × matching × layer
own = statistics.bootstrap(difference)
tell(
    model=model.name,
    source="photographs with people's segments" if has_segments else "drawn scenes",
    pictures=found.sizes["image"],
)

# %% tags=["hide-input"] mystnb={"figure": {"name": "fig-matching", "caption": "How much more a patch attends to its own segment than to other segments, in units of even attention. Three ways to match pairs: none, same distance, same displacement; the curves may cover each other. Bands: 95 % intervals over pictures. Dotted: the null, with the same segments on other pictures (same displacement)."}, "image": {"alt": "Curves over depth of the difference between attention within and across segments, for three ways of matching pairs, with interval bands, and a dotted curve of the null."}}
looks = plots.looks(own.matching.values)
fig, ax = plt.subplots(figsize=(7, 3.6), layout="constrained")
for matching, look in looks.items():
    plots.with_interval(ax, own.sel(matching=matching), f"matching: {matching}", look)
null = (found.null_same - found.null_different).mean(["head", "image"])
plots.over_depth(ax, null.sel(matching="displacement"), "null", {"color": "0.4"}, ":")
ax.axhline(0, color="0.4", lw=0.8)
ax.set_ylabel("attention, own segment − others")
_ = ax.legend(fontsize=8)

# %% tags=["hide-input"]
bare = qk.world.segmentations(SEED, 0, COUNT, size=model.image_size[0])
bare = few_enough(model, bare, passes=2)
objects_alone = qk.studies.grouping_excess(qk.studies.grouping(model, bare))
at_equal = objects_alone.sel(matching="displacement").mean(["head", "layer"])
tell(among=statistics.text(statistics.bootstrap(at_equal)))

# %% tags=["hide-input"]
at_zero = own.estimate.isel(layer=0)
tell(
    unmatched=float(at_zero.sel(matching="none")),
    matched=float(at_zero.sel(matching="displacement")),
    null_first=float(null.sel(matching="displacement").isel(layer=0)),
)

# %% [markdown]
# :::{dropdown} What the run says
# The model is {glue:text}`model`, on {glue:text}`pictures` pictures: {glue:text}`source`. In its first layer the
# difference is {glue:text}`unmatched:.2f` over all pairs, {glue:text}`matched:.2f` at equal displacement, and
# {glue:text}`null_first:.2f` in the null. The step from the first number to the second is due to distance.
# Where the curves coincide, matching changes nothing in these pictures. Among objects alone, the mean excess
# over layers is {glue:text}`among`.
# :::
#
# ## Objectives
#
# From here on we use pairs at equal displacement, and the excess over the null. For each model we fixed one
# number beforehand: the mean over the last third of the layers minus the mean over the first third.

# %%
world = qk.world.segmentations(SEED, 0, COUNT, background=True)
family = models.family()
excess = {
    objective: [
        qk.studies.grouping_excess(qk.studies.grouping(name, world)).sel(
            matching="displacement"
        )
        for name in row.dropna()
    ]
    for objective, row in family.iterrows()
}

# %% tags=["hide-input"] mystnb={"figure": {"name": "fig-grouping", "caption": "Excess of attention on the patch's own segment, at equal displacement, for each objective. Thin: training runs. Thick: their mean. All values are means over heads and scenes."}, "image": {"alt": "Curves over depth, one colour and marker per training objective, of the excess of attention on the own segment over the null."}}
fig, ax = plt.subplots(figsize=(7, 4.2), layout="constrained")
for (objective, runs), look in zip(
    excess.items(), plots.looks(excess).values(), strict=True
):
    plots.runs(ax, [run.mean("image") for run in runs], look, objective)
ax.axhline(0, color="0.4", lw=0.8)
ax.set_ylabel("excess on its own segment")
_ = fig.legend(fontsize=8, loc="outside lower center", ncols=3)

# %% tags=["hide-input"]
rows = {}
for objective, runs in excess.items():
    contrasts = [statistics.late_minus_early(run.mean("head")) for run in runs]
    turns = [float(contrast.estimate) for contrast in contrasts]
    levels = [float(run.mean()) for run in runs]
    rows[objective] = {
        "mean excess": statistics.text(statistics.over_runs(levels)),
        "late − early": statistics.text(statistics.over_runs(turns)),
    }
own_excess = qk.studies.grouping_excess(found).sel(matching="displacement").mean("head")
turn = statistics.late_minus_early(own_excess)
tell(own_turn=statistics.text(turn))
pd.DataFrame(rows).T

# %% [markdown]
# The intervals in the table are over training runs. For {glue:text}`model` alone we also have an interval over
# pictures: from early to late layers the excess moves by {glue:text}`own_turn`.
#
# ## People's segments in photographs
#
# In BSDS500 {cite}`arbelaez2011contour` several people segmented each picture. Every person has the same weight
# here. The figure shows two real models. The numbers were computed elsewhere, and are stored with their
# provenance:

# %% tags=["hide-input"] mystnb={"figure": {"name": "fig-people", "caption": "Real models on BSDS500 (computed elsewhere), pairs at equal displacement, mean over heads, with 95 % intervals over pictures. Own picture: attention on the patch's own segment minus attention on other segments. Other pictures: the same segments on other pictures, the null. Excess: the difference of the two."}, "image": {"alt": "For each stored real model a panel with three curves over depth: own picture, other pictures, and their difference, with interval bands."}}
tables = stored.chosen("grouping", MODELS)
tell(tensors=stored.tensors(tables))
fig, axes = plt.subplots(
    1, len(tables), figsize=(7.5, 3.6), sharey=True, squeeze=False, layout="constrained"
)
for ax, (name, of_model) in zip(axes[0], tables.items(), strict=True):
    mean = of_model.sel(matching="displacement", head="all")
    for case, look in plots.looks(mean.of.values).items():
        plots.with_interval(ax, mean.sel(of=case), case, look)
    ax.axhline(0, color="0.4", lw=0.8)
    ax.set_title(name, fontsize=9)
axes[0, 0].set_ylabel("attention, own segment − others")
shown = axes[0, 0].get_legend_handles_labels()
_ = fig.legend(*shown, fontsize=8, loc="outside lower center", ncols=3)

# %% tags=["hide-input"]
real = {
    name: of_model.sel(matching="displacement", head="all", of="excess")
    for name, of_model in tables.items()
}
summary = {
    name: {
        "layers": of.sizes["layer"],
        "layers with an excess above zero": int((of.low > 0).sum()),
        "layers with an excess below zero": int((of.high < 0).sum()),
        "largest, in layer": int(of.estimate.argmax("layer")),
        "largest excess": round(float(of.estimate.max()), 2),
    }
    for name, of in real.items()
}
pd.DataFrame.from_dict(summary, orient="index")

# %% [markdown]
# {glue:text}`tensors`
#
# ## Explore: heads
#
# Step through the layers of {glue:text}`model`. Each line is one head. The value is its attention on a patch's
# own segment minus its attention on others, at equal displacement. On the left is the true picture, on the
# right the null.

# %% tags=["hide-input"]
pair = {
    "own picture": found.same - found.different,
    "other pictures": found.null_same - found.null_different,
}
by_case = [v.sel(matching="displacement").mean("image") for v in pair.values()]

# %% tags=["hide-input"]
layers = found.sizes["layer"]
limits = (min(float(v.min()) for v in by_case), max(float(v.max()) for v in by_case))
title = "layer {}: attention, own segment − others".format
frames = [
    plots.heads_by_case(
        [v.isel(layer=n) for v in by_case], list(pair), title(n), limits
    )
    for n in range(layers)
]
texts = [
    f"Heads of layer {n}: attention on the own segment minus others."
    for n in range(layers)
]
views.stepper(frames, list(range(layers)), texts, "layer")

# %% [markdown]
# **Try it.** Find a head whose patches avoid their own segment. Look up the weighted cosine of this head in the
# first table of chapter 3.
#
# ## Did we reproduce it?

# %% tags=["hide-input"]
grouped = int((statistics.bootstrap(own_excess).low > 0).sum())
level = statistics.bootstrap(own_excess.mean("layer"))
early = statistics.bootstrap(own_excess.isel(layer=slice(layers // 3)).mean("layer"))
over_layers = {name: statistics.mean(of, "layer") for name, of in real.items()}
count = {name: int(of.attrs["images"].split()[0]) for name, of in tables.items()}


def judged(found, direction, images=None):
    """A verdict on a contrast of attention within and across segments."""
    return statistics.verdict(found, direction, "grouping", images)


# %% tags=["hide-input"]
tell(
    grouped=grouped,
    layers=layers,
    level=statistics.text(level),
    early=statistics.text(early),
    verdict_grouping=judged(level, 1),
    real_level="; ".join(
        f"{n}: {statistics.text(of)}" for n, of in over_layers.items()
    ),
    verdict_real="; ".join(
        f"{n}: {judged(of, 1, count[n])}" for n, of in over_layers.items()
    ),
    verdict_early=f"early excess: {judged(early, 1)}; less late: {judged(turn, -1)}",
)

# %% [markdown]
# | claim | this run | verdict |
# |---|---|---|
# | Section 5: attention does something like perceptual grouping. Here: an excess of attention on the patch's own segment, mean over layers | {glue:text}`model`: {glue:text}`level`; clear of zero in {glue:text}`grouped` of {glue:text}`layers` layers | {glue:text}`verdict_grouping` |
# | the same in two real models, with the segments of people (computed elsewhere) | {glue:text}`real_level` | {glue:text}`verdict_real` |
# | grouping belongs to early layers: an excess in the first third, and less in the last | early excess {glue:text}`early`; late − early {glue:text}`own_turn` | {glue:text}`verdict_early` |
#
# ## What to remember
#
# - Segments are compact: match distance before you say "grouping".
# - Layers differ. Ask the question for every layer, and show its null.
# - The background is a segment, too. Measure among objects alone as well.
# - People differ: average over them. For the interval, draw pictures again, and not pairs.
#
# **Limits.** A patch on an edge belongs to the segment that covers most of it. Segments also differ in colour and
# texture. So an excess may come from similar colours. To separate objects from colours, we would have to match
# pairs in colour, too.
#
# **Further reading.** The segments that people drew {cite}`arbelaez2011contour`.
#
# **Next.** {doc}`08_mode_gallery` shows what modes look for, and asks how one would know.
