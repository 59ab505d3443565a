"""The command ``supervised compare``: a comparison of networks on images, and its table."""

from __future__ import annotations

import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Self

import torch
from rich.console import Console
from rich.markup import escape
from torch import Tensor

from mtrl_imgrad.errors import ArgumentError
from mtrl_imgrad.experiments.comparisons.compare import make_runs, refuse_failed
from mtrl_imgrad.experiments.comparisons.kinds import SINGLE_TASK, kind_of
from mtrl_imgrad.experiments.comparisons.launch import Launch
from mtrl_imgrad.experiments.comparisons.plan import PLAN, Comparison, PlannedRun, load_comparison
from mtrl_imgrad.experiments.options import Flat, given_options
from mtrl_imgrad.experiments.supervised.commands import Configured, Resume
from mtrl_imgrad.experiments.supervised.comparison_report import ComparisonReport, MethodRuns
from mtrl_imgrad.experiments.supervised.config import SupervisedConfig
from mtrl_imgrad.experiments.supervised.data import load_splits
from mtrl_imgrad.experiments.supervised.history import RunResult
from mtrl_imgrad.experiments.supervised.panels import draw_panel, sample_items
from mtrl_imgrad.experiments.supervised.published import has_published_table, published_table
from mtrl_imgrad.experiments.supervised.run import load_model
from mtrl_imgrad.supervised.metric_set import MetricSet
from mtrl_imgrad.supervised.run_combiner import run_combiner
from mtrl_imgrad.supervised.splits import Splits, TaskSplits

METHODS, SEEDS = ("stl", "ls", "cagrad", "imgrad"), (0, 1, 2)
"""Of a new comparison."""


@dataclass(frozen=True)
class _Given:
    data: str | None = None
    config: Path | None = None
    out: Path | None = None


@dataclass(frozen=True)
class Compare(Configured):
    """Options of ``supervised compare``."""

    methods: tuple[str, ...] = ()
    """Combiners with their arguments, such as imgrad:measure=lm,update_every=4; stl is one network a task; none: those
    of the folder, or stl, ls, cagrad and imgrad."""
    seeds: tuple[int, ...] = ()
    """Runs of each method; none: those of the folder, or 0, 1 and 2."""
    out: Path | None = None
    """Folder; None makes comparisons/<data>."""
    launch: Annotated[Launch, Flat] = field(default_factory=Launch)

    @classmethod
    def defaults(cls, arguments: list[str]) -> Self | Resume:
        """From a preset or a file, or from the comparison of the folder."""
        given = given_options(_Given, "supervised compare", arguments)
        out = given.out and given.out.expanduser()
        if given.data is None and given.config is None and out is not None and (out / PLAN).exists():
            config = load_comparison(out).config
            if not isinstance(config, SupervisedConfig):
                raise ArgumentError(f"{given.out} holds a comparison of mtrl-imgrad compare")
            return cls(config=config)
        return super().defaults(arguments)

    def chosen(self) -> SupervisedConfig:
        """The configuration."""
        goes_on = self.start.data is None and self.start.config is None
        if goes_on and self.out is not None and (self.out.expanduser() / PLAN).exists():
            return self.config
        return super().chosen()

    def __call__(self) -> None:
        """Make the runs that are missing, then compare all."""
        folder = self.folder("comparisons", self.out)
        compare(self.chosen(), self.methods, self.seeds, folder, self.launch, progress_bar=self.progress_bar)


def compare(
    config: SupervisedConfig,
    methods: Sequence[str],
    seeds: Sequence[int],
    folder: Path,
    launch: Launch,
    *,
    console: Console | None = None,
    progress_bar: bool = True,
) -> ComparisonReport | None:
    """Make the runs of a comparison that are missing, see `make_runs`, and report all side by side.

    The report is ``comparison.md``, ``comparison.csv`` (every run's every metric), ``delta_m.png`` and ``panel.png``.
    It is of the seeds that all methods of the folder have.

    Args:
        config: of every run; its combiner, seed, tasks (of single-task runs) and folder are set here.
        methods: combiners with arguments, such as ``"imgrad:measure=lm,update_every=4"``, see `parse_method`; or
            ``"stl"``: one network a task. None of them: those of the folder, or stl, ls, cagrad and imgrad.
        seeds: different ones; none: those of the folder, or 0, 1 and 2.
        folder: of the comparison.
        launch: where and how many at a time.
        console: where to print.
        progress_bar: whether to show how far it is.

    Returns:
        The report; None where the runs were handed to a scheduler.

    Raises:
        ArgumentError: for a wrong method or seed, or a folder that holds a comparison with other settings.
        MtrlImgradError: if a run failed, once all others are done.
        CheckpointError: if a finished run cannot be read.
    """
    console = console or Console(file=sys.stdout, highlight=False)
    folder = folder.expanduser()
    if not (folder / PLAN).exists():
        methods, seeds = methods or METHODS, seeds or SEEDS
    data = load_splits(config.data, protocol=config.protocol, progress_bar=progress_bar)
    for method in methods:  # all of them before the first hour is spent
        _check_method(config, method, data)
    comparison = make_runs(config, methods, seeds, folder, launch, console=console, progress_bar=progress_bar)
    if launch.launcher == "slurm":
        return None
    refuse_failed(comparison)
    runs = _comparable_runs(comparison)
    results = {
        method: {seed: [RunResult.load(run.folder / "result.json") for run in own] for seed, own in by_seed.items()}
        for method, by_seed in runs.items()
    }
    (first, *_), *_ = next(iter(results.values())).values()  # run of the first seed of the first method
    comparable = has_published_table(config.data.format) and not (data.simulated or config.data.tasks)
    report = ComparisonReport(
        methods=[_gather(method, by_seed) for method, by_seed in results.items()],
        higher_is_better=MetricSet(data.tasks).higher_is_better,
        setting=_setting(config, data, first),
        published=published_table(config.data.format) if comparable else None,
    )
    report.save(folder)
    panel = {method: [run.config for run in next(iter(by_seed.values()))] for method, by_seed in runs.items()}
    _draw_panel(panel, data, min(2, config.reporting.panel_images), folder / "panel.png")
    report.print(console)
    console.print(f"\nEverything is in {escape(str(folder))}", style="bold")
    return report


def _check_method(config: SupervisedConfig, text: str, data: Splits | TaskSplits) -> None:
    """Whether the combiner takes its arguments."""
    if text == SINGLE_TASK:
        return
    (run,) = kind_of(config).configs(config, text, config.seed).values()
    method = run.resolved_method()
    run_combiner(method.combiner, method.combiner_kwargs, tasks=data.tasks, seed=config.seed, steps_per_epoch=1)


def _comparable_runs(comparison: Comparison) -> dict[str, dict[int, list[PlannedRun]]]:
    """Runs by method and seed, of the seeds that all methods have."""
    first, *others = comparison.methods.values()
    common = [seed for seed in first if all(seed in own for own in others)]
    if not common:
        raise ArgumentError(f"the methods of {comparison.folder} have no seed in common: {dict(comparison.methods)}")
    runs = comparison.runs()
    return {
        method: {seed: [run for run in runs if (run.method, run.seed) == (method, seed)] for seed in common}
        for method in comparison.methods
    }


def _gather(label: str, results: Mapping[int, Sequence[RunResult]]) -> MethodRuns:
    """The runs of a method; single-task runs of a seed are put together."""
    return MethodRuns(
        label=label,
        results={
            seed: {task: metrics for run in runs for task, metrics in run.results.items()}
            for seed, runs in results.items()
        },
        seconds={seed: sum(run.train_seconds for run in runs) for seed, runs in results.items()},
    )


def _setting(config: SupervisedConfig, data: Splits | TaskSplits, result: RunResult) -> str:
    name = f"{config.data.simulate} scenes (simulated)" if config.data.simulate else config.data.format
    if data.simulated and config.data.simulate is None:
        name += " format, simulated"
    optimization = config.optimization
    how = "the best epoch in validation" if config.reporting.report == "best" else result.how
    return (
        f"{name}; {config.model.model} at width {config.model.width:g}, {optimization.epochs} epochs, batch "
        f"{optimization.batch_size}, Adam {optimization.learning_rate:g}; protocol {config.protocol}; {how}"
    )


def _draw_panel(
    jobs: Mapping[str, Sequence[SupervisedConfig]], data: Splits | TaskSplits, count: int, path: Path
) -> None:
    """Predictions of the first seed's networks, on the same images."""
    images, targets = sample_items(data, count)
    predictions: dict[str, dict[str, Tensor]] = {}
    for label, configs in jobs.items():
        predictions[label] = {}
        for config in configs:
            assert config.run_dir is not None, "a planned run has a folder"
            model = load_model(config.run_dir, data.only(config.data.tasks) if config.data.tasks else data).eval()
            with torch.no_grad():
                predictions[label] |= model(images)
    draw_panel(path, images, targets, predictions, data.tasks)
