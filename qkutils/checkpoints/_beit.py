"""BEiT's layout, which SimMIM shares: a table of position biases for each layer, or one for all."""

from __future__ import annotations

from typing import Any

from qkutils.checkpoints._files import Tensors
from qkutils.checkpoints._layouts import EMBED, FC1, TABLE, Layout, depth_of


def _told(tensors: Tensors) -> dict[str, Any]:
    """How timm's Beit is built for these tensors, but for its patch grid."""
    embed = tensors[EMBED].shape
    shared, own = f"rel_pos_bias.{TABLE}", f"blocks.0.attn.{TABLE}"
    arguments = {
        "patch_size": tuple(embed[2:]),
        "in_chans": embed[1],
        "embed_dim": embed[0],
        "depth": depth_of(tensors),
        "num_heads": tensors[shared if shared in tensors else own].shape[1],
        "mlp_ratio": (tensors[FC1].shape[0] + 0.5) / embed[0],
        "qkv_bias": "blocks.0.attn.q_bias" in tensors,
        "init_values": 0.1 if "blocks.0.gamma_1" in tensors else 0.0,  # timm drops None
        "use_abs_pos_emb": "pos_embed" in tensors,
        "use_rel_pos_bias": own in tensors,
        "use_shared_rel_pos_bias": shared in tensors,
        "global_pool": "avg" if "fc_norm.weight" in tensors else "token",
    }
    assumed = ("GELU, eps 1e-6, blocks that normalise first",)
    return {"architecture": "beit_base_patch16_224", "arguments": arguments, "assumed": assumed}


BEIT = Layout(
    "SimMIM or BEiT",
    sign=rf"(?<!\d\.)blocks\.\d+\.attn\.{TABLE}|rel_pos_bias\.{TABLE}",  # Swin's are in stages
    tell=_told,
)
