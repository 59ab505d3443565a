"""What is read from results, said of them, and written about them; nothing is trained here."""

import csv
import json
import re
import shutil
import subprocess
from html.parser import HTMLParser
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from scipy import stats

from mtrl_imgrad.cli import main
from mtrl_imgrad.errors import ArgumentError, CheckpointError, TaskMismatchError
from mtrl_imgrad.experiments.comparisons import figures
from mtrl_imgrad.experiments.comparisons.plan import load_comparison, plan_comparison
from mtrl_imgrad.experiments.comparisons.records import by_method, load_records, load_runs, runs_frame
from mtrl_imgrad.experiments.comparisons.report import write_report
from mtrl_imgrad.experiments.comparisons.summary import summarize
from mtrl_imgrad.experiments.comparisons.training_figures import training_figures
from mtrl_imgrad.experiments.rl.config import train_config_class
from mtrl_imgrad.experiments.run_folder import RESULT
from mtrl_imgrad.reporting.figures import PALETTE
from tests.support.comparisons.results import TASKS, result, write_result

RATES = {
    "imgrad": [(0.90, 0.80, 0.60), (0.92, 0.86, 0.64), (0.88, 0.84, 0.58), (0.94, 0.80, 0.66)],
    "cagrad": [(0.88, 0.86, 0.54), (0.92, 0.80, 0.70), (0.92, 0.82, 0.60), (0.86, 0.84, 0.64)],
    "ls": [(0.50, 0.30, 0.00), (0.52, 0.36, 0.02), (0.48, 0.34, 0.00), (0.54, 0.30, 0.04)],
}


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("results")
    for method, seeds in RATES.items():
        for seed, rates in enumerate(seeds):
            write_result(folder, result(method, seed, rates))
    return folder


def test_runs_are_tidy_rows(folder):
    rows = load_runs(folder)
    assert len(rows) == 3 * 4 * 4 * 3
    last = [row for row in rows if row["final"] and (row["method"], row["seed"]) == ("imgrad", 1)]
    assert {row["task"]: row["success"] for row in last} == dict(zip(TASKS, RATES["imgrad"][1], strict=True))
    assert [row["cpu_seconds"] for row in last] == [120.0] * 3
    pd = pytest.importorskip("pandas")
    assert isinstance(runs_frame(folder), pd.DataFrame)


def test_a_history_is_what_the_run_had(folder):
    record = next(one for one in load_records([folder]) if one.method == "imgrad")
    history = record.history()
    np.testing.assert_allclose(history.success_rate[-1], RATES["imgrad"][0])
    assert history.timesteps.tolist() == [0, 1000, 2000, 2000]
    assert record.history("cpu_seconds").timesteps.tolist() == [0, 60, 120, 120]


def test_the_table_is_that_of_scipy(folder):
    summary = summarize(load_records([folder]))
    rates = {method: np.array(seeds) for method, seeds in RATES.items()}
    assert [one.method for one in summary.methods] == ["imgrad", "cagrad", "ls"]
    best = rates["imgrad"]
    for one in summary.methods:
        own = rates[one.method]
        assert one.aggregate.mean == pytest.approx(own.mean())
        assert one.aggregate.iqm == pytest.approx(stats.trim_mean(own, 0.25, axis=None))
        if one.method == "imgrad":
            continue
        expected = stats.ttest_rel(best.mean(axis=1), own.mean(axis=1)).confidence_interval(0.95)
        assert tuple(one.against_best.interval) == pytest.approx(tuple(expected))
        u = [stats.mannwhitneyu(own[:, k], best[:, k]).statistic / 16 for k in range(3)]
        assert one.improvement.value == pytest.approx(np.mean(u))


def test_noise_is_said_where_it_is_and_how_many_seeds_would_be_needed(folder):
    said = " ".join(summarize(load_records([folder])).statements)
    assert "No order beyond seed noise between imgrad and cagrad." in said
    assert re.search(r"cagrad: were the difference of 0\.\d+ true, about \d+ seeds would be needed", said)
    assert "Below imgrad beyond seed noise: ls." in said
    assert "Beware" not in said


def test_what_is_not_alike_is_said(tmp_path):
    for method, steps, version in (("ls", 2000, "2.0"), ("mgda", 1000, "2.1")):
        data = result(method, 0, RATES["ls"][0])
        write_result(tmp_path, {**data, "timesteps": steps, "versions": {"torch": version}})
    said = " ".join(summarize(load_records([tmp_path])).statements)
    assert "Fewer than 3 common seeds" in said
    assert "different steps, 1,000, 2,000" in said
    assert "different versions of torch, 2.0, 2.1" in said


class Page(HTMLParser):
    """Collects what a page would load, and its text."""

    def __init__(self):
        super().__init__()
        self.sources, self.text = [], []

    def handle_starttag(self, tag, attrs):
        self.sources += [value for name, value in attrs if name in ("src", "href")]

    def handle_data(self, data):
        self.text.append(data)


@pytest.fixture(scope="module")
def report(folder):
    return write_report(load_records([folder]), folder.parent / "report", "A <title>").parent


def test_the_page_needs_nothing_else(report):
    page = Page()
    page.feed((report / "index.html").read_text())
    assert len(page.sources) == len(list((report / "figures").iterdir())) == 13
    assert all(source.startswith("data:image/png;base64,iVBOR") for source in page.sources)
    text = " ".join(page.text)
    for expected in ("A <title>", "Soft modularization", "50 episodes a task", "No order beyond seed noise"):
        assert expected in text


@pytest.mark.slow
@pytest.mark.skipif(shutil.which("chromium") is None, reason="no chromium")
def test_a_browser_shows_the_page_with_its_figures(report, tmp_path):
    picture = tmp_path / "page.png"
    options = ["--headless", "--no-sandbox", "--disable-gpu", f"--user-data-dir={tmp_path / 'profile'}"]
    options += ["--window-size=1200,4000", f"--screenshot={picture}", (report / "index.html").as_uri()]
    subprocess.run([shutil.which("chromium"), *options], check=True, capture_output=True, timeout=120)
    with Image.open(picture) as image:
        pixels = np.asarray(image.convert("RGB"), dtype=np.int16)
    for colour in PALETTE[:3]:  # of the three methods' lines
        rgb = [int(colour[i : i + 2], 16) for i in (1, 3, 5)]
        assert (np.abs(pixels - rgb).max(axis=2) < 24).sum() > 50, f"{colour}, scaling aside"


def test_the_other_formats_hold_the_same_numbers(report):
    mean = f"{np.mean(RATES['ls']):.3f}"
    assert f"| ls | 4 | {mean} [" in (report / "report.md").read_text()
    assert f"ls & 4 & {mean} [" in (report / "table.tex").read_text()
    rows = list(csv.DictReader((report / "runs.csv").read_text().splitlines()))
    final = [float(row["success"]) for row in rows if row["final"] == "True" and row["method"] == "ls"]
    assert np.mean(final) == pytest.approx(np.mean(RATES["ls"]))
    for name in re.findall(r"\]\((figures/.+?)\)", (report / "report.md").read_text()):
        assert (report / name).exists()


def test_commands(folder, tmp_path, capsys, monkeypatch):
    with monkeypatch.context() as patch:  # drawn by the command below
        patch.setattr("mtrl_imgrad.experiments.comparisons.report.draw_figures", lambda records, folder: {})
        assert main(["report", str(folder), "-o", str(tmp_path / "report"), "--methods", "ls", "cagrad"]) == 0
    out = " ".join(capsys.readouterr().out.split())
    assert "Below cagrad beyond seed noise: ls." in out
    with monkeypatch.context() as patch:  # `report` has drawn them
        patch.setattr(figures, "save_figure", lambda figure, path: path.touch() or path)
        (tmp_path / "drawn").mkdir()
        assert main(["plot", str(folder), "-o", str(tmp_path / "drawn"), "--format", "svg"]) == 0
    names = {path.stem for path in (tmp_path / "drawn").glob("*.svg")}
    assert names == {
        "success_steps", "success_wall", "success_cpu", "tasks", "profile", "imbalance_critic", "conflicts_critic",
        "cosines_critic", "pareto_failures_critic", "failures_by_task_critic", "weights_critic", "progress", "setbacks",
    }  # fmt: skip
    assert main(["plot", str(folder), "--methods", "lss"]) == 2
    assert "Did you mean 'ls'" in " ".join(capsys.readouterr().err.split())


def test_methods_are_called_as_the_comparison_calls_them(tmp_path, monkeypatch):
    monkeypatch.setenv("HOME", str(tmp_path))
    planned = plan_comparison(train_config_class("mtsac")(), ["cagrad:c=0.4"], [0], tmp_path / "results")
    planned.save()
    folder = planned.runs()[0].folder
    folder.mkdir(parents=True)
    (folder / RESULT).write_text(json.dumps(result("cagrad", 0, RATES["cagrad"][0])))
    for place in (planned.folder, Path("~/results")):
        assert [record.method for record in load_records([place])] == ["cagrad:c=0.4"]


def test_what_cannot_be_read_is_named(folder, tmp_path):
    with pytest.raises(ArgumentError, match="no finished run"):
        load_records([tmp_path])
    other = result("ls", 0, (0.5,))
    write_result(tmp_path / "other", {**other, "tasks": ["walk"]})
    with pytest.raises(TaskMismatchError, match="walk"):
        load_records([folder, tmp_path / "other"])
    path = write_result(tmp_path / "damaged", result("ls", 0, RATES["ls"][0]))
    path.write_text(path.read_text()[:-9])
    with pytest.raises(CheckpointError, match=r"result.json: cannot be read"):
        load_records([tmp_path / "damaged"])


def test_a_place_for_the_report_that_is_none_is_refused(folder, tmp_path):
    (tmp_path / "file").touch()
    for command in ("plot", "report"):
        assert main([command, str(folder), "-o", str(tmp_path / "file" / "report")]) == 2
    with pytest.raises(ArgumentError, match="out .* cannot be made"):
        write_report(load_records([folder]), tmp_path / "file")


def test_a_home_folder_keeps_the_names_of_its_comparison(tmp_path, monkeypatch):
    plan_comparison(train_config_class("mtsac")(), ["ls", "imgrad:c=0.4"], [0], tmp_path / "c").save()
    for run in load_comparison(tmp_path / "c").runs():
        run.folder.mkdir(parents=True)
        (run.folder / "result.json").write_text(json.dumps(result("as the run says", 0, RATES["ls"][0])))
    monkeypatch.setenv("HOME", str(tmp_path))
    assert [record.method for record in load_records([Path("~/c")])] == ["ls", "imgrad:c=0.4"]


def test_a_method_has_the_name_that_came_first(folder, tmp_path):
    methods = {"linear_scalarization+ls": 10, "ls:unknown=1": 11}
    for method, seed in methods.items():
        write_result(tmp_path / str(seed), result(method, seed, RATES["ls"][0]))
    seeds = {name: [run.seed for run in runs] for name, runs in by_method(load_records([folder, tmp_path])).items()}
    assert seeds["ls"][-1] == 10, "with those that the folder calls ls"
    assert seeds["ls:unknown=1"] == [11], "of another version: it stands for itself"


def test_a_second_run_of_a_seed_is_refused(folder, tmp_path):
    write_result(tmp_path, result("ls", 0, RATES["ls"][0]))
    with pytest.raises(ArgumentError, match="two runs of one seed"):
        summarize(load_records([folder, tmp_path]))


def drawn(folder, name):
    """The axes of a figure of what the logs hold."""
    found = {one: draw for one, _, draw in training_figures(load_records([folder]))}
    return found[name]().axes


def test_curves_over_training_are_of_its_parts(folder):
    axes = drawn(folder, "pareto_failures_critic")[0]
    for line in axes.lines:  # logged at 100, 1100 and 1900 of 2000 steps: the parts of a twentieth they are in
        assert line.get_xdata().tolist() == [150, 1150, 1950]
        assert line.get_ydata().tolist() == [1, 0, 0]
    medians = [line.get_ydata().tolist() for line in drawn(folder, "imbalance_critic")[0].lines]
    assert medians == [[10, 21.5]] * 3, "of four seeds; what was not measured is left out"


def test_failures_and_progress_are_of_each_task(folder):
    panels = {axes.get_title(loc="left"): axes for axes in drawn(folder, "failures_by_task_critic") if axes.lines}
    assert {task: axes.lines[0].get_ydata().tolist() for task, axes in panels.items()} == {
        "reach": [0, 0, 0], "push": [0, 1, 0], "door": [0, 1, 0]
    }  # fmt: skip
    panels = {axes.get_title(loc="left"): axes for axes in drawn(folder, "progress") if axes.lines}
    assert panels["door"].lines[0].get_ydata().tolist() == [1, 0.5, 1.25]


def test_a_heat_map_is_the_mean_over_seeds(folder):
    axes = drawn(folder, "cosines_critic")
    images = [one for one in axes if one.images]
    assert len(images) == 3, "a method a row; the second part has no data"
    shown = images[0].images[0].get_array()
    assert shown[1, 2] == pytest.approx(-0.3)
    assert shown[0, 1] == pytest.approx(0.5)
    assert shown.mask[0, 2] or np.isnan(shown[0, 2])
