"""Actor and policy of multi-task TD3, for any task-conditioned encoder."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from gymnasium import spaces
from stable_baselines3.common.type_aliases import PyTorchObs, Schedule
from torch import Tensor, nn

from mtrl_imgrad.agents.common.base_policy import NetArch, split_observation
from mtrl_imgrad.agents.encoders import Encoder
from mtrl_imgrad.agents.off_policy.policy import SquashedActor, TwinCriticPolicy
from mtrl_imgrad.validation import Count, checked


class MTTD3Actor(SquashedActor):
    """A deterministic actor: tanh of an encoder with ``A`` outputs."""

    def forward(self, observation: Tensor) -> Tensor:
        """``[N, O]`` to actions ``[N, A]`` in (-1, 1)."""
        return torch.tanh(self.encoder(*split_observation(observation, self.task_features)))

    def _predict(self, observation: PyTorchObs, deterministic: bool = False) -> Tensor:
        assert isinstance(observation, Tensor)
        return self(observation.float())


@checked
class MTTD3Policy(TwinCriticPolicy):
    """Policy of `MTTD3`: ``policy_kwargs`` are the arguments below, from ``net_arch`` on.

    Args:
        observation_space, action_space, lr_schedule, task_names, one_hot: as in `MTSACPolicy`.
        net_arch, activation_fn, layer_norm, dropout, encoder, encoder_kwargs, initialization: as in `MTSACPolicy`.
        optimizer_class, optimizer_kwargs: as in `MTSACPolicy`.
        n_critics: number of critics; the target is the smallest of them, the actor climbs the first.
    """

    actor: MTTD3Actor
    actor_target: MTTD3Actor

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
    ) -> None:
        super().__init__(locals())

    def _make_actors(self, action_dim: int) -> None:
        self.actor, self.actor_target = (
            MTTD3Actor(
                self.observation_space,
                self.action_space,  # type: ignore[arg-type]
                self._make_encoder("pi", self.state_features, action_dim),
                self.task_features,
            )
            for _ in range(2)
        )
        self.actor_target.load_state_dict(self.actor.state_dict())
        self.actor_target.set_training_mode(False)
