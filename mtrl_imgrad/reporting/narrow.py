"""Lists for terminals that are too narrow for a table."""

from __future__ import annotations

from collections.abc import Sequence

from rich.console import Console, Group, RenderableType
from rich.padding import Padding
from rich.text import Text

from mtrl_imgrad.reporting.tables import plain_table

NARROW = 80
"""Columns below which a list takes the place of a table."""
WIDE = 10_000
"""Columns in which every table fits."""


def print_item(console: Console, head: str, *texts: str) -> None:
    """A line, and below it texts that hang four columns to the right; words are not broken where they fit."""
    console.print(item(head, *texts))


def item(head: str, *texts: str | Text) -> Group:
    """What `print_item` prints, to be shown among other things; empty texts are left out."""
    hanging = [Padding(Text(text) if isinstance(text, str) else text, (0, 0, 0, 4)) for text in texts if text]
    return Group(Padding(Text(head, style="bold"), 0), *hanging)


def table_or_list(console: Console, header: Sequence[str], rows: Sequence[Sequence[str]]) -> RenderableType:
    """A table where the console is wide enough, else an item a row, each cell after its column's name.

    Args:
        console: to be shown on.
        header: of the columns.
        rows: of cells in rich's markup; an empty one is left out of the list.
    """
    table = plain_table(header, edge=True)
    for row in rows:
        table.add_row(*row)
    if console.measure(table, options=console.options.update(width=WIDE)).maximum <= console.width:
        return table
    return Group(*(_as_item(header, row) for row in rows))


def _as_item(header: Sequence[str], row: Sequence[str]) -> Group:
    cells = [f"{name} {cell}" for name, cell in zip(header[1:], row[1:], strict=True) if cell]
    return item(Text.from_markup(row[0]).plain, Text.from_markup(", ".join(cells)))
