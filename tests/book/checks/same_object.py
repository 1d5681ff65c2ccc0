"""Answers to the exercises of chapter 6: some right in another way, some with a planted fault."""

import numpy as np

from qkutils.book.checks import same_object as check


def preferred_by_average(projection, share):
    means = [np.average(projection, weights=of_object) for of_object in share]
    return max(range(len(means)), key=means.__getitem__)


def agreement_by_pairs(counts):
    each = []
    for of_scene in counts:
        total = of_scene.sum() ** 2
        each.append(sum(one * one for one in of_scene) / total)
    return sum(each) / len(each)


def agree(query, key, masks):
    of = masks / masks.sum(-1, keepdims=True)
    picked = [np.einsum("sop,sp->so", of, one).argmax(1) for one in (query, key)]
    return (picked[0] == picked[1]).mean()


def over_masks_of_the_next(query, key, masks):
    return agree(query, key, masks) - agree(query, key, np.roll(masks, -1, 0))


MODES, START, RANDOM = np.array([[0.9, 0.6, 0.5], [0.8, 0.7, 0.7], [0.3, 0.2, 0.25]])

RIGHT = [
    (check.preferred, preferred_by_average),
    (check.agreement, agreement_by_pairs, "More often."),
    (check.over_masks, over_masks_of_the_next),
    (check.reading, 0.48, 0.72, 0.25, MODES, START, RANDOM),
]


def by_sum(projection, share):
    return (share @ projection).argmax()


def smallest(projection, share):
    return (share @ projection / share.sum(1)).argmin()


def without_sign(projection, share):
    return abs(share @ projection / share.sum(1)).argmax()


def strongest_patch(projection, share):
    return np.where(share > 0, projection, -np.inf).max(1).argmax()


def every_patch_in_full(projection, share):
    return ((share > 0) @ projection / (share > 0).sum(1)).argmax()


def patch_not_object(projection, share):
    return projection.argmax()


def one_by_the_mean_count(counts):
    return 1 / (counts > 0).sum(1).mean()


def with_absent_objects(counts):
    return 1 / counts.shape[1]


def not_divided(counts):
    return (counts**2).sum(1).mean()


def scenes_first(counts):
    return ((counts / counts.sum(1, keepdims=True)).mean(0) ** 2).sum()


def most_frequent(counts):
    return (counts / counts.sum(1, keepdims=True)).max(1).mean()


def chance(counts):
    return (1 / (counts > 0).sum(1)).mean()


def patches_rolled(query, key, masks):
    moved = np.roll(masks, 1, -1)
    picked = [np.einsum("sop,sp->so", of, one) for of, one in ((moved, query), (masks, key))]
    return agree(query, key, masks) - (picked[0].argmax(1) == picked[1].argmax(1)).mean()


def sign_turned(query, key, masks):
    return -over_masks_of_the_next(query, key, masks)


def no_null(query, key, masks):
    return agree(query, key, masks)


def objects_rolled(query, key, masks):
    return agree(query, key, masks) - agree(query, key, np.roll(masks, 1, 1))


def by_sums(query, key, masks):
    def agree(masks):
        picked = [np.einsum("sop,sp->so", masks, one).argmax(1) for one in (query, key)]
        return (picked[0] == picked[1]).mean()

    return agree(masks) - agree(np.roll(masks, 1, 0))


WRONG = [
    (check.preferred, by_sum, "A sum favours"),
    (check.preferred, smallest, "smallest mean"),
    (check.preferred, without_sign, "Keep the sign"),
    (check.preferred, strongest_patch, "strongest single patch"),
    (check.preferred, every_patch_in_full, "counts in full"),
    (check.preferred, patch_not_object, "not a patch"),
    (check.agreement, agreement_by_pairs, "always", '"as often"'),
    (check.agreement, one_by_the_mean_count, "as often", "mean of 1/n"),
    (check.agreement, with_absent_objects, "as often", "absent"),
    (check.agreement, not_divided, "as often", "by their sum"),
    (check.agreement, scenes_first, "as often", "averaged first"),
    (check.agreement, most_frequent, "as often", "may choose another"),
    (check.agreement, chance, "as often", "p times p"),
    (check.over_masks, patches_rolled, "first dimension alone"),
    (check.over_masks, sign_turned, "sign is turned"),
    (check.over_masks, no_null, "Take off how often"),
    (check.over_masks, objects_rolled, "dimension of scenes"),
    (check.over_masks, by_sums, "largest mean"),
    (check.reading, 50, 70, 25, MODES, START, RANDOM, "probabilities"),
    (check.reading, 0.9, 0.8, 0.3, MODES, START, RANDOM, "first layer"),
    (check.reading, 0.7, 0.5, 0.25, MODES, START, RANDOM, "exchanged"),
    (
        check.reading,
        0.5,
        0.7,
        0.6,
        MODES,
        START,
        RANDOM,
        "random directions you wrote 0.6, which is too high",
    ),
]
