"""DINOv2's own files, with registers, or in groups of blocks."""

from qkutils.checkpoints._layouts import Layout, with_class_position

DINOV2 = Layout(
    "DINOv2's own files",
    sign=r"register_tokens|blocks\.\d+\.\d+\.",
    rules=((r"register_tokens", "reg_token"), (r"blocks\.\d+\.(\d+\..*)", r"blocks.\1")),
    change=with_class_position,
)
