"""The code that makes a view: those statements of a notebook on which its cell depends."""

from __future__ import annotations

import ast
from collections.abc import Sequence


def needed(cells: Sequence[str]) -> str:
    """The last cell's last statement, after all statements of these cells that it rests on."""
    statements = [pair for cell in cells for pair in _statements(cell)]
    kept: list[str] = []
    wanted: set[str] = set()
    for node, text in reversed(statements):
        made = _made(node)
        if kept and not made & wanted:
            continue
        if isinstance(node, ast.Assign | ast.AnnAssign | ast.Import | ast.ImportFrom):
            wanted -= made
        wanted |= _used(node)
        kept.append(f"{text}\n")
    return "".join(reversed(kept))


def _statements(cell: str) -> list[tuple[ast.stmt, str]]:
    """The top-level statements of a cell with their text; none where it is not plain Python."""
    try:
        return [(node, ast.get_source_segment(cell, node) or "") for node in ast.parse(cell).body]
    except SyntaxError:
        return []


def _names(node: ast.AST, use: type[ast.expr_context]) -> set[str]:
    return {n.id for n in ast.walk(node) if isinstance(n, ast.Name) and isinstance(n.ctx, use)}


def _used(node: ast.AST) -> set[str]:
    """Names that a statement reads, but for those that a comprehension inside it binds."""
    loops = [n.target for n in ast.walk(node) if isinstance(n, ast.comprehension)]
    return _names(node, ast.Load) - {name for each in loops for name in _names(each, ast.Store)}


def _made(node: ast.stmt) -> set[str]:
    """Names that a statement binds, or whose items or attributes it sets."""
    if isinstance(node, ast.Import | ast.ImportFrom):
        return {(alias.asname or alias.name).split(".")[0] for alias in node.names}
    if isinstance(node, ast.FunctionDef | ast.ClassDef):
        return {node.name}
    targets = [n for n in ast.walk(node) if isinstance(n, ast.Subscript | ast.Attribute)]
    parts = [n.value for n in targets if isinstance(n.ctx, ast.Store)]
    changed = {n.id for part in parts for n in ast.walk(part) if isinstance(n, ast.Name)}
    return _names(node, ast.Store) | changed
