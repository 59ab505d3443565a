"""Which parameters a loss reaches, read off its graph without differentiating it."""

from __future__ import annotations

from collections.abc import Iterable
from typing import NamedTuple

from torch import Tensor
from torch.autograd.graph import Node, get_gradient_edge

from mtrl_imgrad.errors import ArgumentError

Edge = tuple[Node, int]
"""An output of an operation."""


class Leaf(NamedTuple):
    """A tensor at the end of a graph that asks for a gradient, and the operation that uses it there."""

    tensor: Tensor
    used_by: str


def leaves_of(tensor: Tensor, stops: frozenset[Edge] = frozenset()) -> dict[int, Leaf]:
    """The leaves below a tensor by ``id``.

    Args:
        tensor: with a graph.
        stops: edges at which the walk stops.
    """
    return _walk(tensor, stops)[0]


def edges_of(tensors: Iterable[Tensor]) -> frozenset[Edge]:
    """The edges that lead to these tensors."""
    edges = (get_gradient_edge(tensor) for tensor in tensors)
    return frozenset((edge.node, edge.output_nr) for edge in edges)


def check_features(features: list[Tensor], task_specific: dict[int, str]) -> None:
    """Check that no feature lies below another one, and none of the tasks' own parameters below any.

    Args:
        features: the tensors that gradients are combined at.
        task_specific: names of the tasks' own parameters by ``id``.
    """
    edges = edges_of(features)
    for i, feature in enumerate(features):
        leaves, passed = _walk(feature, frozenset())
        if passed & (edges - edges_of([feature])):
            raise ArgumentError(f"features[{i}] was computed from another of the features: its gradient counts twice")
        for key in leaves.keys() & task_specific.keys():
            raise ArgumentError(f"{task_specific[key]} lies below features[{i}]: it must be one of shared")


def _walk(tensor: Tensor, stops: frozenset[Edge]) -> tuple[dict[int, Leaf], set[Edge]]:
    """Leaves by id, and all edges below ``tensor``."""
    edge = get_gradient_edge(tensor)
    stack: list[tuple[Node, str]] = [(edge.node, "the loss itself")]
    seen: set[Node] = {edge.node}  # which also keeps the Python objects of the nodes, and so their identity
    passed: set[Edge] = set()
    leaves: dict[int, Leaf] = {}
    while stack:
        node, user = stack.pop()
        kind = type(node).__name__
        if kind == "AccumulateGrad":
            leaves.setdefault(id(node.variable), Leaf(node.variable, user))  # type: ignore[attr-defined]
            continue
        if kind == "CheckpointFunctionBackward":
            raise ArgumentError(
                "a reentrant checkpoint hides its parameters from the combiner: call "
                "torch.utils.checkpoint.checkpoint(..., use_reentrant=False)"
            )
        for below, output in node.next_functions:
            if below is None or (below, output) in stops:
                continue
            passed.add((below, output))
            if below not in seen:
                seen.add(below)
                stack.append((below, node.name()))
    return leaves, passed
