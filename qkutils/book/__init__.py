"""What the chapters alone need: pictures, numbers for the prose, numbers computed elsewhere."""

from qkutils.book import ledger, stored, stored_maps, stored_views
from qkutils.book._choosing import few_enough, is_embedded, live, pictures_for
from qkutils.book._telling import stacked, tell

__all__ = [
    "few_enough",
    "is_embedded",
    "ledger",
    "live",
    "pictures_for",
    "stacked",
    "stored",
    "stored_maps",
    "stored_views",
    "tell",
]
