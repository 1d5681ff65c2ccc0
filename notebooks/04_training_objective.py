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
# (ch-objective)=
# # Does the training objective decide?
#
# In figure 3 of the paper {cite}`pan2024dissecting` many classifiers fall with depth; SimMIM and DINO,
# which were trained without labels, rise in their last layers, and so do DeiT and ViT-huge, which had
# labels. Its section 4.2 suspects the objective. But its 16 models differ in many things at once:
# data, size, schedule, authors. Here as much as possible is held fixed except the objective. This chapter asks the paper's question
# of a small world where it can be answered.
#
# :::{admonition} Before you start
# **After this chapter you can**
# - say why 16 published models cannot answer a question about objectives;
# - state a contrast before you look, and give it an interval over training runs;
# - use fine-tuning as an intervention: the same network before and after;
# - say what a result in a toy world allows you to claim, and what not.
#
# **You need** chapters 2 and 3, {doc}`02_cosine_trends` and {doc}`03_embedded_world`. The mean of a
# few numbers and its interval by Student's t.
#
# **Time**: 25 minutes to read, under a minute to run on a laptop, 15 minutes for the exploration,
# 45 minutes to teach. Runs with no GPU and no network.
# :::

# %% tags=["parameters", "hide-input"]
# MODEL: a model outside the family is drawn beside it
MODEL = "tiny-supervised"
# IMAGES: not needed here: the answer comes from the weights alone
IMAGES = ""
# Random weights in place of the trained ones, to see what the verdicts become
UNTRAINED = False

# %% tags=["hide-input"]
import matplotlib.pyplot as plt
import pandas as pd
import xarray as xr

import qkutils as qk
from qkutils import models, modes, statistics, views
from qkutils.views import figures as plots
from qkutils.book import stored, tell
from qkutils.world.training import publish

# %% [markdown]
# ## One world, one network, several objectives
#
# Every embedded model is the same vision transformer and started from the random weights of its seed.
# Each sees the same scenes in the same order, with the same optimiser, through its own masks or crops.
# What it is asked differs:
#
# - *supervised*: say in what an object is odd, and name its kind and colour;
# - *simmim*: see half of the patches, and predict the pixels of the others {cite}`xie2022simmim`;
# - *dino*: agree about crops of a scene with a teacher, a copy of the network that follows it slowly
#   {cite}`caron2021emerging`;
# - *simmim-finetuned*: the SimMIM model, then trained on as the supervised one, for half as long and at
#   a lower rate;
# - *simmim-continued*: the SimMIM model, trained on with masked pixels and a fresh decoder, as long and
#   at the same rate: the control of fine-tuning;
# - *untrained*: nothing. The null of every comparison.

# %%
family = models.family()
names = {objective: dict(row.dropna()) for objective, row in family.iterrows()}
runs = {objective: len(by_seed) for objective, by_seed in names.items()}
tell(runs=", ".join(f"{count} of {objective}" for objective, count in runs.items()))
family.where(family.notna(), "not trained yet").rename_axis(None)

# %% [markdown]
# Rows are objectives, columns are seeds. Training runs: {glue:text}`runs`. A run is one replicate.
# Heads and layers of one network are not, since they were trained together. Seeds differ in the
# first weights and in the chances of masks and crops, not in scenes: an interval over seeds says
# what another beginning might give, not other data.
#
# ### Have they learned anything?
#
# A trend of a network that learned nothing means nothing. What each can do on held-out scenes stands
# on its card; these are the first seeds.

# %% tags=["hide-input"]
first = [by_seed[0] for by_seed in names.values()]
cards = {name: publish.measured(name)["as published (float16)"] for name in first}
order = ["linear probe", "nearest neighbours", "kind", "colour", "odd factor"]
order += ["masked error", "by median colour", "by interpolation"]
pd.DataFrame(cards).reindex(order).map("{:.3f}".format).replace("nan", "–")

# %% [markdown]
# The linear probe (a linear classifier on frozen features) and the nearest neighbours (a vote of the ten
# scenes with the most similar features) name the kind and colour that the many objects of a scene
# have. Chance is 1 in 36, but the features of an untrained network already tell much: read each
# number beside that of the last column. *masked error* is the mean absolute error of the pixels that the
# SimMIM model could not see. The rows below show the error of a model that only repeats the scene's median
# colour, and of one that interpolates between what it sees. That of *simmim-continued* comes from a decoder
# that began anew. Kind, colour and odd factor are the shares
# of right answers.
#
# ## The questions, before we look
#
# :::{admonition} Predict, then look
# :class: tip
# Which of the objectives makes tokens look for what is like them? Predicting a hidden patch from
# the visible ones; finding the odd object among its like; or telling scenes apart by their crops?
# :::
#
# From the paper's figure 3 and section 4.2 we take, beforehand:
#
# 1. **The primary question.** Do objectives differ in how the weighted cosine moves with depth? The
#    contrast is the mean over the last third of the layers minus that over the first third, in
#    *simmim* minus *supervised*, within each seed.
# 2. *Does the supervised curve fall?* The same contrast, for *supervised* alone.
# 3. *Does simmim end above zero, and dino?* The mean over the last third.
# 4. *Does fine-tuning with labels take the late turn away?* The mean over the last third, in
#    *simmim-finetuned* minus *simmim-continued*, within each seed: both begin with the same network and
#    train on for the same steps at the same rate, and only one of them gets labels.
#
# Each gets an interval over seeds, not over heads. With few seeds it is wide, and it should be. Only
# the first question is primary: of several intervals at 95 %, one or the other misses by chance.

# %%
used = {o: names["untrained" if UNTRAINED else o] for o in names}
curves = {
    objective: {
        seed: qk.weighted_cosine(name, convention="paper")
        for seed, name in by_seed.items()
    }
    for objective, by_seed in used.items()
}

# %% tags=["hide-input"]
bands = []
for by_seed in used.values():
    parts = qk.decompose(by_seed[0], convention="paper")
    band = modes.null_of_layers(
        parts.sigma, qk.null_band(by_seed[0], convention="paper")
    )
    bands.append(band.reset_coords(drop=True))
layer_band = xr.concat(bands, "objective").max("objective")

# %% tags=["hide-input"] mystnb={"figure": {"name": "fig-objectives", "caption": "Weighted cosine over depth, convention paper, for each objective. Thin lines: training runs (mean over heads); thick line: their mean. The grey band, point by point, is the widest that random directions would give the layer mean of one run of any objective: by chance, at most about one point in twenty lies outside."}, "image": {"alt": "One panel for each objective with thin curves for training runs and a thick mean curve over relative depth, over a grey null band around zero."}}
looks = plots.looks(curves)
fig, axes = plt.subplots(
    2, 3, figsize=(7.5, 5), sharex=True, sharey=True, layout="constrained"
)
for ax, (objective, of) in zip(axes.flat, curves.items(), strict=True):
    plots.band(ax, layer_band, "")
    plots.runs(ax, list(of.values()), looks[objective])
    ax.set_title(objective, fontsize=10)
    ax.label_outer()
_ = fig.supylabel("weighted cosine")

# %% [markdown]
# Step through {numref}`fig-objectives` from left to right, and look at the spread of the thin lines
# before the thick ones: an objective can only be told from another by more than its runs differ.
#
# ## The answers


# %%
def of_every_run(contrast):
    """A contrast's estimate for every objective and seed."""
    return {
        objective: {seed: float(contrast(curve).estimate) for seed, curve in of.items()}
        for objective, of in curves.items()
    }


def over_runs(values, one):
    """The mean over an objective's runs, with its interval."""
    return statistics.over_runs(list(values[one].values()))


# %%
def within_seeds(values, one, other):
    """The mean difference between two objectives within each seed that both have."""
    both = sorted(values[one].keys() & values[other].keys())
    return statistics.over_runs([values[one][s] - values[other][s] for s in both])


turn, late = of_every_run(statistics.late_minus_early), of_every_run(statistics.late)
answers = {
    "late − early: simmim − supervised": within_seeds(turn, "simmim", "supervised"),
    "late − early: supervised": over_runs(turn, "supervised"),
    "late: simmim": over_runs(late, "simmim"),
    "late: dino": over_runs(late, "dino"),
    "late: fine-tuned − continued": within_seeds(
        late, "simmim-finetuned", "simmim-continued"
    ),
}

# %% tags=["hide-input"]
more = {
    "late: continued − simmim": within_seeds(late, "simmim-continued", "simmim"),
    "late − early: dino − supervised": within_seeds(turn, "dino", "supervised"),
    "late − early: simmim − untrained": within_seeds(turn, "simmim", "untrained"),
    "late: fine-tuned − supervised": within_seeds(
        late, "simmim-finetuned", "supervised"
    ),
}

# %% tags=["hide-input"]
rows = {"asked beforehand": answers, "seen afterwards": more}
table = pd.DataFrame(
    [
        (when, what, statistics.text(c))
        for when, of in rows.items()
        for what, c in of.items()
    ],
    columns=[
        "",
        "contrast of the weighted cosine",
        "estimate and 95 % interval over seeds",
    ],
)
table.set_index("").rename_axis(None)

# %% tags=["hide-input"] mystnb={"figure": {"name": "fig-contrasts", "caption": "Left: late minus early layers. Right: late layers; the scales differ. Each pale dot is one training run, the marker below it the mean, and the bar its 95 % interval, absent for a single run."}, "image": {"alt": "Two panels of dots for training runs by objective, with the mean and its interval for each."}}
fig, axes = plt.subplots(1, 2, figsize=(7.5, 3.2), sharey=True, layout="constrained")
for ax, values, label in zip(
    axes, (turn, late), ("late − early layers", "late layers"), strict=True
):
    for at, (objective, of) in enumerate(values.items()):
        mean, look = over_runs(values, objective), looks[objective]
        plots.replicates(ax, at, list(of.values()), mean, look)
    ax.axvline(0, color="0.4", lw=0.8)
    ax.set_yticks(range(len(values)), list(values))
    ax.set_ylim(len(values) - 0.5, -0.5)
    ax.set_xlabel(f"weighted cosine, {label}")

# %% tags=["hide-input"]
primary = answers["late − early: simmim − supervised"]
tuned = answers["late: fine-tuned − continued"]
rising = {
    -1: "simmim ends lower, relative to its beginning, than supervised",
    0: "no difference can be told",
    1: "simmim ends higher, relative to its beginning, than supervised",
}
lower = {-1: "takes cosine away", 0: "makes no clear difference", 1: "adds cosine"}

# %% tags=["hide-input"]
tell(
    primary=statistics.text(primary),
    primary_words=rising[int(statistics.sign(primary))],
    supervised_turn=statistics.text(answers["late − early: supervised"]),
    simmim_late=statistics.text(answers["late: simmim"]),
    dino_late=statistics.text(answers["late: dino"]),
    tuned=statistics.text(tuned),
    tuned_words=lower[int(statistics.sign(tuned))],
)

# %% [markdown]
# :::{dropdown} What the run says
# **Primary question.** From early to late layers the curve of *simmim* minus that of *supervised* is
# {glue:text}`primary`: {glue:text}`primary_words`.
#
# The contrast of *supervised* alone is {glue:text}`supervised_turn`. The last third lies at
# {glue:text}`simmim_late` in *simmim*, and at {glue:text}`dino_late` in *dino*. Fine-tuning with labels
# {glue:text}`tuned_words` in the last third: {glue:text}`tuned`.
# :::
#
# :::{admonition} Predict, then look
# :class: tip
# What will the table say if every network is replaced by its untrained beginning? Build the page
# with `UNTRAINED = True` and see whether a verdict is left. (Differences within a seed are then those of
# a network with itself; it is the contrasts of one objective that are put to the test.)
# :::
#
# ## Fine-tuning as an intervention
#
# A comparison of objectives compares networks that went different ways from the start. Fine-tuning
# starts from a trained network and changes the objective, with a new head, a lower rate and half the
# steps. If the new task needs other cosines, they should move. But training on moves them too: the
# control begins with the same network and does all that fine-tuning does, without the labels. What
# counts is how far the two end apart.

# %% tags=["hide-input"] mystnb={"figure": {"name": "fig-finetuning", "caption": "What fine-tuning with labels changes: the SimMIM model of a seed (open) and the same network after fine-tuning (filled), layer by layer; the same network trained on without labels, and the supervised model of the seed, for comparison (lines)."}, "image": {"alt": "For every layer two dots joined by a line: weighted cosine before and after fine-tuning; and curves of the control and of the supervised model."}}
before, after = (curves[o] for o in ("simmim", "simmim-finetuned"))
seeds = sorted(before.keys() & after.keys() & curves["simmim-continued"].keys())
fig, axes = plt.subplots(
    1, len(seeds), figsize=(7.5, 3.2), sharey=True, squeeze=False, layout="constrained"
)
for seed, ax in zip(seeds, axes[0], strict=True):
    plots.before_and_after(ax, before[seed], after[seed], looks["simmim-finetuned"])
    for other in ("simmim-continued", "supervised"):
        plots.over_depth(ax, curves[other][seed].mean("head"), other, looks[other], ":")
    ax.axhline(0, color="0.4", lw=0.8)
    ax.set_title(f"seed {seed}")
axes[0, 0].set_ylabel("weighted cosine")
shown = axes[0, 0].get_legend_handles_labels()
_ = fig.legend(*shown, fontsize=8, loc="outside lower center", ncols=4)

# %% [markdown]
# In {numref}`fig-finetuning`, which layers' cosines move, and do the filled dots leave the control's
# curve? Layers that hardly move may serve both objectives, or nothing pushes them; the figure cannot
# tell.
#
# ## Beside real models
#
# The small family says what the objective can do. Published models add what it did elsewhere, mixed
# with everything else that differs. The dashed curves below come from tables in the repository. A
# `MODEL` outside the family is drawn too.

# %% tags=["hide-input"]
elsewhere = {n: stored.read("modes", n).sel(convention="paper") for n in stored.names()}
real = {n: t.cosine.weighted(t.sigma).mean("mode") for n, t in elsewhere.items()}
if not any(MODEL in by_seed.values() for by_seed in names.values()):
    real |= {MODEL: qk.weighted_cosine(MODEL, convention="paper")}
tell(beside=", ".join(real))

# %% tags=["hide-input"] mystnb={"figure": {"name": "fig-beside-real", "caption": "The mean curve of each embedded objective, and real models from stored tables (computed elsewhere). Depth is relative, since depths differ."}, "image": {"alt": "Curves of weighted cosine over relative depth for the embedded objectives and for the stored real models."}}
fig, ax = plt.subplots(figsize=(7.5, 5), layout="constrained")
plots.band(ax, layer_band, "random directions, one embedded run (95 %)")
for objective, of in curves.items():
    plots.over_depth(
        ax,
        xr.concat(list(of.values()), "seed").mean(["seed", "head"]),
        objective,
        looks[objective],
    )
for (name, curve), marker in zip(real.items(), "xPd", strict=False):
    plots.over_depth(
        ax, curve.mean("head"), name, {"color": "0.3", "marker": marker}, "--"
    )
ax.set_ylabel("weighted cosine")
_ = fig.legend(fontsize=8, loc="outside lower center", ncols=2)

# %% [markdown]
# Dashed: {glue:text}`beside`.
#
# ## Explore: heads behind the means
#
# Means hide heads. Step through the objectives; each dot is one head of one run.

# %% tags=["hide-input"]
head_band = layer_band * curves["untrained"][0].sizes["head"] ** 0.5  # for one head
frames = [
    plots.heads_of_runs(list(of.values()), head_band, looks[o], o)
    for o, of in curves.items()
]
texts = [f"Weighted cosine of every head over depth; objective: {o}." for o in curves]
views.stepper(frames, list(curves), texts, "objective")

# %% [markdown]
# **Try it.** Find an objective in which a layer's mean is near zero because heads of both signs
# cancel. Is there a head that looks for contrast in a network whose mean groups like with like?
# (Look for dots on both sides of the band in one column.)
#
# ## Did we reproduce it?

# %% tags=["hide-input"]
falls = answers["late − early: supervised"]
late_simmim, late_dino = answers["late: simmim"], answers["late: dino"]
measure = "weighted cosine"
tell(
    verdict_primary=statistics.verdict(primary, 1, measure),
    verdict_falls=statistics.verdict(falls, -1, measure),
    verdict_simmim=statistics.verdict(late_simmim, 1, measure),
    verdict_dino=statistics.verdict(late_dino, 1, measure),
    verdict_tuned=statistics.verdict(tuned, -1, measure),
)

# %% [markdown]
# | claim | this run, over training runs | verdict in this world |
# |---|---|---|
# | Section 4.2: from early to late layers, masked pixels move the curve up in comparison to labels | {glue:text}`primary` | {glue:text}`verdict_primary` |
# | Figure 3: classifiers fall with depth | {glue:text}`supervised_turn` | {glue:text}`verdict_falls` |
# | Figure 3: SimMIM attends to similar tokens in its late layers | {glue:text}`simmim_late` | {glue:text}`verdict_simmim` |
# | Figure 3: DINO does so too | {glue:text}`dino_late` | {glue:text}`verdict_dino` |
# | Figure 3: fine-tuning with labels takes late cosine away from SimMIM (over training on without labels) | {glue:text}`tuned` | {glue:text}`verdict_tuned` |
#
# The paper's own contribution list says that some self-supervised models attend more to *dissimilar*
# tokens in their last layers; its section 4.2 and its figures say *similar*. We test the second.
#
# ## What to remember
#
# - To blame the objective, hold everything else fixed, and train more than once.
# - The replicate is the training run. Heads and layers of one network are not replicates.
# - State the contrast first; what you find afterwards is a hint for the next experiment.
# - Fine-tuning follows one network through a change of objective. Its control is the same training on
#   without the change.
#
# **Limits.** Networks of eight layers and 96 dimensions, pictures of 64 × 64 pixels, a few runs. A
# contrast that is clear here shows that the objective *can* do this with all else equal. It does not
# show that it did so in the paper's models, where scale, data and recipe differ too; and a contrast
# that is missing here may need more depth or richer pictures. Cosines are about weights, not about
# what a head attends to in pictures.
#
# **Further reading.** SimMIM {cite}`xie2022simmim`, DINO {cite}`caron2021emerging`, and the paper's
# section 4.2 {cite}`pan2024dissecting`.
#
# **Next.** {doc}`05_odd_one_out` leaves the weights and looks at attention in pictures.
