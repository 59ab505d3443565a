"""Actor and policy of multi-task SAC, for any task-conditioned encoder.

The classes mirror SB3's SAC policy (names, `predict`, `save`), with two differences: the networks are encoders that
are told the task, and the sampling of actions is a pure function of the noise, so that an update can be compiled,
captured and repeated.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import torch
from gymnasium import spaces
from stable_baselines3.common.type_aliases import PyTorchObs, Schedule
from torch import Tensor, nn

from mtrl_imgrad.agents.common.base_policy import NetArch, split_observation
from mtrl_imgrad.agents.encoders import Encoder
from mtrl_imgrad.agents.off_policy.policy import SquashedActor, TwinCriticPolicy
from mtrl_imgrad.errors import ArgumentError
from mtrl_imgrad.validation import Count, checked

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


class MTActor(SquashedActor):
    """A squashed Gaussian actor on an encoder with ``2 A`` outputs: the mean, then the log standard deviation."""

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


@checked
class MTSACPolicy(TwinCriticPolicy):
    """Policy of `MTSAC`: ``policy_kwargs`` are the arguments below, from ``net_arch`` on.

    Args:
        observation_space: Box, with the one-hot last where ``one_hot``.
        action_space: Box.
        lr_schedule: SB3's learning-rate schedule.
        task_names: the K tasks.
        one_hot: whether observations carry the task.
        net_arch: hidden widths, or ``dict(pi=[...], qf=[...])``. Default three layers of 400 (Meta-World's).
        activation_fn: class of the non-linearity.
        layer_norm: normalize every hidden layer before its activation; or ``dict(pi=..., qf=...)``.
        dropout: rate in [0, 1) at which units of every hidden layer are dropped, before they are normalized; or
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
    """

    actor: MTActor

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
        n_critics: Count = 2,
        ent_coef_optimizer_kwargs: dict[str, Any] | None = None,
    ) -> None:
        super().__init__(locals())
        self.ent_coef_optimizer_kwargs = dict(ent_coef_optimizer_kwargs or {})

    def _make_actors(self, action_dim: int) -> None:
        encoder = self._make_encoder("pi", self.state_features, 2 * action_dim)
        self.actor = MTActor(self.observation_space, self.action_space, encoder, self.task_features)  # type: ignore[arg-type]

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

    def _get_constructor_parameters(self) -> dict[str, Any]:
        own = {"ent_coef_optimizer_kwargs": self.ent_coef_optimizer_kwargs}
        return {**super()._get_constructor_parameters(), **own}
