"""Decomposing a head through thin factors against the full matrix, in one run on the same weights.

Weights are random, of the size of ViT-B and of ViT-H; only ratios within one run mean anything.
"""

from __future__ import annotations

import time
from collections.abc import Callable

import numpy as np
import torch
from torch import Tensor

from qkutils import svd

SAMPLE = 6  # heads that the full-matrix route decomposes; the rest is scaled


def random_heads(layers: int, heads: int, d_head: int, d_model: int) -> tuple[Tensor, Tensor]:
    """W_q and W_k in float32, drawn like a trained model's: with strengths that fall off."""
    generator = torch.Generator().manual_seed(0)
    shape = (2, layers, heads, d_head, d_model)
    fall = torch.linspace(0, -2, d_head).exp()[:, None]
    w_q, w_k = torch.randn(shape, generator=generator) * fall / d_model**0.5
    return w_q, w_k


def seconds(function: Callable[[], object], repeats: int = 3) -> float:
    """The best of some runs: the one that other work on the machine disturbed least."""
    times = []
    for _ in range(repeats):
        start = time.perf_counter()
        function()
        times.append(time.perf_counter() - start)
    return min(times)


def ours(w_q: Tensor, w_k: Tensor) -> list[tuple[Tensor, Tensor, Tensor, Tensor]]:
    """What `decompose` does to every layer: modes in float64, each verified against its head."""
    return [svd.verified_svd(q.double(), k.double()) for q, k in zip(w_q, w_k, strict=True)]


def full_matrix(w_q: Tensor, w_k: Tensor) -> list[np.ndarray]:
    """numpy's decomposition of every head's d_model × d_model matrix in float64."""
    pairs = zip(w_q.double().numpy(), w_k.double().numpy(), strict=True)
    return [np.linalg.svd(q.T @ k).S for q, k in pairs]


def factored(w_q: Tensor, w_k: Tensor) -> list[tuple[Tensor, Tensor, Tensor]]:
    """The thin decomposition of an existing library, of all heads of a layer at once, in float64.

    An SVD of each factor, then of the core: `FactoredMatrix.svd` of TransformerLens
    (transformer_lens/FactoredMatrix.py, MIT licence), written out.
    """
    found = []
    for q, k in zip(w_q.double(), w_k.double(), strict=True):
        u_a, s_a, v_a = torch.linalg.svd(q.mT, full_matrices=False)
        u_b, s_b, v_b = torch.linalg.svd(k, full_matrices=False)
        middle = s_a[..., :, None] * v_a @ u_b * s_b[..., None, :]
        u_m, s_m, v_m = torch.linalg.svd(middle, full_matrices=False)
        found.append((u_a @ u_m, s_m, v_m @ v_b))
    return found


def compare(layers: int, heads: int, d_head: int, d_model: int) -> None:
    """Prints both times, their ratio and the largest error of our strengths."""
    w_q, w_k = random_heads(layers, heads, d_head, d_model)
    sample_q, sample_k = (w.flatten(0, 1)[:SAMPLE] for w in (w_q, w_k))
    thin = seconds(lambda: ours(w_q, w_k), repeats=5)
    full = seconds(lambda: full_matrix(sample_q, sample_k), repeats=2) * layers * heads / SAMPLE
    existing = seconds(lambda: factored(w_q, w_k), repeats=3)
    truth = np.stack(full_matrix(sample_q, sample_k))[:, :d_head]
    parts = ours(w_q, w_k)
    found = torch.cat([part[1] for part in parts])[:SAMPLE].numpy()
    error = (abs(found - truth) / truth[:, :1]).max()
    residual = max(float(part[3].max()) for part in parts)
    print(f"{layers} × {heads} heads, d_model {d_model}, d_head {d_head}")
    print(f"  full matrix, float64: {full:8.2f} s (from {SAMPLE} heads)")
    print(f"  ours, float64:        {thin:8.2f} s, verified; residual {residual:.0e} of σ₀")
    print(f"  SVD of each factor:   {existing:8.2f} s, not verified")
    print(f"  full matrix ÷ ours:   {full / thin:8.1f}")
    print(f"  each factor ÷ ours:   {existing / thin:8.1f}")
    print(f"  largest error of σ:   {error:8.0e} of σ₀")


def main() -> None:
    """Compares the two routes at ViT-B's size, and times ours at ViT-H's."""
    print(f"torch {torch.__version__}, {torch.get_num_threads()} threads")
    compare(12, 12, 64, 768)
    w_q, w_k = random_heads(32, 16, 80, 1280)
    print(
        f"32 × 16 heads, d_model 1280, d_head 80: ours {seconds(lambda: ours(w_q, w_k), 1):.2f} s"
    )


if __name__ == "__main__":
    main()
