"""The two-objective problem of CAGrad, Nash-MTL and IMGrad: where each method goes on a landscape that can be drawn.

    >>> run = descend(["cagrad", "imgrad:c=0.8"], shares=(0.9, 0.5), starts=[(9.0, -1.0)], steps=3)
    >>> run.positions.shape  # steps + 1, methods, scenarios, starts, 2
    torch.Size([4, 2, 2, 1, 2])
    >>> outcomes(run)[0].at_optimum
    False

Pictures are in `mtrl_imgrad.synthetic.plots`, the command in `mtrl_imgrad.experiments.synthetic`.
"""

from mtrl_imgrad.extras import require

require("mtrl_imgrad.synthetic", "rich", "yaml", "matplotlib")

from mtrl_imgrad.combiners.method_strings import Method, parse_method
from mtrl_imgrad.reporting.tables import TextTable
from mtrl_imgrad.synthetic.measures import Curves, Outcome, curves, outcomes
from mtrl_imgrad.synthetic.methods import DEFAULT_METHODS
from mtrl_imgrad.synthetic.optima import distance_to_front, front, lowest_loss, minimiser
from mtrl_imgrad.synthetic.problem import STARTS, check_shares, check_starts, evaluate, task_weights
from mtrl_imgrad.synthetic.results import save_outcomes, save_tables
from mtrl_imgrad.synthetic.run import Trajectories, descend
from mtrl_imgrad.synthetic.tables import failure_table, reached_table, scenario_table

__all__ = [
    "DEFAULT_METHODS",
    "STARTS",
    "Curves",
    "Method",
    "Outcome",
    "TextTable",
    "Trajectories",
    "check_shares",
    "check_starts",
    "curves",
    "descend",
    "distance_to_front",
    "evaluate",
    "failure_table",
    "front",
    "lowest_loss",
    "minimiser",
    "outcomes",
    "parse_method",
    "reached_table",
    "save_outcomes",
    "save_tables",
    "scenario_table",
    "task_weights",
]
