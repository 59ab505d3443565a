"""The notebooks run, show tables and figures where they promise them, and are pages of the site."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import pytest
from matplotlib.figure import Figure

from mtrl_imgrad.evaluation import SuccessReport
from mtrl_imgrad.reporting.tables import TextTable
from tests.support.documented.notebooks import NOTEBOOKS, cells, run, source
from tools.pages.notebooks import notebook_page

SHORT: dict[str, tuple[dict[str, Any], list[type]]] = {
    "comparing": ({"STEPS": 3, "SEEDS": [0, 1, 2]}, [TextTable, TextTable]),
    "own_loop": ({"STEPS": 2}, [list]),
    "own_tasks": ({"STEPS": 330}, [tuple, SuccessReport, SuccessReport]),
    "two_objectives": ({"STEPS": 20}, [Figure, TextTable]),
}
"""By notebook what makes it short, and of which types the values are that its cells show; a tensor's are not asked."""


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_runs(path: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("MPLBACKEND", "agg")
    shorter, types = SHORT[path.stem]
    text = "\n".join(source(cell) for cell in cells(path, "code"))
    assert all(re.search(rf"^{name} = ", text, re.MULTILINE) for name in shorter)
    shown = [value for value in run(path, shorter) if type(value).__name__ != "Tensor"]
    assert len(shown) == len(types)
    assert all(map(isinstance, shown, types))


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_links_lead_somewhere(path: Path) -> None:
    links = re.findall(r"\]\((\.\./[^)#]+)", "\n".join(source(cell) for cell in cells(path, "markdown")))
    assert links
    assert [link for link in links if not (path.parent / link).exists()] == []


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_what_it_showed_is_kept_and_small(path: Path) -> None:
    outputs = [output for cell in cells(path, "code") for output in cell["outputs"]]
    assert outputs
    assert {output["output_type"] for output in outputs} <= {"stream", "execute_result", "display_data"}
    assert path.stat().st_size < 200_000


def test_a_page_has_text_code_tables_pictures_and_lines(tmp_path: Path) -> None:
    outputs = [
        {"output_type": "stream", "text": ["a line\n"]},
        {"output_type": "execute_result", "data": {"text/html": ["<table></table>"], "text/plain": ["no"]}},
        {"output_type": "display_data", "data": {"image/png": "AAAA\n", "text/plain": ["no"]}},
    ]
    made = [
        {"cell_type": "markdown", "source": ["# Title\n", "words"]},
        {"cell_type": "code", "source": ["1 + 1"], "outputs": outputs},
    ]
    path = tmp_path / "some.ipynb"
    path.write_text(json.dumps({"cells": made}))
    text = notebook_page(path)
    assert text.startswith("# Title\nwords\n\n")
    assert "```python\n1 + 1\n```\n\n```text\na line\n```\n\n" in text
    assert '<div class="output"><table></table></div>' in text
    assert 'src="data:image/png;base64,AAAA"' in text
    assert "no" not in re.findall(r"\w+", text.partition("```python")[2])
