"""The outcomes on the synthetic problem as tables, for the terminal and in markdown."""

from __future__ import annotations

from collections.abc import Sequence

from mtrl_imgrad.reporting.tables import TextTable
from mtrl_imgrad.synthetic.measures import Outcome
from mtrl_imgrad.validation import checked

_NEVER = "-"


@checked
def reached_table(outcomes: Sequence[Outcome], steps: int) -> TextTable:
    """The ends of the trajectories: a row a method, a column a scenario."""
    shares, methods = _in_order(outcomes)
    starts = len({outcome.start for outcome in outcomes})
    rows = [
        [method, *(_reached([o for o in outcomes if (o.method, o.s) == (method, s)]) for s in shares)]
        for method in methods
    ]
    for row, method in zip(rows, methods, strict=True):
        row.append(_reached([o for o in outcomes if o.method == method]))
    return _table(
        f"at the optimum / on the front after {steps:,} steps, of {starts} starts a scenario",
        ["method", *(f"s={s:g}" for s in shares), "all"],
        rows,
    )


@checked
def failure_table(outcomes: Sequence[Outcome]) -> TextTable:
    """Pareto failures in per cent of the steps on the way to the front: a row a method, a column a scenario."""
    shares, methods = _in_order(outcomes)
    rows = [
        [method, *(_failure_rate([o for o in outcomes if (o.method, o.s) == (method, s)]) for s in shares)]
        for method in methods
    ]
    for row, method in zip(rows, methods, strict=True):
        all_of_it = [o for o in outcomes if o.method == method]
        row += [_failure_rate(all_of_it), f"{sum(o.pareto_failures for o in all_of_it):,}"]
    return _table(
        "Pareto failures, % of the steps before the front",
        ["method", *(f"s={s:g}" for s in shares), "all", "count"],
        rows,
    )


@checked
def scenario_table(outcomes: Sequence[Outcome], s: float) -> TextTable:
    """One scenario: a row a method, and by start the first step near the optimum, or else near the front."""
    outcomes = [outcome for outcome in outcomes if outcome.s == s]
    starts = list(dict.fromkeys(outcome.start for outcome in outcomes))
    rows = []
    for method in _in_order(outcomes)[1]:
        own = [outcome for outcome in outcomes if outcome.method == method]
        rows.append([method, *map(_arrival, own), _failure_rate(own)])
    return _table(
        f"s={s:g}: thousand steps to the optimum, by start; (to the front) where the optimum was never reached",
        ["method", *(f"({x1:g},\n{x2:g})" for x1, x2 in starts), "Pareto\nfailures, %"],
        rows,
    )


def _arrival(outcome: Outcome) -> str:
    if outcome.optimum_step is not None:
        return f"{outcome.optimum_step / 1000:.1f}"
    return _NEVER if outcome.front_step is None else f"({outcome.front_step / 1000:.1f})"


def _in_order(outcomes: Sequence[Outcome]) -> tuple[list[float], list[str]]:
    return list(dict.fromkeys(o.s for o in outcomes)), list(dict.fromkeys(o.method for o in outcomes))


def _reached(outcomes: Sequence[Outcome]) -> str:
    return f"{sum(o.at_optimum for o in outcomes)} / {sum(o.at_front for o in outcomes)}"


def _failure_rate(outcomes: Sequence[Outcome]) -> str:
    steps = sum(o.steps_on_the_way for o in outcomes)
    return f"{100 * sum(o.pareto_failures for o in outcomes) / steps:.1f}" if steps else _NEVER


def _table(title: str, header: Sequence[str], rows: Sequence[Sequence[str]]) -> TextTable:
    return TextTable(title, tuple(header), tuple(tuple(row) for row in rows))
