"""Base of the agents' policies: tasks, options by side, networks that are encoders."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, ClassVar

import torch
from gymnasium import spaces
from stable_baselines3.common.policies import BaseModel, BasePolicy
from torch import Tensor, nn

from mtrl_imgrad.agents.encoders import Encoder, NetworkSpec, initialize, make_encoder
from mtrl_imgrad.errors import ArgumentError

NetArch = Sequence[int] | dict[str, Sequence[int]]


def split_observation(observation: Tensor, task_features: int) -> tuple[Tensor, Tensor]:
    """Split ``[..., F + task_features]`` into the state ``[..., F]`` and the one-hot, which comes last."""
    width = observation.shape[-1] - task_features
    return observation[..., :width], observation[..., width:]


def spaces_of(network: BaseModel) -> dict[str, Any]:
    """The spaces, as the constructors of actors and critics take them. SB3's ``save`` stores those arguments."""
    return {"observation_space": network.observation_space, "action_space": network.action_space}


class MTPolicy(BasePolicy):
    """Base of the agents' policies: keeps the options, builds encoders and optimizers by them.

    An option that may differ between the networks is given once for all, or as a dict by side: ``pi`` is the actor, the
    other side (`sides`) the critic.

    Args:
        arguments: of the policy's constructor, by name: its ``locals()``. Every policy takes those that are read here.
        squash_output: whether actions are squashed into (-1, 1).
    """

    sides: ClassVar[tuple[str, str]]
    """Names of actor and critic in options by side."""
    adam_options: ClassVar[dict[str, Any]] = {"fused": True}
    """Options of Adam unless told otherwise. Fused: one kernel for all parameters, on CPU and CUDA alike."""

    def __init__(self, arguments: Mapping[str, Any], squash_output: bool) -> None:
        observation_space = arguments["observation_space"]
        if not isinstance(observation_space, spaces.Box) or len(observation_space.shape) != 1:
            raise ArgumentError(f"observation_space must be a flat Box, got {observation_space}")
        super().__init__(
            observation_space,
            arguments["action_space"],
            optimizer_class=arguments["optimizer_class"],
            optimizer_kwargs=arguments["optimizer_kwargs"],
            squash_output=squash_output,
        )
        self.task_names: tuple[str, ...] = tuple(arguments["task_names"])
        self.one_hot: bool = arguments["one_hot"]
        self.net_arch: NetArch = arguments["net_arch"]
        self.activation_fn: type[nn.Module] = arguments["activation_fn"]
        self.layer_norm: bool | dict[str, bool] = arguments["layer_norm"]
        self.dropout: float | dict[str, float] = arguments["dropout"]
        self.encoder: str | type[Encoder] | dict[str, Any] = arguments["encoder"]
        self.encoder_kwargs: dict[str, Any] = dict(arguments["encoder_kwargs"] or {})
        self.initialization: str = arguments["initialization"]

    @property
    def task_features(self) -> int:
        """Width of the one-hot at the end of an observation."""
        return len(self.task_names) if self.one_hot else 0

    @property
    def state_features(self) -> int:
        """Width of an observation without the one-hot."""
        return self.observation_space.shape[0] - self.task_features  # type: ignore[index]

    def _make_encoder(self, side: str, in_features: int, out_features: int) -> Encoder:
        spec = NetworkSpec(
            in_features=in_features,
            out_features=out_features,
            task_names=self.task_names,
            sees_task=self.one_hot,
            net_arch=self._of_side("net_arch", self.net_arch, side),
            activation_fn=self.activation_fn,
            layer_norm=self._of_side("layer_norm", self.layer_norm, side),
            dropout=self._of_side("dropout", self.dropout, side),
        )
        by_side = bool(self.encoder_kwargs) and set(self.encoder_kwargs) <= set(self.sides)
        kwargs = self.encoder_kwargs.get(side, {}) if by_side else self.encoder_kwargs
        encoder = make_encoder(self._of_side("encoder", self.encoder, side), spec, **kwargs)
        initialize(encoder, self.initialization, critic=side != "pi")
        return encoder

    def _of_side(self, argument: str, given: Any, side: str) -> Any:
        """The option of one side: an entry of a dict by side, or the option itself."""
        if isinstance(given, dict):
            if set(given) != set(self.sides):
                expected = " and ".join(map(repr, self.sides))
                raise ArgumentError(f"{argument} must have the keys {expected}, got {sorted(given)}")
            return given[side]
        return given

    def _make_optimizer(self, network: nn.Module, learning_rate: float) -> torch.optim.Optimizer:
        defaults = self.adam_options if issubclass(self.optimizer_class, torch.optim.Adam) else {}
        options = {**defaults, **self.optimizer_kwargs}
        try:
            return self.optimizer_class(network.parameters(), lr=learning_rate, **options)  # type: ignore[call-arg]
        except (TypeError, ValueError, RuntimeError) as error:
            raise ArgumentError(
                f"optimizer_kwargs must be options of {self.optimizer_class.__name__} other than lr, "
                f"got {self.optimizer_kwargs}: {error}"
            ) from error

    def _get_constructor_parameters(self) -> dict[str, Any]:
        data = super()._get_constructor_parameters()
        for unused in ("features_extractor_class", "features_extractor_kwargs", "normalize_images", "squash_output"):
            data.pop(unused, None)
        return {
            **data,
            "lr_schedule": self._dummy_schedule,
            "task_names": self.task_names,
            "one_hot": self.one_hot,
            "net_arch": self.net_arch,
            "activation_fn": self.activation_fn,
            "layer_norm": self.layer_norm,
            "dropout": self.dropout,
            "encoder": self.encoder,
            "encoder_kwargs": self.encoder_kwargs,
            "initialization": self.initialization,
            "optimizer_class": self.optimizer_class,
            "optimizer_kwargs": self.optimizer_kwargs,
        }
