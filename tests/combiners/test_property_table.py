"""The docs' table of laws is what is measured."""

import pytest

from mtrl_imgrad.combiners import list_combiners
from tests.support.combiners.property_table import LAWS, holds
from tests.support.paths import DOCS

PAGE = DOCS / "combiner_properties.md"


def documented() -> dict[tuple[str, str], bool]:
    rows = [line.strip("| ").split(" | ") for line in PAGE.read_text(encoding="utf-8").splitlines() if "| `" in line]
    return {(row[0].strip("`"), law): mark == "yes" for row in rows for law, mark in zip(LAWS, row[1:], strict=True)}


def test_every_combiner_is_in_the_table():
    assert {name for name, _ in documented()} == set(list_combiners())


@pytest.mark.parametrize("law", LAWS)
@pytest.mark.parametrize("name", list_combiners())
def test_the_table_is_right(name, law):
    assert holds(name, law) == documented()[name, law]
