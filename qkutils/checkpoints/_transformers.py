"""transformers' ViT, DeiT, DINO, MAE, I-JEPA and DINOv2: in files and, from 5 on, in memory."""

from qkutils.checkpoints._layouts import Layout, with_class_position

_BLOCK = r"(?:encoder\.)?layers?\.(\d+)\."

VIT = Layout(
    "transformers' ViT, DeiT, DINO, MAE, I-JEPA or DINOv2",
    embed="embeddings.patch_embeddings.projection.weight",
    rules=(
        (r"embeddings\.(cls_token|mask_token)", r"\1"),
        (r"embeddings\.distillation_token", "dist_token"),
        (r"embeddings\.register_tokens", "reg_token"),
        (r"embeddings\.position_embeddings", "pos_embed"),
        (r"embeddings\.patch_embeddings\.projection\.(.*)", r"patch_embed.proj.\1"),
        (_BLOCK + r"attention\.attention\.([qkv])[a-z]+\.(.*)", r"blocks.\1.attn.\2.\3"),
        (_BLOCK + r"attention\.([qkv])_proj\.(.*)", r"blocks.\1.attn.\2.\3"),
        (_BLOCK + r"attention\.(?:output\.dense|o_proj)\.(.*)", r"blocks.\1.attn.proj.\2"),
        (_BLOCK + r"layernorm_before\.(.*)", r"blocks.\1.norm1.\2"),
        (_BLOCK + r"layernorm_after\.(.*)", r"blocks.\1.norm2.\2"),
        (_BLOCK + r"(norm[12]\..*)", r"blocks.\1.\2"),
        (_BLOCK + r"layer_scale([12])\.lambda1", r"blocks.\1.ls\2.gamma"),
        (_BLOCK + r"(?:intermediate\.dense|mlp\.fc1)\.(.*)", r"blocks.\1.mlp.fc1.\2"),
        (_BLOCK + r"(?:output\.dense|mlp\.fc2)\.(.*)", r"blocks.\1.mlp.fc2.\2"),
        (r"layernorm\.(.*)", r"norm.\1"),
    ),
    change=with_class_position,
    silent=True,
)
