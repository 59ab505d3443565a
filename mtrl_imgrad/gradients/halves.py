"""A recorded graph in two halves: what can run before its last argument is known, and the rest."""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple

from torch._ops import OpOverload
from torch.fx import Graph, GraphModule, Node
from torch.fx.node import map_arg


class Halves(NamedTuple):
    """The value of `in_halves`."""

    first: GraphModule
    """``(*leaves) -> [*values, *saved]``: the values that do not wait, and what the second half needs of the first."""
    second: GraphModule
    """``(*leaves at `leaf_indices`, *saved, last argument) -> values``."""
    leaf_indices: list[int]
    """Arguments of the whole graph that the second half needs, too."""


def in_halves(graph: GraphModule, num_first: int) -> Halves:
    """Split a graph at its last argument; the operations keep their order, and so the numbers.

    Args:
        graph: takes tensors and returns a list.
        num_first: of its values, how many do not depend on the last argument; they come first.
    """
    *leaves, last = graph.graph.find_nodes(op="placeholder")
    waiting = {last}
    for node in graph.graph.nodes:
        if not waiting.isdisjoint(node.all_input_nodes):
            waiting.add(node)
    output = graph.graph.output_node()
    waiting.discard(output)
    values = list(output.args[0])  # type: ignore[arg-type]
    early, late = values[:num_first], values[num_first:]

    read = [source for node in graph.graph.nodes if node in waiting for source in node.all_input_nodes]
    read += [value for value in late if isinstance(value, Node)]
    kept = list(dict.fromkeys(base for node in read if node not in waiting for base in _bases(node)))
    kept_leaves, saved = [node for node in leaves if node in kept], [node for node in kept if node not in leaves]
    operations = [node for node in graph.graph.nodes if node.op not in ("placeholder", "output")]
    return Halves(
        first=_part(graph, leaves, [node for node in operations if node not in waiting], early + saved),
        second=_part(graph, [*kept_leaves, *saved, last], [node for node in operations if node in waiting], late),
        leaf_indices=[index for index, node in enumerate(leaves) if node in kept],
    )


def _bases(node: Node) -> Iterator[Node]:
    """What must be kept to have ``node`` later: views are made again, constants belong to both halves."""
    if node.op == "get_attr" or _is_view(node):
        for source in node.all_input_nodes:
            yield from _bases(source)
    else:
        yield node


def _is_view(node: Node) -> bool:
    if not isinstance(node.target, OpOverload):
        return False
    alias = node.target._schema.returns[0].alias_info if node.target._schema.returns else None
    return alias is not None and not alias.is_write


def _part(whole: GraphModule, inputs: list[Node], operations: list[Node], values: list[object]) -> GraphModule:
    part = Graph()
    copies = {node: part.placeholder(node.name) for node in inputs}

    def copy(node: Node) -> Node:
        if node not in copies:
            for source in node.all_input_nodes:
                copy(source)
            copies[node] = part.node_copy(node, copies.__getitem__)
        return copies[node]

    for node in operations:
        copy(node)
    part.output(map_arg(values, copy))  # type: ignore[arg-type, type-var]
    part.eliminate_dead_code()
    return GraphModule(whole, part)
