"""Sizes of the library: lines of code without docstrings, comments and blanks, by room."""

from __future__ import annotations

import ast
import io
import sys
import tokenize
from collections import Counter
from pathlib import Path

# What lies above `studies` in the contract: the part that a researcher runs on a GPU.
CORE = (
    "__init__ _torchvision alignment atlas attention checkpoints gauge heads models modes options"
    " passes pictures provenance records scores statistics store svd"
).split()
QUIET = {tokenize.COMMENT, tokenize.NL, tokenize.NEWLINE, tokenize.INDENT, tokenize.DEDENT}


def lines_of_code(source: str) -> int:
    """Lines that hold anything but docstrings, comments and blanks."""
    lines: set[int] = set()
    for token in tokenize.generate_tokens(io.StringIO(source).readline):
        if token.type not in QUIET and token.type != tokenize.ENDMARKER:
            lines |= set(range(token.start[0], token.end[0] + 1))
    for node in ast.walk(ast.parse(source)):
        body = getattr(node, "body", None)
        if isinstance(body, list) and body and _is_text(body[0]):
            lines -= set(range(body[0].lineno, body[0].end_lineno + 1))
    return len(lines)


def _is_text(node: ast.stmt) -> bool:
    return (
        isinstance(node, ast.Expr)
        and isinstance(node.value, ast.Constant)
        and isinstance(node.value.value, str)
    )


def rooms(package: Path) -> Counter[str]:
    """Lines of code of every room of the package."""
    sizes: Counter[str] = Counter()
    for path in sorted(package.rglob("*.py")):
        room = path.relative_to(package).parts[0].removesuffix(".py")
        sizes[room] += lines_of_code(path.read_text("utf-8"))
    return sizes


def main() -> None:
    """Prints the rooms, the core and the whole."""
    sizes = rooms(Path(sys.argv[1] if len(sys.argv) > 1 else "qkutils"))
    for room, size in sizes.most_common():
        print(f"{size:6} {room}{' (core)' * (room in CORE)}")
    print(f"{sum(sizes[room] for room in CORE):6} the core")
    print(f"{sum(sizes.values()):6} everything")


if __name__ == "__main__":
    main()
