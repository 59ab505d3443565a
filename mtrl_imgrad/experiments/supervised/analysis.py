"""IMGrad's appendix from finished runs: imbalance, cos theta, Pareto failures, and the progress of each task.

Zhou, Liu, Zhao, Gong, "Injecting Imbalance Sensitivity for Multi-Task Learning", IJCAI 2025, arXiv 2503.08006.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.ticker import MaxNLocator
from numpy.typing import NDArray
from rich.console import Console
from scipy.stats import spearmanr

from mtrl_imgrad.combiners.method_strings import format_method
from mtrl_imgrad.errors import ArgumentError
from mtrl_imgrad.experiments.supervised.config import load_config
from mtrl_imgrad.experiments.supervised.history import read_rows
from mtrl_imgrad.reporting.atomic_files import make_folder
from mtrl_imgrad.reporting.figures import line_style, new_figure, plain_axes, save_figure
from mtrl_imgrad.reporting.tables import plain_table

Floats = NDArray[np.float64]
MIN_POINTS = 10
"""Logged steps below which no correlation is stated: of fewer independent points, 5 % reach a Spearman above .65."""
_MEASURES = {"cos_theta": "PM, cos θ", "lm": "LM", "dc": "DC"}


@dataclass(frozen=True)
class RunLog:
    """The logs of a run.

    Attributes:
        label: method, arguments and seed.
        steps: columns of ``diagnostics.csv``, by name.
        epochs: columns of ``epochs.csv``, by name.
    """

    label: str
    steps: Mapping[str, Floats]
    epochs: Mapping[str, Floats]

    def progress(self) -> dict[str, Floats]:
        """By task: mean training loss of each epoch over that of the first (GradNorm's r_i before its mean)."""
        losses = {name.removeprefix("train/loss/"): v for name, v in self.epochs.items() if "train/loss/" in name}
        return {task: values / values[0] for task, values in losses.items()}


@dataclass(frozen=True)
class Summary:
    """A run in a few numbers.

    Attributes:
        logged: steps in the diagnostics.
        cos_theta: mean.
        imbalance: median of largest over smallest gradient norm.
        correlation: Spearman's, of imbalance with cos theta; NaN for fewer than `MIN_POINTS` steps.
        conflict: mean share of task pairs with a negative cosine.
        pareto_failures: share of steps whose update goes uphill for a task; NaN for a method without weights.
        progress_gap: largest less smallest individual progress in the last epoch; NaN after a single one.
    """

    logged: int
    cos_theta: float
    imbalance: float
    correlation: float
    conflict: float
    pareto_failures: float
    progress_gap: float


def find_runs(folders: Sequence[Path]) -> list[Path]:
    """Run folders among those given and in the ``runs`` folder of comparisons; single-task runs are left out.

    Raises:
        ArgumentError: if a folder holds no run of several tasks.
    """
    run_dirs = []
    for folder in folders:
        inside = sorted((folder / "runs").rglob("diagnostics.csv"))
        here = [folder / "diagnostics.csv"] if (folder / "diagnostics.csv").exists() else inside
        runs = [path.parent for path in here if len(load_config(path.parent / "config.yaml").data.tasks) != 1]
        if not runs:
            raise ArgumentError(f"{folder} holds no run of several tasks with diagnostics.csv")
        run_dirs += runs
    return run_dirs


def read_run(folder: Path) -> RunLog:
    """Read what a run logged.

    Raises:
        CheckpointError: if a file is missing or damaged.
        ArgumentError: if nothing was logged (``log_every`` 0).
    """
    config = load_config(folder / "config.yaml")
    method = config.resolved_method()
    steps, epochs = (read_rows(folder / name) for name in ("diagnostics.csv", "epochs.csv"))
    if not steps or not epochs:
        raise ArgumentError(f"{folder}: nothing was logged; train with log_every of 1 or more")
    label = f"{format_method(method.combiner, method.combiner_kwargs)} seed {config.seed}"
    return RunLog(label, _columns(steps), _columns(epochs))


def summarise(log: RunLog) -> Summary:
    """The numbers of a run."""
    steps = log.steps
    last = [float(values[-1]) for values in log.progress().values()]
    failures = steps.get("pareto_failure")
    return Summary(
        logged=len(steps["step"]),
        cos_theta=float(steps["cos_theta"].mean()),
        imbalance=float(np.median(steps["imbalance"])),
        correlation=spearman(steps["imbalance"], steps["cos_theta"]),
        conflict=float(steps["conflict_fraction"].mean()),
        pareto_failures=float("nan") if failures is None else float(np.nanmean(failures)),
        progress_gap=max(last) - min(last) if len(log.epochs["epoch"]) > 1 else float("nan"),
    )


def spearman(first: Floats, second: Floats) -> float:
    """Spearman's rank correlation; NaN for fewer than `MIN_POINTS` points, or where one of the two does not vary."""
    if len(first) < MIN_POINTS or min(np.ptp(first), np.ptp(second)) == 0:
        return float("nan")
    return float(spearmanr(first, second).statistic)


def analyse(folders: Sequence[Path], out: Path, console: Console | None = None) -> dict[str, Summary]:
    """Print a table of the runs and draw them.

    Draws ``cos_theta.png`` (the measures PM, LM, DC over training), ``imbalance.png`` (imbalance ratio against cos
    theta), ``pareto_failures.png`` (their running share) and ``progress.png`` (L_i(t) / L_i(0) of every task).

    Args:
        folders: run folders, or folders of comparisons.
        out: where the pictures go.
        console: where to print.

    Returns:
        Summaries by label.
    """
    if not folders:
        raise ArgumentError("runs must be one folder or more, got none")
    out = out.expanduser()
    logs = [read_run(folder) for folder in find_runs([folder.expanduser() for folder in folders])]
    summaries = {log.label: summarise(log) for log in logs}
    make_folder("out", out)
    _draw(out / "cos_theta.png", len(_MEASURES), lambda axes: _draw_measures(axes, logs))
    _draw(out / "imbalance.png", 1, lambda axes: _draw_imbalance(axes[0], logs))
    _draw(out / "pareto_failures.png", 1, lambda axes: _draw_failures(axes[0], logs))
    _draw(out / "progress.png", len(logs), lambda axes: _draw_progress(axes, logs))
    console = console or Console(file=sys.stdout, highlight=False)
    _print(summaries, console)
    console.print(f"Drawn to {out}: cos_theta.png, imbalance.png, pareto_failures.png, progress.png", soft_wrap=True)
    return summaries


def _columns(rows: Sequence[Mapping[str, float]]) -> dict[str, Floats]:
    return {name: np.array([row[name] for row in rows]) for name in rows[0]}


def _draw(path: Path, panels: int, fill: Callable[[list[Axes]], None]) -> None:
    columns = min(panels, 3)
    rows = -(-panels // columns)
    figure = new_figure(max(6.4, 4.4 * columns), 3.4 * rows)
    axes = list(figure.subplots(rows, columns, squeeze=False).flat)
    fill(axes)
    for axis in axes:
        plain_axes(axis)
        axis.tick_params(labelsize=8)
    for axis in axes[panels:]:
        axis.set_visible(False)
    save_figure(figure, path)


def _draw_measures(axes: Sequence[Axes], logs: Sequence[RunLog]) -> None:
    for axis, (name, title) in zip(axes, _MEASURES.items(), strict=True):
        for log, style in _styled(logs):
            axis.plot(log.steps["step"], _smooth(log.steps[name]), **style)
        axis.set_title(f"{title}, running mean", fontsize=9, loc="left")
        _count_axis(axis, "step")
        axis.set_ylim(0, 1.02)
    axes[0].legend(fontsize=6, frameon=False)


def _draw_imbalance(axis: Axes, logs: Sequence[RunLog]) -> None:
    for log, style in _styled(logs):
        rho = spearman(log.steps["imbalance"], log.steps["cos_theta"])
        count = len(log.steps["step"])
        stated = (
            f"Spearman {rho:.2f}" if np.isfinite(rho) else f"{count} point{'s' * (count > 1)}, no correlation stated"
        )
        axis.scatter(
            log.steps["imbalance"],
            log.steps["cos_theta"],
            s=6,
            alpha=0.6,
            color=style["color"],
            label=f"{style['label']}: {stated}",
        )
    axis.set_xscale("log")
    _few_log_ticks(axis, np.concatenate([log.steps["imbalance"] for log in logs]))
    axis.set_xlabel("imbalance ratio, largest over smallest gradient norm", fontsize=8)
    axis.set_ylabel("cos θ", fontsize=8)
    axis.legend(fontsize=6, frameon=False)


def _few_log_ticks(axis: Axes, values: Floats) -> None:
    """Four labelled ticks: matplotlib's own overlap where the values span less than a decade."""
    values = values[np.isfinite(values)]
    if not len(values):
        return
    ticks = sorted({float(f"{tick:.2g}") for tick in np.geomspace(values.min(), values.max(), 4)})
    axis.set_xticks(ticks, [f"{tick:g}" for tick in ticks])
    axis.set_xticks([], minor=True)


def _count_axis(axis: Axes, name: str) -> None:
    """An axis of whole numbers: no ticks at half a step or epoch."""
    axis.set_xlabel(name, fontsize=8)
    axis.xaxis.set_major_locator(MaxNLocator(nbins=6, integer=True, min_n_ticks=1))


def _draw_failures(axis: Axes, logs: Sequence[RunLog]) -> None:
    for log, style in _styled(logs):
        if "pareto_failure" in log.steps:
            counts = np.arange(1, len(log.steps["step"]) + 1)
            axis.plot(log.steps["step"], np.nancumsum(log.steps["pareto_failure"]) / counts, **style)
    _count_axis(axis, "step")
    axis.set_ylabel("share of logged steps so far whose\nupdate goes uphill for a task", fontsize=8)
    axis.set_ylim(-0.02, 1.02)
    if axis.lines:
        axis.legend(fontsize=6, frameon=False)


def _draw_progress(axes: Sequence[Axes], logs: Sequence[RunLog]) -> None:
    for axis, log in zip(axes, logs, strict=False):
        progress = log.progress()
        for k, (task, values) in enumerate(progress.items()):
            label = task if len(progress) <= 8 else None
            marker = "o" if len(values) == 1 else None  # a line needs two epochs
            axis.plot(log.epochs["epoch"] + 1, values, **line_style(k), linewidth=1.2, marker=marker, label=label)
        axis.set_title(log.label, fontsize=7, loc="left")
        _count_axis(axis, "epoch")
        axis.set_ylabel("loss / first epoch's", fontsize=8)
    if axes[0].get_legend_handles_labels()[1]:
        axes[0].legend(fontsize=7, frameon=False)


def _styled(logs: Sequence[RunLog]) -> list[tuple[RunLog, dict[str, Any]]]:
    return [(log, {**line_style(i), "linewidth": 1.2, "label": log.label}) for i, log in enumerate(logs)]


def _smooth(values: Floats, window: int = 15) -> Floats:
    """Mean of the last few values."""
    sums = np.concatenate([[0.0], np.cumsum(values)])
    ends = np.arange(1, len(values) + 1)
    starts = np.maximum(ends - window, 0)
    return (sums[ends] - sums[starts]) / (ends - starts)


def _print(summaries: Mapping[str, Summary], console: Console) -> None:
    table = plain_table(edge=True)
    table.add_column("run", overflow="fold")
    for name in ("steps", "cos θ", "imba-\nlance", "Spear-\nman", "con-\nflicts", "Pareto\nfailures", "progress\ngap"):
        table.add_column(name, justify="right", no_wrap=True)
    for label, summary in summaries.items():
        table.add_row(
            label,
            str(summary.logged),
            f"{summary.cos_theta:.3f}",
            f"{summary.imbalance:.1f}",
            _or_dash(summary.correlation, "+.2f"),
            f"{summary.conflict:.0%}",
            _or_dash(summary.pareto_failures, ".1%"),
            _or_dash(summary.progress_gap, ".3f"),
        )
    console.print(table)
    if any(summary.logged < MIN_POINTS for summary in summaries.values()):
        console.print(f"No correlation is stated for fewer than {MIN_POINTS} logged steps; lower --log-every for more.")


def _or_dash(value: float, form: str) -> str:
    return "-" if np.isnan(value) else format(value, form)
