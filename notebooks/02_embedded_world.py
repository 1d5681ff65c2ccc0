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
# The embedded model has seen nothing but drawn scenes. A scene shows many similar objects, and one of
# them may be odd. Two known sets of pictures inspired these scenes {cite}`kotseruba2019saliency`: O3,
# photographs with one odd object among similar ones, and P3, drawn patterns of the same sort. This
# chapter shows the world of the drawn scenes, and what a model has learned about it. It reproduces no
# figure of the paper. It tells us whether such a model is worth a closer look in the other chapters.
#
# :::{admonition} Before you start
# **After this chapter you can**
# - make scenes with exact masks of objects and parts, the same on every machine;
# - say in which ways a target may be odd, and what is kept the same;
# - turn masks of pixels into shares of patches;
# - judge a small model by what it can do, next to guessing and to a control without the target.
#
# **You need** nothing but Python and arrays.
#
# **Time**: 15 minutes to read, under a minute to run on a laptop, 10 minutes for the exploration,
# 30 minutes to teach. Runs with no GPU and no network.
# :::

# %% tags=["parameters", "hide-input"]
# MODEL: an embedded model that says what is odd; for any other, tiny-supervised stands in
MODEL = "tiny-supervised"
# MODELS, IMAGES, IMAGE_SIZE: not needed here: the chapter draws its own pictures
IMAGES = ""
IMAGE_SIZE = 0
MODELS = []

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
# A scene depends on a seed and a number, and on nothing else. So scene 4 is always the same. It does
# not matter whether we draw it alone or as one of a million.

# %%
world = qk.world.make(seed=0, start=0, stop=10)
alone = qk.world.make(seed=0, start=4, stop=5)
tell(largest_difference=float(abs(world.image[4] - alone.image[0]).max()))
list(world.image.shape), list(world.slot.shape)

# %% [markdown]
# The shape of the image is scene × colour channel × row × column. The objects lie on a lattice. For
# every pixel, `slot` gives the number of the lattice cell whose object covers the pixel, or −1 for no
# object. Scene 4 drawn alone differs from scene 4 of ten by {glue:text}`largest_difference:g`.
#
# ## What can be odd
#
# The odd object is the *target*. All other objects are *distractors*. Distractors share kind, colour and
# texture. They also share size and lean, up to a little scatter. If the target is odd in kind or
# colour, the distractors may come in two sorts: we call this a *mixed* scene. The target differs in one
# factor: `ODD_FACTORS` lists the factors. In about one scene out of eight nothing is odd.
#
# :::{admonition} Predict, then look
# :class: tip
# Which odd factor will you see at a glance? For which will you have to search?
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
# Read {numref}`fig-odd` row by row. An odd colour stands out at once. To see that one object is turned
# or dotted, you have to compare it with its neighbours. To see that one is displaced, you have to look
# at the whole lattice. So the odd object is found only by a comparison of objects. The section *What a
# model can do* asks whether a model finds it.
#
# ## Objects have parts
#
# Every kind of object has a body. Some kinds have a part of their own: a face and a robot have eyes, a
# cart has wheels. So we can ask what a head relates: part to part, object to object, or object to
# background. The masks give the exact answer.

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
# Rows are kinds, columns are parts. Each entry is the share of the object's pixels that the part covers.
#
# A model sees patches, not pixels. `patch_fractions` says how much of each patch a mask covers:

# %%
fraction = qk.world.patch_fractions(many.mask(qk.world.TARGET), architecture.PATCH)
covered = (fraction > 0.5).sum((1, 2)).float()
tell(covered=float(covered.mean()), largest=float(fraction.amax((1, 2)).mean()))
list(fraction.shape)

# %% [markdown]
# On average {glue:text}`covered:.1f` patches lie mostly on the target. The target covers
# {glue:text}`largest:.2f` of its best patch.
#
# ## What a model can do
#
# The supervised model answers three questions about a scene. In which factor is one object odd, if any?
# What is the kind of this object? What is its colour?
#
# :::{admonition} Predict, then look
# :class: tip
# For which odd factor will the model be best, and for which worst? Two of the three questions can often
# be answered without finding the odd object. Which two, and in which scenes?
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
# Each row stands for 300 scenes that are odd in one factor. No model was trained on them. The last row
# has no kind and colour, because nothing is odd there. As a control, the model sees the same scenes
# once more *without the target*. An answer that is still right then comes from the distractors alone.

# %% tags=["hide-input"] mystnb={"figure": {"name": "fig-right", "caption": "For each odd factor, the share of 300 held-out scenes in which the model names it. Blue: the whole scene. Grey: the same scenes without the target. Thin bars: 95 % intervals. Dashed: guessing among seven."}, "image": {"alt": "Bars of the share of scenes whose odd factor is named, with the target and without it, and a dashed line at one seventh."}}
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
# Look at the blue bars of {numref}`fig-right`. {glue:text}`subject` is right most often where the answer
# is *{glue:text}`best`* ({glue:text}`best_share:.2f`). It is right least often where the answer is
# *{glue:text}`worst`* ({glue:text}`worst_share:.2f`). The answer *none* means that nothing is odd.
#
# Now look at the grey bars. Without the target, the highest share is {glue:text}`leak:.2f`, for
# *{glue:text}`leak_factor`*. So the model need not find the target to be right. In the scenes *none*
# both bars show the same scenes, because there is no target to take out.
#
# Where does this come from? The distractors give the odd factor away:
#
# - Position is odd: all objects are smaller, and the lattice is regular.
# - Size is odd: all other objects are very small or very large.
# - Kind or colour is odd: only then are there two sorts of distractor.
# - Orientation is odd: no ordinary object is a ball.
#
# The other two questions are easier still. Where size, orientation, texture or position is odd, kind and
# colour are those of *all* objects. Then the model can name them without looking for the target.
# :::
#
# The repository contains models for several training objectives. The table shows the first training run
# of each. Two more runs have names that end in `-s1` and `-s2`. A file beside the weights, the *card* of
# a model, says how the model was trained and what was measured.

# %% tags=["hide-input"]
catalogue = qk.catalogue()
first_runs = models.family()[0].dropna()
pd.set_option("display.max_colwidth", None)
catalogue.loc[first_runs, ["objective", "note"]].rename_axis(None)

# %% [markdown]
# ## Explore: one scene, many oddities
#
# These are the same scenes, drawn with another odd factor each time. What stays the same, and what
# changes?

# %% tags=["hide-input"]
frames = [
    plots.scene_frame(qk.world.make(3, 0, 4, odd=[o]), o) for o in qk.world.ODD_FACTORS
]
texts = [f"Four scenes with their masks; odd: {odd}." for odd in qk.world.ODD_FACTORS]
views.stepper(frames, list(qk.world.ODD_FACTORS), texts, "what is odd")

# %% [markdown]
# **Try it.** For which factor do you need more than a second to find the target? Does the mean colour of
# an image tell the target's colour? Suppose that you see only the target of a *mixed* scene. Could you
# say in what it is odd?
#
# :::{dropdown} Answers
# Compare the time that you need for colour with the time for size or position. The mean colour tells
# little: the ground fills most of the picture, and the target is one object of many. From the target
# alone you cannot say in what it is odd. Its kind and colour are as common as any others. Only the
# distractors make it the odd one.
# :::
#
# ## Did we reproduce it?
#
# The paper has no such world, so there is nothing of it to reproduce here.
#
# ## What to remember
#
# - A seed and a number determine a scene. The masks of objects and parts are exact.
# - A target is odd in one factor. About one scene in eight has no target.
# - A model is worth taking apart only if it has learned something: look at its card first.
# - A high share of right answers may come from a short cut. Ask which answer the short cut gives.
#
# **Limits.** The distractors alone give part of the answer away, as the control shows. This is a toy
# world. What a head does here shows what training *can* produce. It does not show what training
# produces on photographs.
#
# **Further reading.** The images that inspired it {cite}`kotseruba2019saliency`.
#
# **Next.** {doc}`03_cosine_trends` follows one number, the weighted cosine of a head, from the first layer
# to the last.
