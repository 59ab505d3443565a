"""Gaussian actor, value critic and the policy that holds them, for any task-conditioned encoder.

Names and calls are those of SB3's actor-critic policies as far as its on-policy algorithms use them. Different:
actor and critic share nothing, each is an encoder that is told the task; and every task owns its standard deviation.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from typing import Annotated, Any

import numpy as np
import torch
from annotated_types import Interval
from gymnasium import spaces
from stable_baselines3.common.policies import BaseModel, BasePolicy
from stable_baselines3.common.type_aliases import PyTorchObs, Schedule
from torch import Tensor, nn

from mtrl_imgrad.agents.common.arguments import check_keywords
from mtrl_imgrad.agents.common.base_policy import MTPolicy, NetArch, spaces_of, split_observation
from mtrl_imgrad.agents.encoders import Encoder
from mtrl_imgrad.agents.encoders.dropout import DropoutLayers
from mtrl_imgrad.agents.encoders.layers import TaskEmbedding
from mtrl_imgrad.agents.ppo.popart import PopArt
from mtrl_imgrad.errors import ArgumentError
from mtrl_imgrad.validation import checked

LogStd = Annotated[float, Interval(ge=-20, le=20)]
"""Of either sign, initially: float32 holds the standard deviation and its square."""
LOG_SQRT_2PI = 0.5 * math.log(2 * math.pi)


class MTGaussianActor(BasePolicy):
    """A Gaussian with an encoder's output for its mean, and a standard deviation that does not depend on the state.

    Each task owns its row of the log standard deviation, in which tasks differ most: one is still exploring while
    another is precise. With one task it is SB3's parameter.

    Args:
        observation_space: flat Box.
        action_space: Box; actions are not squashed but clipped to it when acting, as in SB3.
        encoder: ``A`` outputs.
        task_features: width of the one-hot.
        num_tasks: K.
        log_std_init: initial log standard deviation.
    """

    def __init__(
        self,
        observation_space: spaces.Space,
        action_space: spaces.Box,
        encoder: Encoder,
        task_features: int,
        num_tasks: int,
        log_std_init: float,
    ) -> None:
        super().__init__(observation_space, action_space)
        self.encoder = encoder
        self.task_features = task_features
        self.log_std = TaskEmbedding(num_tasks, int(np.prod(action_space.shape)))
        nn.init.constant_(self.log_std.weight, log_std_init)

    def _get_constructor_parameters(self) -> dict[str, Any]:
        options = {"task_features": self.task_features, "num_tasks": len(self.log_std.weight), "log_std_init": 0.0}
        return {**spaces_of(self), "encoder": self.encoder, **options}

    def gaussian(self, observation: Tensor) -> tuple[Tensor, Tensor]:
        """Mean and log standard deviation, both ``[N, A]``."""
        state, task = split_observation(observation, self.task_features)
        return self.encoder(state, task), self.log_std(task)

    def forward(self, observation: Tensor, action: Tensor) -> tuple[Tensor, Tensor]:
        """Log probability of an action ``[N, A]`` and entropy, both ``[N]``."""
        mean, log_std = self.gaussian(observation)
        return _log_prob(mean, log_std, action), (log_std + 0.5 + LOG_SQRT_2PI).sum(-1)

    def sample(
        self, observation: Tensor, deterministic: bool = False, noise: Tensor | None = None
    ) -> tuple[Tensor, Tensor]:
        """An action ``[N, A]`` (the mean, if deterministic) and its log probability ``[N]``; ``noise`` is N(0, 1)."""
        mean, log_std = self.gaussian(observation)
        if deterministic:
            return mean, _log_prob(mean, log_std, mean)
        action = mean + log_std.exp() * (torch.randn_like(mean) if noise is None else noise)
        return action, _log_prob(mean, log_std, action)

    def _predict(self, observation: PyTorchObs, deterministic: bool = False) -> Tensor:
        assert isinstance(observation, Tensor)
        return self.sample(observation.float(), deterministic)[0]


def _log_prob(mean: Tensor, log_std: Tensor, action: Tensor) -> Tensor:
    """Of a diagonal Gaussian, ``[N]``."""
    return (-0.5 * ((action - mean) * (-log_std).exp()).square() - log_std - LOG_SQRT_2PI).sum(-1)


class MTValueCritic(BaseModel):
    """State values from an encoder with one output.

    Args:
        observation_space: flat Box.
        action_space: SB3's signature; values are of states.
        encoder: one output.
        task_features: width of the one-hot.
        popart: normalizes the values; None learns them as they are.
    """

    def __init__(
        self,
        observation_space: spaces.Space,
        action_space: spaces.Box,
        encoder: Encoder,
        task_features: int,
        popart: PopArt | None,
    ) -> None:
        super().__init__(observation_space, action_space)
        self.encoder = encoder
        self.task_features = task_features
        self.popart = popart

    def _get_constructor_parameters(self) -> dict[str, Any]:
        options = {"task_features": self.task_features, "popart": self.popart}
        return {**spaces_of(self), "encoder": self.encoder, **options}

    def forward(self, observation: Tensor) -> Tensor:
        """Values ``[N]`` in the unit that they are learned in."""
        state, task = split_observation(observation, self.task_features)
        outputs = self.encoder(state, task).squeeze(-1)
        return outputs if self.popart is None else self.popart(outputs, task)

    def values(self, observation: Tensor) -> Tensor:
        """Values ``[N]`` in the unit of the rewards."""
        learned = self(observation)
        if self.popart is None:
            return learned
        return self.popart.denormalize(learned, split_observation(observation, self.task_features)[1])


@checked
class MTPPOPolicy(MTPolicy):
    """Policy of `MTPPO`: ``policy_kwargs`` are the arguments from ``net_arch`` to ``log_std_init``.

    Where options differ between actor and critic they are ``dict(pi=..., vf=...)``.

    Args:
        observation_space, action_space, lr_schedule, task_names, one_hot: as in `MTSACPolicy`.
        value_normalization: None or ``"popart"``.
        value_normalization_kwargs: further arguments of `mtrl_imgrad.agents.ppo.popart.PopArt`.
        activation_fn: class of the non-linearity. ReLU as for `MTSAC`, where SB3's PPO has tanh.
        dropout: ``dict(pi=0.0, vf=rate)``: rate in [0, 1) at which units of every hidden layer of the critic are
            dropped, before they are normalized. In updates only: values that advantages are made of come from the whole
            network. The actor's must be 0.
        net_arch, layer_norm, encoder, encoder_kwargs, initialization, optimizer_kwargs: as in `MTSACPolicy`.
        optimizer_class: default Adam (fused, with SB3's epsilon for PPO, 1e-5).
        log_std_init: initial log standard deviation of the actions.

    Raises:
        ArgumentError: if an argument is wrong, naming it; or if there are several tasks and observations do not
            carry them: a task's own parameters could not be found when acting; or if the actor has dropout.
    """

    sides = ("pi", "vf")
    adam_options = {**MTPolicy.adam_options, "eps": 1e-5}  # noqa: RUF012  (as the base class's)
    actor: MTGaussianActor
    critic: MTValueCritic
    noise: Iterator[Tensor] | None = None
    """Of the steps of a rollout that is under way, ``[N, A]`` each, unless it is white."""

    def __init__(
        self,
        observation_space: spaces.Space,
        action_space: spaces.Box,
        lr_schedule: Schedule,
        task_names: Sequence[str] = ("task",),
        one_hot: bool = False,
        value_normalization: str | None = None,
        value_normalization_kwargs: dict[str, Any] | None = None,
        net_arch: NetArch = (400, 400, 400),
        activation_fn: type[nn.Module] = nn.ReLU,
        layer_norm: bool | dict[str, bool] = False,
        dropout: float | dict[str, float] = 0.0,
        encoder: str | type[Encoder] | dict[str, Any] = "multi_head",
        encoder_kwargs: dict[str, Any] | None = None,
        initialization: str = "pytorch",
        optimizer_class: type[torch.optim.Optimizer] = torch.optim.Adam,
        optimizer_kwargs: dict[str, Any] | None = None,
        log_std_init: LogStd = 0.0,
    ) -> None:
        if len(task_names) > 1 and not one_hot:
            raise ArgumentError(
                "MTPPO needs the task in the observation, for each task owns its standard deviation, but the "
                "environment was made with one_hot=False; make it with one_hot=True"
            )
        super().__init__(locals(), squash_output=False)
        self.value_normalization = value_normalization
        self.value_normalization_kwargs = dict(value_normalization_kwargs or {})
        self.log_std_init = log_std_init
        self._build(lr_schedule)

    def _build(self, lr_schedule: Schedule) -> None:
        assert isinstance(self.action_space, spaces.Box)
        spaces_of_both = (self.observation_space, self.action_space)
        self.actor = MTGaussianActor(
            *spaces_of_both,
            self._make_encoder("pi", self.state_features, int(np.prod(self.action_space.shape))),
            self.task_features,
            len(self.task_names),
            self.log_std_init,
        )
        # The policy that acts has all units, or else every row would have to keep its masks. If units were dropped in
        # updates alone, the ratio of probabilities would be off 1 before the first step, and clip_range and target_kl
        # would look at the masks and not at the steps (Hausknecht, Wagener, arXiv 2202.11818).
        if DropoutLayers(self.actor):
            raise ArgumentError(
                "MTPPO's actor takes no dropout: the ratio of its probabilities to those when acting would not be 1 "
                f"before any step. Give it to the critic alone, dropout=dict(pi=0.0, vf=...); got {self.dropout!r}"
            )
        encoder = self._make_encoder("vf", self.state_features, 1)
        self.critic = MTValueCritic(*spaces_of_both, encoder, self.task_features, self._make_popart())
        for network in (self.actor, self.critic):
            network.optimizer = self._make_optimizer(network, lr_schedule(1))

    def _make_popart(self) -> PopArt | None:
        if self.value_normalization is None:
            if self.value_normalization_kwargs:
                raise ArgumentError("value_normalization_kwargs need value_normalization='popart', got None")
            return None
        check_keywords("value_normalization_kwargs", self.value_normalization_kwargs, PopArt, {"num_tasks"})
        return PopArt(len(self.task_names), **self.value_normalization_kwargs)

    def forward(self, observation: PyTorchObs, deterministic: bool = False) -> tuple[Tensor, Tensor, Tensor]:
        """Actions as their space has them, values ``[N, 1]`` in the unit of the rewards, log probabilities ``[N]``."""
        assert isinstance(observation, Tensor)
        noise = None if self.noise is None else next(self.noise)
        actions, log_prob = self.actor.sample(observation.float(), deterministic, noise)
        return actions.view(-1, *(self.action_space.shape or ())), self.predict_values(observation), log_prob

    def predict_values(self, observation: PyTorchObs) -> Tensor:
        """Values ``[N, 1]`` in the unit of the rewards."""
        assert isinstance(observation, Tensor)
        return self.critic.values(observation.float()).unsqueeze(-1)

    def _predict(self, observation: PyTorchObs, deterministic: bool = False) -> Tensor:
        return self.actor._predict(observation, deterministic)

    def _get_constructor_parameters(self) -> dict[str, Any]:
        return {
            **super()._get_constructor_parameters(),
            "value_normalization": self.value_normalization,
            "value_normalization_kwargs": self.value_normalization_kwargs,
            "log_std_init": self.log_std_init,
        }
