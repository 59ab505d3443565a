"""Methods by seeds on one data set: runs what is missing, so that a comparison goes on where it stopped."""

from __future__ import annotations

import dataclasses
import re
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path

import torch
from rich.console import Console
from rich.markup import escape
from torch import Tensor

from mtrl_imgrad.combiners.method_strings import Method, parse_method
from mtrl_imgrad.errors import ArgumentError
from mtrl_imgrad.experiments.supervised.comparison_report import ComparisonReport, MethodRuns
from mtrl_imgrad.experiments.supervised.config import SupervisedConfig
from mtrl_imgrad.experiments.supervised.data import load_splits
from mtrl_imgrad.experiments.supervised.history import RunResult
from mtrl_imgrad.experiments.supervised.panels import draw_panel, sample_items
from mtrl_imgrad.experiments.supervised.published import has_published_table, published_table
from mtrl_imgrad.experiments.supervised.run import check_settings, load_model, train_or_resume
from mtrl_imgrad.supervised.metric_set import MetricSet
from mtrl_imgrad.supervised.run_combiner import run_combiner
from mtrl_imgrad.supervised.splits import Splits, TaskSplits
from mtrl_imgrad.validation import checked

__all__ = ["SINGLE_TASK", "compare"]

SINGLE_TASK = "stl"
"""The method that trains one network a task; the baseline of Δm."""


@checked
def compare(
    config: SupervisedConfig,
    methods: Sequence[str],
    seeds: Sequence[int],
    folder: Path,
    *,
    console: Console | None = None,
    progress_bar: bool = True,
) -> ComparisonReport:
    """Run every method with every seed and report them side by side.

    Runs lie in ``folder/runs``. One that is finished is not run again, one that was stopped is continued. The report is
    ``comparison.md``, ``comparison.csv`` (every run's every metric), ``delta_m.png`` and ``panel.png``.

    Args:
        config: of every run; its combiner, seed, tasks (of single-task runs) and folder are set here.
        methods: combiners with arguments, such as ``"imgrad:measure=lm,update_every=4"``, see `parse_method`; or
            ``"stl"``: one network a task.
        seeds: different ones.
        folder: of the comparison.
        console: where to print.
        progress_bar: whether to show how far it is.

    Raises:
        ArgumentError: for a wrong method or seed, or a run in the folder that was made with other settings.
        CheckpointError: if a finished run cannot be read.
    """
    console = console or Console(file=sys.stdout, highlight=False)
    folder = folder.expanduser()
    specs = [Method(text, text) if text == SINGLE_TASK else parse_method(text) for text in methods]
    for name, given in (("methods", [spec.label for spec in specs]), ("seeds", seeds)):
        if not given or len(set(given)) != len(given):
            raise ArgumentError(f"{name} must be one or more different ones, got {list(given)}")
    data = load_splits(config.data, protocol=config.protocol, progress_bar=progress_bar)
    jobs = {spec.label: {seed: _jobs(config, spec, seed, data, folder) for seed in seeds} for spec in specs}
    for by_seed in jobs.values():  # all of them before the first hour is spent
        for runs in by_seed.values():
            for run in runs:
                check_settings(run)
                _check_method(run, data)
    found: list[MethodRuns] = []
    for label, by_seed in jobs.items():
        results = {
            seed: [train_or_resume(run, console=console, progress_bar=progress_bar) for run in runs]
            for seed, runs in by_seed.items()
        }
        found.append(_gather(label, results))
    comparable = has_published_table(config.data.format) and not (data.simulated or config.data.tasks)
    report = ComparisonReport(
        methods=found,
        higher_is_better={task: dict(s) for task, s in MetricSet(data.tasks).higher_is_better.items()},
        setting=_setting(config, data, results[seeds[0]][0]),
        published=published_table(config.data.format) if comparable else None,
    )
    report.save(folder)
    _draw_panel(jobs, seeds[0], data, min(2, config.reporting.panel_images), folder / "panel.png")
    report.print(console)
    console.print(f"\nEverything is in {escape(str(folder))}", style="bold")
    return report


def _jobs(
    config: SupervisedConfig, spec: Method, seed: int, data: Splits | TaskSplits, folder: Path
) -> list[SupervisedConfig]:
    """The runs that a method needs for a seed: one, or one a task."""
    if spec.name == SINGLE_TASK:
        return [
            dataclasses.replace(
                config,
                data=dataclasses.replace(config.data, tasks=(task.name,)),
                method=dataclasses.replace(config.method, combiner="linear_scalarization", combiner_kwargs={}),
                seed=seed,
                run_dir=folder / "runs" / f"stl-{_slug(task.name)}-seed{seed}",
            )
            for task in data.tasks
        ]
    method = dataclasses.replace(config.method, combiner=spec.name, combiner_kwargs=dict(spec.arguments))
    return [
        dataclasses.replace(
            config, method=method, seed=seed, run_dir=folder / "runs" / f"{_slug(spec.label)}-seed{seed}"
        )
    ]


def _check_method(config: SupervisedConfig, data: Splits | TaskSplits) -> None:
    """Whether the combiner takes its arguments."""
    method = config.resolved_method()
    run_combiner(method.combiner, method.combiner_kwargs, tasks=data.tasks, seed=config.seed, steps_per_epoch=1)


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
    jobs: Mapping[str, Mapping[int, Sequence[SupervisedConfig]]],
    seed: int,
    data: Splits | TaskSplits,
    count: int,
    path: Path,
) -> None:
    """What the networks of the first seed predict, on the same images."""
    images, targets = sample_items(data, count)
    predictions: dict[str, dict[str, Tensor]] = {}
    for label, by_seed in jobs.items():
        predictions[label] = {}
        for config in by_seed[seed]:
            assert config.run_dir is not None, "set by _jobs"
            model = load_model(config.run_dir, data.only(config.data.tasks) if config.data.tasks else data).eval()
            with torch.no_grad():
                predictions[label] |= model(images)
    draw_panel(path, images, targets, predictions, data.tasks)


def _slug(text: str) -> str:
    return re.sub(r"[^\w.=+-]+", "-", text)
