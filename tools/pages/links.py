"""Links between files of the repository as links between pages of the site."""

from __future__ import annotations

import posixpath
import re
from collections.abc import Mapping

_LINK = re.compile(r"(!?)\[((?:[^\[\]]|\[[^\]]*\])*)\]\(([^()\s]+)\)")
_CODE = re.compile(r"^(```.*?^```|    [^\n]*)", re.DOTALL | re.MULTILINE)


def relink(text: str, source: str, page: str, places: Mapping[str, str]) -> str:
    """Markdown of a file, with the links of the page that it becomes.

    A link to a file that is no part of the site becomes its text: the site does not say where the repository lies.

    Args:
        text: Markdown.
        source: the file, from the repository's root.
        page: the page, from the site's.
        places: pages by file, or by file and anchor (``docs/combiners.md#imgrad``); other files of ``docs`` keep their
            names.
    """

    def place(target: str) -> str | None:
        file, _, anchor = target.partition("#")
        path = posixpath.normpath(posixpath.join(posixpath.dirname(source), file)) if file else source
        found = places.get(f"{path}#{anchor}") if anchor else None
        if found is None:
            found = places.get(path) or (path.removeprefix("docs/") if path.startswith("docs/") else None)
            found = found and found + (f"#{anchor}" if anchor else "")
        return found and posixpath.relpath(found, posixpath.dirname(page) or ".")

    def rewritten(match: re.Match[str]) -> str:
        if re.match(r"\w+:", match[3]):
            return match[0]
        there = place(match[3])
        return f"{match[1]}[{match[2]}]({there})" if there else match[2]

    parts = _CODE.split(text)
    return "".join(part if index % 2 else _LINK.sub(rewritten, part) for index, part in enumerate(parts))


def take_sections(text: str, names: set[str]) -> tuple[str, dict[str, str]]:
    """A page without the sections of these titles (of any level), and their texts."""
    taken: dict[str, list[str]] = {}
    kept: list[str] = []
    current: list[str] = kept
    in_code = False
    for line in text.splitlines(keepends=True):
        in_code ^= line.startswith("```")
        title = None if in_code else re.match(r"#+ (.*)\n", line)
        if title is not None:
            current = taken.setdefault(title[1], []) if title[1] in names else kept
            if current is not kept:
                continue
        current.append(line)
    return "".join(kept), {name: "".join(lines).strip() for name, lines in taken.items()}
