"""The command line's lists at 60 columns: whole words, nothing cut away."""

import pytest

from mtrl_imgrad.cli import main
from mtrl_imgrad.combiners import list_combiners
from mtrl_imgrad.experiments.presets import list_presets
from mtrl_imgrad.reporting.narrow import print_item


@pytest.mark.parametrize("command", ["combiners", "combiners imgrad", "presets", "doctor"])
def test_lists_are_readable_at_60_columns(command, monkeypatch, capsys):
    monkeypatch.setenv("COLUMNS", "60")
    assert main(command.split()) == 0
    out = capsys.readouterr().out
    prose = [line for line in out.partition("@inproceedings")[0].splitlines() if "/" not in line]
    assert max(map(len, prose)) <= 60
    assert "\u2026" not in out, "rich cuts a cell with an ellipsis"
    names = {"combiners": list_combiners(), "presets": list_presets("rl")}.get(command, [])
    assert all(name in out for name in names)


def test_a_text_hangs_below_its_head(capsys):
    from rich.console import Console

    print_item(Console(width=20), "name", "some words of a text", "")
    lines = [line.rstrip() for line in capsys.readouterr().out.splitlines()]
    assert lines == [
        "name",
        "    some words of a",
        "    text",
    ]
