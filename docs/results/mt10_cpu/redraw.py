"""Draws this folder's two figures from its numbers: ``python docs/results/mt10_cpu/redraw.py``.

The run was made before runs added their last evaluation to ``evaluations.npz``; of that one the summary is kept, which
holds the number of successes of each task but no single episodes. So its returns are here the means of the tasks.
"""

import json
from pathlib import Path

import numpy as np

from mtrl_imgrad.evaluation import EvaluationHistory, EvaluationProtocol, SuccessReport
from mtrl_imgrad.evaluation.plots import plot_per_task_bars, plot_success_curve

FOLDER = Path(__file__).parent
STEPS = 953_350


def last_report() -> SuccessReport:
    """The evaluation at the end, from its summary."""
    summary = json.loads((FOLDER / "evaluation_after.json").read_text())
    n, tasks = summary["episodes_per_task"], summary["tasks"].values()
    hits = np.array([round(n * task["success_rate"]) for task in tasks])
    returns, lengths = (np.array([[task[name]] * n for task in tasks]) for name in ("mean_return", "mean_length"))
    protocol = EvaluationProtocol(deterministic=True, simulator="metaworld", env_seed=10_000, timesteps=STEPS)
    successes = np.arange(n) < hits[:, None]
    return SuccessReport(tuple(summary["tasks"]), successes, returns, lengths, protocol=protocol)


if __name__ == "__main__":
    history, last = EvaluationHistory.load(FOLDER / "evaluations.npz"), last_report()
    before = history.reports[0]
    history.append(STEPS, last)
    titles = {"env": "MT10", "combiner": "imgrad", "seed": 0}
    plot_success_curve(history, FOLDER / "success_curve.png", **titles)
    plot_per_task_bars(last, FOLDER / "success_per_task.png", before=before, **titles)
