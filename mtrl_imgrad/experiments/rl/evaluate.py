"""Evaluate the agent of a run folder."""

from __future__ import annotations

import contextlib
import dataclasses
from collections.abc import Callable
from pathlib import Path

from rich.console import Console
from rich.markup import escape

from mtrl_imgrad.agents.registry import Agent, agent_class
from mtrl_imgrad.errors import CheckpointError
from mtrl_imgrad.evaluation.report import SuccessReport
from mtrl_imgrad.evaluation.success import evaluate_success
from mtrl_imgrad.evaluation.tables import print_success
from mtrl_imgrad.experiments.rl.config import TrainConfig, load_config
from mtrl_imgrad.experiments.rl.train import EVALUATION_SEED_OFFSET, make_eval_env
from mtrl_imgrad.experiments.run_folder import CONFIG, check_run
from mtrl_imgrad.validation import checked


@checked
def evaluate_run(
    run: Path,
    episodes: int = 50,
    model: str = "model",
    seed: int | None = None,
    backend: str | None = None,
    deterministic: bool = True,
    console: Console | None = None,
    progress_bar: bool = True,
) -> SuccessReport:
    """Load a run's agent, evaluate it on an environment of its own, print the table and save the report.

    Args:
        run: run folder of `mtrl_imgrad.experiments.rl.train.train`.
        episodes: of each task.
        model: ``"model"`` (at the end) or ``"best_model"`` (the best by success while training).
        seed: of the goals, and of actions that are sampled; None takes that of the run's evaluations.
        backend: None takes that of the run's evaluations.
        deterministic: act by the mean of the policy.
        console: where to print.
        progress_bar: show a bar of finished episodes.

    Returns:
        The report, which is also in the run folder as ``evaluation_<model>_<back-end>_seed<seed>_<episodes>`` (with
        ``_stochastic`` where it is), ``.npz`` and ``.json``.

    Raises:
        ArgumentError: if the folder holds no such run or model, naming the file.
        CheckpointError: if the model cannot be read.
    """
    console = console or Console(highlight=False)
    config, load = load_run(run, model)
    if backend is not None:
        evaluation = dataclasses.replace(config.evaluation, eval_backend=backend)
        config = dataclasses.replace(config, evaluation=evaluation)
    if seed is None and model == "best_model":
        # Chosen as the best on the run's own evaluation goals, it would look better there than it is.
        seed = config.seed + 2 * EVALUATION_SEED_OFFSET
    with contextlib.closing(make_eval_env(config, seed)) as env:
        report = evaluate_success(
            load(), env, episodes, deterministic, progress_bar=progress_bar, seed=env.initial_seed
        )
        mode = "" if deterministic else "_stochastic"
        name = f"evaluation_{model}_{env.backend}_seed{env.initial_seed}_{episodes}{mode}"
    print_success(report, console=console)  # first: it is there where the folder cannot be written
    saved = report.save(run / name)
    console.print(escape(f"saved as {saved} and .json"), soft_wrap=True)
    return report


def load_run(run: Path, model: str) -> tuple[TrainConfig, Callable[[], Agent]]:
    """The configuration of a run folder, and a function that loads the agent.

    Raises:
        ArgumentError: if the folder holds no such run or model, naming the file.
    """
    check_run(run, f"{model}.zip")
    config = load_config(run / CONFIG)
    return config, lambda: _load(run / f"{model}.zip", config)


def _load(path: Path, config: TrainConfig) -> Agent:
    """SB3's ``load``, whose failures on a damaged file have no common base."""
    try:
        return agent_class(config.agent.name).load(path, device=config.agent.device)
    except Exception as error:
        raise CheckpointError(f"{path} cannot be read: {type(error).__name__}: {error}") from error
