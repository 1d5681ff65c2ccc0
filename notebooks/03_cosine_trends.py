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
# MODELS: models beside it; those at hand are computed and drawn with those that are stored
MODELS = []

# %% tags=["hide-input"] mystnb={"figure": {"name": "fig-real", "caption": "The weighted cosine of real vision transformers over depth, convention paper, as in Pan et al., Fig. 3. Dots: heads; lines: means over the heads of a layer. The thin grey strip at zero holds 95 % of the layer means that random directions would give each of these models. Computed elsewhere, except for models listed as computed under *Where these numbers come from*."}, "image": {"alt": "Curves of three real models. All start high, between 0.6 and 0.9, and fall to about 0.1 in the middle. Two of them rise again at the end, to about 0.4, and one falls below zero. A thin grey strip marks chance."}}
from statistics import NormalDist

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import torch

import qkutils as qk
from qkutils import heads, models, modes, statistics, views
from qkutils.book import (
    few_enough,
    is_embedded,
    ledger,
    live,
    pictures_for,
    report,
    stored,
    tell,
)
from qkutils.book.checks import cosine_trends as check
from qkutils.views import figures as plots

SHORT = {"deit_tiny_patch16_224.fb_in1k": "DeiT"}
SHORT |= {"vit_tiny_patch16_224.augreg_in21k_ft_in1k": "ViT"}
SHORT |= {"vit_small_patch14_dinov2.lvd142m": "DINOv2"}
model = qk.load(MODEL, image_size=IMAGE_SIZE or None)
kept = {name: stored.trend(name) for name in stored.names("null_band")}
fresh = {n: modes.trend(of) for n, of in live(MODELS).items()}
elsewhere = kept | fresh
own = modes.trend(model)
real = elsewhere if is_embedded(model) else elsewhere | {model.name: own}
raw = {n: found.weighted_cosine.sel(convention="paper") for n, found in real.items()}
looks = plots.looks([*real, model.name])
called = {name: SHORT.get(name, name) for name in [model.name, *real]}
fig, ax = plt.subplots(figsize=(7.5, 5), layout="constrained")
for found in real.values():
    plots.band(ax, found.null.sel(convention="paper"), "")
for name, curve in raw.items():
    label = f"{SHORT[name]}: {name}" if name in SHORT else name
    plots.trend(ax, curve, label, looks[name])
ax.set_ylabel("weighted cosine")
_ = fig.legend(fontsize=9, loc="outside lower center")

# %% tags=["hide-input"]
deit, vit, dino = (
    next(curve.mean("head") for name, curve in raw.items() if called[name] == part)
    for part in ("DeiT", "ViT", "DINOv2")
)
tell(deit_first=float(deit[0]), deit_last=float(deit[-1]), vit_first=float(vit[0]))
tell(vit_last=float(vit[-1]), dino_first=float(dino[0]), dino_last=float(dino[-1]))
tell(model=model.name)  # hands the name to the text: nothing there is typed in

# %% [markdown]
# In the first layer of DeiT, a small vision transformer, the weights ask for likeness: where patches of fur have
# a direction in common, fur asks for fur. {numref}`fig-real` shows this with one number per head. The number is 1
# if a head looks for tokens exactly like the one that asks, and negative if it looks for the opposite. Near 0, it
# looks for something unrelated, or likeness and contrast cancel. DeiT starts at {glue:text}`deit_first:.2f`, almost at the top.
# Then its curve falls, and in the last layers it rises again, to {glue:text}`deit_last:.2f`. Another small
# classifier, ViT, also starts high, but ends at {glue:text}`vit_last:.2f`. **When does a token look for
# tokens like itself, and how sure can we be of such a curve?**
#
# **Where we stand.** {doc}`01_svd_derivation` took a head apart into modes, and gave each mode a strength and a
# cosine. We do not know yet how these cosines change over depth, nor how large a cosine has to be to mean
# anything.
#
# :::{admonition} Before you start
# **After this chapter you can**
# - compute a head's weighted cosine in two ways, with and without singular vectors;
# - say how large a cosine must be to mean anything, for a single mode and for a mean;
# - read a trend over depth with an interval, and say what it does not show;
# - tell which conclusions depend on whether LayerNorm is left out.
#
# **You need** {doc}`01_svd_derivation`: modes, cosines, the conventions `paper` and `exact`. From
# {doc}`02_embedded_world`: what the small model was trained on. Mean and standard deviation.
#
# **Time**: 60 minutes to read with a pencil, 15 minutes for the tasks, exercises 65 minutes, 90 minutes to
# teach. It runs in under a minute on a laptop, with no GPU and no network.
# :::
#
# ## One number for a head
#
# A head has `d_head` modes. Each mode has a strength $\sigma_n$ and a cosine $\cos_n = u_n \cdot v_n$, the
# agreement of its query direction and its key direction. How do we get one number from many cosines? A
# strong mode shapes the scores more than a weak one. So Pan et al. take the mean of the cosines, and weight
# each by its strength. This is the {term}`weighted cosine`:
#
# $$
# \overline{\mathrm{cos}} = \frac{\sum_n \sigma_n \cos_n}{\sum_n \sigma_n} .
# $$
#
# Here is a head with two modes. The first has strength 3 and cosine 1, the second strength 1 and cosine −1.
# Its weighted cosine is $(3 \cdot 1 + 1 \cdot (-1)) / (3 + 1) = 0.5$: on the whole, the head groups like with
# like.
#
# A value near 0 can mean two things. Either the modes relate things that have nothing to do with each other.
# Or grouping and opposing modes cancel. The weighted cosine cannot tell them apart.

# %%
parts = qk.decompose(model, convention="paper")
long_way = parts.cosine.weighted(parts.sigma).mean("mode")  # [layer, head]
long_way.to_pandas().round(2).rename_axis(index=None)

# %% [markdown]
# Rows are layers, columns are heads of {glue:text}`model`. A single head can reach far above the mean of its
# layer.
#
# ### The same number without a single singular vector
#
# Two quantities of $M = W_q^\top W_k$ give the same number. The *trace* is the sum of the entries on the
# diagonal. The *nuclear norm* $\lVert M \rVert_*$ is the sum of all strengths.
#
# The trace of the matrix $u v^\top$ is $u \cdot v$, because the entries on its diagonal are the products
# $u_c v_c$. Write $M$ as the sum of its modes. Then the trace of $M$ is the numerator of the weighted
# cosine:
#
# $$
# \operatorname{tr} M = \operatorname{tr} \sum_n \sigma_n\, u_n v_n^\top = \sum_n \sigma_n\, u_n \cdot v_n .
# $$
#
# But we can also compute this trace from the two small matrices. Multiply $W_q$ and $W_k$ entry by entry,
# and add up all the products:
#
# $$
# \operatorname{tr} M = \operatorname{tr} W_q^\top W_k = \sum_{e,c} (W_q)_{ec}\, (W_k)_{ec} .
# $$
#
# The denominator $\sum_n \sigma_n$ is the nuclear norm. So $\overline{\mathrm{cos}} = \operatorname{tr} M \,/\,
# \lVert M \rVert_*$. No direction is needed: there are no signs to choose, and a {term}`degenerate mode`
# does no harm.

# %%
weights = model.heads
trace = (weights.w_q.double() * weights.w_k.double()).sum((-1, -2)).numpy()
closed_form = trace / parts.sigma.sum("mode")  # [layer, head]
weighted = qk.weighted_cosine(model, convention="paper")  # the library's own
errors = [float(abs(way - weighted).max()) for way in (long_way, closed_form)]

# %% tags=["hide-input"]
tell(long_way_error=f"{errors[0]:.0e}" if errors[0] else "nothing at all")
tell(closed_error=f"{errors[1]:.0e}" if errors[1] else "nothing at all")

# %% [markdown]
# The library's `weighted_cosine` takes the second way. Over all heads it differs from the mean over modes by
# at most {glue:text}`long_way_error`, and from our five lines by {glue:text}`closed_error`.
#
# ## What chance would give
#
# Is a cosine of 0.15 large? In three dimensions it is nothing: two random arrows often have it. But a token
# of a real model has hundreds of dimensions.
#
# :::{admonition} Predict, then look
# :class: tip
# Take two random directions in 768 dimensions, the width of ViT-B. How large is their cosine,
# typically? Would you call a mode with cosine 0.15 a grouping mode? And in 96 dimensions, the width of our
# small models?
# :::
#
# We can simply try it. The next lines draw 4000 pairs of random directions, and look where 95 % of the
# cosines end:

# %%
widths = [96, 192, 384, 768, 1024, 1280]
generator = torch.Generator().manual_seed(0)
drawn = {}
for d in widths:
    a, b = torch.randn(2, 4000, d, generator=generator)
    drawn[d] = torch.cosine_similarity(a, b).abs()
simulated = {d: float(cosine.quantile(0.95)) for d, cosine in drawn.items()}

# %% tags=["hide-input"]
published = float(np.sin(0.123))
inside = {d: 2 * NormalDist().cdf(published * d**0.5) - 1 for d in widths}
table = {
    "95 % lie within ±": {d: f"{simulated[d]:.3f}" for d in widths},
    "1.96 / √d": {d: f"{1.96 / d**0.5:.3f}" for d in widths},
    "% in the published band": {d: f"{100 * inside[d]:.1f}" for d in widths},
}
tell(fitting=f"{(1.96 / published) ** 2:.0f}")
tell(published=published, wide=simulated[768], narrow=simulated[96])
tell(inside_small=f"{100 * inside[192]:.0f}", inside_base=f"{100 * inside[768]:.1f}")
tell(widths_table=pd.DataFrame(table).rename_axis(columns="d"))

# %% [markdown]
# ::::{dropdown} Answer
# :::{glue:} widths_table
# :::
#
# In 768 dimensions 95 of 100 random cosines lie within ±{glue:text}`wide:.3f`. There, 0.15 is far more than
# chance. In 96 dimensions the same share lies within ±{glue:text}`narrow:.3f`, and 0.15 is nothing special.
# ::::
#
# The cosine of two random directions has mean 0 and standard deviation $1/\sqrt{d}$, where $d$ is
# the number of dimensions. In more dimensions, random directions are closer to a right angle. So 95 % of
# random cosines lie within $\pm 1.96/\sqrt{d}$, the {term}`null band`. A cosine inside the band may be
# chance.
#
# **The published band is wrong for most widths.** Pan et al. (Figs. S1 and S2) draw the same band for every
# model: ±0.123 radians around a right angle, a cosine of ±{glue:text}`published:.3f`. This band fits about
# {glue:text}`fitting` dimensions, a width that none of their models has. In 192 dimensions it holds
# {glue:text}`inside_small` % of random cosines instead of 95 %, so that chance looks like a finding too
# often. In 768 dimensions it holds {glue:text}`inside_base` %, and hides modes that do say something.
#
# :::{dropdown} Where this stands in the published code
# In the repository `schwartz-cnl/DissectingViT` (commit `5adbd0d`), the number 0.123 is typed into
# `src/huggingface_utils.py`, line 144. The notebook `src/cosine_similarity.ipynb` would compute a band, in
# code cell 4, lines 35 to 40. It draws uniform numbers where normal ones are needed. It builds the second
# vector from the first. And it takes the 99th percentile, where the caption says 95. The page
# {doc}`../book/report` lists all differences with their numbers.
# :::
#
# ### Chance for a mean
#
# A weighted mean of many cosines varies less than a single cosine. How much less? That depends on how many
# modes carry the weight. Suppose that a head keeps its strengths, but its directions are random. Then the
# standard deviation of the mean is that of one cosine, times
#
# $$ \frac{\sqrt{\sum_n \sigma_n^2}}{\sum_n \sigma_n} . $$
#
# For $m$ equal strengths this factor is $1/\sqrt{m}$. For a single strong mode it is 1. The mean over the
# heads of a layer varies less again.

# %%
band = qk.null_band(model, convention="paper")  # [layer]: 95 % of single cosines
head_sd = modes.null_from_strengths(parts.sigma, band)  # [layer, head]
layer_band = modes.null_of_layers(parts.sigma, band)  # 95 % of means over heads
outside = abs(parts.cosine) > band  # [layer, head, mode]

# %% tags=["hide-input"]
rows = {model.name: (float(band[0]), layer_band, outside)}
for name in kept:
    of_modes = stored.read("modes", name).sel(convention="paper")
    single = stored.read("null_band", name).null_band.sel(convention="paper", layer=0)
    null = elsewhere[name].null.sel(convention="paper")
    rows[called[name]] = (float(single), null, abs(of_modes.cosine) > float(single))
columns = {
    "one cosine, within ±": {n: f"{one:.3f}" for n, (one, _, _) in rows.items()},
    "mean of a layer, within ±": {
        n: f"{float(null.min()):.3f} to {float(null.max()):.3f}"
        for n, (_, null, _) in rows.items()
    },
    "modes beyond": {
        n: f"{100 * float(out.mean()):.0f} %" for n, (*_, out) in rows.items()
    },
}
pd.DataFrame(columns).rename_axis(columns="95 % of chance")

# %% tags=["hide-input"]
random_sd = qk.null_weighted_cosine(model, convention="paper", draws=1000)
tell(band=float(band[0]), head_sd=float(head_sd.mean()), random_sd=float(random_sd[0]))
tell(layer_band=float(layer_band.mean()), share_outside=float(outside.mean()))

# %% [markdown]
# So every model has its own band of chance. For {glue:text}`model` a single cosine needs
# ±{glue:text}`band:.2f`, but the mean of a layer needs only ±{glue:text}`layer_band:.2f` to say something. The
# real models are wider and have more modes, and their bands are much narrower. The last column shows
# the share of a model's modes that lie beyond the band of one cosine, where chance would leave 5 %.
#
# :::{dropdown} Why not compare with random weights?
# Heads with random weights of the same shape would vary by {glue:text}`random_sd:.3f` only (standard
# deviation). Heads of {glue:text}`model` with their own strengths and random directions vary by
# {glue:text}`head_sd:.3f`. The strengths of random weights are even, and those of trained weights are not. We
# use the wider band.
# :::
#
# ## The modes, layer by layer
#
# Now we look at the cosines themselves, as in Pan et al., Fig. S1: all modes of all heads of a layer. If
# directions were random, 95 % of the cosines would lie in the grey band. Step through the layers.

# %% tags=["hide-input"]
counts = [np.histogram(parts.cosine.sel(layer=n), plots.BINS)[0] for n in parts.layer]
most = int(1.05 * np.max(counts)) + 1
frames, texts = [], []
for layer in parts.layer.values:
    share = float(outside.sel(layer=layer).mean())
    title = f"layer {layer}: {100 * share:.0f} % of the modes lie beyond the band"
    of_layer, half = parts.cosine.sel(layer=layer), float(band.sel(layer=layer))
    frames.append(plots.layer_histogram(of_layer, half, title, most))
    texts.append(f"Histogram of the cosines of all modes; {title}.")
views.stepper(frames, list(parts.layer.values), texts, "layer")

# %% tags=["hide-input"]
every = parts.cosine.stack(of=["head", "mode"])
right, left = (every > band).mean("of"), (every < -band).mean("of")
both_sides = np.minimum(right, left)
crowded = int(both_sides.argmax("layer"))
tell(
    right_layer=int(every.mean("of").argmax("layer")),
    right_mean=f"{float(every.mean('of').max()):+.2f}",
)
tell(
    left_layer=int(every.mean("of").argmin("layer")),
    left_mean=f"{float(every.mean('of').min()):+.2f}",
)
tell(crowded=crowded, crowded_right=f"{100 * float(right[crowded]):.0f}")
tell(crowded_left=f"{100 * float(left[crowded]):.0f}")

# %% [markdown]
# Over the whole model, a share of {glue:text}`share_outside:.2f` of the modes lies beyond the band. Chance
# would leave 0.05. So training gave many modes a direction of their own: some group like with like, and some
# look for contrast.
#
# **Try it.** In which layer do the cosines lean most to the right, and in which most to the left? Which layer
# comes closest to having many cosines on *both* sides of the band, so that its mean hides them?
#
# :::{dropdown} Answers
# Layer {glue:text}`right_layer` leans most to the right: its mean cosine is {glue:text}`right_mean`. Layer
# {glue:text}`left_layer` lies furthest left, at {glue:text}`left_mean`. Layer {glue:text}`crowded` has most on
# both sides: {glue:text}`crowded_right` % of its modes lie beyond the band on the right, and
# {glue:text}`crowded_left` % on the left. Chance would give 2.5 % on each side.
# :::
#
# A histogram does not show which modes are strong. Pan et al., Fig. S2, does: it shows single heads, with
# strengths as bars and cosines as dots.

# %% tags=["hide-input"] mystnb={"figure": {"name": "fig-spectrum", "caption": "Strength (bars, as a share of the largest) and cosine (dots) of every mode of one head. Three layers: the first, a middle one and the last. Between the dashed lines lie 95 % of random cosines."}, "image": {"alt": "Three panels, one head each from an early, a middle and a late layer: bars of falling strength, with a dot for the cosine of each mode, and two dashed lines around zero."}}
chosen = [0, parts.sizes["layer"] // 2, parts.sizes["layer"] - 1]
fig, axes = plt.subplots(1, 3, figsize=(7.5, 3.4), sharey=True, layout="constrained")
for ax, layer in zip(axes, chosen, strict=True):
    one = parts.sel(layer=layer, head=0)
    plots.spectrum(ax, one.sigma, one.cosine, plots.PALETTE[1])
    for edge in (-float(band[layer]), float(band[layer])):
        ax.axhline(edge, color="0.3", lw=0.8, ls="--")
    ax.set_title(f"layer {layer}, head 0", fontsize=10)
axes[0].set_ylabel("strength, cosine")
shown = axes[0].get_legend_handles_labels()
_ = fig.legend(*shown, fontsize=9, loc="outside lower center", ncols=2)

# %% [markdown]
# In {numref}`fig-spectrum`, look at the strong modes on the left of each panel first. They carry the
# weighted cosine. A dot far from the band counts for little if its bar is short.
#
# ## The trend
#
# Back to the curves of {numref}`fig-real`. One curve can tell many stories. So we fix our questions before we
# count:
#
# 1. *Does it fall?* The mean over the last third of the layers minus that over the first third.
# 2. *Does it rise again?* The last layer minus the mean over the middle third.
# 3. *Does it end below zero?* The mean over the last third.
#
# A third is rounded down: of 12 layers 4, of 8 layers 2. The middle is what is left.
#
# Each answer is a number with a 95 % interval. The interval comes from the bootstrap: we draw the heads of
# each layer again, with replacement, and compute the number again. The interval holds the middle 95 % of many
# such draws.

# %% tags=["hide-input"]
questions = {
    "late − early": statistics.late_minus_early,
    "last − middle": statistics.last_minus_middle,
    "late": statistics.late,
}
answers = {
    question: {name: ask(curve) for name, curve in raw.items()}
    for question, ask in questions.items()
}
told = {
    question: {called[n]: statistics.text(found) for n, found in of.items()}
    for question, of in answers.items()
}
pd.DataFrame(told).rename_axis(columns="estimate, 95 % interval")

# %% tags=["hide-input"]
for short, family in {"deit": "DeiT", "vit": "ViT", "dinov2": "DINOv2"}.items():
    tell(**{f"{short}_fall": told["late − early"][family]})
    tell(**{f"{short}_rise": told["last − middle"][family]})
chance = {called[n]: found.null.sel(convention="paper") for n, found in real.items()}
vit_chance = float(chance["ViT"][-1])
tell(
    vit_chance=f"{vit_chance:.3f}", vit_times=f"{abs(float(vit[-1])) / vit_chance:.0f}"
)
tell(first_chance=f"{max(float(chance[n][0]) for n in SHORT.values()):.3f}")

# %% [markdown]
# **All three real models fall with depth.** From the first to the last third, DeiT moves by
# {glue:text}`deit_fall`, ViT by {glue:text}`vit_fall` and DINOv2 by {glue:text}`dinov2_fall`. DINOv2 was
# trained without any labels. But these tensors come from a saliency model, and may have been tuned for it
# ({ref}`how we use them <computed-elsewhere>`). If they were not, a falling curve is no mark of classification.
#
# **They end in different ways.** In the last layer DeiT stands {glue:text}`deit_rise` above its middle, and
# DINOv2 {glue:text}`dinov2_rise`. Both turn back to likeness. ViT goes on to fall, by
# {glue:text}`vit_rise`. Its last layer, at {glue:text}`vit_last:.2f`, looks like chance in the figure. It is
# not: chance would give this layer mean ±{glue:text}`vit_chance`. As a mean over the last third, all three
# models still lie above zero.
#
# Two warnings about the intervals. With so few heads in a layer they are too narrow. And they say
# nothing about another training run, because heads of one network are not independent networks.
#
# :::{admonition} Predict, then look
# :class: tip
# Now to {glue:text}`model`. (By default it is the small model that names the *odd* object among similar
# ones.) Will its curve fall, too? In which layers should it look for contrast? Several training runs differ
# only in their random start: will their curves look alike?
# :::
#

# %% tags=["hide-input"]
family = models.family()
row = (family == model.name).any(axis=1)
siblings = family[row].stack().tolist() or [model.name]
runs = {
    name: weighted
    if name == model.name
    else qk.weighted_cosine(name, convention="paper")
    for name in siblings
}
of_runs = [float(statistics.late_minus_early(c).estimate) for c in runs.values()]
over_runs = statistics.over_runs(of_runs)
own_fall, own_late = statistics.late_minus_early(weighted), statistics.late(weighted)
tell(own_fall=statistics.text(own_fall), own_late=statistics.text(own_late, ".3f"))
tell(own_verdict=statistics.verdict(own_fall, -1, "weighted cosine"))
below = np.flatnonzero(weighted.mean("head") < -layer_band)
many = "s" * (len(below) > 1)
tell(below=f"layer{many} {', '.join(map(str, below))}" if len(below) else "no layer")
words = "Only one training run of this model is at hand."
if len(runs) > 1:
    low, high = min(of_runs), max(of_runs)
    words = (
        f"Its {len(runs)} training runs differ a lot: from {low:+.2f} to {high:+.2f}."
    )
falling = {"holds": "fall, too", "contradicted": "rise"}
verdict = statistics.verdict(over_runs, -1, "weighted cosine")
tell(runs_words=words, run_count=len(runs), over_runs=statistics.text(over_runs))
tell(small_fall=falling.get(verdict, f"need not fall ({verdict})"))
fig, ax = plt.subplots(figsize=(7.5, 4.2), layout="constrained")
plt.close(fig)
plots.band(ax, layer_band, "random directions (95 %)")
for name, curve in runs.items():
    if name != model.name:
        means = curve.mean("head")
        ax.plot(
            means.layer / means.layer[-1],
            means,
            color=looks[model.name]["color"],
            lw=0.9,
        )
plots.trend(ax, weighted, model.name, looks[model.name])
ax.set_ylabel("weighted cosine")
fig.legend(fontsize=9, loc="outside lower center", ncols=2)
tell(trend_figure=fig)

# %% [markdown]
# ::::{dropdown} Answer
# :::{glue:figure} trend_figure
# :name: fig-trend
# :alt: A thick curve of weighted cosine over relative depth, with heads as dots. Thin curves of other training runs cross it. A grey band lies around zero.
#
# The model of this page. Dots: heads; thick line: means over the heads of a layer. Thin lines: other training
# runs of the same kind, where there are any. The grey band holds 95 % of the layer means that random directions
# would give this model.
# :::
#
# From the first to the last third, the curve of {glue:text}`model` moves by {glue:text}`own_fall`. That it
# falls {glue:text}`own_verdict`. Its last third lies at {glue:text}`own_late`. Beyond chance, the
# mean of its heads looks for contrast in {glue:text}`below`. {glue:text}`runs_words`
# ::::
#
# {numref}`fig-trend` shows {glue:text}`model` among {glue:text}`run_count` training runs of its kind. Over
# runs the change from early to late layers is {glue:text}`over_runs`: small networks with this goal {glue:text}`small_fall`.
# How much depends on the random start. Compare the thin lines with the thick
# one: where they part, a single network tells you about its random start rather than about its task.
# {doc}`04_training_objective` therefore counts training runs, not heads.
#
# ### Explore the curves
#
# Choose a model: dots show its heads, and the grey band is its own. You can hide other models, change the
# convention, and read the values of any layer. Besides the real models, the view shows one small model for
# each training goal; {doc}`04_training_objective` explains the goals.

# %% tags=["hide-input"]
small = [name for name in family[0].dropna() if name != model.name]
shown = {model.name: own} | {name: modes.trend(name) for name in small}
shown |= {name: found for name, found in elsewhere.items() if name not in shown}
views.trends(list(shown.values()))

# %% tags=["hide-input"]
moved, cancelled = {}, {}
for name, found in shown.items():
    mean = found.weighted_cosine.mean("head")
    change = abs(mean.sel(convention="exact") - mean.sel(convention="paper"))
    moved[name] = (float(change.max()), int(change.argmax("layer")))
    at = found.sel(convention="paper")
    heads_far = abs(at.weighted_cosine).mean("head")
    heads_far = heads_far.where(abs(mean.sel(convention="paper")) < at.null, 0)
    cancelled[name] = (float(heads_far.max()), int(heads_far.argmax("layer")))
most_moved, neutral = max(moved, key=moved.get), max(cancelled, key=cancelled.get)
layer = cancelled[neutral][1]
of_neutral = shown[neutral].sel(convention="paper", layer=layer)
tell(most_moved=most_moved, moved_layer=moved[most_moved][1])
tell(moved_by=f"{moved[most_moved][0]:.2f}", neutral=neutral, neutral_layer=layer)
values = of_neutral.weighted_cosine.values
tell(neutral_heads=", ".join(f"{value:+.2f}" for value in values))
tell(neutral_mean=f"{values.mean():+.3f}", neutral_null=f"{float(of_neutral.null):.3f}")
last = next(curve for name, curve in raw.items() if called[name] == "ViT")[-1].values
tell(last_heads=", ".join(f"{value:+.2f}" for value in last))

# %% [markdown]
# **Try it.**
#
# 1. Choose ViT (`vit_tiny…`) and its last layer. Read its mean and its band. How many of its heads lie below zero?
# 2. Which model's curve changes most between the conventions, and in which layer?
# 3. Find a layer whose mean lies inside its band because its heads cancel. Would you call it neutral?
#
# :::{dropdown} Answers
# 1. The mean is {glue:text}`vit_last:.2f`, {glue:text}`vit_times` times as far from zero as the band
#    (±{glue:text}`vit_chance`). The heads are {glue:text}`last_heads`.
# 2. {glue:text}`most_moved`, in layer {glue:text}`moved_layer`: its mean moves by {glue:text}`moved_by`.
# 3. The clearest case is layer {glue:text}`neutral_layer` of {glue:text}`neutral`. Its mean is
#    {glue:text}`neutral_mean` in a band of ±{glue:text}`neutral_null`, but its heads are
#    {glue:text}`neutral_heads`. The layer is not neutral: some of its heads group like with like, and others
#    look for contrast.
# :::
#
# ## What LayerNorm changes
#
# So far we used the convention `paper`: raw weights. But the head works on the normalised token, with
# LayerNorm's gain in its weights. This is the convention `exact`. Its band is a little wider: a gain that
# stretches some coordinates makes random directions less orthogonal.
#
# :::{admonition} Predict, then look
# :class: tip
# Could a layer attend to *similar* tokens in one convention and to *dissimilar* ones in the other?
# :::

# %% tags=["hide-input"]
both = {n: found for n, found in shown.items() if n in called}
flips, noise, shift = [], [], {}
for name, found in both.items():
    mean = found.weighted_cosine.mean("head")
    a, b = (mean.sel(convention=convention).values for convention in ("paper", "exact"))
    clear = (abs(mean) > found.null).all("convention")
    shift[called[name]] = float(abs(a - b).max())
    for at in np.flatnonzero(np.sign(a) != np.sign(b)):
        turned = f"{called[name]}, layer {at} ({a[at]:+.3f} and {b[at]:+.3f})"
        (flips if clear[at] else noise).append(turned)
tell(flips="; ".join(flips) or "none", noise="; ".join(noise) or "none")
most_shifted = max(shift, key=shift.get)
tell(largest_shift=shift[most_shifted], largest_shift_model=most_shifted)
half = (len(both) + 1) // 2  # rows of two panels
fig, axes = plt.subplots(
    half, 2, figsize=(7.5, 3 * half), sharey=True, squeeze=False, layout="constrained"
)
plt.close(fig)
for ax, (name, found) in zip(axes.flat, both.items(), strict=False):
    plots.band(ax, found.null.max("convention"), "")
    for convention, style in (("paper", "-"), ("exact", "--")):
        curve = found.weighted_cosine.sel(convention=convention).mean("head")
        plots.over_depth(ax, curve, convention, looks[name], style)
    ax.set_title(called[name], fontsize=10)
    ax.label_outer()
for ax in axes.flat[len(both) :]:
    ax.remove()
fig.supylabel("weighted cosine")
shown_as = axes[0, 0].get_legend_handles_labels()
fig.legend(*shown_as, fontsize=9, loc="outside lower center", ncols=2, handlelength=4)
tell(conventions_figure=fig)

# %% [markdown]
# ::::{dropdown} Answer
# Yes. In these layers the sign of the mean changes, and both values lie beyond chance (`paper` first, then
# `exact`): {glue:text}`flips`. For such a layer, the statement "it attends to dissimilar tokens" depends on
# the convention.
#
# In these layers the sign changes too, but at least one of the two values lies inside its band of chance:
# {glue:text}`noise`. There is nothing to explain.
#
# :::{glue:figure} conventions_figure
# :name: fig-conventions
# :alt: A panel for each model, with a solid and a dashed curve of weighted cosine over depth. They part most between layers one and four.
#
# The curves in both conventions. Solid: paper, raw weights. Dashed: exact, with LayerNorm's gain and centring.
# Each panel has its model's own grey band of chance, in the wider of the two conventions. Real models: computed
# elsewhere.
# :::
# ::::
#
# In {numref}`fig-conventions` most layers keep their sign, and the shape of the curves stays. The largest move
# of a layer mean is {glue:text}`largest_shift:.2f`, in {glue:text}`largest_shift_model`. A value near zero is
# what a convention can turn. So always name the convention.
#
# ## What all tokens have in common
#
# Here is an objection. Suppose that all tokens of a layer point roughly the same way, whatever they show.
# Then a high cosine groups nothing: every token is like every other. Pan et al. (Fig. S4) measure this
# {term}`anisotropy`. It is the mean cosine between the centre tokens of different images $a$ and $b$:
#
# $$ \mathrm{mean}_{a \neq b}\; \frac{x^{(a)} \cdot x^{(b)}}{\lVert x^{(a)} \rVert\, \lVert x^{(b)} \rVert}. $$
#
# They subtract it from the curve of their Fig. 3. We do the same:

# %%
pictures = qk.pictures_of(IMAGES or pictures_for(model, 64), model)
every = max(len(pictures.keys) // 64, 1)
pictures = pictures.some(few_enough(model, pictures.keys[::every], passes=3))


def anisotropy(of, convention):
    """How alike the centre tokens of different pictures are, [layer]."""
    options = {"k": 1, "convention": convention, "statistics": ["anisotropy"]}
    return qk.scan(of, pictures, **options).anisotropy


# %% tags=["hide-input"] mystnb={"figure": {"name": "fig-anisotropy", "caption": "Left: mean cosine between the centre tokens of different images, for the residual stream (convention paper) and for normalised tokens (exact). Right: the weighted cosine of the model, with and without the anisotropy of the residual stream subtracted, as in Pan et al., Fig. S4."}, "image": {"alt": "Two panels over depth: anisotropy in both conventions; the curve of weighted cosine with and without the anisotropy taken off."}}
alike = {c: anisotropy(model, c) for c in heads.CONVENTIONS}
less = {n: c - anisotropy(n, "paper") for n, c in runs.items() if n != model.name}
less[model.name] = weighted - alike["paper"]
less_falls = {n: statistics.late_minus_early(c) for n, c in less.items()}
fall_less = less_falls[model.name]
if len(runs) > 1:
    fall_less = statistics.over_runs([float(f.estimate) for f in less_falls.values()])
tell(alike_first=float(alike["paper"][0]), alike_most=float(alike["paper"].max()))
tell(alike_exact=float(alike["exact"].max()), anisotropy_of=len(pictures.keys))
tell(
    own_less=statistics.text(less_falls[model.name]),
    fall_less=statistics.text(fall_less),
)
fig, axes = plt.subplots(1, 2, figsize=(7.5, 3.8), sharey=True, layout="constrained")
tokens = {"paper": plots.PALETTE[6], "exact": plots.PALETTE[7]}
for convention, values in alike.items():
    look = {"color": tokens[convention], "marker": "o"}
    plots.over_depth(axes[0], values, f"tokens, {convention}", look)
look, curve = looks[model.name], weighted.mean("head")
plots.over_depth(axes[1], curve, "weighted cosine", look)
plots.over_depth(axes[1], curve - alike["paper"], "minus anisotropy", look, "--")
for ax, label in zip(axes, ("cosine of centre tokens", "cosine"), strict=True):
    ax.axhline(0, **plots.ZERO)
    ax.set_ylabel(label)
_ = fig.legend(fontsize=9, loc="outside lower center", ncols=4)

# %% tags=["hide-input"]
less_real = report.published().dropna(subset="estimate")
less_real = less_real[(less_real.figure == "S4") & (less_real.whose == "paper")]
less_real = less_real.set_index("model", drop=False).to_dict("index")
less_ends = {
    n: statistics.interval(*(of[end] for end in ledger.NUMBERS))
    for n, of in less_real.items()
}
for name, of in less_real.items():
    short = SHORT[name].lower()
    tell(**{f"{short}_less": statistics.text(less_ends[name])})
    tell(**{f"{short}_alike": f"{of['null']:+.2f}"})
tell(less_images=max(of["images"] for of in less_real.values()))

# %% [markdown]
# {numref}`fig-anisotropy` compares the centre tokens of {glue:text}`anisotropy_of` pictures in
# {glue:text}`model`. Their mean cosine is {glue:text}`alike_first:.2f` in the first layer, and
# {glue:text}`alike_most:.2f` in the layer where they are most alike. LayerNorm does not remove this: among
# normalised tokens the highest value is {glue:text}`alike_exact:.2f`. LayerNorm subtracts a mean over the
# coordinates of one token, not the mean over tokens.
#
# With the anisotropy subtracted, the curve moves by {glue:text}`own_less` from early to late layers. Without
# the subtraction it moves by {glue:text}`own_fall`. The difference comes from the tokens alone. Over all runs of this
# kind, the curve less the anisotropy moves by {glue:text}`fall_less`.
#
# **In real classifiers the subtraction leaves no fall.** We subtracted the anisotropy of {glue:text}`less_images`
# images of ImageNet. Then DeiT rises: it moves by {glue:text}`deit_less`. Of ViT nothing is left that we can tell:
# {glue:text}`vit_less`. The two go another way than *tiny-supervised*. Their anisotropy falls with depth, by
# {glue:text}`deit_alike` and {glue:text}`vit_alike`, at least as far as their curves. In *tiny-supervised* it rises.
# These numbers were computed elsewhere, for the {doc}`replication report <../book/report>`. The report does not put
# this question to DINOv2.
#
# So read the left panel as a warning, and be careful with the right one. The weighted cosine is about directions
# of weights, and the anisotropy is about tokens. A centre token also encodes its place, which all images share.
#
# :::{dropdown} I-JEPA's encoder and predictor (Pan et al., Fig. S3)
# Fig. S3 lays I-JEPA's encoder beside its predictor, a second transformer of another width. Only
# the authors' file of 10 GB holds both. With `IJEPA: /path/to/IN1K-vit.h.14-300e.pth.tar` in
# `parameters.yaml`, below `03_cosine_trends:`, the command `make book PARAMETERS=parameters.yaml`
# draws the figure here.
# :::

# %% tags=["hide-input"] mystnb={"image": {"alt": "Two panels over depth, I-JEPA's encoder and its predictor: weighted cosine of every head as dots, their mean as a line, and a grey null band around zero in each."}}
if IJEPA:
    like = "vit_huge_patch14_gap_224.in1k_ijepa"
    encoder = qk.load(IJEPA, state_dict="encoder", like=like)
    predictor = models.predictor(IJEPA, num_heads=encoder.heads.w_q.shape[1])
    pair = [modes.trend(net).sel(convention="paper") for net in (encoder, predictor)]
    display(plots.trends_apart(pair))

# %% [markdown]
# ## Exercises
#
# Write in the notebook, where `...` stands. The line below each exercise checks what you wrote. It says what
# holds, and what does not hold yet.
#
# ### Exercise 3.1. A curve from plain arrays
#
# *Easy, 10 minutes. Trains: which mean goes over which axis.*
#
# A colleague sends you cosines and strengths of a whole model as two plain arrays. Their axes are [layer,
# head, mode], without names. Write the function that gives the curve over depth: the weighted cosine of each
# head, then the plain mean over the heads of a layer.


# %% tags=["exercise"]
def curve_of(cosine, sigma):
    """One number per layer, from cosine and sigma [layer, head, mode]."""
    of_head = (cosine * sigma).sum(-1) / sigma.sum(-1)  # solution
    return of_head.mean(-1)  # solution


# %% tags=["check"]
check.curve(curve_of)
np.round(curve_of(parts.cosine.values, parts.sigma.values), 2)

# %% [markdown]
# :::{dropdown} Hint 1
# First one number for each head. Which axis disappears?
# :::
#
# :::{dropdown} Hint 2
# `axis=-1` is the last axis. Sum up cosine times strength over it. Divide by the sum of strengths over it.
# :::
#
# :::{dropdown} What you should see
# Four ticks, and then the curve of this page's model: one number for each layer.
# :::

# %% [markdown] tags=["solution"]
# :::{dropdown} What it means
# Strength counts within a head, and not between heads. The strengths of two heads have no common unit: the
# softmax of one head never sees the scores of the other. So a layer's number is a plain mean over heads. A
# strong head would otherwise speak for its whole layer.
# :::

# %% [markdown]
# ### Exercise 3.2. Chance with one strong mode
#
# *Medium, 20 minutes, predict first. Trains: what the null of a mean depends on.*
#
# Two heads have 24 modes each, and random directions. In one head all strengths are 1. In the other head the
# first mode has strength 24, and the rest have 1. How many times as wide is the band of chance of the second
# head? Guess, before you compute. Then draw the weighted cosine of such a head many times.

# %% tags=["exercise"]
# How many times as wide the second band is: 1 is as wide, 0.5 half as wide
prediction = 2.5  # solution


def by_chance(sigma, width, count):
    """Weighted cosines [count] of random directions in `width` dimensions.

    sigma [mode] holds the strengths. It is float64: draw with `dtype=sigma.dtype`.
    """
    u, v = torch.randn(2, count, len(sigma), width, dtype=sigma.dtype)  # solution
    cosine = torch.cosine_similarity(u, v, dim=-1)  # solution
    return (cosine * sigma).sum(-1) / sigma.sum()  # solution


# %% tags=["check"]
check.by_chance(by_chance, prediction)
even, uneven = torch.ones(2, 24).double()
uneven[0] = 24
spreads = [float(by_chance(each, 96, 2000).std()) for each in (even, uneven)]
np.round([*spreads, spreads[1] / spreads[0]], 3)

# %% [markdown]
# :::{dropdown} Hint 1
# A random direction has normal coordinates. `torch.randn` takes all sizes at once, such as [count, mode,
# width].
# :::
#
# :::{dropdown} Hint 2
# `torch.cosine_similarity(u, v, dim=-1)` divides by the lengths. What is left has the shape [count, mode].
# :::
#
# :::{dropdown} What you should see
# Four ticks, and then three numbers: a standard deviation for even strengths, one for uneven strengths, and the
# second divided by the first. The first one is close to $1/\sqrt{24 \cdot 96}$. The second band is wider. Compare
# the last number with your prediction.
# :::

# %% [markdown] tags=["solution"]
# :::{dropdown} What it means
# One strong mode decides the mean almost alone, and a single cosine varies a lot. So the band is *wider*. Training
# makes strengths uneven. So a band from random weights, with their even strengths, is too narrow. It would find
# likeness where there is chance.
# :::

# %% [markdown]
# ### Exercise 3.3. A layer that disagrees with itself
#
# *Easy, 5 minutes, with the view. Trains: reading heads behind a mean.*
#
# Go back to *Explore the curves*. Choose the model of this page (the first in the list) and the convention
# *exact*. In which layer do the heads lie furthest apart? Write down the layer, and the values of its highest and
# its lowest head. Type a minus sign yourself: Python does not read the view's.

# %% tags=["exercise"]
# The layer whose heads lie furthest apart, in the convention exact
divided = int(np.ptp(own.weighted_cosine[1].values, axis=1).argmax())  # solution
# Its highest head, as the view shows it
highest = float(own.weighted_cosine[1, divided].max())  # solution
# Its lowest head
lowest = float(own.weighted_cosine[1, divided].min())  # solution

# %% tags=["check"]
check.furthest(divided, highest, lowest, own)

# %% [markdown]
# :::{dropdown} Hint 1
# Look at the pale dots. Where does a column of dots reach furthest from top to bottom?
# :::
#
# :::{dropdown} Hint 2
# Choose the layer with the slider. The lines below the curves give the value of every head.
# :::
#
# :::{dropdown} What you should see
# Four ticks. If two layers are nearly as far apart, both count.
# :::

# %% [markdown] tags=["solution"]
# :::{dropdown} What it means
# The curve shows one number for this layer, and no head has it. Some heads of the layer group like with like
# more than the curve says, and others less. A mean over heads is a summary of heads that were trained for
# different jobs. So look at the dots before you name a layer.
# :::

# %% [markdown]
# ### Exercise 3.4. Neutral, or divided?
#
# *Hard, 30 minutes, in pairs. Trains: what a weighted cosine of zero can hide.*
#
# Each of you builds a head whose weighted cosine is 0. One way: every mode relates things that have nothing to do
# with each other. The other way: some modes group (cosine 1), others oppose (−1), and they cancel. Take rows of
# one orthogonal matrix as directions, and stretch them by the strengths. Give your modes different strengths: with
# equal ones, the modes are not determined. Hand over `w_q` and `w_k` alone. Can your partner tell which way you
# took? (Alone: build both heads yourself.) Then write one number that always tells: 0 for the first way, 1 for the
# second.


# %% tags=["exercise"]
def sides(w_q, w_k):
    """How much of a head's strength takes sides, for like or for unlike.

    w_q and w_k are [d_head, d_model]. The number lies between 0 and 1.
    """
    u, sigma, vt = torch.linalg.svd(w_q.T @ w_k)  # solution
    cosine = (u.T * vt).sum(1)[: len(w_q)]  # solution
    sigma = sigma[: len(w_q)]  # solution
    return (sigma * cosine.abs()).sum() / sigma.sum()  # solution


# %% tags=["check"]
check.sides(sides)

# %% [markdown]
# :::{dropdown} Hint 1
# The trace cannot help here: it has already added up what cancels. You need the modes one by one.
# :::
#
# :::{dropdown} Hint 2
# `torch.linalg.svd` gives $u_n$ as columns of its first part and $v_n$ as rows of its last. Only the first
# `d_head` modes have strength.
# :::
#
# :::{dropdown} Hint 3
# Take the size of each cosine before the weighted mean, not after it.
# :::
#
# :::{dropdown} What you should see
# Seven ticks. The last one changes the coordinates of queries and keys. So your partner can tell: not by the
# trace, which is 0 for both heads, but by the cosines of single modes.
# :::

# %% [markdown] tags=["solution"]
# :::{dropdown} What it means
# Two heads with a weighted cosine of 0 can do very different things. One is blind to likeness. The other
# looks for likeness along some directions, and for contrast along others. The price: the sizes of cosines are never
# negative, so chance no longer gives 0. Such a number needs a null of its own.
# :::

# %% [markdown]
# ## Quiz
#
# Choose an answer: each one says why it is right or wrong.
#
# **1. A layer's mean weighted cosine lies inside its band of chance. What follows?**
#
# :::{dropdown} Its heads have random directions, so each of them lies inside its own band
# :class-container: option
# No. Heads far above and far below zero can cancel in the mean. Look at single heads.
# :::
#
# :::{dropdown} Single heads may still lie far outside
# :class-container: option right
# Right. The band judges the mean alone. It says nothing about the heads behind it.
# :::
#
# :::{dropdown} The layer attends to nothing in particular
# :class-container: option
# No. Cosines are about weights, and attention needs tokens. A head can look for something that is unlike the query
# and no opposite of it either.
# :::
#
# **2. Why does one band for a single cosine not fit all models?**
#
# :::{dropdown} Wider models have stronger modes
# :class-container: option
# No. The cosine of two directions does not depend on strength.
# :::
#
# :::{dropdown} Larger models were trained on more data
# :class-container: option
# No. The band belongs to random directions, which saw no data.
# :::
#
# :::{dropdown} In more dimensions, random directions are closer to a right angle
# :class-container: option right
# Right. Their cosine has standard deviation $1/\sqrt{d}$. A band for one width is wrong for another.
# :::
#
# **3. A curve changes its sign between the conventions, close to zero. What do you report?**
#
# :::{dropdown} The value in the convention `exact` with its band, since this is what the head computes
# :class-container: option
# No. `exact` describes what the head computes, but a value near zero may be chance in either convention.
# :::
#
# :::{dropdown} Both values, each with its band
# :class-container: option right
# Right. Name the convention of each. If both lie beyond chance, the sign depends on LayerNorm. If one does not,
# nothing is to be explained.
# :::
#
# :::{dropdown} The mean of both values, with a band that holds for the mean
# :class-container: option
# No. The two numbers answer two questions: one with LayerNorm, one without it.
# :::

# %% [markdown]
# ## Did we reproduce it?
#
# Each row is one claim, with its number and its verdict. The rule is the same in the whole book, and
# {doc}`11_what_survives` gathers all rows. Real models are *computed elsewhere*: their numbers are stored in
# the repository.


# %% tags=["hide-input"]
def row(words, found, direction, name, layer=None, **more):
    """A row of the ledger on a real model."""
    null = real[name].null.sel(convention="paper")
    null = float(null.max()) if layer is None else float(null[layer])
    how = {"subject": name, "more": f"chance: a layer mean within ±{null:.3f}"}
    how["over"] = f"{raw[name].sizes['head']} heads a layer, one network"
    return ledger.claim(words, found, direction, "weighted cosine", **how, **more)


goals = qk.catalogue().objective.reindex(list(real)).fillna("").to_dict()
falls = {n: f"The weighted cosine of {called[n]}" for n in real}
falls = {n: f"{said}, a classifier, falls with depth." for n, said in falls.items()}
unlabelled = (
    "The weighted cosine of {} falls with depth, without labels in its training."
)
rising = "The weighted cosine of {} rises again in the last layers."
rows = []
for name, found in answers["late − early"].items():
    if goals[name] == "classification":
        rows.append(row(falls[name], found, -1, name, said_by="paper"))
    else:
        rows.append(row(unlabelled.format(called[name]), found, -1, name, seen=True))
for name, found in answers["last − middle"].items():
    if called[name] in ("DeiT", "DINOv2"):
        rows.append(row(rising.format(called[name]), found, 1, name, said_by="paper"))
name = next(n for n in raw if called[n] == "ViT")
last = np.eye(raw[name].sizes["layer"])[-1]
ends = statistics.over_depth(raw[name], last)
contrast = "The last layer of ViT looks for contrast, on the mean over its heads."
rows.append(row(contrast, ends, -1, name, layer=-1, seen=True))

# %% tags=["hide-input"]
still = "The weighted cosine of a classifier falls when the anisotropy is subtracted."
if goals.get(model.name, model.facts["objective"]) == "classification":
    over = f"{len(runs)} runs" if len(runs) > 1 else "heads, one network"
    who = f"{model.name} and its other runs" if len(runs) > 1 else model.name
    how = {"subject": who, "over": over, "said_by": "paper"}
    alone = np.mean(of_runs) - float(fall_less.estimate)
    how["more"] = f"the anisotropy alone: {alone:+.2f}"
    rows.append(ledger.claim(still, fall_less, -1, "weighted cosine", **how))
for name, of in less_real.items():
    how = {"subject": f"{name}, ImageNet", "images": of["images"], "said_by": "paper"}
    how |= {"over": f"{of['count']} heads a layer, one network"}
    how |= {"more": f"the anisotropy alone: {of['null']:+.2f}"}
    rows.append(ledger.claim(still, less_ends[name], -1, "weighted cosine", **how))

# %% tags=["hide-input"]
off = [1.96 / d**0.5 - published for d in widths[1:]]
fixed = "The band of random directions is ±0.123 rad in every model (Figs. S1, S2)."
range_of = f"right: ±{1.96 / widths[-1] ** 0.5:.3f} to ±{1.96 / widths[1] ** 0.5:.3f}"
how = {
    "subject": "widths of 192 to 1280",
    "over": "",
    "said_by": "paper",
    "more": range_of,
}
identity = ledger.claim(fixed, None, 1, "weighted cosine", **how)
identity["verdict"] = statistics.verdict_of_identity(max(map(abs, off)), 0.005)
ledger.Rows([*rows, identity])

# %% tags=["hide-input"]
origin = ("fingerprint", "code_version", "computed")
origins = {n: [found.attrs[key] for key in origin] for n, found in kept.items()}
again = {n: abs(fresh[n] - kept[n]).weighted_cosine.max() for n in fresh if n in kept}
differs = "; ".join(f"{n}, by {float(most):.0e} at most" for n, most in again.items())
tell(differs=differs or "none", tensors=stored.tensors(kept))
computed = [*fresh] if is_embedded(model) else [*(fresh | {model.name: own})]
tell(computed=", ".join(computed) or "none")
tell(
    origins="; ".join(
        f"{name}: fingerprint {weights}, code {code}, computed {day}"
        for name, (weights, code, day) in origins.items()
    )
)

# %% [markdown]
# :::{dropdown} Where these numbers come from
# The curves of real models come from tables in the repository, made with this package from their weights.
# {glue:text}`origins`. {glue:text}`tensors`
#
# Real models at hand, if `MODEL` or `MODELS` names them, are computed again. Computed by the run that made this
# page: {glue:text}`computed`. Of these, the curves that differ from the stored ones: {glue:text}`differs`. The
# same run computed the numbers of small models. Whether small classifiers fall is judged in
# {doc}`04_training_objective`, over training runs.
# :::
#
# The paper's Fig. 3 has no intervals, and its 16 models differ in data, size and training at once. Such
# models can show *that* a curve falls. To say *why* it falls, we need models that differ in one thing only.
#
# ## What was found
#
# - **Real transformers begin with likeness.** In the first layer the three models reach
#   {glue:text}`deit_first:.2f` (DeiT), {glue:text}`vit_first:.2f` (ViT) and {glue:text}`dino_first:.2f` (DINOv2).
#   Chance would give at most ±{glue:text}`first_chance`.
# - **Their curves fall**, with labels (DeiT {glue:text}`deit_fall`, ViT {glue:text}`vit_fall`) and without
#   (DINOv2 {glue:text}`dinov2_fall`, if its tensors were not tuned afterwards). With the anisotropy subtracted, DeiT
#   rises ({glue:text}`deit_less`), and of ViT no fall is left ({glue:text}`vit_less`). Over the
#   training runs of {glue:text}`model`, the curve moves by {glue:text}`fall_less`.
# - **They part at the end.** DeiT and DINOv2 rise again ({glue:text}`deit_rise` and
#   {glue:text}`dinov2_rise`). ViT ends below zero, at {glue:text}`vit_last:.2f`, and beyond chance.
# - **The published band of chance is wrong for most widths.** It holds {glue:text}`inside_small` % of random
#   cosines in 192 dimensions, and {glue:text}`inside_base` % in 768.
# - **The convention can turn a sign** where a curve is near zero: {glue:text}`flips`.
#
# *Worth keeping.* The weighted cosine is a trace divided by a nuclear norm. The band of chance for a mean
# depends on how many modes carry the weight.
#
# **Limits.** Cosines are about weights. Only images can show whether tokens have anything along a direction,
# and whether a head attends to the same object. One network per objective cannot show an effect of the
# objective.
#
# **Further reading.** The paper's own discussion of its Fig. 3, section 4.2
# {cite}`pan2024dissecting`; the two real classifiers {cite}`touvron2021training,steiner2022train`; the
# library they come from {cite}`wightman2019timm`.
#
# **Next.** DeiT, ViT and DINOv2 end differently, and they differ in many things at once. What if only the
# training goal differed? {doc}`04_training_objective` asks this in a small world.
