"""Evaluate the agent of a run folder."""

from __future__ import annotations

import dataclasses
from pathlib import Path

from rich.console import Console

from mtrl_imgrad.agents import MTSAC
from mtrl_imgrad.errors import ArgumentError
from mtrl_imgrad.evaluation.reports import SuccessReport
from mtrl_imgrad.evaluation.success import evaluate_success
from mtrl_imgrad.evaluation.tables import print_success
from mtrl_imgrad.experiments.config import load_config
from mtrl_imgrad.experiments.train import make_eval_env

__all__ = ["evaluate_run"]


def evaluate_run(
    run: Path,
    episodes: int = 50,
    model: str = "model",
    seed: int | None = None,
    backend: str | None = None,
    deterministic: bool = True,
    console: Console | None = None,
) -> SuccessReport:
    """Load a run's agent, evaluate it on an environment of its own, print the table and save the report.

    Args:
        run: run folder of `mtrl_imgrad.experiments.train.train`.
        episodes: of each task.
        model: ``"model"`` (at the end) or ``"best_model"`` (the best by success while training).
        seed: of the goals; None takes that of the run's evaluations.
        backend: None takes that of the run's evaluations.
        deterministic: act by the mean of the policy.
        console: where to print.

    Returns:
        The report, which is also in ``<run>/evaluation_<model>_<episodes>.npz`` and ``.json``.

    Raises:
        ArgumentError: if the folder holds no such run or model, naming the file.
    """
    console = console or Console(highlight=False)
    for file in (run / "config.yaml", run / f"{model}.zip"):
        if not file.is_file():
            raise ArgumentError(f"run {run}: there is no {file.name}; expected a folder that `train` made")
    config = load_config(run / "config.yaml")
    if backend is not None:
        evaluation = dataclasses.replace(config.evaluation, eval_backend=backend)  # type: ignore[arg-type]
        config = dataclasses.replace(config, evaluation=evaluation)
    env = make_eval_env(config, seed)
    try:
        agent = MTSAC.load(run / f"{model}.zip", device=config.agent.device)
        report = evaluate_success(agent, env, episodes, deterministic, progress_bar=True)
    finally:
        env.close()
    saved = report.save(run / f"evaluation_{model}_{episodes}")
    print_success(report, console=console)
    console.print(f"{run / model}.zip on {env.backend}; saved as {saved} and .json")
    return report
