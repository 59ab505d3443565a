"""The notebooks of docs/notebooks, run without Jupyter: cells in order, in one namespace."""

from __future__ import annotations

import ast
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from tests.support.paths import DOCS

NOTEBOOKS = sorted((DOCS / "notebooks").glob("*.ipynb"))


def cells(path: Path, kind: str) -> list[dict[str, Any]]:
    """The cells of a kind, ``"code"`` or ``"markdown"``."""
    return [cell for cell in json.loads(path.read_text(encoding="utf-8"))["cells"] if cell["cell_type"] == kind]


def source(cell: dict[str, Any]) -> str:
    """The text of a cell."""
    return "".join(cell["source"])


def run(path: Path, shorter: Mapping[str, Any]) -> list[Any]:
    """What the cells show: the value of each one's last line, if it is one and not None.

    Args:
        path: of the notebook.
        shorter: other values of constants that it sets, by name.
    """
    names: dict[str, Any] = {"__name__": "__main__"}
    shown = []
    for cell in cells(path, "code"):
        tree = ast.parse(source(cell))
        for node in tree.body:
            if isinstance(node, ast.Assign) and isinstance(node.targets[0], ast.Name) and node.targets[0].id in shorter:
                node.value = ast.parse(repr(shorter[node.targets[0].id]), mode="eval").body
        last = tree.body.pop() if isinstance(tree.body[-1], ast.Expr) else None
        exec(compile(ast.fix_missing_locations(tree), path.name, "exec"), names)
        if isinstance(last, ast.Expr):
            value = eval(compile(ast.Expression(last.value), path.name, "eval"), names)
            shown += [value] if value is not None else []
    return shown
