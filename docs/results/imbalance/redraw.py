"""Draws this folder's figure and prints its tables, from its numbers: ``python docs/results/imbalance/redraw.py``.

``gather FOLDER`` first collects the numbers of finished comparisons: FOLDER/<dial>/comparison.csv.
"""

import csv
import sys
from collections import defaultdict
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from scipy import stats

from mtrl_imgrad.experiments.supervised.comparison import delta_m
from mtrl_imgrad.reporting.figures import BAND, INK, PALETTE, new_figure, plain_axes, save_figure

FOLDER = Path(__file__).parent
NUMBERS = FOLDER / "results.csv"
HIGHER = {
    "segmentation": {"miou": True, "pix_acc": True},
    "depth": {"abs_err": False, "rel_err": False},
    "normal": dict.fromkeys(("ang_mean", "ang_median"), False)
    | dict.fromkeys(("within_11_25", "within_22_5", "within_30"), True),
}
BASELINE = "stl"


def gather(folder: Path) -> None:
    """Write `NUMBERS`: the rows of all comparisons, with the dial in front."""
    rows = []
    for path in sorted(folder.glob("*/comparison.csv"), key=lambda path: float(path.parent.name)):
        with path.open() as file:
            rows += [(path.parent.name, *row) for row in csv.reader(file) if row[2] in HIGHER]
    with NUMBERS.open("w", newline="") as file:
        csv.writer(file).writerows([("dial", "method", "seed", "task", "metric", "value"), *rows])


def read() -> dict[tuple[str, float], list[dict[str, dict[str, float]]]]:
    """The metrics by method and dial, a dictionary a seed."""
    found: dict = defaultdict(lambda: defaultdict(lambda: defaultdict(dict)))
    with NUMBERS.open() as file:
        for row in csv.DictReader(file):
            place = found[row["method"], float(row["dial"])][int(row["seed"])]
            place[row["task"]][row["metric"]] = float(row["value"])
    return {
        key: [{task: dict(m) for task, m in runs[seed].items()} for seed in sorted(runs)] for key, runs in found.items()
    }


def interval(values: Sequence[float]) -> float:
    """Half the width of the mean's 95 % interval (Student's t over seeds)."""
    n = len(values)
    return float(stats.t.ppf(0.975, n - 1) * np.std(values, ddof=1) / np.sqrt(n)) if n > 1 else float("nan")


def main() -> None:
    """Print Delta-m of all tasks and of each, and draw the former."""
    runs = read()
    alone = runs.pop((BASELINE, 1.0))
    means = {
        task: {metric: float(np.mean([run[task][metric] for run in alone])) for metric in metrics}
        for task, metrics in HIGHER.items()
    }
    dials = sorted({dial for _, dial in runs})
    methods = list(dict.fromkeys(method for method, _ in runs))

    def deltas(method: str, dial: float, tasks: Sequence[str]) -> list[float]:
        signs = {task: HIGHER[task] for task in tasks}
        base = {task: means[task] for task in tasks}
        return [delta_m({task: run[task] for task in tasks}, base, signs) for run in runs[method, dial]]

    for tasks in (list(HIGHER), *([task] for task in HIGHER)):
        print(f"\n| {' + '.join(tasks)} | " + " | ".join(f"{dial:g}" for dial in dials) + " |")
        print("| :-- |" + " --: |" * len(dials))
        for method in methods:
            cells = [deltas(method, dial, tasks) for dial in dials]
            print(f"| {method} | " + " | ".join(f"{np.mean(c):+.1f} ±{interval(c):.1f}" for c in cells) + " |")

    figure = new_figure(11, 5.2)
    panels = figure.subplots(2, (len(methods) + 1) // 2, sharex=True, sharey=True, squeeze=False).ravel()
    curves = {method: [deltas(method, dial, list(HIGHER)) for dial in dials] for method in methods}
    for place, (axes, method) in enumerate(zip(panels, methods, strict=False)):
        for values in curves.values():
            axes.plot(dials, [np.mean(v) for v in values], color="#CCCCCC", linewidth=1)
        mean, half = (np.array([f(v) for v in curves[method]]) for f in (np.mean, interval))
        colour = PALETTE[place % len(PALETTE)]
        axes.fill_between(dials, mean - half, mean + half, color=colour, alpha=0.2, linewidth=0)
        axes.plot(dials, mean, color=colour, marker="o", markersize=4)
        axes.axhline(0, color=BAND, linewidth=0.8)
        axes.set_title(method, fontsize=10, color=INK)
        axes.set_xscale("log")
        plain_axes(axes, "y")
    for axes in panels[len(methods) :]:
        axes.set_visible(False)
    figure.supxlabel("dial: factor of the depth loss", fontsize=9)
    figure.supylabel("Δm in per cent against single-task networks, lower is better", fontsize=9)
    save_figure(figure, FOLDER / "dial.png")


if __name__ == "__main__":
    if sys.argv[1:2] == ["gather"]:
        gather(Path(sys.argv[2]))
    main()
