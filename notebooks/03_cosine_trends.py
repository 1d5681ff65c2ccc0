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
# (ch-trends)=
# # Do tokens attend to tokens like themselves? Cosine trends over depth
#
# One number per head tells whether its modes look for similar or for different tokens. This chapter
# follows the number from the first layer to the last, for every model at hand. It reproduces figures 3,
# S1 and S2 of the paper {cite}`pan2024dissecting`. Next to every value stands what chance would give. The
# published figures need a correction here.
#
# :::{admonition} Before you start
# **After this chapter you can**
# - compute a head's weighted cosine in two ways, with and without singular vectors;
# - say how large a cosine must be to mean anything, for a single mode and for a mean;
# - read a trend over depth with an interval, and say what it does not show;
# - tell which conclusions depend on whether LayerNorm is left out.
#
# **You need** chapter 1, {doc}`01_svd_derivation`: modes, cosines, the conventions `paper` and
# `exact`. Mean and standard deviation.
#
# **Time**: 30 minutes to read, under a minute to run on a laptop, 20 minutes for the explorations,
# 60 minutes to teach. Runs with no GPU and no network.
# :::

# %% tags=["parameters", "hide-input"]
# MODEL: a name that qkutils.load takes, or the path of a checkpoint file
MODEL = "tiny-supervised"
# IMAGES: a folder of pictures, for the one section that needs them;
# empty: drawn scenes, or photographs where the model was trained on them
IMAGES = ""
# IJEPA: the whole path of the authors' file IN1K-vit.h.14-300e.pth.tar, for figure S3 alone
IJEPA = ""
# IMAGE_SIZE: the side of the pictures that the model gets, in pixels; 0: as it is used by default
IMAGE_SIZE = 0
# MODELS: models to compare it with, at hand or stored; none: all that are
MODELS = []

# %% tags=["hide-input"]
import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import torch

import qkutils as qk
from qkutils import heads, models, modes, statistics, views
from qkutils.views import figures as plots
from qkutils.book import few_enough, live, pictures_for, stored, tell

# %% [markdown]
# ## One number for a head
#
# A head has `d_head` modes, each with a strength $\sigma_n$ and a cosine $\cos_n = u_n \cdot v_n$.
# Strong modes shape the scores more, so the paper weights the cosines by strength:
#
# $$
# \overline{\cos} = \frac{\sum_n \sigma_n \cos_n}{\sum_n \sigma_n} .
# $$
#
# Near 1 the head groups like with like. Below 0 it looks for contrast. Near 0 there are two
# possibilities: the modes relate things that have nothing to do with each other, or grouping and
# opposing modes cancel. The number can't tell them apart.

# %%
model = qk.load(MODEL, image_size=IMAGE_SIZE or None)
parts = qk.decompose(model, convention="paper")
the_long_way = parts.cosine.weighted(parts.sigma).mean("mode")  # (layer, head)
tell(model=model.name)  # hands the name to the text below: nothing there is typed in
the_long_way.to_pandas().round(2)

# %% [markdown]
# Rows are layers, columns are heads of {glue:text}`model`.
#
# ### The same number without a single singular vector
#
# The sum on top is a trace, the sum of a matrix's diagonal entries, since
# $u \cdot v = \operatorname{tr}(u v^\top)$. Put the decomposition in, and write the product out with
# $(W_q)_{ec}$ for the entry in row $e$ and column $c$:
#
# $$
# \sum_n \sigma_n\, u_n \cdot v_n = \operatorname{tr} \sum_n \sigma_n\, u_n v_n^\top
# = \operatorname{tr} M = \operatorname{tr} W_q^\top W_k = \sum_{e,c} (W_q)_{ec} (W_k)_{ec} .
# $$
#
# So the numerator is the sum of products of the entries of the two matrices. The denominator, the
# sum of all strengths, is called the nuclear norm of $M$:
#
# $$
# \overline{\cos} = \frac{\langle W_q, W_k \rangle}{\lVert M \rVert_*} .
# $$
#
# No directions, so no signs to fix and no {term}`degenerate mode` to worry about.

# %%
weights = model.heads
trace = (weights.w_q.double() * weights.w_k.double()).sum((-1, -2)).numpy()
closed_form = trace / parts.sigma.sum("mode")  # (layer, head)
weighted = qk.weighted_cosine(model, convention="paper")  # the library's own
tell(
    long_way_error=float(abs(the_long_way - weighted).max()),
    closed_error=float(abs(closed_form - weighted).max()),
)
list(closed_form.shape)

# %% [markdown]
# The library's value differs by {glue:text}`long_way_error:.0e` from the mean over modes, and by
# {glue:text}`closed_error:.0e` from the closed form.
#
# ## What chance would give
#
# :::{admonition} Predict, then look
# :class: tip
# Take two random directions in 768 dimensions, the width of ViT-B. How large is their cosine,
# typically? Would you call a mode with cosine 0.15 a grouping mode? And in 96 dimensions?
# :::

# %%
widths = [96, 192, 384, 768, 1024, 1280]
generator = torch.Generator().manual_seed(0)
pairs = {d: torch.randn(2, 4000, d, generator=generator) for d in widths}
simulated = {
    d: float(torch.cosine_similarity(a, b).abs().quantile(0.95))
    for d, (a, b) in pairs.items()
}
table = pd.DataFrame(
    {"simulated": simulated, "1.96 / √d": {d: 1.96 / d**0.5 for d in widths}}
)
tell(published=float(np.sin(0.123)), wide=simulated[768], narrow=simulated[96])
table.rename_axis(columns="d").round(3)

# %% [markdown]
# :::{dropdown} What the table says
# In 768 dimensions 95 of 100 random cosines lie within ±{glue:text}`wide:.3f`: there, 0.15 is far more
# than chance. In 96 dimensions the same band is ±{glue:text}`narrow:.3f`, and 0.15 is nothing special.
# :::
#
# The cosine of two random directions has mean 0 and standard deviation $1/\sqrt{d}$, where $d$ is
# the number of dimensions. In more dimensions, random directions are closer to a right angle. So 95 % of
# random cosines lie within $\pm 1.96/\sqrt{d}$, the {term}`null band`. A cosine inside the band may be
# chance.
#
# The published figures have a different band. The authors' code fixes it at ±0.123 radians around a right
# angle, for every model. That is a cosine of ±{glue:text}`published:.3f`, which fits about 255 dimensions.
# For 384 dimensions and more, the published band is too wide, and hides modes that do say something. For
# 192 it is too narrow. The published code also has lines that would compute the band. They draw uniform
# numbers where normal ones are needed, they build the second vector from the first, and they take the 99th
# percentile where the caption says 95.
#
# ### Chance for a mean
#
# A weighted mean of many cosines varies less than a single cosine. How much less? That depends on how many
# modes carry the weight. Suppose that a head keeps its strengths, and its directions are random. Then the
# standard deviation of the mean is $\sqrt{\sum_n \sigma_n^2} \,/ \sum_n \sigma_n$ times that of one cosine.
# For $m$ equal strengths this factor is $1/\sqrt{m}$. For a single strong mode it is 1.

# %%
band = qk.null_band(model, convention="paper")  # (layer,): 95 % of single cosines
head_sd = modes.null_from_strengths(parts.sigma, band)  # (layer, head)
layer_band = modes.null_of_layers(parts.sigma, band)  # 95 % of means over heads
# With the strengths of random weights
random_sd = qk.null_weighted_cosine(model, convention="paper", draws=1000)
outside = abs(parts.cosine) > band  # (layer, head, mode)
tell(
    band=float(band[0]),
    head_sd_mean=float(head_sd.mean()),
    layer_band_mean=float(layer_band.mean()),
    random_sd=float(random_sd[0]),
    share_outside=float(outside.mean()),
)

# %% [markdown]
# For {glue:text}`model` the band of a single cosine is ±{glue:text}`band:.3f`. By chance alone, a head's
# weighted cosine has a standard deviation of {glue:text}`head_sd_mean:.3f`, on average over heads. By chance
# alone, the mean of a layer falls within ±{glue:text}`layer_band_mean:.3f` in 95 of 100 cases.
#
# Heads with *random weights* of the same shape would vary by {glue:text}`random_sd:.3f` only. Their strengths
# are even, and those of trained heads are not. We use the wider band.

# %% [markdown]
# ## The modes, layer by layer
#
# Now we look at the cosines themselves, as in figure S1: all modes of all heads of a layer. If directions
# were random, 95 % of the cosines would lie in the grey band.
#
# :::{admonition} Predict, then look
# :class: tip
# Will most modes of a trained layer lie outside the band, or only a few?
# :::

# %% tags=["hide-input"]
frames, texts = [], []
for layer in parts.layer.values:
    share = float(outside.sel(layer=layer).mean())
    title = f"layer {layer}: {share:.0%} of the modes lie outside the band"
    of_layer = parts.cosine.sel(layer=layer)
    frames.append(plots.layer_histogram(of_layer, float(band.sel(layer=layer)), title))
    texts.append(f"Histogram of the cosines of all modes; {title}.")
views.stepper(frames, list(parts.layer.values), texts, "layer")

# %% [markdown]
# Step through the layers.
#
# :::{dropdown} What the run says
# Over the whole model {glue:text}`share_outside:.2f` of the modes lie outside the band, where chance
# would leave 0.05.
# :::
#
# **Try it.** In which layer do the cosines lean to the right, and in which to the left? Is there a layer with
# many cosines on both sides of the band, so that its mean hides them?
#
# A histogram does not show which modes are strong. The paper's figure S2 does: it shows single heads, with
# strengths as bars and cosines as dots.

# %% tags=["hide-input"] mystnb={"figure": {"name": "fig-spectrum", "caption": "Strength (bars, as a share of the largest) and cosine (dots) of every mode of one head, in the first, a middle and the last layer. Between the dashed lines lie 95 % of random cosines."}, "image": {"alt": "Three panels, one head each from an early, a middle and a late layer: bars of falling strength, with a dot for the cosine of each mode, and two dashed lines around zero."}}
chosen = [0, parts.sizes["layer"] // 2, parts.sizes["layer"] - 1]
fig, axes = plt.subplots(1, 3, figsize=(7.5, 3), sharey=True, layout="constrained")
for ax, layer in zip(axes, chosen, strict=True):
    one = parts.sel(layer=layer, head=0)
    plots.spectrum(ax, one.sigma, one.cosine, plots.PALETTE[1])
    for edge in (-float(band[layer]), float(band[layer])):
        ax.axhline(edge, color="0.3", lw=0.8, ls="--")
    ax.set_title(f"layer {layer}, head 0")
axes[0].set_ylabel("strength, cosine")
_ = axes[0].legend(fontsize=8, loc="lower right")

# %% [markdown]
# In {numref}`fig-spectrum`, look at the strong modes on the left of each panel first: they carry the
# weighted cosine. A dot far from the band counts for little if its bar is short.

# %% [markdown]
# ## The trend
#
# Figure 3 of the paper shows the weighted cosine over depth, as a mean over the heads of a layer. We draw
# the embedded models, one for each training objective ({doc}`04_training_objective` explains them). We
# also draw real models that are at hand, or whose numbers are stored.
#
# The paper finds that the curve falls with depth in models that were trained to classify. One curve can
# tell many stories. So we fix our questions before we look:
#
# 1. *Does it fall?* The mean over the last third of the layers minus that over the first third.
# 2. *Does it rise again?* The last layer minus the mean over the middle third.
# 3. *Does it end below zero?* The mean over the last third.
#
# Each answer is a number with an interval from the bootstrap. We draw the heads of each layer again, with
# replacement, and compute the number again. The interval is the middle 95 % of many such draws.
#
# :::{admonition} Predict, then look
# :class: tip
# Our small model was trained to name the *odd* object among similar ones. Will its curve fall? In which
# layers should it look for contrast? And what about the real classifiers?
# :::

# %% tags=["hide-input"]
others = {name: of for name, of in live(MODELS).items() if name != model.name}
curves = {model.name: weighted} | {
    name: qk.weighted_cosine(of, convention="paper") for name, of in others.items()
}
tables = stored.chosen("modes", MODELS and [*MODELS, *curves])
by_stored = {n: t.cosine.weighted(t.sigma).mean("mode") for n, t in tables.items()}
stored_only = {
    n: v.sel(convention="paper") for n, v in by_stored.items() if n not in curves
}
everything = curves | stored_only
looks = plots.looks(everything)

# %% tags=["hide-input"] mystnb={"figure": {"name": "fig-trend", "caption": "Weighted cosine over depth, convention paper. Lines: mean over heads; dots: heads of models at hand. The grey band holds 95 % of the layer means that random directions would give the model of this page."}, "image": {"alt": "Curves of weighted cosine over relative depth for each model, with heads as dots and a grey null band around zero."}}
fig, ax = plt.subplots(figsize=(7.5, 5.6), layout="constrained")
plots.band(ax, layer_band, "random directions (95 %)")
for name, curve in everything.items():
    label = name if name in curves else f"{name} (computed elsewhere)"
    plots.trend(ax, curve, label, looks[name], dots=name in curves)
ax.set_ylabel("weighted cosine")
_ = fig.legend(fontsize=8, loc="outside lower center", ncols=2)

# %% tags=["hide-input"]
answers = {
    "late − early": {n: statistics.late_minus_early(c) for n, c in everything.items()},
    "last − middle": {
        n: statistics.last_minus_middle(c) for n, c in everything.items()
    },
    "late": {n: statistics.late(c) for n, c in everything.items()},
}
own = {question: by_model[model.name] for question, by_model in answers.items()}
words = {-1: "falls", 0: "does not clearly change", 1: "rises"}
ends = {-1: "below zero", 0: "about zero", 1: "above zero"}
way, end = (int(statistics.sign(own[q])) for q in ("late − early", "late"))
tell(own_fall=words[way], own_contrast=statistics.text(own["late − early"]))
tell(own_end=ends[end], own_late=statistics.text(own["late"]))
told = {q: {n: statistics.text(c) for n, c in of.items()} for q, of in answers.items()}
pd.DataFrame(told).rename_axis(columns="estimate and 95 % interval")

# %% [markdown]
# :::{dropdown} What the run says
# In {numref}`fig-trend`, from the first to the last third, the curve of {glue:text}`model`
# {glue:text}`own_fall`, and its last third lies {glue:text}`own_end`. If an interval lies on one side of zero,
# it answers the question. If it covers zero, the question stays open. If the first number of a model is
# negative and the second is positive, its curve has a valley.
# :::
#
# Now explore the curves yourself. Choose a model: dots show its heads, and the grey band is its own null
# band. You can hide other models, change the convention, and read the values of any layer.

# %% tags=["hide-input"]
shown = [modes.trend(each) for each in (model, *others.values())]
shown += [tables[n].assign(weighted_cosine=by_stored[n]) for n in stored_only]
views.trends(shown)

# %% [markdown]
# **Try it.**
#
# 1. Find a layer whose mean lies outside the grey band although half of its heads lie on the other side of
#    zero.
# 2. Which model's curve changes most between the conventions, and in which layer?
# 3. Find a layer whose mean is near zero because its heads cancel. Would you call it neutral?
#
# Two warnings about the intervals. With three or four heads in a layer they are too narrow. And they say
# nothing about another training run, because heads of one network are not independent networks.
#
# Curves that are *computed elsewhere* come from tables in the repository, made with this package. Of a
# model that is at hand, the last row says by how much a head's weighted cosine differs at most:

# %% tags=["hide-input"]
kept = ["fingerprint", "code_version", "computed"]
rows = {name: {k: table.attrs[k] for k in kept} for name, table in tables.items()}
for name, row in rows.items():
    row["computed again here"] = "no"
    if name in curves:
        difference = abs(curves[name] - by_stored[name].sel(convention="paper")).max()
        row["computed again here"] = f"differs by {float(difference):.0e}"
tell(tensors=stored.tensors(tables))
pd.DataFrame(rows)

# %% [markdown]
# {glue:text}`tensors`
#
# Figure S3 lays I-JEPA's encoder beside its predictor, a second transformer of another width. Only
# the authors' file of 10 GB holds both. With `IJEPA: /path/to/IN1K-vit.h.14-300e.pth.tar` in
# `parameters.yaml`, below `03_cosine_trends:`, the command `make book PARAMETERS=parameters.yaml`
# draws the figure here; otherwise nothing follows.

# %% tags=["hide-input"] mystnb={"image": {"alt": "Two panels over depth, I-JEPA's encoder and its predictor: weighted cosine of every head as dots, their mean as a line, and a grey null band around zero in each."}}
if IJEPA:
    like = "vit_huge_patch14_gap_224.in1k_ijepa"
    encoder = qk.load(IJEPA, state_dict="encoder", like=like)
    predictor = models.predictor(IJEPA, num_heads=encoder.heads.w_q.shape[1])
    pair = [modes.trend(net).sel(convention="paper") for net in (encoder, predictor)]
    display(plots.trends_apart(pair))

# %% [markdown]
# ## What LayerNorm changes
#
# So far we used the convention `paper`: raw weights. But the head works on the normalised token, with
# LayerNorm's gain in its weights. This is the convention `exact`. Its band is wider: a gain that stretches
# some coordinates makes random directions less orthogonal.
#
# :::{admonition} Predict, then look
# :class: tip
# Could a layer attend to *similar* tokens in one convention and to *dissimilar* ones in the other?
# :::

# %% tags=["hide-input"]
both = {model.name: (weighted, qk.weighted_cosine(model, convention="exact"))}
for name, values in by_stored.items():
    both[name] = tuple(values.sel(convention=c) for c in heads.CONVENTIONS)
means = {n: (a.mean("head"), b.mean("head")) for n, (a, b) in both.items()}
shift = {n: float(abs(b - a).max()) for n, (a, b) in means.items()}
turned = {
    n: np.flatnonzero(np.sign(a) != np.sign(b)).tolist() for n, (a, b) in means.items()
}
tell(
    shift=shift[model.name],
    largest_shift=max(shift.values()),
    largest_shift_model=max(shift, key=shift.get),
    exact_band=float(qk.null_band(model, convention="exact").max()),
    turned="; ".join(f"{n}: {at}" for n, at in turned.items() if at) or "none",
)

# %% tags=["hide-input"] mystnb={"figure": {"name": "fig-conventions", "caption": "The curves in both conventions. Solid: paper, raw weights. Dashed: exact, with LayerNorm's gain and centring. Real models: computed elsewhere. The grey band belongs to the model of this page and the convention paper."}, "image": {"alt": "For each model a solid and a dashed curve of weighted cosine over depth, one for each convention."}}
fig, ax = plt.subplots(figsize=(7.5, 5), layout="constrained")
plots.band(ax, layer_band, "random directions (95 %)")
for name, (raw, folded) in means.items():
    plots.over_depth(ax, raw, f"{name}: paper", looks[name], "-")
    plots.over_depth(ax, folded, f"{name}: exact", looks[name], "--")
ax.set_ylabel("weighted cosine")
_ = fig.legend(fontsize=8, loc="outside lower center", ncols=2, handlelength=4)

# %% [markdown]
# :::{dropdown} What the run says
# In some layers the sign of the mean differs between the conventions: {glue:text}`turned`. (A mean inside the
# null band may change its sign by chance.) For such a layer, the statement "it attends to dissimilar tokens"
# depends on the convention. So always name the convention.
# :::
#
# For {glue:text}`model`, a layer's mean moves by {glue:text}`shift:.2f` at most; over all models in
# {numref}`fig-conventions` the largest move is {glue:text}`largest_shift:.2f`, in
# {glue:text}`largest_shift_model`. The null band of single cosines grows to
# ±{glue:text}`exact_band:.3f` in the layer with the most uneven gain.

# %% [markdown]
# ## What all tokens have in common
#
# Here is an objection. Suppose that all tokens of a layer point roughly the same way, whatever they show.
# Then a high cosine groups nothing. The paper measures this {term}`anisotropy`: the mean cosine between the
# centre tokens of different images (figure S4). It subtracts the anisotropy from the curve of its figure 3:
#
# $$ \mathrm{mean}_{a \neq b}\; \frac{x^{(a)} \cdot x^{(b)}}{\lVert x^{(a)} \rVert\, \lVert x^{(b)} \rVert}. $$
#
# :::{admonition} Predict, then look
# :class: tip
# LayerNorm removes the mean over coordinates, not the mean over tokens. Will the normalised tokens be
# less alike than those of the residual stream?
# :::

# %%
pictures = qk.pictures_of(IMAGES or pictures_for(model, 64), model)
every = max(len(pictures.keys) // 64, 1)
pictures = pictures.some(few_enough(model, pictures.keys[::every], passes=3))
alike = {
    convention: qk.scan(
        model, pictures, k=1, convention=convention, statistics=["anisotropy"]
    ).anisotropy
    for convention in heads.CONVENTIONS
}
less = weighted.mean("head") - alike["paper"]

# %% tags=["hide-input"]
tell(
    alike_first=float(alike["paper"][0]),
    alike_most=float(alike["paper"].max()),
    alike_exact=float(alike["exact"].max()),
    less_turn=float(less[-1] - less[0]),
    anisotropy_of=len(pictures.keys),
    own_turn=float(weighted.mean("head")[-1] - weighted.mean("head")[0]),
)

# %% tags=["hide-input"] mystnb={"figure": {"name": "fig-anisotropy", "caption": "Left: mean cosine between the centre tokens of different images, for the residual stream (convention paper) and for normalised tokens (exact). Right: the weighted cosine of the model, with and without the anisotropy of the residual stream subtracted, as in the paper's figure S4."}, "image": {"alt": "Two panels over depth: anisotropy in both conventions; the curve of weighted cosine with and without the anisotropy taken off."}}
fig, axes = plt.subplots(1, 2, figsize=(7.5, 3.2), sharey=True, layout="constrained")
styles = plots.looks([*alike, "less"])
for convention, values in alike.items():
    plots.over_depth(axes[0], values, convention, styles[convention])
plots.over_depth(axes[1], weighted.mean("head"), "weighted cosine", styles["paper"])
plots.over_depth(axes[1], less, "minus anisotropy", styles["less"], "--")
for ax, label in zip(axes, ("mean cosine of centre tokens", "cosine"), strict=True):
    ax.axhline(0, color="0.4", lw=0.8)
    ax.set_ylabel(label)
    ax.legend(fontsize=8)

# %% [markdown]
# {numref}`fig-anisotropy` compares the centre tokens of {glue:text}`anisotropy_of` pictures in
# {glue:text}`model`. Their mean cosine is {glue:text}`alike_first:.2f` in the first layer. In the layer where
# they are most alike it is {glue:text}`alike_most:.2f`, and {glue:text}`alike_exact:.2f` for normalised tokens.
# From the first to the last layer, the weighted cosine moves by {glue:text}`own_turn:+.2f`. Minus the
# anisotropy, it moves by {glue:text}`less_turn:+.2f`.
#
# The difference mixes two things: the weighted cosine is about directions of weights, the anisotropy about
# tokens. A centre token also encodes its place in the picture, which all images share. So read the left
# panel as a warning. The right panel is the paper's answer to it.

# %% [markdown]
# ## Did we reproduce it?

# %% tags=["hide-input"]
falls = {n: answers["late − early"][n] for n in by_stored}
rises = {n: answers["last − middle"][n] for n in by_stored if "deit" in n}
classifies = model.facts["objective"] == "classification"
ours = own["late − early"] if classifies else None  # the claim is about classifiers
off = max(abs(1.96 / d**0.5 - 0.123) for d in widths[1:])


def each(found, say, *how):
    """What is said of every model, in one cell of the table."""
    return "; ".join(f"{name}: {say(one, *how)}" for name, one in found.items())


# %% tags=["hide-input"]
measure = "weighted cosine"
tell(
    objective=model.facts["objective"],
    verdict_own=statistics.verdict(ours, -1, measure),
    real_falls=each(falls, statistics.text),
    verdict_real=each(falls, statistics.verdict, -1, measure),
    deit_rises=each(rises, statistics.text),
    verdict_deit=each(rises, statistics.verdict, 1, measure),
    verdict_null=statistics.verdict_of_identity(off, 0.005),
)

# %% [markdown]
# | claim | this run | verdict |
# |---|---|---|
# | Figure 3: the weighted cosine falls with depth in classification models | {glue:text}`model`, trained for {glue:text}`objective`: {glue:text}`own_contrast` | {glue:text}`verdict_own` |
# | The same, in two real classifiers that are not among the paper's 16 (computed elsewhere) | {glue:text}`real_falls` | {glue:text}`verdict_real` |
# | Figure 3: in DeiT it rises again in the last layers (here: a DeiT without distillation, computed elsewhere) | {glue:text}`deit_rises` | {glue:text}`verdict_deit` |
# | Figures S1, S2: the band of random directions is ±0.123 for every model | 1.96/√d for `d_model` = 192 to 1280 in the table above | {glue:text}`verdict_null` |
#
# The third question is ours, not the paper's: the last third of {glue:text}`model` lies at
# {glue:text}`own_late`.
#
# The paper's figure 3 has no intervals, and its 16 models differ in data, size and training at once. Such
# models can show *that* a curve falls. To say *why* it falls, we need models that differ in one thing only.

# %% [markdown]
# ## What to remember
#
# - The weighted cosine of a head is a trace divided by a nuclear norm. It needs no singular vector.
# - The band of chance is ±1.96/√d for one mode. For a mean it depends on how many modes carry the weight.
# - "Falls with depth" is one difference with an interval. Look for valleys as well.
# - The convention matters where a curve is near zero. Name it.
#
# **Limits.** Cosines are about weights. Only images can show whether tokens have anything along a direction,
# and whether a head attends to the same object. One network per objective cannot show an effect of the
# objective.
#
# **Further reading.** The paper's own discussion of its figure 3, section 4.2
# {cite}`pan2024dissecting`; the two real models {cite}`touvron2021training,steiner2022train`; the
# library they come from {cite}`wightman2019timm`.
#
# **Next.** {doc}`04_training_objective` compares networks that were trained on the same scenes for different
# goals. It asks whether the goal decides what tokens look for.
