"""Twin critics, and the policy that holds them beside an actor, for any task-conditioned encoder."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch
from gymnasium import spaces
from stable_baselines3.common.policies import BaseModel, BasePolicy
from stable_baselines3.common.type_aliases import PyTorchObs, Schedule
from torch import Tensor, nn

from mtrl_imgrad.agents.common.base_policy import MTPolicy, spaces_of, split_observation
from mtrl_imgrad.agents.encoders import Encoder


class SquashedActor(BasePolicy):
    """Base of actors whose actions are squashed into (-1, 1): an encoder that is told the task."""

    def __init__(
        self, observation_space: spaces.Space, action_space: spaces.Box, encoder: Encoder, task_features: int
    ) -> None:
        super().__init__(observation_space, action_space, squash_output=True)
        self.encoder = encoder
        self.task_features = task_features

    def _get_constructor_parameters(self) -> dict[str, Any]:
        return {**spaces_of(self), "encoder": self.encoder, "task_features": self.task_features}


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

    def forward(self, observation: Tensor, action: Tensor, count: int | None = None) -> tuple[Tensor, ...]:
        """``[N, O]`` and ``[N, A]`` to a value ``[N]`` for each critic, or for the first ``count`` only."""
        state, task = split_observation(observation, self.task_features)
        inputs = torch.cat([state, action], dim=-1)
        return tuple(network(inputs, task).squeeze(-1) for network in list(self.q_networks)[:count])


class TwinCriticPolicy(MTPolicy):
    """Base: an actor whose actions are squashed, critics, and their target networks.

    Args:
        arguments: as of `MTPolicy`, with ``lr_schedule`` and ``n_critics``.
    """

    sides = ("pi", "qf")
    actor: SquashedActor
    critic: MTCritic
    critic_target: MTCritic

    def __init__(self, arguments: Mapping[str, Any]) -> None:
        super().__init__(arguments, squash_output=True)
        self.n_critics: int = arguments["n_critics"]
        self._build(arguments["lr_schedule"])

    def _make_actors(self, action_dim: int) -> None:
        """Set ``actor``, and its target where there is one."""
        raise NotImplementedError

    def _build(self, lr_schedule: Schedule) -> None:
        assert isinstance(self.action_space, spaces.Box)
        action_dim = int(np.prod(self.action_space.shape))
        self._make_actors(action_dim)
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

    def set_training_mode(self, mode: bool) -> None:
        """Training mode for actor and critic; target networks always stay in evaluation mode."""
        self.actor.set_training_mode(mode)
        self.critic.set_training_mode(mode)
        self.training = mode

    def _get_constructor_parameters(self) -> dict[str, Any]:
        return {**super()._get_constructor_parameters(), "n_critics": self.n_critics}
