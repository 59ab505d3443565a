"""Success by task, its statistics, tables and plots."""

from mtrl_imgrad.extras import require

require("mtrl_imgrad.evaluation", "gymnasium", "stable_baselines3", "rich", "matplotlib")

from mtrl_imgrad.evaluation.history import EvaluationHistory
from mtrl_imgrad.evaluation.method_statistics import (
    paired_difference,
    performance_profile,
    probability_of_improvement,
    seeds_needed,
    worst_tasks,
)
from mtrl_imgrad.evaluation.protocol import EvaluationProtocol
from mtrl_imgrad.evaluation.report import SuccessReport
from mtrl_imgrad.evaluation.statistics import (
    Aggregate,
    Interval,
    aggregate_runs,
    interquartile_mean,
    stratified_bootstrap,
    success_interval,
    wilson_interval,
)
from mtrl_imgrad.evaluation.success import evaluate_success
from mtrl_imgrad.evaluation.tables import markdown_table, print_success, success_table

__all__ = [
    "Aggregate",
    "EvaluationHistory",
    "EvaluationProtocol",
    "Interval",
    "SuccessReport",
    "aggregate_runs",
    "evaluate_success",
    "interquartile_mean",
    "markdown_table",
    "paired_difference",
    "performance_profile",
    "print_success",
    "probability_of_improvement",
    "seeds_needed",
    "stratified_bootstrap",
    "success_interval",
    "success_table",
    "wilson_interval",
    "worst_tasks",
]
