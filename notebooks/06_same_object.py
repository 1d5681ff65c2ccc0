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
# A mode has a direction that asks and one that answers. If both light up on the same object, the mode can
# tie the object together. If they light up on two objects, the mode can relate these objects. This chapter
# counts how often each happens. It reproduces figure 6 of the paper {cite}`pan2024dissecting`. Then it
# asks: what would the count be if the objects were somewhere else?
#
# :::{admonition} Before you start
# **After this chapter you can**
# - find the pictures that drive a mode most, and the objects that its two directions prefer there;
# - turn this into a probability per head, weighted by strength, with an interval over pictures;
# - choose a null that fits the claim: random directions, or other masks;
# - say which of the two figure 6 needs, and what is left of it.
#
# **You need** chapters 1, 3 and 5: modes, weighted cosine, geometry-matched nulls.
#
# **Time**: 25 minutes to read, about a minute to run on a laptop, 10 minutes for the exploration, 45
# minutes to teach. Runs with no GPU and no network.
# :::

# %% tags=["parameters", "hide-input"]
# MODEL: a name that qkutils.load takes, or the path of a checkpoint file
MODEL = "tiny-supervised"
# IMAGES: not needed here: objects have to be known, so scenes are drawn
IMAGES = ""
# IMAGE_SIZE: the side of the pictures that the model gets, in pixels; 0: as it is used by default
IMAGE_SIZE = 0
# MODELS: models whose stored numbers stand beside it; none: all that are stored
MODELS = []
# How many drawn scenes
COUNT = 64

# %% tags=["hide-input"]
import matplotlib.pyplot as plt
import numpy as np
import pandas as pd

import qkutils as qk
from qkutils import models, statistics, views
from qkutils.views import figures as plots
from qkutils.book import few_enough, stored, tell

# %% [markdown]
# ## One mode, its best pictures
#
# For every mode we look for its {term}`optimal pictures <optimal picture>`. In each picture we take the
# largest query projection of a patch and the largest key projection of a patch. The pictures with the
# largest product are optimal. If we flip both directions of a mode, it is still the same mode. So we look
# at both signs. In each picture, the *query object* is the object whose patches have the largest mean query
# projection. The *key object* has the largest mean key projection.

# %%
model = qk.load(MODEL, image_size=IMAGE_SIZE or None)
SEED = 5_000_000  # scenes that no model was trained on
size = model.image_size[0]
drawn = few_enough(model, qk.world.segmentations(SEED, 0, COUNT, size=size))
found = qk.studies.same_object(model, drawn, convention="paper")
best = qk.studies.optimal_objects(found)  # rank × case × layer × head × mode × sign
tell(model=model.name, k=found.attrs["k"], count=len(drawn))
tell(small=found.attrs["objects too small"])
dict(best.sizes)

# %% [markdown]
# The model of this page is {glue:text}`model`. We use {glue:text}`count` drawn scenes, and keep the
# {glue:text}`k` best of them for each mode and sign. Two strong modes serve as examples: the one with the
# highest cosine and the one with the lowest.

# %%
parts = qk.decompose(model, convention="paper")
strong = parts.cosine.where(parts["mode"] < 4)  # the four strongest of every head
flat = strong.stack(which=("layer", "head", "mode")).dropna("which")
chosen = [
    flat.which.values[int(of)] for of in (flat.argmax("which"), flat.argmin("which"))
]

# %% tags=["hide-input"]
of_modes = best[["place", "query_object", "key_object"]].sel(case="modes", sign=1)
rows = []
for layer, head, mode in chosen:
    one = of_modes.sel(layer=layer, head=head, mode=mode)
    rows.append(
        one.to_array().transpose("rank", "variable").values.astype(int).tolist()
    )
names = [f"L{la} H{h} M{m}" for la, h, m in chosen]
tell(
    high=names[0],
    low=names[1],
    high_cosine=float(flat.max()),
    low_cosine=float(flat.min()),
)

# %% tags=["hide-input"]
agree = [sum(query == key for _, query, key in ranked) for ranked in rows]
tell(high_same=agree[0], low_same=agree[1])

# %% tags=["hide-input"] mystnb={"figure": {"name": "fig-best-scenes", "caption": "The best scenes of two modes, for one of the two signs. Solid orange: the object that the query direction prefers. Dashed blue: the one that the key direction prefers. Orange and blue around one object: both directions prefer it."}, "image": {"alt": "Two rows of five drawn scenes, one row per mode, with the preferred query object outlined in orange and the preferred key object outlined in blue."}}
fig, axes = plt.subplots(2, found.attrs["k"], figsize=(7.5, 3.3), layout="constrained")
for row, name, ranked in zip(axes, names, rows, strict=True):
    for ax, (place, query, key) in zip(row, ranked, strict=True):
        objects = qk.studies.objects_of(model, drawn[place])
        masks = [objects.where == each for each in (query, key)]
        plots.outlined(ax, drawn[place].image, masks)
    row[0].set_ylabel(name)

# %% [markdown]
# :::{dropdown} What the run says
# {glue:text}`high` has cosine {glue:text}`high_cosine:.2f`; its directions prefer the same object in
# {glue:text}`high_same` of {glue:text}`k` scenes. {glue:text}`low` has cosine
# {glue:text}`low_cosine:.2f`: {glue:text}`low_same` of {glue:text}`k`.
# :::
#
# ## Over all modes
#
# Figure 6 of the paper shows a probability: how often are the two objects the same? It is taken over the best
# scenes and both signs, and weighted by strength within a head. The paper shows it without a null. We use
# two nulls:
#
# - **random directions**: pairs of random unit vectors, as many as there are modes;
# - **other masks**: the modes themselves, but with the objects of *another* scene. This null keeps the two
#   maps. But it also changes two other things. A mask now mixes object and background, so the means of the
#   two maps come closer together. And a mask may still lie where an object is.
#
# The second null is severe. Random directions tell us how much of this comes from the masks alone: we measure
# them with other masks, too. What remains we call the *excess over both*: modes minus random directions on
# true masks, minus the same difference on other masks.
#
# :::{admonition} Predict, then look
# :class: tip
# Suppose that a mode has two equal directions. It makes the same map twice. What is its probability with other
# masks? Which of the two nulls is harder to beat?
# :::

# %%
family = models.family()[0].dropna()
both = {
    by: {
        objective: qk.studies.probability(
            qk.studies.same_object(
                name, qk.world.segmentations(SEED, 0, COUNT, by=by), convention="paper"
            ),
            ["head"],
            200,
        )
        for objective, name in family.items()
    }
    for by in ("object", "part")
}
own = qk.studies.probability(found, ["head"], 200)

# %% tags=["hide-input"] mystnb={"figure": {"name": "fig-same-object", "caption": "Probability that a mode's queries and keys prefer the same object, mean over heads, with 95 % intervals over scenes: the modes, random directions, and the modes with other scenes' masks."}, "image": {"alt": "One panel per training objective with three curves over depth: the probability of the same object for modes, for random directions and for other masks."}}
cases = ("modes", "random directions", "other masks")
looks = plots.looks(cases)
fig, axes = plt.subplots(
    2, 3, figsize=(7.5, 5), sharex=True, sharey=True, layout="constrained"
)
for ax, (objective, of) in zip(axes.flat, both["object"].items(), strict=True):
    for case in cases:
        plots.with_interval(ax, of.sel(of=case), case, looks[case])
    ax.set_title(objective, fontsize=10)
    ax.label_outer()
fig.supylabel("probability of the same object")
shown = axes[0, 0].get_legend_handles_labels()
_ = fig.legend(*shown, fontsize=8, loc="outside lower center", ncols=3)

# %% tags=["hide-input"]
table = {}
kept = [*cases, "random directions, other masks", "excess over both"]
for by, of_family in both.items():
    for objective, of in of_family.items():
        values = of.estimate.mean("layer")
        table[by, objective] = {case: float(values.sel(of=case)) for case in kept}
pd.DataFrame(table).T.round(2)

# %% [markdown]
# The table shows means over layers. *Object* stands for whole objects. *Part* stands for parts that cover at
# least half a patch; smaller parts, such as eyes, are left out. In the scenes of {glue:text}`model`,
# {glue:text}`small` objects are too small.
#
# The answer to the prediction: a mode with two equal directions has probability 1 under any masks. It beats
# random directions easily, and it never beats other masks. So other masks are the harder null.
#
# ## What figure 6 measures
#
# If other masks give the same number, the number alone is no evidence about objects. (It is no evidence
# against them either.) What else could it measure? Two similar directions make two similar maps, wherever the
# objects are. How similar the maps are depends on the cosine, and on how the tokens spread: even directions at
# a right angle can make similar maps. How much of the probability does the cosine explain?

# %%
weighted = {
    objective: qk.weighted_cosine(name, convention="paper")
    for objective, name in family.items()
}
points = {}
for objective, name in family.items():
    objects = qk.world.segmentations(SEED, 0, COUNT)
    preferred = qk.studies.same_object(name, objects, convention="paper")
    by_head = qk.studies.probability(preferred, draws=2)
    points[objective] = by_head.estimate.sel(of="modes").values.ravel()

# %% tags=["hide-input"]
joined = np.corrcoef(
    np.concatenate([w.values.ravel() for w in weighted.values()]),
    np.concatenate(list(points.values())),
)[0, 1]
tell(correlation=float(joined))

# %% tags=["hide-input"] mystnb={"figure": {"name": "fig-cosine-object", "caption": "Every head of the first training run of each objective: weighted cosine against the probability of the same object."}, "image": {"alt": "Scatter of heads: weighted cosine on the horizontal axis, probability of the same object on the vertical axis, one colour and marker per objective."}}
fig, ax = plt.subplots(figsize=(5.5, 3.6), layout="constrained")
for (objective, values), look in zip(
    points.items(), plots.looks(points).values(), strict=True
):
    ax.plot(
        weighted[objective].values.ravel(), values, ls="", ms=4, label=objective, **look
    )
ax.set(xlabel="weighted cosine of the head", ylabel="probability of the same object")
_ = ax.legend(fontsize=7)

# %% tags=["hide-input"]
excess = own.sel(of="excess over both")
over_random = own.sel(of="excess over random directions")
layers = own.sizes["layer"]
above = int((excess.low > 0).sum())
tell(
    above=above,
    above_random=int((over_random.low > 0).sum()),
    layers=layers,
    first=float(own.estimate.sel(of="modes").isel(layer=0)),
    last=float(own.estimate.sel(of="modes").isel(layer=-1)),
)

# %% [markdown]
# :::{dropdown} What the run says
# In {glue:text}`model` the modes lie clearly above random directions in {glue:text}`above_random` of
# {glue:text}`layers` layers: the interval lies above zero. The excess over both nulls lies clearly above zero
# in {glue:text}`above` layers. Over all heads of {numref}`fig-cosine-object`, the correlation of the weighted
# cosine with the probability is {glue:text}`correlation:.2f`.
# :::
#
# So the probability of figure 6 alone says nothing about objects. It needs the second null.
#
# ## Photographs
#
# Streets look alike: road below, sky above. The masks of another street lie almost at the same places. So
# other masks are a very severe null here, and a missing excess does not mean that objects play no role. The
# figure shows two real models on the street scenes of CamVid {cite}`brostow2009semantic`. People have drawn
# the segments of these scenes. The numbers were computed elsewhere, and are stored with their provenance:

# %% tags=["hide-input"] mystnb={"figure": {"name": "fig-camvid", "caption": "The same on photographs of streets (CamVid; computed elsewhere), mean over heads, with 95 % intervals over pictures."}, "image": {"alt": "For each stored real model a panel with three curves over depth: modes, random directions, other masks."}}
tables = stored.chosen("same_object", MODELS)
tell(tensors=stored.tensors(tables))
fig, axes = plt.subplots(
    1, len(tables), figsize=(7.5, 3.5), sharey=True, squeeze=False, layout="constrained"
)
for ax, (name, of_model) in zip(axes[0], tables.items(), strict=True):
    for case in cases:
        plots.with_interval(ax, of_model.sel(of=case, head="all"), case, looks[case])
    ax.set_title(name, fontsize=9)
axes[0, 0].set_ylabel("probability of the same object")
shown = axes[0, 0].get_legend_handles_labels()
_ = fig.legend(*shown, fontsize=8, loc="outside lower center", ncols=3)

# %% tags=["hide-input"]
real = {}
for name, of_model in tables.items():
    beyond = of_model.sel(of="excess over both", head="all")
    of_modes = of_model.estimate.sel(of="modes", head="all")
    real[name] = {
        "first layer": float(of_modes[0]),
        "last layer": float(of_modes[-1]),
        "layers above both nulls": int((beyond.low > 0).sum()),
        "layers below both nulls": int((beyond.high < 0).sum()),
    }
pd.DataFrame.from_dict(real, orient="index").round(2)

# %% [markdown]
# {glue:text}`tensors`
#
# The paper used ADE20K. If you have it, or another folder of pictures and label maps, a few lines do the same
# for any model. `qk.datasets.camvid` and `qk.datasets.label_maps` read other folders.
#
# ```python
# photographs = qk.datasets.ade20k("path/to/ADE20K", on_error="skip")
# print(photographs.report)  # what was read, and what was left out
# preferred = qk.studies.same_object(model, photographs, convention="paper")
# qk.studies.probability(preferred, ["head"])
# ```
#
# ## Explore: layer by layer
#
# A mean hides its heads. Step through the layers of {glue:text}`model`. Each line is one head.

# %% tags=["hide-input"]
heads = qk.studies.probability(found, draws=2).estimate
by_case = [heads.sel(of=case) for case in cases]
title = "layer {}: probability of the same object".format
frames = [
    plots.heads_by_case([v.isel(layer=n) for v in by_case], cases, title(n), (0, 1))
    for n in range(layers)
]
texts = [
    f"Probability of the same object for every head of layer {n}."
    for n in range(layers)
]
views.stepper(frames, list(range(layers)), texts, "layer")

# %% [markdown]
# **Try it.** Find a head that lies far above random directions but not above other masks. Do you expect a high
# or a low cosine for this head?
#
# ## Did we reproduce it?


# %% tags=["hide-input"]
def judged(found, direction, images=None):
    """A verdict on a probability of the same object."""
    return statistics.verdict(found, direction, "same object", images)


def start_and_end(of, images=None):
    """Do modes start above random directions, and do they end lower than they start?"""
    start = of.sel(of="excess over random directions").isel(layer=0)
    modes = of.sel(of="modes")
    change = statistics.difference(modes.isel(layer=-1), modes.isel(layer=0))
    return f"start: {judged(start, 1, images)}; end: {judged(change, -1, images)}"


# %% tags=["hide-input"]
of_heads = {n: t.sel(head="all") for n, t in tables.items()}
count = {n: int(t.attrs["images"].split()[0]) for n, t in tables.items()}
both_nulls = qk.studies.probability(found, ["layer", "head"], 200).sel(
    of="excess over both"
)
real_nulls = {
    n: statistics.mean(t.sel(of="excess over both"), "layer")
    for n, t in of_heads.items()
}
told = {n: judged(of, 1, count[n]) for n, of in real_nulls.items()}

# %% tags=["hide-input"]
tell(
    verdict_own=start_and_end(own),
    verdict_real="; ".join(
        f"{n}: {start_and_end(t, count[n])}" for n, t in of_heads.items()
    ),
    excess=statistics.text(both_nulls),
    verdict_objects=judged(both_nulls, 1),
    real_excess="; ".join(
        f"{n}: {statistics.text(of)}" for n, of in real_nulls.items()
    ),
    verdict_real_objects="; ".join(f"{n}: {verdict}" for n, verdict in told.items()),
)

# %% [markdown]
# | claim | this run | verdict |
# |---|---|---|
# | Figure 6: the probability starts above random directions and ends lower than it started | {glue:text}`model`: {glue:text}`first:.2f` in the first layer, {glue:text}`last:.2f` in the last | {glue:text}`verdict_own` |
# | the same, in two real models that are not among the paper's 16, on CamVid instead of ADE20K | see the table of real models above | {glue:text}`verdict_real` |
# | read as a statement about objects: above both nulls, mean over layers | {glue:text}`excess`; clear of zero in {glue:text}`above` of {glue:text}`layers` layers | {glue:text}`verdict_objects` |
# | the same, in the real models | {glue:text}`real_excess` | {glue:text}`verdict_real_objects` |
#
# ## What to remember
#
# - Two similar directions tend to prefer the same object, wherever the objects are.
# - A null should keep everything but the claim. Random directions do not keep the similarity of the two
#   directions. Other masks keep it, but change other things. Say what your null keeps.
# - A probability without a null describes the method as much as the model.
#
# **Limits.** Objects that cover no patch by half are left out. The mean projection over an object
# favours small objects, whose means vary more. The optimal pictures are extremes of a small set.
#
# **Further reading.** The paper's figure 6 {cite}`pan2024dissecting`.
#
# **Next.** {doc}`07_human_grouping` asks whether attention itself follows the segments that people see.
