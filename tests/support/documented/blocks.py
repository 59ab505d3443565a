"""Blocks of code of README.md and the pages: fenced ones with their language, and indented ones."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from tests.support.paths import DOCS, ROOT

PAGES = (*(ROOT / name for name in ("README.md", "CONTRIBUTING.md", "SECURITY.md")), *sorted(DOCS.rglob("*.md")))


@dataclass(frozen=True)
class Block:
    """Code as a reader sees it.

    Attributes:
        page: from the repository's root.
        line: number of its first line.
        language: after the fence, "" for none; "indented" for an indented block.
        title: ``title="..."`` after the language.
        text: without the indentation.
    """

    page: str
    line: int
    language: str
    title: str
    text: str

    @property
    def where(self) -> str:
        return f"{self.page}:{self.line}"


def blocks(page: Path) -> Iterator[Block]:
    """All blocks of a page, in order."""
    name = str(page.relative_to(ROOT))
    lines = page.read_text(encoding="utf-8").splitlines()
    number = 0
    while number < len(lines):
        fence = re.match(r'```(\w*)(?: title="([^"]+)")?$', lines[number])
        if fence:
            end = lines.index("```", number + 1)
            yield Block(name, number + 2, fence[1], fence[2] or "", "\n".join(lines[number + 1 : end]))
            number = end + 1
        elif lines[number].startswith("    ") and number and not lines[number - 1].strip():
            end = number
            while end < len(lines) and (lines[end].startswith("    ") or not lines[end].strip()):
                end += 1
            text = "\n".join(line[4:] for line in lines[number:end]).rstrip()
            yield Block(name, number + 1, "indented", "", text)
            number = end
        else:
            number += 1


def python_blocks() -> list[Block]:
    """Python of all pages but the recipes, which tests/recipes follows."""
    return [block for page in PAGES for block in blocks(page) if block.language == "python" and page.stem != "recipes"]
