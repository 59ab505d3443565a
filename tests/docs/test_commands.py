"""The commands of README and the pages: all are read by what would run them, and some run, shortened.

``pytest tests/docs -v`` lists each with its page and line.
"""

from __future__ import annotations

import shlex
from pathlib import Path

import pytest

from mtrl_imgrad import cli
from tests.support.documented.checks import check
from tests.support.documented.commands import Command, documented_commands
from tests.support.paths import DOCS, ROOT

COMMANDS = documented_commands()
QUIET = "--no-progress-bar"
TINY = "--net-arch 8 --batch-size 8 --learning-starts 20 --eval-freq 0 --eval-episodes 1 --final-episodes 1"
SCENES = "--root tiny --simulate-counts 4 2 --simulate-size 32 64 --width 0.0625 --batch-size 2"
RUN = (  # in this order, in one folder: a command of the pages, and what shortens it
    ("mtrl-imgrad combiners famo", ""),
    ("mtrl-imgrad presets", ""),
    (
        "mtrl-imgrad train --env MT10 --combiner cagrad --combiner-kwargs c=0.9 --net-arch 256 256",
        f"--env toy-reach {TINY} --total-timesteps 60 --eval-backend toy --no-trace {QUIET} --run-dir runs/RUN",
    ),
    ("mtrl-imgrad evaluate runs/RUN --episodes 50 --backend metaworld", "--backend toy --episodes 1"),
    (
        "mtrl-imgrad train --config runs/RUN/config.yaml --seed 2",
        f"--total-timesteps 40 {QUIET} --run-dir runs/again",
    ),
    (
        "mtrl-imgrad supervised --data primitives --combiner imgrad --epochs 2",
        f"--epochs 1 --run-dir runs/S {SCENES} {QUIET}",
    ),
)


@pytest.mark.parametrize("command", COMMANDS, ids=str)
def test_is_read(command: Command, tmp_path: Path) -> None:
    check(command.words, tmp_path)


def test_runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.chdir(tmp_path)
    documented = {command.words for command in COMMANDS}
    for line, shorter in RUN:
        words = tuple(shlex.split(line))
        assert words in documented, f"no page has the command {line} any more"
        status = cli.main([*words[1:], *shlex.split(shorter)])
        assert status == 0, f"{line} {shorter}\n{capsys.readouterr().err}"
    written = {"runs/RUN/model.zip", "runs/RUN/progress.csv", "runs/again/model.zip", "runs/S/result.json"}
    assert {path for path in written if not (tmp_path / path).exists()} == set()


@pytest.mark.parametrize(
    ("wrong", "error"),
    [
        ("mtrl-imgrad train --preset mt10_latop", "mt10_latop"),
        ("mtrl-imgrad train --env MT10 --combiner imgrat", "imgrat"),
        ("mtrl-imgrad compare --preset mt10 --methods ls cagrat+mgda", "cagrat"),
        ("make tset", "tset"),
        ("pip install '.[vison]'", "vison"),
        ("pytest tests/docs/test_comands.py", "does not exist"),
        ("pytest tests/docs -k nowhere_to_be_seen_" + "x", "no test has"),
        ("python tests/portable.py --setings avx2/1", "takes no --setings"),
        ("python -m tests.support.authors.tabel", "does not exist"),
    ],
)
def test_what_is_wrong_is_found(wrong: str, error: str, tmp_path: Path) -> None:
    with pytest.raises((AssertionError, ValueError), match=error):
        check(shlex.split(wrong), tmp_path)


def test_a_wrong_option_is_found(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        check(shlex.split("mtrl-imgrad train --env MT10 --total-timstep 5"), tmp_path)
    assert "--total-timstep" in capsys.readouterr().err


def test_the_readme_is_short_and_points_to_the_site_s_pages() -> None:
    text = (ROOT / "README.md").read_text(encoding="utf-8")
    assert len(text.splitlines()) <= 150, "three screens"
    for page in ("start/laptop", "start/gpu", "start/vision", "start/own_loop", "start/teacher", "idea", "migration"):
        assert f"docs/{page}.md" in text
        assert (DOCS / f"{page}.md").exists()
