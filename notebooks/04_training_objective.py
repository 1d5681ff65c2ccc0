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
# Figure 3 of the paper {cite}`pan2024dissecting` shows the weighted cosine over depth. In many
# classifiers it falls. In SimMIM and DINO, which were trained without labels, it rises in the last
# layers. But it also rises in DeiT and ViT-huge, which had labels. Section 4.2 of the paper suspects
# the training objective. Its 16 models cannot tell, because they differ in many things at once: data,
# size, schedule, authors. In this chapter everything is the same except the objective, as far as
# possible. So we can ask the paper's question in a small world.
#
# :::{admonition} Before you start
# **After this chapter you can**
# - say why 16 published models cannot answer a question about objectives;
# - state a contrast before you look, and give it an interval over training runs;
# - use fine-tuning as an intervention: the same network before and after;
# - say what a result in a toy world allows you to claim, and what not.
#
# **You need** chapters 2 and 3, {doc}`02_embedded_world` and {doc}`03_cosine_trends`. The mean of a
# few numbers and its interval by Student's t.
#
# **Time**: 25 minutes to read, under a minute to run on a laptop, 15 minutes for the exploration,
# 45 minutes to teach. Runs with no GPU and no network.
# :::

# %% tags=["parameters", "hide-input"]
# MODEL: a model outside the family is drawn beside it
MODEL = "tiny-supervised"
# IMAGES, IMAGE_SIZE: not needed here: the answer comes from the weights alone
IMAGES = ""
IMAGE_SIZE = 0
# MODELS: published models to draw beside the family; none: those that are stored
MODELS = []
# Random weights in place of the trained ones, to see what the verdicts become
UNTRAINED = False

# %% tags=["hide-input"]
import matplotlib.pyplot as plt
import pandas as pd
import xarray as xr

import qkutils as qk
from qkutils import models, modes, statistics, views
from qkutils.views import figures as plots
from qkutils.book import live, stored, tell
from qkutils.world.training import publish

# %% [markdown]
# ## One world, one network, several objectives
#
# All embedded models have the same architecture. Models with the same seed started from the same random
# weights. They saw the same scenes in the same order, and the optimiser was the same. SimMIM hides
# patches of a scene, and DINO cuts crops out of it. What differs is the task:
#
# - *supervised*: say in what an object is odd, and name its kind and colour;
# - *simmim*: see half of the patches, and predict the pixels of the others {cite}`xie2022simmim`;
# - *dino*: agree with a teacher about crops of a scene. The teacher is a copy of the network that
#   follows it slowly {cite}`caron2021emerging`;
# - *simmim-finetuned*: start from the SimMIM model, and train with labels as *supervised* does, for half
#   as long and at a lower rate;
# - *simmim-continued*: start from the SimMIM model, and train further on masked pixels, with a new
#   decoder. Time and rate are those of *simmim-finetuned*. This is the control of fine-tuning;
# - *untrained*: no training. This is the null of every comparison.

# %%
family = models.family()
names = {objective: dict(row.dropna()) for objective, row in family.iterrows()}
runs = {objective: len(by_seed) for objective, by_seed in names.items()}
tell(runs=", ".join(f"{count} of {objective}" for objective, count in runs.items()))
family.where(family.notna(), "not trained yet").rename_axis(None)

# %% [markdown]
# Rows are objectives, columns are seeds. The training runs are: {glue:text}`runs`. One run is one
# replicate. Heads and layers of one network are not replicates, because they were trained together. Two
# seeds differ in the first weights and in the random masks and crops. They do not differ in the scenes.
# So an interval over seeds says what another start might give. It does not say what other data might
# give.
#
# ### Have they learned anything?
#
# A trend means little in a network that has learned nothing. The card of each model says what it can do
# on held-out scenes. The table shows the first seeds.

# %% tags=["hide-input"]
first = [by_seed[0] for by_seed in names.values()]
cards = {name: publish.measured(name)["as published (float16)"] for name in first}
order = ["linear probe", "nearest neighbours", "kind", "colour", "odd factor"]
order += ["masked error", "by median colour", "by interpolation"]
pd.DataFrame(cards).reindex(order).map("{:.3f}".format).replace("nan", "–")

# %% [markdown]
# How to read the rows:
#
# - *linear probe*: a linear classifier on frozen features names the kind and colour of the distractors.
# - *nearest neighbours*: the ten scenes with the most similar features vote on the same answer.
# - *kind*, *colour*, *odd factor*: the shares of right answers to the three questions of chapter 2.
# - *masked error*: the mean absolute error of the pixels that the SimMIM model could not see. The
#   decoder of *simmim-continued* started anew.
# - *by median colour*, *by interpolation*: the same error, for a model that only repeats the scene's
#   median colour, and for one that interpolates between the visible pixels.
#
# Chance is 1 in 36 in the first two rows. But even the features of an untrained network tell much. So
# compare each number with the one in the last column.
#
# ## The questions, before we look
#
# :::{admonition} Predict, then look
# :class: tip
# Which task makes tokens look for similar tokens? To predict a hidden patch from the visible ones? To
# find the odd object among similar ones? Or to recognise that two crops come from one scene?
# :::
#
# We fix four questions before we look. They come from the paper's figure 3 and section 4.2:
#
# 1. **The primary question.** Does the weighted cosine move differently with depth under two objectives?
#    For each model we take the mean over the last third of the layers minus the mean over the first
#    third. Then we subtract the number of *supervised* from the number of *simmim*, within each seed.
# 2. *Does the supervised curve fall?* The same number, for *supervised* alone.
# 3. *Do simmim and dino end above zero?* The mean over the last third of the layers.
# 4. *Does fine-tuning with labels lower the late layers?* The mean over the last third, in
#    *simmim-finetuned* minus *simmim-continued*, within each seed. Both start from the same network, and
#    train for the same number of steps at the same rate. Only one of them gets labels.
#
# Each number gets an interval over seeds, not over heads. With few seeds the interval is wide, and it
# should be. Only the first question is primary. The reason: among several 95 % intervals, one may easily
# miss the truth by chance.

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
# In {numref}`fig-objectives`, look at the thin lines first. They show how much runs of one objective
# differ. Two objectives differ clearly only if their thick lines lie further apart than that.
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
# **Primary question.** From early to late layers, *simmim* moves by {glue:text}`primary` more than
# *supervised*: {glue:text}`primary_words`.
#
# *supervised* alone moves by {glue:text}`supervised_turn`. The last third lies at
# {glue:text}`simmim_late` in *simmim*, and at {glue:text}`dino_late` in *dino*. Fine-tuning with labels
# {glue:text}`tuned_words` in the last third: {glue:text}`tuned`.
# :::
#
# :::{admonition} Predict, then look
# :class: tip
# Suppose that every network had its random weights from before the training. What would the table say?
# Build the page with `UNTRAINED = True`, and see whether any claim still holds. (A difference within a
# seed then compares a network with itself. So only the numbers of a single objective are a real test.)
# :::
#
# ## Fine-tuning as an intervention
#
# So far we compared networks that went different ways from the start. Fine-tuning starts from a trained
# network and changes the objective. It has a new output layer, a lower rate and half the steps. If the
# new task needs other cosines, the cosines should move. But they may also move simply because training
# goes on. So we need a control: the same network, trained for as long and at the same rate, but *without*
# labels. If both change alike, the labels are not the cause.

# %% tags=["hide-input"] mystnb={"figure": {"name": "fig-finetuning", "caption": "What fine-tuning with labels changes, for each seed. Open circles: the SimMIM model. Filled circles: the same network after fine-tuning. Light dotted line: the same network, trained further without labels. Dark dotted line: the supervised model of the seed."}, "image": {"alt": "For every layer two dots joined by a line: weighted cosine before and after fine-tuning; and curves of the control and of the supervised model."}}
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
# In {numref}`fig-finetuning`, compare open and filled circles: in which layers do the cosines move? Then
# compare the filled circles with the control: do they leave its curve? Some layers hardly move. Perhaps
# they serve both objectives, perhaps nothing pushes them. The figure cannot tell.
#
# ## Beside real models
#
# The small family shows what an objective can do. Published models also differ in their objective, but
# in everything else as well. Their curves are dashed below. Those *computed elsewhere* come from tables in
# the repository. If `MODEL` is not one of the family, its curve is dashed, too.

# %% tags=["hide-input"]
own = {} if any(MODEL in of.values() for of in names.values()) else live([MODEL])
at_hand = own | (live(MODELS) if MODELS else {})
tables = stored.chosen("modes", MODELS and [*MODELS, *at_hand])
of_paper = {n: table.sel(convention="paper") for n, table in tables.items()}
kept = {n: t.cosine.weighted(t.sigma).mean("mode") for n, t in of_paper.items()}
fresh = {n: qk.weighted_cosine(of, convention="paper") for n, of in at_hand.items()}
real = {
    f"{n} (computed elsewhere)": c for n, c in kept.items() if n not in fresh
} | fresh
again = {n: float(abs(fresh[n] - kept[n]).max()) for n in fresh.keys() & kept.keys()}
differs = "; ".join(f"{n}, by {most:.0e} at most" for n, most in sorted(again.items()))
tell(beside=", ".join(real), tensors=stored.tensors(kept), differs=differs or "none")

# %% tags=["hide-input"] mystnb={"figure": {"name": "fig-beside-real", "caption": "The mean curve of each embedded objective, and real models (dashed). Depth is relative, since depths differ."}, "image": {"alt": "Curves of weighted cosine over relative depth for the embedded objectives and for the stored real models."}}
fig, ax = plt.subplots(figsize=(7.5, 5), layout="constrained")
plots.band(ax, layer_band, "random directions, one embedded run (95 %)")
for objective, of in curves.items():
    plots.over_depth(
        ax,
        xr.concat(list(of.values()), "seed").mean(["seed", "head"]),
        objective,
        looks[objective],
    )
for name, look in plots.looks(real).items():
    plots.over_depth(ax, real[name].mean("head"), name, look | {"color": "0.3"}, "--")
ax.set_ylabel("weighted cosine")
_ = fig.legend(fontsize=8, loc="outside lower center", ncols=2)

# %% [markdown]
# The dashed curves belong to {glue:text}`beside`. Computed here and stored, and how much a head's two
# numbers differ: {glue:text}`differs`. {glue:text}`tensors`
#
# ## Explore: heads behind the means
#
# A mean hides its heads. Step through the objectives. Each dot is one head of one run.

# %% tags=["hide-input"]
head_band = layer_band * curves["untrained"][0].sizes["head"] ** 0.5  # for one head
frames = [
    plots.heads_of_runs(list(of.values()), head_band, looks[o], o)
    for o, of in curves.items()
]
texts = [f"Weighted cosine of every head over depth; objective: {o}." for o in curves]
views.stepper(frames, list(curves), texts, "objective")

# %% [markdown]
# **Try it.** Find an objective in which a layer's mean is near zero because heads of both signs cancel.
# (Look for one column with dots above and below the band.) Now take a network whose mean lies above
# zero. Does one of its heads look for contrast?
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
# | Figure 3: fine-tuning with labels takes late cosine away from SimMIM (compared with training further without labels) | {glue:text}`tuned` | {glue:text}`verdict_tuned` |
#
# The paper contradicts itself in one point. Its list of contributions says that some self-supervised
# models attend more to *dissimilar* tokens in their last layers. Its section 4.2 and its figures say
# *similar*. We test *similar*.
#
# ## What to remember
#
# - To blame the objective, hold everything else fixed, and train more than once.
# - The replicate is the training run. Heads and layers of one network are not replicates.
# - State the contrast first. What you find afterwards is a hint for the next experiment.
# - Fine-tuning follows one network through a change of objective. Its control is the same network,
#   trained for as long without the change.
#
# **Limits.** The networks have eight layers and 96 dimensions, the pictures 64 × 64 pixels, and there are
# few runs. A clear contrast here shows that the objective *can* have this effect, all else being equal.
# It does not show that the objective had this effect in the paper's models: their scale, data and recipe
# differ, too. A contrast that is missing here may need more depth or richer pictures. Cosines are about
# weights. They do not say what a head attends to in pictures.
#
# **Further reading.** SimMIM {cite}`xie2022simmim`, DINO {cite}`caron2021emerging`, and the paper's
# section 4.2 {cite}`pan2024dissecting`.
#
# **Next.** {doc}`05_odd_one_out` leaves the weights and looks at attention in pictures.
