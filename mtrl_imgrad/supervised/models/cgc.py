"""Customized gate control: experts of all tasks beside each task's own."""

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
class CGC(ComposedModel):
    """A task mixes its own experts and the shared ones by its gate (Tang et al., PLE, RecSys 2020, section 4.1).

    As `MMoE` otherwise. Own experts, gates and heads are the tasks' own.

    Args:
        backbone, tasks, width, protocol: as in `ComposedModel`; an expert is a trunk.
        experts: how many are shared.
        own_experts: how many a task has for itself.
    """

    architecture = "cgc"

    def __init__(
        self,
        backbone: Backbone,
        tasks: Sequence[TaskSpec],
        width: float,
        protocol: Protocol,
        experts: Count = 1,
        own_experts: Count = 1,
    ) -> None:
        super().__init__(backbone, tasks, width, protocol)
        trunks = [self._trunk() for _ in range(experts)]
        self.experts = nn.ModuleList(trunks)
        self.own_experts = nn.ModuleList(nn.ModuleList(self._trunk() for _ in range(own_experts)) for _ in self.tasks)
        self.gates = nn.ModuleList(ImageGate(own_experts + experts) for _ in self.tasks)
        self._finish(trunks[0])

    def own_modules(self, task: str) -> list[nn.Module]:
        """The head, the gate and the own experts of ``task``."""
        index = self._index(task)
        return [self.head(task), self.gates[index], self.own_experts[index]]

    def representations(self, images: Tensor, tasks: Sequence[str]) -> list[Tensor]:
        """See `ComposedModel.representations`."""
        shared = [expert(images) for expert in self.experts]
        mixtures = []
        for index in map(self._index, tasks):
            own = [expert(images) for expert in self.own_experts[index]]  # type: ignore[attr-defined]
            mixtures.append(mixture(self.gates[index](images), [*own, *shared]))
        return mixtures
