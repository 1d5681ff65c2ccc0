"""I-JEPA's predictor, which lies in the authors' file beside its two encoders."""

from qkutils.checkpoints._layouts import Layout

PREDICTOR = Layout(
    "I-JEPA's predictor",
    embed="predictor_embed.weight",
    rules=((r"predictor_(.*)", r"\1"),),
    beside=r"(target_)?encoder",
)
