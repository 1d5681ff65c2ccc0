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
# where one object differs from all others. It earns figure 2 of the paper {cite}`pan2024dissecting`,
# and then asks how much of the figure two simple things would give: the area of the objects, and the
# possibility that early layers look nearby.
#
# :::{admonition} Before you start
# **After this chapter you can**
# - turn an attention map and two masks into shares that sum to 1;
# - give such a share an area, a geometry-matched null and an interval over images;
# - say which part of "early layers attend to the same object" is about objects;
# - compare models that were trained for different ends, over training runs.
#
# **You need** chapters 1 and 3, {doc}`01_svd_derivation` and {doc}`03_embedded_world`: attention,
# masks, shares of patches; and {doc}`04_training_objective` for the family of models.
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
from qkutils.book import stored, tell

# %% [markdown]
# ## One picture first
#
# Take a picture with one target among distractors. Two tokens ask: the patch that the target covers
# most, and the patch that the distractors cover most. Where does their attention go?

# %%
model = qk.load(MODEL)
SEED = 5_000_000  # scenes that no model was trained on
drawn = qk.world.samples(SEED, 0, COUNT, size=model.image_size[0])
has_masks = IMAGES and qk.datasets.has_odd_ones(IMAGES)
samples = qk.datasets.odd_one_out(IMAGES) if has_masks else drawn
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
# The model is {glue:text}`model`, and it sees {glue:text}`source`. `maps` is layer × head × asking object × patch; `regions` is region × patch. Every patch belongs to
# the target, the distractors and the background in the shares that their masks cover of it, so the
# three regions make up the picture.

# %%
studied = set(shares.image.values[whole.values])
numbers = (n for n, sample in enumerate(samples) if sample.key in studied)
views.attention_stepper(model, samples, images=list(islice(numbers, 4)))

# %% [markdown]
# Step through the layers, with the target's patch asking and then with a distractor's; click any other
# patch. Orange outlines the target, dashed blue the distractors. The bars sum to 1 over all keys, with
# the {term}`prefix tokens <prefix token>` too; below them stands the same among patches alone, as in
# `maps`.
#
# **Try it.** On the first picture:
#
# 1. Let the target's patch ask. In which layer and head does its own object get the largest share of the
#    attention on patches? How large is that beside its area, the mark of an even spread?
# 2. In that layer, step through the heads. Do they agree?
# 3. Let a distractor's patch ask. Does it look at the distractors more than their area asks for? How
#    often is the asking patch itself the brightest?

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
# 1. In {glue:text}`top_at` the target gets {glue:text}`top_share:.0%`, with {glue:text}`top_area:.0%` of the
#    area.
# 2. The heads of that layer give it {glue:text}`others`.
# 3. In {glue:text}`like_more:.0%` of the heads the distractors get more than the
#    {glue:text}`like_area:.0%` that their area asks for. The asking patch is the brightest in
#    {glue:text}`itself:.0%` of all maps: the reason why we leave it out below.
# :::
#
# One picture is an anecdote; what follows counts many.
#
# ## From a map to a share
#
# The share of a region is the inner product of a map, which sums to 1, with the region. The paper
# groups them: *same* (target on target, distractors on distractors), *different* (each on the
# other) and *background* (both). By hand, for this picture:

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
# The library's study differs from these lines by {glue:text}`share_error:.0e`, and its shares sum to
# 1 to {glue:text}`sum_error:.0e`. It computes only the query rows that are asked for.
# {glue:text}`studied` of {glue:text}`given` pictures could be studied; left out: {glue:text}`left_out`.
#
# Mind the word *same*. For a target it is its own object. For a distractor it is all distractors: its
# own object and its like. And by construction *same* and *different* have equal areas.
#
# ## Shares over layers, for every objective
#
# Now the whole family of chapter 4 on the same drawn scenes: figure 2 of the paper, once for each
# training objective.
#
# :::{admonition} Predict, then look
# :class: tip
# One model was trained to say in what one object is *odd*. Which of *same* and *different* will its
# tokens favour? And those of one that predicts hidden patches?
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
# In {numref}`fig-shares`, a curve means little until it is laid beside its dotted line: most of a
# scene is background, so attention that sees nothing puts most of itself there.
#
# ## What geometry alone would give
#
# There is a second trap, and area does not mend it. An object is a compact blob around the patch
# that asks. A layer that looks *nearby*, whatever is there, will find its own object more often than
# its area says. So we lay the same masks and the same asking patches on **another** picture, where
# they mark nothing in particular, and measure again. This is the {term}`geometry-matched null`. What is left is the
# {term}`excess`: share minus null share. We also leave out the asking patch itself, since a token
# that attends to itself says nothing about objects.
#
# :::{admonition} Predict, then look
# :class: tip
# For which of the three curves will the null explain most: same, different or background?
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
# The three excesses of {numref}`fig-excess` sum to zero: what objects gain, the background loses. Where
# *same* and *different* rise together, tokens attend to objects rather than to background, whichever
# object it is. Grouping would show as *same* above *different*.
#
# How much of "the same object, early" is left? In the first third of the layers, without the asking
# patch; the target's token on its own object stands apart, since it is the only clean case:

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
# The paper says: same object early, background late. The contrast for that is fixed in the library:
# the mean excess over the last third of the layers minus that over the first third. For one model the
# interval is over pictures (it ignores that each picture is also the null of another); for an
# objective it is over training runs.

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
# In {glue:text}`model` the excess on the same object {glue:text}`own_same_words` from early to late
# layers ({glue:text}`own_same`), and that on the background {glue:text}`own_background_words`
# ({glue:text}`own_background`). The raw shares, which the paper shows, move by
# {glue:text}`raw_same` and {glue:text}`raw_background`. Where the two disagree, place or the asking patch
# itself was speaking.
#
# Over training runs the excess on *same* moves by {glue:text}`simmim_same` in *simmim*, and by
# {glue:text}`tuned_same` in *simmim-finetuned*.
# :::
#
# ## Beside real models
#
# Two real classifiers, computed elsewhere and stored with their provenance: on one photograph of O3
# (n = 1, an illustration without an interval; its null is on other photographs), and on drawn scenes at
# the models' own size (their null among themselves). The asking patch is left out. Look for layers
# where the dashed line reaches the solid one: there geometry explains the share.

# %% tags=["hide-input"] mystnb={"figure": {"name": "fig-real-shares", "caption": "Real models (computed elsewhere): share of *same*, mean over heads, the asking patch left out, on one photograph of O3 and on drawn scenes. Solid: on the true picture. Dashed: the same masks on other pictures."}, "image": {"alt": "For each stored real model a panel with the share of attention on the same object over depth on the true picture and on other pictures, for one photograph and for drawn scenes."}}
tables = {name: stored.read("preference", name) for name in stored.names("preference")}
fig, axes = plt.subplots(
    1, len(tables), figsize=(7.5, 3.6), sharey=True, layout="constrained"
)
for ax, (name, of_model) in zip(axes, tables.items(), strict=True):
    for where, look in plots.looks(["O3 photograph", "drawn scenes"]).items():
        same = of_model.sel(set=where, relation="same")
        plots.over_depth(ax, same.share_others, where, look)
        plots.over_depth(ax, same.null_share_others, f"{where}: null", look, "--")
    ax.set_title(name, fontsize=9)
axes[0].set_ylabel("share of attention on same")
shown = axes[0].get_legend_handles_labels()
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
# | Figure 2: attention on the same object falls with depth; as published, {glue:text}`model` | {glue:text}`raw_same` | {glue:text}`verdict_same_raw` |
# | the same, as excess over geometry | {glue:text}`own_same` | {glue:text}`verdict_same` |
# | Figure 2: attention on the background gains late; as published | {glue:text}`raw_background` | {glue:text}`verdict_background_raw` |
# | the same, as excess over geometry | {glue:text}`own_background` | {glue:text}`verdict_background` |
# | Figure 2: SimMIM turns to the same object late; as excess, over {glue:text}`simmim_runs` training runs | {glue:text}`simmim_same` | {glue:text}`verdict_simmim` |
#
# ## What to remember
#
# - A share of attention needs three companions: the area, the geometry-matched null, an interval.
# - A layer that looks nearby fills an object with attention without grouping. Whether a layer does so
#   is measured by the null, and models of one world differ in it.
# - The excesses over regions sum to zero: read them together.
# - Attention to objects is not yet grouping: compare *same* with *different*.
#
# **Limits.** The null keeps place and shape, and changes what asks as well as what answers: on another
# picture the asking patch mostly lies on background, and attends as background does. So an excess
# below zero can mean that objects look less near than background does. Attention is averaged over heads, and heads differ. Attention says
# where a token reads from, not what it does with what it reads.
#
# **Further reading.** The O3 and P3 images {cite}`kotseruba2019saliency`; the paper's section 4.1
# {cite}`pan2024dissecting`.
#
# **Next.** {doc}`06_same_object` asks the same of single modes: do their two directions prefer one
# object?
