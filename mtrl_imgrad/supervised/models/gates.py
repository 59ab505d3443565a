"""Gates of mixtures of experts."""

from __future__ import annotations

from collections.abc import Sequence

from torch import Tensor, nn

_GRID = 8


class ImageGate(nn.Sequential):
    """``softmax(W x)`` of images averaged to 8 x 8, so that ``W`` does not depend on their size: ``[B, experts]``.

    Args:
        experts: how many weights.
    """

    def __init__(self, experts: int) -> None:
        super().__init__(nn.AdaptiveAvgPool2d(_GRID), nn.Flatten(), nn.Linear(3 * _GRID**2, experts), nn.Softmax(dim=1))


class MapsGate(nn.Sequential):
    """``softmax(W z)`` of the means ``z`` of maps ``[B, C, ...]``: ``[B, experts]``.

    Args:
        channels: C.
        experts: how many weights.
    """

    def __init__(self, channels: int, experts: int) -> None:
        super().__init__(
            nn.Flatten(2), nn.AdaptiveAvgPool1d(1), nn.Flatten(), nn.Linear(channels, experts), nn.Softmax(dim=1)
        )


def mixture(weights: Tensor, experts: Sequence[Tensor]) -> Tensor:
    """``sum_e weights[:, e] experts[e]``.

    Args:
        weights: ``[B, E]``.
        experts: E maps ``[B, C, ...]``.
    """
    shape = (-1, *[1] * (experts[0].ndim - 1))
    parts = [weight.view(shape) * maps for weight, maps in zip(weights.unbind(dim=1), experts, strict=True)]
    return sum(parts[1:], start=parts[0])
