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
# (ch-odd)=
# # Does a token attend to its own object, to others, or to the rest?
#
# Cosines say what a head *could* look for. This chapter looks at what tokens attend to, in pictures
# where one object differs from all others. It reproduces figure 2 of the paper
# {cite}`pan2024dissecting`. Then it asks: would attention go there anyway, simply because an object is
# large, or because it is near?
#
# :::{admonition} Before you start
# **After this chapter you can**
# - turn an attention map and two masks into shares that sum to 1;
# - give such a share an area, a geometry-matched null and an interval over images;
# - say which part of "early layers attend to the same object" is about objects;
# - compare models that were trained for different goals, over training runs.
#
# **You need** chapters 1 and 2, {doc}`01_svd_derivation` and {doc}`02_embedded_world`: attention,
# masks, shares of patches. Chapter 4, {doc}`04_training_objective`, explains the family of models.
#
# **Time**: 30 minutes to read, about a minute to run on a laptop, 15 minutes for the exploration, 60
# minutes to teach. Runs with no GPU and no network.
# :::

# %% tags=["parameters", "hide-input"]
# MODEL: a name that qkutils.load takes, or the path of a checkpoint file
MODEL = "tiny-supervised"
# IMAGES: a folder in the layout of O3 (images, targ_labels, dist_labels);
# any other folder has no masks, so drawn scenes take its place
IMAGES = ""
# IMAGE_SIZE: the side of the pictures that the model gets, in pixels; 0: as it is used by default
IMAGE_SIZE = 0
# MODELS: models whose stored numbers stand beside it; none: all that are stored
MODELS = []
# How many drawn scenes each model is studied on
COUNT = 96

# %% tags=["hide-input"]
from itertools import islice

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import torch

import qkutils as qk
from qkutils import models, statistics, views
from qkutils.views import figures as plots
from qkutils.book import few_enough, stored, tell

# %% [markdown]
# ## One picture first
#
# Take a picture with one target among distractors. Two tokens ask: the patch that the target covers
# most, and the patch that the distractors cover most. Where does their attention go?

# %%
model = qk.load(MODEL, image_size=IMAGE_SIZE or None)
SEED = 5_000_000  # scenes that no model was trained on
drawn = qk.world.samples(SEED, 0, COUNT, size=model.image_size[0])
has_masks = IMAGES and qk.datasets.has_odd_ones(IMAGES)
samples = qk.datasets.odd_one_out(IMAGES) if has_masks else drawn
samples = few_enough(model, samples, besides=6)
shares = qk.studies.odd_one_out(model, samples)

# %%
whole = shares.share.notnull().all(["layer", "head", "query", "region"])
first = int(whole.argmax("image"))  # the first picture in which both objects can ask
one = next(sample for sample in samples if sample.key == shares.image[first])
objects = np.stack([one.masks["target"], one.masks["distractor"]])
# What the model sees, and masks on it
pixels, seen = qk.alignment.align(model, one.image, objects)
reasons = {k: n for k, n in shares.attrs.items() if "left out: " in k and n}
left_out = [f"{n} with {k.removeprefix('left out: ')}" for k, n in reasons.items()]
tell(model=model.name, studied=shares.sizes["image"], given=len(samples))
tell(left_out=", ".join(left_out) or "none")
tell(source="pictures of a folder" if has_masks else "drawn scenes")

# %%
patch = model.image_size[0] // model.grid[0]
seen[1] &= ~seen[0]  # where masks overlap, the target has it
fraction = qk.world.patch_fractions(seen, patch)  # [object, row, column]
target, distractor = fraction
regions = torch.stack([target, distractor, 1 - target - distractor]).flatten(1)
asked = fraction.flatten(1).argmax(1)  # first in reading order where several are best
own = qk.observed_attention(model, pixels[None]).isel(image=0)
rows = own.isel(query=model.prefix_tokens + asked.numpy())  # [layer, head, object, key]
maps = torch.from_numpy(rows.values[..., model.prefix_tokens :])
maps = maps / maps.sum(-1, keepdim=True)  # of the attention on patches
list(maps.shape), list(regions.shape)

# %% [markdown]
# The model is {glue:text}`model`, and it sees {glue:text}`source`. The shape of `maps` is layer × head ×
# asking object × patch. The shape of `regions` is region × patch. A patch can belong to several regions
# in part: to the target, to the distractors and to the background. Its shares are the parts of its area
# that the masks cover. So the three regions together make up the picture.

# %%
studied = set(shares.image.values[whole.values])
numbers = (n for n, sample in enumerate(samples) if sample.key in studied)
views.attention_stepper(model, samples, images=list(islice(numbers, 4)))

# %% [markdown]
# Let the target's patch ask, and step through the layers. Then let a distractor's patch ask. You can also
# click any other patch. The target has an orange outline, the distractors a dashed blue one. The bars
# show the attention on all keys, including {term}`prefix tokens <prefix token>`, and sum to 1. The last
# line shows the shares among patches alone, as in `maps`.
#
# **Try it.** On the first picture:
#
# 1. Let the target's patch ask. In which layer and head does the target get the largest share of the
#    attention on patches? Compare this share with the target's area, the mark of an even spread.
# 2. In that layer, step through the heads. Do they agree?
# 3. Let a distractor's patch ask. Do the distractors get a larger share than their area? How often is the
#    asking patch itself the brightest?

# %% tags=["hide-input"]
shown = maps @ regions.mT  # [layer, head, asking object, region]
to_own = shown[:, :, 0, 0]
top = divmod(int(to_own.argmax()), to_own.shape[1])
like = shown[:, :, 1, 1]
tell(
    top_at="layer {}, head {}".format(*top),
    top_share=float(to_own[top]),
    top_area=float(regions[0].mean()),
    others=", ".join(f"{float(v):.0%}" for v in to_own[top[0]]),
    like_more=float((like > regions[1].mean()).float().mean()),
    like_area=float(regions[1].mean()),
    itself=float((maps.argmax(-1) == asked).float().mean()),
)

# %% [markdown]
# :::{dropdown} What you may have found
# 1. In {glue:text}`top_at` the target gets {glue:text}`top_share:.0%` of the attention. It covers
#    {glue:text}`top_area:.0%` of the area. But look at the map: much of this may be the asking patch
#    itself.
# 2. The heads of that layer give the target {glue:text}`others`.
# 3. The distractors cover {glue:text}`like_area:.0%` of the area. In {glue:text}`like_more:.0%` of the
#    heads they get more than that. The asking patch is the brightest in {glue:text}`itself:.0%` of all
#    maps. This is why we leave it out below.
# :::
#
# One picture is an anecdote. From here on we count many pictures.
#
# ## From a map to a share
#
# A map sums to 1. The share of a region is the inner product of the map with the region. The paper
# groups the shares into three relations: *same* (target on target, distractors on distractors),
# *different* (target on distractors, distractors on target) and *background* (both on background). By
# hand, for this picture:

# %%
by_hand = maps @ regions.T  # [layer, head, object, region]
ours = (
    shares.share.isel(image=first).transpose("layer", "head", "query", "region").values
)
tell(
    share_error=float(abs(by_hand.numpy() - ours).max()),
    sum_error=float(abs(shares.share.sum("region", skipna=False) - 1).max()),
)
qk.studies.relations(shares.share).isel(image=first).mean("head").to_pandas().round(2)

# %% [markdown]
# The library's study differs from these lines by {glue:text}`share_error:.0e`. Its shares sum to 1, up to
# {glue:text}`sum_error:.0e`. Of {glue:text}`given` pictures, {glue:text}`studied` could be studied. Left
# out: {glue:text}`left_out`.
#
# The word *same* has two meanings here. For a target, *same* is its own object. For a distractor, *same*
# is all distractors: its own object and the others of its sort. The areas of *same* and *different* are
# equal by construction.
#
# ## Shares over layers, for every objective
#
# We repeat figure 2 of the paper for the whole family of chapter 4, on the same drawn scenes.
#
# :::{admonition} Predict, then look
# :class: tip
# One model was trained to say in what one object is *odd*. Which relation will its tokens favour, *same*
# or *different*? And what about a model that predicts hidden patches?
# :::

# %%
family = models.family()
world = qk.world.samples(SEED, 0, COUNT)
studies = {
    objective: [qk.studies.odd_one_out(name, world) for name in row.dropna()]
    for objective, row in family.iterrows()
}
average = ["image", "head"]
share_of = {
    o: [qk.studies.relations(s.share).mean(average) for s in runs]
    for o, runs in studies.items()
}
area = qk.studies.area_of_relations(studies["untrained"][0])
tell(simmim_runs=len(studies["simmim"]))

# %% tags=["hide-input"] mystnb={"figure": {"name": "fig-shares", "caption": "Figure 2 of the paper for each objective: share of attention on the same object, on the different one and on the background, mean over heads and scenes. Thin lines: training runs. Dotted: the share that attention spread evenly would give (area)."}, "image": {"alt": "One panel per training objective, each with three curves over depth: share of attention on the same object, the different object and the background, beside dotted lines at the areas."}}
fig, axes = plt.subplots(
    2, 3, figsize=(7.5, 5), sharex=True, sharey=True, layout="constrained"
)
for ax, (objective, runs) in zip(axes.flat, share_of.items(), strict=True):
    plots.relations(ax, runs, area)
    ax.set_title(objective, fontsize=10)
    ax.label_outer()
fig.supylabel("share of attention")
shown = axes[0, 0].get_legend_handles_labels()
_ = fig.legend(*shown, fontsize=8, loc="outside lower center", ncols=3)

# %% [markdown]
# In {numref}`fig-shares`, compare every curve with its dotted line. Most of a scene is background. So even
# attention that sees nothing puts most of itself on the background.
#
# ## What geometry alone would give
#
# Area is not the only trap. An object is a compact blob around the patch that asks. Take a layer that
# looks *nearby*, whatever is there. It finds its own object more often than the area says. So we lay the
# same masks and the same asking patches on **another** picture, where they mark nothing in particular.
# We measure again, and call the result the {term}`geometry-matched null`. The {term}`excess` is the
# share minus the null share. We also leave out the asking patch, because a token that attends to itself
# says nothing about objects.
#
# :::{admonition} Predict, then look
# :class: tip
# For which of the three curves will the null explain most: *same*, *different* or *background*?
# :::

# %%
excess_of = {
    o: [qk.studies.relations(qk.studies.share_excess(s)).mean(average) for s in runs]
    for o, runs in studies.items()
}

# %% tags=["hide-input"] mystnb={"figure": {"name": "fig-excess", "caption": "The excess: what the objects in the picture add to geometry, the asking patch left out. Zero is what the same masks get on other scenes."}, "image": {"alt": "One panel per training objective, each with three curves over depth of the excess over the geometry-matched null, around a line at zero."}}
fig, axes = plt.subplots(
    2, 3, figsize=(7.5, 5), sharex=True, sharey=True, layout="constrained"
)
for ax, (objective, runs) in zip(axes.flat, excess_of.items(), strict=True):
    plots.relations(ax, runs, None)
    ax.set_title(objective, fontsize=10)
    ax.label_outer()
fig.supylabel("share of attention over the null")
shown = axes[0, 0].get_legend_handles_labels()
_ = fig.legend(*shown, fontsize=8, loc="outside lower center", ncols=3)

# %% [markdown]
# The three excesses of {numref}`fig-excess` sum to zero: what objects gain, the background loses. If
# *same* and *different* rise together, tokens attend to objects rather than to background, and it does
# not matter to which object. If attention groups, *same* lies above *different*.
#
# How much is left of "early layers attend to the same object"? The table shows the excess in the first
# third of the layers, without the asking patch. A column of its own shows the target's patch looking at
# the target. Only there does *same* mean a single object:

# %% tags=["hide-input"]
rows = {}
for objective, runs in studies.items():
    early = [s.isel(layer=slice(s.sizes["layer"] // 3)) for s in runs]
    excess = [qk.studies.share_excess(s) for s in early]
    mean = [qk.studies.relations(e).mean([*average, "layer"]) for e in excess]
    on_itself = [e.sel(query="target", region="target").mean() for e in excess]
    rows[objective] = {
        "same": np.mean([m.sel(relation="same") for m in mean]),
        "different": np.mean([m.sel(relation="different") for m in mean]),
        "target on itself": np.mean(on_itself),
    }
early_excess = pd.DataFrame(rows).T.rename_axis(columns="excess, early layers")
early_excess["same − different"] = early_excess["same"] - early_excess["different"]
early_excess.round(3)

# %% [markdown]
# ## From early to late
#
# The paper says: same object early, background late. We test this with one number that was fixed
# beforehand: the mean excess over the last third of the layers minus the mean over the first third. For
# an objective the interval is over training runs. For one model it is over pictures. (This interval
# ignores that each picture is also the null of another picture.)

# %%
table = {}
for objective, runs in studies.items():
    of_run = {
        r: [qk.studies.late_minus_early(s, r) for s in runs]
        for r in area.relation.values
    }
    table[objective] = {
        r: statistics.over_runs([float(c.estimate) for c in contrasts])
        for r, contrasts in of_run.items()
    }
own = {r: qk.studies.late_minus_early(shares, r) for r in area.relation.values}
rows = {**table, f"{model.name}, over {shares.sizes['image']} pictures": own}
pd.DataFrame(
    {name: {r: statistics.text(c) for r, c in of.items()} for name, of in rows.items()}
).T

# %% tags=["hide-input"]
moves = {-1: "falls", 0: "does not clearly change", 1: "rises"}
raw = {
    r: statistics.late_minus_early(
        qk.studies.relations(shares.share).sel(relation=r).mean("head")
    )
    for r in area.relation.values
}

# %% tags=["hide-input"]
tell(
    own_same=statistics.text(own["same"]),
    own_same_words=moves[int(statistics.sign(own["same"]))],
    own_background=statistics.text(own["background"]),
    own_background_words=moves[int(statistics.sign(own["background"]))],
    raw_same=statistics.text(raw["same"]),
    raw_background=statistics.text(raw["background"]),
    simmim_same=statistics.text(table["simmim"]["same"]),
    tuned_same=statistics.text(table["simmim-finetuned"]["same"]),
)

# %% [markdown]
# :::{dropdown} What the run says
# In {glue:text}`model` the excess on *same* {glue:text}`own_same_words` from early to late layers
# ({glue:text}`own_same`). The excess on *background* {glue:text}`own_background_words`
# ({glue:text}`own_background`). The paper shows raw shares. They move by {glue:text}`raw_same` on *same*
# and by {glue:text}`raw_background` on *background*. If a raw share and its excess disagree, the raw
# share came from the place of the masks or from the asking patch itself.
#
# Over training runs, the excess on *same* moves by {glue:text}`simmim_same` in *simmim*. It moves by
# {glue:text}`tuned_same` in *simmim-finetuned*.
# :::
#
# ## Beside real models
#
# The next figure shows two real classifiers. The numbers were computed elsewhere and are stored with
# their provenance. One set is a single photograph of O3, so there is no interval. It is an illustration.
# Its null comes from other photographs. The second set is drawn scenes at the models' own size. Their
# null comes from other scenes of the set. The asking patch is left out. Look for layers where the dashed
# line reaches the solid one: there geometry explains the share. {glue:text}`tensors`

# %% tags=["hide-input"] mystnb={"figure": {"name": "fig-real-shares", "caption": "Real models (computed elsewhere): share of *same*, mean over heads, the asking patch left out, on one photograph of O3 and on drawn scenes. Solid: on the true picture. Dashed: the same masks on other pictures."}, "image": {"alt": "For each stored real model a panel with the share of attention on the same object over depth on the true picture and on other pictures, for one photograph and for drawn scenes."}}
tables = stored.chosen("preference", MODELS)
tell(tensors=stored.tensors(tables))
fig, axes = plt.subplots(
    1, len(tables), figsize=(7.5, 3.6), sharey=True, squeeze=False, layout="constrained"
)
for ax, (name, of_model) in zip(axes[0], tables.items(), strict=True):
    for where, look in plots.looks(["O3 photograph", "drawn scenes"]).items():
        same = of_model.sel(set=where, relation="same")
        plots.over_depth(ax, same.share_others, where, look)
        plots.over_depth(ax, same.null_share_others, f"{where}: null", look, "--")
    ax.set_title(name, fontsize=9)
axes[0, 0].set_ylabel("share of attention on same")
shown = axes[0, 0].get_legend_handles_labels()
_ = fig.legend(*shown, fontsize=8, loc="outside lower center", ncols=2)

# %% tags=["hide-input"]
kept = ["fingerprint", "code_version", "computed", "sets"]
pd.set_option("display.max_colwidth", None)
pd.DataFrame({name: {k: t.attrs[k] for k in kept} for name, t in tables.items()})

# %% [markdown]
# ## Did we reproduce it?

# %% tags=["hide-input"]
measure = "share of attention"
tell(
    verdict_same_raw=statistics.verdict(raw["same"], -1, measure),
    verdict_same=statistics.verdict(own["same"], -1, measure),
    verdict_background_raw=statistics.verdict(raw["background"], 1, measure),
    verdict_background=statistics.verdict(own["background"], 1, measure),
    verdict_simmim=statistics.verdict(
        table["simmim"]["same"], 1, measure, images=len(world)
    ),
)

# %% [markdown]
# | claim | this run | verdict |
# |---|---|---|
# | Figure 2: attention on the same object falls with depth (raw share, as published; {glue:text}`model`) | {glue:text}`raw_same` | {glue:text}`verdict_same_raw` |
# | the same, as excess over geometry | {glue:text}`own_same` | {glue:text}`verdict_same` |
# | Figure 2: attention on the background grows in late layers (raw share, as published) | {glue:text}`raw_background` | {glue:text}`verdict_background_raw` |
# | the same, as excess over geometry | {glue:text}`own_background` | {glue:text}`verdict_background` |
# | Figure 2: SimMIM turns to the same object in late layers (as excess, over {glue:text}`simmim_runs` training runs) | {glue:text}`simmim_same` | {glue:text}`verdict_simmim` |
#
# ## What to remember
#
# - Show three things beside a share of attention: the area, the geometry-matched null, an interval.
# - A layer that looks nearby puts attention on its own object, without any grouping. The null measures how
#   much. Models of one world differ in this.
# - The excesses over regions sum to zero: read them together.
# - Attention to objects is not yet grouping: compare *same* with *different*.
#
# **Limits.** The null keeps the place and the shape of the masks. But it changes both what asks and what
# answers. On another picture the asking patch mostly lies on background, and attends as background does.
# So an excess below zero can mean that patches on objects look less nearby than patches on background.
# Attention is averaged over heads, and heads differ. Attention says where a token reads from. It does
# not say what the token does with it.
#
# **Further reading.** The O3 and P3 images {cite}`kotseruba2019saliency`; the paper's section 4.1
# {cite}`pan2024dissecting`.
#
# **Next.** {doc}`06_same_object` asks the question of single modes: do their two directions prefer the
# same object?
