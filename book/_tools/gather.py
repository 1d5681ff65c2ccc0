"""Gather what executed chapters judged into one file.

usage: gather.py OUT.csv NOTEBOOK...
"""

import sys
from pathlib import Path

from qkutils.book import ledger

if __name__ == "__main__":
    out, *notebooks = map(Path, sys.argv[1:])
    ledger.gather({path.stem: path for path in notebooks}, out)
