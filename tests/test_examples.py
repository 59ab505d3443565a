"""Every example runs, for a moment, and prints what it says it prints."""

import re
import runpy
import sys

import pytest

from tests.support.paths import ROOT

EXAMPLES = ROOT / "examples"
SHORT = {
    "distributed.py": (["--steps", "2"], r"same bits on all ranks: True"),
    "own_combiner.py": ([], r"unit_gradients  cosine with each task: \+"),
    "own_encoder.py": (["--steps", "1100"], r"toy-reach/down .*\n(.*\n)*mean"),
    "own_tasks.py": (["--steps", "1040", "--episodes", "1"], r"moon .*\n.*mars .*\n.*earth .*\n.*uranus"),
    "plain_pytorch.py": (["--steps", "300"], r"linear_scalarization: .*%\n +imgrad: .*%"),
}


@pytest.mark.parametrize("path", sorted(EXAMPLES.glob("*.py")), ids=lambda path: path.name)
def test_an_example_runs(path, monkeypatch, capsys):
    arguments, printed = SHORT[path.name]
    monkeypatch.setattr(sys, "argv", [path.name, *arguments])
    runpy.run_path(str(path), run_name="__main__")
    assert re.search(printed, capsys.readouterr().out)
