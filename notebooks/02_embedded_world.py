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
# # Does the small model find the odd one out?

# %% tags=["parameters", "hide-input"]
# MODEL: an embedded model that says what is odd; for any other, tiny-supervised stands in
MODEL = "tiny-supervised"
# MODELS, IMAGES, IMAGE_SIZE: not needed here: the chapter draws its own pictures
IMAGES = ""
IMAGE_SIZE = 0
MODELS = []

# %% tags=["hide-input"] mystnb={"figure": {"name": "fig-odd", "caption": "Six drawn scenes. In each, one object differs from all others. They are drawn here with more pixels than the models get."}, "image": {"alt": "Six scenes in two rows: robots, balls, faces and carts on soft striped backgrounds, in each a handful of like objects."}}
import re
from dataclasses import replace

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import torch

import qkutils as qk
from qkutils import models, statistics, views
from qkutils.book import ledger, tell
from qkutils.book.checks import embedded_world as check
from qkutils.views import figures as plots
from qkutils.world.training import architecture, evaluate

WITH_TARGET = qk.world.ODD_FACTORS[:-1]  # the last one is: nothing is odd
LARGE = 128  # pixels of a side, for people's eyes
NUMBERS = {
    "position": 0,
    "texture": 7,
    "colour": 6,
    "orientation": 2,
    "size": 5,
    "kind": 3,
}
shown = {
    odd: qk.world.make(seed=1, start=n, stop=n + 1, odd=[odd], size=LARGE)
    for odd, n in NUMBERS.items()
}
fig, axes = plt.subplots(2, 3, figsize=(7.5, 5.2), layout="constrained")
for ax, letter, scene in zip(axes.flat, "ABCDEF", shown.values(), strict=True):
    ax.imshow(scene.image[0].movedim(0, -1))
    ax.set(xticks=[], yticks=[])
    ax.set_title(f"scene {letter}", fontsize=9)

# %% [markdown]
# Each scene in {numref}`fig-odd` hides one object that differs from all others. **Find it. And ask yourself
# what you compared to find it.** A small model was trained to answer the same question. It is right in most
# scenes. Does that mean that it compares objects, as you just did?
#
# **Where we stand.** {doc}`01_svd_derivation` took heads of a small model apart. Before we interpret them, we
# should know the model's world, and what the model really learned.
#
# :::{admonition} Before you start
# **After this chapter you can**
# - make scenes with exact masks of objects and parts, the same on every machine;
# - name the six ways in which the models of this book were trained;
# - judge a model next to guessing, to an untrained copy, and to scenes without the target;
# - uncover a short cut by changing one thing about a scene.
#
# **You need** Python, arrays, and means with intervals.
#
# **Time**: 35 minutes to read, 15 minutes for the exploration, exercises 55 minutes, under a minute to run on a
# laptop, 45 minutes to teach. Runs with no GPU and no network.
# :::

# %% [markdown]
# ## The world
#
# The odd object is the *target*. All other objects are *distractors*. Two known sets of pictures inspired
# the scenes {cite}`kotseruba2019saliency`: O3, photographs with one odd object among similar ones, and P3,
# drawn patterns of the same sort. The target differs from the distractors in one *factor*:
#
# | odd factor | the target | the distractors |
# |---|---|---|
# | colour | another colour | one colour, or two in *mixed* scenes |
# | kind | another kind of object | one kind, or two in *mixed* scenes |
# | size | much larger, or much smaller | all very small, or all very large |
# | orientation | turned by a quarter | all lean the same way, up to a little scatter |
# | texture | plain, striped or dotted | another texture, all the same |
# | position | moved off its place | all exactly on a lattice |
# | none | there is none | all alike |
#
# In the other factors the target is like the distractors. In about one scene in eight nothing is odd.
#
# :::{admonition} Predict, then look
# :class: tip
# Which object is the target in each scene A to F of {numref}`fig-odd`, and in which factor is it odd?
# :::

# %% tags=["hide-input"]
fig, axes = plt.subplots(2, 3, figsize=(7.5, 5.2), layout="constrained")
for ax, letter, (odd, scene) in zip(axes.flat, "ABCDEF", shown.items(), strict=True):
    ax.imshow(plots.scenes_and_masks(scene)[1])
    ax.set(xticks=[], yticks=[])
    ax.set_title(f"scene {letter}: {odd}", fontsize=9)
plt.close(fig)
tell(masks=fig)

# %% [markdown]
# ::::{dropdown} The targets
# :::{glue:figure} masks
# :name: fig-masks
# :alt: Six masks in the same order as the scenes. In each, one object is orange and the others are blue.
#
# The exact masks of the six scenes: the target in orange, distractors in blue. Parts such as eyes, wheels
# and handles are darker.
# :::
#
# To see that an object is turned or dotted, you compare it with its neighbours. To see that one is
# displaced, you look at the whole lattice. A scene is odd only by comparison.
# ::::
#
# A scene depends on a seed and a number, and on nothing else. So scene 4 is always the same, drawn alone
# or as one of a million:

# %%
many = qk.world.make(seed=0, start=0, stop=10)
alone = qk.world.make(seed=0, start=4, stop=5)
same = torch.equal(many.image[4], alone.image[0])
fraction = qk.world.patch_fractions(many.mask(qk.world.TARGET), architecture.PATCH)
same, list(many.image.shape), list(many.slot.shape), list(fraction.shape)

# %% tags=["hide-input"]
some = qk.world.make(seed=2, start=0, stop=200, odd=["colour"])
covered = qk.world.patch_fractions(some.mask(qk.world.TARGET), architecture.PATCH)
tell(same="equal" if same else "not equal")
tell(covered=float((covered > 0.5).sum((1, 2)).float().mean()))

# %% [markdown]
# The two drawings are {glue:text}`same`. The image has the shape scene × colour channel × row × column. For
# every pixel, `slot` says which object covers it, and `part` says which part of the object: a body, an eye, a
# wheel, a handle, a stem. A model sees patches of 8 × 8 pixels. `patch_fractions` says how much of each patch
# a mask covers. On average {glue:text}`covered:.1f` patches lie mostly on the target.

# %% [markdown]
# ## Six ways to train one network
#
# All embedded models are one network: 8 layers, 4 heads in each, 64 patches. All saw scenes of this
# world, and nothing else. They differ in what they were trained for, and the following chapters compare
# them.
#
# - **Supervised.** The model sees a scene and names the odd factor, and the kind and colour of the odd
#   object. It is told the right answers.
# - **SimMIM** (masked pixels). Some patches of a scene are hidden, and the model fills in their pixels
#   {cite}`xie2022simmim`. It needs no labels.
# - **DINO** (self-distillation). The model sees two crops of one scene, and has to describe them alike
#   {cite}`caron2021emerging`. Its teacher is a slowly following copy of itself, and it needs no labels.
# - **Fine-tuned.** The SimMIM model is trained on, now with the questions of the supervised model. It shows
#   what labels change in a model that has already learned.
# - **Continued.** The SimMIM model is trained on for equally long, *without* labels. It is the control of
#   the fine-tuned one: what changes in both is not due to labels.
# - **Untrained.** This is the network before its first step. What it shows needs no learning.
#
# Each was trained several times, from several first weights: a *training run*. Runs that differ only by chance
# tell how far a single model can be trusted.

# %% tags=["hide-input"]
family = models.family()


def on_card(name, pattern):
    """A number that was measured when the model was trained, from the card beside its weights."""
    card = (architecture.FOLDER / f"{name}.md").read_text("utf-8")
    return re.search(pattern, " ".join(card.split())).group(1)


rows = {}
for goal, names in family.iterrows():
    runs = [*names.dropna()]
    probe = [
        float(on_card(name, r"linear probe \| [\d.]+ \| ([\d.]+)")) for name in runs
    ]
    rows[goal] = {
        "scenes": on_card(runs[0], r"([\d,]+) scenes, each seen once"),
        "runs": len(runs),
        "probe": f"{np.mean(probe):.2f}",
    }


sorts = len(qk.world.KINDS) * len(qk.world.COLOURS)
tell(probe_chance=1 / sorts, probe_untrained=rows["untrained"]["probe"])
pd.DataFrame(rows).T

# %% [markdown]
# *Probe* asks what can be read from a model's last layer: a linear classifier names the kind and the
# colour that the many objects share. Chance is {glue:text}`probe_chance:.2f`. These numbers stand on the *card* of each model, a
# text file beside its weights, as means over runs. Even the untrained network passes something on, so
# {glue:text}`probe_untrained` is the number to beat.

# %% [markdown]
# ## What the supervised model can do
#
# The supervised model answers three questions about a scene. In which factor is one object odd, if any?
# What is the kind of this object? What is its colour?
#
# We ask about scenes that no model saw in training. As a control, we ask about the same scenes *with the
# target hidden*: its cell is left empty. An answer that is still right comes from the distractors alone.
#
# :::{admonition} Predict, then look
# :class: tip
# For which odd factor will the model be best, and for which worst? When the target is hidden, for which odd
# factor can the answer still be right?
# :::

# %% tags=["hide-input"]
COUNT = 120  # scenes of each sort
MANY = 500  # of those in which position is odd
classifies = getattr(qk.load(MODEL).net, "num_classes", 0) == architecture.CLASSES
own = re.sub(r"^tiny-|-s\d+$", "", MODEL)
objective = own if classifies and own in family.index else "supervised"
run_names = [*family.loc[objective].dropna()]
nets = [qk.load(name).net for name in run_names]
blank = [architecture.build(seed=0)]  # the same network before its first step
ODD = [*architecture.QUESTIONS].index("odd factor")
tell(
    objective=objective,
    runs=len(nets),
    scenes=COUNT,
    guess=1 / len(qk.world.ODD_FACTORS),
)


@torch.inference_mode()
def answers(scenes, nets):
    """What each network answers to each question: [network, scene, question]."""
    of_nets = [architecture.logits(net, scenes.image) for net in nets]
    return torch.stack(
        [torch.stack([a.argmax(1) for a in each], 1) for each in of_nets]
    )


def hidden(factors):
    """The same scenes without their targets."""
    role = factors.role.where(factors.role != qk.world.TARGET, qk.world.ABSENT)
    return replace(factors, role=role)


drawn, said, right = {}, {}, {"whole": {}, "hidden": {}, "untrained": {}}
for number, odd in enumerate(qk.world.ODD_FACTORS):
    drawn[odd] = qk.world.make(evaluate.HELD_OUT_SCENES, 0, COUNT, odd=[odd])
    said[odd] = answers(drawn[odd], nets)
    states = {"whole": said[odd], "untrained": answers(drawn[odd], blank)}
    if odd in WITH_TARGET:
        states["hidden"] = answers(qk.world.render(hidden(drawn[odd].factors)), nets)
    for state, each in states.items():
        right[state][odd] = (each[..., ODD] == number).float().mean(1).numpy()


mean = {
    state: {o: float(v.mean()) for o, v in each.items()}
    for state, each in right.items()
}
best, worst = (pick(mean["whole"], key=mean["whole"].get) for pick in (max, min))
whole_runs = np.mean([right["whole"][odd] for odd in qk.world.ODD_FACTORS], 0)

# %% tags=["hide-input"]
found = {"whole": statistics.over_runs(whole_runs - 1 / len(qk.world.ODD_FACTORS))}
needs = [right["whole"][odd] - right["hidden"][odd] for odd in WITH_TARGET]
found["target"] = statistics.over_runs(np.mean(needs, 0))
tell(
    best=best,
    worst=worst,
    best_share=mean["whole"][best],
    worst_share=mean["whole"][worst],
)
tell(all_share=float(whole_runs.mean()), over_guess=statistics.text(found["whole"]))
tell(untrained_share=float(np.mean([*mean["untrained"].values()])))
tell(needs_target=statistics.text(found["target"]))
tell(position=mean["whole"]["position"], position_hidden=mean["hidden"]["position"])
others = [share for odd, share in mean["hidden"].items() if odd != "position"]
hidden_at = max(mean["hidden"].keys() - {"position"}, key=mean["hidden"].get)
tell(hidden_most=max(others), hidden_at=hidden_at)
fig, ax = plt.subplots(figsize=(7.5, 3.9), layout="constrained")
plt.close(fig)
at = np.arange(len(qk.world.ODD_FACTORS))
colour = plots.looks([run_names[0]])[run_names[0]]["color"]
for n, (state, label, shade) in enumerate(
    [
        ("whole", "whole scene", colour),
        ("hidden", "target hidden", "0.75"),
        ("untrained", "whole scene, untrained network", "0.35"),
    ]
):
    of_state = [mean[state].get(odd, np.nan) for odd in qk.world.ODD_FACTORS]
    ax.bar(at + 0.27 * (n - 1), of_state, 0.25, color=shade, label=label)
    for x, odd in zip(at, right[state], strict=False):
        shares = right[state][odd]
        ax.plot([x + 0.27 * (n - 1)] * len(shares), shares, ".", color="black", ms=3)
ax.axhline(1 / len(at), ls="--", color="0.4", label="guessing among seven")
ax.set_xticks(at, qk.world.ODD_FACTORS)
ax.set(ylabel="share of right answers", xlabel="what is odd", ylim=(0, 1.05))
fig.legend(fontsize=8, loc="outside lower center", ncols=2)
tell(right_figure=fig)

# %% [markdown]
# ::::{dropdown} What the run says
# :::{glue:figure} right_figure
# :name: fig-right
# :alt: Three bars for each odd factor. Those of whole scenes are high for colour and position. Those of the untrained network are near zero but for one factor. Hiding the target lowers all but that of position.
#
# How often the model names the odd factor, in scenes odd in one factor. Bars are means over training runs, and
# points are single runs. Scenes in which nothing is odd have no target to hide. The untrained network is right
# where its few favourite answers happen to fit.
# :::
#
# The model is best where the answer is *{glue:text}`best`* ({glue:text}`best_share:.2f`), and worst for
# *{glue:text}`worst`* ({glue:text}`worst_share:.2f`). With the target hidden, one answer stays right:
# *position*.
# ::::
#
# **The model is far better than guessing.** Over the seven factors it is right in {glue:text}`all_share:.2f` of the
# scenes. Guessing would give {glue:text}`guess:.2f`, and the untrained network gives
# {glue:text}`untrained_share:.2f`. The difference to guessing is {glue:text}`over_guess`, with a 95 % interval
# over {glue:text}`runs` training runs. **And for most factors it needs the target.** Hiding it costs
# {glue:text}`needs_target`, as a mean over the six factors. Apart from position, at most
# {glue:text}`hidden_most:.2f` stays right (*{glue:text}`hidden_at`*).
#
# One number does not fit. Where position is odd, the model is right in {glue:text}`position:.2f` of the
# scenes, and in {glue:text}`position_hidden:.2f` *without the target*. How can it know that an object is
# displaced when the object is not there? And why does it do better?

# %% [markdown]
# ## A short cut: *position* means small
#
# Perhaps the missing object leaves a hole in the lattice. Or the model sees that the lattice is perfectly
# regular: only where position is odd do the distractors stand exactly in line. Or it sees that these scenes
# have smaller objects, so that there is room to move one. The largest radius in these scenes is
# {glue:text}`small_radius:.2f` of the lattice's pitch. In other scenes, except those odd in size, the largest object
# mostly has {glue:text}`usual_from:.2f` to {glue:text}`usual_to:.2f`. Each guess can be tested, since we can redraw a scene
# with one thing changed.

# %%
f = qk.world.draw(evaluate.HELD_OUT_SCENES, 0, MANY, odd=["position"])
none = drawn["none"].factors
is_target = (f.role == qk.world.TARGET)[..., None]
torch.manual_seed(0)
room = (0.5 - f.radius)[..., None]  # how far an object may move within its cell
scattered = room * (2 * torch.rand(f.offset.shape) - 1)
small = f.radius.max() * none.radius / none.radius.amax(1, keepdim=True)
changed = {
    "target put in line": replace(f, offset=f.offset.masked_fill(is_target, 0)),
    "others scattered": replace(f, offset=f.offset.where(is_target, scattered)),
    "nothing odd, made small": replace(none, radius=small),
}

# %% tags=["hide-input"] mystnb={"figure": {"name": "fig-short-cut", "caption": "One scene in which position is odd, and changed copies; then one in which nothing is odd. Above each: the share of such scenes that the model calls odd in position, mean over training runs."}, "image": {"alt": "Seven small scenes with a number above each. The number is high for all scenes with small objects, and low for the one with objects of the usual size."}}
slot, slots = qk.world.render(f).slot, torch.arange(f.role.shape[1])
pixels = (slot[..., None] == slots).sum((1, 2))
pixels = pixels.masked_fill(f.role != qk.world.DISTRACTOR, -1)
largest = torch.nn.functional.one_hot(pixels.argmax(1), len(slots)).bool()
without_one = replace(f, role=f.role.masked_fill(largest, qk.world.ABSENT))
scenes = {
    "as drawn": f,
    "target hidden": hidden(f),
    "a distractor hidden": without_one,
    "nothing odd": none,
    **changed,
}
order = ["as drawn", "target hidden", "a distractor hidden", "target put in line"]
order += ["others scattered", "nothing odd", "nothing odd, made small"]
POSITION = qk.world.ODD_FACTORS.index("position")


def says_position(factors, count=MANY):
    """The share of scenes to which each run answers: position."""
    few = {
        name: getattr(factors, name)[:count] for name in factors.__dataclass_fields__
    }
    given = answers(qk.world.render(replace(factors, **few)), nets)
    return (given[..., ODD] == POSITION).float().mean(1).numpy()


called = {name: says_position(scenes[name]) for name in order}
told = {name: float(each.mean()) for name, each in called.items()}
keys = ["drawn", "gone", "one_gone", "in_line", "scattered", "none", "small"]
tell(**{f"is_{key}": told[name] for key, name in zip(keys, order, strict=True)})
fig, axes = plt.subplots(2, 4, figsize=(7.5, 4.6), layout="constrained")
for ax, name in zip(axes.flat, order, strict=False):
    fields = scenes[name].__dataclass_fields__
    one = {each: getattr(scenes[name], each)[:1] for each in fields}
    ax.imshow(qk.world.render(replace(f, **one), LARGE).image[0].movedim(0, -1))
    ax.set_title(f"{name}\n“position”: {told[name]:.2f}", fontsize=9)
    ax.set(xticks=[], yticks=[])
axes.flat[-1].set_axis_off()

# %% tags=["hide-input"] mystnb={"figure": {"name": "fig-size", "caption": "Scenes in which nothing is odd, with objects redrawn at several sizes: how often the model calls them odd in position. Thin lines: training runs. Dotted: the size of objects in scenes whose position is odd. Grey: sizes in most other scenes."}, "image": {"alt": "A curve that stays near one for small objects and falls to zero for large ones, with a dotted line where it begins to fall."}}
usual = [odd for odd in WITH_TARGET if odd not in ("position", "size")]
usual = torch.cat([drawn[odd].factors.radius.amax(1) for odd in usual])
usual_from, usual_to = float(usual.min()), float(usual.max())
small_radius = float(f.radius.max())
tell(small_radius=small_radius, usual_from=usual_from, usual_to=usual_to)
radii = np.array([0.26, 0.28, 0.30, 0.32, 0.34, 0.38, 0.42])
unit = none.radius / none.radius.amax(1, keepdim=True)
curve = np.stack(
    [says_position(replace(none, radius=float(r) * unit), 60) for r in radii]
)
fig, ax = plt.subplots(figsize=(7.5, 3), layout="constrained")
ax.axvspan(usual_from, usual_to, label="other scenes", **plots.CHANCE)
ax.axvline(small_radius, color="0.3", ls=":", label="scenes odd in position")
ax.plot(radii, curve, color=colour, lw=0.8, alpha=0.6)
ax.plot(radii, curve.mean(1), "-o", color=colour, lw=2, label="mean over runs")
ax.set(
    xlabel="radius of the objects ÷ pitch of the lattice",
    ylim=(-0.03, 1.03),
    xlim=(0.25, 0.45),
    xticks=radii,
)
ax.set(ylabel="share called\n“position”")
_ = fig.legend(fontsize=8, loc="outside lower center", ncols=3)

# %% tags=["hide-input"]
found["line"] = statistics.over_runs(called["as drawn"] - called["target put in line"])
found["scatter"] = statistics.over_runs(called["as drawn"] - called["others scattered"])
found["small"] = statistics.over_runs(
    called["nothing odd, made small"] - called["nothing odd"]
)
tell(by_small=statistics.text(found["small"]))
for name in ("line", "scatter"):
    tell(**{f"by_{name}": statistics.text(found[name], ".3f")})
    tell(**{f"verdict_{name}": statistics.verdict(found[name], 1, "accuracy")})

# %% [markdown]
# **The answer *position* does not come from the position.** {numref}`fig-short-cut` shows it. Put the target
# back in line, so that nothing is odd. The model still says *position* in {glue:text}`is_in_line:.2f` of the
# scenes. As drawn it was {glue:text}`is_drawn:.2f`; the change over runs is {glue:text}`by_line`. The
# verdict on a change is *{glue:text}`verdict_line`*. So the whole interval lies within a margin, which was fixed for
# all accuracies.
#
# Or scatter the other objects, so that there is no lattice to leave. The share stays at
# {glue:text}`is_scattered:.2f` (change {glue:text}`by_scatter`, {glue:text}`verdict_scatter`).
#
# **It looks at size.** Take scenes in which nothing is odd, and make their objects as small as those of
# position scenes. The answer *position* rises from {glue:text}`is_none:.2f` to {glue:text}`is_small:.2f`
# (change {glue:text}`by_small`). {numref}`fig-size` shows the whole curve: it falls where objects become
# larger than in position scenes.
#
# And why does the model do *better* without the target? It need not be the target that is gone. Hide the distractor
# that shows most instead, and the share rises too, from {glue:text}`is_drawn:.2f` to {glue:text}`is_one_gone:.2f`; with
# the target hidden it is {glue:text}`is_gone:.2f`. Any hole may do it. Or, with one large object gone, the model may see
# less evidence for any other answer. We did not tell these two apart.
#
# The scenes allow this short cut, so training rewarded it. The curve of {numref}`fig-size` was asked after we had seen
# that the answer survives hiding.

# %% [markdown]
# ## The real test: the kind of the odd object
#
# The model also names the kind and the colour of the odd object. In most scenes that is easy: where size is
# odd, *all* objects have the target's kind. Only where kind itself is odd does the question need the target.

# %% tags=["hide-input"]
KIND, COLOUR = (list(architecture.QUESTIONS).index(name) for name in ("kind", "colour"))


def named(odd, question):
    """Share of scenes in which each run names the target's kind or colour."""
    label = drawn[odd].factors.label[:, question]
    return (said[odd][..., question] == label).float().mean(1).numpy()


factors = drawn["kind"].factors
of_many = (factors.role == qk.world.DISTRACTOR)[None]
alike = factors.kind[None] == said["kind"][..., KIND, None]
names_many = float((alike & of_many).any(-1).float().mean())
elsewhere = [odd for odd in WITH_TARGET if odd != "kind"]
kind_elsewhere = np.mean([named(odd, KIND) for odd in elsewhere], 0)
chances = 1 / (len(qk.world.KINDS) - 1), 1 / (len(qk.world.COLOURS) - 1)
found["kind"] = statistics.over_runs(named("kind", KIND) - chances[0])
found["colour"] = statistics.over_runs(named("colour", COLOUR) - chances[1])
found["cost"] = statistics.over_runs(kind_elsewhere - named("kind", KIND))
tell(kind_odd=float(named("kind", KIND).mean()), kind_else=float(kind_elsewhere.mean()))
tell(colour_odd=float(named("colour", COLOUR).mean()), kind_chance=chances[0])
tell(over_chance=statistics.text(found["kind"]), cost=statistics.text(found["cost"]))
tell(names_many=names_many)

# %% [markdown]
# **The model passes the test for colour, and half of it for kind.** Where colour is odd, it names the odd
# object's colour in {glue:text}`colour_odd:.2f` of the scenes. Where kind is odd, it names the odd object's
# kind in {glue:text}`kind_odd:.2f`. Someone who knows the distractors' kind and guesses among the five
# others gets {glue:text}`kind_chance:.2f`; the model is better by {glue:text}`over_chance`. But in all other
# scenes it names the kind in {glue:text}`kind_else:.2f`, so an odd kind costs {glue:text}`cost`. In
# {glue:text}`names_many:.2f` of the scenes it names the kind of a distractor instead.
#
# A high mean would have hidden that. Over all scenes the kind is mostly right, because most scenes do not
# need the odd object.

# %% [markdown]
# ## Explore: one scene, many oddities
#
# These are the same two scenes, drawn with another odd factor each time. Every second step shows the
# masks.

# %% tags=["hide-input"]
frames, steps, texts = [], [], []
for odd in qk.world.ODD_FACTORS:
    pair = plots.scenes_and_masks(qk.world.make(3, 0, 2, odd=[odd], size=LARGE))
    for label, pictures in ((odd, pair[::2]), (f"{odd}, masks", pair[1::2])):
        frames.append(plots.scene_frame(pictures, f"odd: {label}"))
        steps.append(label)
        texts.append(f"Two scenes, odd: {label}.")
views.stepper(frames, steps, texts, "what is odd")

# %% [markdown]
# **Try it.**
# 1. What changes from step to step, apart from the target?
# 2. Does the mean colour of an image tell the target's colour?
# 3. Suppose that you see only the target of a *mixed* scene. Could you say in what it is odd?
#
# :::{dropdown} Answers
# 1. The sizes. Objects are small where position is odd, and very small or very large where size is odd. That
#    is the short cut of this chapter, in plain sight. In position scenes the distractors also stand
#    exactly in line.
# 2. Hardly: the ground fills most of the picture, and the target is one object of many.
# 3. No. Its kind and colour are as common as any others. Only the distractors make it the odd one.
# :::

# %% [markdown]
# ## Exercises
#
# Write in the notebook, where `...` stands. The line below each exercise checks what you wrote. It says what
# holds, and what does not hold yet.
#
# ### Exercise 2.1. From pixels to patches
#
# *Easy, 10 minutes. Trains: how a mask over pixels becomes a mask over patches.*
#
# A model sees patches, and a mask has pixels. Write the function that says which share of each patch a mask
# covers. The library has one, `qk.world.patch_fractions`. Write it without.


# %% tags=["exercise"]
def share_of_patches(mask, size):
    """Shares [scene, row, column] from a mask [scene, height, width].

    A patch has `size` × `size` pixels.
    """
    patches = mask.float().unflatten(2, (-1, size))  # solution
    patches = patches.unflatten(1, (-1, size))  # solution
    return patches.mean((2, 4))  # solution


# %% tags=["check"]
check.covered(share_of_patches)

# %% [markdown]
# :::{dropdown} Hint 1
# Split the height into rows of patches and pixels within a patch. Do the same with the width.
# :::
#
# :::{dropdown} Hint 2
# `unflatten(2, (-1, size))` makes two dimensions of the width. The slower one comes first: the column of the
# patch.
# :::
#
# :::{dropdown} What you should see
# Two ticks: a full patch gives 1, and each pixel counts in its patch alone.
# :::

# %% [markdown] tags=["solution"]
# :::{dropdown} What it means
# A patch at the edge of an object belongs to it in part. Whoever rounds first gives such a patch to the object
# or to the ground, and small objects suffer most. So the book keeps shares. It weights attention by them where it
# asks how much falls on an object.
# :::

# %% [markdown]
# ### Exercise 2.2. Take the oddness away
#
# *Medium, 15 minutes, predict first. Trains: an intervention that changes one thing.*
#
# Take scenes in which colour is odd. Paint the target in the colour of one of its distractors, so that nothing is
# odd any more. Does the model still answer *colour* in most of them, *yes* or *no*? Write down your prediction.
# Then write the function that paints the target.

# %% tags=["exercise"]
# "yes" or "no"
prediction = "no"  # solution


def same_colour(factors):
    """The same scenes; the target has the colour of a distractor."""
    first = (factors.role == qk.world.DISTRACTOR).int().argmax(1)  # solution
    usual = factors.colour.gather(1, first[:, None])  # solution
    painted = factors.role == qk.world.TARGET  # solution
    return replace(factors, colour=factors.colour.where(~painted, usual))  # solution


# %% tags=["check"]
check.same_colour(same_colour, prediction)
looked_at = drawn["colour"].factors, same_colour(drawn["colour"].factors)
looked_at = [answers(qk.world.render(each), nets)[..., ODD] for each in looked_at]
[
    float((each == qk.world.ODD_FACTORS.index("colour")).float().mean())
    for each in looked_at
]

# %% [markdown]
# :::{dropdown} Hint 1
# `factors.role` says what is in each slot of the lattice: nothing, a distractor or the target.
# :::
#
# :::{dropdown} Hint 2
# `argmax` over `(role == DISTRACTOR).int()` finds the first distractor of each scene. `gather` fetches its
# colour.
# :::
#
# :::{dropdown} Hint 3
# `replace(factors, colour=...)` makes new scenes. `where` makes a new tensor, and leaves the old one as it is.
# :::
#
# :::{dropdown} What you should see
# Five ticks. Then two shares of the answer *colour*: for the scenes as drawn, and for the painted ones. "No" is right if
# the second share is below one half. A tick only says that you made a prediction.
# :::

# %% [markdown] tags=["solution"]
# :::{dropdown} What it means
# Compare with position, where the answer stayed when the target was put in line. Here the share falls far. So most of
# the answer *colour* comes from the odd colour, and this is no short cut. What is left says that some scenes have
# other signs of it.
# :::

# %% [markdown]
# ### Exercise 2.3. How small is the target?
#
# *Easy, 10 minutes, with the view. Trains: seeing a scene as the model does.*
#
# Go back to *Explore: one scene, many oddities*, and step through the masks. In which step is a target
# smallest? Write down what is odd there. The model divides the picture into 8 × 8 patches. How many patches would
# this target fill?

# %% tags=["exercise"]
# What is odd in the step with the smallest target, such as "kind"
step = "size"  # solution
# How many patches it would fill
filled = 2  # solution

# %% tags=["check"]
check.smallest(
    step, filled, {of: qk.world.make(3, 0, 2, odd=[of]) for of in qk.world.ODD_FACTORS}
)

# %% [markdown]
# :::{dropdown} Hint 1
# Every second step shows masks, with the target in orange. Each step has two scenes: look at both.
# :::
#
# :::{dropdown} Hint 2
# Hold a finger or a strip of paper against the picture. One patch is an eighth of its width.
# :::
#
# :::{dropdown} What you should see
# Three ticks. Two steps are so close that both count.
# :::

# %% [markdown] tags=["solution"]
# :::{dropdown} What it means
# The picture has 64 patches. If attention were spread evenly, a target of two patches would get 2/64 of it: about
# three per cent. Keep this number for {doc}`05_odd_one_out`. There, a share of attention means nothing without the
# area of the object.
# :::

# %% [markdown]
# ### Exercise 2.4. Be the short cut
#
# *Hard, 20 minutes, in pairs. Trains: what the distractors alone give away.*
#
# One of you writes a rule that tells from sizes alone whether position is odd. The other looks for a sort of scenes on
# which the rule fails. Change roles until no sort of scenes breaks it. The rule should know 95 % of the scenes with an odd
# position. It may take a tenth of any other sort for them, at most. The rule gets the factors of scenes. It may look at
# distractors only, and not at places. If you work alone, write the rule first. Then try to break it.


# %% tags=["exercise"]
def by_size(factors):
    """Whether position is odd, [scene], from the distractors' sizes."""
    distractor = factors.role == qk.world.DISTRACTOR  # solution
    largest = factors.radius.masked_fill(~distractor, 0).amax(1)  # solution
    return (largest > 0.29) & (largest < 0.32)  # solution


# %% tags=["check"]
check.by_size(by_size)
{
    of: round(float(by_size(each.factors).float().mean()), 2)
    for of, each in drawn.items()
}

# %% [markdown]
# :::{dropdown} Hint 1
# Print the largest radius of the distractors for scenes of each sort: `drawn["position"].factors`,
# `drawn["size"].factors`, and so on.
# :::
#
# :::{dropdown} Hint 2
# One threshold is not enough. Where size is odd, the distractors may be even smaller than where position is odd.
# :::
#
# :::{dropdown} Hint 3
# Empty slots have a radius, too. `masked_fill` takes them out, and the target with them.
# :::
#
# :::{dropdown} What you should see
# Six ticks. Then, for each sort of scenes, how often your rule says *position*.
# :::

# %% [markdown] tags=["solution"]
# :::{dropdown} What it means
# Two thresholds solve the task without a target, without a lattice and without any comparison of objects. A high
# share of right answers therefore shows nothing about comparison. Whoever makes such a world can close the short
# cut: draw small objects in all sorts of scenes. Whoever has photographs cannot, and must test for it.
# :::

# %% [markdown]
# ## Quiz
#
# Choose an answer: each one says why it is right or wrong.
#
# **1. A model answers rightly in nearly all scenes with an odd position. What does this show?**
#
# :::{dropdown} That it compares the places of objects
# :class-container: option
# No. Another sign may go with the answer. Here it is the size of the objects.
# :::
#
# :::{dropdown} That something in these scenes tells the answer, whatever it is
# :class-container: option right
# Right. Only a changed scene can say which part of it the answer follows.
# :::
#
# :::{dropdown} That it was trained too long
# :class-container: option
# No. The scenes were held out, so it does not remember them. The sign is in the new scenes, too.
# :::
#
# **2. Why do we also ask an untrained network?**
#
# :::{dropdown} It shows what right answers there are without any learning
# :class-container: option right
# Right. A few favourite answers can fit a sort of scenes by luck. What training gave is the difference.
# :::
#
# :::{dropdown} It shows how fast training was
# :class-container: option
# No. It tells of the state before the first step, and nothing about the steps.
# :::
#
# :::{dropdown} It is always right by guessing, one time in seven
# :class-container: option
# No. It does not guess evenly: it gives nearly the same answer to all scenes.
# :::
#
# **3. Hiding the target costs no right answers for one odd factor. What follows for this factor?**
#
# :::{dropdown} The model sees the target through its shadow in the lattice
# :class-container: option
# No. That is one possible reason, and it can be tested: change the lattice, and see whether the answer follows.
# :::
#
# :::{dropdown} The target was too small to matter in any scene
# :class-container: option
# No. It may be small or large. The scene without it just tells the same.
# :::
#
# :::{dropdown} The distractors are enough for the answer
# :class-container: option right
# Right. What they give away is the next question, and one more changed scene can answer it.
# :::

# %% [markdown]
# ## Did we reproduce it?
#
# The paper has no such world, so all claims are ours.

# %% tags=["hide-input"]
who = {"subject": f"{objective}, drawn scenes", "over": f"{len(nets)} runs"}
plain = {"direction": 1, "measure": "accuracy"} | who
changed_scene = plain | {"seen": True, "more": "null 0"}
guess = f"null: guessing, {1 / len(at):.2f}"
names_it = "The model names the odd factor more often than guessing."
needs_it = "Hiding the target costs right answers (mean of six factors)."
in_line = "Putting a displaced target in line costs the answer “position”."
scatter = "Scattering the lattice costs the answer “position”."
made_small = "Making objects small brings the answer “position”."
kind = "Where kind is odd, the model names the odd object's kind."
colours = "Where colour is odd, the model names the odd object's colour."
cost = "The model names the kind less often where kind is odd."
others = "null: guessing among the others, {:.2f}".format
ledger.Rows(
    [
        ledger.claim(names_it, found["whole"], **plain, more=guess),
        ledger.claim(needs_it, found["target"], **plain, more="null 0"),
        ledger.claim(in_line, found["line"], **changed_scene, form=".3f"),
        ledger.claim(scatter, found["scatter"], **changed_scene, form=".3f"),
        ledger.claim(made_small, found["small"], **changed_scene),
        ledger.claim(kind, found["kind"], **plain, seen=True, more=others(chances[0])),
        ledger.claim(
            colours, found["colour"], **plain, seen=True, more=others(chances[1])
        ),
        ledger.claim(cost, found["cost"], **changed_scene),
    ]
)

# %% [markdown]
# ## What was found
#
# - **The model is far better than guessing**: {glue:text}`all_share:.2f` right over seven odd factors (guessing
#   {glue:text}`guess:.2f`, untrained {glue:text}`untrained_share:.2f`).
# - **For five factors it uses the target**: without it at most {glue:text}`hidden_most:.2f` stays right
#   (*{glue:text}`hidden_at`*). Whether it compares it with the others was not tested.
# - **For position it reads size, and compares nothing.** Putting the target in line changes {glue:text}`by_line` of
#   the answers ({glue:text}`verdict_line`). Small objects alone bring the answer in {glue:text}`is_small:.2f` of the
#   scenes.
# - **Where kind is odd, it names the odd kind in only {glue:text}`kind_odd:.2f`**; elsewhere in
#   {glue:text}`kind_else:.2f`.
#
# Worth keeping: a high share of right answers may come from a short cut. Change one thing about the scene, and
# see whether the answer follows. And look at the cases in which the question really needs an answer.
#
# **Limits.** This is a toy world. What a head does here shows what training *can* produce. It does not show
# what training produces on photographs. Redrawn scenes are a little different from those of training.
#
# **Further reading.** The images that inspired the world {cite}`kotseruba2019saliency`; short cuts in deep
# networks {cite}`geirhos2020shortcut`.
#
# **Next.** We know what the models can do. {doc}`03_cosine_trends` asks what their heads look for: does a
# token look for tokens like itself, and does that change from the first layer to the last?
