"""No method makes the host wait for the device: nothing is read from it, and nothing is copied there with a wait.

The ``meta`` device, whose tensors have no data, stands for a GPU. Reading from it raises. Copies to it do not, so two
modes look at every call: numbers that come as a Python list are such a copy, as data and as an index.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch.overrides import TorchFunctionMode
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from mtrl_imgrad.combiners import Combiner, list_combiners, make_combiner
from tests.support.combiners.examples import make_example

CASES: dict[str, Callable[[], Combiner]] = {
    # GradDrop draws on the device, for which the meta device has no generator.
    **{name: lambda name=name: make_example(name, 3) for name in list_combiners() if name != "graddrop"},
    "imgrad on nash": lambda: make_combiner("imgrad", base="nash_mtl"),
    "safe imgrad": lambda: make_combiner("imgrad", pareto_safe=True, measure="lm"),
    "sampled imgrad": lambda: make_combiner("imgrad", tasks_per_step=2),
    "safe pcgrad": lambda: make_combiner("pcgrad", pareto_safe=True),
    "narrow conicgrad": lambda: make_combiner("conicgrad", c=0.9),
    "scaled mgda": lambda: make_combiner("mgda", normalization="loss+"),
    "adatask by rmsprop": lambda: make_combiner("adatask", algorithm="rmsprop"),
    "plain db_mtl": lambda: make_combiner("db_mtl", beta=0),
    "scaled moco": lambda: make_combiner("moco", normalization="loss"),
    "bounds": lambda: make_combiner("stch", window=1, warm_up=0, lower_bound=[0.0, 0.0, -1.0]),
}


class Copies(TorchDispatchMode):
    """Collects operations that copy from the host with a wait, or work on tensors of both sides."""

    def __init__(self, found: list[str]) -> None:
        super().__init__()
        self.found = found

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        tensors = [leaf for leaf in tree_leaves((args, kwargs)) if isinstance(leaf, torch.Tensor)]
        kinds = {tensor.device.type for tensor in tensors if tensor.ndim > 0}
        waits = len(kinds) > 1
        if func is torch.ops.aten._to_copy.default and kinds == {"cpu"}:
            waits = str(kwargs.get("device")) == "meta" and not kwargs.get("non_blocking")
        if waits:
            self.found.append(str(func))
        return func(*args, **kwargs)


class Lists(TorchFunctionMode):
    """Collects calls that bring numbers to the device as a Python list or number."""

    def __init__(self, found: list[str]) -> None:
        super().__init__()
        self.found = found

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        makes = func in (torch.tensor, torch.as_tensor) and str(kwargs.get("device")) == "meta"
        indexes = func in (torch.Tensor.__getitem__, torch.Tensor.__setitem__) and args[0].device.type == "meta"
        if makes or (indexes and isinstance(args[1], list)):
            self.found.append(func.__name__)
        return func(*args, **kwargs)


@pytest.mark.parametrize("case", CASES)
def test_a_step_makes_the_host_wait_for_nothing(case):
    combiner = CASES[case]()
    fewer = [2, 0, 1] if case == "igb_v2" else [2, 0]  # it refuses a step with absent tasks
    present: list[list[int] | None] = [None, fewer] if combiner.state_dict() else [None]
    for step, tasks in enumerate(present):
        count = 3 if tasks is None else len(tasks)
        blocks = [torch.empty(count, 2, 2, device="meta"), torch.empty(count, device="meta")]
        losses = torch.empty(count, device="meta")
        waits: list[str] = []
        with Lists(waits), Copies(waits):
            found = combiner.combine(blocks, losses, tasks)
            if combiner.needs_losses_after_step:
                combiner.after_step(losses, tasks)
        assert found.gradient[0].device.type == "meta"
        assert {tensor.device.type for tensor in (found.residual, found.status_code)} == {"meta"}
        assert {tensor.device.type for tensor in found.diagnostics.values()} <= {"meta"}
        assert not waits or (case == "igb_v2" and step == 0), "it may copy the agent's first weights"


def test_what_waits_is_seen():
    device, host = torch.empty(3, device="meta"), torch.ones(3)
    waits: list[str] = []
    with Lists(waits), Copies(waits):
        device[[0, 1]]
        device[torch.tensor([0, 1])]
        torch.tensor([1.0], device="meta")
        host.to("meta")
        host.to("meta", non_blocking=True)
    assert waits == ["__getitem__", "aten.index.Tensor", "tensor", "aten._to_copy.default"]
