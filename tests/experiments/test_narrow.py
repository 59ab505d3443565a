"""The command line's lists at 60 columns: whole words, nothing cut away."""

import io

import pytest
from rich.console import Console

from mtrl_imgrad.cli import main
from mtrl_imgrad.combiners import list_combiners
from mtrl_imgrad.experiments.comparisons.kinds import Progress
from mtrl_imgrad.experiments.comparisons.live import overview
from mtrl_imgrad.experiments.comparisons.plan import PlannedRun
from mtrl_imgrad.experiments.comparisons.state import RunState
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
    print_item(Console(width=20), "name", "some words of a text", "")
    lines = [line.rstrip() for line in capsys.readouterr().out.splitlines()]
    assert lines == [
        "name",
        "    some words of a",
        "    text",
    ]


@pytest.mark.parametrize(("width", "seeds"), [(60, 1), (60, 5), (100, 5)])
def test_a_comparison_is_shown_whole(width, seeds):
    kinds = (
        RunState("running", Progress(4, 10, 4000.0), 0.42),
        RunState("finished", Progress(10, 10, 100.0), 0.87),
        RunState("failed", Progress(3, 10, 100.0), error="RuntimeError: the simulator has no more memory\nmore"),
        RunState("stopped", Progress(4, 10, 40.0), 0.4),
        RunState("waiting", Progress()),
    )
    methods = ("ls", "pcgrad+fairgrad:alpha=2.0")
    runs = [PlannedRun(f"{method}/{seed}", method, seed, "", None) for method in methods for seed in range(seeds)]
    states = {run.name: kinds[run.seed] for run in runs}
    console = Console(file=io.StringIO(), width=width)
    console.print(overview(runs, states, 2, console, "once more to stop at once"))
    shown = console.file.getvalue()
    assert max(map(len, shown.splitlines())) <= width
    assert "\u2026" not in shown
    words = " ".join(shown.split())
    said = ["pcgrad+fairgrad:alpha=2.0", "40% 0.42", "ls seed 0", "running, 40%, success 0.42, 1:40:00 left", "at once"]
    if seeds == 5:
        said += ["done 0.87", "stopped 40%", "failed: RuntimeError: the simulator has no more memory"]
    assert [text for text in said if text not in words] == []
