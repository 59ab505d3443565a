"""Every combiner beside its authors' own code, on their numbers; docs/authors.md has the table."""

from __future__ import annotations

import pytest

from tests.support.authors.numbers import golden
from tests.support.authors.table import COMPARE, by_part, compare, list_cases, table_rows
from tests.support.paths import DOCS

PAGE = DOCS / "authors.md"


@pytest.mark.parametrize(("method", "case"), list_cases())
def test_ours_is_as_far_from_theirs_as_stated(method, case):
    comparisons = compare(method, case)
    assert comparisons
    for comparison in comparisons:
        assert comparison.deviation <= comparison.allowed, comparison


@pytest.mark.parametrize("method", COMPARE)
def test_a_deliberate_departure_is_there(method):
    """Else its description is wrong, or the numbers do not show it."""
    for part, comparisons in by_part(method).items():
        assert max(comparison.deviation for comparison in comparisons) >= comparisons[0].departs, part


def test_every_method_of_the_file_is_compared():
    assert set(COMPARE) == set(golden()["cases"])


def test_the_page_has_the_rows_of_the_table():
    """Method, part, count and bound; deviations are those of the machine that wrote the page."""
    lines = [line for line in PAGE.read_text(encoding="utf-8").splitlines() if line.startswith("| `")]
    written = [[cell.strip() for cell in line.strip("|").split(" | ")] for line in lines]
    rows = list(table_rows())
    assert [(*row[:3], row[5]) for row in written] == [(*row[:3], row[5]) for row in rows]
