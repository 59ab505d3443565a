"""Comparisons: runs that are not repeated, tables, what seeds allow to say, analyses, the command line."""

import csv
import dataclasses
import io
import itertools
import math
import re

import numpy as np
import pytest
import torch
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from rich.console import Console
from scipy import stats

from mtrl_imgrad.cli import main
from mtrl_imgrad.combiners.method_strings import parse_method
from mtrl_imgrad.errors import ArgumentError, DatasetError, UnknownNameError
from mtrl_imgrad.experiments.comparisons.launch import Launch
from mtrl_imgrad.experiments.comparisons.supervised import compare
from mtrl_imgrad.experiments.presets import preset_path
from mtrl_imgrad.experiments.supervised.analysis import (
    RunLog,
    _count_axis,
    _draw_imbalance,
    find_runs,
    read_run,
    spearman,
    summarise,
)
from mtrl_imgrad.experiments.supervised.comparison import delta_m
from mtrl_imgrad.experiments.supervised.comparison_report import (
    ComparisonReport,
    MethodRuns,
    _draw_deltas,
    difference_is_noise,
)
from mtrl_imgrad.experiments.supervised.config import load_config
from mtrl_imgrad.experiments.supervised.data import load_splits
from mtrl_imgrad.experiments.supervised.published import published_table
from mtrl_imgrad.experiments.supervised.run import make_trainer, train
from mtrl_imgrad.scenes import make_scenes
from mtrl_imgrad.supervised.datasets import DenseSample, write_nyuv2
from tests.support.paths import DOCS

SIGNS = {"segmentation": {"miou": True}, "depth": {"abs_err": False}}


def _method(label, *pairs):
    results = {seed: {"segmentation": {"miou": m}, "depth": {"abs_err": e}} for seed, (m, e) in enumerate(pairs)}
    return MethodRuns(label, results, dict.fromkeys(results, 10.0))


def _report(*methods, published=None):
    return ComparisonReport(methods, SIGNS, "made up", published)


STL = _method("stl", (40.0, 0.5), (40.0, 0.5), (40.0, 0.5))


# What the seeds allow to say


def test_noise_is_where_a_paired_t_test_finds_nothing():
    rng = np.random.default_rng(0)
    seen = set()
    for _ in range(200):
        first, second = rng.normal(size=4), rng.normal(1.5, 1.0, size=4)
        p_value = stats.ttest_rel(first, second).pvalue
        expected = p_value > 0.05
        assert difference_is_noise(first, second) == expected
        seen.add(expected)
    assert seen == {True, False}


def test_differences_without_spread_and_single_seeds():
    assert difference_is_noise([1.0, 2.0, 0.0], [1.0, 2.0, 0.0]) is True
    assert difference_is_noise([1.0, 2.0, 0.0], [2.0, 3.0, 1.0]) is False
    assert difference_is_noise([1.0, 2.0], [2.0, 3.0]) is None
    assert difference_is_noise([1.0], [9.0]) is None


def test_the_statement_names_who_is_within_noise_and_who_is_not():
    good = _method("imgrad", (42.0, 0.45), (42.2, 0.44), (41.9, 0.46))
    like = _method("cagrad", (41.9, 0.45), (42.1, 0.45), (41.7, 0.46))
    bad = _method("ls", (36.0, 0.60), (36.1, 0.61), (35.9, 0.60))
    said = " ".join(_report(STL, bad, like, good).statements())
    assert "Lowest Δm: imgrad" in said
    assert "Within seed noise of it: cagrad" in said
    assert "Worse than it beyond seed noise: ls." in said
    one = _report(_method("stl", (40.0, 0.5)), _method("ls", (36.0, 0.6)), _method("imgrad", (42.0, 0.4)))
    assert "no difference in this table can be told from seed noise" in " ".join(one.statements())
    assert "no single-task baseline" in " ".join(_report(good, bad).statements())
    nan = _method("mgda", (math.nan, 0.5), (40.0, 0.5), (40.0, 0.5))
    assert "not defined for mgda" in " ".join(_report(STL, nan, good, bad).statements())


def test_the_table_has_means_standard_errors_and_delta_m():
    values = [(42.0, 0.45), (44.0, 0.44), (43.0, 0.46)]
    report = _report(STL, _method("imgrad", *values), _method("ls", *values[::-1]))
    header, rows = report.table()
    assert header[:4] == ["method", "miou ↑", "abs_err ↓", "Δm ↓"]
    assert rows[1][1] == f"43.00 ±{np.std([42, 44, 43], ddof=1) / 3**0.5:.2f}"
    deltas = [-100 * ((m - 40) / 40 - (e - 0.5) / 0.5) / 2 for m, e in values]
    assert rows[1][3] == f"{np.mean(deltas):+.2f} ±{np.std(deltas, ddof=1) / 3**0.5:.2f}"
    assert rows[0][3] == ""
    assert rows[1][4] == rows[2][4] == "1.50"  # equal means: they share the rank
    assert "| imgrad | 43.00" in report.markdown()
    lines = list(csv.DictReader(report.csv().splitlines()))
    assert {line["method"] for line in lines} == {"stl", "imgrad", "ls"}
    found = [float(line["value"]) for line in lines if (line["method"], line["metric"]) == ("imgrad", "delta_m")]
    assert found == pytest.approx(deltas)


def test_a_baseline_of_zero_leaves_delta_m_out_and_says_so():
    results = {task: dict.fromkeys(metrics, 0.5) for task, metrics in SIGNS.items()}
    task, metric = next((task, metric) for task in SIGNS for metric in SIGNS[task])
    zero = {**results, task: {**results[task], metric: 0.0}}
    report = _report(MethodRuns("stl", {0: zero}, {0: 1.0}), MethodRuns("ls", {0: results}, {0: 1.0}))
    assert report.deltas() == {}
    assert any(f"{task}/{metric} of the baseline is 0" in sentence for sentence in report.statements())
    assert report.table()[1][1][0] == "ls"


def test_published_rows_are_quoted_beside_ones_own():
    table = published_table("nyuv2")
    own = MethodRuns("imgrad", {0: table.rows["IMGrad"].results}, {0: 1.0})
    report = ComparisonReport([own], table.higher_is_better, "nyuv2", table)
    _, rows = report.table()
    quoted = {row[0]: row for row in rows}
    assert quoted["published: Nash-MTL"][-3] == "-4.04"
    assert quoted["published: single task"][1] == "38.3"
    expected = delta_m(table.rows["IMGrad"].results, table.baselines, table.higher_is_better)
    assert quoted["imgrad"][-3] == f"{expected:+.2f}"
    assert "trained by others" in " ".join(report.statements())


def test_many_metrics_are_averaged_in_the_table_and_kept_in_the_csv():
    signs = {f"a{k}": {"f1": True} for k in range(40)}
    results = {0: {f"a{k}": {"f1": k / 40} for k in range(40)}}
    report = ComparisonReport([MethodRuns("ls", results, {0: 1.0})], signs, "faces")
    header, rows = report.table()
    assert header[1] == "mean f1 of 40 ↑"
    assert float(rows[0][1]) == pytest.approx(np.mean(np.arange(40) / 40))
    assert len(report.csv().splitlines()) == 41


def test_every_column_is_printed_however_narrow_the_terminal():
    report = _report(STL, _method("imgrad:measure=lm,update_every=2", (42.0, 0.45), (42.0, 0.44), (41.0, 0.46)))
    for width in (60, 200):
        console = Console(width=width, record=True, file=io.StringIO())
        report.print(console)
        text = console.export_text()
        assert "miou" in text
        assert "abs_err" in text
        assert "seconds" in text
        assert "…" not in text


# Methods


def test_method_strings():
    method = parse_method("imgrad:measure=lm,update_every=4,c=4e-1")
    assert (method.name, method.arguments) == ("imgrad", {"measure": "lm", "update_every": 4, "c": 0.4})
    assert parse_method("ls").name == "linear_scalarization"
    with pytest.raises(UnknownNameError, match="imgrad"):
        parse_method("imgrd")
    for text in ("imgrad:lm", "imgrad:c=", "imgrad:=1"):
        with pytest.raises(ArgumentError, match="KEY=VALUE"):
            parse_method(text)
    with pytest.raises(UnknownNameError, match="stl"):  # a method of comparisons, without arguments
        parse_method("stl:c=1")


# A comparison, for real


def _scene(seed):
    rng = np.random.default_rng(seed)
    label = np.repeat(rng.permutation(3), [10, 11, 11])[:, None].repeat(32, 1)
    return DenseSample(np.eye(3)[label], label, 1.0 + label, np.broadcast_to([0.0, 0.0, 1.0], (*label.shape, 3)))


@pytest.fixture(scope="module")
def small(tmp_path_factory):
    root = tmp_path_factory.mktemp("data") / "scenes"
    splits = {"train": [_scene(k) for k in range(8)], "val": [_scene(k) for k in range(50, 54)]}
    write_nyuv2(root, splits, classes=("floor", "wall", "thing"), meta={"simulated": True})
    config = load_config(preset_path("supervised", "nyuv2"))
    return dataclasses.replace(
        config,
        data=dataclasses.replace(config.data, root=root),
        model=dataclasses.replace(config.model, model="segnet", width=1 / 16),
        optimization=dataclasses.replace(config.optimization, epochs=2, batch_size=4, learning_rate=1e-2),
        reporting=dataclasses.replace(config.reporting, last_epochs=1, log_every=1, panel_images=1),
        device="cpu",
    )


HERE, QUIET = Launch(jobs=0), {"console": Console(quiet=True), "progress_bar": False}
METHODS = ["stl", "ls", "imgrad:measure=lm,update_every=2"]


@pytest.fixture(scope="module")
def compared(small, tmp_path_factory):
    folder = tmp_path_factory.mktemp("comparison")
    with pytest.MonkeyPatch.context() as patch:  # a run's own panel is not looked at here
        patch.setattr("mtrl_imgrad.experiments.supervised.run.draw_run_panel", lambda *arguments: None)
        return folder, compare(small, METHODS, [0, 1], folder, HERE, **QUIET)


def test_a_comparison_leaves_its_files_and_is_not_run_twice(compared, small):
    folder, report = compared
    names = {str(path.parent.relative_to(folder / "runs")) for path in folder.glob("runs/**/config.yaml")}
    stl = {f"stl/seed_{seed}/{task}" for task in ("segmentation", "depth", "normal") for seed in (0, 1)}
    others = {f"{name}/seed_{seed}" for name in ("ls", "imgrad-measure=lm,update_every=2") for seed in (0, 1)}
    assert names == stl | others
    for name in ("comparison.md", "comparison.csv", "delta_m.png", "panel.png"):
        assert (folder / name).stat().st_size > 100
    assert report.published is None  # the folder says that it is simulated
    assert "simulated" in report.setting
    times = {path: path.stat().st_mtime_ns for path in (folder / "runs").rglob("*") if path.is_file()}
    (folder / "runs" / "ls/seed_1" / "result.json").unlink()  # as if stopped before the end
    again = compare(small, METHODS, [0, 1], folder, HERE, **QUIET)
    assert [m.results for m in again.methods] == [m.results for m in report.methods]
    after = {path: path.stat().st_mtime_ns for path in times}
    assert {path.relative_to(folder / "runs").parts[:2] for path in times if after[path] != times[path]} <= {
        ("ls", "seed_1")
    }


def test_method_arguments_go_before_the_presets(compared):
    folder, _ = compared
    method = load_config(folder / "runs/imgrad-measure=lm,update_every=2/seed_0/config.yaml").resolved_method()
    assert method.combiner_kwargs == {"c": 0.8, "measure": "lm", "update_every": 2}  # c from the preset nyuv2


def test_other_settings_in_the_same_folder_are_refused_before_anything_runs(compared, small):
    folder, _ = compared
    other = dataclasses.replace(small, protocol="paper")
    with pytest.raises(ArgumentError, match="other settings"):
        compare(other, ["pcgrad", "ls"], [0], folder, HERE, **QUIET)
    assert not (folder / "runs" / "pcgrad").exists()
    with pytest.raises(ArgumentError, match="seeds"):
        compare(small, ["ls"], [0, 0], folder, HERE, **QUIET)


# Analyses


def test_analyse_draws_and_summarises(compared, tmp_path, capsys):
    folder, _ = compared
    assert main(["supervised", "analyse", str(folder), "--out", str(tmp_path / "drawn")]) == 0
    names = {"cos_theta.png", "imbalance.png", "pareto_failures.png", "progress.png"}
    assert {entry.name for entry in (tmp_path / "drawn").iterdir()} == names
    assert "imgrad" in capsys.readouterr().out
    runs = find_runs([folder])
    assert len(runs) == 4  # single-task runs have no imbalance
    log = read_run(folder / "runs/ls/seed_0")
    found = summarise(log)
    steps = log.steps
    assert math.isnan(found.correlation)  # of four steps none is stated
    assert found.pareto_failures == steps["pareto_failure"].mean()
    losses = {name: log.epochs[name] for name in log.epochs if name.startswith("train/loss/")}
    ratios = [values[-1] / values[0] for values in losses.values()]
    assert found.progress_gap == pytest.approx(max(ratios) - min(ratios))
    assert found.logged == 4  # every step of two epochs
    with pytest.raises(ArgumentError, match="no run of several tasks"):
        find_runs([folder / "runs/stl/seed_0/depth"])


def test_spearman_of_few_points_or_of_a_constant_is_not_stated():
    steps = np.arange(12.0)
    swapped = steps[[1, 0, *range(2, 12)]]
    assert spearman(steps, -steps) == -1
    assert spearman(steps, swapped) == pytest.approx(1 - 6 * 2 / (12 * (12**2 - 1)))  # the formula without ties
    assert math.isnan(spearman(steps[:9], steps[:9]))
    assert math.isnan(spearman(steps, np.ones(12)))


def test_numbers_from_a_single_value_are_not_drawn_as_certain(tmp_path):
    log = RunLog(
        "one",
        {name: np.array([2.0, 3.0]) for name in ("step", "imbalance", "cos_theta", "conflict_fraction")},
        {"epoch": np.array([0.0]), "train/loss/a": np.array([1.0]), "train/loss/b": np.array([2.0])},
    )
    assert math.isnan(summarise(log).progress_gap)  # every loss of the first epoch is 1 of itself
    figure = Figure()
    axis = figure.add_subplot()
    _draw_imbalance(axis, [log])
    figure.canvas.draw()
    assert axis.get_legend().get_texts()[0].get_text() == "one: 2 points, no correlation stated"
    boxes = [label.get_window_extent() for label in axis.get_xticklabels(which="both") if label.get_text()]
    assert len(boxes) == 4
    assert all(left.x1 < right.x0 for left, right in itertools.pairwise(boxes))
    whole = figure.add_subplot()
    whole.plot([1.0, 2.0], [0.0, 1.0])
    _count_axis(whole, "epoch")
    assert all(tick == int(tick) for tick in whole.get_xticks())


def test_one_seed_draws_no_error_bar(tmp_path, monkeypatch):
    drawn = []
    monkeypatch.setattr(Axes, "errorbar", lambda self, *args, xerr, **options: drawn.append(xerr))
    _draw_deltas({"ls": [1.0], "imgrad": [1.0, 3.0]}, "made up", tmp_path / "delta_m.png")
    assert sorted(drawn, key=bool) == [None, 1.0]


# The command line


def test_train_from_the_command_line(small, tmp_path, capsys):
    given = f"supervised --data nyuv2 --root {small.data.root} --run-dir {tmp_path / 'run'} --combiner cagrad"
    options = "--combiner-kwargs c=0.3 --model segnet --width 0.0625 --epochs 1 --device cpu --no-progress-bar"
    assert main([*given.split(), *options.split()]) == 0
    out = capsys.readouterr().out
    assert "CAGrad(c=0.3" in out
    assert "val, last" in out
    assert load_config(tmp_path / "run/config.yaml").optimization.learning_rate == 1e-4


def test_compare_and_make_data_from_the_command_line(tmp_path, capsys):
    root = tmp_path / "made"
    size = "--train 4 --val 2 --size 32 32 --colour rays"
    assert main(["supervised", "make-data", "primitives", "--root", str(root), *size.split()]) == 0
    given = f"supervised compare --data primitives --root {root} --simulate-counts 4 2 --simulate-size 32 32 --out"
    options = (
        "--methods ls imgrad:measure=dc --seeds 0 --epochs 1 --width 0.0625 --device cpu --jobs 0 --no-progress-bar"
    )
    assert main([*given.split(), str(tmp_path / "out"), *options.split()]) == 0
    assert "imgrad:measure=dc" in (tmp_path / "out/comparison.md").read_text()
    assert "no single-task baseline" in " ".join(capsys.readouterr().out.split())


def test_wrong_commands_are_one_line(tmp_path, capsys):
    for arguments, expected in (
        (["train"], "unknown command below supervised 'train'"),
        ([], "--data NAME"),
        (["--data", "nyuv3"], "nyuv2"),
        (["--data", "nyuv2"], "--root"),
        (["--resume", str(tmp_path)], "there is no config.yaml"),
    ):
        assert main(["supervised", *arguments]) == 2
        assert expected in capsys.readouterr().err


def test_a_method_that_cannot_be_made_is_told_before_the_first_run(small, tmp_path):
    for method, message in (("cotbal", "supervised cotbal makes them"), ("imgrad:d=3", "takes no argument 'd'")):
        with pytest.raises(ArgumentError, match=message):
            compare(small, ["ls", method], [0], tmp_path / "out", HERE, **QUIET)
    assert not (tmp_path / "out").exists()


def test_places_that_cannot_be_written_and_sizes_of_zero_are_told(small, tmp_path):
    (tmp_path / "file").touch()
    with pytest.raises(ArgumentError, match=r"run_dir .*file/run cannot be made.*another folder"):
        train(dataclasses.replace(small, run_dir=tmp_path / "file" / "run"), progress_bar=False)
    with pytest.raises(DatasetError, match=r"file/scenes: cannot be made.*another folder"):
        make_scenes("primitives", tmp_path / "file" / "scenes", counts={"train": 1}, progress_bar=False)
    with pytest.raises(ArgumentError, match="height and width must be positive, got 0 and 32"):
        make_scenes("primitives", tmp_path / "scenes", counts={"train": 1}, height=0, width=32, progress_bar=False)


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU")
def test_a_device_that_is_not_there_is_told(small):
    with pytest.raises(ArgumentError, match="device must be auto, cpu, cuda .* got 'cuda'"):
        make_trainer(dataclasses.replace(small, device="cuda"), load_splits(small.data, progress_bar=False))


def test_lines_of_the_page(tmp_path, monkeypatch, capsys):
    page = DOCS / "supervised.md"
    (code,) = re.findall(r"```python\n(.*?)```", page.read_text(encoding="utf-8"), flags=re.DOTALL)
    monkeypatch.chdir(tmp_path)
    exec(compile(code, page.name, "exec"), {})
    assert capsys.readouterr().out.splitlines()[-1].startswith("0 {'segmentation'")
