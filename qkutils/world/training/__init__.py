"""The embedded models: small vision transformers trained on the procedural world."""

import qkutils._torchvision
