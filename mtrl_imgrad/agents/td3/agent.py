"""Multi-task TD3 in SB3's style: one agent, K tasks, and a combiner between their gradients."""

from __future__ import annotations

import os
from collections.abc import Mapping
from typing import Any, ClassVar, Literal

import torch
from stable_baselines3.common.buffers import ReplayBuffer
from stable_baselines3.common.noise import ActionNoise
from stable_baselines3.common.policies import BasePolicy
from stable_baselines3.common.type_aliases import GymEnv, Schedule

from mtrl_imgrad.agents.common.execution import Compile
from mtrl_imgrad.agents.off_policy.algorithm import GradientSteps, TaskReplayAlgorithm
from mtrl_imgrad.agents.off_policy.buffer import Sampling, TaskBatch
from mtrl_imgrad.agents.td3.policy import MTTD3Policy
from mtrl_imgrad.agents.td3.update import TD3Noise, TD3Report, TD3Settings, TD3Update
from mtrl_imgrad.combiners import Combiner
from mtrl_imgrad.gradients import Heads, Precision
from mtrl_imgrad.gradients.absent_tasks import OnNonFinite
from mtrl_imgrad.validation import Count, NonNegative, NonNegativeInt, PositiveOrInf, Probability, Seed, checked


@checked
class MTTD3(TaskReplayAlgorithm):
    """Multi-task TD3: TD3 (Fujimoto et al., arXiv 1802.09477) whose K task gradients go through a combiner.

    Use it as SB3's TD3: its arguments come first, in its order. As in `MTSAC` the replay is a ring a task, batches are
    balanced, and the gradients of the shared parameters of actor and critic are combined by ``combiner``.
    ``docs/mttd3.md`` gives the losses and what differs from SB3.

    Args:
        policy: ``"MlpPolicy"`` or a subclass of `MTTD3Policy`.
        tau: step of the target networks towards the networks.
        policy_delay: updates of the critics for each of the actor and of the target networks.
        target_policy_noise: standard deviation of the noise on the target actor's actions.
        target_noise_clip: this noise stays within plus and minus this.
        policy_kwargs: arguments of `MTTD3Policy`, for instance ``dict(net_arch=[400, 300], encoder="embedding")``.
        optimize_memory_usage: SB3's, accepted with its default.
        env, learning_rate, buffer_size, learning_starts, batch_size, gamma, train_freq: as in `MTSAC`.
        gradient_steps, action_noise, replay_buffer_class, replay_buffer_kwargs, n_steps: as in `MTSAC`.
        stats_window_size, tensorboard_log, verbose, seed, device: as in `MTSAC`.
        combiner, combiner_kwargs, heads, max_grad_norm, on_nonfinite: as in `MTSAC`.
        sampling, reward_normalization, overlap, trace, compile, precision: as in `MTSAC`.

    Raises:
        UnsupportedError: if it asks for something of SB3's that is not there.
    """

    policy_aliases: ClassVar[dict[str, type[BasePolicy]]] = {"MlpPolicy": MTTD3Policy}
    policy: MTTD3Policy

    def __init__(
        self,
        policy: str | type[BasePolicy],
        env: GymEnv | str | None,
        learning_rate: NonNegative | Schedule = 1e-3,
        buffer_size: Count = 1_000_000,
        learning_starts: NonNegativeInt = 100,
        batch_size: Count | None = None,
        tau: Probability = 0.005,
        gamma: Probability = 0.99,
        train_freq: int | tuple[int, str] = 1,
        gradient_steps: GradientSteps = 1,
        action_noise: ActionNoise | None = None,
        replay_buffer_class: type[ReplayBuffer] | None = None,
        replay_buffer_kwargs: dict[str, Any] | None = None,
        optimize_memory_usage: bool = False,
        n_steps: Count = 1,
        policy_delay: Count = 2,
        target_policy_noise: NonNegative = 0.2,
        target_noise_clip: NonNegative = 0.5,
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
        max_grad_norm: PositiveOrInf | None = None,
        on_nonfinite: OnNonFinite = "raise",
        sampling: Sampling = "balanced",
        reward_normalization: Literal["std"] | None = None,
        overlap: bool = False,
        trace: bool = True,
        compile: Compile = "auto",
        precision: Precision = "float32",
    ) -> None:
        super().__init__(locals())
        self.policy_delay = policy_delay
        self.target_policy_noise = target_policy_noise
        self.target_noise_clip = target_noise_clip
        if _init_setup_model:
            self._setup_model()

    def _setup_update(self) -> TD3Update:
        self.actor_target = self.policy.actor_target
        combiners = (self.critic_combiner, self.actor_combiner)
        return TD3Update(self.policy, *combiners, self._settings(), execution=self.execution)

    def _settings(self) -> TD3Settings:
        noise = (self.target_policy_noise, self.target_noise_clip)
        return TD3Settings(self.gamma, self.tau, self._step_settings(), *noise)

    def _update_once(self, batch: TaskBatch, jacobian: bool, last: bool) -> TD3Report:
        noise = TD3Noise(self._draw_noise(batch.actions), self.update.draw_masks(batch, self.noise_generator))
        with_actor = (self._n_updates + 1) % self.policy_delay == 0
        return self.update(batch, noise, with_actor, (jacobian and last, jacobian))

    def _excluded_save_params(self) -> list[str]:
        return [*super()._excluded_save_params(), "actor_target"]
