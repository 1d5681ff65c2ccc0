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
# (ch-svd)=
# # What is a query looking for? The SVD of a head
#
# A head of a vision transformer compares every token with every other one. What it compares is hidden in two
# matrices of weights. This chapter makes it visible.

# %% tags=["parameters", "hide-input"]
# MODEL: a name that qkutils.load takes, or the path of a checkpoint file
MODEL = "tiny-supervised"
# IMAGES: a folder of pictures; empty: drawn scenes,
# or photographs where the model was trained on them
IMAGES = ""
# IMAGE_SIZE: the side of the pictures that the model gets, in pixels; 0: as it is used by default
IMAGE_SIZE = 0
# MODELS: models beside it; those at hand are computed and drawn with those that are stored
MODELS = []
# The head that this chapter takes apart
LAYER = 2
HEAD = 1

# %% tags=["hide-input"]
from itertools import combinations

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import torch
import xarray as xr

import qkutils as qk
from qkutils import models, passes, statistics, views
from qkutils.book import (
    few_enough,
    is_embedded,
    ledger,
    live,
    pictures_for,
    stored,
    tell,
)
from qkutils.book.checks import svd_derivation as check
from qkutils.heads import fold, key_salience
from qkutils.views import figures as plots

model = qk.load(MODEL, image_size=IMAGE_SIZE or None)
source = IMAGES or pictures_for(model, 24)
there = range(min(24, len(qk.pictures_of(source, model).keys)))
count = len(few_enough(model, there, passes=6, besides=110))
several = qk.pictures.images(source, model, count)
images, few = several[:8], several[:4]
pictures = qk.pictures.visible(model, images)
weights = model.heads  # every layer's W_q, W_k, biases and LayerNorm, stacked
layers, per_layer, d_head, d_model = weights.w_q.shape
exact = qk.decompose(model, convention="exact")
stream = {layer: [] for layer in range(layers)}
passes.visit_layers(model, images, lambda layer, _, x: stream[layer].append(x.double()))
stream = {layer: torch.cat(parts) for layer, parts in stream.items()}
tell(model=model.name, layers=layers, per_layer=per_layer, pictures=len(images))
tell(d_head=d_head, d_model=d_model, several=count)
tell(this_head=f"L{LAYER} H{HEAD}", this_layer=LAYER, this_one=HEAD)
tell(
    tokens=stream[0].shape[1], prefix=model.prefix_tokens, all_heads=layers * per_layer
)
tell(rows=model.grid[0], columns=model.grid[1], few=len(few))
SHARE = "-.2f"  # of attention: it can't be negative, so it is told without a plus sign

# %% [markdown]
# First, watch two heads at work. We chose the heads and the patches by a rule, which the section *Two heads
# side by side* explains.

# %% tags=["hide-input"] mystnb={"figure": {"name": "fig-hook", "caption": "Three patches ask (orange frames), and two heads show where they attend. Each row is a head. Left: the picture. Then: where the framed patch attends, bright for much. Each map has its own scale. The second patch is the one that asks for least in the upper head."}, "image": {"alt": "Two rows of maps. In the upper row the first map and the last have no bright place in common. In the lower row the bright places of the three maps are mostly the same, but not equally bright."}}
# What the strongest mode of each head does
atlas = qk.scan(model, images, k=1, statistics=["variance"], progress=False)
whole = atlas.logit_variance.sum("mode") + atlas.salience_variance
carried = (atlas.logit_variance / whole).sel(mode=0)


def projections(layer, direction):
    """Projections of normalised patches on the first modes: [head, image, row, column]."""
    z = passes.normalise(stream[layer], weights.ln_eps)[:, model.prefix_tokens :]
    along = torch.einsum("ipd,hd->hip", z, torch.tensor(direction.values).double())
    return along.unflatten(-1, model.grid).numpy()


asked = [projections(n, exact.u.sel(layer=n, mode=0)) for n in range(layers)]
asked = xr.DataArray(np.stack(asked), dims=["layer", "head", "image", "row", "column"])
LEAST = 0.75  # carried share of a head's strongest mode, for the two heads shown side by side
over_patches = ["image", "row", "column"]
shared = abs(asked.mean(over_patches)) / asked.std(over_patches)
able = shared.where(carried.values >= LEAST)
able = able if bool(able.notnull().any()) else shared
chosen = [able.argmin(["layer", "head"]), able.argmax(["layer", "head"])]
chosen = [(int(at["layer"]), int(at["head"])) for at in chosen]
names = [f"L{layer} H{head}" for layer, head in chosen]
tell(varied=names[0], salient=names[1], least=LEAST)
tell(varied_ratio=float(able.min()), salient_ratio=float(able.max()))
rows, columns = model.grid
projected = asked[chosen[0]][2].values.ravel()
asking = [projected.argmin(), abs(projected).argmin(), projected.argmax()]
asking = [int(patch) for patch in asking]
alike = []
attention = qk.observed_attention(model, images[2:3]).isel(image=0)
fig, axes = plt.subplots(2, 4, figsize=(7.5, 4), layout="constrained")
for row, (layer, head), name in zip(axes, chosen, names, strict=True):
    row[0].imshow(pictures[2], extent=(0, columns, rows, 0))
    row[0].set(xticks=[], yticks=[], ylabel=f"head {name}")
    maps = [plots.patch_attention(attention[layer, head], n, model) for n in asking]
    alike.append(np.mean([np.minimum(*two).sum() for two in combinations(maps, 2)]))
    for ax, seen, patch in zip(row[1:], maps, asking, strict=True):
        plots.token_map(ax, seen, cmap=plots.SEQUENTIAL)
        for framed in (ax, row[0]):
            plots.mark_patch(framed, patch, columns)
tell(varied_alike=float(alike[0]), salient_alike=float(alike[1]))

# %% [markdown]
# Look at {numref}`fig-hook`. Three patches of one picture ask, and two heads of one model show where the
# patches attend. We write {glue:text}`this_head` for layer {glue:text}`this_layer`, head
# {glue:text}`this_one`; both are counted from 0.
#
# In head {glue:text}`varied` the three patches attend to different places. On average over the three pairs of
# maps, two maps have {glue:text}`varied_alike:.2f` of their attention in common. In head {glue:text}`salient` the
# three patches choose among the same few places, though not with the same weight. Here two maps have
# {glue:text}`salient_alike:.2f` in common. **What does a query look for? And when does the question hardly
# matter?**
#
# **Where we stand.** You know that attention compares a query with all keys. What is missing is a way to
# read from the weights what a query looks for.
#
# This chapter takes the comparison apart into pairs of directions: one asks, one answers. It follows
# section 3 of Pan et al. {cite}`pan2024dissecting`. Then it puts back what the paper leaves out, LayerNorm
# and the biases, and measures how much attention depends on them.
#
# :::{admonition} Before you start
# **After this chapter you can**
# - show that the coordinates of queries and keys are arbitrary, and name what about a head is not;
# - derive the modes of a head, and compute them without forming its large matrix;
# - say which parts of a score the softmax ignores, and which part is the same for all queries;
# - rebuild a model's attention from modes and key salience, and say what each part does.
#
# **You need** matrices, dot products and softmax. You should have seen a transformer once. All of it is in
# {doc}`/book/primer`, with a self-test. You need not know the singular value decomposition: we build it.
#
# **Time**: 95 minutes to read with a pencil, 20 minutes for the explorations, 75 minutes for the exercises, two
# lessons of 60 minutes to teach. Under a minute to run on a laptop. Runs with no GPU and no network.
# :::

# %% [markdown]
# ## A model and what it sees
#
# The repository contains a small vision transformer, and this page uses it: {glue:text}`model`. It was
# trained on drawn scenes to name the object that differs from the others. The same page works with
# any plain vision transformer: build the book with `make book MODEL=…`.
#
# The model has {glue:text}`layers` layers of {glue:text}`per_layer` heads. A token is a vector of
# `d_model` = {glue:text}`d_model` numbers; a query or a key has `d_head` = {glue:text}`d_head`. The model
# cuts a picture into a {term}`patch grid`, and each patch becomes a token. Before the patches stand one or two
# {term}`prefix tokens <prefix token>` in most models. Here a picture becomes {glue:text}`tokens` tokens:
# {glue:text}`rows` × {glue:text}`columns` patches and {glue:text}`prefix` prefix token. (Numbers in this
# text come from the run that made the page.)

# %%
x = stream[LAYER]  # [image, token, d_model], as the tokens enter one layer
z = passes.normalise(x, weights.ln_eps)  # each token with mean 0 and variance 1
list(x.shape)

# %% [markdown]
# The shape is images × tokens × `d_model`. Here `x` is the {term}`residual stream`. The array `z` holds
# the same tokens after LayerNorm has removed their mean and their scale. For now the head reads `z`. We
# ignore LayerNorm's gain and shift and the biases. They come back below, and they matter.

# %% [markdown]
# ## A score is a bilinear form
#
# A head turns each token into a query $W_q z_i$ and a key $W_k z_j$. The score of the pair is their
# dot product. Written out, the two small matrices meet in the middle:
#
# $$
# s_{ij} = (W_q z_i) \cdot (W_k z_j) = z_i^\top W_q^\top W_k\, z_j = z_i^\top M z_j .
# $$
#
# So one matrix decides who looks for whom: $M = W_q^\top W_k$. It has `d_model` rows and columns,
# but rank at most `d_head`. Attention is then the softmax over $j$ of $s_{ij} / \sqrt{d_\text{head}}$.
#
# The book's library, `qkutils`, never forms this matrix. Here we form it once, to see that both ways of scoring agree.

# %%
w_q, w_k = weights.w_q[LAYER, HEAD].double(), weights.w_k[LAYER, HEAD].double()
M = w_q.T @ w_k
queries, keys = z @ w_q.T, z @ w_k.T  # [image, token, d_head]
by_dot_product = queries @ keys.mT
by_matrix = z @ M @ z.mT

# %% tags=["hide-input"]
EQUAL = 1e-9  # two results of float64 arithmetic that differ by less are the same
apart = float(abs(by_dot_product - by_matrix).max() / abs(by_matrix).max())
tell(
    bilinear=apart,
    equal=EQUAL,
    bilinear_verdict=statistics.verdict_of_identity(apart, EQUAL),
)
tell(rank=int(torch.linalg.matrix_rank(M)))

# %% [markdown]
# The two ways of scoring differ by {glue:text}`bilinear:.0e` of the largest score. Below
# {glue:text}`equal:.0e` we call a difference rounding, so the identity {glue:text}`bilinear_verdict`. $M$
# has {glue:text}`d_model` rows and columns, but its rank is {glue:text}`rank`. So the scores depend on
# {glue:text}`rank` directions for queries and {glue:text}`rank` for keys, and on no others.

# %% [markdown]
# ### What belongs to the head?
#
# :::{admonition} Predict, then look
# :class: tip
# Take any invertible matrix $A$. Change the head to $W_q \leftarrow A^\top W_q$ and
# $W_k \leftarrow A^{-1} W_k$. Which of these five change: the queries, the scores, the matrix $M$, the
# singular values of $M$, the singular values of $W_q W_k^\top$? (Singular values say how strongly a matrix
# stretches. The next section builds them; for now, guess.)
# :::

# %%
torch.manual_seed(0)
A = torch.randn(d_head, d_head, dtype=torch.float64)
moved_q, moved_k = A.T @ w_q, torch.linalg.solve(A, w_k)
sigma_of = torch.linalg.svdvals
before_and_after = {
    "queries": (queries, z @ moved_q.T),
    "scores": (by_matrix, (z @ moved_q.T) @ (z @ moved_k.T).mT),
    "M": (M, moved_q.T @ moved_k),
    "σ of M": (sigma_of(M), sigma_of(moved_q.T @ moved_k)),
    "σ of W_q W_kᵀ": (sigma_of(w_q @ w_k.T), sigma_of(moved_q @ moved_k.T)),
}

# %% tags=["hide-input"]
changes = [
    f"{name}: {float((b - a).norm() / a.norm()):.1g}"
    for name, (a, b) in before_and_after.items()
]
tell(changes="; ".join(changes))

# %% [markdown]
# :::{dropdown} What the run says
# The change of each, relative to what there was before: {glue:text}`changes`.
#
# The queries change completely. So a picture of a single query coordinate shows nothing about the
# head. The scores, $M$ and its singular values stay the same, up to rounding. A quantity that depends
# on $M$ alone is {term}`basis-free`: it belongs to the head. The last number warns of a common mistake.
# The small matrix $W_q W_k^\top$ looks handy. But it becomes $A^\top (W_q W_k^\top) A^{-\top}$. This matrix is
# similar to the old one, so its eigenvalues stay. Its singular values do not.
# :::
#
# So two of the five change: the queries and the singular values of $W_q W_k^\top$. The scores and $M$ belong to
# the head, and so does all that we compute from $M$.

# %% [markdown]
# ## Two directions and a strength
#
# Which query direction and which key direction fit best? Among all pairs of unit vectors, one pair
# $u_0, v_0$ makes $u^\top M v$ largest. Call this largest value $\sigma_0$. How do we find the pair? Hold $v$
# fixed: the best $u$ points along $Mv$. Hold this $u$ fixed: the best $v$ points along $M^\top u$. Take
# turns. No turn makes the value smaller, and for nearly every start the turns end at the best pair.


# %%
def best_pair(matrix, turns=1000):
    """Unit u and v with the largest uᵀ matrix v, and this value."""
    v = torch.ones(len(matrix), dtype=matrix.dtype)
    for _ in range(turns):
        u = torch.nn.functional.normalize(matrix @ v, dim=0)
        v = torch.nn.functional.normalize(matrix.T @ u, dim=0)
    return u, u @ matrix @ v, v


u0, sigma0, v0 = best_pair(M)
u1, sigma1, v1 = best_pair(M - sigma0 * torch.outer(u0, v0))

# %% tags=["hide-input"]
by_svd = sigma_of(M)
tell(first=float(sigma0), second=float(sigma1))
built = max(abs(float(sigma0 - by_svd[0])), abs(float(sigma1 - by_svd[1]))) / float(
    by_svd[0]
)
tell(
    built=built,
    across_u=f"{abs(float(u0 @ u1)):.0e}",
    across_v=f"{abs(float(v0 @ v1)):.0e}",
)

# %% [markdown]
# The last line takes the first pair out of the matrix and looks for the best pair of what is left. At the
# best pair the turns have ended: $Mv_0 = \sigma_0 u_0$ and $M^\top u_0 = \sigma_0 v_0$. So the matrix
# that is left, $M' = M - \sigma_0 u_0 v_0^\top$, sends $v_0$ to zero, and its transpose sends $u_0$ to zero. Nothing is
# left along these two directions.
#
# The best pair of $M'$ has $u_1 = M' v_1 / \sigma_1$. So
# $u_0 \cdot u_1 = (M'^\top u_0) \cdot v_1 / \sigma_1 = 0$, and $v_0 \cdot v_1 = 0$ in the same way. Where $u \perp u_0$
# and $v \perp v_0$, $M'$ and $M$ give the same number. So the new pair has the largest $u^\top M v$ among such unit
# vectors. Query directions are orthogonal to each other, and so are key directions. Nothing is said about $u_1$ and $v_0$.
# Here $\sigma_0$ = {glue:text}`first:.2f` and $\sigma_1$ = {glue:text}`second:.2f`. The dot products are
# $|u_0 \cdot u_1|$ = {glue:text}`across_u` and $|v_0 \cdot v_1|$ = {glue:text}`across_v`, which is rounding.
#
# Go on until nothing is left. This is the singular value decomposition. The strengths fall,
# $\sigma_0 \ge \sigma_1 \ge \dots \ge 0$, and the pairs add up to the matrix:
#
# $$
# M = \sum_n \sigma_n\, u_n v_n^\top
# \qquad\text{so}\qquad
# s_{ij} = \sum_n \sigma_n\, (z_i \cdot u_n)\,(z_j \cdot v_n) .
# $$
#
# Read one term aloud: *a token that has much of $u_n$ looks for tokens that have much of $v_n$, and
# $\sigma_n$ says how hard*. A projection can also be negative. A token with a negative part of $u_n$ looks
# for tokens with a negative part of $v_n$, and avoids those with a positive part.
#
# One such term is a {term}`mode`. Its {term}`query direction` asks, its
# {term}`key direction` answers. Their cosine, $\cos_n = u_n \cdot v_n$, tells how alike question and answer
# are.

# %% [markdown]
# ### A mode to take into your hands
#
# In two dimensions we can see a mode and move it. Below is a head with a strong and a weak mode.
# Sixteen tokens lie on a circle of radius √2, as if only their length were normalised. (That is RMS
# normalisation. LayerNorm also makes the mean of a token zero. In two dimensions only two points would be
# left.) Drag the tips of $u_0$, which asks, and $v_0$, which answers. Grey arrows show each token's
# favourite direction for a key, $M^\top z$. The colours show the scores $z_q^\top M z$ of the token that
# asks. The map shows who attends to whom: the softmax of the scores divided by $\sqrt 2$.

# %%
views.two_dimensional(u0=0.0, v0=40.0, sigma=(1.5, 0.4))

# %% [markdown]
# Put $v_0$ on $u_0$. Now tokens look to their own side: the head **groups like with like**. Put $v_0$
# opposite to $u_0$. Now tokens look across: the head looks for **contrast**. A token with much of $u_0$
# has a long arrow. While $\sigma_1$ is small, a token with little of $u_0$ asks for little.
#
# **Try it.**
# 1. Leave $u_0$ at 0°. The token $z_0$ lies on the far right, and $z_4$ at the top. Turn $v_0$ until
#    $z_0$ likes $z_4$ best and its grey arrow points straight up. Which cosine do you read?
# 2. Turn $v_0$ further, to 180°. Where in the attention map is the bright band now?
# 3. Make $\sigma_1$ equal to $\sigma_0$. Turn $u_0$ and $v_0$ by the same angle. Which numbers change?
#    Then set both angles to 0° and mirror the second pair. Which tokens like themselves best, and
#    which like their opposite?
#
# :::{dropdown} Answers
# 1. At 90° the cosine is 0. On average over the circle, tokens attend to neither similar nor opposite tokens.
# 2. The band lies about eight places off the diagonal, which is half way round the circle. The weak mode
#    bends it. Each token attends to the tokens opposite to it: the cosine is −1.
# 3. No score changes. The mixture $(c\,u_0 + s\,u_1,\; c\,v_0 + s\,v_1)$ with $c^2 + s^2 = 1$ is as good a
#    first pair as $(u_0, v_0)$. After mirroring, $z_0$ and $z_8$
#    like themselves best, while $z_4$ and $z_{12}$ like each other. The cosines are +1 and −1. So the
#    average of a head's cosines can hide two strong and opposite modes.
# :::
#
# Two lessons stay. Where two strengths are equal, only the space that their directions span is determined, not
# each direction. Each of the two is a {term}`degenerate mode`, and `qk.decompose` marks it. And the average of a
# head's cosines can hide two strong modes that are opposite.

# %% [markdown]
# ## The modes of a real head, without its matrix
#
# $M$ is large, but its rank is only {glue:text}`rank`. The {term}`thin QR` splits each thin matrix into
# a frame of orthonormal columns and a small square matrix: $W_q^\top = Q_q R_q$ and
# $W_k^\top = Q_k R_k$. Then
#
# $$
# M = Q_q\, (R_q R_k^\top)\, Q_k^\top ,
# $$
#
# and we decompose only the small matrix in the middle, `d_head` × `d_head`. A frame times orthonormal
# vectors gives orthonormal vectors. So the result *is* the decomposition of $M$.


# %%
def thin_svd(w_q, w_k):
    """Modes of W_qᵀW_k: u [mode, d_model], sigma [mode], v [mode, d_model]."""
    q_frame, q_small = torch.linalg.qr(w_q.T)
    k_frame, k_small = torch.linalg.qr(w_k.T)
    a, sigma, b = torch.linalg.svd(q_small @ k_small.T)
    return (q_frame @ a).T, sigma, b @ k_frame.T


# %% tags=["hide-input"]
u, sigma, v = thin_svd(w_q, w_k)
missed = float((M - u.T @ torch.diag(sigma) @ v).norm() / M.norm())
of_head = qk.decompose(model, convention="paper").sel(layer=LAYER, head=HEAD)
tell(
    sigma_error=float(abs(by_svd[:d_head] - sigma).max() / by_svd[0]),
    missed=missed,
    missed_verdict=statistics.verdict_of_identity(missed, EQUAL),
    agree=float(abs(of_head.sigma - sigma.numpy()).max() / sigma[0]),
    cos_first=float(of_head.cosine[0]),
    cos_exact=float(exact.cosine.sel(layer=LAYER, head=HEAD)[0]),
)

# %% [markdown]
# The strengths equal those of the full matrix to {glue:text}`sigma_error:.0e` of the largest. The modes give
# $M$ back to {glue:text}`missed:.0e`, so the identity {glue:text}`missed_verdict`. The library does the same
# for all heads at once, `qk.decompose(model)`, and checks every result. For our head it agrees to
# {glue:text}`agree:.0e`. The first mode has cosine {glue:text}`cos_first:+.2f`. So its query direction and its
# key direction partly agree, and the mode leans to like with like.

# %% [markdown]
# ## Nine products, and the softmax keeps three
#
# So far we ignored three things that stand between the residual stream and the scores: LayerNorm's gain
# $g$, its shift $\beta$, and the biases $b_q$ and $b_k$. The paper ignores them too: it decomposes the raw
# weights and projects the raw stream $x$. We call this the convention `paper`. (So far we took the raw
# weights as well, but projected $z$ and not $x$.) The model itself computes
#
# $$
# \big(W_q (g \odot z_i) + W_q \beta + b_q\big) \cdot \big(W_k (g \odot z_j) + W_k \beta + b_k\big) .
# $$
#
# The query has three parts: from the token, from the shift, and from the bias. So has the key. Multiply out, and
# there are nine products. Which of them does attention depend on? Ask of each product: **does it change from
# key to key?** A product that does not depend on $j$ adds one number to all scores of a query. The softmax
# ignores such a number:
#
# $$
# \frac{e^{s_{ij} + c_i}}{\sum_k e^{s_{ik} + c_i}} = \frac{e^{s_{ij}}}{\sum_k e^{s_{ik}}} .
# $$
#
# | query ↓ key → | token $z_j$ | shift $\beta$ | bias $b_k$ |
# |---|---|---|---|
# | token $z_i$ | on $i$ and $j$: **modes** | on $i$ alone: *ignored* | on $i$ alone: *ignored* |
# | shift $\beta$ | on $j$ alone: **stays** | constant: *ignored* | constant: *ignored* |
# | bias $b_q$ | on $j$ alone: **stays** | constant: *ignored* | constant: *ignored* |
#
# The table says what each product depends on. We test it on the model: compute the nine products of a head,
# leave out one at a time, and see how much of its attention moves.
#
# "Attention moves by 0.2" means the *total variation*: half the sum of the absolute differences of two rows of
# attention. It is the share of attention that has to be moved to turn one row into the other, from 0 to 1.


# %%
def three_parts(w, bias, layer, z):
    """Of queries or keys: from the token, from LayerNorm's shift, from the bias."""
    gain, shift = weights.ln_gain[layer].double(), weights.ln_shift[layer].double()
    from_token = (z * gain) @ w.mT
    return [from_token, *(c.expand_as(from_token) for c in (shift @ w.mT, bias))]


# %%
def nine_products(layer, head, z):
    """Over (query part, key part, image, query, key)."""
    both = (weights.w_q, weights.b_q), (weights.w_k, weights.b_k)
    queries, keys = (
        three_parts(w[layer, head].double(), b[layer, head].double(), layer, z)
        for w, b in both
    )
    return torch.stack([torch.stack([q @ k.mT for k in keys]) for q in queries])


# %% tags=["hide-input"] mystnb={"figure": {"name": "fig-nine", "caption": "The nine products of one head, for two patches that ask (orange frames), over all patches as keys. Rows: the query's part from the token, from LayerNorm's shift β, and from b_q. Columns: the key's parts, from the token, from β, and from b_k. Above each pair of maps: how much of the head's attention moves when the product is left out. One colour scale; its strongest colours also stand for more."}, "image": {"alt": "Three rows of three pairs of small maps. In the first pair the two maps differ. In the two pairs below it both maps have one pattern. All other maps have one even colour."}}
OF_QUERY, OF_KEY = ["token", "β", "b_q"], ["token", "β", "b_k"]


def moved_without_each(layer, head):
    """Mean total variation of attention without each product: [query part, key part]."""
    tokens = passes.normalise(stream[layer][: len(few)], weights.ln_eps)
    products = nine_products(layer, head, tokens) * weights.scale
    whole = products.sum((0, 1))
    rest = (whole - products).softmax(-1) - whole.softmax(-1)
    return rest.abs().sum(-1).mean((2, 3)) / 2


each_head = [
    [moved_without_each(n, h) for h in range(per_layer)] for n in range(layers)
]
moved_nine = torch.stack([torch.stack(of_layer) for of_layer in each_head]).numpy()
most = moved_nine[..., 1:, 0].sum(-1)  # by both products that depend on the key alone
kappa_layer, kappa_head = map(int, np.unravel_index(most.argmax(), most.shape))
ignored = max(moved_nine[..., 0, 1:].max(), moved_nine[..., 1:, 1:].max())
over_heads = moved_nine.mean((0, 1))
tell(kappa_at=f"L{kappa_layer} H{kappa_head}", ignored=float(ignored))
tell(by_modes=float(over_heads[0, 0]), by_shift=float(over_heads[1, 0]))
tell(by_bias=float(over_heads[2, 0]))
of_one = moved_nine[kappa_layer, kappa_head, :, 0].tolist()
tell(one_modes=of_one[0], one_shift=of_one[1], one_bias=of_one[2])
z_one = passes.normalise(stream[kappa_layer][2:3], weights.ln_eps)
products = nine_products(kappa_layer, kappa_head, z_one)[:, :, 0] * weights.scale
first = model.prefix_tokens
ends = asking[::2]
at_keys = products[:, :, [first + patch for patch in ends], first:].numpy()
limit = float(np.quantile(abs(at_keys[:, 0]), 0.9))
fig, axes = plt.subplots(3, 6, figsize=(7.5, 4.9), layout="constrained")
for row, column in np.ndindex(3, 3):
    pair = axes[row, 2 * column : 2 * column + 2]
    for ax, values, patch in zip(pair, at_keys[row, column], ends, strict=True):
        drawn = plots.token_map(ax, values.reshape(model.grid), limit=limit)
        plots.mark_patch(ax, patch, columns)
    moves = moved_nine[kappa_layer, kappa_head, row, column]
    said = f"{OF_QUERY[row]} · {OF_KEY[column]}\nmoves {moves:.2f}"
    pair[0].set_title(said, fontsize=9, loc="left")
_ = fig.colorbar(drawn, ax=axes, label="part of the score ÷ √d_head", shrink=0.6)

# %% [markdown]
# {numref}`fig-nine` shows one head of all {glue:text}`all_heads`: head {glue:text}`kappa_at`, in which the two
# lower products of the first column matter most. **Six of the nine are flat**: they have one colour, so they
# prefer no key. Leaving out any of these six moves at most {glue:text}`ignored:.0e` of the attention in any head.
#
# The first pair of maps differs from patch to patch: these are the modes at work. Below it are two products
# that change from key to key, but not from query to query. Even in this head the modes move more than each of
# these two: {glue:text}`one_modes:.2f` against {glue:text}`one_shift:.2f` for $\beta$ and
# {glue:text}`one_bias:.2f` for $b_q$. Over all heads and {glue:text}`few` pictures, attention moves by
# {glue:text}`by_modes:.2f` without the modes. Without the product with $\beta$ it moves by
# {glue:text}`by_shift:.2f`, and without the product with $b_q$ by {glue:text}`by_bias:.2f`.
#
# Collect what stays:
#
# $$
# z_i^\top \tilde M z_j + \kappa \cdot z_j , \qquad
# \tilde M = C\, G\, W_q^\top W_k\, G\, C , \qquad
# \kappa = C\, G\, W_k^\top (b_q + W_q \beta) ,
# $$
#
# with $G = \operatorname{diag}(g)$. The matrix $C$ subtracts a vector's mean. Normalised tokens have mean
# zero, $Cz = z$, so $C$ changes no score. It only removes from the directions a part that no token has.
# We call this the convention `exact`. In it, the first mode of head {glue:text}`this_head` has cosine
# {glue:text}`cos_exact:+.2f`, nearly as before.
#
# The vector $\kappa$ gives the {term}`key salience`: how attractive
# a token is to *every* query, whatever the query asks. It has a part from $b_q$ and a part from $\beta$.
#
# So the paper is half right. It drops the biases because they would cancel in the softmax. The key bias
# $b_k$ does cancel. The query bias $b_q$ does not.

# %% [markdown]
# ### How much hangs on key salience?
#
# With modes and $\kappa$, we can rebuild the model's attention, and we never need $b_k$:

# %%
rebuilt = qk.compare_attention(model, several, exact)  # all modes and κ
without_kappa = qk.compare_attention(model, several, salience=[])
without_bias = qk.compare_attention(model, several, salience=["shift"])
without_shift = qk.compare_attention(model, several, salience=["bias"])

# %% tags=["hide-input"]
SAME = 2e-5  # two attention weights in float32 that differ by less are the same
difference = float(rebuilt.largest.max())
tell(rebuilt_error=difference, same=SAME)
tell(rebuilt_verdict=statistics.verdict_of_identity(difference, SAME))
of_picture = ["layer", "head", "query"]
found = {
    "κ": statistics.bootstrap(without_kappa.total_variation.mean(of_picture)),
    "b_q": statistics.bootstrap(without_bias.total_variation.mean(of_picture)),
    "b_k": statistics.bootstrap(rebuilt.total_variation.mean(of_picture)),
}
tell(moved_all=statistics.text(found["κ"], "-.3f"))
tell(moved_bias=statistics.text(found["b_q"], "-.3f"))
tell(moved_shift=float(without_shift.total_variation.mean()))
tell(moved_key=f"{float(found['b_k'].estimate):.0e}")

# %% [markdown]
# Every attention weight of every head equals the model's own to {glue:text}`rebuilt_error:.0e` (the threshold
# is {glue:text}`same:.0e`), so the identity {glue:text}`rebuilt_verdict`. Modes and $\kappa$ are the whole
# story. In {glue:text}`model`, leaving out $\kappa$ moves attention by {glue:text}`moved_all`, with a 95 %
# interval over {glue:text}`several` pictures. Is that much? Look at real models.

# %% tags=["hide-input"] mystnb={"figure": {"name": "fig-salience", "caption": "How much attention moves when key salience is left out (solid), or only its part from the query bias (dashed), layer by layer. Real models were computed elsewhere, on photographs, except for those listed as computed under *Where these numbers come from*. The two parts of key salience can oppose each other, so a dashed line may lie above the solid one."}, "image": {"alt": "Lines over depth, one colour for each model. Solid lines of the real models lie between about 0.2 and 0.8; the line of the embedded model lies near 0.1 and below."}}
of_layer = ["image", "head", "query"]
here = {"all": without_kappa, "bias": without_bias}
here = {removed: each.total_variation.mean(of_layer) for removed, each in here.items()}
tables = {name: stored.read("salience", name) for name in stored.names("salience")}
elsewhere = {n: t.total_variation for n, t in tables.items() if n != model.name}
kept = {n: {r: table.sel(removed=r) for r in here} for n, table in elsewhere.items()}


def moved_layers(path):
    """How much attention of a model moves, on pictures of its own kind."""
    other = qk.load(path)
    shown = few_enough(other, pictures_for(other, 20), passes=4)
    seen = qk.pictures.images(shown, other, len(shown))
    salience = {"all": [], "bias": ["shift"]}
    rest = {
        r: qk.compare_attention(other, seen, salience=s) for r, s in salience.items()
    }
    return {r: each.total_variation.mean(of_layer) for r, each in rest.items()}


fresh = {n: moved_layers(path) for n, path in live(MODELS).items() if n != model.name}
drawn = {model.name: here} | kept | fresh
fig, ax = plt.subplots(figsize=(7.5, 4), layout="constrained")
for name, look in plots.looks(drawn).items():
    for removed, style in [("all", "-"), ("bias", "--")]:
        label = name if style == "-" else ""
        plots.over_depth(ax, drawn[name][removed], label, look, style)
ax.set(ylabel="attention that moves\n(mean total variation)", ylim=(0, 1))
_ = fig.legend(fontsize=8, loc="outside lower center", ncols=2)

# %% tags=["hide-input"]
real = {name: table.sel(removed="all") for name, table in elsewhere.items()}
real_found = statistics.over_runs([float(table.mean()) for table in real.values()])
tell(real_mean=statistics.text(real_found, SHARE), real_count=len(real))
tell(real_last=f"{min(float(t[-1]) for t in real.values()):.2f}")
tell(real_last_most=f"{max(float(t[-1]) for t in real.values()):.2f}")
origin = "{images}; fingerprint {fingerprint}, version {code_version}, {computed}"
lines = [f"{name} ({origin.format(**tables[name].attrs)})" for name in elsewhere]
tell(real_origin="; ".join(lines), tensors=stored.tensors(elsewhere))
again = {n: abs(fresh[n]["all"] - kept[n]["all"]).max() for n in fresh if n in kept}
differs = "; ".join(f"{n}, by {float(most):.2f} at most" for n, most in again.items())
tell(differs=differs or "none", computed=", ".join([model.name, *fresh]))

# %% [markdown]
# **In real models, much of the attention hangs on a term that the paper drops.** {numref}`fig-salience` shows
# it for every layer. Without
# $\kappa$, {glue:text}`real_mean` of the attention moves: mean and 95 % interval over
# {glue:text}`real_count` real models. The {term}`null` is what we would see if nothing were there. Here it is
# zero: a term that cancels would move nothing.
#
# In the last layer of each real model, {glue:text}`real_last` to {glue:text}`real_last_most` of the attention
# moves. After the first layer, leaving out the query bias alone moves about as much: the dashed lines follow the
# solid ones.
#
# In {glue:text}`model` the share is smaller. Both parts count here. Without $b_q$ alone, attention moves by
# {glue:text}`moved_bias`. Without $\beta$ alone, it moves by {glue:text}`moved_shift:.3f`.
#
# The decomposition itself is not wrong. Modes describe how a pair of tokens interacts, and $\kappa$ does
# not depend on the pair. But attention that is drawn from modes alone is not the attention of the model.
#
# :::{dropdown} Where these numbers come from
# Real models: {glue:text}`real_origin`. {glue:text}`tensors` Means over all heads and all tokens as queries,
# including prefix tokens. The numbers in the text are means of these.
#
# Computed by the run that made this page: {glue:text}`computed`. Models at hand that `MODELS` names are among
# them. Each of these saw up to 20 pictures of its own kind. The stored curves were made with other pictures, so
# they can differ: {glue:text}`differs`.
# :::

# %% [markdown]
# ## Two heads side by side
#
# Key salience is the same for all queries. Is it the only part of a score that is? Back to
# {numref}`fig-hook`: in head {glue:text}`salient` all three patches choose among the same few places, and the
# reason is not $\kappa$. We look at the head's strongest mode.
#
# We chose both heads by a rule. Take the heads whose strongest mode carries at least
# {glue:text}`least:.2f` of the variance of the scores (its {term}`carried share`). For each, project all
# patches on the mode's query direction, and divide the absolute mean of $z \cdot u$ by its standard
# deviation. Head {glue:text}`varied` has the smallest ratio, {glue:text}`varied_ratio:.2f`, and head
# {glue:text}`salient` the largest, {glue:text}`salient_ratio:.1f`. The three patches of {numref}`fig-hook` have
# the lowest projection in head {glue:text}`varied`, the one nearest to zero, and the highest.

# %% tags=["hide-input"] mystnb={"figure": {"name": "fig-shared", "caption": "How much the patches of eight pictures ask in the strongest mode of two heads. Left: some patches ask for one thing, others for its opposite. Right: nearly all ask for the same. Orange line: the mean. Grey line: zero."}, "image": {"alt": "Two histograms of query projections. The left one lies on both sides of zero, the right one lies on one side of zero, far from it."}}
fig, axes = plt.subplots(1, 2, figsize=(7.5, 2.8), layout="constrained", sharey=True)
for ax, (layer, head), name in zip(axes, chosen, names, strict=True):
    values = asked[layer, head].values.ravel()
    ax.hist(values, bins=40, color=plots.PALETTE[4])
    ax.axvline(values.mean(), color=plots.PALETTE[1], lw=2)
    ax.axvline(0, color="0.4", lw=1)
    reach = 1.1 * abs(values).max()
    ax.set(
        title=f"head {name}, mode 0",
        xlabel="query projection z · u",
        xlim=(-reach, reach),
    )
_ = axes[0].set_ylabel("number of patches")

# %% [markdown]
# In head {glue:text}`varied` the projections lie on both sides of zero ({numref}`fig-shared`). Patches ask
# different things. (These are the patches of {glue:text}`pictures` pictures; within one picture one sign may
# dominate.) In head {glue:text}`salient` nearly all projections have one sign. Nearly all patches
# ask the same thing.
#
# Write a patch's projection as the mean plus a rest, $z_i \cdot u = m + r_i$. Then the mode's part of the
# score has two terms:
#
# $$
# \sigma\,(z_i \cdot u)(z_j \cdot v) \;=\; \underbrace{m\,\sigma\,(z_j \cdot v)}_{\text{the same for all queries}}
# \;+\; \underbrace{r_i\,\sigma\,(z_j \cdot v)}_{\text{depends on who asks}} .
# $$
#
# The first term depends on the key alone. It acts as key salience, although it comes from a mode and not
# from a bias. So **there are two sources of what all queries share**: $\kappa$, and the mean part of the
# queries. With $\mu$ for the mean token, both together are $(\kappa + \tilde M^\top \mu) \cdot z_j$.

# %% tags=["hide-input"] mystnb={"figure": {"name": "fig-mode", "caption": "The strongest mode of the two heads on four pictures. Each head has two rows: how much each patch asks, z · u, and how much it answers, z · v. One colour scale for each head. The sign of a mode is arbitrary: both rows may swap colours together."}, "image": {"alt": "Five rows of four panels. First row: pictures. Then for each head a row of query projections and a row of key projections. The query row of the second head has one colour."}}
does_what = []
for layer, head in chosen:
    answered = projections(layer, exact.v.sel(layer=layer, mode=0))[head]
    does_what.append({"asks": asked[layer, head].values, "answers": answered})
fig, axes = plt.subplots(5, 4, figsize=(7.5, 8.6), layout="constrained")
for ax, picture in zip(axes[0], pictures, strict=False):
    ax.imshow(picture)
    ax.set(xticks=[], yticks=[])
for maps, name, pair in zip(does_what, names, (axes[1:3], axes[3:5]), strict=True):
    limit = max(float(abs(each).max()) for each in maps.values())
    for row, (does, values) in zip(pair, maps.items(), strict=True):
        row[0].set_ylabel(f"{name} {does}")
        for ax, each in zip(row, values, strict=False):
            drawn = plots.token_map(ax, each, limit)
    fig.colorbar(drawn, ax=pair, label="projection", shrink=0.7)

# %% [markdown]
# {numref}`fig-mode` shows where patches ask and answer. A patch that is dark in a row "asks" looks for
# patches that are dark, in the same colour, in the row "answers" below it. It avoids patches of the other
# colour.
#
# In head {glue:text}`varied` both colours ask, so two groups of patches look for different things. In the second
# picture and the fourth, patches on the blue objects ask and answer in violet. Patches between the objects are
# pale or orange. In the first picture, with red objects, hardly any patch is violet.
#
# In head {glue:text}`salient` all patches ask in violet. So every patch looks for the violet patches of the row
# below, and every patch avoids the orange ones. What is looked for does not depend on who asks.
#
# How much of attention is this? Leave out the mean part of the queries, and keep all else. To see whether the
# result is a quirk of one model, we repeat the measurement with every embedded model. All of them are one small
# network, and they differ in what they were trained for on drawn scenes:
#
# - `supervised` names the odd object;
# - `simmim` fills in hidden patches;
# - `dino` learns to describe two views of a scene alike;
# - `simmim-finetuned` and `simmim-continued` train `simmim` further, with labels and without;
# - `untrained` is the network before its first step.
#
# {doc}`02_embedded_world` tells more. The intervals in the table are over training runs.


# %% tags=["hide-input"]
def without_mean(network, pictures_of_it):
    """Mean total variation per (layer, image, head) without the queries' mean part."""
    heads, of_shift = network.heads, key_salience(network.heads)
    kappa, moved = sum(of_shift), []

    def visit(layer, _, x):
        z = passes.normalise(x.double(), heads.ln_eps)
        q, k = (z[:, None] @ side.mT for side in fold(heads, layer, "exact"))
        scores = q @ k.mT + (z[:, None] @ kappa[layer][..., None]).mT
        mean = q[:, :, network.prefix_tokens :].mean((0, 2), keepdim=True)
        rest = heads.logits(layer, scores - mean @ k.mT).softmax(-1)
        moved.append(
            (rest - heads.logits(layer, scores).softmax(-1)).abs().sum(-1).mean(-1) / 2
        )

    passes.visit_layers(network, pictures_of_it, visit, len(pictures_of_it))
    return xr.DataArray(torch.stack(moved).numpy(), dims=["layer", "image", "head"])


of_mean = without_mean(model, several)
found["mean"] = statistics.bootstrap(of_mean.mean(["layer", "head"]))
(varied_at, salient_at) = (of_mean.mean("image").values[at] for at in chosen)
kappa_of = without_kappa.total_variation.mean(["image", "query"]).values[chosen[1]]
tell(mean_moves=statistics.text(found["mean"], SHARE), mean_varied=f"{varied_at:.2f}")
tell(mean_salient=f"{salient_at:.2f}", kappa_salient=f"{kappa_of:.2f}")
runs = models.family()
drawn_scenes = qk.world.pictures(0, 0, 4)


def both_sources(name):
    """How much attention moves without κ, and without the mean part of the queries."""
    network = qk.load(name)
    four = qk.pictures.images(drawn_scenes, network, count=4)
    bare = qk.compare_attention(network, four, salience=[]).total_variation
    return float(bare.mean()), float(without_mean(network, four).mean())


of_runs = {
    goal: np.array([both_sources(name) for name in names_of.dropna()])
    for goal, names_of in runs.iterrows()
}
table = {
    goal: {
        what: statistics.text(statistics.over_runs(values[:, n]), SHARE)
        for n, what in enumerate(["without κ", "without the queries' mean"])
    }
    for goal, values in of_runs.items()
}

# %% tags=["hide-input"]
trained = [of_runs[goal] for goal in of_runs if goal != "untrained"]
least_runs = min(map(len, trained))
by_seed = np.mean([values[:least_runs] for values in trained], 0)
over_seeds = [statistics.over_runs(by_seed[:, n]) for n in range(2)]
tell(seeds=least_runs, goals=len(trained))
tell(seeds_kappa=statistics.text(over_seeds[0], SHARE))
tell(seeds_mean=statistics.text(over_seeds[1], SHARE))
pd.DataFrame(table).T

# %% [markdown]
# Without the mean part of the queries, {glue:text}`mean_salient` of the attention in head {glue:text}`salient`
# moves; in head {glue:text}`varied` it is {glue:text}`mean_varied`. For comparison: leaving out $\kappa$ moves
# {glue:text}`kappa_salient` in head {glue:text}`salient`. Over all heads of {glue:text}`model`, leaving out the
# mean part moves {glue:text}`mean_moves`.
#
# Over {glue:text}`goals` training goals and {glue:text}`seeds` runs of each, attention moves by
# {glue:text}`seeds_kappa` without $\kappa$, and by {glue:text}`seeds_mean` without the mean part. In an untrained
# model $b_q$ and $\beta$ are zero, so $\kappa$ is zero. Its scores are close to zero too. So its attention is
# nearly even, with the mean part of the queries or without.
#
# So a strong mode need not compare anything. Before you give a mode a name, look at whether its queries
# differ.

# %% [markdown]
# ## How many modes carry a head?
#
# A head of this model has {glue:text}`d_head` modes. Do we need all of them? We rebuild attention from the
# first $k$ modes of each head, always with $\kappa$, and see what is missing.
#
# :::{admonition} Predict, then look
# :class: tip
# Take the strongest quarter of a head's modes. What share of its squared strength,
# $\sum_n \sigma_n^2$, do they hold? And what share of its attention do they misplace?
# :::

# %% tags=["hide-input"]
quarter = d_head // 4
counts = sorted({0, 1, 2, 4, 8, quarter, d_head // 2, d_head})
first_modes = {k: exact.isel(mode=slice(k)) for k in counts}
compared = [qk.compare_attention(model, few, some) for some in first_modes.values()]
missing = [each.total_variation.mean(of_layer) for each in compared]
missing = xr.concat(missing, pd.Index(counts, name="modes"))
most_needed = missing.sel(modes=quarter)
held = (exact.sigma**2).cumsum("mode") / (exact.sigma**2).sum("mode")
of_quarter = qk.compare_attention(model, several, first_modes[quarter]).total_variation
found["quarter"] = statistics.bootstrap(of_quarter.mean(of_picture))
tell(quarter=quarter, quarter_kept=float(held.sel(mode=quarter - 1).mean()))
tell(quarter_missing=statistics.text(found["quarter"], "-.3f"))
tell(
    neediest=int(most_needed.values.argmax()), neediest_missing=float(most_needed.max())
)
tell(none_missing=float(missing.sel(modes=0).mean()))
fig, (left, right) = plt.subplots(1, 2, figsize=(7.5, 3.9), layout="constrained")
plt.close(fig)
gone = 1 - held.stack(member=("layer", "head")).assign_coords(mode=held.mode + 1)
curves = [gone.rename(mode="modes"), missing.rename(layer="member")]
for ax, curve, marker in zip((left, right), curves, (None, "o"), strict=True):
    ends = curve.min("member"), curve.max("member")
    ax.plot(curve.modes, curve.mean("member"), marker=marker, ms=3)
    ax.fill_between(curve.modes, *ends, alpha=0.2)
left.set(ylabel="squared strength left out")
right.set(ylabel="attention misplaced\n(mean total variation)")
for ax in (left, right):
    ax.set(
        xlabel="modes kept",
        ylim=(0, 1),
        xlim=(-0.2, 1.1 * d_head),
        xscale="symlog",
        xticks=counts,
        xticklabels=counts,
    )
tell(count_figure=fig)

# %% [markdown]
# ::::{dropdown} What the run says
# :::{glue:figure} count_figure
# :name: fig-count
# :alt: Two panels over the number of modes kept. Both curves fall to zero, most of the way within the first few modes.
#
# What the first k modes leave out. Left: the share of a head's squared strength that they miss, mean and
# range over heads. Right: the share of attention that they misplace, mean and range over layers, with key
# salience kept.
# :::
#
# **A few modes are enough.** The first {glue:text}`quarter` of {glue:text}`d_head` modes hold
# {glue:text}`quarter_kept:.3f` of the squared strength, on average over heads. With them,
# {glue:text}`quarter_missing` of the attention is misplaced (95 % interval over pictures). With key
# salience and no mode at all it is {glue:text}`none_missing:.2f`. Layer {glue:text}`neediest` needs most: there
# the first {glue:text}`quarter` modes misplace {glue:text}`neediest_missing:.3f`.
# ::::
#
# So a few modes are enough. The curve of misplaced attention falls from {glue:text}`none_missing:.2f` without a
# mode to {glue:text}`quarter_missing` with the first {glue:text}`quarter` modes.
#
# Below you can watch head {glue:text}`this_head` grow. With no mode, the framed patch attends exactly as
# every other patch does, because $\kappa$ does not depend on the query. With all modes, the map is the
# model's own.

# %% tags=["hide-input"]
patch = rows // 2 * columns + columns // 2  # one in the middle, in reading order
one = images[:1]
by_count = {
    f"{k} modes + κ": qk.rebuild_attention(model, one, m)
    for k, m in first_modes.items()
}
by_count["the model"] = qk.observed_attention(model, one)
STEPS = [*map(str, counts), "the model"]


def maps_of(layer, head):
    """Where the patch attends in a head, by the number of modes; and the share misplaced."""
    maps = [
        plots.patch_attention(every[layer, 0, head], patch, model)
        for every in by_count.values()
    ]
    return maps, [float(abs(each - maps[-1]).sum() / 2) for each in maps]


def grow(layer, head):
    """Step through the maps of a head."""
    maps, _ = maps_of(layer, head)
    top = max(float(m.max()) for m in maps)
    frames = [
        plots.attention_frame(each, pictures[0], patch, top, title)
        for each, title in zip(maps, by_count, strict=True)
    ]
    what = f"Attention of the framed patch in head L{layer} H{head}, rebuilt with this many modes: "
    return views.stepper(frames, STEPS, [what + step for step in STEPS], "modes kept")


_, away = maps_of(LAYER, HEAD)
enough = next(n for n, share in enumerate(away) if share < 0.05)
tell(enough=STEPS[enough], enough_away=away[enough])
grow(LAYER, HEAD)

# %% [markdown]
# **Try it.** From how many modes on do you recognise the final map? Then step through head
# {glue:text}`salient`. What does its first step show, and what does its second add?

# %% tags=["hide-input"]
_, away = maps_of(*chosen[1])
tell(salient_none=away[0], salient_one=away[1])
grow(*chosen[1])

# %% [markdown]
# :::{dropdown} Answers
# With {glue:text}`enough` modes, {glue:text}`enough_away:.3f` of this patch's attention is still misplaced in
# head {glue:text}`this_head`. It is the first step below 0.05. In head {glue:text}`salient` the first step,
# without any mode, is nearly even, and {glue:text}`salient_none:.2f` is misplaced: $\kappa$ is not what draws
# attention there. The next step, with one mode, misplaces {glue:text}`salient_one:.2f`.
# :::
#
# So in head {glue:text}`salient` one mode gives most of the map: with it, only {glue:text}`salient_one:.2f` of
# the attention is misplaced. And {numref}`fig-hook` showed that different patches choose among the same few
# places there.

# %% [markdown]
# ## Exercises
#
# Write in the notebook, where `...` stands. The line below each exercise checks what you wrote. It says what
# holds, and what does not hold yet.
#
# ### Exercise 1.1. All heads from one matrix
#
# *Easy, 10 minutes. Trains: reading a model's weights.*
#
# timm keeps the weights of all heads in one matrix, `qkv`. Its rows are first all of $W_q$, then all of $W_k$,
# then all of $W_v$. Within each third, the rows of head 0 come first, then those of head 1, and so on. Write
# the function that gives every head its own $W_q$ and $W_k$.


# %% tags=["exercise"]
def split(qkv, heads):
    """w_q and w_k, each [head, d_head, d_model], from qkv [3 · head · d_head, d_model]."""
    d_head = len(qkv) // (3 * heads)  # solution
    w_q, w_k, _ = qkv.unflatten(0, (3, heads, d_head))  # solution
    return w_q, w_k  # solution


# %% tags=["check"]
check.split(split)

# %% [markdown]
# :::{dropdown} Hint 1
# How many rows has `qkv`, and how many of them belong to one head's queries?
# :::
#
# :::{dropdown} Hint 2
# `unflatten(0, sizes)` splits the first dimension into several. The slowest one comes first.
# :::
#
# :::{dropdown} What you should see
# Two lines with a tick: one for queries, one for keys.
# :::

# %% [markdown] tags=["solution"]
# :::{dropdown} What it means
# Two orders have the same shape: head by head, and number by number. Only one of them is the model. The scores
# of a wrong order look like attention, too. So compare with the model's own queries before you decompose.
# :::

# %% [markdown]
# ### Exercise 1.2. Modes without an SVD
#
# *Medium, 20 minutes. Trains: what the two families of directions are.*
#
# You have `torch.linalg.eigh`, and no SVD. The right singular vectors of $M$ are the eigenvectors of
# $M^\top M$, and its eigenvalues are $\sigma_n^2$. Write a function that gives the modes of a head.


# %% tags=["exercise"]
def modes(w_q, w_k):
    """u [mode, d_model], sigma [mode], v [mode, d_model]: d_head modes, the strongest first."""
    interaction = w_q.T @ w_k
    squares, directions = torch.linalg.eigh(interaction.T @ interaction)  # solution
    sigma = squares.flip(0)[: len(w_q)].sqrt()  # solution
    v = directions.T.flip(0)[: len(w_q)]  # solution
    return v @ interaction.T / sigma[:, None], sigma, v  # solution


# %% tags=["check"]
check.modes(modes)

# %% [markdown]
# :::{dropdown} Hint 1
# `eigh` gives the smallest eigenvalue first, and the eigenvectors as columns. You need the last `d_head`.
# :::
#
# :::{dropdown} Hint 2
# Don't take $u$ from the eigenvectors of $MM^\top$: an eigenvector has no sign. Compute $u_n = M v_n / \sigma_n$.
# :::
#
# :::{dropdown} What you should see
# Four ticks: two families are orthonormal, strengths fall, and the modes add up to $M$.
# :::

# %% [markdown] tags=["solution"]
# :::{dropdown} What it means
# The two directions of a mode are a pair. Turn the sign of both and the mode is the same; turn one and it is
# another. Squaring has a price. A strength of $10^{-8}$ of the largest is lost, since its square is rounding.
# This is why the book takes the thin factorisation.
# :::

# %% [markdown]
# ### Exercise 1.3. Attention from modes
#
# *Medium, 15 minutes, predict first. Trains: scores, temperature and softmax.*
#
# Somebody forgets to divide the scores by $\sqrt{d_\text{head}}$. Is the attention then *sharper* or *flatter*?
# Write down your prediction. Then compute attention from modes. The head has no biases, so there is no $\kappa$.

# %% tags=["exercise"]
# "sharper" or "flatter"
prediction = "sharper"  # solution


def attention(tokens, u, sigma, v):
    """Attention [query, key] from tokens [token, d_model] and all modes of a head."""
    scores = (tokens @ u.T * sigma) @ (tokens @ v.T).T  # solution
    return (scores / len(sigma) ** 0.5).softmax(-1)  # solution


# %% tags=["check"]
check.attention(attention, prediction)

# %% [markdown]
# :::{dropdown} Hint 1
# Project the tokens on all query directions: `tokens @ u.T` is [token, mode].
# :::
#
# :::{dropdown} Hint 2
# The head has as many modes as a query has coordinates. So `len(sigma)` is `d_head`.
# :::
#
# :::{dropdown} What you should see
# Three ticks. The last one compares with timm's own attention. "Sharper" was right.
# A tick only says that you made a prediction.
# :::

# %% [markdown] tags=["solution"]
# :::{dropdown} What it means
# Without the division the attention is *sharper*. All logits grow by $\sqrt{d_\text{head}}$, as if the
# temperature fell. The order of the keys stays. So a map can look right, and every number in it be wrong.
# :::

# %% [markdown]
# ### Exercise 1.4. The same head in disguise
#
# *Hard, 20 minutes, in pairs. Trains: what belongs to a head, and what does not.*
#
# One of you takes the head of this page and disguises it: other matrices, same head. Or not the same: it is
# your choice. The other one has to tell. Change roles. Then write a function that always tells.


# %% tags=["exercise"]
def same_head(one, other):
    """Whether two pairs (w_q, w_k) give every two tokens the same score."""
    first, second = (w_q.T @ w_k for w_q, w_k in (one, other))  # solution
    return bool(abs(first - second).max() <= 1e-9 * abs(first).max())  # solution


# %% tags=["check"]
check.same_head(same_head)

# %% [markdown]
# :::{dropdown} Hint 1
# Look again at the five quantities of *What belongs to the head?*.
# :::
#
# :::{dropdown} Hint 2
# Equal singular values are not enough. Turn all tokens by a rotation: which scores do you get?
# :::
#
# :::{dropdown} What you should see
# Six ticks: three disguises of one head, and three other heads.
# :::

# %% [markdown] tags=["solution"]
# :::{dropdown} What it means
# For tokens of any kind, the scores of a head are its matrix $M$. Equal strengths are necessary, not enough: a head and its
# opposite share them. $M$ is compared up to rounding, since a change of coordinates costs some digits.
# :::

# %% [markdown]
# ### Exercise 1.5. A token that likes itself
#
# *Easy, 10 minutes, with the view. Trains: reading a mode as a rotation.*
#
# Go back to the view of the two-dimensional head. Leave $u_0$ at 0°, make the strengths equal, and mirror the
# second pair. Turn $v_0$ until token $z_2$ attends most to itself. Which angle of $v_0$ do you read, in degrees?

# %% tags=["exercise"]
angle = 90  # solution

# %% tags=["check"]
check.itself(angle)

# %% [markdown]
# :::{dropdown} Hint 1
# Choose $z_2$ as the token that asks, and watch where its grey arrow points.
# :::
#
# :::{dropdown} Hint 2
# With $v_0$ at 0°, the favourite of $z_2$ is its mirror image, $z_{14}$. How far is it from there to $z_2$?
# :::
#
# :::{dropdown} What you should see
# Two ticks. In the view, $z_2$ and one more token have their arrow on themselves.
# :::

# %% [markdown] tags=["solution"]
# :::{dropdown} What it means
# A mirrored pair is a reflection. It keeps the two tokens on its axis: $z_2$ and $z_{10}$, on opposite
# sides. The axis turns half as fast as $v_0$. So one head can hold both, tokens that like themselves
# and tokens that like their opposite.
# :::

# %% [markdown]
# ## Quiz
#
# Choose an answer: each one says why it is right or wrong.
#
# **1. Which of these belongs to a head, whatever the coordinates of its queries?**
#
# :::{dropdown} The first coordinate of a query
# :class-container: option
# No. Another basis gives another first coordinate, and the same scores.
# :::
#
# :::{dropdown} The singular values of $W_q W_k^\top$
# :class-container: option
# No. Its eigenvalues belong to the head, but its singular values change with the basis.
# :::
#
# :::{dropdown} The singular values of $W_q^\top W_k$
# :class-container: option right
# Right. This product is $M$, which gives the scores.
# :::
#
# **2. What does $u_0 \cdot v_0 = -0.9$ say about the strongest mode?**
#
# :::{dropdown} The mode is weak
# :class-container: option
# No. How strong it is, $\sigma_0$ says. The cosine says how alike question and answer are.
# :::
#
# :::{dropdown} A token that has much of $u_0$ looks for tokens that are unlike it
# :class-container: option right
# Right. It looks for much of $v_0$, which is nearly the opposite of $u_0$.
# :::
#
# :::{dropdown} Tokens avoid each other
# :class-container: option
# No. A token is looked for all the same: by tokens that have what it lacks.
# :::
#
# **3. Which bias can you leave out without changing attention?**
#
# :::{dropdown} The query bias $b_q$
# :class-container: option
# No. It adds $b_q \cdot W_k z_j$ to the score, which differs from key to key.
# :::
#
# :::{dropdown} The key bias $b_k$
# :class-container: option right
# Right. Its terms are the same for all keys of a query, and the softmax ignores such a number.
# :::
#
# :::{dropdown} Both biases
# :class-container: option
# No. The paper argues so, but the argument holds for $b_k$ alone.
# :::

# %% [markdown]
# ## Did we reproduce it?
#
# The identities (the score as a bilinear form, the sum of modes, exact rebuilding) are algebra. They were
# checked above with their thresholds. The first row of the table is a check of algebra too: what moves there
# is rounding. All other rows could have turned out otherwise. A share of attention that moves is never below zero, but
# it can lie inside the margin.
#
# *None larger than 0.02* means that the whole interval lies below 0.02: a larger effect would have shown. The words in
# brackets say on which side of zero it lies. *Seen
# afterwards* means that we asked after we had seen the numbers.

# %% tags=["hide-input"]
seen_by_it = "photographs" if IMAGES or not is_embedded(model) else "drawn scenes"
here = {"subject": f"{model.name}, {seen_by_it}", "over": f"{count} pictures"}
trained_here = {"subject": f"{len(trained)} training goals, drawn scenes"}
trained_here["over"] = f"{least_runs} runs"
real_ones = {"subject": "real models, photographs", "over": f"{len(real)} models"}
real_bias = statistics.over_runs(
    [float(table.sel(removed="bias").mean()) for table in elsewhere.values()]
)
judge = ledger.claim
no_key = "Leaving out the key bias moves no attention."
no_query = "Leaving out the query bias moves no attention."
paper = {"direction": -1, "measure": "attention moved", "said_by": "paper"}
ours = {"direction": 1, "measure": "attention moved", "more": "null 0"}
here["form"] = trained_here["form"] = real_ones["form"] = SHARE
no_kappa = "Without key salience, attention moves."
no_mean = "Without the mean part of the queries, attention moves."
by_quarter = "The strongest quarter of the modes misplaces attention."
ledger.Rows(
    [
        judge(no_key, found["b_k"], **paper, **(here | {"form": "-.0e"})),
        judge(no_query, found["b_q"], **paper, **here),
        judge(no_query, real_bias, **paper, **real_ones),
        judge(no_kappa, over_seeds[0], **ours, **trained_here),
        judge(no_kappa, real_found, **ours, **real_ones),
        judge(no_mean, over_seeds[1], **ours, **trained_here, seen=True),
        judge(by_quarter, found["quarter"], **ours, **here),
    ]
)

# %% [markdown]
# ## What was found
#
# - **A query looks for what its modes say**: for tokens along $v_n$, as much as it has of $u_n$. The question
#   hardly matters where the projections on $u_n$ hardly vary, as in head {glue:text}`salient`.
# - **The paper's argument holds for half of the biases.** Without $b_k$, attention moves by
#   {glue:text}`moved_key`, which is rounding. Without $\kappa$, attention in real models moves by
#   {glue:text}`real_mean`. After their first layer, leaving out $b_q$ alone moves about as much. In embedded models it moves
#   by {glue:text}`seeds_kappa`.
# - **Modes and $\kappa$ are the whole attention**: rebuilt, it differs by {glue:text}`rebuilt_error:.0e`.
# - **A mode can act as key salience.** In head {glue:text}`salient` the mean of the queries is
#   {glue:text}`salient_ratio:.1f` times their standard deviation. Without the mean part of the queries,
#   attention in embedded models moves by {glue:text}`seeds_mean`.
# - **A quarter of the modes is enough** in {glue:text}`model`: they misplace {glue:text}`quarter_missing` of
#   the attention.
#
# Worth keeping: the coordinates of queries and keys are arbitrary, but modes belong to the head. Two thin
# factorisations give all modes.
#
# **Limits.** A decomposition describes a head. It does not say what causes a prediction. The real models are
# {glue:text}`real_count`, and their intervals are over models, not over pictures. The two heads side by side
# were chosen because they are extreme; the table covers all heads.
#
# **Further reading.** Query-key circuits in language models {cite}`elhage2021mathematical`; singular
# vectors of transformer weights {cite}`millidge2022singular`; why the strongest modes are the best
# approximation {cite}`eckart1936approximation`. Symbols: {ref}`notation`.
#
# **Next.** The model of this page was trained to find the odd object. Does it find it?
# {doc}`02_embedded_world` shows the scenes, and what the model really looks at.
