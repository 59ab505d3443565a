"""Lists for terminals that are too narrow for a table."""

from __future__ import annotations

from rich.console import Console
from rich.padding import Padding
from rich.text import Text

NARROW = 80
"""Columns below which a list takes the place of a table."""


def print_item(console: Console, head: str, *texts: str) -> None:
    """A line, and below it texts that hang four columns to the right; words are not broken where they fit."""
    console.print(Padding(Text(head, style="bold"), (0, 0, 0, 0)))
    for text in texts:
        if text:
            console.print(Padding(Text(text), (0, 0, 0, 4)))
