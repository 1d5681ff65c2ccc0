"""Relations: what the shares of the odd-one-out study say of an object, of others, of the rest."""

from __future__ import annotations

import xarray as xr

from qkutils import options, statistics
from qkutils.studies._regions import OBJECTS

RELATIONS = {"same": OBJECTS, "different": OBJECTS[::-1], "background": ("background",) * 2}


def share_excess(shares: xr.Dataset, others: bool = True) -> xr.DataArray:
    """Subtract the null share from the share: what the picture adds to geometry.

    Parameters
    ----------
    shares
        What `odd_one_out` gave.
    others
        Whether to leave out the query's own patch.

    Returns
    -------
    xr.DataArray
        Over (image, layer, head, query, region).

    Raises
    ------
    ValueError
        For a dataset without shares.

    Examples
    --------
    >>> import qkutils as qk
    >>> shares = qk.studies.odd_one_out("tiny-supervised", qk.world.samples(0, 0, 4))
    >>> excess = qk.studies.share_excess(shares)
    >>> bool(abs(excess.sum("region")).max() < 1e-5)
    True
    """
    suffix = "_others" if options.flag("others", others) else ""
    options.with_fields("shares", shares, f"share{suffix}", f"null_share{suffix}")
    return (shares[f"share{suffix}"] - shares[f"null_share{suffix}"]).rename("excess")


def relations(values: xr.DataArray) -> xr.DataArray:
    """Group queries and regions into the three relations of the paper's figure 2, by their means.

    `same`: the target on the target, and distractors on distractors.  `different`: each on the
    other.  `background`: both on the background.  Paper figure 2.

    Parameters
    ----------
    values
        Numbers over query, region and other dimensions, such as `shares.share`.

    Returns
    -------
    xr.DataArray
        Over `relation`, in the place of query and region.  NaN for an image in which the target or
        the distractors can't be asked.

    Raises
    ------
    ValueError
        For values without the dimensions query and region.

    Examples
    --------
    >>> import qkutils as qk
    >>> shares = qk.studies.odd_one_out("tiny-supervised", qk.world.samples(0, 0, 4))
    >>> means = qk.studies.relations(shares.share)
    >>> means.relation.values.tolist()
    ['same', 'different', 'background']
    """
    options.with_dims("values", values, "query", "region")
    means = []
    for regions in RELATIONS.values():
        asked = zip(OBJECTS, regions, strict=True)
        own, other = (values.sel(query=q, region=r, drop=True) for q, r in asked)
        means.append((own + other) / 2)
    names = xr.DataArray([*RELATIONS], dims="relation", name="relation")
    return xr.concat(means, names).rename(values.name)


def area_of_relations(shares: xr.Dataset) -> xr.DataArray:
    """Say what each relation would get if attention were spread evenly over the patches.

    Parameters
    ----------
    shares
        What `odd_one_out` gave.

    Returns
    -------
    xr.DataArray
        Over `relation`; the mean over images.

    Raises
    ------
    ValueError
        For a dataset without areas.

    Examples
    --------
    >>> import qkutils as qk
    >>> shares = qk.studies.odd_one_out("tiny-supervised", qk.world.samples(0, 0, 4))
    >>> [round(float(area), 2) for area in qk.studies.area_of_relations(shares)]
    [0.14, 0.14, 0.72]
    """
    options.with_fields("shares", shares, "area")
    area = shares.area.mean("image").expand_dims(query=list(OBJECTS))
    return relations(area.rename("area"))


def late_minus_early(shares: xr.Dataset, relation: str = "same", others: bool = True) -> xr.Dataset:
    """Compare the excess over the null in the last third of layers with that in the first third.

    This is the one contrast per model.  The paper says that attention on the same object leads
    early, so that the contrast is below zero for `same`.

    Parameters
    ----------
    shares
        What `odd_one_out` gave.
    relation
        `same`, `different` or `background`: see `relations`.
    others
        Whether to leave out the query's own patch.

    Returns
    -------
    xr.Dataset
        `estimate`, `low` and `high`: the late mean minus the early mean, over heads, and its
        interval over images.

    Raises
    ------
    ValueError
        For an unknown relation, and for a dataset without shares.

    Examples
    --------
    >>> import qkutils as qk
    >>> shares = qk.studies.odd_one_out("tiny-supervised", qk.world.samples(0, 0, 4))
    >>> contrast = qk.studies.late_minus_early(shares)
    >>> bool(contrast.low < contrast.estimate < contrast.high)
    True
    """
    options.choice("relation", relation, RELATIONS)
    values = relations(share_excess(shares, others)).sel(relation=relation).mean("head")
    return statistics.late_minus_early(values)
