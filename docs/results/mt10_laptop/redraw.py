"""Draws this folder's figures from its numbers: ``python docs/results/mt10_laptop/redraw.py``."""

from pathlib import Path

from mtrl_imgrad.evaluation import EvaluationHistory
from mtrl_imgrad.evaluation.plots import plot_per_task_bars, plot_success_curve

FOLDER = Path(__file__).parent

if __name__ == "__main__":
    history = EvaluationHistory.load(FOLDER / "evaluations")
    titles = {"env": "MT10", "combiner": "imgrad", "seed": 1}
    plot_success_curve(history, FOLDER / "success_curve.png", **titles)
    plot_per_task_bars(history.reports[-1], FOLDER / "success_per_task.png", before=history.reports[0], **titles)
