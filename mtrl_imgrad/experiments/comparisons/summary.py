"""What finished runs say of their methods at the final step: a row a method, and sentences."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from mtrl_imgrad.errors import ArgumentError
from mtrl_imgrad.evaluation.method_statistics import (
    MIN_SEEDS,
    PairedDifference,
    ProbabilityOfImprovement,
    paired_difference,
    probability_of_improvement,
    worst_tasks,
)
from mtrl_imgrad.evaluation.statistics import Aggregate, Interval, aggregate_runs
from mtrl_imgrad.experiments.comparisons.records import RunRecord, by_method

WORST = 3
Floats = NDArray[np.float64]


@dataclass(frozen=True)
class MethodSummary:
    """A method at its final step.

    Attributes:
        method: its name.
        seeds: of its runs.
        scores: ``[seeds, K]`` success rates, of the tasks that have a notion of success.
        aggregate: mean and interquartile mean with intervals over seeds.
        worst: mean of each run's worst tasks, averaged over seeds.
        best: mean over seeds of the best evaluation while training, by its own episodes: too high.
        cpu_seconds: of learning, mean over seeds.
        against_best: the best method less this one; None for the best, or without common seeds.
        improvement: probability that this method beats the best; None likewise.
    """

    method: str
    seeds: tuple[int, ...]
    scores: Floats
    aggregate: Aggregate
    worst: float
    best: float
    cpu_seconds: float
    against_best: PairedDifference | None
    improvement: ProbabilityOfImprovement | None


@dataclass(frozen=True)
class Summary:
    """Methods side by side.

    Attributes:
        tasks: those that have a notion of success.
        methods: the highest mean first.
        statements: what the seeds allow to say, and what to beware of.
    """

    tasks: tuple[str, ...]
    methods: tuple[MethodSummary, ...]
    statements: tuple[str, ...]

    def header(self) -> list[str]:
        """Of `rows`."""
        names = ["method", "seeds", "mean", "IQM", f"worst {min(WORST, len(self.tasks))} tasks", "best in training"]
        return [*names, "best method less this", "P(beats best)", "CPU min"]

    def rows(self) -> list[list[str]]:
        """The table as text, intervals in brackets."""
        return [
            [
                one.method,
                str(len(one.seeds)),
                f"{one.aggregate.mean:.3f}{_shown(one.aggregate.mean_interval)}",
                f"{one.aggregate.iqm:.3f}{_shown(one.aggregate.iqm_interval)}",
                f"{one.worst:.3f}",
                f"{one.best:.3f}",
                "" if one.against_best is None else f"{one.against_best.mean:+.3f}{_shown(one.against_best.interval)}",
                "" if one.improvement is None else f"{one.improvement.value:.2f}{_shown(one.improvement.interval)}",
                f"{one.cpu_seconds / 60:.1f}",
            ]
            for one in self.methods
        ]

    def task_rows(self) -> tuple[list[str], list[list[str]]]:
        """Header and rows of success by task, mean over seeds."""
        rows = [[one.method, *(f"{rate:.2f}" for rate in one.scores.mean(axis=0))] for one in self.methods]
        return ["method", *self.tasks], rows

    def seed_rows(self) -> tuple[list[str], list[list[str]]]:
        """Header and rows of every seed's mean success."""
        rows = [
            [one.method, str(seed), f"{rates.mean():.3f}", *(f"{rate:.2f}" for rate in rates)]
            for one in self.methods
            for seed, rates in zip(one.seeds, one.scores, strict=True)
        ]
        return ["method", "seed", "mean", *self.tasks], rows


def summarize(records: Sequence[RunRecord]) -> Summary:
    """Statistics of finished runs at their final step.

    Raises:
        ArgumentError: if no task has a notion of success, or a method has two runs of one seed.
    """
    known = ~np.isnan(np.stack([record.final for record in records])).any(axis=0)
    if not known.any():
        raise ArgumentError("no task has a notion of success: there is nothing to compare")
    methods = by_method(records)
    for method, runs in methods.items():
        if len({run.seed for run in runs}) != len(runs):
            raise ArgumentError(f"{method} has two runs of one seed: {', '.join(str(run.path) for run in runs)}")
    scores = {method: np.stack([run.final[known] for run in runs]) for method, runs in methods.items()}
    order = sorted(methods, key=lambda method: -float(scores[method].mean()))
    summaries = tuple(_method(method, methods, scores, order[0]) for method in order)
    tasks = tuple(np.array(records[0].tasks)[known].tolist())
    return Summary(tasks, summaries, (*_order(summaries), *_warnings(records)))


def _method(
    method: str, methods: Mapping[str, Sequence[RunRecord]], scores: Mapping[str, Floats], leader: str
) -> MethodSummary:
    runs, own = methods[method], scores[method]
    against, improvement = None, None
    if method != leader:
        seeds = [[run.seed for run in methods[name]] for name in (leader, method)]
        common = [seed for seed in seeds[0] if seed in seeds[1]]
        pairs = [scores[name].mean(axis=1)[[which.index(seed) for seed in common]]
                 for name, which in zip((leader, method), seeds, strict=True)]  # fmt: skip
        against = paired_difference(*pairs) if common else None
        improvement = probability_of_improvement(own, scores[leader])
    cpu = [run.data["cpu_seconds"] for run in runs if run.data["cpu_seconds"] is not None]
    return MethodSummary(
        method,
        tuple(run.seed for run in runs),
        own,
        aggregate_runs(own),
        float(worst_tasks(own, min(WORST, own.shape[1])).mean()),
        float(np.mean([run.data["best"]["success"] for run in runs])),
        float(np.mean(cpu)) if cpu else float("nan"),
        against,
        improvement,
    )


def _order(methods: Sequence[MethodSummary]) -> list[str]:
    """What the seeds allow to say of the order."""
    if len(methods) < 2:
        return []
    best, others = methods[0], methods[1:]
    said = [f"Highest mean: {best.method}, {best.aggregate.mean:.3f}."]
    unknown = [one.method for one in others if one.against_best is None or one.against_best.noise is None]
    within = [one for one in others if one.against_best is not None and one.against_best.noise is True]
    beyond = [one.method for one in others if one.against_best is not None and one.against_best.noise is False]
    if unknown:
        said.append(f"Fewer than {MIN_SEEDS} common seeds: nothing can be said of {', '.join(unknown)}.")
    if within:
        names = ", ".join(one.method for one in within)
        said.append(f"No order beyond seed noise between {best.method} and {names}.")
        said += [_needed(best, one) for one in within]
    if beyond:
        said.append(f"Below {best.method} beyond seed noise: {', '.join(beyond)}.")
    rule = "Seed noise: the 95 % interval of the mean difference, seed by seed (Student's t), holds 0. "
    return [*said, rule + "The best was picked afterwards, and nothing is corrected for the number of comparisons."]


def _needed(best: MethodSummary, other: MethodSummary) -> str:
    gap = other.against_best
    assert gap is not None
    if gap.seeds_needed is None:
        return f"{other.method}: no number of seeds below ten thousand would show a difference of {gap.mean:.3f}."
    return (
        f"{other.method}: were the difference of {gap.mean:.3f} true, about {gap.seeds_needed} seeds would be "
        f"needed to see it (paired t-test, power .8, from the spread of {gap.num_seeds})."
    )


def _warnings(records: Sequence[RunRecord]) -> list[str]:
    """Where the runs are not alike."""
    said = []
    steps = sorted({record.data["timesteps"] for record in records})
    if len(steps) > 1:
        said.append(f"Beware: runs end at different steps, {', '.join(f'{step:,}' for step in steps)}.")
    episodes = sorted({record.data["final"]["episodes"] for record in records})
    if len(episodes) > 1:
        said.append(f"Beware: final evaluations have {', '.join(map(str, episodes))} episodes a task.")
    packages = sorted({name for record in records for name in record.data["versions"]})
    for name in packages:
        versions = sorted({str(record.data["versions"].get(name, "none")) for record in records})
        if len(versions) > 1:
            said.append(f"Beware: runs were made with different versions of {name}, {', '.join(versions)}.")
    hashes = {
        record.method: {r.data["config_hash"] for r in records if r.method == record.method} for record in records
    }
    differ = [method for method, own in hashes.items() if len(own) > 1]
    if differ:
        said.append(f"Beware: runs of {', '.join(differ)} have different configurations.")
    return said


def _shown(interval: Interval) -> str:
    return "" if np.isnan(interval.low) else f" [{interval.low:.3f}, {interval.high:.3f}]"
