"""Dropout whose noise is an argument.

An update is a pure function: what is random in it is drawn before it, from the agent's own generator, and passed
along. So masks of dropout are tensors, as parameters are. A `Dropout` layer has a buffer for its mask, which is empty,
and which `torch.func.functional_call` fills by name for one pass:

    masks = DropoutLayers(network).draw(rows, generator)  # {"encoder.trunk.1.mask": [K, B, features], ...}
    functional_call(network, (parameters, masks), inputs)

Masks travel as rows of the batch do, so that under `vmap` every task meets its own, and a recorded update
(`mtrl_imgrad.gradients.tracing`) sees arguments, not a generator. The interface of an encoder knows nothing of it. A
network that is called without masks (to act, to predict, to evaluate) has all of its units, in PyTorch's training mode
as well.

Source: Srivastava et al., "Dropout: A Simple Way to Prevent Neural Networks from Overfitting" (JMLR 2014); as in
PyTorch the units that are kept are scaled in training, where the paper scales the weights afterwards.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from mtrl_imgrad.errors import ArgumentError
from mtrl_imgrad.validation import Count, Rate, checked

Masks = dict[str, Tensor]
"""The masks of one pass through a network, by the names under which `torch.func.functional_call` takes them."""

NO_MASKS: Masks = {}
"""All units are kept."""


@checked
class Dropout(nn.Module):
    """Drops each unit of each row with probability ``rate`` and scales the others by ``1 / (1 - rate)``.

    It needs to know what it works on, because its masks are drawn outside of it. One layer works at one place: used
    twice in a pass, it would drop the same units twice.

    Args:
        features: width of its input ``[N, features]``.
        rate: probability p in [0, 1) of a unit to be dropped.
        num_experts: E, where the input is ``[E, N, features]``; every expert drops units of its own.
    """

    mask: Tensor | None
    """Of one task's input, shaped like it: 0 where a unit is dropped, ``1 / (1 - rate)`` where not. None but in a pass
    that was given masks; never saved."""

    def __init__(self, features: Count, rate: Rate, num_experts: Count | None = None) -> None:
        super().__init__()
        self.features = features
        self.rate = rate
        self.num_experts = num_experts
        self.register_buffer("mask", None, persistent=False)

    def forward(self, inputs: Tensor) -> Tensor:
        """``[N, features]`` (or ``[E, N, features]``) to the same shape.

        Raises:
            ArgumentError: if the mask does not have the input's shape: the layer was made for another one.
        """
        if self.mask is None:
            return inputs
        if self.mask.shape != inputs.shape:
            raise ArgumentError(
                f"{self} has a mask of shape {tuple(self.mask.shape)} for an input of shape {tuple(inputs.shape)}: "
                "features and num_experts must be those of its input, and rows those of the batch"
            )
        return inputs * self.mask

    def draw(self, rows: Tensor, generator: torch.Generator) -> Tensor:
        """Masks for a batch ``rows [K, B, ...]``: ``[K, B, features]`` (or ``[K, E, B, features]``), of its dtype."""
        num_tasks, num_rows = rows.shape[:2]
        experts = () if self.num_experts is None else (self.num_experts,)
        shape = (num_tasks, *experts, num_rows, self.features)
        keep = 1 - self.rate
        # Uniform numbers, then two passes in place: on a CPU less time than bernoulli_ takes alone.
        return torch.rand(shape, generator=generator, dtype=rows.dtype, device=rows.device).lt_(keep).div_(keep)

    def extra_repr(self) -> str:
        """What ``print`` says of the layer."""
        return f"{self.features}, rate={self.rate}, num_experts={self.num_experts}"


class DropoutLayers:
    """The dropout layers of a network, looked up once.

    Args:
        network: its `Dropout` layers with a rate above zero count; the others never change anything.
    """

    def __init__(self, network: nn.Module) -> None:
        self._layers = {
            f"{name}.mask" if name else "mask": layer
            for name, layer in network.named_modules()
            if isinstance(layer, Dropout) and layer.rate > 0
        }

    def __bool__(self) -> bool:
        return bool(self._layers)

    def draw(self, rows: Tensor, generator: torch.Generator) -> Masks:
        """Masks of one pass of a task-major batch: independent over layers, tasks, rows and units.

        Args:
            rows: any tensor ``[K, B, ...]`` of the batch, for its sizes, dtype and device.
            generator: on that device; nothing is drawn from it if there are no layers.
        """
        return {name: layer.draw(rows, generator) for name, layer in self._layers.items()}
