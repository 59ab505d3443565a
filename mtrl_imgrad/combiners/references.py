"""The papers of the methods, read from ``references.bib``."""

from __future__ import annotations

import re
from dataclasses import dataclass
from functools import cache
from pathlib import Path

_ABBREVIATIONS = {
    "AAAI Conference on Artificial Intelligence": "AAAI",
    "Advances in Neural Information Processing Systems": "NeurIPS",
    "Conference on Uncertainty in Artificial Intelligence": "UAI",
    "IEEE/CVF Conference on Computer Vision and Pattern Recognition": "CVPR",
    "IEEE/CVF Conference on Computer Vision and Pattern Recognition Workshops": "CVPR Workshops",
    "International Conference on Learning Representations": "ICLR",
    "International Conference on Machine Learning": "ICML",
    "International Joint Conference on Artificial Intelligence": "IJCAI",
    "Transactions on Machine Learning Research": "TMLR",
}


@dataclass(frozen=True)
class Reference:
    """One entry.

    Attributes:
        bibtex: the entry as it is in the file.
        authors: ``("Family, Given", ...)``.
        title: without braces.
        published: abbreviation of the venue, and the year; the year alone for a preprint.
        arxiv: number, or "".
    """

    bibtex: str
    authors: tuple[str, ...]
    title: str
    published: str
    arxiv: str

    @property
    def full(self) -> str:
        """All authors, title, venue, arXiv number."""
        names = [" ".join(reversed(author.split(", "))) for author in self.authors]
        who = " and ".join(filter(None, (", ".join(names[:-1]), names[-1])))
        return f"{who}. {self.title}. {self.published}" + (f". arXiv:{self.arxiv}" if self.arxiv else "")

    @property
    def short(self) -> str:
        """``One et al., NeurIPS 2021``."""
        families = [author.split(", ")[0] for author in self.authors]
        who = f"{families[0]} et al." if len(families) > 2 else " and ".join(families)
        return f"{who}, {self.published}"

    @property
    def line(self) -> str:
        """`short` with the arXiv number, as docstrings and docs have it."""
        return self.short + (f", arXiv {self.arxiv}" if self.arxiv else "")


@cache
def references() -> dict[str, Reference]:
    """All entries by key."""
    text = Path(__file__).with_name("references.bib").read_text(encoding="utf-8")
    return {re.match(r"@\w+\{(\w+),", entry)[1]: _read(entry) for entry in text.strip().split("\n\n")}  # type: ignore[index]


def _read(bibtex: str) -> Reference:
    fields = {
        name: " ".join(value.split())
        for name, value in re.findall(r"^  (\w+) = \{(.*?)\},?$", bibtex, re.DOTALL | re.MULTILINE)
    }
    venue = fields.get("booktitle", fields.get("journal"))
    return Reference(
        bibtex=bibtex,
        authors=tuple(fields["author"].split(" and ")),
        title=fields["title"].replace("{", "").replace("}", ""),
        published=" ".join(filter(None, (venue and _ABBREVIATIONS[venue], fields["year"]))),
        arxiv=fields.get("eprint", ""),
    )
