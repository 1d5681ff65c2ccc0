"""SVD: that of every head's W_qᵀW_k in one layer, checked, and without ever forming the matrix."""

from __future__ import annotations

import numpy as np
import scipy.linalg
import torch
from jaxtyping import Float
from torch import Tensor, nn

from qkutils.heads import Convention, Heads, fold

Projection = Float[Tensor, "head d_head d_model"]
PerHead = Float[Tensor, " head"]
Strengths = Float[Tensor, "head mode"]
Directions = Float[Tensor, "head mode d_model"]

RESIDUAL_LIMIT = 1e-9  # of σ₁: far above rounding in float64, far below anything we report
_FLOAT32 = torch.finfo(torch.float32).eps


def decompose_layer(heads: Heads, layer: int, convention: Convention) -> dict[str, Tensor]:
    """What `decompose` says of one layer, all in float64."""
    w_q, w_k = fold(heads, layer, convention)
    u, sigma, v, residual = verified_svd(w_q, w_k)
    bad = _missed(residual)
    if bad:
        raise ArithmeticError(
            f"{heads.name}, layer {layer}, heads {bad}: the decomposition misses the head by "
            f"{residual.max():.1e} of its largest singular value; please report this checkpoint"
        )
    u, v = fix_signs(u, v)
    # What rounding of float32 weights alone would lose (null) or turn (degenerate).
    rounding = _FLOAT32 * sigma[..., :1]
    gap = sigma[..., :-1] - sigma[..., 1:]
    above, below = (nn.functional.pad(gap, side, value=torch.inf) for side in ((1, 0), (0, 1)))
    return {
        "u": u,
        "v": v,
        "sigma": sigma,
        "cosine": (u * v).sum(-1),
        "residual": residual,
        "null_mode": sigma <= sigma.shape[-1] * rounding,
        "degenerate": torch.minimum(above, below) <= 100 * rounding,
    }


def _missed(residual: PerHead) -> list[int]:
    """Numbers of the heads that a decomposition misses, those where it is NaN too."""
    return (~(residual <= RESIDUAL_LIMIT)).nonzero().flatten().tolist()


def verified_svd(
    w_q: Projection, w_k: Projection
) -> tuple[Directions, Strengths, Directions, PerHead]:
    """u, σ, v of every head's W_qᵀW_k, and how far they miss it, as a share of σ₁.

    The fast route (Cholesky factors of the Gram matrices) serves almost every head.  It loses
    accuracy where a projection is nearly rank-deficient: such heads take the slow, safe route
    (Householder QR and LAPACK's gesvd), so that no head depends on the fast one being right.
    """
    u, sigma, v = cholesky_svd(w_q, w_k)
    residual = residual_of(w_q, w_k, u, sigma, v)
    for head in _missed(residual):
        one = slice(head, head + 1)
        u[head], sigma[head], v[head] = safe_svd(w_q[head], w_k[head])
        residual[one] = residual_of(w_q[one], w_k[one], u[one], sigma[one], v[one])
    return u, sigma, v, residual


def cholesky_svd(w_q: Projection, w_k: Projection) -> tuple[Directions, Strengths, Directions]:
    """u, σ, v of W_qᵀW_k from thin factors: W_qᵀ = Q L_qᵀ with L_q L_qᵀ = W_q W_qᵀ, and so for W_k.

    Heads whose Gram matrix has no Cholesky factor come back as NaN.
    """
    (l_q, bad_q), (l_k, bad_k) = (torch.linalg.cholesky_ex(w @ w.mT) for w in (w_q, w_k))
    bad = (bad_q != 0) | (bad_k != 0)
    eye = torch.eye(w_q.shape[1], dtype=w_q.dtype, device=w_q.device)
    l_q, l_k = (torch.where(bad[:, None, None], eye, factor) for factor in (l_q, l_k))
    a, sigma, b = torch.linalg.svd(l_q.mT @ l_k)
    u = torch.linalg.solve_triangular(l_q.mT, a, upper=True).mT @ w_q
    v = torch.linalg.solve_triangular(l_k.mT, b.mT, upper=True).mT @ w_k
    return u, sigma.masked_fill(bad[:, None], torch.nan), v


def safe_svd(
    w_q: Float[Tensor, "d_head d_model"], w_k: Float[Tensor, "d_head d_model"]
) -> tuple[Float[Tensor, "mode d_model"], Float[Tensor, " mode"], Float[Tensor, "mode d_model"]]:
    """u, σ, v of one head by Householder QR and gesvd, which holds for any rank."""
    (q_q, r_q), (q_k, r_k) = (torch.linalg.qr(w.mT) for w in (w_q, w_k))
    core = (r_q @ r_k.mT).cpu().numpy()
    parts = scipy.linalg.svd(core, lapack_driver="gesvd")
    a, sigma, b = (torch.from_numpy(np.ascontiguousarray(p)).to(w_q.device) for p in parts)
    return (q_q @ a).mT, sigma, (q_k @ b.mT).mT


def residual_of(
    w_q: Projection, w_k: Projection, u: Directions, sigma: Strengths, v: Directions
) -> PerHead:
    """How far u, σ, v miss a head: the larger of two errors, each zero for an exact decomposition.

    Orthonormality of u and v to each other; and ‖(W_qᵀW_k − Σ σ u vᵀ) X‖ for eight fixed random
    columns X, as a share of σ₁, which estimates the Frobenius norm without forming the matrix.
    """
    eye = torch.eye(w_q.shape[1], dtype=w_q.dtype, device=w_q.device)
    skew = torch.stack([(m @ m.mT - eye).abs().amax((-1, -2)) for m in (u, v)]).amax(0)
    generator = torch.Generator().manual_seed(0)
    probe = torch.randn(w_q.shape[-1], 8, dtype=w_q.dtype, generator=generator).to(w_q.device)
    miss = w_q.mT @ (w_k @ probe) - u.mT @ (sigma[..., None] * (v @ probe))
    size = miss.flatten(1).norm(dim=-1) / 8**0.5
    largest = sigma[..., 0].clamp(min=torch.finfo(sigma.dtype).tiny)
    return torch.maximum(skew, size / largest)


def fix_signs(u: Directions, v: Directions) -> tuple[Directions, Directions]:
    """Turns each mode so that u's largest component is positive, as scikit-learn does."""
    largest = u.gather(-1, u.abs().argmax(-1, keepdim=True))
    sign = torch.where(largest < 0, -1.0, 1.0).to(u.dtype)
    return u * sign, v * sign


def closed_form(w_q: Projection, w_k: Projection) -> PerHead:
    """Σ σ cos / Σ σ = tr(M)/‖M‖_* of every head, M = W_qᵀW_k; 0 for a head that is zero."""
    r_q, r_k = (torch.linalg.qr(w.mT, mode="r").R for w in (w_q, w_k))
    nuclear = torch.linalg.svdvals(r_q @ r_k.mT).sum(-1)
    trace = (w_q * w_k).sum((-1, -2))
    return trace / nuclear.clamp(min=torch.finfo(nuclear.dtype).tiny)
