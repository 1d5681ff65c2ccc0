"""Pictures: of a folder, a data set, a tensor or a list, as a model takes them."""

from qkutils.pictures._folders import picture_files
from qkutils.pictures._opening import in_mode, open_file, open_picture, shown, upright
from qkutils.pictures._stream import Pictures, batches, images, pictures, pictures_of, visible

__all__ = [
    "Pictures",
    "batches",
    "images",
    "in_mode",
    "open_file",
    "open_picture",
    "picture_files",
    "pictures",
    "pictures_of",
    "shown",
    "upright",
    "visible",
]
