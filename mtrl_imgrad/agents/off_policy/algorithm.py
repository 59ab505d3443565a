"""Off-policy agents with a replay by task: set-up, learning, training, saving and loading of the replay."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Mapping
from typing import Annotated, Any, ClassVar, Self

import torch
from annotated_types import Ge
from stable_baselines3.common.callbacks import BaseCallback
from stable_baselines3.common.off_policy_algorithm import OffPolicyAlgorithm
from stable_baselines3.common.save_util import open_path
from stable_baselines3.common.type_aliases import MaybeCallback, RolloutReturn, TrainFrequencyUnit
from stable_baselines3.common.vec_env import VecEnv
from torch import Tensor

from mtrl_imgrad.agents.callbacks.progress import task_progress
from mtrl_imgrad.agents.checkpoints.generators import noise_state, restore_noise
from mtrl_imgrad.agents.checkpoints.parts import Part
from mtrl_imgrad.agents.checkpoints.plain_values import CLASSES
from mtrl_imgrad.agents.common import unsupported
from mtrl_imgrad.agents.common.arguments import check_replay_class
from mtrl_imgrad.agents.common.environments import parse_train_freq
from mtrl_imgrad.agents.common.execution import make_execution
from mtrl_imgrad.agents.common.learning import failures_handled, raise_non_finite
from mtrl_imgrad.agents.common.multi_task import POLICY_ARGUMENTS, MultiTaskAlgorithm, Timesteps
from mtrl_imgrad.agents.common.saving import save_to
from mtrl_imgrad.agents.common.task_log import record_per_task
from mtrl_imgrad.agents.off_policy.buffer import Sampling, TaskBatch, TaskReplayBuffer
from mtrl_imgrad.agents.off_policy.overlap import UpdatesWhileStepping
from mtrl_imgrad.agents.off_policy.policy import TwinCriticPolicy
from mtrl_imgrad.agents.off_policy.update import UpdateSettings
from mtrl_imgrad.combiners import Status
from mtrl_imgrad.errors import ArgumentError, TaskMismatchError
from mtrl_imgrad.seeding import Stream, torch_generator
from mtrl_imgrad.validation import Count, checked

GradientSteps = Annotated[int, Ge(-1)]
"""Updates a training; -1 makes as many as transitions were collected."""
BUFFER_ARGUMENTS = {"buffer_size", "observation_space", "action_space", "device", "n_envs", "task_names", "seed"}
BUFFER_ARGUMENTS |= {"n_steps", "gamma", "sampling", "reward_normalization"}
"""Arguments of the replay buffer that the agent sets."""
CLASSES["TaskReplayBuffer"] = TaskReplayBuffer  # as replay_buffer_class
ROWS_A_TASK = 128
"""Default rows of each task in a batch (Meta-World's MTSAC)."""


class TaskReplayAlgorithm(MultiTaskAlgorithm, OffPolicyAlgorithm):
    """An off-policy algorithm whose replay is a `TaskReplayBuffer` and whose policy is a `TwinCriticPolicy`.

    An agent says what it adds: ``_setup_update``, ``_update_once``, its logs (``_measures``, ``_record_measures``).

    Args:
        arguments: of the agent's constructor, by name: its ``locals()``.
    """

    set_by_agent: ClassVar[dict[str, set[str]]] = {
        "policy_kwargs": POLICY_ARGUMENTS,
        "replay_buffer_kwargs": BUFFER_ARGUMENTS,
    }
    refusals = unsupported.SAC_ARGUMENTS
    policy: TwinCriticPolicy
    replay_buffer: TaskReplayBuffer
    update: Any
    _updated_while_stepping = False

    def __init__(self, arguments: Mapping[str, Any]) -> None:
        super().__init__(arguments, support_multi_env=True, sde_support=False)
        given, kwargs = self.replay_buffer_class, self.replay_buffer_kwargs
        check_replay_class(type(self).__name__, given, TaskReplayBuffer, kwargs, BUFFER_ARGUMENTS)
        self.sampling: Sampling = arguments["sampling"]
        self.reward_normalization = arguments["reward_normalization"]
        self.overlap: bool = arguments["overlap"]

    # ------------------------------------------------------------------ hooks of an agent

    @abstractmethod
    def _setup_update(self) -> Any:
        """The agent's `OffPolicyUpdate`, made once the policy is there."""

    @abstractmethod
    def _update_once(self, batch: TaskBatch, jacobian: bool, last: bool) -> Any:
        """Make one update.

        Args:
            batch: task-major rows.
            jacobian: whether this training is to take per-task gradients, for diagnostics.
            last: whether it is the training's last update.

        Returns:
            A report with ``critic_losses``, ``actor_losses`` (``[K]``), ``critic``, ``actor`` (combinations) and
            ``finite``; None for what belongs to an actor that was not updated.
        """

    def _optimizers(self) -> list[Any]:
        """Optimizers whose learning rate follows the schedule."""
        return [self.actor.optimizer, self.critic.optimizer]

    def _settings(self) -> UpdateSettings:
        return UpdateSettings(self.gamma, self.tau, self._step_settings())

    def _measures(self, report: Any) -> Tensor:
        """Numbers of the latest report that the log wants."""
        return torch.zeros(0, device=self.device)

    def _record_measures(self, values: list[float]) -> None:
        """Record `_measures`, on the host."""

    # ------------------------------------------------------------------ set-up

    def _setup_model(self) -> None:
        self._setup_tasks()
        if self.batch_size is None:
            self.batch_size = ROWS_A_TASK * self.tasks.num_tasks
        if self.sampling == "balanced" and (self.batch_size < 1 or self.batch_size % self.tasks.num_tasks):
            raise ArgumentError(
                f"batch_size must be a multiple of the {self.tasks.num_tasks} tasks, got {self.batch_size}"
            )
        self._convert_train_freq()
        self._setup_lr_schedule()
        self.set_random_seed(self.seed)
        if self.replay_buffer is None:
            self.replay_buffer = self._make_replay_buffer()
        self._setup_policy()
        self.critic_target = self.policy.critic_target
        self.execution = make_execution(self)
        self.update = self._setup_update()
        self.noise_generator = torch_generator(self.seed, Stream.UPDATE, device=self.device)

    def _convert_train_freq(self) -> None:
        train_freq = parse_train_freq(self.train_freq, self.n_envs)
        if self.overlap and train_freq.unit == TrainFrequencyUnit.EPISODE:
            raise ArgumentError("overlap=True needs a train_freq that counts steps, got 'episode'")
        self.train_freq = train_freq  # type: ignore[assignment]

    def _make_replay_buffer(self) -> TaskReplayBuffer:
        normalization = self.get_vec_normalize_env()
        if self.reward_normalization is not None and normalization is not None and normalization.norm_reward:
            raise ArgumentError("reward_normalization must be None where a VecNormalize does it, got 'std'")
        options = {
            **self.replay_buffer_kwargs,
            "task_names": self.tasks.names,
            "sampling": self.sampling,
            "reward_normalization": self.reward_normalization,
            "n_steps": self.n_steps,
            "gamma": self.gamma,
            "seed": self.seed,
        }
        buffer_class: Any = self.replay_buffer_class or TaskReplayBuffer
        return buffer_class(
            self.buffer_size,
            self.observation_space,
            self.action_space,
            device=self.device,
            n_envs=self.n_envs,
            **options,
        )

    # ------------------------------------------------------------------ learning

    @checked
    def learn(
        self,
        total_timesteps: Timesteps,
        callback: MaybeCallback = None,
        log_interval: Count | None = 4,
        tb_log_name: str | None = None,
        reset_num_timesteps: bool = True,
        progress_bar: bool = False,
    ) -> Self:
        """As in SB3. ``total_timesteps`` counts the steps of all environments together.

        Args:
            total_timesteps: environment steps over all tasks.
            callback: SB3 callback or list of them.
            log_interval: episodes between logs; None writes none.
            tb_log_name: name of the TensorBoard run; None takes the agent's.
            reset_num_timesteps: whether to count from 0 again.
            progress_bar: show progress, success overall and of each task.

        Raises:
            EnvironmentFaultError: if an environment produced a NaN or an infinity, naming where. Nothing has learned
                from it, and another ``learn`` goes on with new episodes.
            NonFiniteError: if an update produced one; parameters stay finite.
        """
        self._check_learns()
        steps, name = int(total_timesteps), tb_log_name or type(self).__name__
        with failures_handled(self, callback), task_progress(callback, progress_bar) as callbacks:
            return super().learn(steps, callbacks, log_interval, name, reset_num_timesteps)  # type: ignore[arg-type]

    def collect_rollouts(self, env: VecEnv, *args: Any, **kwargs: Any) -> RolloutReturn:
        """As in SB3; with ``overlap`` this rollout's updates are made during its first step."""
        if self.overlap and self.replay_buffer.size() > 0:
            env = UpdatesWhileStepping(env, self._update_while_stepping)
        self._updated_while_stepping = False
        rollout = super().collect_rollouts(env, *args, **kwargs)
        if not rollout.continue_training:  # SB3's learn then asks for no updates
            self._updated_while_stepping = False
        return rollout

    def _update_while_stepping(self) -> None:
        """The updates that SB3 would make after this rollout."""
        steps = self.train_freq.frequency * self.n_envs  # type: ignore[union-attr]
        updates = self.gradient_steps if self.gradient_steps >= 0 else steps
        if self.num_timesteps + steps > self.learning_starts and updates > 0:
            try:
                self.train(updates)
            except BaseException:
                self._last_obs = None  # nobody receives the step under way: the next learn begins new episodes
                raise
            self.policy.set_training_mode(False)
            self._updated_while_stepping = True

    def train(self, gradient_steps: int, batch_size: int = 0) -> None:
        """Make ``gradient_steps`` updates on batches of ``batch_size`` rows and log the last one."""
        if self._updated_while_stepping:  # SB3's learn asks once more for what was made
            self._updated_while_stepping = False
            return
        self.policy.set_training_mode(True)
        self._update_learning_rate(self._optimizers())
        self.update.begin(self._settings())
        jacobian, self.wants_jacobian = self.wants_jacobian, False
        actor: tuple[Any, Any] | None = None  # losses and combination of its latest update in this training
        applied = torch.zeros((), device=self.device)  # updates before the first that was not finite
        losses = torch.zeros(2, self.num_tasks, device=self.device)  # of that update, or else of the last
        statuses = torch.zeros(2, dtype=torch.int64, device=self.device)  # likewise
        for step in range(gradient_steps):
            batch = self.replay_buffer.sample(batch_size or self.batch_size, env=self._vec_normalize_env)
            report = self._update_once(batch, jacobian, step == gradient_steps - 1)
            actor = actor if report.actor is None else (report.actor_losses, report.actor)
            actor_losses, status = (losses[1], statuses[1]) if actor is None else (actor[0], actor[1].status_code)
            # Stays on the device: once an update was not finite, `applied` stands still, and these are its numbers.
            losses = torch.where(applied == step, torch.stack([report.critic_losses, actor_losses]), losses)
            statuses = torch.where(applied == step, torch.stack([report.critic.status_code, status]), statuses)
            applied = applied + report.finite
            self._n_updates += 1
            self._count_non_finite(report, self._n_updates)
        if report.actor is None:  # the latest combination of the actor stays the one to look at
            latest = actor[1] if actor is not None else self.last_combinations.get("actor")
            report = report._replace(actor=latest)
        self.wants_jacobian = jacobian and actor is None  # until every network has answered
        self.last_report = report
        self._log_update(report, losses, statuses, gradient_steps - applied, with_actor=actor is not None)

    def _updates_in(self, total_timesteps: int) -> int:
        if self.gradient_steps < 0:
            return total_timesteps
        frequency, unit = self.train_freq  # type: ignore[misc]
        if unit == TrainFrequencyUnit.EPISODE:
            return 0
        return total_timesteps // (frequency * self.n_envs) * self.gradient_steps

    def _draw_noise(self, like: Tensor) -> Tensor:
        return torch.randn(like.shape, generator=self.noise_generator, device=self.device)

    def _log_update(self, report: Any, losses: Tensor, statuses: Tensor, skipped: Tensor, with_actor: bool) -> None:
        """Record the latest update: the one copy from the device that a training makes."""
        means = torch.where(losses.isfinite(), losses, torch.nan).nanmean(1)  # of those that are
        tensors = (means, skipped, losses[0], self._measures(report))
        critic_loss, actor_loss, num_skipped, *rest = torch.cat(
            [tensor.reshape(-1).double() for tensor in tensors]
        ).tolist()
        by_task, measures = rest[: self.num_tasks], rest[self.num_tasks :]
        if num_skipped:
            self._n_updates -= int(num_skipped)
            critic, actor = (Status(code) for code in statuses.tolist())
            by_side = dict(zip(("critic", "actor"), losses.tolist(), strict=True))
            where = f"in update {self._n_updates + 1}; neither its step nor any later one was applied"
            raise_non_finite(self, by_side, {"critic": critic, "actor": actor}, where)
        self.logger.record("train/n_updates", self._n_updates, exclude="tensorboard")
        if with_actor:
            self.logger.record("train/actor_loss", actor_loss)
        self.logger.record("train/critic_loss", critic_loss)
        if self.num_tasks > 1:
            record_per_task(self.logger, "train/critic_loss", self.tasks.names, by_task, on_screen=False)
        self._record_measures(measures)
        self._record_non_finite()

    def dump_logs(self) -> None:
        """Write SB3's rollout logs and each task's success rate."""
        with self._success_by_task():
            super().dump_logs()

    # ------------------------------------------------------------------ the replay

    def save_replay_buffer(self, path: Any) -> None:
        """As in SB3, but a file that was there stays until the new one is whole.

        Raises:
            CheckpointError: if the path cannot be written; what it held before is still there.
        """
        save_to(path, "pkl", super().save_replay_buffer)

    def load_replay_buffer(self, path: Any, truncate_last_traj: bool = True) -> None:
        """As in SB3; the buffer must be of the agent's tasks, and moves to its device.

        Args:
            path: of what ``save_replay_buffer`` wrote.
            truncate_last_traj: whether its latest episodes end there; False if the agent goes on in them.

        Raises:
            ArgumentError: if it is no replay buffer, or a damaged one; the agent keeps the buffer that it has.
            TaskMismatchError: if it is of other tasks.
        """
        before = self.replay_buffer
        file = open_path(path, "r", self.verbose, suffix="pkl")
        try:
            super().load_replay_buffer(file)
            loaded = self.replay_buffer
        except Exception as error:  # of unpickling, which may raise anything
            raise ArgumentError(f"path must be of what save_replay_buffer wrote, got {path}: {error}") from error
        finally:
            self.replay_buffer = before
            if file is not path:
                file.close()
        if not isinstance(loaded, TaskReplayBuffer):
            raise TaskMismatchError(f"{path} holds a {type(loaded).__name__}, the agent needs a TaskReplayBuffer")
        loaded.check_fits(self.tasks.names, self.n_envs, self.observation_space, self.action_space)
        loaded.n_steps, loaded.gamma = self.n_steps, self.gamma
        if truncate_last_traj:
            loaded.end_episodes()
        self.replay_buffer = loaded.to(self.device)

    def _setup_learn(
        self,
        total_timesteps: int,
        callback: MaybeCallback = None,
        reset_num_timesteps: bool = True,
        tb_log_name: str = "run",
        progress_bar: bool = False,
    ) -> tuple[int, BaseCallback]:
        if reset_num_timesteps or self._last_obs is None:  # SB3 then begins new episodes, and tells the replay nothing
            self.replay_buffer.end_episodes()
        noise = [] if reset_num_timesteps else noise_state(self.action_noise)
        setup = super()._setup_learn(total_timesteps, callback, reset_num_timesteps, tb_log_name, progress_bar)
        self.action_noise = restore_noise(self.action_noise, noise)  # which SB3 resets, episodes going on or not
        return setup

    # ------------------------------------------------------------------ save and load

    def _excluded_save_params(self) -> list[str]:
        return [*super()._excluded_save_params(), "critic_target", "noise_generator"]

    def _streams(self) -> dict[str, tuple[torch.Generator, Stream]]:
        return {
            "noise": (self.noise_generator, Stream.UPDATE),
            "sampling": (self.replay_buffer.generator, Stream.REPLAY),
        }

    def _checkpoint_parts(self) -> dict[str, Part]:
        return {
            **super()._checkpoint_parts(),
            "action_noise": Part(lambda: noise_state(self.action_noise), self._set_noise),
            "replay": Part(self.replay_buffer.get_state, self._set_replay),
        }

    def _set_noise(self, state: Any) -> None:
        self.action_noise = restore_noise(self.action_noise, state)

    def _set_replay(self, state: Any) -> str | None:
        if state is not None:
            self.replay_buffer.set_state(state)
        elif self.num_timesteps > 0:
            return "it was saved without its replay; an empty one begins, which gives few transitions at first"
        return None
