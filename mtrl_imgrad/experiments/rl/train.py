"""Train an agent from a configuration, evaluate it before and after, and leave a run folder behind.

A run that was interrupted goes on from its latest checkpoint, in the same folder.
"""

from __future__ import annotations

import contextlib
import dataclasses
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from rich.console import Console
from rich.markup import escape
from stable_baselines3.common.callbacks import BaseCallback
from stable_baselines3.common.noise import NormalActionNoise

from mtrl_imgrad.agents.callbacks.checkpoints import MTCheckpointCallback, latest_checkpoint, list_checkpoints
from mtrl_imgrad.agents.callbacks.diagnostics import GradientDiagnosticsCallback
from mtrl_imgrad.agents.callbacks.evaluation import MTEvalCallback
from mtrl_imgrad.agents.common.execution import plan_execution
from mtrl_imgrad.agents.registry import Agent, agent_class
from mtrl_imgrad.envs import make_vec_env
from mtrl_imgrad.envs.registry import find_backends, resolve_tasks
from mtrl_imgrad.envs.vec_env import MultiTaskVecEnv
from mtrl_imgrad.errors import ArgumentError, LearningInterruptedError
from mtrl_imgrad.evaluation.history import EvaluationHistory
from mtrl_imgrad.evaluation.plots import plot_per_task_bars, plot_success_curve
from mtrl_imgrad.evaluation.report import SuccessReport
from mtrl_imgrad.evaluation.success import evaluate_success
from mtrl_imgrad.evaluation.tables import print_success
from mtrl_imgrad.experiments.config_files import save_config
from mtrl_imgrad.experiments.rl.clock import RunClock
from mtrl_imgrad.experiments.rl.config import EnvConfig, TrainConfig, load_config
from mtrl_imgrad.experiments.rl.logs import begin_tensorboard, flat_options, record_hparams, run_logger
from mtrl_imgrad.experiments.rl.own_tasks import find_tasks
from mtrl_imgrad.experiments.rl.result import CHECKPOINTS, write_result
from mtrl_imgrad.experiments.rl.summary import print_end, print_start
from mtrl_imgrad.experiments.rl.tracking import start_tracker
from mtrl_imgrad.experiments.run_folder import CONFIG, RESULT, check_run, in_shell, new_run_dir
from mtrl_imgrad.experiments.versions import installed_versions
from mtrl_imgrad.reporting.atomic_files import make_folder
from mtrl_imgrad.validation import checked

LAST_FILES = ("success_curve.png", RESULT)
"""A run that has them is at its end."""
EVALUATION_SEED_OFFSET = 10_000
"""Evaluations run on goals and episodes that training has not seen."""


@dataclass(frozen=True)
class TrainResult:
    """Result of `train`: the run folder, the agent, its reports before and after learning."""

    folder: Path
    agent: Agent
    before: SuccessReport
    after: SuccessReport


@checked
def make_env(config: EnvConfig, seed: int, **overrides: Any) -> MultiTaskVecEnv:
    """The vector environment of a configuration."""
    arguments = {name: value for name, value in vars(config).items() if name != "env"}
    return make_vec_env(find_tasks(config.env), seed=seed, **{**arguments, **overrides})


@checked
def make_eval_env(
    config: TrainConfig, seed: int | None = None, backend: str | None = None, render_mode: str | None = None
) -> MultiTaskVecEnv:
    """An environment for evaluations only: same tasks, other seed, its own back-end.

    Args:
        config: of the run.
        seed: None takes the run's seed where ``eval_goals`` is ``"training"``, and else one out of the reach of
            training seeds.
        backend: None takes that of the run's evaluations.
        render_mode: as in `make_vec_env`.
    """
    backend, tasks = backend or config.evaluation.eval_backend, find_tasks(config.env.env)
    has_tasks = [] if isinstance(tasks, dict) else [known.name for known in find_backends(resolve_tasks(tasks))]
    overrides: dict[str, Any] = {
        "backend": backend if backend in has_tasks else "auto",
        "num_envs_per_task": config.evaluation.eval_envs_per_task,
        "terminate_on_success": False,
        "render_mode": render_mode,
    }
    if seed is None:  # the seed determines the goals
        seed = config.seed + (0 if config.evaluation.eval_goals == "training" else EVALUATION_SEED_OFFSET)
    return make_env(config.env, seed, **overrides)


@checked
def train(
    config: TrainConfig,
    console: Console | None = None,
    progress_bar: bool = True,
    after_evaluation: BaseCallback | None = None,
) -> TrainResult:
    """Run a configuration from start to end.

    The run folder holds ``config.yaml``, ``progress.csv``, TensorBoard events, ``evaluation_before`` and
    ``evaluation_after`` (``.npz`` and ``.json``), ``evaluations.npz`` (those two and the ones in between),
    ``success_curve.png``, ``success_per_task.png`` (if a task has a notion of success), ``best_model.zip`` (see
    `MTEvalCallback`), ``model.zip`` (at the end, also when interrupted), ``clock.csv`` (seconds of learning by
    step) and ``result.json`` (all numbers of the run, small; the last file to be written).

    Checkpoints lie in ``checkpoints``, see `resume`.

    Args:
        config: what to run.
        console: where to print.
        progress_bar: show progress while learning.
        after_evaluation: called after each evaluation while learning, see `MTEvalCallback`: for a search that ends runs
            early. What it raises ends the run.

    Raises:
        ArgumentError: if the run folder holds a run already, or the configuration is wrong.
        LearningInterruptedError: if a signal stopped learning; a checkpoint was saved.
        EnvironmentFaultError: if an environment failed; a note on it names the checkpoint saved and how to go on.
    """
    folder = new_run_dir(config.run_dir, _name(config))
    return _run(config, folder, None, console or Console(highlight=False), progress_bar, after_evaluation)


@checked
def resume(folder: Path, console: Console | None = None, progress_bar: bool = True) -> TrainResult:
    """Go on with an interrupted run, from its latest checkpoint to its end, in its folder.

    With the same versions on the same machine and a back-end that restores its episodes (all of ours do), the agent
    that comes out is bit for bit that of the run without a break. Logs go on in
    ``progress.csv``, from which the rows after the checkpoint are removed.

    A run that ended before its first checkpoint, for instance by Ctrl-C in the first evaluation, starts anew: its seed
    determines it.

    Args:
        folder: run folder of `train`.
        console: where to print.
        progress_bar: show progress while learning.

    Raises:
        ArgumentError: if the folder holds no run, a run that is at its end, or models but no checkpoint.
        CheckpointError: if the latest checkpoint is damaged; remove it to go on from the one before.
        LearningInterruptedError: as `train`.
    """
    check_run(folder)
    config = dataclasses.replace(load_config(folder / CONFIG), run_dir=folder)
    console = console or Console(highlight=False)
    if (folder / "evaluation_after.npz").exists():
        if all((folder / name).exists() for name in LAST_FILES):
            raise ArgumentError(f"run {folder} is at its end: there is nothing to resume")
        agent = agent_class(config.agent.name).load(folder / "model", device=config.agent.device)
        return _conclude(config, folder, agent, console)
    checkpoint = None
    if list_checkpoints(folder / CHECKPOINTS) or list(folder.glob("*.zip")):  # models without a checkpoint: an error
        checkpoint = latest_checkpoint(folder / CHECKPOINTS)
    else:
        console.print(escape(f"{folder} holds no checkpoint yet: the run starts anew"))
    return _run(config, folder, checkpoint, console, progress_bar)


def _run(
    config: TrainConfig,
    folder: Path,
    checkpoint: Path | None,
    console: Console,
    progress_bar: bool,
    after_evaluation: BaseCallback | None = None,
) -> TrainResult:
    """From the start, or from a checkpoint."""
    if config.torch_threads is not None:
        torch.set_num_threads(config.torch_threads)
    with contextlib.ExitStack() as stack:
        env = stack.enter_context(contextlib.closing(make_env(config.env, config.seed)))
        eval_env = stack.enter_context(contextlib.closing(make_eval_env(config)))
        if checkpoint is None:
            agent = make_agent(config, env)
            # Nothing is written before everything could be built, so that a mistake leaves no folder behind.
            make_folder("run_dir", folder)
            save_config(config, folder / CONFIG, _ran_with(agent, env, eval_env))
        else:
            kind, options = agent_class(config.agent.name), _action_noise(config, env)
            agent = kind.load_checkpoint(checkpoint, env, config.agent.device, eval_env=eval_env, **options)
            console.print(escape(f"resumed from {checkpoint}"))
        stack.enter_context(_resume_command_noted(folder, console))
        tracker = [start_tracker(config.track, folder, flat_options(config))] if config.track else []
        agent.set_logger(run_logger(folder, agent.num_timesteps, tracker))
        stack.callback(agent.logger.close)
        print_start(console, config, folder, agent, env, eval_env)
        clock = stack.enter_context(contextlib.closing(RunClock(folder)))
        evaluation = _evaluation_callback(config, folder, env, eval_env, clock, after_evaluation)
        if checkpoint is None:
            before = evaluate_success(agent, eval_env, config.evaluation.eval_episodes, progress_bar=progress_bar)
            before.save(folder / "evaluation_before")
        else:
            before = SuccessReport.load(folder / "evaluation_before")
        evaluation.evaluations.append(0, before)
        evaluation.init_callback(agent)  # learning does so too, but not where eval_freq is 0
        if checkpoint is None:
            begin_tensorboard(agent.logger)
            record_hparams(agent.logger, config)
            evaluation.record(before)
            evaluation.evaluations.save(folder / "evaluations.npz")  # which a resumed run continues
        checkpoints = _checkpoint_callback(config, folder, agent.n_envs, eval_env)
        _learn(agent, config, folder, evaluation, checkpoints, clock, console, progress_bar)
        after = evaluate_success(agent, eval_env, config.evaluation.final_episodes, progress_bar=progress_bar)
        evaluation.record(after)
        evaluation.evaluations.save(folder / "evaluations.npz")  # without what a break threw away
        after.save(folder / "evaluation_after")  # from here on, resuming only concludes
    return _conclude(config, folder, agent, console)


def _conclude(config: TrainConfig, folder: Path, agent: Agent, console: Console) -> TrainResult:
    """Draw and print what the folder holds: the same numbers everywhere."""
    before, after = (SuccessReport.load(folder / f"evaluation_{when}") for when in ("before", "after"))
    history = EvaluationHistory.load(folder / "evaluations.npz")
    if not np.array_equal(history.reports[-1].returns, after.returns):  # unless it is there already
        history.append(agent.num_timesteps, after)
        history.save(folder / "evaluations.npz")
    _draw(config, folder, history, before, after)
    write_result(folder)
    print_success(after, before, console)
    print_end(console, folder, agent)
    return TrainResult(folder, agent, before, after)


@contextlib.contextmanager
def _resume_command_noted(folder: Path, console: Console) -> Iterator[None]:
    """Name the command that resumes the run, in a note on the error, or on the console for Ctrl-C."""
    try:
        yield
    except LearningInterruptedError:  # which says so itself
        raise
    except KeyboardInterrupt:
        console.print(escape(f"interrupted; to go on: mtrl-imgrad train --resume {in_shell(folder)}"), soft_wrap=True)
        raise
    except Exception as error:
        for latest in list_checkpoints(folder / CHECKPOINTS)[-1:]:
            error.add_note(f"To go on from {latest.name}: mtrl-imgrad train --resume {in_shell(folder)}")
        raise


def make_agent(config: TrainConfig, env: MultiTaskVecEnv) -> Agent:
    """The agent of a configuration."""
    agent: Any = agent_class(config.agent.name)
    return agent(
        "MlpPolicy",
        env,
        seed=config.seed,
        policy_kwargs=config.policy.policy_kwargs(),
        **config.agent.agent_kwargs(),
        **_action_noise(config, env),
    )


def _action_noise(config: TrainConfig, env: MultiTaskVecEnv) -> dict[str, Any]:
    """The argument ``action_noise`` of an agent that is to have one; a checkpoint does not hold it."""
    deviation = getattr(config.agent, "action_noise", 0.0)
    if not deviation:
        return {}
    shape = env.action_space.shape or ()
    return {"action_noise": NormalActionNoise(np.zeros(shape), np.full(shape, deviation))}


class _Evaluation(MTEvalCallback):
    """Evaluates, while the clock stands still."""

    def __init__(self, clock: RunClock, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.clock = clock

    def _on_step(self) -> bool:
        if self.n_calls % self.eval_freq:
            return True
        self.clock.mark()
        with self.clock.paused():
            return super()._on_step()


class _StopAfter(BaseCallback):
    """Stops learning when the time is over."""

    def __init__(self, minutes: float) -> None:
        super().__init__()
        self.minutes = minutes
        self.stopped = False

    def _on_training_start(self) -> None:
        self._end = time.monotonic() + 60 * self.minutes

    def _on_step(self) -> bool:
        self.stopped = time.monotonic() > self._end
        return not self.stopped


def _learn(
    agent: Agent,
    config: TrainConfig,
    folder: Path,
    evaluation: MTEvalCallback,
    checkpoints: MTCheckpointCallback | None,
    clock: RunClock,
    console: Console,
    progress_bar: bool,
) -> None:
    callbacks: list[BaseCallback] = [GradientDiagnosticsCallback(), clock]
    if config.evaluation.eval_freq:
        callbacks.append(evaluation)
    limit = _StopAfter(config.max_minutes) if config.max_minutes is not None else None
    if limit is not None:
        callbacks.append(limit)
    if checkpoints is not None:
        callbacks.append(checkpoints)
    began, steps = time.monotonic(), config.total_timesteps - agent.num_timesteps
    console.print(escape(plan_execution(agent, steps, anew=agent.num_timesteps == 0)[1]))
    try:
        agent.learn(steps, callbacks, 10, reset_num_timesteps=agent.num_timesteps == 0, progress_bar=progress_bar)
    finally:
        agent.save(folder / "model")
    console.print(
        f"learned for {(time.monotonic() - began) / 60:.1f} minutes: {agent.num_timesteps:,} environment steps, "
        f"{agent._n_updates:,} {agent.update_unit}"
    )
    if limit is not None and limit.stopped:
        console.print(
            f"[yellow]stopped early, after max_minutes={config.max_minutes:g}: "
            f"{agent.num_timesteps:,} of {config.total_timesteps:,} steps[/]"
        )


def _name(config: TrainConfig) -> str:
    tasks = config.env.env[0].replace(":", "-") if len(config.env.env) == 1 else f"{len(config.env.env)}-tasks"
    return f"{tasks}-{config.agent.combiner}-seed{config.seed}"


def _ran_with(agent: Agent, env: MultiTaskVecEnv, eval_env: MultiTaskVecEnv) -> dict[str, Any]:
    """Record of a run: the values that "auto" took, and the versions."""
    return {
        "backend": env.backend,
        "eval_backend": eval_env.backend,
        "device": str(agent.device),
        "torch_threads": torch.get_num_threads(),
        "versions": installed_versions(),
    }


def _evaluation_callback(
    config: TrainConfig,
    folder: Path,
    env: MultiTaskVecEnv,
    eval_env: MultiTaskVecEnv,
    clock: RunClock,
    then: BaseCallback | None,
) -> MTEvalCallback:
    return _Evaluation(
        clock,
        eval_env,
        callback_after_eval=then,
        n_eval_episodes=config.evaluation.eval_episodes,
        eval_freq=max(1, config.evaluation.eval_freq // env.num_envs),
        log_path=folder,
        best_model_save_path=folder,
        verbose=0,
    )


def _checkpoint_callback(
    config: TrainConfig, folder: Path, num_envs: int, eval_env: MultiTaskVecEnv
) -> MTCheckpointCallback | None:
    options = config.checkpoint
    if not options.checkpoint_every:
        return None
    freq = max(1, options.checkpoint_every // num_envs)
    kept, replay = options.checkpoints_kept, options.checkpoint_replay
    return MTCheckpointCallback(freq, folder / CHECKPOINTS, kept, replay, eval_env=eval_env)


def _draw(
    config: TrainConfig, folder: Path, history: EvaluationHistory, before: SuccessReport, after: SuccessReport
) -> None:
    titles: dict[str, Any] = {
        "env": ", ".join(config.env.env),
        "combiner": config.agent.combiner,
        "seed": config.seed,
    }
    if not np.isnan(after.mean_success):
        plot_per_task_bars(after, folder / "success_per_task.png", before=before, **titles)
    plot_success_curve(history, folder / "success_curve.png", **titles)
