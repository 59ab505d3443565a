"""How large the package is, and how it is spread: the table of docs/architecture.md.

python tools/measure_package.py          # a row of the table for the working tree
python tools/measure_package.py --write  # puts it into docs/architecture.md, in the place of the last one

Code lines are neither blank nor a comment of their own nor a docstring. A file counts with all of its lines, a function
without its docstrings. Shares are of all lines, "tests : package" too.
"""

from __future__ import annotations

import ast
import io
import re
import statistics
import sys
import tokenize
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
PAGE = ROOT / "docs" / "architecture.md"


@dataclass
class Count:
    """Lines of some files."""

    code: int = 0
    docstrings: int = 0
    comments: int = 0
    files: list[int] = field(default_factory=list)
    functions: list[int] = field(default_factory=list)

    @property
    def lines(self) -> int:
        """All of them."""
        return sum(self.files)

    def add(self, text: str) -> None:
        """Count a file."""
        tree, lines = ast.parse(text), text.splitlines()
        docstrings, comments = _docstrings(tree), _comments(text)
        blank = {i for i, line in enumerate(lines, 1) if not line.strip()}
        self.files.append(len(lines))
        self.code += len(lines) - len(blank | docstrings | comments)
        self.docstrings += len(docstrings)
        self.comments += len(comments)
        for node in ast.walk(tree):
            if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
                self.functions.append(len(_lines(node) - docstrings))


def _lines(node: ast.stmt) -> set[int]:
    return set(range(node.lineno, (node.end_lineno or node.lineno) + 1))


def _docstrings(tree: ast.Module) -> set[int]:
    """Lines of the docstrings of the module, its classes and functions."""
    owners = [
        node
        for node in ast.walk(tree)
        if isinstance(node, ast.Module | ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef)
    ]
    found = [_lines(node.body[0]) for node in owners if ast.get_docstring(node, clean=False) is not None]
    return set().union(*found)


def _comments(text: str) -> set[int]:
    """Lines that hold a comment and nothing else."""
    tokens = tokenize.generate_tokens(io.StringIO(text).readline)
    return {one.start[0] for one in tokens if one.type == tokenize.COMMENT and one.line.lstrip().startswith("#")}


def count(files: Iterable[Path]) -> Count:
    """Count files."""
    found = Count()
    for path in files:
        found.add(path.read_text(encoding="utf-8"))
    return found


def _quantile(values: Sequence[int], share: float) -> int:
    return sorted(values)[int(share * (len(values) - 1))]


def row(root: Path = ROOT) -> str:
    """The row of today's tree."""
    package, tests = (count(sorted((root / folder).rglob("*.py"))) for folder in ("mtrl_imgrad", "tests"))
    cells = [
        "today",
        str(len(package.files)),
        f"{package.lines:,}".replace(",", " "),
        f"{package.code:,}".replace(",", " "),
        f"{100 * package.docstrings / package.lines:.1f}",
        f"{100 * package.comments / package.lines:.1f}",
        f"{statistics.median(package.files):.0f} / {_quantile(package.files, 0.9)}",
        f"{statistics.median(package.functions):.0f} / {_quantile(package.functions, 0.9)} / {max(package.functions)}",
        f"{tests.lines / package.lines:.2f}",
    ]
    return f"| {' | '.join(cells)} |"


def main() -> None:
    """Print the row; write it, too, if asked to."""
    print(row())
    if "--write" in sys.argv[1:]:
        text = PAGE.read_text(encoding="utf-8")
        PAGE.write_text(re.sub(r"^\| today \|.*$", row(), text, flags=re.MULTILINE), encoding="utf-8")


if __name__ == "__main__":
    main()
