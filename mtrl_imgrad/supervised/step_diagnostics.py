"""How the task gradients stand to each other in a training step: IMGrad's appendix, step by step.

Taken from the K x K Gramian. A method that forms it anyway pays nothing; for the others (and for steps between two
solves) it is probed by K backwards over the same graph, in the steps that are logged only.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from mtrl_imgrad.combiners.diagnostics import gramian_diagnostics
from mtrl_imgrad.combiners.gramian import gramian_of_blocks
from mtrl_imgrad.combiners.imbalance import direct, plumb_line, smallest_norm
from mtrl_imgrad.combiners.replicas.exchange import Exchange
from mtrl_imgrad.combiners.solvers.normalized import normalize
from mtrl_imgrad.combiners.solvers.simplex_problems import min_norm_point


def probe_gramian(
    losses: Sequence[Tensor], inputs: Sequence[Tensor], scale: float = 1.0, exchange: Exchange | None = None
) -> Tensor:
    """Inner products of the K task gradients, leaving the graph for the update that follows.

    Args:
        losses: K scalars with a graph.
        inputs: what to differentiate by: shared parameters, or the representation.
        scale: the losses are multiplied by it for the backward, against underflow in half precision.
        exchange: of the ranks whose losses add up; they may lack a graph.

    Returns:
        ``[K, K]`` float64, of the losses as they are.
    """
    rows: list[Sequence[Tensor | None]] = []
    for loss in losses:
        gradients: Sequence[Tensor | None] = [None] * len(inputs)
        if loss.requires_grad:
            gradients = torch.autograd.grad(loss * scale, inputs, retain_graph=True, allow_unused=True)
        rows.append(gradients if exchange is None else exchange.row(gradients))
    blocks = [_block([row[i] for row in rows]) for i in range(len(rows[0]))]
    if exchange is not None:
        return gramian_of_blocks(exchange.columns(blocks, len(losses))) / scale**2
    return gramian_of_blocks([block for block in blocks if block is not None]) / scale**2


def _block(rows: Sequence[Tensor | None]) -> Tensor | None:
    some = next((row for row in rows if row is not None), None)
    return None if some is None else torch.stack([torch.zeros_like(some) if row is None else row for row in rows])


def step_diagnostics(gramian: Tensor, weights: Tensor | None, names: Sequence[str]) -> dict[str, float]:
    """One row of a run's ``diagnostics.csv``.

    Args:
        gramian: ``[K, K]`` of the task gradients.
        weights: ``[K]`` of the update, or None where it is not a weighted sum.
        names: of the K tasks.

    Returns:
        ``imbalance`` (largest norm over smallest), the measures ``cos_theta`` (IMGrad's PM), ``lm`` and ``dc``,
        ``cos_min``, ``conflict_fraction``, ``c_min``, a norm for every task; with weights also every task's weight and
        ``direction_cosine``, and whether the update is a ``pareto_failure`` (0 or 1).
    """
    diagnostics = gramian_diagnostics(gramian, weights)
    problem = normalize(gramian)
    row = {
        "imbalance": diagnostics["imbalance"],
        "cos_theta": plumb_line(problem, min_norm_point(problem.values)),
        "lm": smallest_norm(problem),
        "dc": direct(problem),
        **{name: diagnostics[name] for name in ("cos_min", "conflict_fraction", "c_min")},
        **_by_task("norm", diagnostics["norms"], names),
    }
    if weights is not None:
        row["pareto_failure"] = diagnostics["pareto_failure"]
        row |= _by_task("weight", weights, names)
        row |= _by_task("direction_cosine", diagnostics["direction_cosines"], names)
    values = torch.stack([value.double() for value in row.values()]).tolist()
    return dict(zip(row, values, strict=True))


def _by_task(what: str, values: Tensor, names: Sequence[str]) -> dict[str, Tensor]:
    return {f"{what}/{name}": value for name, value in zip(names, values.unbind(), strict=True)}
