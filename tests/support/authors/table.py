"""How far each combiner is from its authors' own code.

``python -m tests.support.authors.table`` prints the table of docs/authors.md.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterator

from tests.support.authors import gradients, losses
from tests.support.authors.igb import igb_v2
from tests.support.authors.numbers import Comparison, Comparisons, Facts, golden

COMPARE: dict[str, Callable[[Facts, Facts], Comparisons]] = {
    "imgrad": gradients.imgrad,
    "cagrad": gradients.cagrad,
    "cagrad_exact": gradients.cagrad_exact,
    "cagrad_fast": gradients.cagrad_fast,
    "mgda": gradients.mgda,
    "pcgrad": gradients.pcgrad_,
    "graddrop": gradients.graddrop_,
    "imtl_g": gradients.imtl_g,
    "imtl": gradients.imtl,
    "nash_mtl": gradients.nash_mtl,
    "sdmgrad": gradients.sdmgrad,
    "sdmgrad_os": gradients.sdmgrad_os,
    "adatask": gradients.adatask,
    "famo": losses.famo,
    "igb_v1": losses.igb_v1,
    "igb_v2": igb_v2,
    "bilb4mtl": losses.bilb4mtl,
    "cotbal": losses.cotbal,
}
"""By method of the golden file."""


def compare(method: str, case: int) -> list[Comparison]:
    """All comparisons of one case of the golden file."""
    facts = golden()["cases"][method][case]
    return list(COMPARE[method](facts["inputs"], facts["outputs"]))


def list_cases() -> list[tuple[str, int]]:
    """Method and number of every case."""
    return [(method, case) for method, cases in golden()["cases"].items() for case in range(len(cases))]


def by_part(method: str) -> dict[str, list[Comparison]]:
    """All comparisons of a method, by part."""
    found: dict[str, list[Comparison]] = defaultdict(list)
    for case in range(len(golden()["cases"][method])):
        for comparison in compare(method, case):
            found[comparison.part].append(comparison)
    return found


def table_rows() -> Iterator[list[str]]:
    """A row for each method and part: both names, number of comparisons, largest and median deviation, bound."""
    for method in golden()["cases"]:
        for part, comparisons in by_part(method).items():
            deviations = sorted(comparison.deviation for comparison in comparisons)
            departs, allowed = comparisons[0].departs, max(comparison.allowed for comparison in comparisons)
            bound = f"reaches {departs:g}" if departs else f"<= {allowed:.0e}"
            largest, median = deviations[-1], deviations[len(deviations) // 2]
            yield [
                f"`{method}`",
                part.replace("|", "\\|"),
                str(len(deviations)),
                f"{largest:.0e}",
                f"{median:.0e}",
                bound,
            ]


def main() -> None:
    """Print the table of docs/authors.md."""
    print("| method | compared | numbers | largest deviation | median | tested |")
    print("| --- | --- | ---: | ---: | ---: | --- |")
    for row in table_rows():
        print("| " + " | ".join(row) + " |")


if __name__ == "__main__":
    main()
