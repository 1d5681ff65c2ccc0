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
# A mode is a pair of directions. To see what they mean, the paper shows the pictures that a mode
# responds to most, with the tokens that ask in red and those that answer in cyan. This chapter earns
# its figures 1, 4 and S5 to S16 {cite}`pan2024dissecting`. Then it asks two things that pictures
# cannot answer: is the name that we give a mode more than an opinion, and does the mode matter?
#
# :::{admonition} Before you start
# **After this chapter you can**
# - find the {term}`optimal pictures <optimal picture>` of every mode in one pass, and read a red and cyan overlay;
# - tell a mode's strength in the weights from what it carries on pictures;
# - name a mode by a measurement, on scenes that did not choose the name, beside what chance gives;
# - remove a mode inside the softmax, and compare that with random directions.
#
# **You need** chapters 1 and 3, {doc}`01_svd_derivation` and {doc}`03_embedded_world`. Variance, and
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
from qkutils.book import is_embedded, pictures_for, tell

# %% [markdown]
# ## One mode, one picture
#
# A mode adds $\sigma_n\,(z_i\cdot u_n)(z_j\cdot v_n)$ to the score of query $i$ on key $j$, before it
# is divided by $\sqrt{d_{\text{head}}}$. So on a picture it has two maps: where tokens lie along its
# query direction, and where along its key direction. It makes the first attend to the second.

# %%
model = qk.load(MODEL)
pictures = qk.pictures_of(IMAGES or pictures_for(model, COUNT), model)
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
# Of the {glue:text}`patches` patches {glue:text}`ask_only` ask only (red), {glue:text}`answer_only` answer
# only (cyan), and {glue:text}`do_both` do both; the others lie on the other side of both directions.
#
# A mode and its reverse, $(-u, -v)$, are the same mode: the product does not change. So both ends of
# a mode are features, and {numref}`fig-two-maps` shows one of them.
#
# ## Optimal pictures
#
# One picture shows what a mode does there, not what it looks for. The paper ranks pictures by the
# largest score that the mode can give in them ($\sigma_n$, the same for every picture, is left out). For
# a sign $s$, over the patches of a picture:
#
# $$ \max_i\, s\,(z_i\cdot u_n)\;\cdot\;\max_j\, s\,(z_j\cdot v_n), \qquad \text{both maxima positive.} $$
#
# `qk.scan` does this for every mode of every head, both signs, in one pass over the
# pictures. It also measures what each mode adds to the variance of the logits. The logits are the scores
# with {term}`key salience`, divided by $\sqrt{d_{\text{head}}}$.

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
# From {glue:text}`scanned` {glue:text}`drawn` pictures the atlas holds a score over layer × head × mode ×
# sign × rank. By hand, the scores of this mode's
# best pictures differ by {glue:text}`score_error:.0e`, as a part of the score.
#
# ### High and low cosines
#
# The paper reads a mode by its cosine. Near 1, the same things ask and answer, so like attends to like.
# Near 0, one thing asks for an unrelated one. Near −1, a thing asks for its opposite: blue asks for red. We take the mode with the highest cosine, the one
# nearest to zero, and the lowest. Only modes count whose *carried share*, which is defined below, is
# at least a twentieth on these pictures: the others are hardly used.

# %%
total = atlas.logit_variance.sum("mode") + atlas.salience_variance
carried = atlas.logit_variance / total
used = atlas.cosine.where(carried >= 0.05)


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


# %% tags=["hide-input"] mystnb={"figure": {"name": "fig-cosines", "caption": "Optimal pictures of the used modes with the highest cosine, the one nearest to zero, and the lowest; best first, and under each its overlay: red asks, cyan answers, white does both; colours are to be seen in the row above. Full colour is the mode's largest projection in any of these pictures, for both signs. A gap: in no further picture does any patch lie at that end of both directions. Carries: the carried share, of what the head's modes and key salience vary over keys."}, "image": {"alt": "For three modes, four pictures for each sign, each above its red and cyan overlay, with cosine, strength and carried share at the left."}}
draw(chosen)

# %% [markdown]
# How to read {numref}`fig-cosines`: first look for white. Much white: the patches that ask are also
# those that answer (whether a patch answers *itself* is not shown). Red and cyan apart is a mode that
# relates two things. Then ask what the red places have in common over the four pictures, and the cyan
# ones. Then do the same for the other sign: it is the other end of the same direction, and need not be
# the opposite in words.
#
# :::{admonition} Predict, then look
# :class: tip
# Write down a name for each end of these modes. Further down they are measured (where the model is an
# embedded one). How many of your names will hold on other scenes?
# :::
#
# ## What a mode carries
#
# Strength $\sigma$ is a matter of weights. A strong mode does nothing on pictures whose tokens have
# nothing along it. What it really adds to the logits' variance over keys is
#
# $$ \sigma_n^2\; \mathrm{mean}_i\,(z_i\cdot u_n)^2\; \mathrm{Var}_j(z_j\cdot v_n) \,/\, d_{\text{head}}, $$
#
# averaged over pictures. Beside it stands the variance of the {term}`key salience`, which no mode has.
# A mode's {term}`carried share` is this number over the sum of all of them, key salience included. Each is
# taken alone, though modes vary together: their sum is not the variance of the whole logit. Chapter 9
# takes the covariance with the whole instead.

# %%
by_weights = (atlas.sigma**2) / (atlas.sigma**2).sum("mode")
in_pictures = atlas.logit_variance / atlas.logit_variance.sum("mode")
first = in_pictures.argmax("mode")
weak_below = (in_pictures < by_weights).where(by_weights < 1e-3)
outdo = flat((in_pictures / by_weights).where(carried >= 0.05))
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

# %% tags=["hide-input"] mystnb={"figure": {"name": "fig-carried", "caption": "Each dot is a mode: its share of its head's squared strengths, and its share of what the modes of the head vary on pictures (key salience left out). On the dotted line both agree; shares below a millionth are left out. Coloured by its number in its head, 0 the strongest. Orange rings: the three modes that outdo their strength most, among those whose carried share is at least a twentieth."}, "image": {"alt": "A scatter of the share of a mode by weights against its share on pictures, both logarithmic, around a diagonal."}}
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
# In {glue:text}`not_first:.0%` of the heads the mode that carries most is not M0, the strongest; the
# weakest of these is M{glue:text}`deepest`, of {glue:text}`modes` modes. On average the mode
# that carries most has {glue:text}`first_mean:.0%` of what its head's modes vary. Key salience has
# {glue:text}`salience:.0%` of the whole, with no mode involved. Of the modes with less than a thousandth of
# their head's σ², {glue:text}`weak_below:.0%` lie below the dotted line: they carry even less than that.
#
# The three ringed modes of {numref}`fig-carried` carry more than their weights say:
# {glue:text}`ringed`. Tokens have much along their directions.

# %% tags=["hide-input"] mystnb={"figure": {"name": "fig-deep", "caption": "Optimal pictures of the three ringed modes, which carry more than their strength says. As in the figure with high and low cosines."}, "image": {"alt": "For three modes that carry more than their strength says, four pictures for each sign above their overlays."}}
draw(rings)

# %% [markdown]
# Whoever goes by strength alone passes them over. What do red and cyan places have in common here? The
# next section measures it.
#
# ## Names by measurement
#
# Anybody who looks at four pictures finds a name. To make it a number we need pictures whose content
# is known. In the drawn scenes every patch has labels, in seven families: its *place* in the grid;
# *object* or background; the object's *role* (target or distractor), *colour*, *kind* and *texture*;
# and the *part* of it. Part is counted over kind, since a wheel always belongs to a cart.
#
# A family explains a {term}`share of variance` of a projection $y$: the mean of each label's patches
# stands for them, and we ask how much of the squared error is gone. This *explained share* is
#
# $$ \frac{\sum (y - m_{\text{base}})^2 - \sum (y - m_{\text{label}})^2}{\sum y^2}, $$
#
# with $y$ centred, and both means $m$ taken on other scenes, those that choose the name. The sums above
# run over the patches that have a label of the family, the one below over all patches. The base is the
# mean of what is known before: nothing for place and object; that it is an object for role, colour, kind
# and texture; the kind for part. All families share one denominator, so they can be compared.
#
# On one half of the scenes each query and each key direction gets the family with the largest share,
# and the labels with the highest and lowest mean. Nothing else is taken over. On the **other half**
# we measure. What would chance give? Two nulls:
#
# - *labels that mean nothing*: those of another scene, at the same places. (Places, alike in all
#   scenes, are moved round the grid.) Whole scenes are dealt out anew, since the patches of one scene
#   are no independent cases. Is there anything at all?
# - *random directions* for the same layer's tokens, named in the same way. Is it about the mode? Some
#   are of *any* kind. Others *lean* to where tokens vary much: sums $\sum_t \epsilon_t z_t$ over all
#   tokens, with normal numbers $\epsilon_t$.
#
# Many tests give false alarms. Both are corrected so that of the names that pass, 5 % at most
# are expected to be false ({term}`false discovery rate`).
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
# The ten strongest names of {glue:text}`subject`. {glue:text}`stand_in` `high` and `low` are the two
# ends of the direction. The explained share is measured on scenes that did not choose the name. `q` is
# the corrected p for the first null; the least that 199 permutations can give is 0.005. `not random` is
# the corrected p for the second null, with directions of any kind.
#
# And these are the modes of {numref}`fig-cosines`, whose names you wrote down, and of {numref}`fig-deep`:

# %% tags=["hide-input"]
shown = dict.fromkeys([*chosen, *rings])  # each once
of_these = [(*at, side) for at in shown for side in names.side.values]
as_table(every.sel(of=of_these)) if embedded else "MODEL is not an embedded model"

# %% [markdown]
# Read the explained share before `q`. A name that passes may say nothing: the weakest that passes the first
# null explains {glue:text}`least_share:.1%` of the variance. A small `q` only says that the labels of other
# scenes do worse.

# %% tags=["hide-input"]
ends = [0.025, 0.5, 0.975]
low, median, high = np.quantile(names.random_share.sel(null="any"), ends, axis=1)
lean = np.quantile(names.random_share.sel(null="leaning"), ends, axis=1)
depth = names.layer.values
at = depth[:, None] + np.linspace(-0.12, 0.12, names.share[0, 0].size)

# %% tags=["hide-input"] mystnb={"figure": {"name": "fig-against-random", "caption": "The share of variance that its name explains, on held-out scenes: each dot is one mode's query or key direction. Grey: middle 95 % of random directions of any kind, named in the same way; line across: their median. Dashed and dotted: median and the same two ends for random directions that lean to where tokens vary."}, "image": {"alt": "For each layer a cloud of dots, explained shares of single modes, over a grey bar that holds 95 percent of random directions; dotted lines mark the ends for leaning directions and reach higher than the bars; most dots lie inside both."}}
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

# %% tags=["hide-input"] mystnb={"figure": {"name": "fig-families", "caption": "What directions select, by layer: mean explained share of each family on held-out scenes, on a logarithmic scale. Solid: all modes, both sides. Dashed: random directions of any kind. A missing piece: less than a thousandth."}, "image": {"alt": "A curve over layers for each family of labels, solid for modes and dashed for random directions, on a logarithmic scale; each pair runs close together."}}
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
# Of {glue:text}`tests` names, {glue:text}`some_content:.0%` pass the first null, which asks no more
# than whether a direction tells *something* about what a patch shows. Beside
# {glue:text}`random` random directions of each sort and layer, {glue:text}`over_random` pass the
# second with those of any kind, {glue:text}`over_leaning` with those that lean. Without the correction
# {glue:text}`uncorrected:.0%` would pass with those of any kind, and chance alone gives 5 %. The middle
# name explains {glue:text}`middle_share:.0%` of the variance, the best {glue:text}`best_share:.0%`. In
# {numref}`fig-against-random` {glue:text}`under_leaning:.0%` of the dots lie below the dashed line of their
# layer, the median of the directions that lean.
#
# Where random directions do as well, the content is in the *tokens* first. {numref}`fig-families` tells
# what it is, from the first layer to the last: {glue:text}`ways`. But the dashed curves go the same ways,
# {glue:text}`gap:.3f` from the solid ones on average.
#
# Weighted by what modes carry on scenes, the share that their names explain, less that of random
# directions, is {glue:text}`beyond` for directions of any kind and {glue:text}`beyond_leaning` for those that
# lean (mean over layers, interval over heads). So the first null can be passed by a name that would be as
# true of most other directions; a name that tells a mode from them needs the second.
# :::
#
# ### Do high cosines relate like with like?
#
# If the paper's reading of cosines is right, then the two directions of a mode should have the same
# name where the cosine is high, and less often where it is near zero. High: in the highest twentieth of
# the model's cosines. Near zero: inside the {term}`null band`. But directions that lie close together
# must agree, whatever they are. So beside the modes we name random pairs of directions, ten for each
# mode, that lean to where tokens vary and have the *same cosine* as the mode. *One name* is the same family
# with the same label at the high end.

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
# The table counts the modes of all heads together. Mean differences within heads that have both: high less
# near zero {glue:text}`same_name`; modes with a high cosine less random pairs with the same cosines
# {glue:text}`over_forced` (intervals over heads; one that holds zero tells nothing). The first is what a
# reader of galleries would see; part of it is geometry, as the last column of the table tells. The second
# is about the modes.
#
# ## Does the mode matter?
#
# A gallery shows what goes with a mode. To say that the model *uses* it, take it away. For a unit vector
# $a$ we put, inside the softmax, $z_i - a\,a^\top(z_i - \bar z)$ in the place of the query token $z_i$, with
# $\bar z$ the mean over scenes and tokens. The head no longer sees how its queries differ along $a$. With
# $a = u_n$ it misses what mode $n$ tells about differences between queries. The mean stays in, since to
# put a zero where the model never saw one breaks more than the mode; it gives all queries the same map
# and acts like key salience. So only a part of what the mode carries is removed, and below we say how
# large a part.
#
# The null are random unit vectors in the span of the head's *other* modes: they take one dimension away
# as well, and leave mode $n$ alone. We remove, in each layer, the mode that carries most on one part
# of the scenes, and measure on another. Such a mode takes more out of the logits than a random direction
# does, and no wonder that it moves more. So we do it a second time at equal size. Of
# the mode and of each direction we remove only a part, so that all take the same variance out of the
# logits. That variance is the one that the weakest of them carries.

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

# %% tags=["hide-input"] mystnb={"figure": {"name": "fig-removed", "caption": "One mode removed in each layer, the one that carries most there (orange), against random directions in the span of the head's other modes (grey). Left: how far the head's attention moves, in total variation. Middle: how far the model's outputs move, as a part of how they differ between scenes. Right: the same where all are removed in part, so that each takes the same variance out of the logits, over the median of the random directions."}, "image": {"alt": "Three panels with a row for each layer's strongest mode: an orange diamond for its removal and grey dots for random directions."}}
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
# In {glue:text}`above_moved` of {glue:text}`removed` heads the mode moves attention more than each of
# twelve random directions, {glue:text}`ratio_moved:.1f` times as far as their median (itself a median over
# heads). The outputs of {glue:text}`subject` move more in {glue:text}`above_change` heads,
# {glue:text}`ratio_change:.1f` times as far, and by {glue:text}`most:.2f` of their spread at most. What was removed is {glue:text}`removed_part:.0%` of what the mode carries (median over
# heads); the rest is the same for all queries, and stayed. That attention moves most is nearly by
# definition, since these modes were chosen for what they carry; that outputs do is not.
#
# At equal size the modes move the outputs {glue:text}`equal` times as far as the median of random
# directions: further than each of the twelve in {glue:text}`above_equal` heads, and less far than each in
# {glue:text}`below_equal`. Where a mode is not ahead at equal size, what sets it apart is how much
# passes through it, and not that the model listens to it more closely.
# :::
#
# ## Explore: every head, every mode
#
# Choose a head by a click or with the arrow keys, a mode and a sign. The view begins with the mode that
# carries most. The page holds the best pictures of the first modes; a notebook finds the others too.

# %%
views.mode_browser(model, atlas, pictures, names=names if embedded else None)

# %% [markdown]
# **Try it.**
#
# 1. *Like for like?* Open {glue:text}`highest_at`, then {glue:text}`lowest_at`: the highest and the
#    lowest cosine of {numref}`fig-cosines`. Look at both signs. Where is white, and where do red and
#    cyan part?
# 2. *Name first.* Open {glue:text}`plain_at`, which carries {glue:text}`plain_carried:.0%`. Write a
#    name for each end before you uncover the measured one.
# 3. *Strength against use.* Open {glue:text}`ring_at` and compare its share of σ with what it
#    carries. What have its pictures in common?


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
# 1. {glue:text}`highest_at`: {glue:text}`highest_called`. {glue:text}`lowest_at`: {glue:text}`lowest_called`. The
#    nearer a cosine is to 1, the more the two maps agree, and the more white there is; at
#    {glue:text}`highest_cosine:+.2f` they still differ. Far below zero the patches at one end answer
#    those at the other, and white is rare.
# 2. {glue:text}`plain_at`: {glue:text}`plain`. Of the other used modes this one has the weakest name. A mode
#    can carry much and yet select something that none of our families has a word for.
# 3. {glue:text}`ring_at` has {glue:text}`ring_weight:.1%` of its head's σ² and carries
#    {glue:text}`ring_carried:.0%`. {glue:text}`ring`.
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
# | the same, and better than random directions that lean to where tokens vary (ours) | {glue:text}`over_leaning` single names; {glue:text}`beyond_leaning` on average, weighted | {glue:text}`verdict_beyond` |
# | Figure 4: like asks for like more often where the cosine is high than where it is near zero | {glue:text}`same_name` | {glue:text}`verdict_same` |
# | the same, and more often than in random pairs with the same cosines (ours) | {glue:text}`over_forced` | {glue:text}`verdict_forced` |
# | Figure 5: in early layers projections tell more of colour than in late ones | last less first third of the layers, explained share {glue:text}`colour_move` | {glue:text}`verdict_colour` |
# | the same for modes beyond random directions: not a matter of the tokens alone (ours) | last less first third {glue:text}`colour_beyond` | {glue:text}`verdict_colour_beyond` |
# | Figure 5: late layers select parts rather than colours | last third, part less colour {glue:text}`part_leads` (part counts only over kind, whose share moves by {glue:text}`kind_move`) | {glue:text}`verdict_part` |
# | removing what the mode that carries most tells about queries moves the outputs more than removing random directions (ours) | by {glue:text}`moved_more` of the outputs' spread more than the median; first in {glue:text}`above_change` of {glue:text}`removed` heads, with {glue:text}`removed_part:.0%` of what it carries | {glue:text}`verdict_removed` |
# | the same, at equal size (ours) | by {glue:text}`moved_equal` more than the median; first in {glue:text}`above_equal` heads; {glue:text}`equal` times the median | {glue:text}`verdict_equal` |
# | the strongest mode is the one that carries most (ours; {glue:text}`model`) | it carries {glue:text}`behind` more than the best one, and is not first in {glue:text}`not_first:.0%` of heads | {glue:text}`verdict_first` |
#
# The paper looks at modes of large networks on photographs, by eye. Here a small network's modes are
# measured in a small world. A verdict here says that the claim holds, or fails, *in this world*.
#
# ## What to remember
#
# - An overlay shows who asks (red) and who answers (cyan). Look at both signs.
# - Strength in the weights and variance on pictures are two rankings. They may agree on the first mode and
#   part further down. Show both.
# - A name is a measurement if other scenes could have contradicted it.
# - Nearly every direction tells something. The null that counts is another direction.
# - A gallery shows company, not cause. Remove the mode, beside random directions, before you say that
#   it matters.
#
# **Limits.** Optimal pictures are the tail of a distribution: a few pictures say little about the rest. The
# names know seven families and nothing else; a mode that selects an edge or a distance goes by the
# family nearest to it. The scenes' patches of 8 pixels hold few parts. One direction of one head is
# removed at a time, and other heads may stand in for it. The intervals over heads do not hold what
# another draw of random directions would change, and heads of one network are no independent cases.
# The correction for many tests takes it that tests which hang together do so positively.
#
# **Further reading.** The paper's section 4.3 and its figures S5 to S16 {cite}`pan2024dissecting`.
#
# **Next.** {doc}`09_one_image` takes one picture apart, mode by mode.
