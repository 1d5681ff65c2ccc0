"""A head with two dimensions, to take into one's hands."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch
from numpy.typing import ArrayLike

from qkutils import options
from qkutils.views import figures as plots
from qkutils.views._arrays import packed
from qkutils.views._base import View
from qkutils.views.figures import Directions, Points

MOST_TOKENS = 40
_BELOW = str.maketrans("0123456789", "₀₁₂₃₄₅₆₇₈₉")
STRONGEST = 2.0  # where the sliders of σ end, if no stronger head is given


class Plane(View):
    """The view that `two_dimensional` makes."""

    front = "two_dimensional"

    def checked(self, state: dict[str, Any]) -> dict[str, Any]:
        """A head that the sliders reach, and a token that there is."""
        return _checked(state, len(self.data["names"]), self.data["strongest"])


def two_dimensional(
    u0: float = 20.0,
    v0: float = 60.0,
    sigma: tuple[float, float] = (1.5, 0.4),
    mirrored: bool = False,
    tokens: ArrayLike | None = None,
    names: Sequence[str] | None = None,
) -> Plane:
    """Show a head with two dimensions: drag its directions, see its scores and attention.

    Paper section 3.

    Parameters
    ----------
    u0, v0
        Angles of the first query direction and of the first key direction, in degrees, -180 to
        180.
    sigma
        Both strengths, the larger first, from 0.
    mirrored
        Whether the second pair turns the other way round, so that det M is not positive.
    tokens
        From 2 to 40 points [token, 2].  Without, sixteen on a circle of radius √2, as if only
        their length were normalised.
    names
        The tokens' names.  Without, z₀, z₁ and so on.

    Returns
    -------
    Plane
        A widget.  Its `state` holds `u0`, `v0`, `sigma0`, `sigma1`, `mirrored`, and `token`, the
        one that asks.

    Raises
    ------
    ValueError
        Where σ is not in order, a token is no point of a plane, or there is not one name for each.

    Examples
    --------
    >>> import qkutils as qk
    >>> view = qk.views.two_dimensional(u0=0, v0=90, sigma=(2, 1))
    >>> view.state["v0"], view.state["sigma0"], view.state["token"]
    (90.0, 2.0, 0)
    """
    points = _points(tokens)
    numbered = [f"z{n}".translate(_BELOW) for n in range(len(points))]
    labels = numbered if names is None else [str(name) for name in names]
    if len(labels) != len(points):
        raise ValueError(f"{len(labels)} names for {len(points)} tokens: give one name for each")
    first, second = options.finite("sigma", sigma, ndim=1).tolist()
    strongest = max(STRONGEST, first)
    given = {"u0": u0, "v0": v0, "sigma0": first, "sigma1": second, "mirrored": mirrored}
    state = _checked(given | {"token": 0}, len(points), strongest)
    lengths = np.linalg.norm(points, axis=1)
    usual = math.ceil(strongest * np.mean(lengths**2) - 1e-6)  # a score that few go beyond
    limits = (1.3 * max(lengths.max(), 1.0), float(usual), _most_attention(points, strongest))
    data = {
        "tokens": packed(points.astype(np.float32), "float32"),
        "names": labels,
        "strongest": strongest,
        **dict(zip(("extent", "limit", "top"), limits, strict=True)),
    }
    u, v = _frame(u0, False), _frame(v0, mirrored)
    alternative = (
        f"{len(points)} tokens in a plane with arrows to the keys that they like best; the modes "
        f"of a head with σ₀ = {first:g} and σ₁ = {second:g}, u₀ at {u0:g}° and v₀ at {v0:g}°; "
        "the scores of the first token with each place; the attention of all tokens as a matrix."
    )
    still = plots.plane_and_attention(u, np.array([first, second]), v, points, 0, limits)
    return Plane("A head with two dimensions", data, state, still, alternative)


def _points(tokens: ArrayLike | None) -> Points:
    """The tokens as an array; a circle of them where none are given."""
    if tokens is None:
        around = np.linspace(0, 2 * np.pi, 16, endpoint=False)
        return math.sqrt(2) * np.stack([np.cos(around), np.sin(around)], -1)
    points = np.asarray(tokens, dtype=float)
    rows_of_two = points.ndim == 2 and points.shape[1] == 2 and 2 <= len(points) <= MOST_TOKENS
    if not rows_of_two or not 0.5 <= np.linalg.norm(points, axis=1).max() <= 4:
        raise ValueError(
            f"tokens of shape {points.shape}: give from 2 to {MOST_TOKENS} rows of two finite "
            "numbers, the longest with a length from 0.5 to 4, as directions have length 1"
        )
    return points


def _checked(state: Mapping[str, Any], count: int, strongest: float) -> dict[str, Any]:
    """The state of a head no stronger than `strongest`, on `count` tokens; else ValueError."""
    most = {"u0": 180, "v0": 180, "sigma0": strongest, "sigma1": strongest}
    least = {"u0": -180, "v0": -180, "sigma0": 0, "sigma1": 0}
    made: dict[str, Any] = {
        name: options.number(name, state[name], least[name], most[name], closed=True)
        for name in most
    }
    if made["sigma1"] > made["sigma0"]:
        raise ValueError(f"sigma1={made['sigma1']:g}, more than sigma0: σ₀ ≥ σ₁ has to hold")
    made["mirrored"] = options.flag("mirrored", state["mirrored"])
    return made | {"token": options.index("token", state["token"], count)}


def _frame(angle: float, mirrored: bool) -> Directions:
    """A direction at an angle, and the one perpendicular to it, as columns."""
    along, across = math.cos(math.radians(angle)), math.sin(math.radians(angle))
    sense = -1 if mirrored else 1
    return np.array([[along, -sense * across], [across, sense * along]])


def _most_attention(points: Points, strongest: float) -> float:
    """The largest attention that any head no stronger than this gives to one of these tokens."""
    around = np.radians(np.arange(0, 360, 2))
    longest = np.linalg.norm(points, axis=1).max()
    wanted = strongest * longest * np.stack([np.cos(around), np.sin(around)], -1)
    most = torch.softmax(torch.from_numpy(wanted @ points.T) / math.sqrt(2), -1).max()
    return min(1.0, math.ceil(20 * float(most)) / 20)
