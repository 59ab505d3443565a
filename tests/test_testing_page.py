"""docs/testing.md names tests that exist."""

import re

import pytest

from tests.support.paths import DOCS, ROOT

NAMED = re.findall(r"`(tests/[\w/]+\.py)::(test_\w+)`", (DOCS / "testing.md").read_text(encoding="utf-8"))


@pytest.mark.parametrize(("file", "name"), NAMED, ids=[name for _, name in NAMED])
def test_a_named_test_exists(file, name):
    assert re.search(rf"^ *def {name}\(", (ROOT / file).read_text(encoding="utf-8"), re.MULTILINE)


def test_the_page_names_tests():
    assert len(NAMED) > 10
