"""Methods by seeds with one configuration: runs what is missing, goes on with what was broken off."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.markup import escape

from mtrl_imgrad.errors import MtrlImgradError
from mtrl_imgrad.experiments.comparisons.launch import Launch
from mtrl_imgrad.experiments.comparisons.local import run_here, run_locally
from mtrl_imgrad.experiments.comparisons.plan import Comparison, plan_comparison
from mtrl_imgrad.experiments.comparisons.state import ERROR, locked, read_state
from mtrl_imgrad.reporting.atomic_files import make_folder

TO_PLAN = 30.0
"""Seconds to wait for another call that is adding to the same comparison."""


def make_runs(
    config: Any,
    methods: Sequence[str],
    seeds: Sequence[int],
    folder: Path,
    launch: Launch,
    *,
    console: Console | None = None,
    progress_bar: bool = True,
) -> Comparison:
    """Make the runs of a comparison that are missing.

    A run that is finished is not made again, one that was broken off goes on from its last checkpoint, one that failed
    is tried again. Methods and seeds are added to those that the folder holds; without any, those are run.

    Args:
        config: of every run, a `TrainConfig` or a `SupervisedConfig`.
        methods: combiners with arguments, such as ``"imgrad:c=0.4"``; for agents also ``"ACTOR+CRITIC"``.
        seeds: different ones.
        folder: of the comparison.
        launch: where and how many at a time.
        console: where to print.
        progress_bar: show how far it is.

    Raises:
        ArgumentError: for a wrong method or seed, or a folder that holds a comparison with other settings.
        LearningInterruptedError: if a signal stopped it; all runs can go on.
        MissingDependencyError: if the launcher's package or program is not installed.
    """
    console = console or Console(file=sys.stdout, highlight=False)
    comparison = _saved_plan(config, methods, seeds, folder.expanduser())
    runs = comparison.runs()
    missing = [run for run in runs if read_state(comparison.kind, run).status not in ("finished", "running")]
    console.print(
        escape(f"{len(runs)} runs in {comparison.folder}: {len(runs) - len(missing)} need nothing"), soft_wrap=True
    )
    if launch.launcher == "slurm":
        from mtrl_imgrad.experiments.comparisons.slurm import submit

        submit(comparison, missing, launch.jobs, console)
    elif launch.launcher == "ray" and missing:
        from mtrl_imgrad.experiments.comparisons.cluster import run_on_ray

        run_on_ray(comparison, missing, launch, console, progress_bar)
    elif launch.jobs == 0:
        run_here(comparison, missing, console)
    elif missing:
        run_locally(comparison, missing, launch.jobs, console, progress_bar)
    return comparison


def _saved_plan(config: Any, methods: Sequence[str], seeds: Sequence[int], folder: Path) -> Comparison:
    """The plan, written to its folder; two calls at once both find what they asked for in it."""
    plan_comparison(config, methods, seeds, folder).runs()  # reads every method: nothing is written for a wrong one
    make_folder("out", folder)
    with locked(folder, patience=TO_PLAN):
        comparison = plan_comparison(config, methods, seeds, folder)
        comparison.save()
    return comparison


def refuse_failed(comparison: Comparison) -> None:
    """Raise where a run failed, once all others are done.

    Raises:
        MtrlImgradError: names the runs and how to try them again.
    """
    failed = [run for run in comparison.runs() if read_state(comparison.kind, run).status == "failed"]
    if failed:
        names = "; ".join(f"{run.label}: see {run.folder / ERROR}" for run in failed)
        count = f"{len(failed)} of {len(comparison.runs())} runs failed"
        raise MtrlImgradError(f"{count} ({names}); to try them again: {comparison.command()}")
