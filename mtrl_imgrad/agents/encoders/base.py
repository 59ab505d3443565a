"""Task-conditioned encoders: networks that are told which task a row is of.

An encoder maps the rows of one or several tasks to outputs: for an actor the mean and log standard deviation of an
action, for a critic a value (its input rows are then state and action side by side). It may use the task in any way:
feed the one-hot into the trunk, choose a head, look up an embedding, mix experts.

A new encoder is one file with one class here, and one line in the registry. Inside ``forward`` plain PyTorch layers
hold shared parameters; layers of `mtrl_imgrad.agents.encoders.layers` hold parameters of which every task owns a row.
No loop over tasks is ever needed: rows of several tasks arrive mixed, with a one-hot row each. No Python branch may
depend on a value. Dropout is `mtrl_imgrad.agents.encoders.Dropout`: all noise of an update is an argument of it, drawn
from the agent's own generator. PyTorch's own dropout, which draws from the global one, is refused, and so are buffers
(running statistics). A constant, such as a table of task vectors, is a parameter with ``requires_grad=False``.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import Any, ClassVar

from torch import Tensor, nn

from mtrl_imgrad.errors import ArgumentError
from mtrl_imgrad.validation import Count, Rate, checked


@checked
@dataclass(frozen=True)
class NetworkSpec:
    """Sizes and options from which an encoder is built.

    Attributes:
        in_features: width of the task-free input (a critic's includes the action).
        out_features: width of the output.
        task_names: the K tasks, in the order of the one-hot.
        sees_task: whether observations carry the one-hot.
        net_arch: widths of the hidden layers.
        activation_fn: class of the non-linearity.
        layer_norm: whether every hidden layer is normalized before its activation.
        dropout: rate at which units of every hidden layer are dropped, before they are normalized.
    """

    in_features: int
    out_features: int
    task_names: tuple[str, ...]
    sees_task: bool
    net_arch: tuple[Count, ...]
    activation_fn: type[nn.Module] = nn.ReLU
    layer_norm: bool = False
    dropout: Rate = 0.0

    @property
    def num_tasks(self) -> int:
        """Number of tasks K."""
        return len(self.task_names)


@checked
class Encoder(nn.Module, ABC):
    """Base of the encoders.

    Args:
        spec: sizes and tasks.

    Raises:
        ArgumentError: if the encoder must see the task and the observations do not carry it.
    """

    name: ClassVar[str]
    """Registry name."""
    needs_task: ClassVar[bool] = True

    def __init_subclass__(cls, **kwargs: Any) -> None:
        """Hold the options of every encoder, one's own too, against their annotations."""
        super().__init_subclass__(**kwargs)
        checked(cls)

    def __init__(self, spec: NetworkSpec) -> None:
        super().__init__()
        if self.needs_task and not spec.sees_task and spec.num_tasks > 1:
            raise ArgumentError(
                f"encoder {self.name!r} needs the task in the observation, but the environment was made with "
                "one_hot=False; make it with one_hot=True or use encoder='one_hot', which then sees the state only"
            )
        self.spec = spec

    @abstractmethod
    def forward(self, inputs: Tensor, task: Tensor) -> Tensor:
        """Map rows to outputs.

        Args:
            inputs: ``[N, in_features]``.
            task: ``[N, K]`` one-hot rows (``[N, 0]`` where observations do not carry the task).

        Returns:
            ``[N, out_features]``.
        """
