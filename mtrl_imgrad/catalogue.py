"""What the command line says of the combiners: all of them in a table, one of them in full."""

from __future__ import annotations

import inspect
import re

from rich.console import Console
from rich.table import Table

from mtrl_imgrad.combiners import combiner_class, list_combiners
from mtrl_imgrad.combiners.base import Combiner

__all__ = ["print_combiner", "print_combiners", "short_reference"]

COSTS = {
    "losses": "1 backward",
    "gramian": "K gradients",
    "matrix": "K gradients, entry by entry",
}
"""What a step costs, by what a method needs, beside K-sized work. Rows of tasks give K gradients in one backward."""


def print_combiners(console: Console) -> None:
    """A table of all combiners: name, what a step needs and keeps, paper."""
    table = Table("name", "step needs", "keeps", "paper", box=None, pad_edge=False)
    for name in list_combiners():
        combiner = combiner_class(name)
        kept = ", ".join(part.replace("_", " ") for part in combiner.keeps) or "-"
        table.add_row(name, COSTS[combiner.needs], kept, short_reference(combiner.paper))
    console.print(table)
    console.print("\n`mtrl-imgrad combiners NAME` says more of one: arguments, departures from its authors, BibTeX.")


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
    """First author, venue and arXiv number of a reference.

    >>> short_reference("Ada One and Bob Two. A Title. NeurIPS 2021. arXiv:2110.14048")
    'One et al., NeurIPS 2021, arXiv:2110.14048'
    """
    arxiv = re.search(r"arXiv:[0-9.]+[0-9]", paper)
    body = paper[: arxiv.start()] if arxiv else paper
    authors, _, venue = body.strip(" .").rpartition(". ")
    if not re.search(r"(19|20)[0-9]{2}$", venue):
        return paper
    authors = authors.split(". ")[0]
    names = re.split(r", | and ", authors)
    surname = names[0].split()[-1]
    parts = [f"{surname} et al." if len(names) > 1 else surname, venue, arxiv[0] if arxiv else ""]
    return ", ".join(part for part in parts if part)


def _arguments(combiner: type[Combiner]) -> str:
    """The constructor's arguments with their defaults, a line each."""
    lines = []
    for name, parameter in inspect.signature(combiner).parameters.items():
        given = "must be given" if parameter.default is inspect.Parameter.empty else repr(parameter.default)
        lines.append(f"{name}: {given}")
    return "\n".join(lines)
