"""Multi-task proximal policy optimization in SB3's style: one agent, K tasks, a combiner between their gradients."""

from __future__ import annotations

import math
import os
import warnings
from collections.abc import Iterator, Mapping
from typing import Annotated, Any, ClassVar, Literal, TypeVar

import torch
from annotated_types import Interval
from stable_baselines3.common.buffers import RolloutBuffer
from stable_baselines3.common.on_policy_algorithm import OnPolicyAlgorithm
from stable_baselines3.common.policies import BasePolicy
from stable_baselines3.common.type_aliases import GymEnv, MaybeCallback, Schedule

from mtrl_imgrad.agents.callbacks.progress import task_progress
from mtrl_imgrad.agents.common import unsupported
from mtrl_imgrad.agents.common.execution import Compile, make_execution
from mtrl_imgrad.agents.common.learning import failures_handled
from mtrl_imgrad.agents.common.multi_task import POLICY_ARGUMENTS, MultiTaskAlgorithm, Timesteps
from mtrl_imgrad.agents.common.schedules import as_schedule, scheduled
from mtrl_imgrad.agents.ppo.colored_noise import colored_noise
from mtrl_imgrad.agents.ppo.log import TrainingLog, log_training
from mtrl_imgrad.agents.ppo.policy import MTPPOPolicy
from mtrl_imgrad.agents.ppo.rollout import TaskRollout, TaskRolloutBuffer
from mtrl_imgrad.agents.ppo.update import AdvantageScope, PPOReport, PPOSettings, PPOUpdate
from mtrl_imgrad.combiners import Combiner
from mtrl_imgrad.errors import ArgumentError
from mtrl_imgrad.gradients import Heads, Precision
from mtrl_imgrad.gradients.absent_tasks import OnNonFinite
from mtrl_imgrad.seeding import Stream, torch_generator
from mtrl_imgrad.validation import Count, NonNegative, PositiveOrInf, Probability, Seed, checked

SelfMTPPO = TypeVar("SelfMTPPO", bound="MTPPO")
NoiseBeta = Annotated[float, Interval(ge=0, le=2)]
"""Exponent of the power spectrum 1 / f^beta of exploration noise."""
ROWS_A_TASK = 64
"""Default rows of each task in a minibatch: SB3's minibatch."""


@checked
class MTPPO(MultiTaskAlgorithm, OnPolicyAlgorithm):
    """Multi-task PPO: PPO (Schulman et al., arXiv 1707.06347) whose K task gradients go through a combiner.

    Use it as SB3's PPO: its arguments come first, in its order (``docs/sb3.md`` lists what differs). Every minibatch
    holds equally many rows of each task; actor and critic are two networks, each with a combiner, an optimizer and a
    clipped gradient of its own; the gradients of shared parameters are combined, those of a task's own parameters are
    its own. With ``combiner="linear_scalarization"`` it is plain PPO on the mean of the task losses.

    With ``value_normalization="popart"``, a critic with ``layer_norm`` and the combiners
    FairGrad (critic) and PCGrad (actor) it is our reading of TOPPO (Li et al., "TOPPO: Rethinking PPO for Multi-Task
    Reinforcement Learning with Critic Balancing", arXiv 2605.11473, whose code is not published): preset
    ``mt10_toppo``.

    Args:
        policy: ``"MlpPolicy"`` or a subclass of `MTPPOPolicy`.
        env: what `mtrl_imgrad.envs.make_vec_env` returns, with any number of environments a task; or any SB3 VecEnv or
            Gymnasium environment with flat Boxes, which is then one task. None only to load a trained agent.
        n_steps: steps of every environment in a rollout.
        batch_size: rows of a minibatch over all tasks, a multiple of K; None takes 64 a task. The last minibatch of an
            epoch holds what is left.
        n_epochs: passes over a rollout.
        gae_lambda: of the advantages.
        clip_range: of the ratio of probabilities; a number or a schedule.
        clip_range_vf: how far a value may leave that predicted when acting, a number or a schedule, in the unit in
            which values are learned (with PopArt: standard deviations); None (default) leaves it free.
        normalize_advantage: whiten advantages in each minibatch.
        ent_coef: weight of the entropy.
        vf_coef: weight of the value loss. The critic's optimizer is its own, so that with Adam it only matters to
            clipping and to combiners that look at scales.
        target_kl: stop a training before the first update at which the approximate KL divergence, over all tasks,
            exceeds 1.5 times this. Costs one copy to the host an epoch. None (default) makes all epochs.
        policy_kwargs: arguments of `MTPPOPolicy`, for instance ``dict(net_arch=[64, 64], layer_norm=dict(pi=False,
            vf=True))``.
        use_sde, sde_sample_freq, rollout_buffer_class, rollout_buffer_kwargs: SB3's, accepted with its defaults.
        advantage_scope: over each task's own rows (``"task"``, default: another task's mean is no baseline), or over
            all rows of the minibatch (``"batch"``). With one task both are SB3's.
        value_normalization: None, or ``"popart"``: learn each task's values in the unit of their own running mean and
            deviation, see `mtrl_imgrad.agents.ppo.popart.PopArt`.
        value_normalization_kwargs: its ``beta`` and ``min_std``.
        noise_beta: exponent in [0, 2] of the power spectrum 1 / f^beta of the noise in a rollout's actions. 0
            (default) is SB3's white noise, 1 pink noise, which explores where an action counts only if it lasts; see
            `mtrl_imgrad.agents.ppo.colored_noise`. A rollout of ``n_steps`` is one piece of noise. A schedule from 1
            to 0 explores first and refines at last.
        learning_rate, gamma, stats_window_size, tensorboard_log, verbose, seed, device: as in `MTSAC`.
        combiner, combiner_kwargs, heads, max_grad_norm, on_nonfinite, trace, compile, precision: as in `MTSAC`.

    Raises:
        UnsupportedError: if it asks for something of SB3's that is not there.
    """

    policy_aliases: ClassVar[dict[str, type[BasePolicy]]] = {"MlpPolicy": MTPPOPolicy}
    update_unit = "epochs of updates"
    set_by_agent: ClassVar[dict[str, set[str]]] = {
        "policy_kwargs": POLICY_ARGUMENTS | {"value_normalization", "value_normalization_kwargs"},
    }
    fixed_by_save = MultiTaskAlgorithm.fixed_by_save | {"value_normalization", "value_normalization_kwargs"}
    refusals = unsupported.PPO_ARGUMENTS
    policy: MTPPOPolicy  # type: ignore[assignment]
    last_report: PPOReport | None
    rollout_buffer: TaskRolloutBuffer
    noise_beta: Any

    def __init__(
        self,
        policy: str | type[BasePolicy],
        env: GymEnv | str | None,
        learning_rate: NonNegative | Schedule = 3e-4,
        n_steps: Count = 2048,
        batch_size: Count | None = None,
        n_epochs: Count = 10,
        gamma: Probability = 0.99,
        gae_lambda: Probability = 0.95,
        clip_range: PositiveOrInf | Schedule = 0.2,
        clip_range_vf: PositiveOrInf | Schedule | None = None,
        normalize_advantage: bool = True,
        ent_coef: NonNegative = 0.0,
        vf_coef: NonNegative = 0.5,
        max_grad_norm: PositiveOrInf | None = 0.5,
        use_sde: bool = False,
        sde_sample_freq: int = -1,
        rollout_buffer_class: type[RolloutBuffer] | None = None,
        rollout_buffer_kwargs: dict[str, Any] | None = None,
        target_kl: PositiveOrInf | None = None,
        stats_window_size: Count = 100,
        tensorboard_log: str | os.PathLike[str] | None = None,
        policy_kwargs: dict[str, Any] | None = None,
        verbose: int = 0,
        seed: Seed | None = None,
        device: torch.device | str = "auto",
        _init_setup_model: bool = True,
        *,
        combiner: str | Combiner | Mapping[str, str | Combiner] = "imgrad",
        combiner_kwargs: Mapping[str, Any] | None = None,
        heads: Heads = "unweighted",
        on_nonfinite: OnNonFinite = "raise",
        advantage_scope: AdvantageScope = "task",
        value_normalization: Literal["popart"] | None = None,
        value_normalization_kwargs: Mapping[str, Any] | None = None,
        noise_beta: NoiseBeta | Schedule = 0.0,
        trace: bool = True,
        compile: Compile = "auto",
        precision: Precision = "float32",
    ) -> None:
        if noise_beta and n_steps < 2:  # a schedule is true
            raise ArgumentError(f"n_steps must be at least 2 for noise_beta={noise_beta}, got {n_steps}")
        super().__init__(locals(), _init_setup_model=False)
        self.batch_size = batch_size
        self.n_epochs = n_epochs
        self.clip_range = clip_range
        self.clip_range_vf = clip_range_vf
        self.normalize_advantage = normalize_advantage
        self.advantage_scope = advantage_scope
        self.value_normalization = value_normalization
        self.value_normalization_kwargs = value_normalization_kwargs
        self.noise_beta = noise_beta
        self.target_kl = target_kl
        if _init_setup_model:
            self._setup_model()

    # ------------------------------------------------------------------ set-up

    def _setup_model(self) -> None:
        self._setup_tasks()
        self._setup_batches()
        self._setup_lr_schedule()
        self.clip_range = as_schedule(self.clip_range)
        self.noise_beta = as_schedule(self.noise_beta)
        if self.clip_range_vf is not None:
            self.clip_range_vf = as_schedule(self.clip_range_vf)
        self.set_random_seed(self.seed)
        self.rollout_buffer = TaskRolloutBuffer(
            self.n_steps,
            self.observation_space,
            self.action_space,
            self.device,
            self.gae_lambda,
            self.gamma,
            self.n_envs,
            task_names=self.tasks.names,
            seed=self.seed,
        )
        self._setup_policy(
            value_normalization=self.value_normalization,
            value_normalization_kwargs=self.value_normalization_kwargs,
        )
        self.mask_generator = torch_generator(self.seed, Stream.UPDATE, device=self.device)
        self.execution = make_execution(self)
        self.update = PPOUpdate(
            self.policy, self.actor_combiner, self.critic_combiner, self.execution, generator=self.mask_generator
        )

    def _setup_batches(self) -> None:
        if self.batch_size is None:
            self.batch_size = ROWS_A_TASK * self.num_tasks
        rows, rest = divmod(self.batch_size, self.num_tasks)
        if rest:
            raise ArgumentError(f"batch_size must be a multiple of the {self.num_tasks} tasks, got {self.batch_size}")
        left = self.n_steps * self.tasks.envs_per_task % rows  # of each task, in an epoch's last minibatch
        counted = min(rows, self.n_steps * self.tasks.envs_per_task)
        counted *= 1 if self.advantage_scope == "task" else self.num_tasks
        if self.normalize_advantage and counted < 2:
            raise ArgumentError(
                f"batch_size must be larger for normalize_advantage, or n_steps: {counted} rows "
                f"give the advantages of a {self.advantage_scope} no deviation"
            )
        if self.normalize_advantage and left * (1 if self.advantage_scope == "task" else self.num_tasks) == 1:
            warnings.warn(
                f"there will be a truncated mini-batch of size {left * self.num_tasks}, whose advantages have no "
                f"deviation: give a batch_size that divides the {self.n_steps * self.n_envs} transitions of a rollout",
                stacklevel=2,
            )

    # ------------------------------------------------------------------ learning

    @checked
    def learn(
        self: SelfMTPPO,
        total_timesteps: Timesteps,
        callback: MaybeCallback = None,
        log_interval: Count | None = 1,
        tb_log_name: str = "MTPPO",
        reset_num_timesteps: bool = True,
        progress_bar: bool = False,
    ) -> SelfMTPPO:
        """As in SB3. ``total_timesteps`` counts the steps of all environments together.

        Args:
            total_timesteps: environment steps over all tasks; rounded up to whole rollouts.
            callback: SB3 callback or list of them.
            log_interval: rollouts between logs, counted from the agent's first (SB3: from this call's first).
            tb_log_name: name of the TensorBoard run.
            reset_num_timesteps: whether to count from 0 again.
            progress_bar: show progress, success overall and of each task.

        Raises:
            EnvironmentFaultError: if an environment produced a NaN or an infinity, naming where. Nothing has learned
                from it, and another ``learn`` goes on with new episodes.
            NonFiniteError: if an update produced one; parameters stay finite.
        """
        self._log_interval = log_interval
        self._check_learns()
        with failures_handled(self, callback), task_progress(callback, progress_bar) as callbacks:
            return super().learn(int(total_timesteps), callbacks, 1, tb_log_name, reset_num_timesteps)

    def collect_rollouts(self, *args: Any, **kwargs: Any) -> bool:
        """As in SB3, with the noise that ``noise_beta`` says."""
        beta = scheduled("noise_beta", self.noise_beta, self._current_progress_remaining)
        if beta:
            shape = (self.n_envs, math.prod(self.action_space.shape or ()))
            self.policy.noise = iter(colored_noise(self.n_steps, shape, beta, self.device))
        try:
            return super().collect_rollouts(*args, **kwargs)
        finally:
            self.policy.noise = None

    def train(self) -> None:
        """Make ``n_epochs`` passes over the rollout, fewer if ``target_kl`` says so, and log them."""
        rollout = self.rollout_buffer.rollout()
        self.policy.set_training_mode(True)
        self._update_learning_rate([self.actor.optimizer, self.critic.optimizer])
        self.update.begin(self._settings(), rollout.returns)
        jacobian, self.wants_jacobian = self.wants_jacobian, False
        log = TrainingLog()
        for epoch in range(self.n_epochs):
            batches = list(self._minibatches(rollout))
            for batch in batches:
                report = self.update(batch, jacobian=jacobian and batch is batches[-1])
                log.add(report)
                self._count_non_finite(report, self._n_updates + 1)
            self._n_updates += 1
            if self.target_kl is not None and not bool(self.update.within_kl):
                if self.verbose >= 1:
                    print(f"stopped in epoch {epoch + 1}: the KL divergence exceeds 1.5 times target_kl")
                break
        self.last_report = report
        log_training(self, log, len(batches))

    def _minibatches(self, rollout: TaskRollout) -> Iterator[TaskRollout]:
        assert self.batch_size is not None
        return self.rollout_buffer.minibatches(rollout, self.batch_size // self.num_tasks)

    def _settings(self) -> PPOSettings:
        left, of_values = self._current_progress_remaining, self.clip_range_vf
        return PPOSettings(
            clip_range=scheduled("clip_range", self.clip_range, left, finite=False),  # type: ignore[arg-type]
            clip_range_vf=None if of_values is None else scheduled("clip_range_vf", of_values, left, finite=False),  # type: ignore[arg-type]
            ent_coef=self.ent_coef,
            vf_coef=self.vf_coef,
            normalize_advantage=self.normalize_advantage,
            advantage_scope=self.advantage_scope,
            target_kl=self.target_kl,
            step=self._step_settings(),
        )

    def _updates_in(self, total_timesteps: int) -> int:
        assert self.batch_size is not None
        rollouts = -(-total_timesteps // (self.n_steps * self.n_envs))
        return rollouts * self.n_epochs * -(-self.n_steps * self.n_envs // self.batch_size)

    # ------------------------------------------------------------------ logs

    def dump_logs(self, iteration: int = 0) -> None:
        """Write SB3's rollout logs and each task's success rate, where ``log_interval`` says so.

        SB3's count of iterations begins anew with each `learn`; here it goes on, so that a resumed run logs as it
        would have without the break.
        """
        iteration = self.num_timesteps // (self.n_steps * self.n_envs)
        if self._log_interval is None or iteration % self._log_interval:
            return
        with self._success_by_task():
            super().dump_logs(iteration)

    # ------------------------------------------------------------------ save and load

    def _excluded_save_params(self) -> list[str]:
        return [*super()._excluded_save_params(), "mask_generator"]

    def _streams(self) -> dict[str, tuple[torch.Generator, Stream]]:
        return {
            "minibatches": (self.rollout_buffer.generator, Stream.MINIBATCHES),
            "masks": (self.mask_generator, Stream.UPDATE),
        }
