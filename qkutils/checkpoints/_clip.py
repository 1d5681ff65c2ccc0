"""CLIP's vision tower: in transformers' names, and in those of OpenAI and open_clip."""

from qkutils.checkpoints._layouts import Layout, batched

_LAYER, _RESBLOCK = r"encoder\.layers\.(\d+)\.", r"transformer\.resblocks\.(\d+)\."

TRANSFORMERS = Layout(
    "transformers' CLIP",
    embed="embeddings.patch_embedding.weight",
    sign=r"pre_layrnorm\.",
    rules=(
        (r"embeddings\.class_embedding", "cls_token"),
        (r"embeddings\.position_embedding\.weight", "pos_embed"),
        (r"embeddings\.position_ids", "position_ids"),
        (r"embeddings\.patch_embedding\.(.*)", r"patch_embed.proj.\1"),
        (r"pre_layrnorm\.(.*)", r"norm_pre.\1"),
        (_LAYER + r"self_attn\.([qkv])_proj\.(.*)", r"blocks.\1.attn.\2.\3"),
        (_LAYER + r"self_attn\.out_proj\.(.*)", r"blocks.\1.attn.proj.\2"),
        (_LAYER + r"layer_norm([12]\..*)", r"blocks.\1.norm\2"),
        (_LAYER + r"(mlp\.fc[12]\..*)", r"blocks.\1.\2"),
        (r"post_layernorm\.(.*)", r"norm.\1"),
    ),
    change=batched,
    silent=True,
)

OPENAI = Layout(
    "OpenAI's CLIP or open_clip",
    embed="conv1.weight",
    sign=r"transformer\.resblocks\.\d",
    rules=(
        (r"class_embedding", "cls_token"),
        (r"positional_embedding", "pos_embed"),
        (r"conv1\.weight", "patch_embed.proj.weight"),
        (r"ln_pre\.(.*)", r"norm_pre.\1"),
        (_RESBLOCK + r"ln_([12]\..*)", r"blocks.\1.norm\2"),
        (_RESBLOCK + r"attn\.in_proj_(.*)", r"blocks.\1.attn.qkv.\2"),
        (_RESBLOCK + r"attn\.out_proj\.(.*)", r"blocks.\1.attn.proj.\2"),
        (_RESBLOCK + r"mlp\.c_fc\.(.*)", r"blocks.\1.mlp.fc1.\2"),
        (_RESBLOCK + r"mlp\.c_proj\.(.*)", r"blocks.\1.mlp.fc2.\2"),
        (r"ln_post\.(.*)", r"norm.\1"),
        (r"proj", "visual_projection"),
    ),
    change=batched,
    beside=r"transformer|positional_embedding|token_embedding|ln_final|attn_mask",
    silent=True,
)
