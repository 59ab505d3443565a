"""``mtrl-imgrad toy`` from the command line to its folder."""

import csv
import json

import pytest

from mtrl_imgrad.cli import main

SMALL = ["--steps", "30", "--no-progress-bar"]


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("toy") / "out"
    methods = ["--methods", "linear_scalarization", "cagrad:c=0.8"]
    assert (
        main(["toy", *methods, "--s", "0.9", "0.25", "--starts", "(9,-1)", "(0,0)", *SMALL, "--run-dir", str(folder)])
        == 0
    )
    return folder


def test_results_hold_every_trajectory_and_what_repeats_them(folder):
    kept = json.loads((folder / "results.json").read_text())
    assert kept["settings"]["methods"] == ["linear_scalarization", "cagrad:c=0.8"]
    assert (kept["settings"]["steps"], kept["settings"]["s"]) == (30, [0.9, 0.25])
    assert "torch" in kept["settings"]["versions"]
    assert len(kept["outcomes"]) == 2 * 2 * 2
    rows = list(csv.DictReader((folder / "results.csv").read_text().splitlines()))
    for row, outcome in zip(rows, kept["outcomes"], strict=True):
        assert row["method"] == outcome["method"]
        assert [float(row["end_1"]), float(row["end_2"])] == outcome["end"]
        assert (row["optimum_step"], outcome["optimum_step"]) == ("", None)
        assert 0 <= int(row["pareto_failures"]) <= 30
    text = (folder / "tables.md").read_text()
    assert text.count("| cagrad:c=0.8 |") == 4


def test_pictures_are_there(folder):
    for s in ("0.9", "0.25"):
        for what in ("trajectories", "failures", "progress"):
            head = (folder / f"{what}_s{s}.png").read_bytes()[:24]
            assert head[:8] == b"\x89PNG\r\n\x1a\n"
            assert int.from_bytes(head[16:20], "big") > 500


def test_tables_fit_a_terminal_and_results_are_not_overwritten(folder, capsys, tmp_path):
    arguments = ["toy", "--methods", "mgda", "--s", "0.9", *SMALL, "--starts", "(9,-1)", "(-7.5,-0.5)"]
    assert main([*arguments, "--run-dir", str(tmp_path / "new")]) == 0
    out = capsys.readouterr().out
    assert "(-7.5," in out
    assert "…" not in out
    assert "trajectories_s0.9.png" in out.replace("\n", "")
    before = (folder / "results.json").read_bytes()
    assert main([*arguments, "--run-dir", str(folder)]) == 2
    assert "holds a run already" in capsys.readouterr().err
    assert (folder / "results.json").read_bytes() == before


def test_c_goes_to_the_methods_that_take_it_and_do_not_say(tmp_path, monkeypatch):
    for picture in ("trajectories", "failures", "progress"):
        monkeypatch.setattr(f"mtrl_imgrad.experiments.synthetic.plot_{picture}", lambda *arguments: None)
    methods = ["--methods", "mgda", "cagrad", "cagrad:c=0.9", "cagrad:c=0.1", "--c", "0.9"]
    assert main(["toy", *methods, "--s", "0.9", "--starts", "(9,-1)", *SMALL, "--run-dir", str(tmp_path / "new")]) == 0
    _, given, same, other = json.loads((tmp_path / "new" / "results.json").read_text())["outcomes"]
    assert given["end"] == same["end"] != other["end"]


def test_a_place_that_is_no_folder_is_told_before_the_first_step(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr("mtrl_imgrad.experiments.synthetic.descend", None)
    (tmp_path / "file").touch()
    for place in (tmp_path / "file", tmp_path / "file" / "below" / "it"):
        assert main(["toy", "--run-dir", str(place)]) == 2
        assert f"{tmp_path / 'file'} is no folder to write to" in capsys.readouterr().err.replace("\n", " ")


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--methods", "imgard"], "Did you mean 'imgrad'"),
        (["--methods", "cagrad:radius=1"], "takes no argument 'radius'"),
        (["--s", "1.5"], "between 0 and 1"),
        (["--starts", "six"], "starts must be five or three, or points"),
        (["--starts", "(1,2,3)"], "starts must be"),
        (["--steps", "0"], "steps must be an integer >= 1"),
        (["--lr", "-1"], "lr must be a finite number > 0"),
    ],
)
def test_mistakes_are_one_line_and_leave_nothing(arguments, message, tmp_path, capsys):
    assert main(["toy", "--no-progress-bar", "--run-dir", str(tmp_path / "new"), *arguments]) == 2
    err = capsys.readouterr().err
    assert message in err.replace("\n", " ")
    assert "Traceback" not in err
    assert not list(tmp_path.iterdir())
