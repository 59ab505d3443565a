"""Progressive layered extraction: customized gate control in several levels."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise
from typing import Annotated, Any, cast

from annotated_types import Ge
from torch import Tensor, nn

from mtrl_imgrad.errors import ArgumentError
from mtrl_imgrad.supervised.models.backbones import Backbone
from mtrl_imgrad.supervised.models.composed import ComposedModel
from mtrl_imgrad.supervised.models.gates import ImageGate, MapsGate, mixture
from mtrl_imgrad.supervised.models.trunk import Trunk
from mtrl_imgrad.supervised.protocol import Protocol
from mtrl_imgrad.supervised.tasks import TaskSpec
from mtrl_imgrad.validation import Count, checked


@checked
class PLE(ComposedModel):
    """`CGC` at several levels, the shared experts of which see a mixture of everybody's (Tang et al., RecSys 2020).

    With ``S`` the maps of a level's experts and ``z`` what they read, ``z_k = softmax(W_k z_k) [own experts of k,
    shared experts]`` for task k, ``z_s = softmax(W_s z_s) [all experts]`` for the shared ones, but at the last level.
    Here the stages of a trunk are cut into levels of equal numbers of stages, as LibMTL does with ResNets; of SegNet
    two levels are encoder and decoder. Gates see the image averaged to 8 x 8, later the mean of the maps.

    What is a task's own: its experts of the last level, its gates of the last two levels and its head. All else feeds
    the shared experts, and so every loss reaches it.

    Args:
        backbone, tasks, width, protocol, experts, own_experts: as in `CGC`.
        levels: two or more, at most as many as the trunk has stages.

    Raises:
        ArgumentError: for more levels than stages.
    """

    architecture = "ple"

    def __init__(
        self,
        backbone: Backbone,
        tasks: Sequence[TaskSpec],
        width: float,
        protocol: Protocol,
        experts: Count = 1,
        own_experts: Count = 1,
        levels: Annotated[int, Ge(2)] = 2,
    ) -> None:
        super().__init__(backbone, tasks, width, protocol)
        trunk = self._trunk()
        self.levels = _cut(len(trunk.stage_channels), levels)
        """The stages of each level."""
        self.experts = nn.ModuleList([trunk, *(self._trunk() for _ in range(experts - 1))])
        self.own_experts = nn.ModuleList(nn.ModuleList(self._trunk() for _ in range(own_experts)) for _ in self.tasks)
        seen = [None, *(trunk.stage_channels[stages[-1]] for stages in self.levels[:-1])]
        self.gates = nn.ModuleList(
            nn.ModuleList(_gate(channels, own_experts + experts) for _ in self.tasks) for channels in seen
        )
        everybody = len(self.tasks) * own_experts + experts
        self.shared_gates = nn.ModuleList(_gate(channels, everybody) for channels in seen[:-1])
        self._finish(trunk)

    def own_modules(self, task: str) -> list[nn.Module]:
        """The head of ``task``, its gates of the last two levels, its experts of the last one."""
        index = self._index(task)
        gates = [cast(nn.ModuleList, level)[index] for level in [*self.gates][-2:]]
        experts = [
            module
            for expert in self._own(index)
            for number in self.levels[-1]
            for module in expert.stage_modules(number)
        ]
        return [self.head(task), *gates, *experts]

    def representations(self, images: Tensor, tasks: Sequence[str]) -> list[Tensor]:
        """See `ComposedModel.representations`; only at the last level something is left out."""
        everybody = range(len(self.tasks))
        kept: dict[nn.Module, list[Any]] = {trunk: [] for trunk in self.modules() if isinstance(trunk, Trunk)}
        read, shared_read = [images] * len(self.tasks), images
        for level, stages in enumerate(self.levels):
            last = level == len(self.levels) - 1
            wanted = [self._index(task) for task in tasks] if last else everybody
            shared = [cast(Trunk, one).run(stages, shared_read, kept[one]) for one in self.experts]
            own = {k: [one.run(stages, read[k], kept[one]) for one in self._own(k)] for k in wanted}
            gates = cast(nn.ModuleList, self.gates[level])
            read = [mixture(gates[k](read[k]), [*own[k], *shared]) for k in wanted]
            if not last:
                everyone = [*(maps for k in everybody for maps in own[k]), *shared]
                shared_read = mixture(self.shared_gates[level](shared_read), everyone)
        return read

    def _own(self, index: int) -> list[Trunk]:
        return [cast(Trunk, expert) for expert in cast(nn.ModuleList, self.own_experts[index])]


def _gate(channels: int | None, experts: int) -> nn.Module:
    return ImageGate(experts) if channels is None else MapsGate(channels, experts)


def _cut(stages: int, levels: int) -> list[range]:
    """Stages cut into levels, as even as it goes."""
    if levels > stages:
        raise ArgumentError(f"levels must be at most {stages}, the backbone's stages, got {levels}")
    cuts = [round(stages * level / levels) for level in range(levels + 1)]
    return [range(*cut) for cut in pairwise(cuts)]
