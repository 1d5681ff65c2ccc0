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
# (ch-world)=
# # What world does the small model live in?
#
# The embedded model has seen nothing but drawn scenes: many like objects, and among them one that
# may be odd. This chapter shows that world, in the tradition of O3, photographs with one odd object
# among like ones, and P3, drawn patterns of that sort {cite}`kotseruba2019saliency`, and what a model has learned of it. It earns no figure of the
# paper. It earns the right to use such a model in the other chapters.
#
# :::{admonition} Before you start
# **After this chapter you can**
# - make scenes with exact masks of objects and parts, the same on every machine;
# - say in which ways a target may be odd, and what is kept the same;
# - turn masks of pixels into shares of patches;
# - judge a small model by what it can do, next to chance and to an untrained one.
#
# **You need** nothing but Python and arrays.
#
# **Time**: 15 minutes to read, under a minute to run on a laptop, 10 minutes for the exploration,
# 30 minutes to teach. Runs with no GPU and no network.
# :::

# %% tags=["parameters", "hide-input"]
# MODEL: an embedded model that says what is odd; for any other, tiny-supervised stands in
MODEL = "tiny-supervised"
# IMAGES: not needed here: the chapter draws its own
IMAGES = ""

# %% tags=["hide-input"]
import matplotlib.pyplot as plt
import numpy as np
import pandas as pd

import qkutils as qk
from qkutils import models, statistics, views
from qkutils.views import figures as plots
from qkutils.book import tell
from qkutils.world.training import architecture, evaluate

# %% [markdown]
# ## A scene is a function of its number
#
# A scene depends on a seed and a number, and on nothing else. Its factors are drawn from a
# generator that counts: scene 4 is the same whether it is drawn alone or as one of a million.

# %%
world = qk.world.make(seed=0, start=0, stop=10)
alone = qk.world.make(seed=0, start=4, stop=5)
tell(largest_difference=float(abs(world.image[4] - alone.image[0]).max()))
list(world.image.shape), list(world.slot.shape)

# %% [markdown]
# The image is scene × colour channel × row × column, and `slot` says for every pixel which lattice
# cell's object covers it, −1 for none; drawn alone, scene 4 differs from itself by
# {glue:text}`largest_difference:.0e`.
#
# ## What can be odd
#
# Objects lie on a tilted lattice. Distractors share kind, colour, texture and, up to a little scatter,
# size and lean. Where kind or colour is odd they may come in two sorts: a *mixed* scene. The target
# differs in one thing: `ODD_FACTORS` lists what. In about one scene out of eight nothing is odd.
#
# :::{admonition} Predict, then look
# :class: tip
# Which oddness would you find at a glance, and for which would you have to search?
# :::

# %% tags=["hide-input"] mystnb={"figure": {"name": "fig-odd", "caption": "The world. Each row: scenes in which the target is odd in one factor. On the right of each scene its mask: the target in orange, distractors in blue, parts other than bodies darker."}, "image": {"alt": "Seven rows of drawn scenes, one for each factor in which the target is odd, each scene beside its mask."}}
fig, axes = plt.subplots(7, 6, figsize=(7.5, 8.2), layout="constrained")
for row, odd in zip(axes, qk.world.ODD_FACTORS, strict=True):
    of_factor = qk.world.make(seed=1, start=0, stop=3, odd=[odd])
    for ax, picture in zip(row, plots.scenes_and_masks(of_factor), strict=True):
        ax.imshow(picture)
        ax.set(xticks=[], yticks=[])
    row[0].set_ylabel(odd, rotation=0, ha="right", va="center")

# %% [markdown]
# Read {numref}`fig-odd` row by row: colour stands out at once; a turned or a dotted object asks for a
# comparison, and a displaced one for a look at the whole lattice. To find the odd object one has to
# relate the objects to each other. Whether a model does so is a question for the section after next.
#
# ## Objects have parts
#
# Every kind has a body, and some have parts that go with them and not with others. A face and a
# robot have eyes; a cart has wheels. So one can ask of a head whether it relates part to part,
# object to object, or object to background, and know the answer exactly.

# %%
many = qk.world.make(seed=2, start=0, stop=200, odd=["colour"])
kind_of_pixel = many.factors.kind.gather(1, many.slot.clamp(min=0).flatten(1))
kind_of_pixel = kind_of_pixel.view_as(many.slot).where(many.slot >= 0, -1)
share = {
    kind: {
        part: float((many.part[kind_of_pixel == k] == p).float().mean())
        for p, part in enumerate(qk.world.PARTS[1:], 1)
    }
    for k, kind in enumerate(qk.world.KINDS)
}
pd.DataFrame(share).T.round(2)

# %% [markdown]
# Rows are kinds, columns are parts, and each entry is the share of the object's pixels.
#
# A model sees patches, not pixels. `patch_fractions` says how much of each patch a mask covers:

# %%
fraction = qk.world.patch_fractions(many.mask(qk.world.TARGET), architecture.PATCH)
covered = (fraction > 0.5).sum((1, 2)).float()
tell(covered=float(covered.mean()), largest=float(fraction.amax((1, 2)).mean()))
list(fraction.shape)

# %% [markdown]
# On average {glue:text}`covered:.1f` patches lie mostly on the target, and the best one is covered to
# {glue:text}`largest:.2f`.
#
# ## What a model can do
#
# The supervised model is asked three things of a scene: in what is one object odd, if one is, and
# what are that object's kind and colour?
#
# :::{admonition} Predict, then look
# :class: tip
# For which odd factor will it be best, and for which worst? Two of the three questions can often be
# answered without finding the odd object: which, and when?
# :::

# %%
model = qk.load(MODEL)
can_classify = getattr(model.net, "num_classes", 0) == architecture.CLASSES
subject = model if can_classify else qk.load("tiny-supervised")
right = {o: evaluate.accuracy(subject.net, 300, [o]) for o in qk.world.ODD_FACTORS}

# %% tags=["hide-input"]
hidden = {
    o: evaluate.accuracy(subject.net, 300, [o], hidden=True)
    for o in qk.world.ODD_FACTORS
}
found = {o: shares["odd factor"] for o, shares in right.items()}
guessed = {o: shares["odd factor"] for o, shares in hidden.items()}
tell(
    subject=subject.name,
    best=max(found, key=found.get),
    worst=min(found, key=found.get),
)
tell(best_share=max(found.values()), worst_share=min(found.values()))
leaks = {o: share for o, share in guessed.items() if o != "none"}
tell(leak=max(leaks.values()), leak_factor=max(leaks, key=leaks.get))
pd.DataFrame(right).T.map("{:.2f}".format).replace("nan", "–")

# %% [markdown]
# Each row holds 300 held-out scenes that are odd in one factor; kind and colour are not asked where
# nothing is odd. As a control the model sees the same scenes once more *without the target*: what it
# gets right then, it had from the distractors alone.

# %% tags=["hide-input"] mystnb={"figure": {"name": "fig-right", "caption": "Share of 300 held-out scenes whose odd factor is named, by what it is, with 95 % intervals; the same with the target taken out of every scene; dashed: guessing among seven."}, "image": {"alt": "Bars of the share of scenes whose odd factor is named, with the target and without it, and a dashed line at one seventh."}}
fig, ax = plt.subplots(figsize=(7.5, 3.2), layout="constrained")
at = np.arange(len(qk.world.ODD_FACTORS))
bars = [
    ("whole scene", found, -0.2, plots.PALETTE[0]),
    ("target hidden", guessed, 0.2, "0.6"),
]
for label, shares, aside, colour in bars:
    share = statistics.of_shares(list(shares.values()), 300)
    error = [share.estimate - share.low, share.high - share.estimate]
    ax.bar(at + aside, share.estimate, 0.4, yerr=error, color=colour, label=label)
ax.axhline(1 / len(at), ls="--", color="0.4", label="guessing")
ax.set_xticks(at, qk.world.ODD_FACTORS)
ax.set(ylabel="share right", xlabel="what is odd", ylim=(0, 1.05))
_ = ax.legend(fontsize=8)

# %% [markdown]
# :::{dropdown} What the run says
# In {numref}`fig-right`, {glue:text}`subject` is right most often where the answer is *{glue:text}`best`*
# ({glue:text}`best_share:.2f`), and least often where it is *{glue:text}`worst`*
# ({glue:text}`worst_share:.2f`); *none* means that nothing is odd. With the target hidden, the highest
# share among scenes that had one is {glue:text}`leak:.2f`, for *{glue:text}`leak_factor`*.
#
# Read this with care. Where size, orientation, texture or position is odd, kind and colour are those of
# *all* objects, and can be named without looking for the target. Even the odd factor leaks: where
# position is odd, all objects are smaller and the lattice is regular. Where size is odd, all others
# are at an extreme. Two sorts of distractor occur only where kind or colour is odd. Where orientation is
# odd, no ordinary object is a ball. The grey bars show how much of it the model uses.
# :::
#
# What is embedded, with the facts of the catalogue; the card beside the weights says how a model was
# trained and what was measured.

# %% tags=["hide-input"]
catalogue = qk.catalogue()
first_runs = models.family()[0].dropna()
pd.set_option("display.max_colwidth", None)
catalogue.loc[first_runs, ["objective", "note"]].rename_axis(None)

# %% [markdown]
# ## Explore: one scene, many oddities
#
# The same numbers, drawn with another odd factor each time: what stays, and what changes?

# %% tags=["hide-input"]
frames = [
    plots.scene_frame(qk.world.make(3, 0, 4, odd=[o]), o) for o in qk.world.ODD_FACTORS
]
texts = [f"Four scenes with their masks; odd: {odd}." for odd in qk.world.ODD_FACTORS]
views.stepper(frames, list(qk.world.ODD_FACTORS), texts, "what is odd")

# %% [markdown]
# **Try it.** Find a factor for which you need more than a second. Would the mean colour of an image
# tell its target? Could a model name the target in a *mixed* scene from the target alone?
#
# :::{dropdown} Answers
# Most people need longest for size and position. The mean colour tells little: the ground fills most
# of the picture, and a target is one object of many. From the target alone nothing is odd: its kind
# and colour are as common as any, and only the others make it the odd one.
# :::
#
# ## Did we reproduce it?
#
# The paper has no such world, so there is nothing of it to reproduce here.
#
# ## What to remember
#
# - Scenes are functions of a seed and a number; masks of objects and parts are exact.
# - A target is odd in one factor; about one scene in eight has none.
# - A model is worth taking apart only if it has learned something: look at its card first.
# - A high share of right answers may come from a short cut. Ask which answer the short cut gives.
#
# **Limits.** The distractors alone give part of the answer away, as the control shows. This is a toy world. What a head does here shows what training *can* produce, and not
# what it produces on photographs.
#
# **Further reading.** The images that inspired it {cite}`kotseruba2019saliency`.
#
# **Next.** {doc}`04_training_objective` trains this world's network for other ends, and asks whether
# the objective decides what tokens attend to.
