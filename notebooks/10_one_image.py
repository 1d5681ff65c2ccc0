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
# A gallery goes from a mode to its pictures. This chapter goes the other way, from one picture to the modes at
# work in it. We add the modes up, one after the other, until they *are* the model's own attention.

# %% tags=["parameters", "hide-input"]
# MODEL: a name that qkutils.load takes, or the path of a checkpoint file
MODEL = "tiny-supervised"
# IMAGES: a folder of pictures, of which one is taken apart; empty: drawn scenes,
# or photographs where the model was trained on them.  Galleries beside it are of the
# same folder where it has twenty pictures or more
IMAGES = ""
# IMAGE_SIZE: the side of the pictures that the model gets, in pixels; 0: as it is used by default
IMAGE_SIZE = 0
# MODELS: models whose stored numbers stand beside it, none is computed; where none of them has any:
# all that are stored
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
from IPython.display import Markdown

import qkutils as qk
from qkutils import statistics, views
from qkutils.views import figures as plots
from qkutils.views import gallery_figures as figures
from qkutils.book import few_enough, is_embedded, ledger, pictures_for, stored
from qkutils.book import stored_maps, stored_views, tell
from matplotlib_inline.backend_inline import set_matplotlib_formats

# %%
model = qk.load(MODEL, image_size=IMAGE_SIZE or None)
usual = qk.pictures_of(pictures_for(model, COUNT), model)
pictures = qk.pictures_of(IMAGES, model) if IMAGES else usual
gallery = pictures if len(pictures.keys) >= 20 else usual
gallery = gallery.some(few_enough(model, gallery.keys, passes=22))
image = pictures.read(PICTURE % len(pictures.keys))
true = qk.observed_attention(model, image[None]).isel(image=0)
rows = true.isel(query=slice(model.prefix_tokens, None))
apart = abs(rows - rows.mean("query")).sum("key").mean(("layer", "head"))
asked = int(apart.values.argmax())

# %% tags=["hide-input"]
picture = qk.pictures.visible(model, image[None])[0]
unlike = qk.attention.total_variation(rows.isel(query=asked), rows.mean("query"))
picks = []
for third in np.array_split(np.arange(unlike.sizes["layer"]), 3):
    within = unlike.isel(layer=third).stack(of=("layer", "head"))
    picks.append(within["of"].item(int(within.values.argmax())))
name_of = "L{} H{}".format
at = model.prefix_tokens + asked
model_row = {
    place: true.sel(layer=place[0], head=place[1]).isel(query=at) for place in picks
}
# %% tags=["hide-input"]
explained = {
    place: qk.studies.one_image(model, image, *place, query_patch=asked)
    for place in picks
}
built = {place: qk.studies.build_up(found) for place, found in explained.items()}
columns = model.grid[1]
place = max(
    picks, key=lambda each: float(abs(model_row[each] - 1 / rows.sizes["key"]).sum())
)
most = float(model_row[place][model.prefix_tokens :].max())

# %% tags=["hide-input"] mystnb={"figure": {"name": "fig-one-image-opening", "caption": "A map of attention is built. Left: the picture, with a frame around the asking patch. Then the attention of this patch in one head: from key salience alone, from its first one, three and six modes with key salience, and the model's own. All maps have the model's scale of colours."}, "image": {"alt": "A picture with a framed patch, and five maps of attention: from no mode, one, three and six modes, and the model's own, each nearer to the last."}}
fig, axes = plt.subplots(1, 6, figsize=(7.5, 1.7), layout="constrained")
axes[0].imshow(picture, extent=(0, columns, model.grid[0], 0))
maps = {n: built[place].isel(count=n).values for n in (0, 1, 3, 6)}
maps["own"] = model_row[place].values
titles = ["asks", "no mode", "1 mode", "3 modes", "6 modes", "the model's"]
for ax, row in zip(axes[1:], maps.values(), strict=True):
    values = row[model.prefix_tokens :].reshape(model.grid)
    plots.token_map(ax, values, most, "", plots.SEQUENTIAL)
for ax, title in zip(axes, titles, strict=True):
    plots.mark_patch(ax, asked, columns).set(xticks=[], yticks=[])
    ax.set_title(title, fontsize=8)

# %% tags=["hide-input"]
tell(
    model=model.name,
    key=str(pictures.keys[PICTURE % len(pictures.keys)]),
    row=asked // columns,
    column=asked % columns,
    drawn=name_of(*place),
    chosen=", ".join(name_of(*each) for each in picks),
)
photograph = (
    "**A word on this picture.** The model was trained on drawn scenes alone. It gets your picture "
    f"at {model.image_size[0]} × {model.image_size[1]} pixels, and has never seen anything like it. "
    "What its modes do here says little about photographs. A real model is a better choice."
)
Markdown(photograph) if IMAGES and is_embedded(model) else None

# %% [markdown]
# In {numref}`fig-one-image-opening` a few modes are enough to draw the map of head {glue:text}`drawn`. Is this so
# in every head, for every patch, and in a real network?
#
# **Where we stand.** {doc}`01_svd_derivation` showed that all modes together make the score, and
# {doc}`08_mode_gallery` what single modes look for. It is still open how *many* modes one map needs.
#
# :::{admonition} Before you start
# **After this chapter you can**
# - order the modes of a head by what they contribute to one image;
# - build an attention map up, mode by mode, and say how far it still is from the model's;
# - compare a few modes with as many parts of a random basis;
# - look at a picture of your own in this way.
#
# **You need** {doc}`01_svd_derivation` and {doc}`08_mode_gallery`.
#
# **Time**: 60 minutes to read with a pencil, 20 minutes for the explorations, 90 minutes to teach. It runs in
# about a minute on a laptop, with no GPU and no network.
# :::
#
# ## Who asks?
#
# A head gives each token a map of its own. To look at one map we have to choose one asking patch. We take the
# patch whose attention differs most from that of the other patches, averaged over all heads. On picture
# {glue:text}`key`, with {glue:text}`model`, it is the patch in row {glue:text}`row` and column
# {glue:text}`column`. It is an exceptional patch, because of what it shows or because of its place.
#
# We also choose three heads, one in each third of the layers. We take the head in which the map of this
# patch differs most from the maps of the other patches: {glue:text}`chosen`.

# %% [markdown]
# ## Modes in order of contribution
#
# Pan et al., Fig. 5, show the modes of a head in order of contribution. A mode's {term}`contribution` to an image
# is the largest score that the mode gives to any pair of patches:
# $\sigma_n \max_i s(z_i\cdot u_n) \max_j s(z_j\cdot v_n)$, for the better sign $s$. We think that the paper
# uses this order. Here only one patch asks, so $i$ is fixed:
#
# $$ c_n = \max_s \; \sigma_n \; s\,(z_i\cdot u_n) \; \max_j s\,(z_j \cdot v_n). $$

# %% tags=["hide-input"]
table = {}
for place, found in explained.items():
    top = found.isel(mode=slice(0, 6))
    table[name_of(*place)] = [
        f"M{int(m)} ({float(c):.2g}; {round(float(s), 2) + 0.0:+.0%})"
        for m, c, s in zip(top.mode, top.contribution, top.share, strict=True)
    ] + [f"κ ({float(found.salience_share):+.0%})"]
# 0: the mode that leads by contribution leads by share
firsts = [int(found.share.values.argmax()) for found in explained.values()]
tell(disagree=sum(first > 0 for first in firsts))
pd.DataFrame(table, index=[*range(1, 7), "κ"])

# %% [markdown]
# The first number in brackets is the contribution. The second number is the {term}`share of the logit`. To
# compute it, take the covariance, over keys, of the mode's part with the whole logit of this patch. Divide
# it by the variance of the whole logit. The shares of all modes and of key salience, $\kappa$, add up
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
atlas = qk.scan(model, gallery, k=4)


def block(axes, place, number):
    """The map of one mode on the picture, and its optimal pictures for the sign at work."""
    found = explained[place].isel(mode=number)
    mode = int(found.mode)
    sign = 1 if float(found.query_map.values.ravel()[asked]) > 0 else -1
    best = qk.optimal_pictures(model, gallery, atlas, *place, mode)
    name = f"{name_of(*place)} M{mode}"
    figures.mode_at_work(axes, picture, found, best.sel(sign=sign), name)
    return plots.mark_patch(axes["a"], asked, model.grid[1])


# %% tags=["hide-input"] mystnb={"figure": {"name": "fig-one-image", "caption": "As Pan et al., Fig. 5, for one picture. Left: the picture, with a frame around the asking patch. Each row: one head, from early to late, with the four modes that contribute most to this patch's attention. The map shows the mode on the picture, for the sign at work: red asks, cyan answers, white does both. Full colour is the mode's largest projection on the picture. The percentage is the share of the logit. Below each map: the two pictures of the set to which the mode responds most."}, "image": {"alt": "The picture with its asking patch, and for three heads four overlays of their top modes, each above two optimal pictures."}}
fig = plt.figure(figsize=(8, 8.6), layout="constrained")
left, right = fig.subfigures(1, 2, width_ratios=(1.4, 5))
ax = left.subplots()
ax.imshow(picture, extent=(0, model.grid[1], model.grid[0], 0))
plots.mark_patch(ax, asked, model.grid[1])
ax.set(xticks=[], yticks=[], title="asks")
for part, place in zip(right.subfigures(3, 4), picks, strict=True):
    for number, cell in enumerate(part):
        axes = cell.subplot_mosaic("aa;aa;bc")
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

# %% tags=["hide-cell"] mystnb={"code_prompt_show": "Show the figure that answers", "figure": {"name": "fig-build-up", "caption": "How far the attention of the asking patch is from the model's own when only the first modes count. The distance is the total variation: the share of attention that lies elsewhere. Solid: ordered by contribution. Dashed: by strength. Dotted: by contribution, without key salience; this curve need not reach zero. Grey lines: the distance of an even map, and a tenth of it. The scales differ."}, "image": {"alt": "For three heads, curves of total variation against the number of modes, falling to zero, and a dotted one without key salience."}}
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
# In short: by contribution, this many modes come ten times nearer to the model's map than an even map does:
# {glue:text}`needed`. Without key salience, even all modes leave this share of attention elsewhere:
# {glue:text}`missing`.
#
# ## All patches, all heads, many pictures
#
# One patch of one picture proves little. How near do the six strongest modes bring *all* heads of a model? And
# is six many or few? A small head has 24 modes, a head of a real model 64. So we also compare equal *shares*:
# a quarter of the modes.
#
# We need a null, too. Any head can be cut into parts in many ways. Turn the columns of $U\Sigma^{1/2}$ and
# $V\Sigma^{1/2}$ by the same random rotation: their product is still the same head. These parts are a
# **random basis**. If six parts of a random basis came as near as six modes, there would be nothing special
# about modes.

# %%
rank = len(explained[picks[0]].mode)
some = torch.stack([gallery.read(n) for n in range(min(24, len(gallery.keys)))])
counts = sorted({0, 1, 2, 4, min(6, rank), rank // 4, rank // 2, rank})
here = qk.studies.few_modes(model, some, counts).mean(("layer", "head"))
dict(here.sizes)

# %% tags=["hide-input"]
ways = {"modes": "-", "random basis": "--", "modes, no key salience": ":"}
others = stored.chosen("few_modes", MODELS)
tell(tensors=stored.tensors(others))
curves = {model.name: statistics.bootstrap(here)}
curves |= {name: of.sel(layer="all") for name, of in others.items()}

# %% tags=["hide-input"] mystnb={"figure": {"name": "fig-all-heads", "caption": "Attention that lies elsewhere when each head has only a share of its modes, the strongest first. All patches ask; mean over heads and layers. Bands: 95 % intervals over pictures (narrow). Ringed: six modes. Dashed: as many parts of a random basis. Dotted: modes without key salience. First panel: this run. Others: real models on twenty photographs (computed elsewhere)."}, "image": {"alt": "Panels of curves, one for each model, that fall with the share of modes: steeply for modes in the small model, slowly in real models, and in all of them above for a random basis."}}
size = {"figsize": (7.5, 3.2), "sharey": True, "layout": "constrained"}
fig, axes = plt.subplots(1, len(curves), **size)
for ax, (name, of) in zip(axes, curves.items(), strict=True):
    share = of["count"] / of["count"].max()
    for (way, style), colour in zip(ways.items(), plots.PALETTE, strict=False):
        one = of.sel(basis=way)
        ax.plot(share, one.estimate, style, color=colour, marker=".", label=way)
        ax.fill_between(share, one.low, one.high, color=colour, alpha=0.2, lw=0)
    at_six = of.estimate.sel(basis="modes", count=6)
    ax.plot(6 / int(of["count"].max()), at_six, "o", mfc="none", mec="0.2", ms=9)
    ax.set_xlabel("share of modes")
    ax.set_title(name.partition(".")[0], fontsize=8)
axes[0].set(ylabel="attention that lies elsewhere", ylim=(0, None))
named = axes[0].get_legend_handles_labels()
_ = fig.legend(*named, fontsize=8, loc="outside lower center", ncols=3)


# %% tags=["hide-input"]
def at_count(of, basis, count):
    """One estimate of the attention that lies elsewhere."""
    return of.sel(basis=basis, count=count)


def least_and_most(values):
    """The least and the greatest of a share over the real models, in words."""
    found = sorted(f"{float(value):.2f}" for value in values)
    return " to ".join(dict.fromkeys([found[0], found[-1]]))


bare = "modes, no key salience"
six = {name: at_count(of, "modes", 6) for name, of in curves.items()}
six_random = {name: at_count(of, "random basis", 6) for name, of in curves.items()}
full = {name: int(of["count"].max()) for name, of in curves.items()}
quarter = {n: at_count(of, "modes", full[n] // 4) for n, of in curves.items()}
flat = {name: at_count(of, bare, 0) for name, of in curves.items()}
without = {name: at_count(of, bare, full[name]) for name, of in curves.items()}
nearer = {n: statistics.difference(six_random[n], six[n]) for n in curves}
# %% tags=["hide-input"]
columns = {
    "6 modes": six,
    "6 random": six_random,
    "¼": quarter,
    "no κ": without,
}
shown = {
    what: {name.partition("_patch")[0]: float(of.estimate) for name, of in each.items()}
    for what, each in columns.items()
}
# %% tags=["hide-input"]
tell(
    pictures=len(some),
    rank=rank,
    six_here=statistics.text(six[model.name], "-.3f"),
    random_here=statistics.text(six_random[model.name], "-.2f"),
    even_here=float(flat[model.name].estimate),
    six_real=least_and_most(six[name].estimate for name in others),
    random_real=least_and_most(six_random[name].estimate for name in others),
    quarter_real=least_and_most(quarter[name].estimate for name in others),
    even_real=least_and_most(flat[name].estimate for name in others),
    salience_real=least_and_most(without[name].estimate for name in others),
)
pd.DataFrame(shown).round(2)

# %% [markdown]
# In {glue:text}`model`, six of {glue:text}`rank` modes leave {glue:text}`six_here` of the attention elsewhere
# ({glue:text}`pictures` pictures). An even map leaves {glue:text}`even_here:.2f`, and six parts of a random basis
# {glue:text}`random_here`. So modes are a far better basis than chance.
#
# In real models, modes are better than chance, too. But six are not enough: {glue:text}`six_real` of the
# attention still lies elsewhere (random basis: {glue:text}`random_real`). A quarter of the modes leaves
# {glue:text}`quarter_real`, where an even map leaves {glue:text}`even_real`. So a figure that shows six modes of
# a head shows a part of its attention, and the rest has to be said.
#
# And key salience, which the paper drops with the biases? Without it, even *all* modes of the real models leave
# {glue:text}`salience_real` of the attention elsewhere.
#
# ## A real photograph, taken apart
#
# Here are three real models, those of {numref}`fig-stored-deit`, {numref}`fig-stored-augreg` and
# {numref}`fig-stored-dinov2`, on the first of our twenty {ref}`photographs <photographs>`. Their weights
# are not part of this book, so this was computed elsewhere and stored. The rules are those of above. The
# asking patch is the one whose attention is least like that of the others. In each *sixth* of the layers we
# take the head where this patch is most exceptional. As in the paper, six modes are shown, in order of
# contribution. (The tensors of DINOv2 come from a saliency model, and may have been tuned for it: see there.)

# %% tags=["hide-input"] mystnb={"figure": {"name": "fig-apart-deit", "caption": "One photograph in DeiT-tiny: six heads from early to late, in rows, and the six modes of each that contribute most to the attention of the framed patch. Red asks, cyan answers, for the sign at work; full colour is each mode's own largest projection. The percentage is the share of the logit, κ that of key salience. Computed elsewhere. Photograph: Eileen Collins, NASA, public domain."}, "image": {"alt": "Six rows of six red and cyan overlays on a portrait of an astronaut, one row for each head of deit, with the share of the logit above each."}}
set_matplotlib_formats("jpeg")  # figures of photographs are large otherwise
names = stored_maps.stored.names("taken_apart")
taken = {name: stored_maps.taken_apart(name) for name in names}


def draw_taken_apart(name):
    """Six heads of a stored model, from early to late, and of each six modes."""
    found = taken[name]
    picture = stored_maps.photograph(found, found.attrs["photograph"])
    fig, axes = plt.subplots(6, 6, figsize=(8.1, 9.1), layout="constrained")
    for row, number in zip(axes, range(6), strict=True):
        head = found.isel(chosen=number)
        figures.modes_in_a_row(row, picture, head, int(found.attrs["asked"]))
        at = f"{name_of(int(head.layer), int(head['head']))}\nκ {float(head.salience_share):+.0%}"
        row[0].text(-0.1, 0.5, at, ha="right", va="center", transform=row[0].transAxes)


draw_taken_apart("deit_tiny_patch16_224.fb_in1k")

# %% tags=["hide-input"] mystnb={"figure": {"name": "fig-apart-augreg", "caption": "One photograph in ViT-tiny AugReg: six heads from early to late, in rows, and the six modes of each that contribute most to the attention of the framed patch. Red asks, cyan answers, for the sign at work; full colour is each mode's own largest projection. The percentage is the share of the logit, κ that of key salience. Computed elsewhere. Photograph: Eileen Collins, NASA, public domain."}, "image": {"alt": "Six rows of six red and cyan overlays on a portrait of an astronaut, one row for each head of augreg, with the share of the logit above each."}}
draw_taken_apart("vit_tiny_patch16_224.augreg_in21k_ft_in1k")

# %% tags=["hide-input"] mystnb={"figure": {"name": "fig-apart-dinov2", "caption": "One photograph in DINOv2 ViT-S/14: six heads from early to late, in rows, and the six modes of each that contribute most to the attention of the framed patch. Red asks, cyan answers, for the sign at work; full colour is each mode's own largest projection. The percentage is the share of the logit, κ that of key salience. Computed elsewhere. Photograph: Eileen Collins, NASA, public domain."}, "image": {"alt": "Six rows of six red and cyan overlays on a portrait of an astronaut, one row for each head of dinov2, with the share of the logit above each."}}
draw_taken_apart("vit_small_patch14_dinov2.lvd142m")

# %% tags=["hide-input"]
rows = {
    (name.partition("_patch")[0], name_of(int(one.layer), int(one["head"]))): (
        one.share.sum(),
        one.salience_share,
    )
    for name, found in taken.items()
    for one in (found.isel(chosen=n) for n in range(6))
}
table = {place: [float(value) for value in values] for place, values in rows.items()}
of_heads = pd.DataFrame(table, index=["six modes", "κ"]).T

# %% tags=["hide-input"]
set_matplotlib_formats("png")
tell(
    real_heads=len(of_heads),
    most_in_six=int((of_heads["six modes"] > 0.5).sum()),
    most_in_salience=int((of_heads["κ"] > 0.5).sum()),
)
of_heads.round(2)

# %% [markdown]
# In {glue:text}`most_in_six` of these {glue:text}`real_heads` heads, six modes carry more than half of the
# logit's variance. In {glue:text}`most_in_salience`, key salience alone does. Where κ carries most, the six
# maps of the row say little about where the head looks. It looks where every query of the picture looks.
#
# ### Explore: a real photograph
#
# The view shows DeiT-tiny on the same photograph. It has all heads of the six layers of
# {numref}`fig-apart-deit`. The same patch asks at first. What the view shows was computed elsewhere, and
# stored. (Photograph: Eileen Collins, NASA, public domain.)

# %%
real = stored_views.one_image("deit_tiny_patch16_224.fb_in1k")
real


# %% tags=["hide-input"]
def elsewhere(of, kept, salience, asking):
    """The share of attention that some modes place elsewhere, as a mean over patches."""
    one = real.found.sel(layer=int(of.layer), head=int(of["head"])).astype(float)
    asked = one["query"].isel(token=asking).rename(token="asking")
    asked = one.scale * one.sigma * asked
    built = asked.isel(mode=kept) @ one["key"].isel(mode=kept)
    both = asked @ one["key"] + one.salience, built + salience * one.salience
    rows = [np.exp(each) / np.exp(each).sum("token") for each in both]
    return float(abs(rows[0] - rows[1]).sum("token").mean()) / 2


# %% tags=["hide-input"]
of_deit = taken["deit_tiny_patch16_224.fb_in1k"]
carries_least, carries_most = (
    of_deit.isel(chosen=int(pick(abs(of_deit.salience_share.values))))
    for pick in (np.argmin, np.argmax)
)
framed = [1 + real.found.patch]  # after the class token
for which, line in {"mode": carries_least, "kappa": carries_most}.items():
    best = line["mode"].values.tolist()
    found = {"head": name_of(int(line.layer), int(line["head"]))}
    found |= {"with": elsewhere(line, best, 1, framed)}
    found |= {"without": elsewhere(line, best, 0, framed)}
    tell(**{f"real_{which}_{what}": value for what, value in found.items()})

# %% tags=["hide-input"]
tell(
    real_none=elsewhere(carries_most, [], 1, framed),
    real_none_mean=elsewhere(carries_most, [], 1, slice(1, None)),
    real_mode_share=float(carries_least.salience_share),
    real_kappa_share=float(carries_most.salience_share),
)

# %% [markdown]
# **Try it.**
#
# 1. *Two heads.* In {glue:text}`real_mode_head` and in {glue:text}`real_kappa_head`, add up the first six modes
#    by contribution. Then switch key salience off. In which head does this matter?
# 2. *No mode at all.* Stay in {glue:text}`real_kappa_head`, switch key salience on again, and add up no mode.
#    How much of the attention lies elsewhere for the framed patch, and how much as a mean over all patches?
#
# :::{dropdown} What you may have found
# 1. With six modes and key salience, {glue:text}`real_mode_with:.2f` of the attention lies elsewhere in
#    {glue:text}`real_mode_head`, and {glue:text}`real_kappa_with:.2f` in {glue:text}`real_kappa_head`. Without
#    key salience it is {glue:text}`real_mode_without:.2f` and {glue:text}`real_kappa_without:.2f`. The shares of
#    key salience are {glue:text}`real_mode_share:+.0%` and {glue:text}`real_kappa_share:+.0%`.
# 2. It is {glue:text}`real_none:.2f` for the framed patch, and {glue:text}`real_none_mean:.2f` as a mean. Key
#    salience is the same for every asker, and so is the map that it makes alone. How much it tells depends on
#    who asks.
# :::
#
# ## From colour to parts?
#
# The paper finds colours in its early modes, and parts of objects in its late ones (Pan et al., Fig. 5). On one
# picture this remains an impression. {doc}`09_names_and_causes` measures it in scenes whose content is known, and
# compares with random directions. If random directions show the same trend, the trend belongs to the layer's
# tokens, and not to the modes.
#
# ## Explore: a map grows
#
# Choose a head and an asking patch. Look at one mode alone, and then add the modes up.

# %%
layer, head = picks[0]
views.one_image(model, image, gallery, layer=layer, head=head, query_patch=asked)

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
def judged(words, of, name, more="", form="-.3f"):
    """A row on a share of attention, or a difference of two, that is claimed to lie above zero."""
    seen = len(some) if name == model.name else len(qk.datasets.photographs())
    said = {"form": form, "more": more, "images": seen, "over": f"{seen} pictures"}
    subject = f"{name.partition('.')[0]}, all heads and patches"
    return ledger.claim(words, of[name], 1, "attention moved", subject=subject, **said)


whole = {name: at_count(of, "modes", full[name]) for name, of in curves.items()}
hardest = min(others, key=lambda name: float(nearer[name].estimate))

# %% tags=["hide-input"]
misses = "The six strongest modes of a head miss a part of its attention."
random = "Six parts of a random basis miss more than the six strongest modes."
bare = "Without key salience, attention lies elsewhere, even with all modes."
every = "All modes with key salience still miss a part of the attention."
rows = [judged(every, whole, model.name)]
for name in curves:
    more = f"six of {full[name]}; an even map misses {float(flat[name].estimate):.2f}"
    rows.append(judged(misses, six, name, more))
for name in (model.name, hardest):
    more = f"random {statistics.text(six_random[name], '-.2f')}"
    rows.append(judged(random, nearer, name, more, ".3f"))
    rows.append(judged(bare, without, name))
ledger.Rows(rows)

# %% [markdown]
# The paper does not claim that six modes are enough: it shows six. It does drop the biases, and the last two rows
# are about this step.
#
# :::{dropdown} Where these numbers come from
# The numbers of real models were computed on the twenty {ref}`photographs <photographs>` of this book with
# `qkutils store`, and are stored with the fingerprints of the weights. {glue:text}`tensors` One random rotation serves all heads of a
# model. The interval of a difference is the widest that the two intervals allow. The rebuilt attention of the
# three heads above differs from the model's own by {glue:text}`rebuilt_error:.0e` at most.
# :::
#
# ## What was found
#
# - In {glue:text}`model`, six of {glue:text}`rank` modes miss {glue:text}`six_here` of the attention. Six parts of
#   a random basis miss {glue:text}`random_here`.
# - In real models, six of 64 modes miss {glue:text}`six_real`, and a quarter of the modes
#   {glue:text}`quarter_real`. Six modes do not make the attention of a real head.
# - Without key salience, real models lose {glue:text}`salience_real` of their attention, even with all modes.
# - On one picture, more modes do not always bring the map nearer: {glue:text}`worst_mode` in {glue:text}`worst`
#   took the distance from {glue:text}`before:.2f` to {glue:text}`after:.2f`.
#
# *On method.* Scores add up, attention does not: take the softmax again after each mode. If you show some modes,
# say how much of the attention they account for.
#
# **Limits.** Contribution looks at the largest scores. So one bright patch is enough for a high rank, and a
# mode that works by lowering patches has a low rank. Six modes by contribution may miss the mode that
# decides. Over all heads we took modes by strength: modes chosen anew for each picture and patch may come nearer. There are many possible orders, and modes with shares below zero make every order a little
# arbitrary. We chose the asking patch because its attention is exceptional. In large networks a few
# patches serve as stores for the whole picture. An exceptional patch may be one of them, and then it is
# not about what it shows.
#
# **Further reading.** Pan et al., Fig. 5 and section 4.3 {cite}`pan2024dissecting`.
#
# **Next.** Ten chapters made many claims. Which of them still hold beside their nulls?
# {doc}`11_what_survives` reads the ledger.
