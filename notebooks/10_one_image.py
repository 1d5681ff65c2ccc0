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
# MODELS: models beside it; those at hand are computed, of the others stored numbers are drawn; where
# none of them has any: all that are stored
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
from qkutils.book import few_enough, is_embedded, ledger, live, pictures_for, stored
from qkutils.book import stacked, stored_maps, stored_views, tell
from qkutils.book.checks import one_image as check
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
# **Time**: 60 minutes to read with a pencil, 20 minutes for the explorations, 60 minutes for the exercises,
# 90 minutes to teach. It runs in about a minute on a laptop, with no GPU and no network.
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
# $$ c_n = \max_s \; \sigma_n \; [\,s\,(z_i\cdot u_n)]_+ \; \max_j \,[\,s\,(z_j \cdot v_n)]_+ , $$
#
# where $[x]_+$ is $x$ if it is positive, and 0 if not. It is a part of the score, not yet divided by
# $\sqrt{d_{\text{head}}}$.

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
# The curves of {numref}`fig-build-up` begin high. The distance of an even map is small if the head spreads its attention. Here it is
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


def first_modes(path):
    """How far its first modes bring another model, on pictures of its own kind."""
    other = qk.load(path)
    shown = few_enough(other, pictures_for(other, 20), passes=12)
    given = qk.pictures.images(shown, other, len(shown))
    return stored.few_modes(other, given).assign_attrs(embedded=is_embedded(other))


kept = stored.chosen("few_modes", [name for name in MODELS if name != model.name])
kept.pop(model.name, None)  # it has the first panel
fresh = {n: first_modes(path) for n, path in live(MODELS).items() if n != model.name}
beside = kept | fresh
others = [name for name, of in beside.items() if not of.attrs.get("embedded")]
curves = {model.name: statistics.bootstrap(here)}
curves |= {name: of.sel(layer="all") for name, of in beside.items()}
again = {n: abs(fresh[n] - kept[n]).estimate.max() for n in fresh if n in kept}
differs = "; ".join(f"{n}, by {float(most):.0e} at most" for n, most in again.items())
tell(differs=differs or "none", computed=", ".join([model.name, *fresh]))
tell(tensors=stored.tensors(beside))

# %% tags=["hide-input"] mystnb={"figure": {"name": "fig-all-heads", "caption": "Attention that lies elsewhere when each head has only a share of its modes, the strongest first. All patches ask; mean over heads and layers. Bands: 95 % intervals over pictures (narrow). Ringed: six modes. Dashed: as many parts of a random basis. Dotted: modes without key salience. First panel: the model of this chapter. Others: real models on twenty photographs, and small ones on drawn scenes where `MODELS` names them; computed elsewhere, except for those listed as computed under *Where these numbers come from*."}, "image": {"alt": "Panels of curves, one for each model, that fall with the share of modes: steeply for modes in the small model, slowly in real models, and in all of them above for a random basis."}}
fig, axes = plots.panels(len(curves))
for ax, (name, of) in zip(axes, curves.items(), strict=True):
    share = of["count"] / of["count"].max()
    for (way, style), colour in zip(ways.items(), plots.PALETTE, strict=False):
        one = of.sel(basis=way)
        ax.plot(share, one.estimate, style, color=colour, marker=".", label=way)
        ax.fill_between(share, one.low, one.high, color=colour, alpha=0.2, lw=0)
    at_six = of.estimate.sel(basis="modes", count=6)
    ax.plot(6 / int(of["count"].max()), at_six, "o", mfc="none", mec="0.2", ms=9)
    ax.set_xlabel("share of modes")
    ax.set_title(name.replace(".", "\n", 1), fontsize=8)
axes[0].set(ylabel="attention that lies elsewhere", ylim=(0, None))
named = axes[0].get_legend_handles_labels()
fig.legend(*named, fontsize=8, loc="outside lower center", ncols=3)
fig


# %% tags=["hide-input"]
def at_count(of, basis, count):
    """One estimate of the attention that lies elsewhere."""
    return of.sel(basis=basis, count=count)


def least_and_most(values):
    """The least and the greatest of a share over the real models, in words."""
    found = sorted(f"{float(value):.2f}" for value in values)
    return " to ".join(dict.fromkeys([found[0], found[-1]]))


bare = "modes, no key salience"
alone = {name: at_count(of, "modes", 0) for name, of in curves.items()}
six = {name: at_count(of, "modes", 6) for name, of in curves.items()}
six_random = {name: at_count(of, "random basis", 6) for name, of in curves.items()}
full = {name: int(of["count"].max()) for name, of in curves.items()}
quarter = {n: at_count(of, "modes", full[n] // 4) for n, of in curves.items()}
flat = {name: at_count(of, bare, 0) for name, of in curves.items()}
without = {name: at_count(of, bare, full[name]) for name, of in curves.items()}
nearer = {n: statistics.difference(six_random[n], six[n]) for n in curves}
# %% tags=["hide-input"]
columns = {
    "κ alone": alone,
    "6 modes": six,
    "6 random": six_random,
    "¼": quarter,
    "no κ": without,
}
shown = {
    what: {name: float(of.estimate) for name, of in each.items()}
    for what, each in columns.items()
}
# %% tags=["hide-input"]
tell(
    pictures=len(some),
    rank=rank,
    six_here=statistics.text(six[model.name], "-.3f"),
    random_here=statistics.text(six_random[model.name], "-.2f"),
    even_here=float(flat[model.name].estimate),
    alone_here=float(alone[model.name].estimate),
    alone_real=least_and_most(alone[name].estimate for name in others),
    six_real=least_and_most(six[name].estimate for name in others),
    random_real=least_and_most(six_random[name].estimate for name in others),
    quarter_real=least_and_most(quarter[name].estimate for name in others),
    even_real=least_and_most(flat[name].estimate for name in others),
    salience_real=least_and_most(without[name].estimate for name in others),
)
stacked(pd.DataFrame(shown).round(2))

# %% [markdown]
# In {glue:text}`model`, six of {glue:text}`rank` modes leave {glue:text}`six_here` of the attention elsewhere
# ({glue:text}`pictures` pictures). An even map leaves {glue:text}`even_here:.2f`, key salience alone
# {glue:text}`alone_here:.2f`, and six parts of a random basis {glue:text}`random_here`. So modes are a far better basis than chance.
#
# In real models, modes are better than chance, too ({numref}`fig-all-heads`). But six are not enough: {glue:text}`six_real` of the
# attention still lies elsewhere (random basis: {glue:text}`random_real`). A quarter of the modes leaves
# {glue:text}`quarter_real`. Key salience alone leaves {glue:text}`alone_real`, and an even map
# {glue:text}`even_real`. These are means over heads and patches: a single patch can be much nearer. So a figure with six
# modes has to say how much of the attention they make.
#
# And key salience, which the paper drops with the biases? Without it, even *all* modes of the real models leave
# {glue:text}`salience_real` of the attention elsewhere.
#
# ## A real photograph, taken apart
#
# {numref}`fig-apart-deit`, {numref}`fig-apart-augreg` and {numref}`fig-apart-dinov2` show the three real models of
# chapter 8, on the first of our twenty {ref}`photographs <photographs>`. Their weights
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
# maps of the row say little about where this patch looks. Key salience is the same for every query.
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
#    {glue:text}`follows:.2f`. So one step does not judge a mode. A mode whose step leads away can be right
#    together with the next one, also with a share near or below zero.
# :::

# %% [markdown]
# ### Explore: two pictures, one map
#
# Does a map tell which modes made it? Look for *twins*: two pictures on which a head has nearly the same attention,
# made by different modes. In the view below the model itself runs, on your machine, once you press *Start*. It is
# always *tiny-supervised*, because the reader changes a drawn scene.

# %%
play = views.playground("tiny-supervised", tasks=["twins"], layer=5, head=3)
play

# %% [markdown]
# *Your task.* Choose a head and a token that asks. Press *keep this picture*. Then change the scene until the page
# says that you have twins. It compares two rows of attention, and two lists of shares of the logit. (Shares are
# taken without their signs, and divided by their sum.) The total variation measures both. Between the rows it has to
# be at most {glue:text}`twin_alike:.2f`. Between the lists it has to be at least {glue:text}`twin_unlike:.2f`.
#
# 1. Can you find a head in which twins are easy?
# 2. Let the class token ask in {glue:text}`twin_head`, where attention is far from even. Recolour one object. Which
#    colour makes twins?

# %% tags=["hide-input"]
player = qk.load("tiny-supervised")
token_of = {"patch": player.prefix_tokens + play.state["patch"], "class": 0}
layer, head = play.state["layer"], play.state["head"]
limits = play.data["limits"]


def row_and_portions(asks, key, salience):
    """The attention of one token, and how modes and key salience share its logit, without signs.

    From asks [..., mode], key [..., token, mode] and salience [..., token].
    """
    parts = np.concatenate([asks[..., None, :] * key, salience[..., None]], -1)
    parts = torch.tensor(parts - parts.mean(-2, keepdims=True))
    logit = parts.sum(-1)
    shares = (parts * logit[..., None]).sum(-2).abs()
    return logit.softmax(-1), shares / shares.sum(-1, keepdim=True)


def far(one, other):
    """The total variation between rows."""
    return (one - other).abs().sum(-1) / 2


# %% tags=["hide-input"]
many = player.transform.transforms[-1](qk.world.make(5_000_000, 0, 48).image)
brought = qk.token_factors(player, many, qk.decompose(player, convention="exact"))
brought = brought.transpose("image", "layer", "head", "token", "rank")
asks = brought["query"].isel(token=token_of["patch"]).values
maps, portions = row_and_portions(asks, brought.key.values, brought.salience.values)
pair = np.triu_indices(len(many), 1)
alike = far(maps[pair[0]], maps[pair[1]]) <= limits["alike"]
twins = alike & (far(portions[pair[0]], portions[pair[1]]) >= limits["unlike"])
often = twins.float().mean(0)  # [layer, head]
easy = divmod(int(often.argmax()), often.shape[1])
from_even = far(maps, torch.full_like(maps, 1 / maps.shape[-1])).mean(0)

# %% tags=["hide-input"]
tell(
    twin_head=name_of(layer, head),
    twin_alike=limits["alike"],
    twin_unlike=limits["unlike"],
    twin_pairs=len(pair[0]),
    twin_easy=name_of(*easy),
    twin_often=float(often[easy]),
    twin_even=float(from_even[easy]),
    twin_even_all=float(from_even.mean()),
)


def looked_at(scene):
    """What the view computes when the class token asks in the head of the task."""
    found = play.respond({"photo": None, "scene": scene, "off": play.state["off"]})
    found = {
        name: np.frombuffer(one["bytes"], one["form"]).reshape(one["shape"])
        for name, one in found.items()
    }
    query, key, kappa = (found[name][layer, head] for name in ("query", "key", "kappa"))
    scale = play.data["scale"]
    return row_and_portions(scale * query[token_of["class"]], key, scale * kappa)


# %% tags=["hide-input"]
first = play.state["scene"]
before_row, before = looked_at(first)
recoloured = []
for one in first["objects"]:
    for colour, colour_name in enumerate(qk.world.COLOURS):
        new = one | {"colour": colour}
        objects = [new if each is one else each for each in first["objects"]]
        row, portion = looked_at(first | {"objects": objects})
        near, apart_by = float(far(row, before_row)), float(far(portion, before))
        recoloured.append((near, apart_by, colour_name, portion))
near_enough = [each for each in recoloured if each[0] <= limits["alike"]]
of_twins = [each for each in near_enough if each[1] >= limits["unlike"]]
near, apart_by, colour_name, after = min(of_twins, key=lambda each: each[0])
top = before.argsort(descending=True)[:2].tolist()

# %% tags=["hide-input"]
tell(
    twin_colours=" or ".join(sorted({each[2] for each in of_twins})),
    twin_count=len(of_twins),
    twin_most=float(before_row.max()),
    twin_near=near,
    twin_apart=apart_by,
    twin_modes=" and ".join(f"M{n}" for n in top),
    twin_before=", ".join(f"{float(before[n]):.0%}" for n in top),
    twin_after=", ".join(f"{float(after[n]):.0%}" for n in top),
)

# %% [markdown]
# :::{dropdown} What you may have found
# 1. In {glue:text}`twin_easy`. Keep any picture, and press *a random scene* until the page is content. We took 48 scenes,
#    with the framed patch as the asker: {glue:text}`twin_often:.0%` of {glue:text}`twin_pairs` pairs are twins in this head.
#    Its attention is nearly even: {glue:text}`twin_even:.2f` from an even map, where the mean of all heads is
#    {glue:text}`twin_even_all:.2f`. Its logit hardly varies. A share is a part of a variance, so here it is a large part
#    of almost nothing.
# 2. It is {glue:text}`twin_colours`, for {glue:text}`twin_count` of the robots at the edge of the first scene. Before, the
#    class token gives {glue:text}`twin_most:.0%` of its attention to one token. Afterwards, attention differs by
#    {glue:text}`twin_near:.2f`, and the shares by {glue:text}`twin_apart:.2f`. The shares of {glue:text}`twin_modes` go from
#    {glue:text}`twin_before` to {glue:text}`twin_after`.
#
# **Why?** The softmax forgets. Where one key leads by far, all other logits can move, and the map stays. Where all
# logits are nearly equal, the map is even whatever made it. So a map does not say which modes made it: look at
# the logits, and at how far the map is from even.
# :::

# %% [markdown]
# ## Exercises
#
# Write in the notebook, where `...` stands. The line below each exercise checks what you wrote. It says what
# holds, and what does not hold yet.
#
# ### Exercise 10.1. Who owns the logit?
#
# *Medium, 15 minutes, predict first. Trains: the share of the logit.*
#
# Another patch of the same picture asks. Key salience gives each key the same number as before. Is its *share
# of the logit* then the `"same"` or `"another"`? Write down your prediction. Then write the function that
# gives the share of each part of a logit. It is the covariance of the part with the whole logit, divided by the
# variance of the whole, both over the keys. Below the check, it is applied to {glue:text}`kappa_at`, the head of *Explore: a map
# grows*. (Its name, `kappa_at`, comes from a cell there.)

# %% tags=["exercise"]
# "same" or "another"
prediction = "another"  # solution


def shares(parts):
    """Share of the logit of each part; parts [part, key] of one query."""
    centred = parts - parts.mean(1, keepdims=True)  # solution
    whole = centred.sum(0)  # solution
    return centred @ whole / (whole @ whole)  # solution


# %% tags=["check"]
check.shares(shares, prediction)
owned, patches = {}, model.grid[0] * model.grid[1]
for patch in sorted({asked, *range(0, patches, patches // 4)}):
    found = qk.studies.one_image(model, image, *kappa_at, query_patch=patch)
    owned[f"patch {patch}"] = shares(np.vstack([found.logit, found.salience]))[-1]
pd.Series(owned, name="share of κ").round(2)

# %% [markdown]
# :::{dropdown} Hint 1
# First subtract from each part its own mean over the keys. The softmax does not see it.
# :::
#
# :::{dropdown} Hint 2
# The covariance of two centred rows is the mean of their product. The variance of the whole is its covariance
# with itself.
# :::
#
# :::{dropdown} What you should see
# Four ticks. Then the share of key salience, $\kappa$, for each of some patches that ask. "Another" was right if the
# shares differ. A tick only says that you made a prediction.
# :::

# %% [markdown] tags=["solution"]
# :::{dropdown} What it means
# The share of $\kappa$ is *another* for each patch that asks. Its numbers stay, but the modes add others, and
# the share compares both. Where a patch asks strongly, little is left to $\kappa$. So a share belongs to a
# head *and* to a query. A single share of $\kappa$ for a whole head is a mean over queries.
# :::

# %% [markdown]
# ### Exercise 10.2. A null for the modes
#
# *Medium, 15 minutes. Trains: a random basis as a null.*
#
# Are six modes better than six parts of any other kind? A random basis answers. Turn the rows of
# $\Sigma^{1/2} U^\top$ and of $\Sigma^{1/2} V^\top$ by the same random rotation. Write the function that gives the parts.


# %% tags=["exercise"]
def random_basis(u, sigma, v, rng):
    """left, right [part, d_model]; u, v [mode, d_model]; a numpy rng."""
    rotation, _ = np.linalg.qr(rng.normal(size=(len(sigma), len(sigma))))  # solution
    root = np.sqrt(sigma)[:, None]  # solution
    return rotation @ (root * u), rotation @ (root * v)  # solution


# %% tags=["check"]
check.random_basis(random_basis)

# %% [markdown]
# :::{dropdown} Hint 1
# Let each side take the root of the strengths: a row of `u` times $\sqrt{\sigma_n}$. Then turn the rows.
# :::
#
# :::{dropdown} Hint 2
# `rng.normal(size=(count, count))` draws a square of normal numbers. `np.linalg.qr` makes a rotation of it. A rotation
# times a matrix turns its rows.
# :::
#
# :::{dropdown} What you should see
# Three ticks. The parts are the same head, the turn is a rotation, and the rotation has no favourite.
# :::

# %% [markdown] tags=["solution"]
# :::{dropdown} What it means
# All parts together are the head, whatever the rotation. So with *all* parts there is nothing to compare. The
# difference shows when only a few count: modes put the most strength into the first parts. The null keeps all else
# alike: the same head, the same tokens, as many parts. A null that was also weaker would prove less.
# :::

# %% [markdown]
# ### Exercise 10.3. An order made for one patch
#
# *Easy, 10 minutes, with the view. Trains: reading attention elsewhere, for one asker and for all.*
#
# Go back to the view of the real photograph. Choose layer 1, head 2, and leave the framed patch and key salience as they
# are. Move *add up the first* from 0 upwards. At which number of modes is *attention elsewhere* below 0.10 for the
# first time? The line gives two numbers, for the framed patch and for the mean over all patches, with the same modes in
# the same order. Read both. Then order by σ, and read both again.

# %% tags=["exercise"]
# two numbers: for the framed patch, and for the mean over all patches
by_contribution = [4, 64]  # solution
# the same two numbers, ordered by σ
by_strength = [14, 15]  # solution

# %% tags=["check"]
check.crossing(by_contribution, by_strength)

# %% [markdown]
# :::{dropdown} Hint 1
# The line *attention elsewhere* below the maps has both numbers. In the chart, the solid curve is the framed
# patch, and the dashed curve is the mean.
# :::
#
# :::{dropdown} Hint 2
# With the arrow keys the slider moves by one mode. The mean may need nearly all of them.
# :::
#
# :::{dropdown} What you should see
# Six ticks. The two orders change places: one is the better for the framed patch, the other for the mean.
# :::

# %% [markdown] tags=["solution"]
# :::{dropdown} What it means
# Contribution is computed for the patch that asks. For this patch, it needs few modes. For other patches the same order
# is a bad one, since they ask for other things. The order by σ knows no patch, and serves all of them
# fairly. "Six modes are enough" therefore needs two additions: for whom, and in which order.
# :::

# %% [markdown]
# ### Exercise 10.4. The best three
#
# *Hard, 20 minutes, in pairs. Trains: scores add up, attention does not.*
#
# Contribution and σ are only two of many orders. Each of you invents another one, on paper. Explain your
# order to the other, who looks for a head where it fails. Then write the better one together. It has to come
# nearer with three modes than contribution does. You may use the whole logit.


# %% tags=["exercise"]
def order(logit, salience):
    """All modes in an order, from tensors [mode, key] and [key] of one query."""
    whole = (logit.sum(0) + salience).softmax(-1)
    built, left, chosen = salience, list(range(len(logit))), []  # solution
    while left:  # solution
        maps = (built + logit[left]).softmax(-1)  # solution
        best = left.pop(int(abs(maps - whole).sum(-1).argmin()))  # solution
        built = built + logit[best]  # solution
        chosen.append(best)  # solution
    return chosen  # solution


# %% tags=["check"]
check.order(order)
several = []
for patch in range(0, model.grid[0] * model.grid[1], 8):
    found = qk.studies.one_image(model, image, *picks[0], query_patch=patch)
    mine = order(torch.tensor(found.logit.values), torch.tensor(found.salience.values))
    ways = {"your order": [int(n) for n in mine], "by contribution": range(len(mine))}
    maps = {which: qk.studies.build_up(found.isel(mode=ways[which])) for which in ways}
    lost = [float(abs(each[3] - each[-1]).sum()) / 2 for each in maps.values()]
    several.append(dict(zip(ways, lost, strict=True)))
pd.DataFrame(several).mean().round(3)

# %% [markdown]
# :::{dropdown} Hint 1
# Start from key salience alone. Try each mode: add it, take the softmax, and measure how far it is from the whole.
# :::
#
# :::{dropdown} Hint 2
# Keep the mode that came nearest, and try all that are left in the same way.
# :::
#
# :::{dropdown} What you should see
# Four ticks. Then the attention elsewhere with three modes in the first head of this page, as a mean over some
# patches that ask. Yours is usually the smaller number.
# :::

# %% [markdown] tags=["solution"]
# :::{dropdown} What it means
# This order is *greedy*: each step is the best one, and the sum need not be. It still needs the whole map, which
# contribution does not. So it explains less than it seems to: it was fitted to the map that it rebuilds.
# A short list of modes is a finding only if the rule that chose them would also work on another picture.
# :::

# %% [markdown]
# ## Quiz
#
# Choose an answer: each one says why it is right or wrong.
#
# **1. You have the attention maps that two modes give alone. How do you get the map of both together?**
#
# :::{dropdown} Add the two maps, and divide by two
# :class-container: option
# No. The softmax stands between scores and attention, so maps do not add up.
# :::
#
# :::{dropdown} Add the scores of both modes, then take the softmax
# :class-container: option right
# Right. Scores are a sum over modes. Attention is computed from the whole sum.
# :::
#
# :::{dropdown} Multiply each map by its strength, and add
# :class-container: option
# No. The strength is in the scores already, and no weights make maps add up.
# :::
#
# **2. A mode has the largest contribution of its head, and a share of the logit of 0 %. How can that be?**
#
# :::{dropdown} It gives nearly all patches the same high score
# :class-container: option right
# Right. Its largest score is large. But a number that all keys get decides nothing.
# :::
#
# :::{dropdown} Its strength σ is zero
# :class-container: option
# No. Then its contribution would be zero, too: σ is a factor of it.
# :::
#
# :::{dropdown} One of the two numbers is wrong
# :class-container: option
# No. They measure different things: one largest score, and what goes with the whole logit over keys.
# :::
#
# **3. Six modes with key salience come near to the map of one head. What more do you need for "six modes make this map"?**
#
# :::{dropdown} A seventh mode that changes nothing
# :class-container: option
# No. One idle mode says nothing of the others, and a later mode can undo a step.
# :::
#
# :::{dropdown} The names of the six modes
# :class-container: option
# No. A name says what a mode looks for. It does not say how much of the map the six make.
# :::
#
# :::{dropdown} How near key salience alone comes, and six parts of a random basis
# :class-container: option right
# Right. Without these two numbers, six modes could be as good as none, or as any six parts.
# :::

# %% [markdown]
# ## Did we reproduce it?


# %% tags=["hide-input"]
def judged(words, of, name, more="", form="-.3f"):
    """A row on a share of attention, or a difference of two, that is claimed to lie above zero."""
    seen = int(curves[name].attrs["count"])
    said = {"form": form, "more": more, "images": seen, "over": f"{seen} pictures"}
    named = name.partition(".")[0] if name in kept else name
    subject = f"{named}, all heads and patches"
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
# The paper does not claim that six modes are enough: it shows six. It does drop the biases: the rows that begin
# with *Without key salience* are about this step.
#
# :::{dropdown} Where these numbers come from
# The numbers of real models were computed on the twenty {ref}`photographs <photographs>` of this book with
# `qkutils store`, and are stored with the fingerprints of the weights. {glue:text}`tensors` Models at hand, if
# `MODELS` names them, are computed again, on pictures of their own kind. Computed by the run that made this page:
# {glue:text}`computed`. Of these, the numbers that differ from the stored ones: {glue:text}`differs`.
#
# One random rotation serves all heads of a
# model. The interval of a difference is the widest that the two intervals allow. The rebuilt attention of the
# three heads above differs from the model's own by {glue:text}`rebuilt_error:.0e` at most.
# :::
#
# ## What was found
#
# - In {glue:text}`model`, six of {glue:text}`rank` modes miss {glue:text}`six_here` of the attention. Six parts of
#   a random basis miss {glue:text}`random_here`.
# - In real models, six of 64 modes miss {glue:text}`six_real`, and a quarter of the modes
#   {glue:text}`quarter_real`. On average over heads and patches, the six strongest modes do not make
#   the attention of a real model.
# - Without key salience, real models lose {glue:text}`salience_real` of their attention, even with all modes.
# - On one picture, more modes do not always bring the map nearer: {glue:text}`worst_mode` in {glue:text}`worst`
#   took the distance from {glue:text}`before:.2f` to {glue:text}`after:.2f`.
#
# *On method.* Scores add up, attention does not: take the softmax again after each mode. If you show some modes,
# say how much of the attention they account for.
#
# **Limits.** Contribution looks at the largest scores. So one bright patch is enough for a high rank, and a mode that
# works by lowering patches has a low rank. Six modes by contribution may miss the mode that decides. Over all heads we
# took modes by strength: modes chosen anew for each picture and patch may come nearer. There are many possible orders,
# and modes with shares below zero make every order a little arbitrary. We chose the asking patch because its attention
# is exceptional. In large networks a few patches serve as stores for the whole picture {cite}`darcet2024vision`. An
# exceptional patch may be one of them, and then it is not about what it shows.
#
# **Further reading.** Pan et al., Fig. 5 and section 4.3 {cite}`pan2024dissecting`.
#
# **Next.** Ten chapters made many claims. Which of them still hold beside their nulls?
# {doc}`11_what_survives` reads the ledger.
