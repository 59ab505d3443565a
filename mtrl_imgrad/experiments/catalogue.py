"""Combiners on the command line: a table of all, a page of one."""

from __future__ import annotations

import inspect
from dataclasses import dataclass
from typing import Annotated

import tyro
from rich.console import Console
from rich.table import Table

from mtrl_imgrad.combiners import combiner_class, list_combiners
from mtrl_imgrad.combiners.base import Combiner
from mtrl_imgrad.combiners.references import references
from mtrl_imgrad.reporting.narrow import NARROW, print_item

COSTS = {
    "losses": "1 backward",
    "gramian": "K gradients",
    "matrix": "K gradients, elementwise",
}
"""Cost of a step, by what a method needs, beside K-sized work. Rows of tasks give K gradients in one backward."""


@dataclass(frozen=True)
class Combiners:
    """Options of ``combiners``."""

    name: Annotated[str | None, tyro.conf.Positional] = None
    """A combiner, to be told all of it."""

    def __call__(self) -> None:
        """Print all of them, or one."""
        console = Console(highlight=False)
        if self.name is None:
            print_combiners(console)
        else:
            print_combiner(self.name, console)


def print_combiners(console: Console) -> None:
    """All combiners: name, what a step needs and keeps, paper; a table where there is room for it."""
    if console.width < NARROW:
        for name in list_combiners():
            combiner = combiner_class(name)
            print_item(console, f"{name}: {COSTS[combiner.needs]}", references()[combiner.citation].short)
        console.print("\n`mtrl-imgrad combiners NAME` says more of one.")
        return
    table = Table(box=None, pad_edge=False)
    for column in ("name", "a step needs", "keeps", "paper"):
        table.add_column(column, no_wrap=column in ("name", "a step needs"))
    for name in list_combiners():
        combiner = combiner_class(name)
        kept = ", ".join(part.replace("_", " ") for part in state_names(combiner)) or "-"
        table.add_row(name, COSTS[combiner.needs], kept, references()[combiner.citation].short)
    console.print(table)
    console.print("\n`mtrl-imgrad combiners NAME` says more of one: arguments, paper, departures, BibTeX.")


def print_combiner(name: str, console: Console) -> None:
    """All that there is to say of one combiner.

    Raises:
        UnknownNameError: if there is no combiner of that name.
    """
    combiner = combiner_class(name)
    summary = (inspect.getdoc(combiner) or "").splitlines()[0]
    table = Table.grid(padding=(0, 2))
    table.add_row("class", f"mtrl_imgrad.combiners.{combiner.__name__}")
    table.add_row("what it is", summary)
    table.add_row("paper", combiner.paper)
    table.add_row("a step needs", COSTS[combiner.needs])
    table.add_row("keeps", ", ".join(state_names(combiner)) or "nothing")
    table.add_row("departures", combiner.departures)
    table.add_row("arguments", _arguments(combiner))
    if console.width < NARROW:
        for what, text in zip(*(column.cells for column in table.columns), strict=True):
            print_item(console, str(what), *str(text).splitlines())
    else:
        console.print(table)
    console.print(f"\n{combiner.bibtex}", markup=False, soft_wrap=True)


def state_names(combiner: type[Combiner]) -> list[str]:
    """The parts of the state with default arguments; none of a method that must be given some."""
    must_be_given = any(one.default is one.empty for one in inspect.signature(combiner).parameters.values())
    return [] if must_be_given else list(combiner().state_dict())


def _arguments(combiner: type[Combiner]) -> str:
    """The constructor's arguments with their defaults, a line each."""
    lines = []
    for name, parameter in inspect.signature(combiner).parameters.items():
        given = "must be given" if parameter.default is inspect.Parameter.empty else repr(parameter.default)
        lines.append(f"{name}: {given}")
    return "\n".join(lines)
