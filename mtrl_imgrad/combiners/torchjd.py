"""TorchJD's aggregators as combiners, and combiners as TorchJD's aggregators.

TorchJD (https://torchjd.org) is a library for Jacobian descent. Scales stay its own: its aggregators sum (``PCGrad``,
``GradDrop``, ``Sum``) or average (``UPGrad``, ``AlignedMTL``, ``Mean``) as each of them says, and nothing here divides
or multiplies by the number of tasks. Our combiners keep theirs, the unit of the mean gradient unless
``reduction="sum"``.

Needs ``pip install "mtrl-imgrad[torchjd]"``. Some aggregators need more: ``CAGrad`` cvxpy, ``NashMTL`` cvxpy and ecos,
``FairGrad`` scipy, ``UPGrad`` and ``DualProj`` quadprog and qpsolvers. ``pip install "torchjd[full]"`` brings all of
them; its ecos has no wheel for Python 3.13 and later, where it must be compiled.
"""

from __future__ import annotations

import dataclasses

from mtrl_imgrad.extras import require

require("mtrl_imgrad.combiners.torchjd", "torchjd")

import torch
from torch import Tensor
from torchjd import Stateful
from torchjd.aggregation import Aggregator, GramianWeightedAggregator, WeightedAggregator, Weighting

from mtrl_imgrad.combiners.base import Combiner
from mtrl_imgrad.combiners.checks import Jacobian, blocks_of
from mtrl_imgrad.combiners.families.gramian import GramianCombiner
from mtrl_imgrad.combiners.families.matrix import MatrixCombiner, combination
from mtrl_imgrad.combiners.gramian import combine_blocks, gramian_of_blocks, rows_of
from mtrl_imgrad.combiners.result import Combination
from mtrl_imgrad.combiners.state.tables import TaskIds
from mtrl_imgrad.errors import ArgumentError

__all__ = ["TorchJDCombiner", "as_aggregator", "as_weighting"]


class TorchJDCombiner(MatrixCombiner):
    """A TorchJD aggregator as a combiner, for `Combiner.backward` and for ``MTSAC``.

        MTSAC("MlpPolicy", env, combiner=TorchJDCombiner(torchjd.aggregation.UPGrad()))

    An aggregator with Gramian weights gets the Gramian in float64. Any other one gets the Jacobian as one matrix, a
    copy of it where it comes in blocks. The residual is 0: TorchJD certifies nothing. Aggregators that draw at random
    do so from PyTorch's global generator.

    Args:
        aggregator: its scale is TorchJD's. One with a memory (``NashMTL``, ``GradVac``, ``ExcessMTL``) is refused:
            TorchJD knows neither task ids nor how to save it.

    Raises:
        ArgumentError: if ``aggregator`` is not an aggregator, or has a memory.
    """

    name = "torchjd"
    departures = "None: the aggregator is called as it is."
    paper = "Pierre Quinton and Valérian Rey. TorchJD: Jacobian descent with PyTorch. https://torchjd.org"

    def __init__(self, aggregator: Aggregator) -> None:
        super().__init__()
        if not isinstance(aggregator, Aggregator):
            raise ArgumentError(f"aggregator must be a torchjd.aggregation.Aggregator, got {aggregator!r}")
        if any(isinstance(part, Stateful) for part in aggregator.modules()):
            raise ArgumentError(f"aggregator must have no memory, which {aggregator} has")
        self.aggregator = aggregator

    @torch.no_grad()
    def combine(self, jacobian: Jacobian, losses: Tensor | None = None, tasks: TaskIds | None = None) -> Combination:
        """See `Combiner.combine`. Non-finite input is handed on, and answered with NaN."""
        blocks = [block.detach() for block in blocks_of(jacobian)]
        gramian = gramian_of_blocks(blocks)
        finite = torch.isfinite(gramian).all()
        weights = None
        if isinstance(self.aggregator, GramianWeightedAggregator):
            usable = torch.where(finite, gramian, 0.0)
            weights = self.aggregator.gramian_weighting(usable).double()
            gradient = combine_blocks(weights, blocks)
        else:
            matrix = torch.cat([rows_of(block) for block in blocks], 1)
            usable = torch.where(finite, matrix, 0.0)
            if isinstance(self.aggregator, WeightedAggregator):
                weights = self.aggregator.weighting(usable).double()
                gradient = combine_blocks(weights, blocks)
            else:
                pieces = self.aggregator(usable).split([block[0].numel() for block in blocks])
                gradient = [piece.view(block.shape[1:]) for piece, block in zip(pieces, blocks, strict=True)]
        return dataclasses.replace(combination(jacobian, gradient, finite, weights=weights), gramian=gramian)


class _CombinerWeighting(Weighting):
    def __init__(self, combiner: GramianCombiner) -> None:
        super().__init__()
        self.combiner = combiner

    @torch.no_grad()
    def forward(self, gramian: Tensor, /) -> Tensor:
        return self.combiner.weights(gramian).values.to(gramian.dtype)


class _CombinerAggregator(Aggregator):
    def __init__(self, combiner: Combiner) -> None:
        super().__init__()
        self.combiner = combiner

    @torch.no_grad()
    def forward(self, matrix: Tensor, /) -> Tensor:
        gradient = self.combiner.combine(matrix).gradient
        assert isinstance(gradient, Tensor), "one matrix gives one tensor"
        return gradient

    def __repr__(self) -> str:
        return f"as_aggregator({self.combiner!r})"


class _GramianCombinerAggregator(GramianWeightedAggregator):
    def __init__(self, combiner: GramianCombiner) -> None:
        super().__init__(as_weighting(combiner))
        self.combiner = combiner

    def __repr__(self) -> str:
        return f"as_aggregator({self.combiner!r})"


def as_aggregator(combiner: Combiner) -> Aggregator:
    """A combiner as a TorchJD aggregator, for ``torchjd.autojac``.

    TorchJD brings no losses, so a combiner that looks at them raises ``ArgumentError`` when it is called. Task ids are
    those of rows 0 to K - 1.

    Args:
        combiner: its scale is ours, the unit of the mean gradient unless ``reduction="sum"``.

    Raises:
        ArgumentError: if ``combiner`` is not a `Combiner`.
    """
    if isinstance(combiner, GramianCombiner):
        return _GramianCombinerAggregator(combiner)
    if not isinstance(combiner, Combiner):
        raise ArgumentError(f"combiner must be a Combiner, got {combiner!r}")
    return _CombinerAggregator(combiner)


def as_weighting(combiner: GramianCombiner) -> Weighting:
    """A Gramian combiner as a TorchJD weighting of Gramians, for ``torchjd.autogram``; see `as_aggregator`.

    Raises:
        ArgumentError: if ``combiner`` finds its weights from something else than the Gramian.
    """
    if not isinstance(combiner, GramianCombiner):
        raise ArgumentError(f"combiner must be a GramianCombiner, got {combiner!r}")
    return _CombinerWeighting(combiner)
