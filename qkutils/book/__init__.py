"""What the chapters alone need: numbers handed to the prose, and numbers computed elsewhere."""

from qkutils.book import stored
from qkutils.book._telling import tell

__all__ = ["stored", "tell"]
