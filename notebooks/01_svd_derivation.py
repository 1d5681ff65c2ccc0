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
# A head of a vision transformer compares every token with every other one. This chapter takes that
# comparison apart into pairs of directions: one asks, one answers. It checks that nothing is lost on
# the way. The chapter reproduces section 3 of the paper {cite}`pan2024dissecting`: the score as a
# bilinear form, its singular value decomposition, and the cosine of a mode. Then the chapter puts
# back what the paper leaves out: LayerNorm and the biases.
#
# :::{admonition} Before you start
# **After this chapter you can**
# - say why the coordinates of queries and keys are arbitrary, and what about a head is not;
# - derive the modes of a head, and compute them without forming its large matrix;
# - tell from a mode's cosine whether a token looks for similar tokens or for something else;
# - rebuild a model's attention from modes, and say what is lost when a term is left out.
#
# **You need** matrices, dot products and softmax. You should have seen a transformer once. You need
# not know the singular value decomposition: we explain it.
#
# **Time**: 40 minutes to read, under a minute to run on a laptop, 20 minutes for the explorations,
# 90 minutes to teach. Runs with no GPU and no network.
# :::

# %% tags=["parameters", "hide-input"]
# MODEL: a name that qkutils.load takes, or the path of a checkpoint file
MODEL = "tiny-supervised"
# IMAGES: a folder of pictures; empty: drawn scenes,
# or photographs where the model was trained on them
IMAGES = ""
# IMAGE_SIZE: the side of the pictures that the model gets, in pixels; 0: as it is used by default
IMAGE_SIZE = 0
# MODELS: models whose stored numbers stand beside it; none: all that are stored
MODELS = []
# The head that this chapter takes apart
LAYER = 2
HEAD = 0

# %% tags=["hide-input"]
import timeit

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import torch
import xarray as xr

import qkutils as qk
from qkutils import models, passes, statistics, views
from qkutils.views import figures as plots
from qkutils.book import few_enough, pictures_for, stored, tell

# %% [markdown]
# ## A model and what it sees
#
# The repository contains a small model. It was trained on drawn scenes, to name the object that is
# the odd one out ({doc}`02_embedded_world` shows these scenes). The model runs anywhere, and we know
# its world exactly. The same lines work with any plain vision transformer: build the book with
# `make book MODEL=…`.

# %%
model = qk.load(MODEL, image_size=IMAGE_SIZE or None)
images = qk.pictures.images(IMAGES or pictures_for(model, 8), model, count=8)
pictures = qk.pictures.visible(model, images)
weights = model.heads  # every layer's W_q, W_k, biases and LayerNorm, stacked
layers, per_layer, d_head, d_model = weights.w_q.shape
tell(model=model.name, layers=layers, per_layer=per_layer)
tell(d_head=d_head, d_model=d_model)

# %% tags=["hide-input"] mystnb={"figure": {"name": "fig-scenes", "caption": "Eight of the pictures that this chapter uses, as the model sees them: after its own resize and crop."}, "image": {"alt": "Eight small pictures in two rows. By default each is a drawn scene of several like objects with one odd one, on a textured background."}}
fig, axes = plt.subplots(2, 4, figsize=(7.5, 3.8), layout="constrained")
for ax, picture in zip(axes.flat, pictures, strict=True):
    ax.imshow(picture)
    ax.set_axis_off()

# %% [markdown]
# (The function `tell` passes numbers from this run to the text. Nobody typed in a result.)
#
# The model of this page is {glue:text}`model`. It has {glue:text}`layers` layers of
# {glue:text}`per_layer` heads, with `d_model` = {glue:text}`d_model` and
# `d_head` = {glue:text}`d_head`. The model cuts a picture into a {term}`patch grid`. Each patch
# becomes a token. One or two {term}`prefix tokens <prefix token>` may stand before the patches. We
# run the pictures through the model once, and keep the tokens as they enter one layer.

# %%
stream = {}


def keep(layer, which, x):
    """Called once per layer, while the model runs over these few images."""
    stream[layer] = x.double()


passes.visit_layers(model, images, keep)
x = stream[LAYER]  # [image, token, d_model], at the block's input
z = passes.normalise(x, weights.ln_eps)  # each token with mean 0 and variance 1
list(x.shape)

# %% [markdown]
# The shape is images × tokens × `d_model`. Here `x` is the {term}`residual stream`. The array `z` holds
# the same tokens after LayerNorm has removed their mean and their scale. For now the head reads `z`,
# and we ignore LayerNorm's gain and shift and the biases. They come back below, and they matter.

# %% [markdown]
# ## A score is a bilinear form
#
# A head turns each token into a query $W_q z_i$ and a key $W_k z_j$, and scores the pair by their
# dot product. Written out, the two small matrices meet in the middle:
#
# $$
# s_{ij} = (W_q z_i) \cdot (W_k z_j) = z_i^\top W_q^\top W_k\, z_j = z_i^\top M z_j .
# $$
#
# So one matrix decides who looks for whom: $M = W_q^\top W_k$. It has `d_model` rows and columns,
# but rank at most `d_head`. Attention is then the softmax over $j$ of $s_{ij} / \sqrt{d_\text{head}}$.
#
# The library never forms this matrix. Here we form it once, to see that both ways of scoring agree.

# %%
w_q, w_k = weights.w_q[LAYER, HEAD].double(), weights.w_k[LAYER, HEAD].double()
M = w_q.T @ w_k
queries, keys = z @ w_q.T, z @ w_k.T  # [image, token, d_head]
by_dot_product = queries @ keys.mT
by_matrix = z @ M @ z.mT
tell(
    bilinear=float(abs(by_dot_product - by_matrix).max()),
    rank=int(torch.linalg.matrix_rank(M)),
)
list(M.shape), list(by_matrix.shape)

# %% [markdown]
# The two ways of scoring differ by {glue:text}`bilinear:.0e` at most, which is rounding. $M$ has
# {glue:text}`d_model` rows and columns, but its rank is {glue:text}`rank`. So the scores depend on
# {glue:text}`rank` directions for queries and {glue:text}`rank` for keys, and on no others.

# %% [markdown]
# ### Queries and keys are arbitrary, their product is not
#
# :::{admonition} Predict, then look
# :class: tip
# Take any invertible matrix $A$, and change the head to $W_q \leftarrow A^\top W_q$ and
# $W_k \leftarrow A^{-1} W_k$. Which of these five change: the queries, the scores, the matrix $M$, the
# singular values of $M$, the singular values of $W_q W_k^\top$?
# :::

# %%
torch.manual_seed(0)
A = torch.randn(d_head, d_head, dtype=torch.float64)
moved_q, moved_k = A.T @ w_q, torch.linalg.solve(A, w_k)
sigma_of = torch.linalg.svdvals
pairs = {
    "queries": (queries, z @ moved_q.T),
    "scores": (by_matrix, (z @ moved_q.T) @ (z @ moved_k.T).mT),
    "M": (M, moved_q.T @ moved_k),
    "σ of M": (sigma_of(M), sigma_of(moved_q.T @ moved_k)),
    "σ of W_q W_kᵀ": (sigma_of(w_q @ w_k.T), sigma_of(moved_q @ moved_k.T)),
}
for name, (before, after) in pairs.items():
    print(f"{name:<16}{float((after - before).norm() / before.norm()):10.1e}")

# %% [markdown]
# Each line is the size of the change, relative to what there was before.
#
# :::{dropdown} What the run says
# The queries change completely. So a picture of a single query coordinate shows nothing about the
# head. The scores, $M$ and its singular values stay the same, up to rounding. A quantity that depends
# on $M$ alone is {term}`basis-free`: it belongs to the head. The last line warns of a common mistake.
# The small matrix $W_q W_k^\top$ looks handy, but its singular values depend on the coordinates.
# :::

# %% [markdown]
# ## Two directions and a strength
#
# Which key direction does a head like best, and for which query direction? Among all unit vectors
# there is a pair $u_0, v_0$ that makes $u^\top M v$ largest. Call this largest value $\sigma_0$. Now
# look for the next best pair: $u_1$ has to be orthogonal to $u_0$, and $v_1$ to $v_0$. Its value is
# $\sigma_1$. Go on until nothing is left. This is the singular value decomposition. The directions
# $u_0, u_1, \dots$ are orthonormal, and so are $v_0, v_1, \dots$. The strengths fall:
# $\sigma_0 \ge \sigma_1 \ge \dots \ge 0$. Every matrix is a sum of such pairs:
#
# $$
# M = \sum_n \sigma_n\, u_n v_n^\top
# \qquad\text{so}\qquad
# s_{ij} = \sum_n \sigma_n\, (z_i \cdot u_n)\,(z_j \cdot v_n) .
# $$
#
# Read one term aloud: *a token that has much of $u_n$ looks for tokens that have much of $v_n$, and
# $\sigma_n$ says how hard*. That is a {term}`mode`. Its {term}`query direction` asks, its
# {term}`key direction` answers, and $\cos_n = u_n \cdot v_n$ tells how alike question and answer are.
#
# In two dimensions we can see a mode and move it. Below is a head with a strong and a weak mode.
# Sixteen tokens lie on a circle of radius √2. A vector of two coordinates has this length if the mean
# of its squared coordinates is 1. Drag the tips of $u_0$, which asks, and $v_0$, which answers. Grey
# arrows show each token's favourite direction for a key, $M^\top z$. The colours show the scores
# $z_q^\top M z$ of the token that asks. The map shows who attends to whom: the softmax of the scores
# divided by $\sqrt 2$.

# %%
views.two_dimensional(u0=0.0, v0=40.0, sigma=(1.5, 0.4))

# %% [markdown]
# Put $v_0$ on $u_0$. Now tokens look to their own side: the head **groups like with like**. Put $v_0$
# opposite to $u_0$. Now tokens look across: the head looks for **contrast**. A token with much of $u_0$
# has a long arrow. A token with little of $u_0$ asks for little.
#
# **Try it.**
# 1. Leave $u_0$ at 0°. The token $z_0$ lies on the far right, and $z_4$ at the top. Turn $v_0$ until
#    $z_0$ likes $z_4$ best and its grey arrow points straight up. Which cosine do you read, and what
#    does the last line say?
# 2. Turn $v_0$ further, to 180°. Where in the attention map is the bright band now?
# 3. Make $\sigma_1$ equal to $\sigma_0$. Turn $u_0$ and $v_0$ by the same angle. Which numbers change?
#    Then set both angles to 0° and mirror the second pair. Which tokens like themselves best, and
#    which like their opposite? The *weighted cosine* is the mean of the two cosines, weighted by
#    strength. What is it now?
#
# :::{dropdown} Answers
# 1. At 90° the cosine is 0. Tokens attend to neither similar nor dissimilar tokens.
# 2. The band lies eight places off the diagonal, which is half way round the circle. Each token
#    attends to the tokens opposite to it. The weighted cosine is −1.
# 3. No number changes. The mixture $(c\,u_0 + s\,u_1,\; c\,v_0 + s\,v_1)$ with $c^2 + s^2 = 1$ gives the
#    same $M$ as the pair $(u_0, v_0)$. Only the space that the two modes span is determined. Such a
#    mode is a {term}`degenerate mode`, and `qk.decompose` marks it. After mirroring, $z_0$ and $z_8$
#    like themselves best, while $z_4$ and $z_{12}$ like each other. The cosines are +1 and −1, and the
#    weighted cosine is 0. So an average can hide two strong and opposite modes.
# :::

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


# %%
u, sigma, v = thin_svd(w_q, w_k)
by_numpy = np.linalg.svd(M.numpy()).S[:d_head]
slow = timeit.repeat(lambda: np.linalg.svd((w_q.T @ w_k).numpy()), number=1)
thin = timeit.repeat(lambda: thin_svd(w_q, w_k), number=1)
missed = float((M - u.T @ torch.diag(sigma) @ v).norm() / M.norm())
tell(
    sigma_error=float(abs(by_numpy - sigma.numpy()).max() / by_numpy[0]),
    missed=missed,
    speedup=min(slow) / min(thin),
)
list(u.shape), list(sigma.shape), list(v.shape)

# %% [markdown]
# We compare with numpy's decomposition of the full matrix. The strengths agree to
# {glue:text}`sigma_error:.0e` of the largest one. The modes give $M$ back to {glue:text}`missed:.0e`.
# For this one head of {glue:text}`model` the thin way was {glue:text}`speedup:.1f` times as fast, on the
# machine that made this page. The gain grows with `d_model`: `make bench` measures it at the size of
# ViT-B.
#
# The library decomposes all heads at once. It checks every result against its head, and labels the
# result. `convention="paper"` stands for raw weights, which we have used so far.

# %%
parts = qk.decompose(model, convention="paper")
of_head = parts.sel(layer=LAYER, head=HEAD)
tell(
    agree=float(abs(of_head.sigma - sigma.numpy()).max() / sigma[0]),
    cos_first=float(of_head.cosine[0]),
)
parts[["sigma", "cosine"]]

# %% [markdown]
# For our head the library's strengths equal ours to {glue:text}`agree:.0e`. No axis has to be guessed:
# `sel(layer=…, head=…)` names it. The first mode of this head has cosine {glue:text}`cos_first:+.2f`.

# %% [markdown]
# ## What a head really sees
#
# :::{admonition} Predict, then look
# :class: tip
# A model's queries and keys have biases, $b_q$ and $b_k$. Before them stands a LayerNorm with a gain
# $g$ and a shift $\beta$. The paper drops both biases, because they would cancel in the softmax. For
# which of the two biases is that true? Suppose that we drop the other bias, and the shift, too. What
# share of a token's attention would move to other tokens?
# :::
#
# Three things stand between the residual stream and the scores: LayerNorm's normalisation, its gain
# $g$ and shift $\beta$, and the biases $b_q$ and $b_k$. The paper decomposes the raw weights and
# projects the raw stream $x$. We call this the convention `paper`. The model computes
#
# $$
# \big(W_q (g \odot z_i + \beta) + b_q\big) \cdot \big(W_k (g \odot z_j + \beta) + b_k\big) .
# $$
#
# Multiply out. The query has three parts and the key has three parts, so there are nine products:
#
# | | key part $W_k(g \odot z_j)$ | key part $W_k \beta$ | key part $b_k$ |
# |---|---|---|---|
# | query part $W_q(g \odot z_i)$ | depends on $i$ and $j$: **the bilinear form** | on $i$ alone: cancels | on $i$ alone: cancels |
# | query part $W_q \beta$ | on $j$ alone: **stays** | constant: cancels | constant: cancels |
# | query part $b_q$ | on $j$ alone: **stays** | constant: cancels | constant: cancels |
#
# A product that does not depend on $j$ adds the same number to a whole row of scores. The softmax does
# not see such a number. Every product with $b_k$ is of this kind, so $b_k$ drops out. The two products
# with $j$ alone stay, and one of them comes from $b_q$. What stays is
#
# $$
# z_i^\top \tilde M z_j + \kappa \cdot z_j , \qquad
# \tilde M = C\, G\, W_q^\top W_k\, G\, C , \qquad
# \kappa = C\, G\, W_k^\top (b_q + W_q \beta) ,
# $$
#
# with $G = \operatorname{diag}(g)$. The matrix $C$ subtracts a vector's mean. Normalised tokens have mean
# zero, $Cz = z$, so $C$ changes no score. It only removes from the directions a part that no token has.
# We call this the convention `exact`. The vector $\kappa$ gives the {term}`key salience`: how attractive
# a token is to *every* query, whatever the query asks. It has a part from $b_q$ and a part from $\beta$.

# %%
exact = qk.decompose(model, convention="exact")
few = images[:4]
# The model's own attention beside the softmax of all modes plus key salience
whole = qk.compare_attention(model, few, exact)
without = {
    "all of κ": qk.compare_attention(model, few, salience=[]),
    "b_q": qk.compare_attention(model, few, salience=["shift"]),
}
over = ["image", "head", "query"]
moved = {name: each.total_variation.mean(over) for name, each in without.items()}
moved_all, moved_bias = (float(values.mean()) for values in moved.values())
difference = float(whole.largest.max())
tell(rebuilt_error=difference, moved_all=moved_all, moved_bias=moved_bias)

# %% [markdown]
# We rebuilt attention from modes and key salience, without $b_k$. Every attention weight of every head
# equals the model's own to {glue:text}`rebuilt_error:.1e`. So modes and $\kappa$ are the whole story.
#
# Is this a quirk of one model? We repeat the measurement with one model for each training objective
# ({doc}`04_training_objective` explains them):

# %%
rows = {}
for name in models.family()[0].dropna():
    each = qk.load(name)
    four = qk.pictures.images(qk.world.pictures(0, 0, 4), each, count=4)
    error = qk.compare_attention(each, four).largest.max()
    bare = qk.compare_attention(each, four, salience=[]).total_variation.mean()
    rows[name] = {"rebuilding is off by": float(error), "moves without κ": float(bare)}
tell(worst_rebuilt=max(row["rebuilding is off by"] for row in rows.values()))
pd.DataFrame(rows).T.map("{:.1g}".format)

# %% [markdown]
# The first column says how far the rebuilt attention is from the model's own: at most
# {glue:text}`worst_rebuilt:.0e`. The second column says how much attention moves without $\kappa$. This
# number differs from model to model.
#
# To compare two rows of attention we use the *total variation*: half the sum of the absolute
# differences. It is the share of attention that we would have to move to turn one row into the other.
# It lies between 0 and 1. All means are over four pictures, all heads, and all tokens as queries,
# including prefix tokens.

# %% tags=["hide-input"] mystnb={"figure": {"name": "fig-salience", "caption": "How much attention moves when key salience is left out (solid), or only its part from the query bias (dashed). Black: the model of this page. Colours: real models, computed elsewhere. The table below says where their numbers come from."}, "image": {"alt": "Lines over depth: for each model, how much of a token's attention moves without key salience, and without its part from the query bias."}}
tables = stored.chosen("salience", MODELS)
elsewhere = {name: table.total_variation for name, table in tables.items()}
fig, ax = plt.subplots(figsize=(7, 3.6), layout="constrained")
black = {"color": "black", "marker": "."}
for values, style in zip(moved.values(), ["-", "--"], strict=True):
    plots.over_depth(ax, values, model.name if style == "-" else "", black, style)
for name, look in plots.looks(elsewhere).items():
    for removed, style in [("all", "-"), ("bias", "--")]:
        label = f"{name} (computed elsewhere)" if style == "-" else ""
        plots.over_depth(ax, elsewhere[name].sel(removed=removed), label, look, style)
ax.set(ylabel="attention that moves\n(mean total variation)", ylim=(0, 1))
_ = ax.legend(fontsize=8)

# %% [markdown]
# :::{dropdown} What the run says
# Look at {numref}`fig-salience`. In {glue:text}`model`, a token's attention moves by
# {glue:text}`moved_all:.2f` on average if we leave out $\kappa$. It moves by {glue:text}`moved_bias:.2f`
# if we leave out $b_q$ alone. So the paper's argument holds for $b_k$ and fails for $b_q$. How much that
# matters differs from model to model.
# :::

# %% tags=["hide-input"]
kept = ["images", "fingerprint", "code_version", "computed"]
rows = {
    name: {key: tables[name].attrs[key] for key in kept}
    | table.mean("layer").rename(removed="without").to_series().round(3).to_dict()
    for name, table in elsewhere.items()
}
real = [table.sel(removed="all") for table in elsewhere.values()]
real_means = [float(table.mean()) for table in real]
late = all(int(table.argmax("layer")) >= len(table) * 2 // 3 for table in real)
where = "the last third of their layers" if late else "layers that differ between them"
tell(real_least=min(real_means), real_most=max(real_means), real_where=where)
tell(tensors=stored.tensors(tables))
pd.DataFrame(rows).rename(index={"all": "moved without κ", "bias": "moved without b_q"})

# %% [markdown]
# The numbers in this table were *computed elsewhere*, on photographs, with this package. In the real
# models, between {glue:text}`real_least:.2f` and {glue:text}`real_most:.2f` of a token's attention depends
# on key salience. The convention `paper` drops this part. The loss is largest in
# {glue:text}`real_where`. {glue:text}`tensors`
#
# The decomposition itself is not wrong. Modes describe how a pair of tokens interacts, and $\kappa$ does
# not depend on the pair. But attention that is drawn from modes alone is not the attention of the model.

# %% [markdown]
# ### A mode on a picture
#
# What does the strongest mode of our head ask, and what answers? We use the convention `exact`. For
# each patch we plot $z_i \cdot u$ (how much it asks) and $z_j \cdot v$ (how much it answers). The sign
# of a mode is arbitrary: $(-u, -v)$ is the same mode. So you may swap the two colours, but only in both
# maps at once.
#
# :::{admonition} Predict, then look
# :class: tip
# The mode's cosine compares its two directions. Must the two maps of a picture then be alike if
# the cosine is positive, and opposite if it is negative?
# :::

# %%
strongest = exact.sel(layer=LAYER, head=HEAD, mode=0)
patches = z[:, model.prefix_tokens :].reshape(len(z), *model.grid, d_model).numpy()
asks = patches @ strongest.u.values  # [image, row, column]
answers = patches @ strongest.v.values
alike = [
    float(np.corrcoef(a.ravel(), b.ravel())[0, 1])
    for a, b in zip(asks, answers, strict=True)
]
tell(cos_strongest=float(strongest.cosine))
tell(least_alike=min(alike), most_alike=max(alike))

# %% tags=["hide-input"] mystnb={"figure": {"name": "fig-mode", "caption": "The strongest mode of one head on five pictures. Top: the pictures. Middle: how much each patch asks. Bottom: how much each patch answers. One colour scale for all maps."}, "image": {"alt": "Three rows of five panels: pictures, and under them the maps of the query projection and of the key projection of the strongest mode, with one colour bar."}}
fig, axes = plt.subplots(3, 5, figsize=(7.5, 4.5), layout="constrained")
limit = float(max(abs(asks).max(), abs(answers).max()))
for column in range(5):
    axes[0, column].imshow(pictures[column])
    axes[0, column].set(xticks=[], yticks=[])
    plots.token_map(axes[1, column], asks[column], limit=limit)
    drawn = plots.token_map(axes[2, column], answers[column], limit=limit)
for ax, label in zip(
    axes[:, 0], ["picture", "asks: z · u", "answers: z · v"], strict=True
):
    ax.set_ylabel(label)
_ = fig.colorbar(drawn, ax=axes, label="projection of the normalised token", shrink=0.7)

# %% [markdown]
# Take a patch that is dark in the middle row of {numref}`fig-mode`. It looks for patches that are dark,
# in the same colour, in the bottom row. If a whole middle map has one colour, all its patches ask the
# same question. There the mode works much like key salience: all patches prefer the same keys.
#
# :::{dropdown} What the run says
# No. The cosine of this mode is {glue:text}`cos_strongest:+.2f`. The correlation of the two maps lies
# between {glue:text}`least_alike:+.2f` and {glue:text}`most_alike:+.2f` over the eight pictures. The cosine
# depends on the weights alone, and tokens do not fill all directions evenly. The cosine says what a
# mode *would* relate if tokens lay in all directions. The maps say what it relates in these pictures.
# :::

# %% [markdown]
# ## How many modes carry a head?
#
# A head of this model has `d_head` modes. Do we need all of them? We rebuild attention from the first
# $k$ modes of each head, always with $\kappa$, and see what is missing.
#
# :::{admonition} Predict, then look
# :class: tip
# Take the strongest quarter of a head's modes. What share of its squared strength,
# $\sum_n \sigma_n^2$, do they hold? And what share of its attention do they put in the right place?
# :::

# %%
quarter = d_head // 4
counts = sorted({0, 1, 2, 4, 8, quarter, d_head // 2, d_head})
first = {k: exact.isel(mode=slice(k)) for k in counts}
compared = [qk.compare_attention(model, few, some) for some in first.values()]
missing = [each.total_variation.mean(over) for each in compared]
missing = xr.concat(missing, pd.Index(counts, name="modes"))
held = (exact.sigma**2).cumsum("mode") / (exact.sigma**2).sum("mode")
tell(
    quarter=quarter,
    quarter_kept=float(held.sel(mode=quarter - 1).mean()),
    quarter_missing=float(missing.sel(modes=quarter).mean()),
    none_missing=float(missing.sel(modes=0).mean()),
)

# %% tags=["hide-input"] mystnb={"figure": {"name": "fig-count", "caption": "What the first k modes leave out. Left: the share of a head's squared strength that they miss, mean and range over heads. Right: the share of attention that they misplace, per layer, with key salience kept."}, "image": {"alt": "Two panels over the number of modes kept, both falling to zero when all modes are kept. Left, missing squared strength. Right, misplaced attention, one line per layer."}}
fig, (left, right) = plt.subplots(1, 2, figsize=(7.5, 3.3), layout="constrained")
gone, blue = 1 - held.stack(any_head=("layer", "head")), plots.PALETTE[0]
left.plot(gone.mode + 1, gone.mean("any_head"), color=blue)
least, most = gone.min("any_head"), gone.max("any_head")
left.fill_between(gone.mode + 1, least, most, color=blue, alpha=0.2)
left.set(ylabel="squared strength left out")
for layer, shade in enumerate(plots.shades(layers)):
    of_layer = missing.sel(layer=layer)
    right.plot(counts, of_layer, "-o", ms=3, color=shade, label=f"layer {layer}")
right.set(ylabel="attention misplaced\n(mean total variation)")
for ax in (left, right):
    ax.set(xlabel="modes kept", ylim=(0, 1), xscale="symlog")
    ax.set(xticks=counts, xticklabels=counts, xlim=(-0.2, 1.1 * d_head))
_ = right.legend(fontsize=7, ncols=2)

# %% [markdown]
# :::{dropdown} What the run says
# On average over heads, the first {glue:text}`quarter` modes hold {glue:text}`quarter_kept:.2f` of the
# squared strength. With these modes, {glue:text}`quarter_missing:.2f` of the attention is misplaced. With
# key salience and no mode at all, {glue:text}`none_missing:.2f` is misplaced. A strong mode is not always
# a used mode: tokens may have little along its $u_n$ and $v_n$.
# :::

# %% tags=["hide-input"]
rows, columns = model.grid
patch = rows // 2 * columns + columns // 2  # one in the middle, in reading order
one = images[:1]


def map_of(attention):
    """Where the patch attends, from [layer, image, head, query, key]."""
    return plots.patch_attention(attention[LAYER, 0, HEAD], patch, model)


maps = {str(k): map_of(qk.rebuild_attention(model, one, first[k])) for k in counts}
maps["the model"] = map_of(qk.observed_attention(model, one))


# %% tags=["hide-input"]
top = max(float(m.max()) for m in maps.values())
titles = {name: f"{name} modes + κ" if name.isdigit() else name for name in maps}
scene = pictures[0]
frames = [plots.attention_frame(maps[n], scene, patch, top, titles[n]) for n in maps]
what = "Attention of the framed patch, rebuilt with this many modes: {}."
views.stepper(frames, list(maps), [what.format(name) for name in maps], "modes kept")

# %% [markdown]
# Step from no mode to all modes, and then to the model itself. With no mode, the framed patch attends
# exactly as every other patch does, because key salience does not depend on the query. With all modes,
# the map is the model's own.
#
# **Try it.** From which step on do you recognise the final map? Open the chapter as a notebook
# (`make lab`), and set `LAYER` and `HEAD` to another head. Does this head need more modes?

# %% tags=["hide-input"]
source = IMAGES or pictures_for(model, 24)
there = range(min(24, len(qk.pictures_of(source, model).keys)))
count = len(few_enough(model, there, passes=2, besides=90))
several = qk.pictures.images(source, model, count)
without_b_q = qk.compare_attention(model, several, salience=["shift"])
by_picture = without_b_q.total_variation.mean(["layer", "head", "query"])
of_bias = statistics.bootstrap(by_picture)
tell(
    bias=statistics.text(of_bias),
    verdict_svd=statistics.verdict_of_identity(missed, 1e-9),
    verdict_bias=statistics.verdict(of_bias, 1, "attention moved"),
    verdict_exact=statistics.verdict_of_identity(difference, 2e-5),
)

# %% [markdown]
# ## Did we reproduce it?
#
# | claim | this run | verdict |
# |---|---|---|
# | Section 3: a head's scores are $x_i^\top W_q^\top W_k x_j$, and the SVD splits them into modes | the two ways of scoring differ by {glue:text}`bilinear:.0e`; modes give $M$ back to {glue:text}`missed:.0e` | {glue:text}`verdict_svd` |
# | Section 3: biases may be dropped, since they cancel: $b_k$ | the rebuilding never uses $b_k$, and it is exact | {glue:text}`verdict_exact` |
# | (ours) without $b_q$, attention moves | by {glue:text}`bias`, mean over pictures | {glue:text}`verdict_bias` |
# | (ours) modes and key salience are the whole attention | largest difference {glue:text}`rebuilt_error:.1e` | {glue:text}`verdict_exact` |

# %% [markdown]
# ## What to remember
#
# - A head compares tokens through one matrix. The coordinates of its queries and keys are arbitrary.
#   The matrix, its modes and its cosines belong to the head.
# - A mode is a question, an answer and a strength. Cosine near 1: a token looks for similar tokens.
#   Near 0: for something unrelated. Below 0: for the opposite.
# - Two thin factorisations give all modes. The large matrix is never needed.
# - Modes tell how pairs interact. Key salience adds what every query prefers, whatever it asks.
#   Attention is the softmax of their sum.
#
# **Limits.** Modes are ordered by $\sigma$. It says how strong a mode could be, and not how much the
# model uses it. A decomposition describes a head. It does not say what causes a prediction.
#
# **Further reading.** Query-key circuits in language models {cite}`elhage2021mathematical`; singular
# vectors of transformer weights {cite}`millidge2022singular`; why the strongest modes are the best
# approximation {cite}`eckart1936approximation`. Symbols: {ref}`notation`.
#
# **Next.** {doc}`02_embedded_world` shows the small world in which the models of this book live, and what one of them
# has learned.
