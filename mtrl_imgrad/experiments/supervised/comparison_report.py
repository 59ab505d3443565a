"""Results of several methods side by side: tables, a picture, and what the seeds allow to say."""

from __future__ import annotations

import csv
import io
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from rich.console import Console

from mtrl_imgrad.experiments.supervised.comparison import Results, Signs, delta_m, mean_rank
from mtrl_imgrad.experiments.supervised.published import PublishedTable
from mtrl_imgrad.reporting.atomic_files import make_folder, write_text
from mtrl_imgrad.reporting.figures import BAND, INK, new_figure, plain_axes, save_figure
from mtrl_imgrad.reporting.tables import markdown_rows, plain_table

STL = "stl"
_MAX_COLUMNS = 12
MIN_SEEDS = 3
"""Seeds below which no difference is claimed: the spread of two values says next to nothing."""


@dataclass(frozen=True)
class MethodRuns:
    """A method's results, by seed.

    Attributes:
        label: the method as the user wrote it.
        results: ``{seed: {task: {metric: value}}}``.
        seconds: training time by seed.
    """

    label: str
    results: Mapping[int, Results]
    seconds: Mapping[int, float]

    def mean(self) -> dict[str, dict[str, float]]:
        """Means over the seeds."""
        first = next(iter(self.results.values()))
        return {
            task: {metric: float(np.mean(self.values(task, metric))) for metric in metrics}
            for task, metrics in first.items()
        }

    def values(self, task: str, metric: str) -> list[float]:
        """One metric, seed by seed."""
        return [result[task][metric] for result in self.results.values()]


@dataclass(frozen=True)
class ComparisonReport:
    """Methods by seeds on one data set.

    Δm is relative to ``stl`` if it is among the methods (its mean over the seeds), else to the published single-task
    networks, if there are any. Errors are standard errors of the mean over the seeds, of the methods alone: the
    baseline is the same for all of them.

    Attributes:
        methods: in the order of the table.
        higher_is_better: for every metric.
        setting: data, network and training in words.
        published: results of papers to quote, or None.
    """

    methods: Sequence[MethodRuns]
    higher_is_better: Signs
    setting: str
    published: PublishedTable | None = None

    @property
    def baselines(self) -> Results | None:
        """The baselines of Δm."""
        for method in self.methods:
            if method.label == STL:
                return method.mean()
        return None if self.published is None else self.published.baselines

    def deltas(self) -> dict[str, list[float]]:
        """Δm in per cent (negative is better), by method and seed; empty where the baseline is missing or holds a 0."""
        if self.baselines is None or self._zeros():
            return {}
        return {
            method.label: [delta_m(run, self.baselines, self.higher_is_better) for run in method.results.values()]
            for method in self.methods
            if method.label != STL
        }

    def _zeros(self) -> list[str]:
        """Metrics of the baseline that are 0, so that nothing can be relative to them."""
        baselines = self.baselines or {}
        return [f"{task}/{name}" for task, metrics in baselines.items() for name, v in metrics.items() if v == 0]

    def statements(self) -> list[str]:
        """Sentences on Δm that the seeds support, and on the baseline."""
        deltas = self.deltas()
        if self.baselines is None:
            return ["No Δm: there is no single-task baseline; add the method stl."]
        if zeros := self._zeros():
            return [f"No Δm: {', '.join(zeros)} of the baseline is 0, and Δm divides by it. Train longer."]
        own = any(method.label == STL for method in self.methods)
        source = "this table's stl" if own else "the published single-task networks, which were trained by others"
        said = [f"Δm in per cent against {source}; negative is better; ± is the standard error over seeds."]
        usable = {label: values for label, values in deltas.items() if np.isfinite(values).all()}
        if dropped := sorted(set(deltas) - set(usable)):
            said.append(f"Δm is not defined for {', '.join(dropped)}: a metric is NaN.")
        return said + _ranking(usable)

    def table(self) -> tuple[list[str], list[list[str]]]:
        """Header and rows as text, published rows last."""
        columns = self._columns()
        deltas, ranks = self.deltas(), self._ranks()
        arrows = {column: " ↑" if higher else " ↓" for column, (higher, _) in columns.items()}
        header = ["method", *(column + arrows[column] for column in columns), "Δm ↓", "mean rank ↓", "seconds"]
        rows = []
        for method in self.methods:
            cells = [
                _mean_and_error(
                    [float(np.mean([result[t][m] for t, m in places])) for result in method.results.values()]
                )
                for _, places in columns.values()
            ]
            delta = _mean_and_error(deltas[method.label], signed=True) if method.label in deltas else ""
            rank = f"{ranks[method.label]:.2f}" if method.label in ranks else ""
            rows.append([method.label, *cells, delta, rank, f"{np.mean(list(method.seconds.values())):.0f}"])
        return header, rows + self._published_rows(columns)

    def markdown(self) -> str:
        """The table with its setting and statements."""
        said = "\n".join(f"* {sentence}" for sentence in self.statements())
        return f"{self._title()}\n\n{markdown_rows(*self.table())}\n\n{said}\n"

    def csv(self) -> str:
        """``method,seed,task,metric,value`` for every run; Δm has the task ``all``."""
        file = io.StringIO()
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(["method", "seed", "task", "metric", "value"])
        deltas = self.deltas()
        for method in self.methods:
            for i, (seed, result) in enumerate(method.results.items()):
                for task, metrics in result.items():
                    writer.writerows([method.label, seed, task, name, repr(v)] for name, v in metrics.items())
                if method.label in deltas:
                    writer.writerow([method.label, seed, "all", "delta_m", repr(deltas[method.label][i])])
        return file.getvalue()

    def print(self, console: Console) -> None:
        """The table and the statements, for the terminal; columns that do not fit go to a table below."""
        header, rows = self.table()
        console.print(self._title(), style="bold")
        sizes = [max(len(row[i]) for row in (header, *rows)) for i in range(len(header))]
        for columns in _that_fit(sizes, console.width):
            table = plain_table([header[i] for i in columns], edge=True)
            for place, row in enumerate(rows):
                if place == len(self.methods):
                    table.add_section()
                table.add_row(*(row[i] for i in columns), style="dim" if place >= len(self.methods) else None)
            console.print(table)
        for sentence in self.statements():
            console.print(f"  {sentence}")

    def save(self, folder: Path) -> None:
        """Write ``comparison.md``, ``comparison.csv`` and, where Δm is defined, ``delta_m.png``."""
        make_folder("folder", folder)
        write_text(folder / "comparison.md", self.markdown())
        write_text(folder / "comparison.csv", self.csv())
        if deltas := self.deltas():
            _draw_deltas(deltas, self._title(), folder / "delta_m.png")

    def _title(self) -> str:
        counts = {len(method.results) for method in self.methods}
        number = counts.pop()
        return f"{self.setting}; {number} seed{'s' if number > 1 else ''}"

    def _columns(self) -> dict[str, tuple[bool, list[tuple[str, str]]]]:
        """By heading: whether higher is better, and the metrics that are averaged in the column."""
        places = [(task, metric) for task, metrics in self.higher_is_better.items() for metric in metrics]
        if len(places) <= _MAX_COLUMNS:
            return {metric: (self.higher_is_better[task][metric], [(task, metric)]) for task, metric in places}
        groups: dict[str, tuple[bool, list[tuple[str, str]]]] = {}
        for task, metric in places:
            groups.setdefault(metric, (self.higher_is_better[task][metric], []))[1].append((task, metric))
        return {f"mean {metric} of {len(group)}": (higher, group) for metric, (higher, group) in groups.items()}

    def _ranks(self) -> dict[str, float]:
        """Mean rank among the multi-task methods, by the means over seeds; none where a metric is NaN."""
        rows = {method.label: method.mean() for method in self.methods if method.label != STL}
        finite = all(math.isfinite(v) for row in rows.values() for task in row.values() for v in task.values())
        return mean_rank(rows, self.higher_is_better) if len(rows) > 1 and finite else {}

    def _published_rows(self, columns: Mapping[str, tuple[bool, list[tuple[str, str]]]]) -> list[list[str]]:
        if self.published is None:
            return []
        quoted: list[tuple[str, Results, float | None]] = [("single task", self.published.baselines, None)]
        quoted += [(name, row.results, row.delta_m) for name, row in self.published.rows.items()]
        rows = []
        for name, results, delta in quoted:
            cells = [
                f"{np.mean([results[t][m] for t, m in places]):.4g}" if results else ""
                for _, places in columns.values()
            ]
            rows.append([f"published: {name}", *cells, "" if delta is None else f"{delta:+.2f}", "", ""])
        return rows


def difference_is_noise(first: Sequence[float], second: Sequence[float]) -> bool | None:
    """Whether the 95 % interval of the mean difference of two methods holds 0; None with fewer than `MIN_SEEDS`.

    Differences are taken seed by seed (Student's t): the same seed gives both methods the same order of images and, but
    for single-task networks, the same first weights.

    Args:
        first: a number for each seed.
        second: of the other method, for the same seeds in the same order.
    """
    differences = np.subtract(first, second)
    if len(differences) < MIN_SEEDS:
        return None
    from scipy.stats import t  # a quarter of a second, for a comparison of finished runs

    half = t.ppf(0.975, len(differences) - 1) * _standard_error(differences)
    return bool(abs(differences.mean()) <= half)


def _standard_error(values: Sequence[float] | NDArray[np.float64]) -> float:
    return float(np.std(values, ddof=1)) / math.sqrt(np.size(values))


def _that_fit(sizes: Sequence[int], width: int) -> list[list[int]]:
    """Columns of each table: the first and as many others as a line holds."""
    tables: list[list[int]] = []
    used = width + 1
    for i, size in enumerate(sizes[1:], start=1):
        if used + size + 2 > width:
            tables.append([0])
            used = sizes[0] + 3  # the edges of the table, and a space behind
        tables[-1].append(i)
        used += size + 2
    return tables


def _ranking(deltas: Mapping[str, Sequence[float]]) -> list[str]:
    if len(deltas) < 2:
        return []
    best, *others = sorted(deltas, key=lambda label: float(np.mean(deltas[label])))
    noise = {label: difference_is_noise(deltas[best], deltas[label]) for label in others}
    said = [f"Lowest Δm: {best}, {_mean_and_error(deltas[best], signed=True)}."]
    if None in noise.values():
        few = f"Fewer than {MIN_SEEDS} seeds a method: no difference in this table can be told from seed noise."
        return [*said, few]
    within = [label for label in others if noise[label]]
    beyond = [label for label in others if not noise[label]]
    if within:
        said.append(f"Within seed noise of it: {', '.join(within)}: no order among them can be claimed.")
    if beyond:
        said.append(f"Worse than it beyond seed noise: {', '.join(beyond)}.")
    rule = "Seed noise: the 95 % interval of the mean difference, seed by seed (Student's t), holds 0. "
    return [*said, rule + "The best was picked afterwards, and nothing is corrected for the number of comparisons."]


def _mean_and_error(values: Sequence[float], signed: bool = False) -> str:
    mean = float(np.mean(values))
    digits = 2 if signed or abs(mean) >= 10 else 4
    shown = f"{mean:+.{digits}f}" if signed else f"{mean:.{digits}f}"
    if len(values) < 2:
        return shown
    return f"{shown} ±{_standard_error(values):.{digits}f}"


def _draw_deltas(deltas: Mapping[str, Sequence[float]], title: str, path: Path) -> None:
    """A point for each seed, the mean with its standard error, best on top."""
    order = sorted(deltas, key=lambda label: float(np.mean(deltas[label])), reverse=True)
    figure = new_figure(7.5, 1.8 + 0.38 * len(order))
    axes = figure.add_subplot()
    for place, label in enumerate(order):
        values = np.asarray(deltas[label])
        axes.plot(values, [place] * len(values), "o", color=BAND, markersize=5)
        error = _standard_error(values) if len(values) > 1 else None  # no bar, not a bar of 0
        axes.errorbar(values.mean(), place, xerr=error, fmt="|", color=INK, capsize=3, markersize=12)
    axes.axvline(0, color="#888888", linewidth=0.8)
    axes.set_yticks(range(len(order)), order, fontsize=9)
    axes.set_ylim(-0.6, len(order) - 0.4)
    axes.set_xlabel("Δm in %, negative is better; points are seeds, bars standard errors")
    plain_axes(axes)
    axes.set_title(title.replace("; ", "\n"), fontsize=7.5, loc="left")
    save_figure(figure, path)
