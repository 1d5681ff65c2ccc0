"""`python -m qkutils`: the command `qkutils`."""

import sys

from qkutils.cli import main

if __name__ == "__main__":
    sys.exit(main())
