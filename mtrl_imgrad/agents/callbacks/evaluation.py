"""Evaluation by success while learning; works with any SB3 agent on a `MultiTaskVecEnv`."""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np
from stable_baselines3.common.callbacks import BaseCallback, EventCallback
from stable_baselines3.common.vec_env import VecEnv, sync_envs_normalization

from mtrl_imgrad.agents.common.task_log import record_per_task
from mtrl_imgrad.errors import ArgumentError, TaskMismatchError
from mtrl_imgrad.evaluation.history import EvaluationHistory
from mtrl_imgrad.evaluation.report import SuccessReport
from mtrl_imgrad.evaluation.success import check_evaluation_env, evaluate_success
from mtrl_imgrad.seeding import Stream, stream_seed
from mtrl_imgrad.validation import Count, checked


@checked
class MTEvalCallback(EventCallback):
    """Evaluates every task now and then, and keeps the best model by success.

    As SB3's ``EvalCallback``, but a model is the best by its mean success, never by its reward (of two
    equals the later one), and every task is evaluated and logged on its own: ``eval/success_rate``,
    ``eval/success_rate/<task>``, ``eval/mean_reward``, ``eval/mean_ep_length``, ``eval/episodes`` (of each task).

    A task whose environment says nothing of success has no success rate; ``eval/mean_reward/<task>`` is logged
    instead, and its part in the choice of the best is its normalized return: 0 is its lowest mean return in the
    evaluations so far (that of the untrained agent included, where there is one), 1 its highest
    (`EvaluationHistory.scores`).

    The best of many noisy evaluations looks better than it is: report a final model, or evaluate that anew.

    A training that goes on (``learn(..., reset_num_timesteps=False)``, also of a loaded agent) continues the
    ``evaluations.npz`` of ``log_path`` and evaluates at the steps at which it would have without the break.

    Args:
        eval_env: a multi-task environment of its own.
        callback_on_new_best: child called when there is a new best model.
        callback_after_eval: child called after every evaluation. Children find this callback as ``parent``.
        n_eval_episodes: episodes for each task.
        eval_freq: calls between evaluations, that is, steps of the vector environment.
        log_path: folder of ``evaluations.npz``, an `EvaluationHistory`, written each time, all or nothing.
        best_model_save_path: folder in which ``best_model`` is saved.
        deterministic: act by the mean of the policy; False samples, by noise that follows from the agent's ``seed``.
        verbose: 0 prints nothing, 1 a line an evaluation, 2 the table of tasks.

    Attributes:
        last_report: the latest `SuccessReport`, None before the first.
        best_report: `SuccessReport` of the best model so far, None before the first.
        evaluations: `EvaluationHistory` of all evaluations.

    Raises:
        ArgumentError: when learning starts, if ``eval_env`` is the training environment or has no tasks.
        TaskMismatchError: when learning starts, if the agent was made for other tasks.
    """

    def __init__(
        self,
        eval_env: VecEnv,
        callback_on_new_best: BaseCallback | None = None,
        callback_after_eval: BaseCallback | None = None,
        n_eval_episodes: Count = 50,
        eval_freq: Count = 10_000,
        log_path: str | os.PathLike[str] | None = None,
        best_model_save_path: str | os.PathLike[str] | None = None,
        deterministic: bool = True,
        verbose: int = 1,
    ) -> None:
        super().__init__(callback_after_eval, verbose=verbose)
        self.callback_on_new_best = callback_on_new_best
        if callback_on_new_best is not None:
            callback_on_new_best.parent = self
        self.eval_env = eval_env
        self.n_eval_episodes = n_eval_episodes
        self.eval_freq = eval_freq
        self.log_path = None if log_path is None else Path(log_path) / "evaluations.npz"
        self.best_model_save_path = None if best_model_save_path is None else Path(best_model_save_path)
        self.deterministic = deterministic
        self.last_report: SuccessReport | None = None
        self.best_report: SuccessReport | None = None
        self.evaluations = EvaluationHistory(getattr(eval_env, "task_names", []))

    @property
    def best_mean_success(self) -> float:
        """Mean success of the best model so far; -inf before the first, NaN where no task has a notion of success."""
        return -np.inf if self.best_report is None else self.best_report.mean_success

    @property
    def best_mean_reward(self) -> float:
        """The best mean *success*, under the name by which SB3's stopping callbacks ask their parent.

        So ``StopTrainingOnRewardThreshold(0.9)`` stops at 90 % success. Where no task has a notion of success it is
        the mean return of the best model.
        """
        if self.best_report is not None and not self.best_report.has_success.any():  # type: ignore[union-attr]
            return float(self.best_report.returns.mean())
        return self.best_mean_success

    def _init_callback(self) -> None:
        check_evaluation_env(self.model, self.eval_env)
        if self.callback_on_new_best is not None:
            self.callback_on_new_best.init_callback(self.model)

    def _on_training_start(self) -> None:
        super()._on_training_start()
        if self.callback_on_new_best is not None:
            self.callback_on_new_best.on_training_start(self.locals, self.globals)
        if self.n_calls == 0 and self.num_timesteps > 0:
            self._continue()
        elif len(self.evaluations) and self.num_timesteps <= self.evaluations.timesteps[-1]:
            self.evaluations = self.evaluations.until(self.num_timesteps)  # counting began anew

    def _continue(self) -> None:
        """Take up a training that an earlier process began."""
        self.n_calls = self.num_timesteps // self.training_env.num_envs
        if self.log_path is None or not self.log_path.exists():
            return
        history = EvaluationHistory.load(self.log_path)
        if history.task_names != self.evaluations.task_names:
            raise TaskMismatchError(
                f"{self.log_path} is of {history.task_names}, eval_env of {self.evaluations.task_names}"
            )
        self.evaluations = EvaluationHistory(history.task_names, history.confidence)
        for when, report in zip(history.timesteps.tolist(), history.reports, strict=True):
            if when <= self.num_timesteps:
                self.evaluations.append(when, report)
                if when > 0 and self._is_best(report):  # 0: the untrained agent, which is not saved
                    self.best_report = report

    def _on_step(self) -> bool:
        if self.n_calls % self.eval_freq:
            return True
        self._copy_normalization()
        seed = self.model.seed  # of sampled actions: others at each evaluation, the same in a run that is repeated
        seed = None if seed is None else stream_seed(seed, Stream.EVALUATION, self.num_timesteps)
        report = evaluate_success(self.model, self.eval_env, self.n_eval_episodes, self.deterministic, seed=seed)
        self.last_report = report
        self.evaluations.append(self.num_timesteps, report)
        if self.log_path is not None:
            self.evaluations.save(self.log_path)
        self.record(report)
        self._print(report, self._is_best(report))
        proceed = self._save_if_best(report)
        return self._on_event() and proceed

    def _copy_normalization(self) -> None:
        if self.model.get_vec_normalize_env() is None:
            return
        try:
            sync_envs_normalization(self.training_env, self.eval_env)
        except (AttributeError, AssertionError) as error:
            raise ArgumentError("eval_env must be wrapped as the training environment is") from error

    def _is_best(self, report: SuccessReport) -> bool:
        """Whether the latest of the evaluations is the best so far."""
        if self.best_report is None:
            return True
        if report.has_success.all():  # type: ignore[union-attr]
            return report.mean_success >= self.best_report.mean_success
        scores = self.evaluations.scores[self.evaluations.timesteps > 0]
        return bool(scores[-1] >= scores.max())

    def _save_if_best(self, report: SuccessReport) -> bool:
        if not self._is_best(report):
            return True
        self.best_report = report
        if self.best_model_save_path is not None:
            self.best_model_save_path.mkdir(parents=True, exist_ok=True)
            self.model.save(self.best_model_save_path / "best_model")
        return self.callback_on_new_best is None or self.callback_on_new_best.on_step()

    def record(self, report: SuccessReport) -> None:
        """Log a report as this callback logs its own, with the agent's steps, and dump the log."""
        names, known = np.array(report.task_names), report.has_success
        assert known is not None
        record_per_task(self.logger, "eval/success_rate", names[known].tolist(), report.success_rate[known])
        record_per_task(self.logger, "eval/mean_reward", names[~known].tolist(), report.returns[~known].mean(axis=1))
        if known.any():
            self.logger.record("eval/success_rate", report.mean_success)
        self.logger.record("eval/mean_reward", float(report.returns.mean()))
        self.logger.record("eval/mean_ep_length", float(report.lengths.mean()))
        self.logger.record("eval/episodes", report.num_episodes)
        self.logger.record("time/total_timesteps", self.model.num_timesteps, exclude="tensorboard")
        self.logger.dump(self.model.num_timesteps)

    def _print(self, report: SuccessReport, best: bool) -> None:
        if self.verbose >= 2:
            print(report)
        elif self.verbose == 1:
            low, high = report.mean_interval
            success = "-" if np.isnan(report.mean_success) else f"{report.mean_success:.3f} [{low:.3f}, {high:.3f}]"
            print(
                f"evaluation at {self.num_timesteps:,} timesteps, {report.num_episodes} episodes a task: success "
                f"{success}{', the best so far' if best else ''}; return {report.returns.mean():.4g}"
            )
