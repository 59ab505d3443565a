"""Multi-gate mixture of experts."""

from __future__ import annotations

from collections.abc import Sequence

from torch import Tensor, nn

from mtrl_imgrad.supervised.models.backbones import Backbone
from mtrl_imgrad.supervised.models.composed import ComposedModel
from mtrl_imgrad.supervised.models.gates import ImageGate, mixture
from mtrl_imgrad.supervised.protocol import Protocol
from mtrl_imgrad.supervised.tasks import TaskSpec
from mtrl_imgrad.validation import Count, checked


@checked
class MMoE(ComposedModel):
    """Every task mixes the same experts by a gate of its own (Ma et al., KDD 2018).

    ``f_k(x) = sum_e g_k(x)_e f_e(x)``, ``g_k(x) = softmax(W_k x)``; here an expert is a whole trunk, as in LibMTL, and
    the gate sees the image averaged to 8 x 8. All experts are shared, the gates are the tasks' own.

    Args:
        backbone, tasks, width, protocol: as in `ComposedModel`.
        experts: how many.
    """

    architecture = "mmoe"

    def __init__(
        self, backbone: Backbone, tasks: Sequence[TaskSpec], width: float, protocol: Protocol, experts: Count = 3
    ) -> None:
        super().__init__(backbone, tasks, width, protocol)
        trunks = [self._trunk() for _ in range(experts)]
        self.experts = nn.ModuleList(trunks)
        self.gates = nn.ModuleList(ImageGate(experts) for _ in self.tasks)
        self._finish(trunks[0])

    def own_modules(self, task: str) -> list[nn.Module]:
        """The head and the gate of ``task``."""
        return [self.head(task), self.gates[self._index(task)]]

    def representations(self, images: Tensor, tasks: Sequence[str]) -> list[Tensor]:
        """See `ComposedModel.representations`."""
        experts = [expert(images) for expert in self.experts]
        return [mixture(self.gates[self._index(task)](images), experts) for task in tasks]
