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
# (ch-names)=
# # Do modes with a clear meaning matter more?

# %% tags=["parameters", "hide-input"]
# MODEL: a name that qkutils.load takes, or the path of a checkpoint file
MODEL = "tiny-supervised"
# IMAGE_SIZE: the side of the pictures that the model gets, in pixels; 0: as it is used by default
IMAGE_SIZE = 0
# IMAGES: not needed here: names are measured in drawn scenes
IMAGES = ""
# MODELS: not needed here: this chapter asks models that can answer about drawn scenes
MODELS = []
# How many scenes are drawn, for the names
COUNT = 256

# %% tags=["hide-input"]
import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import torch
import xarray as xr

import qkutils as qk
from qkutils import models, statistics, views
from qkutils.views import figures as plots
from qkutils.book import is_embedded, ledger, stored, tell
from qkutils.book.checks import names_and_causes as check

place = "L{} H{} M{}".format
runs = [
    name for name in models.family().loc["supervised"] if name in stored.names("causes")
]
causes = {name: stored.read("causes", name) for name in runs}
lost = {name: found.sel(of="mode") for name, found in causes.items()}

# %% tags=["hide-input"] mystnb={"figure": {"name": "fig-causes", "caption": "Each dot is a mode of tiny-supervised. Across: how clear its name is. This is the explained share: the part of its variance that its measured names explain (mean of the query's and the key's). Up: what the model loses when this one mode is removed. This is the growth of the cross-entropy, which is large where the model gives the right answer little probability (sum of three questions; linear around zero, logarithmic above). Colour: the carried share of chapter 8, which is the mode's part of the variance of its head's logits. Computed elsewhere."}, "image": {"alt": "A scatter of explained share against the loss without the mode. Nearly all dots lie on the zero line or close to it, whatever their explained share; about twenty-five rise above it."}}
first_run = lost[runs[0]]
fig, ax = plt.subplots(figsize=(7, 3.8), layout="constrained")
look = {"c": first_run.carried, "cmap": plots.SEQUENTIAL, "s": 12, "vmin": 0}
dots = ax.scatter(first_run.share, first_run.loss, **look)
ax.set_yscale("symlog", linthresh=0.01)
ax.axhline(0, **plots.ZERO)
ax.set(xlabel="explained share of its names", ylabel="cross-entropy gained without it")
_ = fig.colorbar(dots, ax=ax, label="carried share")

# %% [markdown]
# Some modes have a clear meaning: they select red things, or the background. Are these the modes that the
# model needs? The paper leaves this question open {cite}`pan2024dissecting`. For {numref}`fig-causes` we removed
# each mode of one model, one at a time, and asked the model its questions again. Nearly all dots lie on the
# line or close to it: without this mode, the model answers as before. A few dots lie just below the line, which
# shows how noisy single costs are. {glue:text}`costly` dots lie above 0.01. Their names explain between
# {glue:text}`costly_least:.0%` and {glue:text}`costly_most:.0%`. Does a clear name help to find them?
#
# **Where we stand.** {doc}`08_mode_gallery` showed what modes respond to, and invited us to give names. A name
# is an opinion until it is tested, and a picture cannot show whether the model uses the mode.
#
# :::{admonition} Before you start
# **After this chapter you can**
# - name a mode by a measurement, test the name on other scenes, and compare it with chance;
# - compare what modes tell with what tokens hold;
# - remove a mode inside the softmax, and compare that with random directions of equal size;
# - say what "equal size" has to mean before a softmax.
#
# **You need** {doc}`08_mode_gallery`; variance, and the idea of a permutation test.
#
# **Time**: 90 minutes to read with a pencil, 20 minutes for the tasks, exercises 70 minutes, two lessons of 60
# minutes to teach. It runs in a minute and a half on a laptop, with no GPU and no network.
# :::
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
# A family explains a share of the variance of a projection $y$. We replace each value by the mean of all
# patches with the same label, and ask how much of the squared error is gone. This {term}`explained share` is
#
# $$ \frac{\sum (y - m_{\text{base}})^2 - \sum (y - m_{\text{label}})^2}{\sum y^2}, $$
#
# where $y$ is centred. The sums in the numerator run over the patches that have a label of the family. The
# sum in the denominator runs over all patches, so the shares of different families can be compared.
#
# The base mean $m_{\text{base}}$ uses what is known without the label. For place and object, nothing is known.
# For role, colour, kind and texture, we know that the patch shows an object. For part, we know the kind of
# the object, because a wheel always belongs to a cart.
#
# We split the scenes into two halves. The first half chooses a name for each query direction and
# each key direction. The name is the family with the largest share, and its labels with the highest and the
# lowest mean. The **second half** measures the explained share. The means $m$ also come from the first half, so a share can
# be negative. How large would the share be by chance? We use two nulls:
#
# - *Meaningless labels.* We take the labels of another scene, at the same places. (Places are the same in
#   all scenes, so we shift them round the grid instead.) This null asks: does the direction tell anything?
# - *Random directions.* We name random directions of the same layer's tokens in the same way. This null
#   asks: does the name belong to the mode? There are two sorts. *Any* directions point anywhere. *Leaning*
#   directions are random sums of tokens. They mostly point along what differs between tokens.
#
# Many tests give many false alarms. So we correct both tests: among the names that pass, at most 5 % are
# expected to be false ({term}`false discovery rate`).
#
# :::{admonition} Predict, then look
# :class: tip
# How many of the names will pass the first null? And how many the second?
# :::

# %%
model = qk.load(MODEL, image_size=IMAGE_SIZE or None)
embedded = is_embedded(model)
subject = model if embedded else qk.load("tiny-supervised")
scenes = qk.world.labelled(subject, COUNT)
names = qk.studies.names(subject, *scenes, directions=40_000)

# %% tags=["hide-input"]
instead = f"(It stands in for {model.name}: the labels are those of drawn scenes.)"
every = names.stack(of=("layer", "head", "mode", "side"))
under = (names.share < names.random_share.median("direction")).mean(
    ("layer", "side", "head", "mode")
)


# %% tags=["hide-input"]
def as_table(of):
    """Names in rows: what they are, and how far they can be trusted."""
    q = zip(of.q.values, *of.q_random.transpose("null", ...).values, strict=True)
    ends = zip(of.high.values, of.low.values, strict=True)
    shown = {
        "family": of.family.values,
        "high, low": [f"{high}, {low}" for high, low in ends],
        "share": of.share.values.round(2),
        "q": [", ".join(f"{value:.2g}" for value in row) for row in q],
    }
    rows = [f"{place(*at)}, {side}" for *at, side in of["of"].values]
    return pd.DataFrame(shown, rows)


# %% tags=["hide-input"]
more_scenes = qk.world.pictures(0, 48, 48 + COUNT)
carrying = qk.scan(subject, more_scenes, k=1, statistics=["variance"])
carried = carrying.logit_variance / (
    carrying.logit_variance.sum("mode") + carrying.salience_variance
)
ends = [0.025, 0.5, 0.975]
low, median, high = np.quantile(names.random_share.sel(null="any"), ends, axis=1)
lean = np.quantile(names.random_share.sel(null="leaning"), ends, axis=1)
depth = names.layer.values
at = depth[:, None] + np.linspace(-0.12, 0.12, names.share[0, 0].size)

# %% tags=["hide-input"]
costly = first_run.share.values[first_run.loss.values > 0.01]
tell(
    subject=subject.name,
    stand_in="" if embedded else instead,
    tests=names.share.size,
    random=names.sizes["direction"],
    needed=names.share.size / 0.05,
    some_content=float((names.q < 0.05).mean()),
    over_random=int((names.q_random < 0.05).sel(null="any").sum()),
    over_leaning=int((names.q_random < 0.05).sel(null="leaning").sum()),
    uncorrected=float((names.p_random < 0.05).sel(null="any").mean()),
    best_share=float(names.share.max()),
    middle_share=float(names.share.median()),
    weak_names=int(((names.q < 0.05) & (names.share < 0.01)).sum()),
    under_any=float(under.sel(null="any")),
    under_leaning=float(under.sel(null="leaning")),
    costly=costly.size,
    costly_least=float(costly.min()),
    costly_most=float(costly.max()),
)

# %% tags=["hide-cell"] mystnb={"code_prompt_show": "Show the figure that answers", "figure": {"name": "fig-against-random", "caption": "The explained share of each name, on held-out scenes. Each dot is the query or key direction of one mode. Grey bars: the middle 95 % of random directions of any kind, named in the same way. The line across a bar is their median. Dashed: the median of leaning directions. Dotted: the ends of their middle 95 %."}, "image": {"alt": "For each layer a cloud of dots over a grey bar that holds 95 percent of random directions; dotted lines mark the ends for leaning directions and reach higher than the bars; most dots lie inside both."}}
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

# %% [markdown]
# :::{dropdown} What the run says
# **The first null.** Of {glue:text}`tests` names of {glue:text}`subject`, {glue:text}`some_content:.0%` pass.
# {glue:text}`stand_in` This null only asks whether a direction tells *something* about a patch. The median name
# explains {glue:text}`middle_share:.0%` of the variance, the best one {glue:text}`best_share:.0%`.
#
# **The second null.** We compare each name with {glue:text}`random` random directions of each sort and layer.
# It has to be so many: to pass the correction for {glue:text}`tests` tests alone, a name needs about
# {glue:text}`needed:,.0f` directions, even if it beats them all.
# {glue:text}`over_random` names pass against *any* directions, and {glue:text}`over_leaning` against *leaning*
# ones. Without the correction, {glue:text}`uncorrected:.0%` would pass against any directions. Chance alone
# gives 5 %.
#
# **Which null is fair?** {numref}`fig-against-random`, folded above, draws all names over both nulls.
# {glue:text}`under_any:.0%` of the names lie below the median of any directions. So modes resemble any directions.
# {glue:text}`under_leaning:.0%` lie below the median of leaning ones. So modes do not point along what differs most.
# Few or no names pass against either null, so we need not choose.
#
# So a name can pass the first null and still be true of most directions. The content lies in the *tokens*,
# and nearly every direction shows some of it.
# :::
#
# In short: {glue:text}`some_content:.0%` of the names beat meaningless labels. But only {glue:text}`over_random`
# of {glue:text}`tests` beat *any* random directions, and {glue:text}`over_leaning` beat *leaning* ones.
#
# The table shows the eight names with the largest explained share. *High* and *low* are the labels at
# the two ends, and *share* is the explained share. The three values of *q* are corrected p values: against
# meaningless labels, against *any* random directions, and against *leaning* ones. (The view of
# {doc}`08_mode_gallery` gives the first and the last.) Read the explained share before you read `q`.
# {glue:text}`weak_names` names pass the first null, and yet explain less than a hundredth of the variance.

# %% tags=["hide-input"]
as_table(every.isel(of=np.argsort(-every.share.values)[:8]))

# %% [markdown]
# ## What tokens hold, and what modes tell
#
# A family can explain little for two reasons. Modes may not select it. Or the tokens may not hold it, so that
# no direction could. We can tell these apart. For each family, we look for the *best* direction of all on the
# first half of the scenes. We measure its explained share on the second half. This estimates what a mode could
# reach. Where tokens hold almost nothing (layer 0), the fit fails, and a mode can lie above it.

# %% tags=["hide-input"]
by_family = names.share_of.mean(("side", "head", "mode"))
best_mode = names.share_of.max(("side", "head", "mode"))
by_chance = names.random_share_of.sel(null="any")
curves = {
    "the best direction": (names.reachable, {"color": "k"}),
    "the best mode": (best_mode, {"color": plots.PALETTE[0], "marker": "s", "ls": ""}),
    "all modes, mean": (by_family, {"color": plots.PALETTE[0]}),
    "random directions, mean": (by_chance, {"color": "0.5", "ls": "--"}),
}

# %% tags=["hide-input"] mystnb={"figure": {"name": "fig-families", "caption": "The explained share of each family, layer by layer, on a logarithmic scale. Line without marks: the best direction of the first half, an estimate of what a mode could reach. Blue squares: the best mode. Blue line: the mean of all modes. Grey dashed: the mean of random directions of any kind. A curve ends where the share falls below a thousandth; there a square can stand alone."}, "image": {"alt": "Seven small panels, one for each family, with four curves over layers: the share of the best direction on top from layer 1 on, then the best mode, then the means of modes and of random directions close together."}}
fig, axes = plt.subplots(
    2, 4, figsize=(7.5, 4.2), layout="constrained", sharex=True, sharey=True
)
for ax, family in zip(axes.ravel(), names.family_name.values, strict=False):
    for label, (values, look) in curves.items():
        one = values.sel(family_name=family)
        ax.plot(one.layer, one.where(one > 1e-3), ms=3.5, label=label, **look)
    ax.set(yscale="log", ylim=(1e-3, 1.1), title=family)
axes[1, 3].axis("off")
handles = axes[0, 0].get_legend_handles_labels()
_ = fig.legend(*handles, loc="outside upper center", ncols=4)
_ = fig.supxlabel("layer"), fig.supylabel("explained share")

# %% tags=["hide-input"]
deep = names.sizes["layer"] // 3
late = slice(-deep, None)
most, told = names.reachable[late].mean("layer"), by_family[late].mean("layer")
tell(
    deep=deep,
    layers=names.sizes["layer"],
    nearest=float((told / most).max()),
    role_most=float(names.reachable.sel(family_name="role").max()),
    role_mean=float(by_family.sel(family_name="role").mean()),
    role_best=float(best_mode.sel(family_name="role").max()),
    gap=float(abs(by_family - by_chance).mean()),
)
nearest_mode = best_mode[late].mean("layer")
for family in ("object", "place"):
    tell(**{f"{family}_best": float(nearest_mode.sel(family_name=family))})
    tell(**{f"{family}_most": float(most.sel(family_name=family))})
over_layers = names.share_of.mean(("side", "mode"))
of = {f: over_layers.sel(family_name=f) for f in ("colour", "kind", "part")}
of = {f: values.reset_coords(drop=True) for f, values in of.items()}
moves = {f: statistics.late_minus_early(values) for f, values in of.items()}
beyond_tokens = statistics.late_minus_early(
    of["colour"] - by_chance.sel(family_name="colour", drop=True).drop_vars("null")
)
limit = names.reachable.reset_coords(drop=True)
relative = {f: of[f] / limit.sel(family_name=f, drop=True) for f in ("part", "colour")}
part_leads = statistics.late(of["part"] - of["colour"])
part_relative = statistics.late(relative["part"] - relative["colour"])
tell(
    colour_move=statistics.text(moves["colour"], ".3f"),
    colour_beyond=statistics.text(beyond_tokens, ".3f"),
    part_relative=statistics.text(part_relative, ".3f"),
    part_leads=statistics.text(part_leads, ".3f"),
)

late_means = {
    "mean mode": told,
    "random directions": by_chance[late].mean("layer"),
    "best direction": most,
}
pd.DataFrame(
    {label: [f"{v:.1%}" for v in one.values] for label, one in late_means.items()},
    names.family_name.values,
)

# %% [markdown]
# {numref}`fig-families` and the table say three things. The table shows means of explained shares over the last
# third of the layers, which are {glue:text}`deep` of {glue:text}`layers`.
#
# - **The mean mode tells little of what tokens hold.** In no family does it tell more than
#   {glue:text}`nearest:.0%` of what the best direction tells. The best mode of a layer comes nearer. For *object* it
#   tells {glue:text}`object_best:.0%`, where the best direction tells {glue:text}`object_most:.0%`; for *place*
#   {glue:text}`place_best:.0%` where it tells {glue:text}`place_most:.0%`.
# - **Modes tell what random directions tell.** On average the blue and the grey lines differ by
#   {glue:text}`gap:.3f`. Where a family changes with depth, the tokens change. The paper says that early layers
#   tell more of colour than late layers. This holds here, late minus early is {glue:text}`colour_move`. But
#   modes are not the reason: less random directions, the difference is {glue:text}`colour_beyond`.
# - **Late modes do not tell parts rather than colours.** The paper reads them so. Here part minus colour is
#   {glue:text}`part_leads` in the last third. But the tokens hold less of parts, too. So we divide each family by
#   what the best direction reaches. The difference of these fractions is {glue:text}`part_relative`.
#
# ### Why does no mode tell the role?
#
# The model was trained to say in what an object is odd. Yet *role* (target or distractor) explains
# {glue:text}`role_mean:.1%` of a mode's variance, and the best mode tells {glue:text}`role_best:.1%`. Even the best
# direction reaches {glue:text}`role_most:.0%` at most, in its best layer. Here is one idea, and a test of it. *Odd* is no property of an
# object: it is a difference from the others in the scene. The differing object may be red among blue, or a cup
# among carts. So the role may lie in a *distance* from the others rather than along a direction.
#
# We ask two readers whether a patch belongs to the target. The first reader may use one direction of the
# tokens, fitted on the other half of the scenes. The second fits nothing. It takes the distance of the patch from
# the mean of all object patches of the scene. Both see tokens from which the mean of their place is subtracted,
# because targets stand at some places more often than at others.


# %% tags=["hide-input"]
def area_under_curve(score, is_target):
    """How often a target patch has the larger score than another one: 0.5 is chance."""
    order = score.argsort().argsort().double() + 1
    count = is_target.sum()
    above = order[is_target].sum() - count * (count + 1) / 2
    return float(above / (count * (len(score) - count)))


def best_direction(x, is_target):
    """The direction along which targets differ most, by ridge regression."""
    own, wanted = x - x.mean(0), is_target.float()
    ridge = 0.01 * len(own) * own.var() * torch.eye(own.shape[1])
    return torch.linalg.solve(own.T @ own + ridge, own.T @ (wanted - wanted.mean()))


# %% tags=["hide-input"]
def object_patches(x, role):
    """Object patches less the mean of their place, how far they lie from the others, and which are targets."""
    on = (role >= 0)[..., None]
    x = x - (x * on).sum(0) / on.sum(0).clamp(min=1)
    middle = (x * on).sum(1, keepdim=True) / on.sum(1, keepdim=True).clamp(min=1)
    on = on[..., 0]
    return x[on], (x - middle)[on].norm(dim=-1), role[on] == 1


def both_readers(fit, tried):
    """How well one direction, fitted on other scenes, and how well the distance tell targets."""
    x, far, is_target = tried
    along = x @ best_direction(fit[0], fit[2])
    return [area_under_curve(score, is_target) for score in (along, far)]


# %% tags=["hide-input"]
def readers_of_role(model, images, role):
    """Both readers, over layer and reader: each half of the scenes is read by the other's fit."""
    found = []
    for x in tokens(model, images):  # [scene, patch, d_model], normalised
        one, other = map(object_patches, x.chunk(2), role.chunk(2))
        found.append(
            (np.array(both_readers(one, other)) + both_readers(other, one)) / 2
        )
    return np.array(found)


# %% tags=["hide-input"]
def tokens(model, images):
    """The normalised patch tokens of every layer."""
    kept = {}

    def keep(layer, which, x):
        own = qk.passes.normalise(x[:, model.prefix_tokens :], model.heads.ln_eps)
        kept.setdefault(layer, []).append(own)

    qk.passes.visit_layers(model, images, keep)
    return [torch.cat(each) for each in kept.values()]


table = models.family().loc[["supervised", "untrained"]].dropna(axis=1)


def of_run(name):
    """Both readers on scenes, for one training run."""
    run = qk.load(name)
    images, families = qk.world.labelled(run, COUNT)
    return readers_of_role(run, images, families["role"].fine.flatten(1))


# %% tags=["hide-input"]
readers = {
    objective: np.stack([of_run(name) for name in row])
    for objective, row in table.iterrows()
}

# %% tags=["hide-input"] mystnb={"figure": {"name": "fig-role", "caption": "How often a patch of the target gets a larger score than a patch of a distractor; 0.5 is chance. Left: the score is the projection on one fitted direction. Right: the score is the distance from the mean of the scene's object patches. Thin: training runs. Thick: their mean."}, "image": {"alt": "Two panels with curves over depth for supervised and untrained models. Left, the untrained curve stays just below 0.5 and the supervised one rises to above 0.6. Right, the untrained curve stays flat just below 0.6 and the supervised one rises to almost 0.7."}}
fig, axes = plt.subplots(1, 2, figsize=(7.5, 3.2), sharey=True, layout="constrained")
for objective, look in plots.looks(list(readers)).items():
    for ax, values in zip(axes, np.moveaxis(readers[objective], -1, 0), strict=True):
        ax.plot(values.T, color=look["color"], lw=0.7, alpha=0.6)
        ax.plot(
            values.mean(0), color=look["color"], marker=look["marker"], label=objective
        )
for ax, title in zip(axes, ("one direction", "distance from the others"), strict=True):
    ax.set(xlabel="layer", title=title)
    ax.axhline(0.5, **plots.ZERO)
axes[0].set_ylabel("target before distractor")
_ = fig.legend(*axes[0].get_legend_handles_labels(), loc="outside right upper")

# %% tags=["hide-input"]
last = {objective: values[:, -deep:].mean(1) for objective, values in readers.items()}
role_ahead = statistics.over_runs(last["supervised"][:, 1] - last["supervised"][:, 0])
learned = last["supervised"] - last["untrained"]  # [run, reader]
one_learned, role_learned = map(statistics.over_runs, learned.T)
far_gains = statistics.over_runs(learned[:, 1] - learned[:, 0])
tell(
    role_ahead=statistics.text(role_ahead),
    one_learned=statistics.text(one_learned),
    role_learned=statistics.text(role_learned),
    far_gains=statistics.text(far_gains),
    role_runs=table.shape[1],
)
tell(**{f"one_{name}": float(values[:, 0].mean()) for name, values in last.items()})
tell(**{f"far_{name}": float(values[:, 1].mean()) for name, values in last.items()})

# %% [markdown]
# | reader | untrained | supervised | training adds |
# |---|---|---|---|
# | one direction | {glue:text}`one_untrained:.0%` | {glue:text}`one_supervised:.0%` | {glue:text}`one_learned` |
# | distance | {glue:text}`far_untrained:.0%` | {glue:text}`far_supervised:.0%` | {glue:text}`role_learned` |
#
# Take a target patch and a distractor patch. The table shows how often each reader gives the target the larger
# score, in the last third of the layers. Chance is 50 %. The intervals are over {glue:text}`role_runs` runs. The
# untrained direction lies just below chance: all runs see the same scenes, so they share the luck of the draw.
#
# **The distance is the better reader, before training and after it** ({numref}`fig-role`). In supervised models it is ahead by
# {glue:text}`role_ahead`. In untrained models the distance tells something because an odd object also *looks*
# different.
#
# **Training improves both readers, and the direction more than the distance.** The gain of the distance less the
# gain of the direction is {glue:text}`far_gains`. So only half of our idea passes the test. A distance tells the role
# better. But training adds more to the direction. (We chose this test after we had seen that role explains little.)
#
# ## Do high cosines relate like with like?
#
# If the paper's reading of cosines is right, modes with a high cosine often have one name for both
# directions. Modes with a cosine near zero have it less often. *High* means: in the highest twentieth of
# the model's cosines. *Near zero* means: inside the {term}`null band`, which is here about
# ±{glue:text}`band:.2f`. *One name* means: the same family, with the same label at the high end.
#
# But any two directions that lie close together tend to have the same name. So we also name random pairs of
# leaning directions, ten pairs for each mode. Each pair has the *same cosine* as the mode.

# %%
band = qk.null_band(subject, convention="exact")
near, like = abs(names.cosine) < band, names.cosine > names.cosine.quantile(0.95)
forced = names.random_same


# %% tags=["hide-input"]
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
    band=float(band.mean()),
    like_heads=same_name.attrs["count"],
    same_name=statistics.text(same_name),
    over_forced=statistics.text(over_forced),
)

# %% [markdown]
# | cosine | modes | one name | random pairs |
# |---|---|---|---|
# | above {glue:text}`high:.2f` | {glue:text}`like_count` | {glue:text}`like:.0%` | {glue:text}`like_forced:.0%` |
# | in the null band | {glue:text}`near_count` | {glue:text}`near:.0%` | {glue:text}`near_forced:.0%` |
#
# Within heads, modes with a high cosine have one name more often than modes near zero: the difference is
# {glue:text}`same_name` (interval over heads). A reader of galleries would see this difference. But part of it
# is geometry, as the last column of the table shows. Modes with a high cosine minus random pairs with the same
# cosines: {glue:text}`over_forced`. Only this second difference is about the modes, and it may be zero. (Both are
# means over the {glue:text}`like_heads` heads that have such modes, so they are not the table's differences.)
#
# ## Does the model use the mode?
#
# A gallery shows what goes with a mode. To find out whether the model *uses* the mode, we take it away. Inside
# the softmax we replace the query token $z_i$ by $z_i - a\,a^\top(z_i - \bar z)$. Here $a$ is a unit vector,
# and $\bar z$ is the mean over scenes and tokens. The head no longer sees how its queries differ along $a$.
# With $a = u_n$, the head loses what mode $n$ says about differences between queries. The mean along $a$ stays,
# because the model has never seen a zero in its place.
#
# As a null we remove random unit vectors in the span of the head's *other* modes. In each layer we remove the
# mode that carries most. Such a mode takes more out of the logits than a random direction does. So we measure
# a second time, at *equal size*. We remove only a part of the mode and of each direction. All parts then take
# the same variance over keys out of the logits.
#
# :::{admonition} Predict, then look
# :class: tip
# At equal size, will the modes that carry most move the model's outputs more than random directions, less,
# or about as much?
# :::

# %%
held_out = qk.pictures.images(qk.world.pictures(0, 0, 32), subject, 32)
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
def remove(at, directions, size=None):
    """Remove directions, whole or shortened until they have equal size."""
    if size is not None:
        # The removal grows with length², its variance with length⁴.
        part = (size.min() / size).values ** 0.25
        directions = directions * torch.tensor(part)[:, None].float()
    gone = qk.studies.removal(subject, held_out, *at, directions)
    return gone.assign(change=qk.studies.relative_change(gone))


# %% tags=["hide-input"]
removed = {}
for layer, head in enumerate(strongest.values):
    at = layer, int(head)
    mode = int(carrying.logit_variance[at].values.argmax())
    directions = one_and_others(mode)
    whole = remove(at, directions)
    equal, seen = (
        remove(at, directions, whole[size]) for size in ("taken", "attended")
    )
    values = {"whole": whole.change, "at_equal": equal.change}
    values |= {"attention_at_equal": equal.moved, "at_seen": seen.change}
    values |= {"looked_at": whole.attended / whole.taken}
    removed[*at, mode] = xr.Dataset(values).reset_coords(drop=True)

# %% tags=["hide-input"]
of_all = xr.concat(removed.values(), "mode")
of_mode, others = of_all.isel(direction=0), of_all.isel(direction=slice(1, None))
ratio = of_mode / others.median("direction")
above, below = of_mode > others.max("direction"), of_mode < others.min("direction")
panels = {
    "whole": "outputs moved,\nall removed",
    "at_equal": "outputs moved,\nequal size",
    "looked_at": "variance weighted\nby attention ÷ plain",
    "at_seen": "outputs moved,\nequal attended size",
}
gaps = {
    n: statistics.bootstrap(np.log(ratio[n]), "mode") for n in ("at_equal", "at_seen")
}
tell(removed=len(removed))
tell(
    **{
        f"gap_{n}": statistics.text(np.exp(gap)).replace("+", "")
        for n, gap in gaps.items()
    }
)
tell(**{f"ratio_{n}": float(v.median()) for n, v in ratio.items()})
tell(**{f"above_{n}": int(v.sum()) for n, v in above.items()})
tell(**{f"below_{n}": int(v.sum()) for n, v in below.items()})
tell(
    looked_mode=float(of_mode.looked_at.median()),
    looked_random=float(others.looked_at.median()),
)

# %% tags=["hide-cell"] mystnb={"code_prompt_show": "Show the figure that answers", "figure": {"name": "fig-removed", "caption": "Each row: one layer's mode that carries most (orange), beside random directions in the span of the head's other modes (grey). Each value is divided by the median of the random directions. From the left: the outputs' move when all is removed; the outputs' move at equal variance over keys; the variance weighted by attention, divided by the plain variance; the outputs' move at equal weighted variance."}, "image": {"alt": "Four panels with a row for each layer's strongest mode, an orange diamond for its removal and grey dots for random directions around one."}}
fig, axes = plt.subplots(1, 4, figsize=(7.5, 3.6), sharey=True, layout="constrained")
for ax, (what, title) in zip(axes, panels.items(), strict=True):
    middle = others[what].median("direction")
    for row in range(len(removed)):
        ax.plot(
            others[what][row] / middle[row], np.full(12, row), "o", color="0.6", ms=3.5
        )
        ax.plot(ratio[what][row], row, "D", color=plots.PALETTE[1], ms=6)
    ax.axvline(1, **plots.ZERO)
    ax.set(xscale="log", xlabel=title)
    ax.xaxis.set_major_locator(plt.FixedLocator((0.3, 1, 3, 30)))
    ax.xaxis.set_major_formatter("{x:g}")
    ax.minorticks_off()
axes[0].set_yticks(range(len(removed)), [place(*at) for at in removed])
axes[0].invert_yaxis()
_ = fig.supxlabel("÷ median of the random directions")

# %% [markdown]
# :::{dropdown} What the run says
# **All removed.** {numref}`fig-removed` is folded above. We measure how far the outputs move, in units of how far
# they differ between scenes. The outputs of {glue:text}`subject` move further than for each of twelve random
# directions in {glue:text}`above_whole` of {glue:text}`removed` heads. They move {glue:text}`ratio_whole:.1f`
# times as far as for the median direction. This is no surprise, because we chose modes that carry much.
#
# **Equal size.** Now they move *less*: {glue:text}`ratio_at_equal:.2f` times as far as the median direction. (This is
# the median over heads. The geometric mean, with an interval over heads, is {glue:text}`gap_at_equal`.) In
# {glue:text}`below_at_equal` of {glue:text}`removed` heads the mode moves the outputs less than each of the twelve.
#
# **Why?** A softmax does not listen to all keys alike. If a key gets no attention, its logit can change by
# much, and nothing happens. So we take the variance once more, and weight each key by its attention. For the
# modes, the weighted variance is {glue:text}`looked_mode:.2f` of the plain one. For random directions it is
# {glue:text}`looked_random:.2f`. In {glue:text}`below_looked_at` of {glue:text}`removed` heads this ratio is smaller
# than for each random direction. So much of what the mode adds goes to ignored keys. Only a small part of the
# mode is removed here, so ignored keys stay ignored. A random direction still moves the attended keys.
#
# **Equal attended size.** We repeat the comparison with the weighted variance as the size. Now the modes move
# the outputs {glue:text}`ratio_at_seen:.2f` times as far as the median direction (geometric mean
# {glue:text}`gap_at_seen`). Single heads differ a lot. They move them less than
# each random direction in {glue:text}`below_at_seen` heads, and further than each in {glue:text}`above_at_seen`. So
# most of the disadvantage came from the measure of size. Before a softmax, equal variance is not equal size.
# :::
#
# In short: at equal variance over keys, these modes move the outputs less than random directions
# ({glue:text}`ratio_at_equal:.2f` times as far). If each key counts as much as the head attends to it, they move them
# about as far ({glue:text}`ratio_at_seen:.2f` times).
#
# ## Do modes with a clear meaning matter more?
#
# Moving the outputs is not yet being useful. So we return to {numref}`fig-causes`, and to *all* modes of
# a model: {glue:text}`modes`. We remove each one, and ask the model its three questions about
# {glue:text}`scenes` that it has never seen: which kind, which colour, and what is odd. The study takes minutes,
# so its numbers are stored (`qkutils causes MODEL`), for {glue:text}`run_count` training runs.

# %% tags=["hide-input"]
QUESTIONS = ["kind", "colour", "odd factor"]
cost = {
    name: one[QUESTIONS].to_dataarray("question").mean("question")
    for name, one in lost.items()
}
count = first_run.loss.size
halves = float(first_run.attrs["halves"])


# %% tags=["hide-input"]
def by_head(values):
    """Values over heads, all layers' in one row, and modes."""
    return values.stack(each=("layer", "head"), create_index=False).drop_vars(
        ["layer", "head"], errors="ignore"
    )


def related(what, effect="loss", given=()):
    """The rank correlation of a property of modes with what their removal costs, for each run."""
    several = []
    for of_run in lost.values():
        one = by_head(of_run.drop_vars("family"))
        held = [one[name] for name in given]
        rank = statistics.rank_correlation(
            one[what], one[effect], "each", held, draws=2
        )
        several.append(float(rank.estimate))
    return several


# %% tags=["hide-input"]
def shuffled(run, what, draws=200):
    """The same correlation where a property is shuffled among the modes of its head, many times."""
    one, generator = by_head(lost[run].drop_vars("family")), np.random.default_rng(0)
    pair = one[[what, "loss"]].transpose("each", "number")
    from_all = []
    for _ in range(draws):
        mixed = generator.permuted(pair[what].values, axis=1)
        both = pd.DataFrame({"x": mixed.ravel(), "y": pair.loss.values.ravel()})
        from_all.append(both.corr("spearman").iloc[0, 1])
    return np.array(from_all)


# %% tags=["hide-input"]
rows = {
    "explained share": ("share", ()),
    "carried share": ("carried", ()),
    "strength σ": ("sigma", ()),
    "cosine": ("cosine", ()),
    "explained share, given carried": ("share", ("carried",)),
    "cosine, given carried": ("cosine", ("carried",)),
}
found = {label: related(what, given=given) for label, (what, given) in rows.items()}

# %% tags=["hide-input"]
null = {
    label: statistics.ends(shuffled(runs[0], what))
    for label, (what, given) in rows.items()
    if not given
}
by_heads = [shuffled(run, "share").mean() for run in runs]
within = "explained share, less shuffled within heads"

# %% tags=["hide-input"] mystnb={"figure": {"name": "fig-matter", "caption": "Which modes cost the model most when they are removed? Rank correlation of a property of a mode with the cross-entropy gained without it. Dots: training runs. Bar: their mean, with its interval over runs. Grey: the middle 95 % where the property is shuffled among the modes of each head (first run; not for the two lower rows, where carried share is held fixed). The bars do not lie around zero, because shuffling keeps differences between heads."}, "image": {"alt": "Six rows of dots, each with its mean and interval: correlations of explained share, carried share, strength and cosine with the loss, and two partial ones, mostly between 0 and 0.3."}}
fig, ax = plt.subplots(figsize=(7, 3.4), layout="constrained")
look = plots.looks(["supervised"])["supervised"]
over = {label: statistics.over_runs(several) for label, several in found.items()}
for row, (label, several) in enumerate(found.items()):
    if label in null:
        low, high = null[label]
        ax.barh(row, high - low, 0.7, left=low, zorder=0, **plots.CHANCE)
    plots.replicates(ax, row, several, over[label], look)
ax.axvline(0, **plots.ZERO)
ax.set_yticks(range(len(found)), list(found))
ax.invert_yaxis()
ax.use_sticky_edges = False
_ = ax.set_xlabel("rank correlation with the cross-entropy gained")


# %% tags=["hide-input"]
def among_used(run):
    """Explained share against cost, given carried share, among modes that carry a twentieth."""
    flat = lost[run].drop_vars("family")
    flat = flat.stack(mode=("layer", "head", "number"), create_index=False)
    flat = flat.isel(mode=(flat.carried >= 0.05).values)
    flat = flat.drop_vars(["layer", "head", "number"])
    given = [flat.carried]
    return statistics.rank_correlation(flat.share, flat.loss, "mode", given, draws=2)


of_used = [among_used(run) for run in runs]

# %% tags=["hide-input"]
per_move = {
    name: [
        one.loss.sum(rest) / one.moved.sum(rest)
        for rest, one in (
            ("number", one.sel(of="mode")),
            ("number", one.sel(of="random")),
        )
    ]
    for name, one in causes.items()
}
per_unit = [float((modes - random).mean()) for modes, random in per_move.values()]
origin = "{model} (fingerprint {fingerprint}, version {code_version}, {computed})"
tell(origins="; ".join(origin.format(**one.attrs) for one in causes.values()))
accuracy = "explained share against accuracy"
lost = {name: one.assign(cost=cost[name]) for name, one in lost.items()}
found[accuracy] = related("share", "cost")
found[within] = list(np.array(found["explained share"]) - by_heads)
used_only = "explained share, given carried, where a twentieth is carried"
found[used_only] = [float(one.estimate) for one in of_used]
over = {label: statistics.over_runs(several) for label, several in found.items()}


def of_runs(several, form=".2f"):
    """The mean over training runs of one number each, with its interval."""
    return statistics.text(statistics.over_runs([float(one) for one in several]), form)


def ends(several, form):
    """The smallest and the largest of some numbers."""
    return f"{min(several):{form}} to {max(several):{form}}"


# %% tags=["hide-input"]
tell(
    modes=count,
    run_count=len(runs),
    scenes=first_run.attrs["scenes"].split(" of ")[0],
    intact="; ".join(
        f"{q} {ends([100 * float(one.attrs[q]) for one in lost.values()], '.0f')} %"
        for q in QUESTIONS
    ),
    most_costly=ends([100 * float(one.max()) for one in cost.values()], ".1f"),
    point_or_more=ends([int((one >= 0.01).sum()) for one in cost.values()], "d"),
    mean_cost=of_runs([100 * one.mean() for one in cost.values()]),
    halves=halves,
    whole=2 * halves / (1 + halves),
    ceiling=float(np.sqrt(2 * halves / (1 + halves))),
)
tell(
    named_matters=of_runs(found["explained share"]),
    carried_matters=of_runs(found["carried share"]),
    given_carried=of_runs(found["explained share, given carried"]),
    cosine_matters=of_runs(found["cosine, given carried"]),
    accuracy_too=of_runs(found[accuracy]),
    per_unit=of_runs(per_unit, ".3f"),
    of_used=of_runs(found[used_only]),
    within_heads=of_runs(found[within]),
    by_heads=of_runs(by_heads),
    per_mode=of_runs([pair[0].mean() for pair in per_move.values()], ".3f"),
    per_random=of_runs([pair[1].mean() for pair in per_move.values()], ".3f"),
    used=ends([one.attrs["count"] for one in of_used], "d"),
    name_at_most=float(over["explained share, given carried"].high),
)
top = first_run.stack(at=("layer", "head", "number"))
top = top.isel(at=np.argsort(-top.loss.values)[:6])
pd.DataFrame(
    {
        "family, share": [
            f"{family}, {share:.2f}"
            for family, share in zip(top.family.values, top.share.values, strict=True)
        ],
        "carried": top.carried.values.round(2),
        "entropy": top.loss.values.round(3),
        "accuracy": top[QUESTIONS].to_dataarray("q").mean("q").values.round(3) + 0.0,
    },
    index=[place(*at) for at in top["at"].values],
)

# %% [markdown]
# **One mode hardly matters.** The intact models answer correctly: {glue:text}`intact`. Removing one mode costs
# {glue:text}`mean_cost` percentage points of accuracy (mean over three questions and all modes; interval over
# runs). In each run, {glue:text}`point_or_more` of {glue:text}`modes` modes cost one point or more. The most costly
# one costs {glue:text}`most_costly` points. The table shows the six modes of the first run
# without which the cross-entropy grows most. Its columns are the family of the query's name with the explained
# share, then the carried share. Last come the cross-entropy gained (*entropy*) and the accuracy lost.
#
# {numref}`fig-matter` shows what predicts the cost. In the text, correlations are means over the
# {glue:text}`run_count` runs, with intervals over runs.
#
# **What a mode carries predicts its cost a little.** The rank correlation with the cross-entropy is
# {glue:text}`carried_matters`. Note how noisy single costs are. If we measure the cross-entropy on two halves of the
# scenes, the ranks of all modes correlate by {glue:text}`halves:.3f` only (first run). Both halves together would
# correlate by $2r/(1+r)$ = {glue:text}`whole:.3f` with as many new scenes. The square root of that is
# {glue:text}`ceiling:.2f`. No property can be expected to reach more.
#
# **A clear name predicts a little, too; beyond what the mode carries, we cannot tell.** The correlation of explained
# share with the cross-entropy is {glue:text}`named_matters`. It is no difference between heads. Where we shuffle the
# explained shares within each head, {glue:text}`by_heads` is left. Less this, the correlation is
# {glue:text}`within_heads`. But clear names and carried shares go together. Among modes that carry alike, it is
# {glue:text}`given_carried`.
# This interval contains zero: the effect may be absent, or as large as {glue:text}`name_at_most:+.2f`.
#
# Two more looks. With accuracy in place of the cross-entropy, the correlation is {glue:text}`accuracy_too`. Accuracy
# hardly moves, so it cannot rank modes well. The second look takes only modes that carry at least a twentieth,
# {glue:text}`used` in each run. Among them, given carried share, the correlation is {glue:text}`of_used`. So
# where a mode is used at all, a clear name may matter. (We did not ask this before we saw it.)
#
# **The cosine tells something, too.** Among modes that carry alike, the cosine correlates with the cost by
# {glue:text}`cosine_matters`. Modes in which like asks for like cost more. (We did not ask this before we saw it.)
#
# **For the same move of attention, modes cost more than random directions.** Some removals move the attention more than others. We measure this
# move after the softmax, where ignored keys do not count: half the sum of the absolute changes of attention. Per
# unit of this move, modes cost a cross-entropy of {glue:text}`per_mode`, and random directions of the same head
# {glue:text}`per_random`. The difference is {glue:text}`per_unit`.
#
# :::{dropdown} Where these numbers come from
# `qkutils causes` removes every mode by `qk.studies.every_removal`, on scenes of a world seed that neither
# training nor naming used. It starts each run at the input of the layer where something is removed. The stored
# numbers are those of {glue:text}`origins`. All other numbers were computed by the run that made this page.
# :::
#
# **Try it.**
#
# 1. In the view of {doc}`08_mode_gallery`, open the first mode of the table above. Is its name strong? Is it the
#    strongest mode of its head?
# 2. *With a pencil.* A head gives all attention to two of 64 keys, half to each. A mode changes the logits of all
#    other keys by −5. How does attention move? What is the mode's variance over keys?
#
# :::{dropdown} What you may have found
# 1. The table gives its explained share and its carried share; its number in the head is the number after M.
# 2. Attention does not move: the other keys had none, and get none. Yet the variance over keys is
#    large: it is $25 \cdot \frac{2}{64}\cdot\frac{62}{64} \approx 0.76$. Weighted by attention it
#    is 0.
# :::

# %% [markdown]
# ## Find the eyes, and switch them off
#
# A name and a use are two things. You can now test both by hand, for a name that is easy to see: *eyes*. Faces and
# robots have eyes; nothing else does. In the view below the model itself runs, on your machine, once you press
# *Start*. It is always *tiny-supervised*. Switching a mode off takes it out of the logits as a whole. This is more than
# the {term}`removal` above. There, what the mode asks in all scenes alike stayed.

# %%
play = views.playground("tiny-supervised", tasks=["eyes"], layer=0, head=0)
play

# %% [markdown]
# *Your task.* Find a mode whose key tells patches with an eye from all others. Cyan patches answer: they should lie
# on eyes, or everywhere else. (The sign of a mode is arbitrary; *turn its sign* exchanges the two.) Then switch
# the mode off. The page says when you have one.
#
# 1. How many such modes are there?
# 2. Switch each of them off alone. Where do attention and the answer change?

# %% tags=["hide-input"]
player = qk.load("tiny-supervised")
lead = player.prefix_tokens
with_labels, of_patches = qk.world.labelled(player, 96)
parts = of_patches["part"]
is_eye = np.array([name.startswith("eye ") for name in parts.names])
labels = parts.fine.flatten(1).numpy()
shows_eye = is_eye[labels.clip(0)] & (labels >= 0)  # [image, patch]
own_modes = qk.decompose(player, convention="exact")
brought = qk.token_factors(player, with_labels, own_modes)


def on_eyes(layer, head, mode=None):
    """The share of patches' attention that lies on eyes, as a mean, with a mode off."""
    one = brought.sel(layer=layer, head=head).transpose("image", "token", "rank")
    asks, answers = one["query"].values.copy(), one.key.values
    if mode is not None:
        asks[..., mode] = 0
    logits = asks @ answers.swapaxes(1, 2) + one.salience.values[:, None]
    maps = torch.tensor(logits).softmax(-1)[:, lead:, lead:].numpy()
    share = (maps * shows_eye[:, None]).sum(-1) / maps.sum(-1)
    return float(share[shows_eye.any(1)].mean())


# %% tags=["hide-input"]
network = qk.graph.ModeNetwork(player)
asked_scenes = qk.world.make(5_000_000, 0, COUNT)  # scenes that no model saw
odd_factors = len(qk.world.ODD_FACTORS)


def says(*off):
    """What the model calls odd in each scene while some modes are off."""
    switches = network.all_on()
    for at in off:
        switches["modes"][tuple(at)] = 0
    with torch.inference_mode():
        return network(asked_scenes.image, **switches)[0][:, -odd_factors:].argmax(-1)


eye_modes = [tuple(at) for at in play.data["eyes"]]
whole = says()
changed = {at: float((says(at) != whole).float().mean()) for at in eye_modes}

# %% tags=["hide-input"]
carries = {
    at: float(first_run.carried.sel(layer=at[0], head=at[1], number=at[2]))
    for at in eye_modes
}
used = max(eye_modes, key=lambda at: carries[at])
idle = [at for at in eye_modes if at != used]
tell(
    eye_modes=", ".join(place(*at) for at in eye_modes),
    eye_count=len(eye_modes),
    eyes_of=first_run.loss.size,
    eye_scenes=len(whole),
    eye_used=place(*used),
    eye_idle=", ".join(place(*at) for at in idle),
    eye_carries=carries[used],
    idle_carries=max(carries[at] for at in idle),
    eye_changes=changed[used],
    idle_changes=max(changed[at] for at in idle),
    eye_area=float(shows_eye[shows_eye.any(1)].mean()),
    eye_with=on_eyes(*used[:2]),
    eye_without=on_eyes(*used),
)


def tells_eyes(values, which):
    """How well values of keys tell eyes among some patches, whichever side they lie on."""
    area = area_under_curve(torch.tensor(values)[which], torch.tensor(shows_eye)[which])
    return max(area, 1 - area)


of_objects = torch.tensor(of_patches["role"].fine.flatten(1).numpy() >= 0)
keys_of = [brought.key.isel(layer=n, head=h, rank=k) for n, h, k in eye_modes]
keys_of = [key.transpose("image", "token").values[:, lead:] for key in keys_of]
told = [tells_eyes(key, of_objects) for key in keys_of]
tell(eye_of_objects=f"{min(told):.0%} to {max(told):.0%}")
clear = play.data["limits"]["clear"]
rng, passing = np.random.default_rng(0), 0
for layer, head in np.ndindex(brought.sizes["layer"], brought.sizes["head"]):
    one = brought.key.sel(layer=layer, head=head).transpose("image", "token", "rank")
    flat = one.values[:, lead:].reshape(-1, one.sizes["rank"])
    turn, _ = np.linalg.qr(rng.normal(size=(flat.shape[1],) * 2))
    for values in (flat / flat.std(0) @ turn).T:
        passing += tells_eyes(values.reshape(shows_eye.shape), shows_eye >= 0) >= clear
tell(eyes_by_chance=int(passing), eye_clear=clear)

# %% [markdown]
# :::{dropdown} What you may have found
# 1. {glue:text}`eye_count` of {glue:text}`eyes_of` modes pass: {glue:text}`eye_modes`. We compare every patch with an
#    eye to every patch without one. In at least {glue:text}`eye_clear:.0%` of these pairs, the key of the eye lies further to one side. But
#    most patches without an eye are background, so a key that tells *objects* comes far, too. Among the patches of objects
#    alone, the number is {glue:text}`eye_of_objects` for these modes.
# 2. Only {glue:text}`eye_used` is used. In scenes with eyes, patches of this head give {glue:text}`eye_with:.0%` of
#    their attention on patches to eyes, which cover {glue:text}`eye_area:.0%` of the patches. With the mode off, it is
#    {glue:text}`eye_without:.0%`. The answer to *what is odd?* changes in {glue:text}`eye_changes:.0%` of
#    {glue:text}`eye_scenes` scenes. For {glue:text}`eye_idle` it changes in {glue:text}`idle_changes:.0%` at most.
#
# **Why?** {glue:text}`eye_used` carries {glue:text}`eye_carries:.0%` of its head's logits. The others carry
# {glue:text}`idle_carries:.2%` at most: their keys tell eyes, but they hardly change the logits. And the name itself is
# cheap. We turned the key directions of every head by a random rotation. Of the {glue:text}`eyes_of` directions,
# {glue:text}`eyes_by_chance` pass the same test. The name says what the tokens hold; only the removal says what the model uses.
# :::

# %% [markdown]
# ## Exercises
#
# Write in the notebook, where `...` stands. The line below each exercise checks what you wrote. It says what
# holds, and what does not hold yet.
#
# ### Exercise 9.1. Explained on new patches
#
# *Medium, 15 minutes, predict first. Trains: explained share, and why two halves are needed.*
#
# Labels are drawn by chance, so they mean nothing. There are many labels, and few patches for each. Is their explained
# share on new patches *above* zero, *zero*, or *below* zero, on average? Write down "above", "zero" or "below". Then
# write the explained share. Every patch has a label, and $m_\text{base}$ is 0.

# %% tags=["exercise"]
# "above", "zero" or "below"
prediction = "below"  # solution


def explained(y, label, fit):
    """Share on the patches outside `fit`; y, label and fit are arrays [patch]."""
    y = y - y[fit].mean()  # solution
    means = {each: y[fit & (label == each)].mean() for each in set(label)}  # solution
    left = y - [means[each] for each in label]  # solution
    return 1 - (left[~fit] ** 2).sum() / (y[~fit] ** 2).sum()  # solution


# %% tags=["check"]
check.explained(explained, prediction)

# %% [markdown]
# :::{dropdown} Hint 1
# `fit` is true for the patches that give the means. `~fit` chooses the patches that test them.
# :::
#
# :::{dropdown} Hint 2
# With a base mean of 0, the formula is 1 minus a fraction. Below the line stands the sum of all $y^2$.
# :::
#
# :::{dropdown} Hint 3
# `y[fit & (label == n)].mean()` is the mean of label `n`.
# :::
#
# :::{dropdown} What you should see
# Five ticks. "Below" was right: the fourth one says so. The first only says that you made a prediction.
# :::

# %% [markdown] tags=["solution"]
# :::{dropdown} What it means
# The share is *below* zero. The mean of a few patches is partly luck, and the luck does not return on new patches.
# So the labels add an error there. On the patches that gave the means, the same labels would seem to explain much. This
# is why one half of the scenes names, and the other half measures.
# :::

# %% [markdown]
# ### Exercise 9.2. How many names pass?
#
# *Medium, 15 minutes. Trains: p values by counting, and false discoveries.*
#
# You have the explained shares of many names, and those of random directions. Write the function that says which
# names pass, so that among those that pass at most a part `rate` is expected to be false. SciPy's
# `false_discovery_control` corrects p values.

# %% tags=["exercise"]
from scipy.stats import false_discovery_control


def discoveries(share, random, rate):
    """True or false [name], from the shares [name] and [random direction]."""
    reached = (random >= share[:, None]).sum(1)  # solution
    p = (1 + reached) / (1 + len(random))  # solution
    return false_discovery_control(p) <= rate  # solution


# %% tags=["check"]
check.discoveries(discoveries)

# %% [markdown]
# :::{dropdown} Hint 1
# For one name: how many random directions explain as much as the name does, or more?
# :::
#
# :::{dropdown} Hint 2
# Count the name itself as one more direction. Then p is never zero.
# :::
#
# :::{dropdown} Hint 3
# `random >= share[:, None]` compares all names with all directions: [name, direction].
# :::
#
# :::{dropdown} What you should see
# Four ticks: chance, clear names, too few directions, and many good names.
# :::

# %% [markdown] tags=["solution"]
# :::{dropdown} What it means
# A test has a resolution. With 99 random directions no p is below 1/100, and after the correction the best name of
# all can fail. So there are two reasons to fail: the name is hardly better than chance, or too few directions were
# tried. This chapter tries {glue:text}`random` of each sort. So too few directions are not the reason here.
# :::

# %% [markdown]
# ### Exercise 9.3. Loud and quiet
#
# *Hard, 25 minutes, in pairs. Trains: what size means before a softmax.*
#
# A query gives logits to its keys, and one key gets nearly all attention. A change of the logits has variance 1 over
# keys. What it moves is half the sum of the absolute changes of attention. One of you looks for a change
# that moves the attention by almost nothing (`quiet`). The other one looks for a change that moves more than half of it
# (`loud`). Compare both. Then write together the variance in which each key counts as much as it is attended to.


# %% tags=["exercise"]
def quiet(logits):
    """A change [key] of variance 1 that hardly moves attention."""
    change = -1.0 * (np.arange(len(logits)) == logits.argmin())  # solution
    return change / change.std()  # solution


def loud(logits):  # the same, but it moves attention
    change = -1.0 * (np.arange(len(logits)) == logits.argmax())  # solution
    return change / change.std()  # solution


def attended(logits, change):
    """Variance of a change over keys, weighted by attention."""
    weights = np.exp(logits) / np.exp(logits).sum()  # solution
    return weights @ (change - weights @ change) ** 2  # solution


# %% tags=["check"]
check.loud_and_quiet(quiet, loud, attended)

# %% [markdown]
# :::{dropdown} Hint 1
# Change the logit of one key only, and leave all others alone. Which key, and up or down?
# :::
#
# :::{dropdown} Hint 2
# A key with no attention has none to lose. If its logit falls, nothing happens. If its logit rises far, it may win.
# :::
#
# :::{dropdown} Hint 3
# The attention is `np.exp(logits)`, divided by its sum. Use it for the mean of the change, and for the mean of the squares.
# :::
#
# :::{dropdown} What you should see
# Six ticks: two for each change, and two for the weighted variance.
# :::

# %% [markdown] tags=["solution"]
# :::{dropdown} What it means
# Both changes have the same variance, and even the same shape. They differ in the key that they hit. So plain variance
# can't say how much a removal matters. The weighted variance can, for small changes: then it is twice the relative
# entropy between the attention before and after. That is why this chapter compares at equal *attended* size.
# :::

# %% [markdown]
# ### Exercise 9.4. Your eye against the measurement
#
# *Easy, 15 minutes, with the view. Trains: naming before measuring.*
#
# This is the view of {doc}`08_mode_gallery`, with the scenes and the names of this chapter. Choose a mode that carries
# a twentieth or more. Show its query alone, and look at both signs. Which family would you name it by? Write down its
# place as (layer, head, mode) and the family. Don't uncover the measured name before.

# %%
atlas = qk.scan(subject, more_scenes, k=3, statistics=["variance"], progress=False)
views.mode_browser(subject, atlas, more_scenes, modes=[0, 1, 2], names=names)

# %% tags=["exercise"]
# Its place: layer, head, mode
mode_at = tuple(  # solution
    names.share.sel(side="query", mode=[0, 1, 2])  # solution
    .where(carried >= 0.05)  # solution
    .argmax(...)  # solution
    .values()  # solution
)  # solution
# Its family
family = names.family.sel(side="query")[mode_at].item()  # solution

# %% tags=["check"]
check.by_eye(mode_at, family, names, carried)

# %% [markdown]
# :::{dropdown} Hint 1
# The view begins with the mode that carries most. Start there.
# :::
#
# :::{dropdown} Hint 2
# Do the red patches keep their place from one picture to the next? Then try "place".
# :::
#
# :::{dropdown} Hint 3
# If they follow the objects, compare the objects: their colour, kind, texture and part.
# :::
#
# :::{dropdown} What you should see
# Three ticks. After them, uncover the measured name, and compare the two ends with what you saw.
# :::

# %% [markdown] tags=["solution"]
# :::{dropdown} What it means
# This answer takes the query whose name explains most, among the modes that are shown. You may have chosen another one.
# An eye is good at some families. *Place* is easy to see. Textures and parts are hard in small pictures. And a name that
# passes here can still be true of most directions: the view says so below the name.
# :::

# %% [markdown]
# ## Quiz
#
# Choose an answer: each one says why it is right or wrong.
#
# **1. A name beats meaningless labels, and does not beat random directions. What does this say?**
#
# :::{dropdown} The name is wrong
# :class-container: option
# No. The direction does select what the name says. Most directions of these tokens do, too.
# :::
#
# :::{dropdown} The tokens hold this content, and the mode tells no more of it than chance
# :class-container: option right
# Right. The name describes the tokens more than it describes the mode.
# :::
#
# :::{dropdown} The mode is noise
# :class-container: option
# No. It tells something about a patch. It only tells no more than other directions.
# :::
#
# **2. The explained share of a name is −0.05. How can this be?**
#
# :::{dropdown} There must be an error, since a share lies between 0 and 1
# :class-container: option
# No. It is measured on scenes that did not give the means, so it can fall below zero.
# :::
#
# :::{dropdown} The mode selects the opposite of the name
# :class-container: option
# No. The opposite of a name explains as much as the name does: the sign of a direction plays no role.
# :::
#
# :::{dropdown} The label means of the first half fit the second half worse than the base mean does
# :class-container: option right
# Right. They are partly luck, and luck does not carry over.
# :::
#
# **3. A mode is removed, and the answers stay as good as before. What may you conclude?**
#
# :::{dropdown} Without this one mode the model answers these questions as well as with it
# :class-container: option right
# Right. It says no more than this. Other heads may have taken over.
# :::
#
# :::{dropdown} The mode does nothing
# :class-container: option
# No. Its removal may move the attention, and may matter for other questions.
# :::
#
# :::{dropdown} The mode has no clear name
# :class-container: option
# No. A name says what a mode selects. Whether the model needs the mode is another question.
# :::

# %% [markdown]
# ## Did we reproduce it?
#
# In the verdicts, *none larger than 0.02 (below zero)* means: the interval lies within ±0.02, below zero. *Cannot
# be told* means: the interval contains zero and is too wide; a narrower one would tell.

# %% tags=["hide-input"]
where = f"{subject.name}, {COUNT} scenes"
heads = f"{carrying.sizes['layer'] * carrying.sizes['head']} heads"
some = f"{len(removed)} heads"
few = f"{same_name.attrs['count']} heads"
looked_gap = statistics.bootstrap(
    of_mode.looked_at - others.looked_at.median("direction"), "mode"
)
by_mode = names.share.mean("side").weighted(carrying.logit_variance).mean("mode")
evenly = np.full(by_mode.sizes["layer"], 1 / by_mode.sizes["layer"])
beyond = statistics.over_depth(
    by_mode - names.random_share.sel(null="leaning").mean("direction"), evenly
)

# %% tags=["hide-input"]
words = [
    "Modes with a high cosine relate like with like more often than modes near zero.",
    "Modes with a high cosine have one name for both directions more often "
    "than random pairs with the same cosine.",
    "The names of modes explain more than those of leaning random directions.",
    "Early layers tell more of colour than late layers.",
    "Late layers tell more of parts than of colours, as a fraction of what can be reached.",
    "Training makes the distance from the other objects tell a target better.",
    "Training adds more to the distance than to one fitted direction.",
    "Modes that carry most vary less on attended keys than random directions do.",
]

# %% tags=["hide-input"]
fine = {"said_by": "paper", "form": ".3f"}
less = {"more": f"less random directions: {statistics.text(beyond_tokens, '.3f')}"}
undivided = {"more": f"not divided: {statistics.text(part_leads, '.3f')}", "seen": True}
of_training = {"subject": "supervised minus untrained"}
of_training |= {"over": f"{table.shape[1]} runs", "seen": True}
of_training["more"] = "pairs of patches told apart correctly"
shared = "explained share"

# %% tags=["hide-input"]
told = [
    (same_name, 1, "same object", {"said_by": "paper", "over": few}),
    (over_forced, 1, "same object", {"over": few}),
    (beyond, 1, shared, {"form": ".3f", "more": "weighted by what modes carry"}),
    (moves["colour"], -1, shared, fine | less),
    (part_relative, 1, shared, fine | undivided),
    (role_learned, 1, "accuracy", of_training),
    (far_gains, 1, "accuracy", of_training),
    (looked_gap, -1, shared, {"over": some, "seen": True}),
]

# %% tags=["hide-input"]
here = {"subject": where, "over": heads}
with_cosine = "cosine, given carried"
alike = "Among modes that carry alike, those whose names explain more cost more cross-entropy."
used_alike = "Among modes that carry a twentieth, those whose names explain more cost more (given carried share)."
of_each = {
    "Modes whose names explain more cost more cross-entropy when removed.": shared,
    "Within heads, modes whose names explain more cost more cross-entropy.": within,
    alike: "explained share, given carried",
    "Modes whose names explain more cost more accuracy when removed.": accuracy,
    "Modes with a higher cosine cost more among modes that carry alike.": with_cosine,
    used_alike: used_only,
}
seen_first = (with_cosine, within, used_only)
rows = [
    ledger.claim(claim, of, way, measure, **(here | rest))
    for claim, (of, way, measure, rest) in zip(words, told, strict=True)
]

# %% tags=["hide-input"]
of_all = {"subject": f"{len(runs)} supervised models", "over": f"{len(runs)} runs"}
for claim, label in of_each.items():
    every = of_all | {"seen": label in seen_first}
    if label == shared:
        low, high = null["explained share"]
        every["more"] = f"shuffled within heads: {low:+.2f} to {high:+.2f}"
    rows.append(ledger.claim(claim, over[label], 1, "correlation", **every))
ledger.Rows(rows)

# %% [markdown]
# The paper looks by eye at modes of large networks, on photographs. We measure modes of a small network, in
# a small world. So a verdict here says that a claim holds, or fails, *in this world*.
#
# ## What was found
#
# Do modes with a clear meaning matter more? In cross-entropy, a little. Beyond what they carry, we cannot tell for
# all modes. Where a mode is used at all, a clear name seems to matter, but this we saw only afterwards.
#
# - Removing one mode hardly costs accuracy: {glue:text}`mean_cost` points on average. The most costly mode of a run
#   costs {glue:text}`most_costly` points.
# - Modes whose names explain more cost a little more: {glue:text}`named_matters`, and within heads
#   {glue:text}`within_heads`. Among modes that carry alike, the correlation is {glue:text}`given_carried`, and the
#   interval contains zero. With accuracy as the measure it is {glue:text}`accuracy_too`.
# - Among the {glue:text}`used` modes of a run that carry a twentieth or more, it is {glue:text}`of_used`, given what
#   they carry.
# - Nearly every direction tells something. {glue:text}`over_leaning` of {glue:text}`tests` names beat leaning
#   random directions.
# - Before a softmax, equal variance is not equal size. Modes that carry most move the outputs {glue:text}`gap_at_equal`
#   times as far as random directions of equal variance over keys. At equal attended variance it is
#   {glue:text}`gap_at_seen` times.
# - A distance from the other objects tells the role better than one direction does. But training adds more to
#   the direction ({glue:text}`one_learned`) than to the distance ({glue:text}`role_learned`).
#
# Method worth keeping: compare what a mode tells with what the best direction tells, and compare a removal with
# random directions of equal *attended* size.
#
# **Limits.**
#
# - There are only seven families of names. A mode that selects an edge gets the name of the nearest family.
# - We remove one direction of one head at a time. Other heads may take over its work. A mode that is idle here
#   may matter where several are removed together.
# - A removal leaves what a mode asks in all scenes alike. {numref}`fig-causes` does not test that part.
# - Single costs are noisy. A small correlation of names and costs may hide in the noise.
# - Heads of one network are not independent.
#
# **Further reading.** Pan et al., section 4.3 and Figs. S5 to S16 {cite}`pan2024dissecting`.
#
# **Next.** {doc}`10_one_image` takes one picture apart: how many modes make the attention of one head?
