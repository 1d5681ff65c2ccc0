"""`python -m qkutils`: the command `qkutils`."""

from qkutils.cli import main

if __name__ == "__main__":
    raise SystemExit(main())
