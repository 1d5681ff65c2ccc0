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
# One number per head tells whether its modes look for like or for unlike. This chapter follows that
# number from the first layer to the last, for every model at hand, and earns figures 3, S1 and S2
# of the paper {cite}`pan2024dissecting`. Next to every value stands what chance would give, for
# which the published code needs a correction.
#
# :::{admonition} Before you start
# **After this chapter you can**
# - compute a head's weighted cosine in two ways, one of which needs no singular vector;
# - say how large a cosine must be to mean anything, for a single mode and for a mean;
# - read a trend over depth with an interval, and say what it does not show;
# - tell which conclusions depend on whether LayerNorm is left out.
#
# **You need** chapter 1, {doc}`01_svd_derivation`: modes, cosines, the conventions `paper` and
# `exact`. Mean, standard deviation, and what a bootstrap is.
#
# **Time**: 30 minutes to read, under a minute to run on a laptop, 60 minutes to teach. Runs with no
# GPU and no network.
# :::

# %% tags=["parameters"]
MODEL = (
    "tiny-supervised"  # a name that qkutils.load takes, or the path of a checkpoint file
)
IMAGES = ""  # no images are needed here: cosines come from the weights alone

# %%
import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import torch

import qkutils as qk
from qkutils import heads, models, plots, stored, trends, views
from qkutils.report import tell, verdict
from qkutils.tiny import architecture

# %% [markdown]
# ## One number for a head
#
# A head has `d_head` modes, each with a strength $\sigma_n$ and a cosine $\cos_n = u_n \cdot v_n$.
# Strong modes shape the scores more, so the paper weights them:
#
# $$
# \overline{\cos} = \frac{\sum_n \sigma_n \cos_n}{\sum_n \sigma_n} .
# $$
#
# Near 1 the head groups like with like; near 0 it relates things that have nothing to do with each
# other; below 0 it looks for contrast.

# %%
model = qk.load(MODEL)
parts = qk.decompose(model, convention="paper")
the_long_way = parts.cosine.weighted(parts.sigma).mean("mode")  # (layer, head)
tell(model=model.name, layers=parts.sizes["layer"], per_layer=parts.sizes["head"])
the_long_way.to_pandas().round(2)

# %% [markdown]
# Rows are layers, columns are heads of {glue:text}`model`.
#
# ### The same number without a single singular vector
#
# The sum on top is a trace. Put the decomposition into it, and turn the factors round:
#
# $$
# \sum_n \sigma_n\, u_n \cdot v_n = \operatorname{tr} \sum_n \sigma_n\, u_n v_n^\top
# = \operatorname{tr} M = \operatorname{tr} W_q^\top W_k = \sum_{e,c} (W_q)_{ec} (W_k)_{ec} .
# $$
#
# So the numerator is the sum of products of the entries of the two matrices, and the denominator
# is the sum of all strengths, the nuclear norm:
#
# $$
# \overline{\cos} = \frac{\langle W_q, W_k \rangle}{\lVert M \rVert_*} .
# $$
#
# No directions, so no signs to fix and no {term}`degenerate mode` to worry about. Whoever reads
# this chapter's curves need not trust any singular vector of ours.

# %%
weights = heads.read(model)
trace = (weights.w_q.double() * weights.w_k.double()).sum((-1, -2)).numpy()  # (layer, head)
closed_form = trace / parts.sigma.sum("mode")
weighted = qk.weighted_cosine(model)  # the library's own closed form
tell(
    long_way_error=float(abs(the_long_way - weighted).max()),
    closed_error=float(abs(closed_form - weighted).max()),
)
list(closed_form.shape)

# %% [markdown]
# The three agree to {glue:text}`long_way_error:.0e` and {glue:text}`closed_error:.0e`.
#
# :::{admonition} Predict, then look
# :class: tip
# Two random directions in 96 dimensions: how large is their cosine, typically? In 768 dimensions?
# Would you call a mode with cosine 0.15 a grouping mode?
# :::

# %% [markdown]
# ## What chance would give
#
# The cosine of two random directions has mean 0 and standard deviation $1/\sqrt{d}$: they are nearly
# orthogonal, the more so the more dimensions there are. So 95 % of random cosines lie
# within $\pm 1.96/\sqrt{d}$, the {term}`null band`. A mode inside it says nothing.

# %%
d_model = parts.sizes["d_model"]
generator = torch.Generator().manual_seed(0)
a, b = torch.randn(2, 20_000, d_model, generator=generator)
random_cosines = torch.cosine_similarity(a, b)
band = qk.null_band(model)  # (layer,)
tell(
    d_model=d_model,
    band=float(band[0]),
    simulated=float(random_cosines.abs().quantile(0.95)),
    published=float(np.sin(0.123)),
)

# %% [markdown]
# For `d_model` = {glue:text}`d_model` the formula gives ±{glue:text}`band:.3f`, and 20,000 random
# pairs give ±{glue:text}`simulated:.3f`.
#
# The band in the published figures is another one. The authors' code fixes it at ±0.123 radians
# around a right angle, a cosine of ±{glue:text}`published:.3f`, for every model. That is the right
# width for about 255 dimensions and for no model in the paper: it is too wide for 384 and more,
# where it hides modes that do say something, and too narrow for 192. The published code that would
# compute it draws uniform numbers where normal ones are needed, builds its second vector from the
# first, and takes the 99th percentile where the caption says 95.
#
# A *mean* of many modes varies less than one cosine does. What a head with random weights of the
# same shape gives is best simulated:

# %%
head_sd = qk.null_weighted_cosine(model)  # (layer,): standard deviation of one head
layer_band = 1.96 * head_sd / parts.sizes["head"] ** 0.5
untrained = qk.weighted_cosine(architecture.build(seed=1))
outside = abs(parts.cosine) > band  # (layer, head, mode)
tell(
    head_sd=float(head_sd[0]),
    layer_band=float(layer_band[0]),
    untrained_sd=float(untrained.std()),
    share_outside=float(outside.mean()),
)

# %% [markdown]
# One random head has a weighted cosine of 0 ± {glue:text}`head_sd:.3f`, and the mean of a layer falls
# within ±{glue:text}`layer_band:.3f` in 95 of 100 cases. A freshly initialised embedded model, which
# is one such draw, spreads by {glue:text}`untrained_sd:.3f`.

# %% [markdown]
# ## The modes, layer by layer
#
# Now the cosines themselves, all modes of all heads of a layer: figure S1. If training had not
# touched the head, 95 % would lie in the grey band.

# %%
frames, texts = [], []
for layer in parts.layer.values:
    of_layer, half_width = (
        parts.cosine.sel(layer=layer),
        float(band.sel(layer=layer)),
    )
    share = float(outside.sel(layer=layer).mean())
    title = f"layer {layer}: {share:.0%} of the modes lie outside the band"
    frames.append(plots.layer_histogram(of_layer, half_width, title))
    texts.append(
        f"Histogram of the cosines of layer {layer}. {share:.0%} lie outside the null band."
    )
views.stepper(frames, list(parts.layer.values), texts, "layer")

# %% [markdown]
# Step through the layers. Over the whole model {glue:text}`share_outside:.2f` of the modes lie outside
# the band, where chance would leave 0.05.
#
# **Try it.** In which layer do the cosines lean to the right, and where to the left? Are there
# layers that do both at once, so that the mean hides them? Look for two heaps.
#
# A histogram hides which modes are strong. Figure S2 shows single heads: strengths as bars,
# cosines as dots.

# %% mystnb={"figure": {"name": "fig-spectrum", "caption": "Strength (bars, as a share of the largest) and cosine (dots) of every mode of one head, in the first, a middle and the last layer. The grey band holds 95 % of random cosines."}, "image": {"alt": "Three panels, one head each from an early, a middle and a late layer: bars of falling strength, with a dot for the cosine of each mode, over a grey band around zero."}}
chosen = [0, parts.sizes["layer"] // 2, parts.sizes["layer"] - 1]
fig, axes = plt.subplots(1, 3, figsize=(10, 3.2), sharey=True, layout="constrained")
for ax, layer in zip(axes, chosen, strict=True):
    one = parts.sel(layer=layer, head=0)
    plots.spectrum(ax, one.sigma, one.cosine, plots.PALETTE[1])
    ax.axhspan(-float(band[layer]), float(band[layer]), color="0.6", alpha=0.3, lw=0)
    ax.set_title(f"layer {layer}, head 0")
axes[0].set_ylabel("strength, cosine")
_ = axes[0].legend(fontsize=8, loc="lower right")

# %% [markdown]
# In {numref}`fig-spectrum`, look at the strong modes on the left of each panel first: they carry the
# weighted cosine. Dots far from the band with short bars beside them count for little.

# %% [markdown]
# ## The trend
#
# Figure 3 of the paper: the mean of the weighted cosine over the heads of a layer, against depth.
# We draw every model that can be loaded here, and real models whose numbers are stored.
#
# :::{admonition} Predict, then look
# :class: tip
# The paper finds that the curve falls with depth in models that were trained to classify. Our
# small model was trained to name the *odd* object of a scene. Where would you expect it to look
# for contrast? Will the first layer be positive or negative?
# :::

# %%
names = [name for name in models.at_hand() if name != model.name]
curves = {model.name: weighted} | {name: qk.weighted_cosine(name) for name in names}
tables = {name: stored.modes(name) for name in stored.names()}
by_stored = {n: t.cosine.weighted(t.sigma).mean("mode") for n, t in tables.items()}
checked = {
    name: float(abs(curves[name] - by_stored[name].sel(convention="paper")).max())
    for name in by_stored
    if name in curves
}
shown = ", ".join(f"{name}: {difference:.0e}" for name, difference in checked.items())
tell(checked=shown or "none of them is at hand in this run, so they are shown as stored")

# %% mystnb={"figure": {"name": "fig-trend", "caption": "Weighted cosine over depth, convention paper. Lines: mean over heads; dots: heads of models at hand. The grey band is where 95 % of the layer means of the first model would fall with random weights."}, "image": {"alt": "Curves of weighted cosine over relative depth for each model, with heads as dots and a narrow grey null band around zero."}}
fig, ax = plt.subplots(figsize=(8, 4.4), layout="constrained")
plots.band(ax, layer_band, "random weights (95 %)")
colours = iter(plots.PALETTE)
for name, curve in curves.items():
    plots.trend(ax, curve, name.split(".")[0], next(colours))
for name in by_stored.keys() - curves.keys():
    label = f"{name.split('.')[0]} (computed elsewhere)"
    curve = by_stored[name].sel(convention="paper")
    plots.trend(ax, curve, label, next(colours), "s", dots=False)
plots.trend(ax, untrained, "untrained", "0.5", ".", dots=False)
ax.set_ylabel("weighted cosine")
_ = ax.legend(fontsize=8)

# %% [markdown]
# Curves that are *computed elsewhere* come from tables in the repository. Where such a model is at
# hand, this run computes it again and compares; largest difference: {glue:text}`checked`.

# %%
kept = ["fingerprint", "code_version", "computed", "dtype"]
pd.DataFrame({name: {k: table.attrs[k] for k in kept} for name, table in tables.items()}).T

# %% [markdown]
# ## Does it fall? One contrast, stated before looking
#
# A curve with twelve points can be told as many stories. We fix one question: the mean over the
# last third of the layers, minus the mean over the first third. The interval resamples heads. It says
# how much the answer hangs on single heads. It does *not* say how another training run would turn
# out: heads of one network are not independent networks.

# %%
stored_only = {
    n: v.sel(convention="paper") for n, v in by_stored.items() if n not in curves
}
everything = curves | stored_only
contrasts = {name: trends.late_minus_early(curve) for name, curve in everything.items()}
layer_means = {name: curve.mean("head") for name, curve in everything.items()}
rises_again = {name: float(mean[-1] - mean.min()) for name, mean in layer_means.items()}
table = {
    "late − early [95 %]": contrasts,
    "verdict": {name: contrast.word for name, contrast in contrasts.items()},
    "last − lowest layer": pd.Series(rises_again).round(2),
}
pd.DataFrame(table)

# %% [markdown]
# The last column says how far the last layer has come up again from the lowest one. A fall with a
# large last column is a valley, not a slope.

# %% [markdown]
# ## What LayerNorm changes
#
# All this was convention `paper`: raw weights. What the head works on is the normalised token, with
# LayerNorm's gain in its weights. In the convention `exact` the band widens, since a gain that
# stretches some coordinates makes random directions less orthogonal.

# %%
exact_curve = qk.weighted_cosine(model, convention="exact")
both = {model.name: (weighted, exact_curve)} | {
    name: tuple(values.sel(convention=c) for c in heads.CONVENTIONS)
    for name, values in by_stored.items()
    if name != model.name
}
shift = {name: float(abs((b - a).mean("head")).max()) for name, (a, b) in both.items()}
tell(
    shift=shift[model.name],
    largest_shift=max(shift.values()),
    largest_shift_model=max(shift, key=shift.get),
    exact_band=float(qk.null_band(model, "exact").max()),
)

# %% mystnb={"figure": {"name": "fig-conventions", "caption": "The same curves in both conventions: paper (solid, raw weights) and exact (dashed, LayerNorm's gain and centring folded in)."}, "image": {"alt": "For each model a solid and a dashed curve of weighted cosine over depth, one for each convention."}}
fig, ax = plt.subplots(figsize=(8, 4), layout="constrained")
for (name, (raw, folded)), colour in zip(both.items(), plots.PALETTE, strict=False):
    plots.over_depth(ax, raw.mean("head"), f"{name.split('.')[0]}: paper", colour, "-")
    plots.over_depth(ax, folded.mean("head"), f"{name.split('.')[0]}: exact", colour, "--")
ax.axhline(0, color="0.4", lw=0.8)
ax.set_ylabel("weighted cosine")
_ = ax.legend(fontsize=7, handlelength=4)

# %% [markdown]
# For {glue:text}`model`, a layer's mean moves by {glue:text}`shift:.2f` at most; over all models here
# the largest move is {glue:text}`largest_shift:.2f`, in {glue:text}`largest_shift_model`. The null
# band of single cosines grows to ±{glue:text}`exact_band:.3f` in the layer with the most uneven gain.
#
# :::{dropdown} Which conclusions depend on the convention?
# Compare the solid with the dashed line of each model in {numref}`fig-conventions`. Where they cross
# zero at different layers, the statement "this layer attends to dissimilar tokens" depends on the
# convention, and should not be made without naming it. Where the two lines run together, it does not.
# :::

# %% [markdown]
# ## Did we reproduce it?

# %%
own, own_mean = contrasts[model.name], curves[model.name].mean("head")
real = {name.split(".")[0]: contrasts[name] for name in by_stored}
fall = sum(c.word == "falls" for c in real.values())
deit = max((v for n, v in rises_again.items() if "deit" in n), default=np.nan)
tell(
    own_contrast=str(own),
    verdict_own=verdict(own.word == "falls"),
    real_contrasts="; ".join(f"{name} {c}" for name, c in real.items()),
    verdict_real=f"{fall} of {len(real)} fall",
    deit_rise=f"{deit:+.2f}",
    verdict_deit=verdict(deit > float(layer_band[0])),
)

# %%
lowest_layer = int(own_mean.argmin("layer"))
tell(
    lowest_layer=lowest_layer,
    lowest=float(own_mean[lowest_layer]),
    verdict_zero=verdict(float(own_mean.min()) < -float(layer_band[0])),
    verdict_null=verdict(abs(float(band[0]) - np.sin(0.123)) < 0.005),
)

# %% [markdown]
# | claim of the paper | this run | verdict |
# |---|---|---|
# | Figure 3: the weighted cosine falls with depth in classification models | {glue:text}`model`: {glue:text}`own_contrast` | {glue:text}`verdict_own` |
# | the same, in real classifiers (computed elsewhere) | {glue:text}`real_contrasts` | {glue:text}`verdict_real` |
# | Figure 3: in DeiT the curve rises again in the last layers (here: DeiT-tiny without distillation) | last layer over the lowest one: {glue:text}`deit_rise` | {glue:text}`verdict_deit` |
# | heads come to look for unlike tokens: some layer's mean lies below the null | lowest mean {glue:text}`lowest:+.2f`, in layer {glue:text}`lowest_layer` | {glue:text}`verdict_zero` |
# | Figures S1, S2: the band of random directions is ±0.123 | ±{glue:text}`simulated:.3f` for `d_model` = {glue:text}`d_model` | {glue:text}`verdict_null` |
#
# The paper's figure 3 has no intervals, and its 16 models differ in data, size and training at once.
# With the models at hand here one can see that a curve falls; why it falls is a question for models
# that differ in one thing only.

# %% [markdown]
# ## What to remember
#
# - The weighted cosine of a head is a trace over a nuclear norm: no singular vector needed.
# - Chance gives ±1.96/√d for one mode, and much less for a mean over modes and heads.
# - "Falls with depth" is one contrast with an interval; look for valleys as well.
# - The convention matters where a curve is near zero. Name it.
#
# **Limits.** Cosines are about weights. Whether tokens have anything along a direction, and whether a
# head's attention then goes to the same object, needs images. One network per objective shows no
# effect of the objective.
#
# **Further reading.** The paper's own discussion of its figure 3, section 4.2
# {cite}`pan2024dissecting`; the two real models {cite}`touvron2021training,steiner2022train`; the
# library they come from {cite}`wightman2019timm`.
