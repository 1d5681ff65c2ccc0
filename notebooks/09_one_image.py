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
# modes at work in it. It earns figure 5 of the paper, and S17 to S19 {cite}`pan2024dissecting`, and
# adds what they leave out: the modes are added up, one after the other, until they *are* the model's
# own attention.
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
from qkutils.book import pictures_for, tell

# %% [markdown]
# ## Who asks?
#
# A head gives each token a map of its own. To have one map we need one asking patch. We take the
# patch whose attention is least like that of the other patches, averaged over all heads: its attention
# is exceptional, for what stands there or for its place.

# %%
model = qk.load(MODEL)
pictures = qk.pictures_of(IMAGES or pictures_for(model, COUNT), model)
image = pictures.read(PICTURE % len(pictures.keys))
picture = qk.pictures.visible(model, image[None])[0]
true = qk.observed_attention(model, image[None]).isel(image=0)
rows = true.isel(query=slice(model.prefix_tokens, None))
apart = abs(rows - rows.mean("query")).sum("key").mean(("layer", "head"))
asked = int(apart.values.argmax())
tell(model=model.name, asked=asked, row=asked // model.grid[1])
tell(column=asked % model.grid[1], key=pictures.keys[PICTURE % len(pictures.keys)])

# %% [markdown]
# On picture {glue:text}`key` of {glue:text}`model` that is the patch in row {glue:text}`row` and column
# {glue:text}`column`. In each third of the layers we take the head in which its map is least like
# those of the other patches: there it is most exceptional. It may look at fewer places than others do,
# or at more.

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
# A mode's {term}`contribution` to this image is the largest score that it gives to any pair of its
# patches, $\sigma_n \max_i s(z_i\cdot u_n) \max_j s(z_j\cdot v_n)$ for the better sign $s$: our
# reading of the order in the paper. Here only one patch asks, so $i$ is fixed:
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
# In brackets: the contribution, and the {term}`share of the logit`: the mode's covariance, over keys, with the
# whole logit of this patch, as a part of the whole's variance. With key salience, $\kappa$, the shares
# add up to one. A share is below zero where a mode works against the sum of the others.
#
# Contribution looks at the largest *positive* score, and at patches only. A mode that lowers nearly all
# patches, and so leaves attention to the class token or to a few patches, can carry most of the
# variance and score zero. The reverse happens too: keys that are alike all over the picture score high
# and decide nothing, since the softmax does not see what is added to all keys. In
# {glue:text}`disagree` of the three heads the mode with the largest contribution is not the one with
# the largest share.
#
# The modes of an early, a middle and a late head, with the pictures that each responds to most:

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


# %% tags=["hide-input"] mystnb={"figure": {"name": "fig-one-image", "caption": "Figure 5 of the paper for one picture. Left: the picture, its asking patch framed, as in every map. Then for three heads, from early to late, the four modes that contribute most to this patch's attention. On top the mode on the picture (red asks, cyan answers, for the sign at work), below the four pictures of the set to which the mode responds most. The percentage is the share of the logit. Full colour is each mode's own largest projection on the picture."}, "image": {"alt": "The picture with its asking patch, and for three heads four overlays of their top modes, each above four small optimal pictures."}}
fig = plt.figure(figsize=(8, 6.6), layout="constrained")
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
# In {numref}`fig-one-image` read a column from above: where does this mode find what it looks for, and
# what do its optimal pictures have in common there? A percentage below zero says that the mode draws
# attention away from where the head as a whole puts it.
#
# ## Building the score up
#
# The scores are sums, so the modes can be added one after the other, and after each the softmax be
# taken. With all of them, and with {term}`key salience`, nothing may be missing:
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
# How many modes will it take until the map is ten times nearer to the model's than an even map is? The
# same number in an early and in a late head? And what if key salience is left out?
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

# %% tags=["hide-input"] mystnb={"figure": {"name": "fig-build-up", "caption": "How far the attention of the asking patch is from the model's own (total variation, the share that lies elsewhere) when only the first modes count. Solid: ordered by contribution. Dashed: by strength. Dotted: by contribution, without key salience, which need not arrive. Grey lines: an even map, and a tenth of its distance."}, "image": {"alt": "For three heads, curves of total variation against the number of modes, falling to zero, and a dotted one without key salience."}}
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
    worst_mode=f"M{int(explained[worst].mode[count - 1])}",
    worst_share=float(explained[worst].share[count - 1]),
    before=float(before),
    after=float(after),
)

# %% [markdown]
# :::{dropdown} What the run says
# An even map, the same weight for every token, already lies near the model's where the head spreads its
# attention: {glue:text}`even`. Ten times nearer than that, for good, it is with this many modes by
# contribution: {glue:text}`needed`; by strength: {glue:text}`needed_strong`. With the six modes that
# the paper shows this much still lies elsewhere: {glue:text}`six`. Without key salience, with all
# modes: {glue:text}`missing`.
#
# The largest step that a single mode makes in the wrong direction (or the smallest in the right one) is
# that of {glue:text}`worst_mode`, number {glue:text}`worst_count` in {glue:text}`worst`: from
# {glue:text}`before:.2f` to {glue:text}`after:.2f`, with a share of {glue:text}`worst_share:+.0%`. A mode that
# pulls away may count before the one that holds against it.
# :::
#
# ### One patch of one picture proves little
#
# How many modes do *all* heads need, over several pictures?

# %%
some = range(0, len(pictures.keys), max(len(pictures.keys) // 6, 1))[:6]
rest = torch.stack([pictures.read(n) for n in some])
whole = qk.observed_attention(model, rest)
first = [1, 2, 4, 6, 8, 12, 16]
modes = qk.decompose(model)  # convention exact, as everywhere where nothing is said
far = {
    n: qk.total_variation(
        qk.rebuild_attention(model, rest, modes.isel(mode=slice(n))), whole
    )
    .isel(query=slice(model.prefix_tokens, None))
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
# With the six strongest modes the layer means lie between {glue:text}`six_least:.3f` and
# {glue:text}`six_most:.3f`, the latter in layer {glue:text}`six_layer`.
#
# ## From colour to parts?
#
# The paper finds colours in the early modes of its figure 5, and parts of objects in the late ones. On
# one picture that is a matter of looking. Chapter 8 measures it where the content is known: see
# {numref}`fig-families`, and the last table there for the verdicts. It lays random directions beside the
# modes, and so must you: what they show as well is a fact about the layer's tokens, and not about a mode.
#
# ## Explore: a map grows

# %%
layer, head = picks[0]
views.one_image(model, image, pictures, layer=layer, head=head, query_patch=asked)

# %% [markdown]
# With no mode kept, key salience alone decides, and each patch gets the same map.
#
# **Try it.**
#
# 1. *Two orders.* In {glue:text}`order_at` set the number of modes to {glue:text}`order_count`, by
#    contribution, then by σ. Which map is nearer? Which mode makes the difference?
# 2. *Key salience off.* In {glue:text}`kappa_at` keep all modes and take key salience away. How much of
#    the attention moves?
# 3. *A step back.* In {glue:text}`worst` set the number of modes to one less than
#    {glue:text}`worst_count`, then to it, then to one more. What does the map do, and what share has
#    the mode?
#
# For a picture of your own, put it into a folder, set `IMAGES` to the folder and `PICTURE` to its number.

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
# 1. With the number at {glue:text}`order_count`, {glue:text}`by_contribution:.2f` of the attention lies elsewhere
#    by contribution, {glue:text}`by_strength:.2f` by σ. Only the first order has, with their shares of
#    the logit: {glue:text}`only_first`. Only the second: {glue:text}`only_second`. Neither order looks
#    at these shares. A mode that lowers patches, say, helps without a large positive score.
# 2. {glue:text}`kappa_missing:.2f` of the attention moves. Key salience has
#    {glue:text}`kappa_share:+.0%` of the logit in this head. (Above 100 %, modes would work against it
#    together.)
# 3. {glue:text}`before:.2f`, {glue:text}`after:.2f`, {glue:text}`follows:.2f`. A share near or below
#    zero does not mean that a mode is useless: its step can be undone by the next, which only together
#    with it is right.
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
# | Figure 5 shows six modes of a head; they make its attention, up to a tenth of an even map's distance (ours) | elsewhere: {glue:text}`six` | {glue:text}`one_picture` |
# | Biases may be dropped: without key salience (query bias and LayerNorm's shift) less than a twentieth of the attention moves | elsewhere: {glue:text}`missing` | {glue:text}`one_picture` |
# | Figure 5: from colour to parts | see {doc}`08_mode_gallery` | measured there |
#
# A claim about pictures gets a verdict from twenty pictures or more. Here there is one.
#
# ## What to remember
#
# - A mode can be strong and idle on this image. Contribution is about an image and a query.
# - Scores add up; attention does not. After each mode take the softmax again.
# - Say how much of the attention the modes that you show account for.
# - Key salience is no mode, and the map needs it.
#
# **Limits.** Contribution takes two maxima, so one bright patch is enough to rank high, and a mode that
# works by lowering ranks low: six by contribution may miss the mode that decides. The order is one of
# many, and modes with shares below zero make every order a little arbitrary. The asking patch was
# chosen because its attention is special; in large networks that may be one of the few patches that
# serve as stores for the whole picture, and are not about what stands there.
#
# **Further reading.** The paper's figure 5 and section 4.3 {cite}`pan2024dissecting`.
#
# **Next.** The symbols and choices of all chapters are collected in {ref}`notation`.
