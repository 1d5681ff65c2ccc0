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
# (ch-one-image)=
# # How do modes make the attention of one image?
#
# A gallery goes from a mode to its pictures. This chapter goes the other way: from one picture to the
# modes at work in it. It reproduces figures 5 and S17 to S19 of the paper {cite}`pan2024dissecting`. Then
# it goes one step further. It adds the modes up, one after the other, until they *are* the model's own
# attention.
#
# :::{admonition} Before you start
# **After this chapter you can**
# - order the modes of a head by what they contribute to one image;
# - build an attention map up, mode by mode, and say how far it still is from the model's;
# - say how many modes a head needs on an image, and what key salience adds;
# - look at a picture of your own in this way.
#
# **You need** chapters 1 and 8, {doc}`01_svd_derivation` and {doc}`08_mode_gallery`.
#
# **Time**: 20 minutes to read, about a minute to run on a laptop, 20 minutes for the exploration, 45
# minutes to teach. Runs with no GPU and no network.
# :::

# %% tags=["parameters", "hide-input"]
# MODEL: a name that qkutils.load takes, or the path of a checkpoint file
MODEL = "tiny-supervised"
# IMAGES: a folder of pictures, of which one is taken apart; empty: drawn scenes,
# or photographs where the model was trained on them
IMAGES = ""
# IMAGE_SIZE: the side of the pictures that the model gets, in pixels; 0: as it is used by default
IMAGE_SIZE = 0
# MODELS: not needed here: the three stored models have figures of their own
MODELS = []
# Which picture, counted from 0 in the order of the file names
PICTURE = 3
# How many scenes are drawn for the galleries beside it
COUNT = 192

# %% tags=["hide-input"]
import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import torch

import qkutils as qk
from qkutils import statistics, views
from qkutils.views import figures as plots
from qkutils.views import gallery_figures as figures
from qkutils.book import few_enough, pictures_for, stored_maps, tell
from matplotlib_inline.backend_inline import set_matplotlib_formats

# %% [markdown]
# ## Who asks?
#
# A head gives each token a map of its own. To look at one map we have to choose one asking patch. We take
# the patch whose attention differs most from that of the other patches, averaged over all heads. It is
# an exceptional patch, because of what it shows or because of its place.

# %%
model = qk.load(MODEL, image_size=IMAGE_SIZE or None)
pictures = qk.pictures_of(IMAGES or pictures_for(model, COUNT), model)
pictures = pictures.some(few_enough(model, pictures.keys, passes=13, besides=60))
image = pictures.read(PICTURE % len(pictures.keys))
picture = qk.pictures.visible(model, image[None])[0]
true = qk.observed_attention(model, image[None]).isel(image=0)
rows = true.isel(query=slice(model.prefix_tokens, None))
apart = abs(rows - rows.mean("query")).sum("key").mean(("layer", "head"))
asked = int(apart.values.argmax())
tell(model=model.name, asked=asked, row=asked // model.grid[1])
tell(column=asked % model.grid[1], key=pictures.keys[PICTURE % len(pictures.keys)])

# %% [markdown]
# On picture {glue:text}`key`, with {glue:text}`model`, this is the patch in row {glue:text}`row` and column
# {glue:text}`column`. We also choose three heads. In each third of the layers we take the head in which
# the map of this patch differs most from the maps of the other patches.

# %%
at = model.prefix_tokens + asked
unlike = qk.attention.total_variation(rows.isel(query=asked), rows.mean("query"))
layers = unlike.sizes["layer"]
thirds = np.array_split(np.arange(layers), 3)
picks = []
for third in thirds:
    within = unlike.isel(layer=third).stack(of=("layer", "head"))
    picks.append(within["of"].item(int(within.values.argmax())))
name_of = "L{} H{}".format
[name_of(*place) for place in picks]

# %% [markdown]
# ## Modes in order of contribution
#
# In which order should we look at the modes? A mode's {term}`contribution` to an image is the largest score
# that the mode gives to any pair of patches:
# $\sigma_n \max_i s(z_i\cdot u_n) \max_j s(z_j\cdot v_n)$, for the better sign $s$. We think that the paper
# uses this order. Here only one patch asks, so $i$ is fixed:
#
# $$ c_n = \max_s \; \sigma_n \; s\,(z_i\cdot u_n) \; \max_j s\,(z_j \cdot v_n). $$

# %%
explained = {
    place: qk.studies.one_image(model, image, *place, query_patch=asked)
    for place in picks
}

# %% tags=["hide-input"]
table = {}
for place, found in explained.items():
    top = found.isel(mode=slice(0, 6))
    table[name_of(*place)] = [
        f"M{int(m)} ({float(c):.2g}; {float(s):+.0%})"
        for m, c, s in zip(top.mode, top.contribution, top.share, strict=True)
    ] + [f"κ ({float(found.salience_share):+.0%})"]
# 0: the mode that leads by contribution leads by share
firsts = [int(found.share.values.argmax()) for found in explained.values()]
tell(disagree=sum(first > 0 for first in firsts))
pd.DataFrame(table, index=[*(f"number {n}" for n in range(1, 7)), "key salience"])

# %% [markdown]
# The first number in brackets is the contribution. The second number is the {term}`share of the logit`. To
# compute it, take the covariance, over keys, of the mode's part with the whole logit of this patch, and
# divide by the variance of the whole logit. The shares of all modes and of key salience, $\kappa$, add up
# to one. A share below zero means that the mode works against the sum of the others.
#
# Contribution and share can disagree, in two ways:
#
# - Contribution looks only at the largest *positive* score of a patch. A mode may lower nearly all patches,
#   and so leave the attention to the class token or to a few patches. Such a mode can have a large share
#   and a contribution of zero.
# - A mode may give all patches nearly the same high score. Its contribution is large. But it decides
#   nothing, because the softmax does not see what is added to all keys.
#
# In {glue:text}`disagree` of the three heads the mode with the largest contribution does not have the
# largest share.
#
# The next figure shows the modes of an early, a middle and a late head, with the pictures that each mode
# responds to most:

# %% tags=["hide-input"]
atlas = qk.scan(model, pictures, k=4)


def block(axes, place, number):
    """The map of one mode on the picture, and its optimal pictures for the sign at work."""
    found = explained[place].isel(mode=number)
    mode = int(found.mode)
    sign = 1 if float(found.query_map.values.ravel()[asked]) > 0 else -1
    best = qk.optimal_pictures(model, pictures, atlas, *place, mode)
    name = f"{name_of(*place)} M{mode}"
    figures.mode_at_work(axes, picture, found, best.sel(sign=sign), name)
    return plots.mark_patch(axes["a"], asked, model.grid[1])


# %% tags=["hide-input"] mystnb={"figure": {"name": "fig-one-image", "caption": "Figure 5 of the paper for one picture. Left: the picture, with a frame around the asking patch. Each row: one head, from early to late, with the four modes that contribute most to this patch's attention. The map shows the mode on the picture, for the sign at work: red asks, cyan answers, white does both. Full colour is the mode's largest projection on the picture. The percentage is the share of the logit. Below each map: the four pictures of the set to which the mode responds most."}, "image": {"alt": "The picture with its asking patch, and for three heads four overlays of their top modes, each above four small optimal pictures."}}
fig = plt.figure(figsize=(8, 7.2), layout="constrained")
left, right = fig.subfigures(1, 2, width_ratios=(1.4, 5))
ax = left.subplots()
ax.imshow(picture, extent=(0, model.grid[1], model.grid[0], 0))
plots.mark_patch(ax, asked, model.grid[1])
ax.set(xticks=[], yticks=[], title="asks")
for part, place in zip(right.subfigures(3, 4), picks, strict=True):
    for number, cell in enumerate(part):
        axes = cell.subplot_mosaic("aaaa;aaaa;aaaa;bcde")
        block(axes, place, number)

# %% [markdown]
# Choose one map of {numref}`fig-one-image`. Where does this mode find what it looks for? What do the
# optimal pictures below the map have in common? A percentage below zero says that the mode draws
# attention away from the places where the head as a whole puts it.
#
# ## Building the score up
#
# A score is a sum over modes. So we can add one mode after the other, and take the softmax after each
# step. With all modes and with {term}`key salience`, nothing should be missing:
#
# $$ \mathrm{softmax}_j\Big(\big(\kappa\cdot z_j + \textstyle\sum_{n \in \text{first}}
#    \sigma_n (z_i\cdot u_n)(z_j\cdot v_n)\big) / \sqrt{d_{\text{head}}}\Big). $$

# %%
model_row = {
    place: true.sel(layer=place[0], head=place[1]).isel(query=at) for place in picks
}
built = {place: qk.studies.build_up(found) for place, found in explained.items()}
errors = [
    abs(rows.isel(count=-1).values - model_row[place].values).max()
    for place, rows in built.items()
]
tell(rebuilt_error=float(max(errors)), modes=len(explained[picks[0]].mode))
dict(built[picks[0]].sizes)

# %% [markdown]
# With all {glue:text}`modes` modes the rebuilt attention differs from the model's own, read inside its
# forward pass, by {glue:text}`rebuilt_error:.0e` at most.
#
# :::{admonition} Predict, then look
# :class: tip
# An even map gives the same attention to every token. How many modes does it take until our map is ten
# times nearer to the model's map than an even map? Is the number the same in an early and in a late
# head? And what happens without key salience?
# :::

# %%
distance, even = {}, {}
for place, found in explained.items():
    row = model_row[place].values
    even[place] = abs(1 / len(row) - row).sum() / 2
    orders = {
        "by contribution": built[place],
        "by strength": qk.studies.build_up(found.sortby("sigma", ascending=False)),
        "no key salience": qk.studies.build_up(found, salience=False),
    }
    for name, rows in orders.items():
        distance[place, name] = abs(rows - row).sum("token") / 2

# %% tags=["hide-input"] mystnb={"figure": {"name": "fig-build-up", "caption": "How far the attention of the asking patch is from the model's own when only the first modes count. The distance is the total variation: the share of attention that lies elsewhere. Solid: ordered by contribution. Dashed: by strength. Dotted: by contribution, without key salience; this curve need not reach zero. Grey lines: the distance of an even map, and a tenth of it. The scales differ."}, "image": {"alt": "For three heads, curves of total variation against the number of modes, falling to zero, and a dotted one without key salience."}}
fig, axes = plt.subplots(1, 3, figsize=(7.5, 3.2), layout="constrained")
styles = {"by contribution": "-", "by strength": "--", "no key salience": ":"}
for ax, (layer, head) in zip(axes, picks, strict=True):
    for (name, style), colour in zip(styles.items(), plots.PALETTE, strict=False):
        curve = distance[(layer, head), name]
        ax.plot(curve["count"], curve, style, color=colour, label=name)
    for part, line in ((1, "-"), (0.1, "--")):
        ax.axhline(part * even[layer, head], color="0.5", lw=0.9, ls=line)
    ax.set(title=f"layer {layer}, head {head}", xlabel="modes counted", ylim=(0, None))
axes[0].set_ylabel("attention that lies elsewhere")
shown = axes[0].get_legend_handles_labels()
_ = fig.legend(*shown, fontsize=8, loc="outside lower center", ncols=3)


# %% tags=["hide-input"]
def needed(place, order):
    """The number of modes from which on an even map is ten times further away."""
    far = np.flatnonzero(distance[place, order].values > 0.1 * even[place])
    return int(far[-1]) + 1 if len(far) else 0


def in_heads(values):
    """A value for each of the three heads, in words."""
    named = zip(picks, values, strict=True)
    return "; ".join(f"{name_of(*place)}: {value}" for place, value in named)


# %% tags=["hide-input"]
missing = [float(distance[place, "no key salience"][-1]) for place in picks]
six = [float(distance[place, "by contribution"][6]) for place in picks]
steps = {place: distance[place, "by contribution"].diff("count") for place in picks}
worst = max(picks, key=lambda place: float(steps[place].max()))
count = int(steps[worst]["count"][int(steps[worst].values.argmax())])
before, after = distance[worst, "by contribution"].values[count - 1 : count + 1]

# %% tags=["hide-input"]
tell(
    needed=in_heads(needed(place, "by contribution") for place in picks),
    needed_strong=in_heads(needed(place, "by strength") for place in picks),
    missing=in_heads(f"{value:.3f}" for value in missing),
    six=in_heads(f"{value:.3f}" for value in six),
    even=in_heads(f"{even[place]:.2f}" for place in picks),
    worst=name_of(*worst),
    worst_count=count,
    step_before=count - 1,
    step_after=min(count + 1, len(steps[worst])),
    worst_mode=f"M{int(explained[worst].mode[count - 1])}",
    worst_share=float(explained[worst].share[count - 1]),
    before=float(before),
    after=float(after),
)

# %% [markdown]
# :::{dropdown} What the run says
# The distance of an even map is small if the head spreads its attention. Here it is
# {glue:text}`even`. How many modes does it take to come ten times nearer, and to stay there?
#
# - by contribution: {glue:text}`needed`;
# - by strength: {glue:text}`needed_strong`.
#
# The paper shows six modes of a head. With six modes, this share of attention still lies elsewhere:
# {glue:text}`six`. With all modes but without key salience, it is {glue:text}`missing`.
#
# More modes do not always bring the map nearer. The worst step is that of {glue:text}`worst_mode`, number
# {glue:text}`worst_count` in {glue:text}`worst`. It takes the distance from {glue:text}`before:.2f` to
# {glue:text}`after:.2f`. The mode's share is {glue:text}`worst_share:+.0%`. A later mode can undo such a
# step.
# :::
#
# ### One patch of one picture proves little
#
# How many modes do *all* heads need, over several pictures?

# %%
some = range(0, len(pictures.keys), max(len(pictures.keys) // 6, 1))[:6]
rest = torch.stack([pictures.read(n) for n in some])
first = [1, 2, 4, 6, 8, 12, 16]
modes = qk.decompose(model)  # convention exact, as everywhere where nothing is said
patches = slice(model.prefix_tokens, None)
far = {
    n: qk.compare_attention(model, rest, modes.isel(mode=slice(n)))
    .total_variation.isel(query=patches)
    .mean(("query", "image"))
    for n in first
}

# %% tags=["hide-input"] mystnb={"figure": {"name": "fig-all-heads", "caption": "Six pictures, all patches as askers: attention that lies elsewhere when each head has only its first modes by strength, and key salience; on a logarithmic scale. Lines: numbers of modes. Mean over heads."}, "image": {"alt": "Curves over layers on a logarithmic scale, one for each number of modes from 1 to 16, lower for more modes."}}
fig, ax = plt.subplots(figsize=(7.5, 3.8), layout="constrained")
for (n, values), colour in zip(far.items(), plots.shades(len(far)), strict=True):
    look = {"color": colour, "marker": "o"}
    plots.over_depth(ax, values.mean("head"), f"{n} mode{'s' * (n > 1)}", look)
ax.set(ylabel="attention that lies elsewhere", yscale="log")
_ = ax.legend(fontsize=8, loc="center left", bbox_to_anchor=(1, 0.5))

# %% tags=["hide-input"]
at_six = far[6].mean("head")
tell(
    six_most=float(at_six.max()),
    six_least=float(at_six.min()),
    six_layer=int(at_six.layer[int(at_six.values.argmax())]),
)

# %% [markdown]
# With the six strongest modes, the layer means lie between {glue:text}`six_least:.3f` and
# {glue:text}`six_most:.3f`. The largest one belongs to layer {glue:text}`six_layer`.
#
# ## A real photograph, taken apart
#
# Here are the three models of {numref}`fig-stored-deit`, {numref}`fig-stored-augreg` and
# {numref}`fig-stored-dinov2`, on the first of our twenty {ref}`photographs <photographs>`. Their weights
# are not part of this book, so this was computed elsewhere and stored. The rules are those of above. The
# asking patch is the one whose attention is least like that of the others. In each *sixth* of the layers we
# take the head where this patch is most exceptional. As in the paper, six modes are shown, in order of
# contribution. (The tensors of DINOv2 come from a saliency model, and may have been tuned for it: see there.)

# %% tags=["hide-input"]
set_matplotlib_formats("jpeg")  # figures of photographs are large otherwise
names = stored_maps.stored.names("taken_apart")
taken = {name: stored_maps.taken_apart(name) for name in names}


def draw_taken_apart(name):
    """Six heads of a stored model, from early to late, and of each six modes."""
    found = taken[name]
    picture = stored_maps.photograph(found, found.attrs["photograph"])
    fig, axes = plt.subplots(6, 6, figsize=(9, 10), layout="constrained")
    for row, number in zip(axes, range(6), strict=True):
        head = found.isel(chosen=number)
        figures.modes_in_a_row(row, picture, head, int(found.attrs["asked"]))
        at = f"{name_of(int(head.layer), int(head['head']))}\nκ {float(head.salience_share):+.0%}"
        row[0].text(-0.1, 0.5, at, ha="right", va="center", transform=row[0].transAxes)


# %% tags=["hide-input"] mystnb={"figure": {"name": "fig-apart-deit", "caption": "One photograph in DeiT-tiny: six heads from early to late, in rows, and the six modes of each that contribute most to the attention of the framed patch. Red asks, cyan answers, for the sign at work; full colour is each mode's own largest projection. The percentage is the share of the logit, κ that of key salience. Computed elsewhere. Photograph: Eileen Collins, NASA, public domain."}, "image": {"alt": "Six rows of six red and cyan overlays on a portrait of an astronaut, one row for each head of deit, with the share of the logit above each."}}
draw_taken_apart("deit_tiny_patch16_224.fb_in1k")

# %% tags=["hide-input"] mystnb={"figure": {"name": "fig-apart-augreg", "caption": "One photograph in ViT-tiny AugReg: six heads from early to late, in rows, and the six modes of each that contribute most to the attention of the framed patch. Red asks, cyan answers, for the sign at work; full colour is each mode's own largest projection. The percentage is the share of the logit, κ that of key salience. Computed elsewhere. Photograph: Eileen Collins, NASA, public domain."}, "image": {"alt": "Six rows of six red and cyan overlays on a portrait of an astronaut, one row for each head of augreg, with the share of the logit above each."}}
draw_taken_apart("vit_tiny_patch16_224.augreg_in21k_ft_in1k")

# %% tags=["hide-input"] mystnb={"figure": {"name": "fig-apart-dinov2", "caption": "One photograph in DINOv2 ViT-S/14: six heads from early to late, in rows, and the six modes of each that contribute most to the attention of the framed patch. Red asks, cyan answers, for the sign at work; full colour is each mode's own largest projection. The percentage is the share of the logit, κ that of key salience. Computed elsewhere. Photograph: Eileen Collins, NASA, public domain."}, "image": {"alt": "Six rows of six red and cyan overlays on a portrait of an astronaut, one row for each head of dinov2, with the share of the logit above each."}}
draw_taken_apart("vit_small_patch14_dinov2.lvd142m")

# %% tags=["hide-input"]
rows = {
    (name, name_of(int(one.layer), int(one["head"]))): (
        one.share.sum(),
        one.salience_share,
    )
    for name, found in taken.items()
    for one in (found.isel(chosen=n) for n in range(6))
}
table = {place: [float(value) for value in values] for place, values in rows.items()}
of_heads = pd.DataFrame(table, index=["six modes", "key salience"]).T

# %% tags=["hide-input"]
set_matplotlib_formats("png")
tell(
    real_heads=len(of_heads),
    most_in_six=int((of_heads["six modes"] > 0.5).sum()),
    most_in_salience=int((of_heads["key salience"] > 0.5).sum()),
)
of_heads.round(2)

# %% [markdown]
# In {glue:text}`most_in_six` of these {glue:text}`real_heads` heads, six modes carry more than half of the
# logit's variance. In {glue:text}`most_in_salience`, key salience alone does. Where κ carries most, the six
# maps of the row say little about where the head looks. It looks where every query of the picture looks.
#
# ## From colour to parts?
#
# The paper finds colours in the early modes of its figure 5, and parts of objects in the late ones. On one
# picture this remains an impression. Chapter 8 measures it in scenes whose content is known. See
# {numref}`fig-families`, and the last table of chapter 8 for the verdicts. Chapter 8 also measures random
# directions. If random directions show the same trend, the trend belongs to the layer's tokens, and not
# to the modes.
#
# ## Explore: a map grows
#
# Choose a head and an asking patch. Look at one mode alone, and then add the modes up.

# %%
layer, head = picks[0]
views.one_image(model, image, pictures, layer=layer, head=head, query_patch=asked)

# %% [markdown]
# With no mode at all, key salience alone decides. Then every asking patch has the same map.
#
# **Try it.**
#
# 1. *Two orders.* In {glue:text}`order_at`, add up the first {glue:text}`order_count` by contribution, and
#    then the same number by σ. Which map is nearer? Which mode makes the difference?
# 2. *Key salience off.* In {glue:text}`kappa_at`, keep all modes and switch key salience off. How much of
#    the attention moves?
# 3. *A step back.* In {glue:text}`worst`, add up {glue:text}`step_before` modes by contribution, then
#    {glue:text}`worst_count`, then {glue:text}`step_after`. What does the map do? What is the share of mode
#    {glue:text}`worst_mode`?
#
# You can also take a picture of your own. Put it into a folder, set `IMAGES` to the folder and `PICTURE`
# to its number.

# %% tags=["hide-input"]
behind = {
    place: distance[place, "by contribution"] - distance[place, "by strength"]
    for place in picks
}
order_at = max(picks, key=lambda place: float(abs(behind[place]).max()))
n = int(abs(behind[order_at]).values.argmax())
kappa_at = max(picks, key=lambda place: float(abs(explained[place].salience_share)))
by_score = explained[order_at]
by_sigma = by_score.sortby("sigma", ascending=False)


def with_shares(these, those):
    """The modes that one order takes first and the other does not, with their shares."""
    only = sorted({*these.mode.values[:n]} - {*those.mode.values[:n]})
    return ", ".join(f"M{m} ({float(these.share.sel(mode=m)):+.0%})" for m in only)


# %% tags=["hide-input"]
tell(
    order_at=name_of(*order_at),
    order_count=n,
    by_contribution=float(distance[order_at, "by contribution"][n]),
    by_strength=float(distance[order_at, "by strength"][n]),
    only_first=with_shares(by_score, by_sigma),
    only_second=with_shares(by_sigma, by_score),
)

# %% tags=["hide-input"]
curve = distance[worst, "by contribution"].values
tell(
    kappa_at=name_of(*kappa_at),
    kappa_share=float(explained[kappa_at].salience_share),
    kappa_missing=float(distance[kappa_at, "no key salience"][-1]),
    follows=float(curve[min(count + 1, len(curve) - 1)]),
)

# %% [markdown]
# :::{dropdown} What you may have found
# 1. By contribution, {glue:text}`by_contribution:.2f` of the attention lies elsewhere. By σ it is
#    {glue:text}`by_strength:.2f`. Only the order by contribution includes {glue:text}`only_first`. Only the
#    order by σ includes {glue:text}`only_second`. (The percentage is the share of the logit.) Neither order
#    looks at the shares. A mode that lowers patches, for example, can help without a large positive score.
# 2. {glue:text}`kappa_missing:.2f` of the attention moves. The share of key salience in this head is
#    {glue:text}`kappa_share:+.0%`. (A share above 100 % would mean that the modes together work against key
#    salience.)
# 3. The distance goes from {glue:text}`before:.2f` to {glue:text}`after:.2f`, and then to
#    {glue:text}`follows:.2f`. So a mode with a share near or below zero is not useless. The next mode can
#    undo its step, and the two are right only together.
# :::
#
# ## Did we reproduce it?

# %% tags=["hide-input"]
tell(
    verdict_exact=statistics.verdict_of_identity(max(errors), 1e-5),
    one_picture=statistics.verdict(None, 1, "attention moved"),
)

# %% [markdown]
# | claim | this run, one patch of one picture | verdict |
# |---|---|---|
# | Section 3: the modes make up the score; with key salience the attention is exact (ours) | differs by {glue:text}`rebuilt_error:.0e` | {glue:text}`verdict_exact` |
# | Figure 5 shows six modes of a head. (Ours:) six modes make its attention, up to a tenth of an even map's distance | attention that lies elsewhere: {glue:text}`six` | {glue:text}`one_picture` |
# | Biases may be dropped: without key salience (query bias and LayerNorm's shift) less than a twentieth of the attention moves | attention that lies elsewhere: {glue:text}`missing` | {glue:text}`one_picture` |
# | Figure 5: from colour to parts | see {doc}`08_mode_gallery` | measured there |
#
# In this book, a claim about pictures gets a verdict only from twenty pictures or more. Here there is one
# picture, so two rows have no verdict.
#
# ## What to remember
#
# - A mode can be strong, and still do nothing on this image. Contribution belongs to an image and a query.
# - Scores add up, attention does not. After each mode, take the softmax again.
# - If you show some modes, say how much of the attention they account for.
# - Key salience is not a mode. But the map needs it.
#
# **Limits.** Contribution looks at the largest scores. So one bright patch is enough for a high rank, and a
# mode that works by lowering patches has a low rank. Six modes by contribution may miss the mode that
# decides. There are many possible orders, and modes with shares below zero make every order a little
# arbitrary. We chose the asking patch because its attention is exceptional. In large networks a few
# patches serve as stores for the whole picture. An exceptional patch may be one of them, and then it is
# not about what it shows.
#
# **Further reading.** The paper's figure 5 and section 4.3 {cite}`pan2024dissecting`.
#
# **Next.** The symbols and choices of all chapters are collected in {ref}`notation`.
