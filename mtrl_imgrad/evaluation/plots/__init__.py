"""Pictures of success rates: the curve of a training, the bars of an evaluation, methods over their seeds."""

from mtrl_imgrad.evaluation.plots.bars import plot_per_task_bars
from mtrl_imgrad.evaluation.plots.comparison import success_curves, task_curves
from mtrl_imgrad.evaluation.plots.curve import plot_success_curve

__all__ = ["plot_per_task_bars", "plot_success_curve", "success_curves", "task_curves"]
