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

# %% tags=["parameters"]
# MODEL: a name that qkutils.load takes, or the path of a checkpoint file
MODEL = "tiny-supervised"
# IMAGES: a folder of pictures, of which one is taken apart; empty: drawn scenes
IMAGES = ""
# Which picture, counted from 0 in the order of the file names
PICTURE = 3
# How many scenes are drawn for the galleries beside it
COUNT = 192

# %%
import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import torch

import qkutils as qk
from qkutils import data, gallery, plots, views
from qkutils.gallery import figures
from qkutils.report import tell, verdict

# %% [markdown]
# ## Who asks?
#
# A head gives each token a map of its own. To have one map we need one asking patch. We take the
# patch whose attention is least like that of the other patches, summed over all heads: it sees
# something that others do not.

# %%
model = qk.load(MODEL)
source = IMAGES or data.images("", model, COUNT)
pictures = gallery.pictures_of(source, model)
image = pictures.read(PICTURE % len(pictures.keys))
picture = data.visible(model, image[None])[0]
true = qk.observed_attention(model, image[None]).isel(image=0)
rows = true.isel(query=slice(model.prefix_tokens, None))
apart = abs(rows - rows.mean("query")).sum("key").mean(("layer", "head"))
asked = int(apart.values.argmax())
tell(model=model.name, asked=asked, row=asked // model.grid[1])
tell(column=asked % model.grid[1], key=pictures.keys[PICTURE % len(pictures.keys)])

# %% [markdown]
# On picture {glue:text}`key` of {glue:text}`model` that is the patch in row {glue:text}`row` and column
# {glue:text}`column`. In each third of the layers we take the head whose map is least like that of the
# layer's other patches: the *selective* head for this patch.

# %%
at = model.prefix_tokens + asked
unlike = abs(rows.isel(query=asked) - rows.mean("query")).sum("key") / 2
layers = unlike.sizes["layer"]
thirds = np.array_split(np.arange(layers), 3)
picks = []
for third in thirds:
    within = unlike.isel(layer=third).stack(of=("layer", "head"))
    picks.append(within["of"].item(int(within.values.argmax())))
[f"layer {layer}, head {head}" for layer, head in picks]

# %% [markdown]
# ## Modes in order of contribution
#
# A mode's {term}`contribution` to this image is the largest score that it gives to any pair of its
# patches, $\sigma_n \max_i s(z_i\cdot u_n) \max_j s(z_j\cdot v_n)$ for the better sign $s$; the paper
# orders by it. Here only one patch asks, so $i$ is fixed:
#
# $$ c_n = \max_s \; \sigma_n \; s\,(z_i\cdot u_n) \; \max_j s\,(z_j \cdot v_n). $$

# %%
explained = {
    place: gallery.explain(model, image, *place, query_patch=asked) for place in picks
}
table = {}
for (layer, head), found in explained.items():
    top = found.isel(mode=slice(0, 6))
    table[f"L{layer} H{head}"] = [
        f"M{int(m)} ({float(c):.2g}; {float(s):+.0%})"
        for m, c, s in zip(top.mode, top.contribution, top.share, strict=True)
    ]
firsts = [
    int(found.share.values.argmax()) for found in explained.values()
]  # 0: the mode that leads by contribution leads by share
tell(disagree=sum(first > 0 for first in firsts))
pd.DataFrame(table, index=[f"number {n}" for n in range(1, 7)])

# %% [markdown]
# In brackets: the contribution, and the share of the variance of this patch's logits. The share can
# be below zero, where a mode works against the sum of the others. The two need not agree: a mode whose
# keys are alike all over the picture scores high, and decides nothing, since the softmax does not see
# what is added to all keys. In {glue:text}`disagree` of the three heads the mode with the largest
# contribution is not the one with the largest share.
#
# The modes of an early, a middle and a late head, with the pictures that each responds to most:

# %%
atlas = gallery.scan(model, pictures, k=4)


def block(axes, place, number):
    """The map of one mode on the picture, and its optimal pictures for the sign at work."""
    found = explained[place].isel(mode=number)
    mode = int(found.mode)
    sign = 1 if float(found.query_map.values.ravel()[asked]) > 0 else -1
    best = gallery.optimal(model, pictures, atlas, *place, mode)
    name = f"L{place[0]} H{place[1]} M{mode}"
    figures.mode_at_work(axes, picture, found, best.sel(sign=sign), name)
    return plots.mark_patch(axes["a"], asked, model.grid[1])


# %% mystnb={"figure": {"name": "fig-one-image", "caption": "Figure 5 of the paper for one picture. Left: the picture, its asking patch framed, as in every map. Then for three heads, from early to late, the four modes that contribute most to this patch's attention. On top the mode on the picture (red asks, cyan answers, for the sign at work), below the four pictures of the set to which the mode responds most. The percentage is the share of the variance of this patch's logits. Each mode has its own scale."}, "image": {"alt": "The picture with its asking patch, and for three heads four overlays of their top modes, each above four small optimal pictures."}}
fig = plt.figure(figsize=(12, 7.6), layout="constrained")
left, right = fig.subfigures(1, 2, width_ratios=(1, 5))
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
built = {place: gallery.build_up(found) for place, found in explained.items()}
errors = [
    abs(rows.isel(count=-1).values - model_row[place].values).max()
    for place, rows in built.items()
]
tell(rebuilt_error=float(max(errors)), modes=len(explained[picks[0]].mode))
built[picks[0]].sizes

# %% [markdown]
# With all {glue:text}`modes` modes the rebuilt attention differs from the model's own, read inside its
# forward pass, by {glue:text}`rebuilt_error:.0e` at most.
#
# :::{admonition} Predict, then look
# :class: tip
# How many modes will it take until nine tenths of the attention lie where the model puts them? The
# same number in an early and in a late head? And what if key salience is left out?
# :::

# %%
distance = {}
for place, found in explained.items():
    row = model_row[place].values
    orders = {
        "by contribution": built[place],
        "by strength": gallery.build_up(found.sortby("sigma", ascending=False)),
        "no key salience": gallery.build_up(found, salience=False),
    }
    for name, rows in orders.items():
        distance[place, name] = abs(rows - row).sum("token") / 2

# %% mystnb={"figure": {"name": "fig-build-up", "caption": "How far the attention of the asking patch is from the model's own (total variation, the share that lies elsewhere) when only the first modes count. Solid: ordered by contribution. Dashed: by strength. Dotted: by contribution, without key salience, which need not arrive. Grey line: a tenth."}, "image": {"alt": "For three heads, curves of total variation against the number of modes, falling to zero, and a dotted one without key salience."}}
fig, axes = plt.subplots(1, 3, figsize=(11, 3), sharey=True, layout="constrained")
styles = {"by contribution": "-", "by strength": "--", "no key salience": ":"}
for ax, (layer, head) in zip(axes, picks, strict=True):
    for (name, style), colour in zip(styles.items(), plots.PALETTE, strict=False):
        curve = distance[(layer, head), name]
        ax.plot(curve["count"], curve, style, color=colour, label=name)
    ax.axhline(0.1, color="0.6", lw=0.8)
    ax.set(title=f"layer {layer}, head {head}", xlabel="modes counted", ylim=(0, 1))
axes[0].set_ylabel("attention that lies elsewhere")
_ = axes[0].legend(fontsize=8)


# %%
def needed(curve):
    """The number of modes from which on nine tenths of the attention are in place."""
    far = np.flatnonzero(curve.values > 0.1)
    return int(far[-1]) + 1 if len(far) else 0


counts = {place: needed(distance[place, "by contribution"]) for place in picks}
strong = {place: needed(distance[place, "by strength"]) for place in picks}
missing = [float(distance[place, "no key salience"][-1]) for place in picks]
six = [float(distance[place, "by contribution"][6]) for place in picks]
tell(
    needed="; ".join(f"L{a} H{b}: {count}" for (a, b), count in counts.items()),
    needed_strong="; ".join(f"L{a} H{b}: {count}" for (a, b), count in strong.items()),
    missing="; ".join(f"{value:.2f}" for value in missing),
    six="; ".join(f"{value:.2f}" for value in six),
)

# %% [markdown]
# :::{dropdown} What the run says
# Nine tenths of the attention are in place for good with this many modes, by contribution:
# {glue:text}`needed`; by strength: {glue:text}`needed_strong`. With the six modes that the paper
# shows, {glue:text}`six` of the attention still lies elsewhere in the three heads. Without key salience,
# {glue:text}`missing` does, with all modes.
#
# More modes do not always bring the map nearer: one that pulls away counts before the one that holds
# against it.
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
far = {
    n: qk.attention.total_variation(qk.rebuild_attention(model, rest, modes=n), whole)
    .isel(query=slice(model.prefix_tokens, None))
    .mean(("query", "image"))
    for n in first
}

# %% mystnb={"figure": {"name": "fig-all-heads", "caption": "Six pictures, all patches as askers: attention that lies elsewhere when each head has only its strongest modes and key salience. Lines: numbers of modes. Mean over heads."}, "image": {"alt": "Curves over layers, one for each number of modes from 1 to 16, lower for more modes."}}
fig, ax = plt.subplots(figsize=(7.5, 3.4), layout="constrained")
for (n, values), colour in zip(far.items(), plots.shades(len(far)), strict=True):
    look = {"color": colour, "marker": "o"}
    plots.over_depth(ax, values.mean("head"), f"{n} mode{'s' * (n > 1)}", look)
ax.set(ylabel="attention that lies elsewhere", ylim=(0, None))
_ = ax.legend(fontsize=8, loc="center left", bbox_to_anchor=(1, 0.5))

# %%
at_six = far[6].mean("head")
tell(
    six_most=float(at_six.max()),
    six_least=float(at_six.min()),
    six_layer=int(at_six.layer[int(at_six.values.argmax())]),
)

# %% [markdown]
# With the six strongest modes the layer means lie between {glue:text}`six_least:.2f` and
# {glue:text}`six_most:.2f`, the latter in layer {glue:text}`six_layer`.
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
views.one_image(model, image, pictures, query_patch=asked)

# %% [markdown]
# With no mode kept, key salience alone decides, and each patch gets the same map. Step through the modes
# by contribution; then by σ; and see how far the rebuilt attention is from the model's.
#
# **Try it.** Which mode brings the first peak? Is there a step after which the map is worse? For a
# picture of your own, put it into a folder, set `IMAGES` to the folder and `PICTURE` to its number.
#
# ## Did we reproduce it?

# %%
few_do = [float(distance[place, "by contribution"][6]) < 0.1 for place in picks]
tell(
    verdict_exact=verdict(max(errors) < 1e-5),
    verdict_six=verdict(all(few_do)),
    verdict_salience=verdict(max(missing) < 0.05),
)

# %% [markdown]
# | claim | this run, one patch of one picture | verdict |
# |---|---|---|
# | Section 3: the modes make up the score; with key salience the attention is exact (ours) | differs by {glue:text}`rebuilt_error:.0e` | {glue:text}`verdict_exact` |
# | Figure 5 shows six modes of a head; they make its attention, up to a tenth (ours) | elsewhere: {glue:text}`six` | {glue:text}`verdict_six` |
# | Biases may be dropped: without key salience less than a twentieth of the attention moves | elsewhere: {glue:text}`missing` | {glue:text}`verdict_salience` |
# | Figure 5: from colour to parts | see {doc}`08_mode_gallery` | measured there |
#
# ## What to remember
#
# - A mode can be strong and idle on this image. Contribution is about an image and a query.
# - Scores add up; attention does not. After each mode take the softmax again.
# - Say how much of the attention the modes that you show account for.
# - Key salience is no mode, and the map needs it.
#
# **Limits.** Contribution takes two maxima, so one bright patch is enough to rank high. The order is one
# of many, and modes with shares below zero make every order a little arbitrary. The asking patch was
# chosen because its attention is special; in large networks that may be one of the few patches that
# serve as stores for the whole picture, and are not about what stands there.
#
# **Further reading.** The paper's figure 5 and section 4.3 {cite}`pan2024dissecting`.
#
# **Next.** The symbols and choices of all chapters are collected in {ref}`notation`.
