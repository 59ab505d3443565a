"""Actor, twin critics and the policy that holds them, for any task-conditioned encoder.

The classes mirror SB3's SAC policy (names, `predict`, `save`), with two differences: the networks are encoders that
are told the task, and the sampling of actions is a pure function of the noise, so that an update can be compiled,
captured and repeated.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from gymnasium import spaces
from stable_baselines3.common.policies import BaseModel, BasePolicy
from stable_baselines3.common.type_aliases import PyTorchObs, Schedule
from torch import Tensor, nn

from mtrl_imgrad.agents.common.base_policy import MTPolicy, NetArch, spaces_of, split_observation
from mtrl_imgrad.agents.encoders import Encoder
from mtrl_imgrad.errors import ArgumentError
from mtrl_imgrad.validation import checked

__all__ = ["MTActor", "MTCritic", "MTSACPolicy", "squashed_sample"]

LOG_STD_MIN, LOG_STD_MAX = -20.0, 2.0
EPSILON = 1e-6
"""Keeps the log of the squashing's derivative finite; SB3's constant."""


def squashed_sample(mean: Tensor, log_std: Tensor, noise: Tensor) -> tuple[Tensor, Tensor]:
    """A tanh-squashed Gaussian action and its log probability, from standard normal noise.

    Args:
        mean: ``[..., A]``.
        log_std: ``[..., A]``.
        noise: ``[..., A]``.

    Returns:
        The action ``[..., A]`` in (-1, 1) and its log probability ``[...]``. Source: Haarnoja et al. 2018
        (arXiv 1812.05905), appendix C; the epsilon is SB3's.
    """
    action = torch.tanh(mean + log_std.exp() * noise)
    gaussian = -0.5 * noise.square() - log_std - 0.5 * math.log(2 * math.pi)
    log_prob = gaussian.sum(-1) - torch.log(1 - action.square() + EPSILON).sum(-1)
    return action, log_prob


class MTActor(BasePolicy):
    """A squashed Gaussian actor on an encoder with ``2 A`` outputs: the mean, then the log standard deviation."""

    def __init__(
        self, observation_space: spaces.Space, action_space: spaces.Box, encoder: Encoder, task_features: int
    ) -> None:
        super().__init__(observation_space, action_space, squash_output=True)
        self.encoder = encoder
        self.task_features = task_features

    def _get_constructor_parameters(self) -> dict[str, Any]:
        return {**spaces_of(self), "encoder": self.encoder, "task_features": self.task_features}

    def gaussian(self, observation: Tensor) -> tuple[Tensor, Tensor]:
        """Mean and log standard deviation, clamped to [-20, 2], both ``[N, A]``."""
        state, task = split_observation(observation, self.task_features)
        mean, log_std = self.encoder(state, task).chunk(2, dim=-1)
        return mean, log_std.clamp(LOG_STD_MIN, LOG_STD_MAX)

    def forward(self, observation: Tensor, noise: Tensor) -> tuple[Tensor, Tensor]:
        """Action ``[N, A]`` and log probability ``[N]`` for given noise ``[N, A]``."""
        return squashed_sample(*self.gaussian(observation), noise)

    def _predict(self, observation: PyTorchObs, deterministic: bool = False) -> Tensor:
        assert isinstance(observation, Tensor)
        mean, log_std = self.gaussian(observation.float())
        noise = torch.zeros_like(mean) if deterministic else torch.randn_like(mean)
        return squashed_sample(mean, log_std, noise)[0]


class MTCritic(BaseModel):
    """State-action values of ``len(encoders)`` independent critics."""

    def __init__(
        self,
        observation_space: spaces.Space,
        action_space: spaces.Box,
        encoders: Sequence[Encoder],
        task_features: int,
    ) -> None:
        super().__init__(observation_space, action_space)
        self.q_networks = nn.ModuleList(encoders)
        self.task_features = task_features

    def _get_constructor_parameters(self) -> dict[str, Any]:
        return {**spaces_of(self), "encoders": list(self.q_networks), "task_features": self.task_features}

    def forward(self, observation: Tensor, action: Tensor) -> tuple[Tensor, ...]:
        """``[N, O]`` and ``[N, A]`` to a value ``[N]`` for each critic."""
        state, task = split_observation(observation, self.task_features)
        inputs = torch.cat([state, action], dim=-1)
        return tuple(network(inputs, task).squeeze(-1) for network in self.q_networks)


@checked
class MTSACPolicy(MTPolicy):
    """Policy of `MTSAC`: ``policy_kwargs`` are the arguments below, from ``net_arch`` on.

    Args:
        observation_space: Box, with the one-hot last where ``one_hot``.
        action_space: Box.
        lr_schedule: SB3's learning-rate schedule.
        task_names: the K tasks.
        one_hot: whether observations carry the task.
        net_arch: hidden widths, or ``dict(pi=[...], qf=[...])``. Default three layers of 400 (Meta-World's).
        activation_fn: class of the non-linearity.
        layer_norm: normalise every hidden layer before its activation; or ``dict(pi=..., qf=...)``.
        dropout: rate in [0, 1) at which units of every hidden layer are dropped, before they are normalised; or
            ``dict(pi=..., qf=...)``. In updates only, there in every pass: DroQ's critic is ``dropout=dict(pi=0.0,
            qf=0.01), layer_norm=dict(pi=False, qf=True)``.
        encoder: a name of `mtrl_imgrad.agents.encoders.list_encoders`, or an `Encoder` class; for actor and critic,
            or ``dict(pi=..., qf=...)``.
        encoder_kwargs: the encoder's own options, or ``dict(pi=..., qf=...)`` of them.
        initialization: initial values of linear layers: ``"pytorch"`` (default), ``"orthogonal"`` (SB3's PPO),
            ``"metaworld_algorithms"`` (Meta-World+) or ``"mtrl"`` (CARE, CAGrad); see
            `mtrl_imgrad.agents.encoders.initialize`.
        optimizer_class: default Adam (fused).
        optimizer_kwargs: its options, besides the learning rate.
        n_critics: number of critics; the target is the smallest of them.
        ent_coef_optimizer_kwargs: options of the temperatures' Adam, besides the learning rate.

    Raises:
        ArgumentError: if an argument is wrong, naming it.
    """

    sides = ("pi", "qf")
    actor: MTActor
    critic: MTCritic
    critic_target: MTCritic

    def __init__(
        self,
        observation_space: spaces.Space,
        action_space: spaces.Box,
        lr_schedule: Schedule,
        task_names: Sequence[str] = ("task",),
        one_hot: bool = False,
        net_arch: NetArch = (400, 400, 400),
        activation_fn: type[nn.Module] = nn.ReLU,
        layer_norm: bool | dict[str, bool] = False,
        dropout: float | dict[str, float] = 0.0,
        encoder: str | type[Encoder] | dict[str, Any] = "multi_head",
        encoder_kwargs: dict[str, Any] | None = None,
        initialization: str = "pytorch",
        optimizer_class: type[torch.optim.Optimizer] = torch.optim.Adam,
        optimizer_kwargs: dict[str, Any] | None = None,
        n_critics: int = 2,
        ent_coef_optimizer_kwargs: dict[str, Any] | None = None,
    ) -> None:
        if n_critics < 1:
            raise ArgumentError(f"n_critics must be at least 1, got {n_critics}")
        super().__init__(
            observation_space,
            action_space,
            task_names=task_names,
            one_hot=one_hot,
            net_arch=net_arch,
            activation_fn=activation_fn,
            layer_norm=layer_norm,
            dropout=dropout,
            encoder=encoder,
            encoder_kwargs=encoder_kwargs,
            initialization=initialization,
            optimizer_class=optimizer_class,
            optimizer_kwargs=optimizer_kwargs,
            squash_output=True,
        )
        self.n_critics = n_critics
        self.ent_coef_optimizer_kwargs = dict(ent_coef_optimizer_kwargs or {})
        self._build(lr_schedule)

    def _build(self, lr_schedule: Schedule) -> None:
        assert isinstance(self.action_space, spaces.Box)
        action_dim = int(np.prod(self.action_space.shape))
        self.actor = MTActor(
            self.observation_space,
            self.action_space,
            self._make_encoder("pi", self.state_features, 2 * action_dim),
            self.task_features,
        )
        self.critic, self.critic_target = (
            MTCritic(
                self.observation_space,
                self.action_space,
                [self._make_encoder("qf", self.state_features + action_dim, 1) for _ in range(self.n_critics)],
                self.task_features,
            )
            for _ in range(2)
        )
        self.critic_target.load_state_dict(self.critic.state_dict())
        self.critic_target.set_training_mode(False)
        for network in (self.actor, self.critic):
            network.optimizer = self._make_optimizer(network, lr_schedule(1))

    def forward(self, observation: PyTorchObs, deterministic: bool = False) -> Tensor:
        """Actions ``[N, A]`` in the squashed range."""
        return self._predict(observation, deterministic=deterministic)

    def _predict(self, observation: PyTorchObs, deterministic: bool = False) -> Tensor:
        return self.actor._predict(observation, deterministic)

    def make_ent_coef_optimizer(self, log_ent_coef: Tensor, learning_rate: float) -> torch.optim.Adam:
        """Adam for the temperatures.

        Raises:
            ArgumentError: if it does not take ``ent_coef_optimizer_kwargs``.
        """
        options = {"fused": True, **self.ent_coef_optimizer_kwargs}
        try:
            return torch.optim.Adam([log_ent_coef], lr=learning_rate, **options)
        except (TypeError, ValueError, RuntimeError) as error:
            raise ArgumentError(
                "ent_coef_optimizer_kwargs must be options of Adam other than lr, "
                f"got {self.ent_coef_optimizer_kwargs}: {error}"
            ) from error

    def set_training_mode(self, mode: bool) -> None:
        """Training mode for actor and critic; the target critic always stays in evaluation mode."""
        self.actor.set_training_mode(mode)
        self.critic.set_training_mode(mode)
        self.training = mode

    def _get_constructor_parameters(self) -> dict[str, Any]:
        own = {"n_critics": self.n_critics, "ent_coef_optimizer_kwargs": self.ent_coef_optimizer_kwargs}
        return {**super()._get_constructor_parameters(), **own}
