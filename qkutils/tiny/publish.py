"""Puts a trained model into the package: its weights in half precision, and its card."""

from __future__ import annotations

import os
from dataclasses import asdict
from importlib import resources
from pathlib import Path

from safetensors.torch import save_file
from timm.models.vision_transformer import VisionTransformer

from qkutils import scenes
from qkutils.tiny import architecture
from qkutils.tiny.config import Config
from qkutils.tiny.evaluate import accuracy

FOLDER = Path(str(resources.files("qkutils.tiny").joinpath("weights")))

_CARD = """# {name}

A vision transformer of {parameters:,} parameters for {size} × {size} pixels ({patch} × {patch}
patches, 8 layers, 4 heads, width 96), trained on the procedural odd-one-out world of
`qkutils.scenes` to name the kind and colour of the odd object, one of {classes} classes.
{scenes_seen:,} scenes, each seen once.

| measured on 8,192 held-out scenes | class | kind | colour |
|---|---|---|---|
| as trained (float32) | {full[class]:.4f} | {full[kind]:.4f} | {full[colour]:.4f} |
| as published (float16 file) | {half[class]:.4f} | {half[kind]:.4f} | {half[colour]:.4f} |
| untrained, same seed | {untrained[class]:.4f} | {untrained[kind]:.4f} | {untrained[colour]:.4f} |
| chance | {chance:.4f} | {chance_kind:.4f} | {chance_colour:.4f} |

Made by `python -m qkutils.tiny.train {config[objective]} --seed {config[seed]} --publish` with
{config}.

Intended for this book: to learn and test methods on a network whose world is known exactly.
Not a model of natural images. Licence: MIT, as the code.
"""


def publish(net: VisionTransformer, config: Config, folder: Path = FOLDER) -> Path:
    """Writes the weights file and its card under the name that `qkutils.load` takes."""
    name = f"tiny-{config.objective}" + (f"-s{config.seed}" if config.seed else "")
    halves = {k: v.detach().half().cpu().contiguous() for k, v in net.state_dict().items()}
    published = architecture.build()
    published.load_state_dict({k: v.float() for k, v in halves.items()})
    folder.mkdir(parents=True, exist_ok=True)
    card = _CARD.format(
        name=name,
        parameters=sum(p.numel() for p in net.parameters()),
        size=architecture.SIZE,
        patch=architecture.PATCH,
        classes=architecture.CLASSES,
        scenes_seen=config.steps * config.batch,
        full=accuracy(net),
        half=accuracy(published.eval()),
        untrained=accuracy(architecture.build(config.seed).eval()),
        chance=1 / architecture.CLASSES,
        chance_kind=1 / len(scenes.KINDS),
        chance_colour=1 / len(scenes.COLOURS),
        config=asdict(config),
    )
    (folder / f"{name}.md").write_text(card, encoding="utf-8")
    path, partial = folder / f"{name}.safetensors", folder / f"{name}.partial"
    save_file(halves, partial)
    os.replace(partial, path)
    return path
