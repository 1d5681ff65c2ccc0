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
# Ask ten people to cut a photograph into its parts, and their cuts are much alike: the dog, the grass, the
# sky. Psychologists call this *perceptual grouping*. The paper {cite}`pan2024dissecting` says that early
# layers of a vision transformer do something like it.

# %% tags=["parameters", "hide-input"]
# MODEL: a name that qkutils.load takes, or the path of a checkpoint file
MODEL = "tiny-supervised"
# IMAGES: a folder in the layout of BSDS500 (images, and people's segments as .mat files);
# any other folder has no segments, so drawn scenes take its place
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
from scipy.stats import norm

import qkutils as qk
from qkutils import models, statistics, views
from qkutils.views import figures as plots
from qkutils.book import few_enough, ledger, report, stacked, stored, tell
from qkutils.book.checks import human_grouping as check

# %% tags=["hide-input"]
model = qk.load(MODEL, image_size=IMAGE_SIZE or None)
SEED = 5_000_000  # scenes that no model was trained on
size = model.image_size[0]
has_segments = IMAGES and qk.datasets.has_segments(IMAGES)
drawn = qk.world.segmentations(SEED, 0, COUNT, size=size)
segmented = qk.datasets.bsds500(IMAGES) if has_segments else drawn
segmented = few_enough(model, segmented, passes=4)
found = qk.studies.grouping(model, segmented)
excess = qk.studies.grouping_excess(found).sel(matching="displacement")

# %% tags=["hide-input"]
of_heads = excess.mean("image").stack(place=("layer", "head"))
order = of_heads.argsort().values
most, least = (of_heads["place"].item(int(order[n])) for n in (-1, 0))
scene = int(excess.sel(layer=most[0], head=most[1]).fillna(-np.inf).argmax("image"))
cut = qk.studies.segments_of_patches(model, segmented[scene])[0]
numbers, areas = np.unique(cut[cut >= 0], return_counts=True)
asking = int(np.flatnonzero(cut == numbers[areas.argmax()])[0])
image = qk.pictures_of([segmented[scene].image], model).read(0)[None]
attention = qk.observed_attention(model, image).isel(image=0)

# %% tags=["hide-input"] mystnb={"figure": {"name": "fig-grouping-opening", "caption": "One picture, its segments on the patch grid (each in a colour of its own, dark: none), and the attention of the framed patch in two heads. The heads were chosen: of all heads of this model, one follows segments most and one least. Each map has its own scale, from zero to its brightest patch."}, "image": {"alt": "Four panels: a picture with a framed patch, its segments in colours, and two maps of attention. One map is bright on the segment of the framed patch alone; the other one is spread over the whole picture."}}
fig, axes = plt.subplots(1, 4, figsize=(7.5, 2.3), layout="constrained")
rows, columns = model.grid
axes[0].imshow(qk.pictures.visible(model, image)[0], extent=(0, columns, rows, 0))
ranks = np.searchsorted(numbers, cut).reshape(rows, columns)
shown = np.where(cut.reshape(rows, columns) >= 0, ranks, np.nan)
axes[1].set_facecolor("0.15")
axes[1].imshow(shown, cmap="tab20", extent=(0, columns, rows, 0))
axes[0].set(title="the framed patch asks")
axes[1].set(title="segments")
for ax, (layer, head) in zip(axes[2:], (most, least), strict=True):
    values = plots.patch_attention(attention.sel(layer=layer, head=head), asking, model)
    plots.token_map(ax, values, 0, f"layer {layer}, head {head}", plots.SEQUENTIAL)
for ax in axes:
    plots.mark_patch(ax, asking, columns).set(xticks=[], yticks=[])
    ax.title.set_fontsize(9)

# %% tags=["hide-input"]
others = np.arange(cut.size) != asking
within = (cut == cut[asking]) & others


def on_own(layer, head):
    """The share of the attention on other patches that stays in the segment."""
    values = plots.patch_attention(attention.sel(layer=layer, head=head), asking, model)
    return float(np.ravel(values)[within].sum() / np.ravel(values)[others].sum())


tell(own_most=on_own(*most), own_least=on_own(*least))
tell(own_area=float(within.sum() / others.sum()))
tell(
    model=model.name,
    source="photographs with people's segments" if has_segments else "drawn scenes",
    pictures=found.sizes["image"],
    most=f"layer {most[0]}, head {most[1]}",
    least=f"layer {least[0]}, head {least[1]}",
)

# %% [markdown]
# Look at the framed patch of {numref}`fig-grouping-opening`. Its segment has {glue:text}`own_area:.0%` of the other patches. In
# {glue:text}`most`, they get {glue:text}`own_most:.0%` of its attention on other patches. In {glue:text}`least`, they get
# {glue:text}`own_least:.0%`. We chose both heads. What do heads do that
# nobody chose? And do they follow *segments*, or only what lies near?
#
# **Where we stand.** {doc}`05_odd_one_out` showed that a share of attention means nothing without a null for
# area and nearness. Pan et al. say that early layers group a picture. They did not test whether attention follows the
# borders that people draw.
#
# :::{admonition} Before you start
# **After this chapter you can**
# - compare pairs of patches at equal displacement, and say why it is needed;
# - put an effect between a floor (colour alone) and a ceiling (one person judged by others);
# - recognise the trap of counting the background as a segment.
#
# **You need** {doc}`05_odd_one_out`: shares of attention, geometry-matched nulls.
#
# **Time**: 45 minutes to read with a pencil, 15 minutes for the exploration, 60 minutes to teach; exercises
# 65 minutes. The computer needs about a minute, no GPU and no network.
# :::
#
# ## How to compare
#
# Take two pairs of patches. The patches of one pair lie in the same segment. The patches of the other pair lie
# in different segments. Which pair has more attention?
#
# Patches of one segment lie close together, and early layers look nearby. So we compare pairs at the same
# *displacement*: the same number of rows and columns apart. A displacement with many pairs of both kinds
# counts more. A displacement where one kind is missing is left out.
#
# We take attention on the other patches only, without prefix tokens and without the patch itself. We divide it
# by its mean, so 1 is even attention. Last, we lay the segments on *another* picture, where they mark
# nothing. This is the null. The {term}`excess` is what the true picture adds:
#
# $$ \text{excess} = (\text{same} - \text{different})_{\text{true picture}}
#    - (\text{same} - \text{different})_{\text{other picture}}. $$
#
# An excess of 0.5 says: at equal displacement, a patch of the same segment gets half an even share more than a patch of
# another segment. The null is already subtracted. The next lines compute it for {glue:text}`model` on
# {glue:text}`pictures` pictures ({glue:text}`source`). `found` holds what `qk.studies.grouping` measured on them.

# %%
matched = found.sel(matching="displacement")
true_picture = matched.same - matched.different
other_picture = matched.null_same - matched.null_different
by_hand = true_picture - other_picture
assert by_hand.equals(excess)  # the library's own
dict(by_hand.sizes)

# %% [markdown]
# ## Near is not alike
#
# In BSDS500 {cite}`arbelaez2011contour`, several people cut each photograph into segments. All people have the
# same weight here. The numbers of real models were computed elsewhere and are stored. BSDS500 is not part
# of this book, so they stay the stored ones, whatever models are at hand.
#
# :::{admonition} Predict, then look
# :class: tip
# First compare *all* pairs, near and far. Then compare pairs at equal displacement, and take the null off. How
# much of the difference remains in the first third of the layers: nearly all, half, or a third at most?
# :::

# %% tags=["hide-input"]
tables = stored.chosen("grouping")
drawn_models = [*stored.chosen("grouping", MODELS)]
tell(tensors=stored.tensors(tables))
short = {name: name.partition(".")[0] for name in tables}
ways = {
    "all pairs": {"of": "own picture", "matching": "none"},
    "equal displacement": {"of": "own picture", "matching": "displacement"},
    "excess": {"of": "excess", "matching": "displacement"},
}

# %% tags=["hide-cell"] mystnb={"code_prompt_show": "Show the figure that answers", "figure": {"name": "fig-matching", "caption": "Attention on the same segment minus attention on different segments, in real models on BSDS500, in units of even attention. Mean over heads. Bands: 95 % intervals over photographs. All pairs: wherever the patches lie. Equal displacement: pairs equally far apart in rows and columns. Excess: equal displacement, minus the null on other photographs."}, "image": {"alt": "One panel for each real model with three curves over depth: high for all pairs in early layers, much lower at equal displacement and for the excess."}}
size = {"figsize": (7.5, 3.4), "sharey": True, "layout": "constrained"}
fig, axes = plt.subplots(1, len(drawn_models), squeeze=False, **size)
for ax, name in zip(axes[0], drawn_models, strict=True):
    for (way, at), look in zip(ways.items(), plots.looks(ways).values(), strict=True):
        plots.with_interval(ax, tables[name].sel(head="all", **at), way, look)
    ax.axhline(0, **plots.ZERO)
    ax.set_title(short[name], fontsize=8)
    ax.set_xlabel("depth")
axes[0, 0].set_ylabel("same − different segment")
named = axes[0, 0].get_legend_handles_labels()
_ = fig.legend(*named, fontsize=8, loc="outside lower center", ncols=3)


# %% tags=["hide-input"]
def third(of, last=False):
    """The mean over the first or last third of the layers, with the widest interval."""
    layers = of.sizes["layer"]
    part = slice(layers - layers // 3, None) if last else slice(layers // 3)
    return statistics.mean(of.isel(layer=part), "layer")


def spread(values, form):
    """The least and the greatest of a number in the real models."""
    found = sorted(float(value) for value in values)
    return f"{found[0]:{form}} to {found[-1]:{form}}"


# %% tags=["hide-input"]
real = {
    name: of.sel(matching="displacement", head="all", of="excess")
    for name, of in tables.items()
}
early = {name: third(of) for name, of in real.items()}
late = {name: third(of, last=True) for name, of in real.items()}

# %% tags=["hide-input"]
judged = report.published()
is_turn = judged.claim.str.endswith("less so late") & (judged.data == "BSDS500")
of_turn = judged[is_turn].set_index("model")[[*statistics.ENDS]]
turn = {name: statistics.interval(*of_turn.loc[name]) for name in real}
for name, of in turn.items():  # the tables and the report tell of the same photographs
    assert abs(late[name].estimate - early[name].estimate - of.estimate) < 1e-4

# %% tags=["hide-input"]
raw = {
    name: third(of.sel(head="all", **ways["all pairs"])) for name, of in tables.items()
}
remains = [early[name].estimate / raw[name].estimate for name in real]
tell(
    raw=spread([of.estimate for of in raw.values()], ".2f"),
    remains=spread(remains, ".0%"),
    early=spread([of.estimate for of in early.values()], "+.2f"),
)

# %% [markdown]
# :::{dropdown} The answer
# Over all pairs, the first third of the layers gives the same segment {glue:text}`raw` more than other
# segments, in units of even attention. At equal displacement and above the null, {glue:text}`remains` of this
# difference remains ({numref}`fig-matching`).
# :::
#
# So most of what looks like early grouping is nearness: {glue:text}`remains` of the difference is left.
#
# ## Early layers group, and not all models stop
#
# What remains is no accident. In the first third of the layers, every one of the three models has an excess above
# zero ({glue:text}`early`). In the two classifiers it fades with depth, as the paper says.
#
# In DINOv2, which was trained without labels, no fade is seen. (Its tensors are the encoder of a saliency
# model, and may have been tuned: see {doc}`03_cosine_trends`.) Late minus early is {glue:text}`dinov2_turn`, and the paper's claim is
# {glue:text}`dinov2_verdict`. But we test {glue:text}`of_real` claims on real models at once. In an interval that is
# wide enough to hold for all of them, {glue:text}`dinov2_wider`, zero is {glue:text}`dinov2_zero`. So a small
# fade stays possible, and we cannot say that the excess rises.
#
# How large is an early excess of {glue:text}`early`? It needs a ceiling and a floor.
#
# - **Ceiling: people.** Imagine attention that spreads evenly over one person's segment. Let the *other* people
#   judge it. Take this as a yardstick: attention that picks out a part of the segment could score more.
# - **Floor: colour.** Imagine attention that depends on nothing but how similar two patches are in their mean
#   colour. It knows no objects and no borders. A network that does better knows more than colour. Of one that does
#   worse, this test cannot say whether it knows more.
#
# For the floor we have to say how fast attention falls with the distance of two colours. We try six speeds,
# and take the best one. This makes the floor as high as it can be.

# %% tags=["hide-input"]
bounds = {
    name: stored.read("grouping_references", name).sel(matching="displacement")
    for name in tables
}
colours = {n: of.sel(of=of.of.str.startswith("colour")) for n, of in bounds.items()}
colour = {n: of.isel(of=int(of.estimate.argmax("of"))) for n, of in colours.items()}
person = {
    name: of.sel(of="another person's segments", drop=True)
    for name, of in bounds.items()
}

# %% tags=["hide-input"] mystnb={"figure": {"name": "fig-people", "caption": "Excess of attention on the patch's own segment on BSDS500, at equal displacement, mean over heads (computed elsewhere). Bands: 95 % intervals over photographs. Dashed: attention that follows mean colours alone, at the best of six speeds. Dotted: attention that follows one person's segments, judged by the other people."}, "image": {"alt": "One panel for each real model: a curve of the excess over depth, below a dashed line for colour alone and far below a dotted line for another person."}}
fig, axes = plt.subplots(1, len(drawn_models), squeeze=False, **size)
for ax, (name, look) in zip(axes[0], plots.looks(drawn_models).items(), strict=True):
    plots.with_interval(ax, real[name], "", look)
    lines = {"colour alone": (colour, "--"), "another person": (person, ":")}
    for label, (of, style) in lines.items():
        ax.axhline(of[name].estimate, color="0.25", ls=style, lw=1.3, label=label)
    ax.axhline(0, **plots.ZERO)
    ax.set_title(short[name], fontsize=8)
    ax.set_xlabel("depth")
axes[0, 0].set_ylabel("excess on its own segment")
named = axes[0, 0].get_legend_handles_labels()
_ = fig.legend(*named, fontsize=8, loc="outside lower center", ncols=2)

# %% tags=["hide-input"]
peak = {
    name: of.isel(layer=int(of.estimate.argmax("layer"))) for name, of in real.items()
}
top = max(peak, key=lambda name: float(peak[name].estimate))
beyond = statistics.difference(peak[top], colour[top])
heads = tables[top].sel(of="excess", matching="displacement").drop_sel(head="all")
heads = heads.stack(place=("layer", "head"))
single = heads.isel(place=int(heads.estimate.argmax("place")))
# %% tags=["hide-input"]
own = {name: of.sel(of="own segments") for name, of in bounds.items()}
part = [early[name].estimate / person[name].estimate for name in real]
tell(
    person=statistics.text(person[top]),
    own_judge=statistics.text(own[top]),
    colour=statistics.text(colour[top]),
    top=short[top],
    top_layer=int(peak[top].layer),
    peak=statistics.text(peak[top]),
    beyond=statistics.text(beyond),
    part=spread(part, ".0%"),
    single=statistics.text(single),
)
# %% tags=["hide-input"]
columns = {"first third": early, "last third": late, "late − early": turn}
told = {
    what: {short[name]: statistics.text(each[name]) for name in drawn_models}
    for what, each in columns.items()
}
stacked(pd.DataFrame(told))

# %% [markdown]
# On the grid of {glue:text}`top`, one person judged by the others scores {glue:text}`person`. (Judged by the
# same person it would be {glue:text}`own_judge`: people differ.) In the first third of the layers, attention
# reaches {glue:text}`part` of the score of a person.
#
# Colour alone, at its best, scores {glue:text}`colour`. In the mean over heads, no layer comes so high. The
# highest is layer {glue:text}`top_layer` of {glue:text}`top`, with {glue:text}`peak`. The difference from colour
# alone is {glue:text}`beyond`, in the widest interval that both allow. Its best single head has {glue:text}`single`. That is about as much as colour
# alone, though we chose the best of all heads. So the grouping is real, but mean colour could explain all of it.
# This does not show that the models *use* colour. It shows that this test cannot tell colour from objects.
#
# ## Six objectives in drawn scenes
#
# Does grouping depend on what a model was trained for? Now we use the drawn scenes and the small models. The
# segments are the *objects alone*; the background is no segment.

# %%
world = qk.world.segmentations(SEED, 0, COUNT)


def runs_of(row, world):
    """The excess of every training run in a row of the table of models."""
    runs = [qk.studies.grouping(name, world) for name in row.dropna()]
    excesses = map(qk.studies.grouping_excess, runs)
    return [one.sel(matching="displacement").mean("head") for one in excesses]


family = models.family()
by_objective = {name: runs_of(row, world) for name, row in family.iterrows()}

# %% tags=["hide-input"] mystnb={"figure": {"name": "fig-grouping", "caption": "Excess of attention on the patch's own object, objects alone, at equal displacement. Thin: training runs. Thick: their mean. Mean over heads and scenes."}, "image": {"alt": "One panel for each training objective. Thin curves of training runs over depth and their thick mean lie mostly above zero; those of the untrained models lie at zero."}}
fig, axes = plt.subplots(
    2, 3, figsize=(7.5, 4.4), sharex=True, sharey=True, layout="constrained"
)
for ax, (name, runs), look in zip(
    axes.flat, by_objective.items(), plots.looks(by_objective).values(), strict=False
):
    plots.runs(ax, [run.mean("image") for run in runs], look)
    ax.axhline(0, **plots.ZERO)
    ax.set_title(name, fontsize=9)
    ax.set_xlabel("depth" if ax in axes[-1] else "")
_ = fig.supylabel("excess on its own object", fontsize=9)


# %% tags=["hide-input"]
def over_runs(runs):
    """The mean excess over layers, and late minus early, each over training runs."""
    levels = [float(run.mean()) for run in runs]
    turns = [float(statistics.late_minus_early(run).estimate) for run in runs]
    return {
        "mean excess": statistics.over_runs(levels),
        "late − early": statistics.over_runs(turns),
    }


# %% tags=["hide-input"]
contrasts = {name: over_runs(runs) for name, runs in by_objective.items()}
small, many = qk.load("tiny-supervised"), qk.world.segmentations(SEED, 0, 4 * COUNT)
in_scenes = qk.studies.grouping_references(small, many)
cuts = [qk.studies.segments_of_patches(small, scene)[0] for scene in many]
patches = np.concatenate(
    [np.unique(cut[cut >= 0], return_counts=True)[1] for cut in cuts]
)
tell(object_patches=float(patches[patches > 1].mean()), patches=cuts[0].size)
limits = statistics.bootstrap(
    qk.studies.grouping_excess(in_scenes)
    .sel(matching="displacement")
    .drop_sel(of="another person's segments")
)
# %% tags=["hide-input"]
reached = contrasts["supervised"]["mean excess"].estimate
above_mild = statistics.difference(
    contrasts["supervised"]["mean excess"], limits.sel(of="colour 1", drop=True)
)
tell(
    scenes_ceiling=statistics.text(limits.sel(of="own segments"), ".0f"),
    scenes_mild=statistics.text(limits.sel(of="colour 1")),
    scenes_sharp=statistics.text(limits.sel(of="colour 32"), ".1f"),
    above_mild=statistics.text(above_mild),
    floor_verdict="zero lies inside"
    if above_mild.low <= 0 <= above_mild.high
    else "zero lies outside",
    references=4 * COUNT,
    runs=len(family.columns),
    hundredth=f"{float(reached / limits.estimate.sel(of='own segments')):.1%}",
    level=statistics.text(contrasts["supervised"]["mean excess"]),
    supervised_turn=statistics.text(contrasts["supervised"]["late − early"]),
    masked_turn=statistics.text(contrasts["simmim"]["late − early"]),
    tuned_turn=statistics.text(contrasts["simmim-finetuned"]["late − early"]),
    continued_turn=statistics.text(contrasts["simmim-continued"]["late − early"]),
    masked=statistics.text(contrasts["simmim"]["mean excess"]),
    untrained=statistics.text(contrasts["untrained"]["mean excess"], ".3f"),
)
# %% tags=["hide-input"]
told = {
    name: {what: statistics.text(of) for what, of in row.items()}
    for name, row in contrasts.items()
}
stacked(pd.DataFrame(told).T)

# %% [markdown]
# Attention follows objects after training: supervised {glue:text}`level`, SimMIM {glue:text}`masked`. Without
# training the excess is {glue:text}`untrained`. The intervals are over {glue:text}`runs` training runs.
#
# Objectives differ in *where* they group ({numref}`fig-grouping`). Supervised models begin with grouping and end
# without it: late minus early is {glue:text}`supervised_turn`. SimMIM has to fill in hidden patches. Its first
# layers group little, and its later ones do: {glue:text}`masked_turn`. After fine-tuning with labels, SimMIM's contrast is
# {glue:text}`tuned_turn`. In the control, as long a training without labels, it is {glue:text}`continued_turn`: too
# wide to say that the labels did it.
#
# Here, too, we need a ceiling and a floor. Attention that spreads over the patch's own object and nowhere else
# scores {glue:text}`scenes_ceiling` ({glue:text}`references` scenes). An object of more than one patch has
# {glue:text}`object_patches:.1f` of the {glue:text}`patches` patches on average. These few patches share all the
# attention: hence the large number. The supervised models reach {glue:text}`hundredth` of it.
#
# Attention that falls slowly with the distance of colours scores {glue:text}`scenes_mild`. The supervised models lie
# {glue:text}`above_mild` above it, in the widest interval that both allow: {glue:text}`floor_verdict`. When it falls
# fast, it scores {glue:text}`scenes_sharp`. Objects of one scene often share their colour, so colour alone cannot
# tell them apart. In drawn scenes, then, the floor is too uncertain to say more.
#
# ## The trap: the background as a segment
#
# Version 0.1 of this book counted the background of drawn scenes as a segment, like any object.
#
# :::{admonition} Predict, then look
# :class: tip
# Objects alone, the supervised models have an excess of {glue:text}`level`. Imagine that all patches, those of
# the background too, like to look at objects. What happens to the number when the background counts as one
# more segment?
# :::

# %% tags=["hide-cell"] mystnb={"code_prompt_show": "Show the figure that answers", "figure": {"name": "fig-trap", "caption": "The same supervised models on the same scenes, measured twice: among objects alone, and with the background counted as a segment. Thin: training runs. Thick: their mean."}, "image": {"alt": "Two groups of curves over depth: above zero for objects alone, far below zero when the background counts as a segment."}}
backed = qk.world.segmentations(SEED, 0, COUNT, background=True)
trapped = runs_of(family.loc["supervised"], backed)
both = {"objects alone": by_objective["supervised"], "with background": trapped}
fig, ax = plt.subplots(figsize=(7, 3.4), layout="constrained")
for (name, runs), look in zip(both.items(), plots.looks(both).values(), strict=True):
    plots.runs(ax, [run.mean("image") for run in runs], look, name)
ax.axhline(0, **plots.ZERO)
ax.set_ylabel("excess on its own segment")
_ = fig.legend(fontsize=8, loc="outside lower center", ncols=2)

# %% tags=["hide-input"]
with_background = over_runs(trapped)["mean excess"]
tell(trapped=statistics.text(with_background))

# %% [markdown]
# :::{dropdown} The answer
# The number turns round: with the background it is {glue:text}`trapped` ({numref}`fig-trap`). A patch of
# the background that looks at an object looks away from *its* segment. Most patches are background, so they
# outvote the objects. The negative number says that objects attract attention. It says nothing about grouping.
# :::
#
# So counting the background turns {glue:text}`level` into {glue:text}`trapped`. Patches of the background look at objects,
# and so away from their own segment. They are the majority.
#
# People's segments in photographs cover the whole picture, sky and grass included. So part of the fall in late
# layers of {numref}`fig-people` may be this trap again. BSDS500 does not say which segments are background.
#
# ## Explore: heads
#
# Step through the layers of {glue:text}`model`. Each line is one head: its attention on the same segment minus
# its attention on different segments, at equal displacement. On the left is the true picture, on the right
# the null.

# %% tags=["hide-input"]
pair = {"own picture": true_picture, "other pictures (null)": other_picture}
by_case = [v.mean("image") for v in pair.values()]
ends = (min(float(v.min()) for v in by_case), max(float(v.max()) for v in by_case))
layers = found.sizes["layer"]
# %% tags=["hide-input"]
frames = [
    plots.heads_by_case(
        [v.isel(layer=n) for v in by_case],
        [*pair],
        f"layer {n}",
        ends,
        "same − different segment",
    )
    for n in range(layers)
]
texts = [f"Heads of layer {n}: same minus different segment." for n in range(layers)]
views.stepper(frames, list(range(layers)), texts, "layer")

# %% tags=["hide-input"]
cosine = qk.weighted_cosine(model, convention="paper")
avoids = excess.sel(layer=least[0], head=least[1])
tell(
    avoided=statistics.text(statistics.bootstrap(avoids)),
    cosine_least=float(cosine.sel(layer=least[0], head=least[1])),
    cosine_most=float(cosine.sel(layer=most[0], head=most[1])),
)

# %% [markdown]
# **Try it.** Find the two heads of {numref}`fig-grouping-opening`. Does the one that follows segments least really avoid
# them? What would you expect of the weighted cosines of both ({doc}`03_cosine_trends`)?
#
# :::{dropdown} What you may have found
# In {glue:text}`least` the excess is {glue:text}`avoided`. We picked the lowest of all heads. If its interval holds zero,
# even this head may avoid nothing. Its weighted cosine is {glue:text}`cosine_least:+.2f`. The head that
# follows segments most, {glue:text}`most`, has {glue:text}`cosine_most:+.2f`. A cosine above zero says that a head
# looks for tokens like the asking one. Like tokens often lie in one segment. But a cosine comes from the weights
# alone, so the two need not agree.
# :::

# %% [markdown]
# ## Exercises
#
# Write in the notebook, where `...` stands. The line below each exercise checks what you wrote. It says what
# holds, and what does not hold yet.
#
# ### Exercise 7.1. Pairs at one displacement
#
# *Medium, 20 minutes. Trains: comparing like with like.*
#
# Take all pairs in which the key lies `down` rows below the query and `right` columns to the right of it. Leave
# out pairs with a patch in no segment: its number is −1. Write a function that gives the mean attention of the pairs
# in one segment, minus the mean of the pairs in two different segments.


# %% tags=["exercise"]
def at_step(attention, segments, down, right):
    """Same minus different, over the pairs at one displacement.

    From attention [query, key] and segments [row, column].
    """
    labels, columns = segments.ravel(), segments.shape[1]  # solution
    row, column = np.divmod(np.arange(len(labels)), columns)  # solution
    there = row - row[:, None] == down  # solution
    there &= column - column[:, None] == right  # solution
    there &= (labels[:, None] >= 0) & (labels >= 0)  # solution
    same = labels[:, None] == labels  # solution
    return attention[there & same].mean() - attention[there & ~same].mean()  # solution


# %% tags=["check"]
check.at_step(at_step)

# %% [markdown]
# :::{dropdown} Hint 1
# Two loops over rows and columns are fine. Collect the attention of each pair in one of two lists.
# :::
#
# :::{dropdown} Hint 2
# The patch in row r and column c is number `r * columns + c`. Skip a key that lies outside of the grid.
# :::
#
# :::{dropdown} Hint 3
# Without loops: `row - row[:, None]` says for each query and key how many rows they are apart.
# :::
#
# :::{dropdown} What you should see
# Four ticks. Even attention has no contrast, the right pairs are compared, and all pairs of a kind count alike.
# :::

# %% [markdown] tags=["solution"]
# :::{dropdown} What it means
# At one displacement, nearness is the same for all pairs. What is left is segments, and where in the
# picture the pairs lie. The null takes the second away. The library adds up all displacements. One that has few
# pairs of either kind counts little.
# :::

# %% [markdown]
# ### Exercise 7.2. Attraction is not grouping
#
# *Medium, 15 minutes, predict first. Trains: the trap of the background.*
#
# Imagine a head that objects attract. Every patch, whoever asks, gives each object patch twice what it gives to
# each background patch, and nothing to itself. Predict first: among objects alone, is *same − different* of this
# attention above zero, zero, or below zero? Then write the attention, in units of even attention: each query's mean
# over the *other* patches is 1. A background patch has the segment −1.

# %% tags=["exercise"]
# "above zero", "zero" or "below zero"
prediction = "zero"  # solution


def attracted(segments):
    """Attention [query, key] from segments [patch]."""
    weight = np.where(segments >= 0, 2.0, 1.0)  # solution
    made = np.tile(weight, (len(weight), 1))  # solution
    np.fill_diagonal(made, 0)  # solution
    return made * (len(made) - 1) / made.sum(1, keepdims=True)  # solution


# %% tags=["check"]
check.attracted(attracted, prediction)
in_scene = qk.studies.segments_of_patches(model, drawn[0])[0]
as_segment = np.where(in_scene < 0, in_scene.max() + 1, in_scene)
drawn_to, gaps = np.asarray(attracted(in_scene)), {}
for case, cut_so in {"objects alone": in_scene, "with background": as_segment}.items():
    compared = (cut_so[:, None] >= 0) & (cut_so >= 0)
    compared &= ~np.eye(len(cut_so), dtype=bool)
    mates = cut_so[:, None] == cut_so
    gap = drawn_to[compared & mates].mean() - drawn_to[compared & ~mates].mean()
    gaps[case] = f"{gap:+.2f}"
gaps

# %% [markdown]
# :::{dropdown} Hint 1
# One row holds what each key gets: 2 for an object, 1 for the background. Every query has this row.
# :::
#
# :::{dropdown} Hint 2
# `np.fill_diagonal(made, 0)` takes away what a patch gives to itself. Then divide each row.
# :::
#
# :::{dropdown} What you should see
# Four ticks. Below them, *same − different* over all pairs of one drawn scene, without the background and with it.
# "Zero" was right: among objects alone, each object patch gets the same. A tick only says that you made a prediction.
# :::

# %% [markdown] tags=["solution"]
# :::{dropdown} What it means
# Among objects alone it is exactly zero: each object patch gets alike, from its own object and from others. With
# the background as a segment, the number falls below zero. This head knows objects, and it does not group. The
# negative sign says which patches attract, and nothing about borders.
# :::

# %% [markdown]
# ### Exercise 7.3. One person judged by another
#
# *Medium, 20 minutes, in pairs. Trains: what a ceiling is.*
#
# Choose a photograph with a few large things in it, for example one of {doc}`/book/photographs`. Each of you cuts it
# into segments without a look at the other's cut. Use a coarse grid of 4 × 4 fields: write one letter for each field,
# row by row. The background gets a letter, too, since people's segments cover the whole picture. If you work alone, cut
# twice: once into whole things, once into their parts.
#
# Now imagine attention that spreads evenly over your segment, in units of even attention. Your neighbour's segments
# judge it. Write the score: the mean over pairs that your neighbour puts together, minus the mean over all other
# pairs. No field attends to itself.

# %% tags=["exercise"]
# both cuts: 16 letters, row by row, as one string with spaces
mine = "aabb aabb ccbb cccc"  # solution
yours = "aabb aabb cccc dddd"  # solution


def judged(mine, yours):
    """Score of attention within `mine`, judged by `yours`: arrays of one label a field."""
    alike = mine[:, None] == mine  # solution
    np.fill_diagonal(alike, False)  # solution
    mates = alike.sum(1, keepdims=True)  # solution
    attention = (len(mine) - 1) * alike / np.maximum(mates, 1)  # solution
    same = yours[:, None] == yours  # solution
    others = ~np.eye(len(mine), dtype=bool)  # solution
    return attention[same & others].mean() - attention[~same].mean()  # solution


# %% tags=["check"]
check.judged(judged, mine, yours)
cuts = [np.array(list(letters.replace(" ", ""))) for letters in (mine, yours)]
by_whom = {"by myself": (cuts[0], cuts[0]), "by my neighbour": cuts}
{judge: f"{judged(*both_cuts):+.2f}" for judge, both_cuts in by_whom.items()}

# %% [markdown]
# :::{dropdown} Hint 1
# `mine[:, None] == mine` says for each pair whether you put it together. A field is no pair with itself.
# :::
#
# :::{dropdown} Hint 2
# A field with m mates gives each of them 1/m. In units of even attention this is (number of fields − 1) / m.
# :::
#
# :::{dropdown} Hint 3
# A field that is alone attends to nothing: divide by `np.maximum(mates, 1)`.
# :::
#
# :::{dropdown} What you should see
# Seven ticks. Below them, your score by yourself and by your neighbour. The second is usually smaller.
# :::

# %% [markdown] tags=["solution"]
# :::{dropdown} What it means
# People agree, but not fully. The score by your neighbour is the ceiling of this chapter, in small. It is no strict
# one: attention could be sharper than a whole segment. Exchange the roles, and the score is another. Whoever cuts
# finer gives more to each mate.
# :::

# %% [markdown]
# ### Exercise 7.4. A null that is not zero
#
# *Easy, 10 minutes, with the view. Trains: reading an excess off a figure.*
#
# Go back to the view *Explore: heads*. Step through all layers and look at the right side only. Find the head that
# stands highest there. Write down the layer, and where the line of this head stands on the left and on the right.

# %% tags=["exercise"]
layer_read = int(by_case[1].max("head").argmax("layer"))  # solution
# where its line stands on the left
left_read = float(by_case[0].isel(by_case[1].argmax(["layer", "head"])))  # solution
# and on the right
right_read = float(by_case[1].max())  # solution

# %% tags=["check"]
check.reading(layer_read, left_read, right_read, *by_case)

# %% [markdown]
# :::{dropdown} Hint 1
# The axis is the same for all layers. So you can compare heights while you step.
# :::
#
# :::{dropdown} Hint 2
# Colour and marker say which end belongs to which line. The right side is the null.
# :::
#
# :::{dropdown} What you should see
# Three ticks. The line is high on the right, where the segments mark nothing.
# :::

# %% [markdown] tags=["solution"]
# :::{dropdown} What it means
# The excess is left minus right: how far the line falls. A head that is high on both sides follows no segment. Where
# in a picture objects lie, and where this head looks, is enough. Without the null we would have called it a head
# that groups.
# :::

# %% [markdown]
# ## Quiz
#
# Choose an answer: each one says why it is right or wrong.
#
# **1. Why are pairs compared at equal displacement?**
#
# :::{dropdown} Because patches of one segment lie close together, and many heads look nearby
# :class-container: option right
# Right. Otherwise nearness alone would look like grouping.
# :::
#
# :::{dropdown} Because segments have different sizes
# :class-container: option
# No. Even with segments of one size, pairs in a segment lie closer together than pairs across segments.
# :::
#
# :::{dropdown} Because the null needs it
# :class-container: option
# No. The null works with all pairs, too. It takes away what matching leaves.
# :::
#
# **2. A layer groups above the null, but less than mean colour alone could. What may you say?**
#
# :::{dropdown} The layer uses colour
# :class-container: option
# No. It may use objects, texture or borders. Colour would be enough, but it need not be the cause.
# :::
#
# :::{dropdown} The layer does not group
# :class-container: option
# No. It is above the null, so segments matter. The floor only says what could explain it.
# :::
#
# :::{dropdown} This test can't tell colour from objects
# :class-container: option right
# Right. You would need pairs that are alike in colour and differ in segment.
# :::
#
# **3. Someone counts the background as a segment and finds an excess below zero. What is the best reading?**
#
# :::{dropdown} Tokens avoid their own object
# :class-container: option
# No. Background patches outnumber object patches, so the number speaks of the background.
# :::
#
# :::{dropdown} Background patches look at objects
# :class-container: option right
# Right. Then they look away from *their* segment, and they are many.
# :::
#
# :::{dropdown} Attention is even
# :class-container: option
# No. Even attention has a contrast of zero at each displacement, with the background or without.
# :::

# %% [markdown]
# ## Did we reproduce it?

# %% tags=["hide-input"]
count = {name: int(of.attrs["images"].split()[0]) for name, of in tables.items()}
of_real = 2 * len(real)  # rows
wider = norm.ppf(1 - 0.025 / of_real) / norm.ppf(0.975)


def zero_of(found):
    """Where zero lies, with an interval that is wide enough for all rows together."""
    away = abs(float(found.estimate)) > wider * float(found.high - found.low) / 2
    return "outside" if away else "inside"


def of_photographs(words, of, direction, name, **said):
    """A row on one real model."""
    where = {"over": f"{count[name]} photographs", "images": count[name]}
    subject = f"{short[name]}, BSDS500"
    return ledger.claim(
        words, of, direction, "grouping", subject=subject, **where, **said
    )


def corrected(found):
    """What is said beside a row."""
    return f"corrected for {of_real} rows, zero is {zero_of(found)}"


# %% tags=["hide-input"]
is_early = "In the first third of the layers, attention groups as people do."
is_less = "Attention groups less in the last third of the layers than in the first."
paper = {"said_by": "paper"}
rows = [
    of_photographs(words, of[n], way, n, more=corrected(of[n]), form=form, **paper)
    for words, of, way, form in (
        (is_early, early, 1, ".2f"),
        (is_less, turn, -1, ".3f"),
    )
    for n in real
]
is_more = "A layer of a real model groups more than colour alone could."
more = f"layer {int(peak[top].layer)}; colour alone {statistics.text(colour[top])}"
rows.append(of_photographs(is_more, beyond, 1, top, seen=True, more=more))
dinov2 = next(n for n in real if "dinov2" in n)
faded = of_photographs(is_less, turn[dinov2], -1, dinov2)
tell(dinov2_turn=statistics.text(turn[dinov2], ".3f"), dinov2_verdict=faded["verdict"])
tell(dinov2_zero=zero_of(turn[dinov2]), of_real=of_real)
middle = float(turn[dinov2].estimate)
reach = wider * float(turn[dinov2].high - turn[dinov2].low) / 2
wide = statistics.interval(middle, middle - reach, middle + reach)
tell(dinov2_wider=statistics.text(wide))

# %% tags=["hide-input"]
untrained = contrasts["untrained"]["mean excess"]
of_scenes = {
    "subject": "drawn scenes, objects alone",
    "over": f"{len(family.columns)} runs",
    "seen": True,
}
follows = "Supervised models attend more within an object than across objects."
more = f"untrained {statistics.text(untrained, '.3f')}"
level = contrasts["supervised"]["mean excess"]
rows.append(ledger.claim(follows, level, 1, "grouping", more=more, **of_scenes))

# %% tags=["hide-input"]
fades = "Supervised models group less late than early."
grows = "SimMIM models group more late than early."
for words, name, way in ((fades, "supervised", -1), (grows, "simmim", 1)):
    contrast = contrasts[name]["late − early"]
    rows.append(ledger.claim(words, contrast, way, "grouping", **of_scenes))
ledger.Rows(rows)

# %% [markdown]
# :::{dropdown} Where these numbers come from
# The numbers of real models were computed on the 50 photographs of the validation part of BSDS500.
# `qkutils store` stored them with the fingerprints of the weights. {glue:text}`tensors` The interval of a
# third of the layers is the mean of the layers' intervals: the widest that they allow. *Late − early* has a
# narrower interval, from the {doc}`replication report </book/report>`. There, photographs are drawn again, each
# with all its layers. Real models have {glue:text}`of_real` rows. So we widen each row's interval until it
# holds for all of them at once (Bonferroni), and say where zero lies.
# :::
#
# ## What was found
#
# - **Early layers group a little as people do.** They reach {glue:text}`part` of a person's score, and colour alone
#   could explain it.
# - Most of what looks like early grouping is nearness. After matching, {glue:text}`remains` of it remains.
# - In photographs an excess remains in the first third of the layers of three real models
#   ({glue:text}`early`). It fades in two classifiers. In DINOv2 no fade is seen ({glue:text}`dinov2_turn`, late minus
#   early).
# - One person judged by others scores {glue:text}`person`, colour alone {glue:text}`colour`. In the mean over
#   heads, no layer of the three models reaches colour alone.
# - In drawn scenes, supervised models group early and SimMIM models late ({glue:text}`supervised_turn` and
#   {glue:text}`masked_turn`, late minus early).
# - Counting the background as a segment turned {glue:text}`level` into {glue:text}`trapped`.
#
# *On method.* A contrast between regions needs regions of one kind. Give an effect a floor and a ceiling before
# you call it large.
#
# **Limits.** A patch on a border belongs to the segment that covers most of it. The score of a person is no strict
# ceiling: attention could be sharper than a whole segment. Colour means the mean RGB colour of a patch; texture
# is left out. To separate objects from colours, pairs would have to be matched in colour, too.
#
# **Further reading.** The segments that people drew {cite}`arbelaez2011contour`.
#
# **Next.** Tokens attend by place, and by something that goes with segments. What exactly do the modes look for?
# {doc}`08_mode_gallery` shows their favourite pictures.
