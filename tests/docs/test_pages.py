"""The site: every page has a place, every combiner, encoder and agent has a page, links lead where the pages are."""

from __future__ import annotations

import re
from itertools import pairwise

import pytest
import yaml

from mtrl_imgrad.agents.encoders import list_encoders
from mtrl_imgrad.agents.registry import AGENTS
from mtrl_imgrad.combiners import list_combiners, make_combiner
from tests.support.paths import DOCS, ROOT
from tools.import_map import EXCEPTIONS, FLOORS, drawn_arrows
from tools.pages.__main__ import all_pages, drawn_diagrams, with_all_pages
from tools.pages.arrows import Case, one_step
from tools.pages.floors import drawing
from tools.pages.links import relink, take_sections


@pytest.fixture(scope="module")
def pages() -> dict[str, tuple[str, str]]:
    return all_pages()


def test_every_page_has_a_place_in_the_navigation(pages: dict[str, tuple[str, str]]) -> None:
    layout = with_all_pages((ROOT / "mkdocs.yml").read_text(encoding="utf-8"))
    named = re.findall(r"^ *- (?:.*: )?(\S+\.md)$", layout[layout.index("nav:") :], re.MULTILINE)
    data = {f"results/{name}/comparison.md" for name in ("primitives", "scenes")} | {"results/synthetic/tables.md"}
    assert sorted(named) == sorted(set(pages) - data)


def test_a_page_for_each_of_the_registries(pages: dict[str, tuple[str, str]]) -> None:
    for name in list_combiners():
        text = pages[f"combiners/{name}.md"][1]
        assert text.count("<svg") == 3
        assert re.search(r"^\| moves \| .* \| (yes|no) \|$", text, re.MULTILINE)
        assert "## Arguments\n\n::: mtrl_imgrad.combiners.methods." in text
        assert "@" in text[text.index("## Cite") :]
    for name in list_encoders():
        assert "::: mtrl_imgrad.agents.encoders." in pages[f"encoders/{name}.md"][1]
    for name in AGENTS:
        assert "](presets.md#mt10" in pages[f"{name}.md"][1]


def test_a_method_is_described_on_its_own_page_and_not_twice(pages: dict[str, tuple[str, str]]) -> None:
    written = (DOCS / "combiners.md").read_text(encoding="utf-8")
    sentence = "The same ball, another direction in it"
    assert sentence in written
    assert sentence in pages["combiners/imgrad.md"][1]
    assert sentence not in pages["combiners.md"][1]
    assert "## From losses to gradients" in pages["combiners.md"][1]


def test_links_follow_what_has_moved() -> None:
    places = {"docs/combiners.md#imgrad": "combiners/imgrad.md", "SECURITY.md": "security.md"}
    for before, after in (
        ("[a](combiners.md#imgrad)", "[a](../combiners/imgrad.md)"),
        ("[a](combiners.md#heads)", "[a](../combiners.md#heads)"),
        ("[a](../SECURITY.md)", "[a](../security.md)"),
        ("[`a`](../tools/x.py)", "`a`"),
        ("![a](idea/b.png)", "![a](../idea/b.png)"),
        ("[a](https://b.org)", "[a](https://b.org)"),
        ("[a](#b)", "[a](../idea.md#b)"),  # a section that has moved away from its page
    ):
        assert relink(before, "docs/idea.md", "start/idea.md", places) == after
    assert relink("```\n[a](b.md)\n```\n", "docs/x.md", "y/x.md", {}) == "```\n[a](b.md)\n```\n"


def test_sections_are_taken_with_their_code() -> None:
    text = "# T\nzero\n## one\nfirst\n```\n# a comment\n```\n## two\nsecond\n"
    kept, taken = take_sections(text, {"one"})
    assert kept == "# T\nzero\n## two\nsecond\n"
    assert taken == {"one": "first\n```\n# a comment\n```"}


def test_the_picture_is_of_the_combiner() -> None:
    case = Case("Opposed", [[1.0, 0.0], [-3.0, 1.0]], [1.0, 1.0])
    _, mean = one_step(make_combiner("linear_scalarization"), case)
    assert mean == "weights 0.50, 0.50; loss 1 rises; loss 2 falls"
    picture, upgrad = one_step(make_combiner("upgrad"), case)
    assert "rises" not in upgrad
    assert picture.count("<line") == 4


def test_the_layout_takes_nothing_from_other_hosts() -> None:
    layout = (ROOT / "mkdocs.yml").read_text(encoding="utf-8")
    assert yaml.safe_load(layout)["theme"]["font"] is False
    assert "http" not in layout
    assert "- offline" not in layout, "the plugin loads a script from the network"


def test_the_map_is_drawn_here_and_not_by_a_script(pages: dict[str, tuple[str, str]]) -> None:
    assert [name for name, (_, text) in pages.items() if "```mermaid" in text] == ["architecture.md"]
    text = drawn_diagrams(pages["architecture.md"][1])
    assert "mermaid" not in text
    assert re.findall(r">(\w+)</text>", text) == [room for rooms in reversed(FLOORS) for room in rooms]
    assert text.count("<polygon") == len(drawn_arrows()) + len(EXCEPTIONS)


def test_no_box_of_the_map_lies_on_another_or_on_an_arrow_that_passes() -> None:
    rows = [["top"], ["left", "a_room_with_a_long_name", "right"], ["bottom"]]
    arrows = [("top", "bottom"), ("top", "left"), ("a_room_with_a_long_name", "bottom"), ("right", "bottom")]
    text = drawing(rows, arrows, dashed=[])
    boxes = sorted((int(x), int(x) + int(w)) for x, w in re.findall(r'<rect x="(-?\d+)" y="94" width="(\d+)"', text))
    (passing,) = (int(x) for x in re.findall(r"(-?\d+),94 V122", text))
    assert len(boxes) == 3
    assert all(left[1] < right[0] for left, right in pairwise(boxes))
    assert not any(left <= passing <= right for left, right in boxes)
