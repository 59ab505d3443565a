"""What the command line says of the combiners: all of them in a table, one of them in full."""

from __future__ import annotations

import inspect
import re
from dataclasses import dataclass
from typing import Annotated

import tyro
from rich.console import Console
from rich.table import Table

from mtrl_imgrad.combiners import combiner_class, list_combiners
from mtrl_imgrad.combiners.base import Combiner

__all__ = ["Combiners", "print_combiner", "print_combiners", "short_reference"]

COSTS = {
    "losses": "1 backward",
    "gramian": "K gradients",
    "matrix": "K gradients, entrywise",
}
"""What a step costs, by what a method needs, beside K-sized work. Rows of tasks give K gradients in one backward."""


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
    """A table of all combiners: name, what a step needs and keeps, paper."""
    table = Table(box=None, pad_edge=False)
    for column in ("name", "a step needs", "keeps", "paper"):
        table.add_column(column, no_wrap=column in ("name", "a step needs"))
    for name in list_combiners():
        combiner = combiner_class(name)
        kept = ", ".join(part.replace("_", " ") for part in combiner.keeps) or "-"
        table.add_row(name, COSTS[combiner.needs], kept, short_reference(combiner.paper))
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
    table.add_row("keeps", ", ".join(combiner.keeps) or "nothing")
    table.add_row("departures", combiner.departures)
    table.add_row("arguments", _arguments(combiner))
    console.print(table)
    if combiner.bibtex:
        console.print(f"\n{combiner.bibtex}", markup=False, soft_wrap=True)


def short_reference(paper: str) -> str:
    """First author and venue of a reference.

    >>> short_reference("Ada One and Bob Two. A Title. NeurIPS 2021. arXiv:2110.14048")
    'One et al., NeurIPS 2021'
    """
    body = re.sub(r"arXiv:[0-9.]+$", "", paper)
    authors, _, venue = body.strip(" .").rpartition(". ")
    if not re.search(r"(19|20)[0-9]{2}$", venue):
        return paper
    names = re.split(r", | and ", authors.split(". ")[0])
    surname = names[0].split()[-1]
    return f"{surname} et al., {venue}" if len(names) > 1 else f"{surname}, {venue}"


def _arguments(combiner: type[Combiner]) -> str:
    """The constructor's arguments with their defaults, a line each."""
    lines = []
    for name, parameter in inspect.signature(combiner).parameters.items():
        given = "must be given" if parameter.default is inspect.Parameter.empty else repr(parameter.default)
        lines.append(f"{name}: {given}")
    return "\n".join(lines)
