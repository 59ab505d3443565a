"""Figures over training, from the logs of finished runs: task gradients, weights, Pareto failures, progress."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from functools import partial
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import LogLocator, NullLocator
from numpy.typing import NDArray

from mtrl_imgrad.combiners.diagnostics import UPHILL
from mtrl_imgrad.evaluation.plots.panels import STEPS, task_grid
from mtrl_imgrad.evaluation.plots.series import in_unit
from mtrl_imgrad.experiments.comparisons.records import RunRecord, by_method
from mtrl_imgrad.reporting.figures import line_style, new_figure, plain_axes

Floats = NDArray[np.float64]
NamedFigure = tuple[str, str, Callable[[], Figure | None]]
"""Name of the file, what it shows, and what draws it: None where the runs have no data for it."""
SIDES = ("critic", "actor")
BANDS_UP_TO = 4
"""Methods up to which curves have bands: more of them hide each other."""
BINS = 20
"""Parts of training that a curve has a point for."""
NAMED_TASKS = 12
"""Tasks up to which a heat map names its rows."""


def training_figures(records: Sequence[RunRecord]) -> Iterator[NamedFigure]:
    """Figures of what was logged while training, the critic's before the actor's.

    Args:
        records: finished runs of the same tasks.
    """
    for side in SIDES:
        grad = f"grad/{side}"
        yield (
            f"imbalance_{side}",
            f"Largest over smallest norm of the task gradients, {side}; median of each twentieth of training.",
            partial(_curves, records, f"{grad}/imbalance", "largest over smallest gradient norm", log=True),
        )
        yield (
            f"conflicts_{side}",
            f"Share of the pairs of tasks whose gradients have a negative cosine, {side}; median of each twentieth.",
            partial(_curves, records, f"{grad}/conflict_fraction", "share of pairs in conflict"),
        )
        yield (
            f"cosines_{side}",
            f"Mean cosine between the task gradients in each quarter of training, {side}, all seeds.",
            partial(_heat_maps, records, side),
        )
        yield (
            f"pareto_failures_{side}",
            f"Pareto failures: share of the logged updates that go uphill for some task, {side}; to first order, and "
            "before the optimizer's own scales.",
            partial(_curves, records, f"{grad}/pareto_failure", "share of Pareto failures", mean=True),
        )
        yield (
            f"failures_by_task_{side}",
            f"Share of the logged updates that go uphill for each task, {side}.",
            partial(_by_task, records, (f"{grad}/direction_cosine/",), "share uphill", _uphill, share=True),
        )
        yield (
            f"weights_{side}",
            f"Weight of each task, {side}; mean of each twentieth of training, all seeds.",
            partial(_by_task, records, (f"combiner/{side}/weight/",), f"weight, {side}", np.mean),
        )
    yield (
        "progress",
        "Individual progress: each task's critic loss over that of the first twentieth of training. A loss grows where "
        "returns do, so above 1 is no failure; far apart is unbalanced.",
        partial(
            _by_task,
            records,
            ("train/critic_loss/", "train/value_loss/"),
            "loss / first",
            np.mean,
            relative=True,
            log=True,
        ),
    )


def _logged(runs: Sequence[RunRecord], column: str) -> tuple[Floats, Floats]:
    """Steps and values of a column, of all runs that have it."""
    runs = [run for run in runs if column in run.data["logs"]]
    steps = [step for run in runs for step in run.data["logs"]["timesteps"]]
    values = [value for run in runs for value in run.data["logs"][column]]
    return np.array(steps, dtype=np.float64), np.array(values, dtype=np.float64)


def _in_parts(steps: Floats, values: Floats, last: float) -> list[Floats]:
    """The finite values in each part of training."""
    place = np.minimum((steps / last * BINS).astype(int), BINS - 1)
    return [values[(place == part) & np.isfinite(values)] for part in range(BINS)]


def _last(records: Sequence[RunRecord]) -> float:
    return float(max(record.data["timesteps"] for record in records))


def _centres(parts: Sequence[Floats], last: float) -> Floats:
    return np.array([(b + 0.5) / BINS * last for b in range(BINS) if len(parts[b])])


def _curves(
    records: Sequence[RunRecord], column: str, label: str, *, log: bool = False, mean: bool = False
) -> Figure | None:
    """A logged number of each method: median and middle half of each part of training over all seeds, or its mean."""
    last = _last(records)
    scale, unit = in_unit(int(last))
    figure = new_figure(7.6, 3.6)
    axes = figure.add_subplot()
    methods = by_method(records)
    for i, (method, runs) in enumerate(methods.items()):
        parts = _in_parts(*_logged(runs, column), last)
        held = [part for part in parts if len(part)]
        if not held:
            continue  # a method that does without task gradients
        centres, style = _centres(parts, last) / scale, line_style(i)
        low, middle, high = np.array([np.quantile(part, [0.25, 0.5, 0.75]) for part in held]).T
        axes.plot(centres, [part.mean() for part in held] if mean else middle, label=method, linewidth=1.6, **style)
        if not mean and len(methods) <= BANDS_UP_TO:
            axes.fill_between(centres, low, high, color=style["color"], alpha=0.15, linewidth=0)
    if not axes.lines:
        return None
    _plain_log(axes) if log else axes.set_ylim(-0.02, 1.02)
    axes.set_xlabel(f"{STEPS}{unit}")
    axes.set_ylabel(label)
    figure.legend(loc="outside right upper", frameon=False, fontsize=8)
    plain_axes(axes, "y")
    return figure


def _plain_log(axes: Axes) -> None:
    """Logarithmic, with plain numbers at the ticks, closer ones where there are few decades."""
    axes.set_yscale("log")
    low, high = axes.get_ylim()
    axes.yaxis.set_major_locator(LogLocator(subs=(1, 2, 3, 5, 7) if high < 30 * low else (1,)))
    axes.yaxis.set_major_formatter(lambda value, place: f"{value:g}")
    axes.yaxis.set_minor_locator(NullLocator())


def _by_task(
    records: Sequence[RunRecord],
    prefixes: Sequence[str],
    label: str,
    reduce: Callable[[Floats], Any],
    *,
    relative: bool = False,
    log: bool = False,
    share: bool = False,
) -> Figure | None:
    """A panel a task, a line a method: a number for each part of training, of all seeds; relative to its first."""
    tasks, last = records[0].tasks, _last(records)
    scale, unit = in_unit(int(last))
    figure, panels = task_grid(tasks, share_y=False)
    lines: dict[str, Any] = {}
    for axes, task in zip(panels, tasks, strict=True):
        for i, (method, runs) in enumerate(by_method(records).items()):
            logs = [_logged(runs, prefix + task) for prefix in prefixes]
            steps, values = (np.concatenate(found) for found in zip(*logs, strict=True))
            parts = _in_parts(steps, values, last)
            numbers = np.array([reduce(part) for part in parts if len(part)])
            if len(numbers):
                numbers = numbers / numbers[0] if relative else numbers
                lines[method] = axes.plot(_centres(parts, last) / scale, numbers, linewidth=1.2, **line_style(i))[0]
        if log:
            axes.set_yscale("log")
    if not lines:
        return None
    ends = np.array([axes.get_ylim() for axes in panels])
    times = np.array([axes.get_xlim() for axes in panels if axes.lines])
    for axes in panels:  # tasks are to be compared
        axes.set_xlim(times[:, 0].min(), times[:, 1].max())
        axes.set_ylim((-0.04, 1.04) if share else (ends[:, 0].min(), ends[:, 1].max()))
        if log:
            _plain_log(axes)
    figure.supxlabel(f"{STEPS}{unit}", fontsize=9)
    figure.supylabel(label, fontsize=9)
    drawn, columns = list(lines.values()), min(len(lines), 4)
    figure.legend(drawn, list(lines), loc="outside upper right", ncols=columns, frameon=False, fontsize=9)
    return figure


def _uphill(cosines: Floats) -> float:
    return float((cosines < -UPHILL).mean())


def _heat_maps(records: Sequence[RunRecord], side: str) -> Figure | None:
    """A row a method, a column a part of training: the cosines ``[K, K]``, mean over seeds."""
    methods = {}
    for method, runs in by_method(records).items():
        matrices = [run.data.get("cosines", {}).get(side) for run in runs]
        if kept := [one for one in matrices if one is not None]:
            methods[method] = kept
    if not methods:
        return None
    tasks, parts = records[0].tasks, len(next(iter(methods.values()))[0])
    figure = new_figure(1.75 * parts + 1.6, 1.75 * len(methods) + 1.3)
    grid = figure.subplots(len(methods), parts, squeeze=False)
    image = None
    for part, axes in enumerate(grid[0]):
        axes.set_title(f"{part / parts:.0%} to {(part + 1) / parts:.0%}", fontsize=8)
    for row, (method, kept) in zip(grid, methods.items(), strict=True):
        for part, axes in enumerate(row):
            held = [np.array(one[part], dtype=np.float64) for one in kept if one[part] is not None]
            axes.set_xticks([])
            axes.set_yticks([])
            if held:
                image = axes.imshow(np.mean(held, axis=0), cmap="RdBu", vmin=-1, vmax=1)
        if len(tasks) <= NAMED_TASKS:
            row[0].set_yticks(range(len(tasks)), tasks, fontsize=5)
        row[0].set_ylabel(method, fontsize=8)
    bar = figure.colorbar(image, ax=grid, location="bottom", shrink=0.4, aspect=30, label="cosine")  # type: ignore[arg-type]
    bar.outline.set_visible(False)
    return figure
