"""Tables of text: for the terminal by rich, for files in GitHub's markdown, for notebooks in HTML."""

from __future__ import annotations

import html
import io
from collections.abc import Sequence
from dataclasses import dataclass

from rich.box import SIMPLE_HEAD
from rich.console import Console
from rich.table import Table


def plain_table(header: Sequence[str] = (), *, edge: bool = False) -> Table:
    """A rich table with a rule below its header; the first column to the left, all others to the right.

    Args:
        header: of the columns; more can be added.
        edge: an empty line above and below.
    """
    table = Table(box=SIMPLE_HEAD, show_edge=edge, pad_edge=False, padding=(0, 1, 0, 0))
    for i, name in enumerate(header):
        table.add_column(name, justify="right" if i else "left", no_wrap=True)
    return table


def markdown_rows(header: Sequence[str], rows: Sequence[Sequence[str]], last: str = "--:") -> str:
    """A markdown table, aligned as `plain_table`; a ``|`` in a cell is escaped, a line break becomes a blank.

    Args:
        header: of the columns.
        rows: of cells.
        last: alignment of the last column.
    """
    rule = [":--", *["--:"] * (len(header) - 2), last][: len(header)]
    cells = [[cell.replace("\n", " ").replace("|", "\\|") for cell in row] for row in (header, rule, *rows)]
    return "\n".join(f"| {' | '.join(row)} |" for row in cells)


def html_table(title: str, header: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """An HTML table, aligned as `plain_table`, with its title for a caption; every text is escaped.

    Args:
        title: may have several lines.
        header: of the columns.
        rows: of cells.
    """

    def row(cells: Sequence[str], tag: str) -> str:
        sides = ("right" if i else "left" for i in range(len(cells)))
        parts = (
            f'<{tag} style="text-align: {side}">{_escaped(cell)}</{tag}>'
            for side, cell in zip(sides, cells, strict=True)
        )
        return f"<tr>{''.join(parts)}</tr>"

    caption = f'<caption style="text-align: left">{_escaped(title)}</caption>'
    body = "".join(row(cells, "td") for cells in rows)
    return f"<table>{caption}<thead>{row(header, 'th')}</thead><tbody>{body}</tbody></table>"


def _escaped(text: str) -> str:
    return html.escape(text).replace("\n", "<br>")


def render_text(table: Table, width: int = 80) -> str:
    """A table as plain text, whatever the terminal; no line is longer than ``width`` nor ends in blanks."""
    file = io.StringIO()
    console = Console(file=file, width=width, color_system=None, force_terminal=False, legacy_windows=False)
    console.print(table)
    return "\n".join(line.rstrip() for line in file.getvalue().splitlines())


@dataclass(frozen=True)
class TextTable:
    """A table of text with a title; a header may have two lines."""

    title: str
    header: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]

    def rich(self) -> Table:
        """For a terminal, without the title, which rich would cut to the table's width."""
        table = plain_table(self.header)
        for row in self.rows:
            table.add_row(*row)
        return table

    def markdown(self) -> str:
        """As GitHub markdown, the title a line of its own."""
        return f"**{self.title}**\n\n{markdown_rows(self.header, self.rows)}\n"

    def _repr_html_(self) -> str:
        """For notebooks."""
        return html_table(self.title, self.header, self.rows)
