"""What the chapters alone need: pictures, numbers for the prose, numbers computed elsewhere."""

from qkutils.book import ledger, stored, stored_maps, stored_views
from qkutils.book._choosing import is_embedded, pictures_for
from qkutils.book._telling import tell

__all__ = [
    "is_embedded",
    "ledger",
    "pictures_for",
    "stored",
    "stored_maps",
    "stored_views",
    "tell",
]
