"""Diagnostics of a Gramian: norms of the task gradients, cosines, conflicts, imbalance."""

from __future__ import annotations

import torch
from torch import Tensor

from mtrl_imgrad.combiners.gramian import check_gramian, check_tensor, correlation, is_nonzero
from mtrl_imgrad.combiners.solvers.dual_cone import c_min
from mtrl_imgrad.errors import ArgumentError
from mtrl_imgrad.validation import checked

UPHILL = 1e-6
"""A direction goes uphill for a task where its cosine with the task's gradient is below minus this: rounding aside."""


@checked
def gramian_diagnostics(gramian: Tensor, weights: Tensor | None = None) -> dict[str, Tensor]:
    """How the task gradients stand to each other, and to the combination where ``weights`` is given.

    Args:
        gramian: ``[K, K]``.
        weights: ``[K]`` coefficients of the combination.

    Returns:
        ``norms`` [K]; ``imbalance`` (largest norm over smallest, zero gradients left out); ``cosines`` [K,
        K]; ``cos_min``; ``conflict_fraction`` (pairs with a negative cosine); ``c_min``, the smallest radius at which
        CAGrad harms no task (0 where the mean gradient harms none, at most 1); with weights also
        ``direction_cosines`` [K], cosine of the combination with each task, and ``pareto_failure``, whether
        one of them is below -1e-6 (the update then goes uphill for a task).
    """
    check_gramian(gramian, one_step=True)
    if weights is not None:
        check_tensor("weights", weights)
        if weights.shape != gramian.shape[:1]:
            raise ArgumentError(f"weights must have shape {tuple(gramian.shape[:1])}, got {tuple(weights.shape)}")
    gramian = gramian.double()
    norms = gramian.diagonal().clamp_min(0).sqrt()
    nonzero = is_nonzero(gramian)
    smallest = torch.where(nonzero, norms, torch.full_like(norms, torch.inf)).amin()
    cosines = correlation(gramian)
    num_tasks = gramian.shape[-1]
    rows, columns = torch.triu_indices(num_tasks, num_tasks, 1, device=gramian.device)
    pairs = cosines[rows, columns]
    one = torch.ones((), dtype=gramian.dtype, device=gramian.device)
    diagnostics = {
        "norms": norms,
        "imbalance": torch.where(nonzero.any(), norms.amax() / smallest, one),
        "cosines": cosines,
        "cos_min": pairs.amin() if num_tasks > 1 else one,
        "conflict_fraction": (pairs < 0).double().mean() if num_tasks > 1 else one * 0,
        "c_min": c_min(cosines, torch.where(nonzero, norms, 0.0)),
    }
    if weights is not None:
        products = gramian @ weights.double()
        length = (weights.double() @ products).clamp_min(0).sqrt()
        defined = nonzero & (length > 0)
        ratio = products / (norms * length)
        diagnostics["direction_cosines"] = torch.where(defined, ratio, torch.zeros_like(ratio)).clamp(-1.0, 1.0)
        diagnostics["pareto_failure"] = (diagnostics["direction_cosines"] < -UPHILL).any()
    return diagnostics
