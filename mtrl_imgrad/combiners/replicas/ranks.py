"""The ranks of a process group, and the few collectives that a step needs.

Whatever decides (losses, Gramians, flags) has the same bits on every rank, so that all of them solve the same problem:
sums are made on one rank and broadcast, or made everywhere from what all ranks gathered.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor

from mtrl_imgrad.errors import ArgumentError

WHAT_TO_DO = (
    "pass group=torch.distributed.group.WORLD for the step of all ranks together, or a group of this rank alone "
    "(torch.distributed.new_subgroups(1)[0]) if it learns something of its own"
)

_FEW = 2**14
"""Numbers that are sooner gathered and added up by every rank than reduced and broadcast."""


class Ranks:
    """The ranks of a group.

    Args:
        group: this process is one of its ranks.
    """

    def __init__(self, group: Any) -> None:
        if running_ranks() == 0:
            raise ArgumentError(
                "group was given, but torch.distributed is not set up: call torch.distributed.init_process_group first"
            )
        if not isinstance(group, dist.ProcessGroup):
            raise ArgumentError(f"group must be a torch.distributed.ProcessGroup, got {group!r}")
        self.group = group
        self.rank = dist.get_rank(group)
        if self.rank < 0:
            raise ArgumentError("group must be one that this rank belongs to")
        self.size = dist.get_world_size(group)
        self._first = dist.get_global_rank(group, 0)
        pairs = (pair.split(":") for pair in str(dist.get_backend_config(group)).split(","))
        self._backends = {pair[0]: pair[-1] for pair in pairs}

    def __deepcopy__(self, memo: dict[int, Any]) -> Ranks:
        return self

    def total(self, values: Tensor) -> Tensor:
        """The sum over the ranks, the same bits on each."""
        if values.numel() * self.size <= _FEW:
            return self.gathered(values).sum(0)
        sent = self._sent(values).clone()
        dist.reduce(sent, dst=self._first, group=self.group)
        dist.broadcast(sent, src=self._first, group=self.group)
        return sent.to(values.device)

    def gathered(self, values: Tensor) -> Tensor:
        """``[R, ...]``: the values of every rank."""
        sent = self._sent(values).contiguous()
        received = sent.new_empty(self.size, *sent.shape)
        dist.all_gather(list(received.unbind()), sent, group=self.group)
        return received.to(values.device)

    def all(self, flags: Tensor) -> Tensor:
        """Where a flag is true on every rank."""
        return self.gathered(flags.to(torch.uint8)).bool().all(0)

    def any(self, flags: Tensor) -> Tensor:
        """Where a flag is true on some rank."""
        return self.gathered(flags.to(torch.uint8)).bool().any(0)

    def sum_slices(self, values: Tensor) -> Tensor:
        """This rank's slice ``[n]`` of the sum over the ranks of ``values`` [R n]: a reduce-scatter."""
        sent = self._sent(values).contiguous()
        if self._backends.get(sent.device.type) == "nccl":
            received = sent.new_empty(len(sent) // self.size)
            reduce_scatter = getattr(dist, "reduce_scatter_single", None) or dist.reduce_scatter_tensor
            reduce_scatter(received, sent, group=self.group)
            return received.to(values.device)
        # Older Gloo has no reduce-scatter. This moves as much, and adds in the order of the ranks.
        parts = torch.empty_like(sent)
        dist.all_to_all_single(parts, sent, group=self.group)
        return parts.view(self.size, -1).sum(0).to(values.device)

    def join_slices(self, values: Tensor) -> Tensor:
        """``[R n]``: the slices ``[n]`` of all ranks, one after the other."""
        return self.gathered(values).flatten()

    def _sent(self, values: Tensor) -> Tensor:
        """``values`` where the group can send them from: Gloo sends from the host."""
        values = values.detach()
        if self._backends.get(values.device.type, "gloo") != "gloo":
            return values
        if "cpu" in self._backends:
            return values.cpu()
        return values.to(torch.device("cuda", torch.cuda.current_device()))


def running_ranks() -> int:
    """How many ranks run; 0 without a process group."""
    return dist.get_world_size() if dist.is_available() and dist.is_initialized() else 0


def check_alone(call: str) -> None:
    """Refuse to go on in one of several ranks that were not said to belong together.

    Args:
        call: what was called, for the message.
    """
    count = running_ranks()
    if count > 1:
        raise ArgumentError(
            f"{count} ranks of torch.distributed run, and {call} got no group: each rank would combine its own rows, "
            f"which no DistributedDataParallel averages, and the ranks would drift apart; {WHAT_TO_DO}"
        )


def check_parameters(name: str, parameters: Iterable[Tensor]) -> None:
    """Refuse parameters of which no rank holds the whole.

    Args:
        name: of the argument.
        parameters: what it held.
    """
    if running_ranks() == 0:
        return
    from torch.distributed.tensor import DTensor

    for place, parameter in enumerate(parameters):
        # FSDP1 marks its own, see torch/distributed/fsdp/_flat_param.py.
        flat = getattr(parameter, "_is_flat_param", False) or getattr(parameter, "_fsdp_flattened", False)
        if isinstance(parameter, DTensor) or flat:
            raise ArgumentError(
                f"{name}[{place}] is sharded (FSDP or DTensor): task gradients need the whole parameter on every rank. "
                "Do not shard these parameters, replicate them and pass group="
            )
