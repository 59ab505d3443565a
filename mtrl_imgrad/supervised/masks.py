"""Which parts of a target carry a measurement."""

from __future__ import annotations

import math

from torch import Tensor

from mtrl_imgrad.supervised.protocol import Protocol

IGNORED_LABEL = -1
"""Label of a pixel or an image without a class."""
UNKNOWN_ATTRIBUTE = -1.0
"""Target of an image of which nobody says whether it has the attribute."""
UNKNOWN_NUMBER = math.nan
"""Target of an image of which nobody knows the number."""


def measured_pixels(target: Tensor, protocol: Protocol) -> Tensor:
    """Where a depth or normal map was measured; both formats write zeros where it was not.

    Args:
        target: ``[B, C, H, W]``.
        protocol: ``"fixed"`` takes pixels with any channel other than zero; ``"paper"`` those whose channels do not
            sum to zero, which drops a real normal whose components cancel.

    Returns:
        ``[B, H, W]``, boolean.
    """
    return target.sum(dim=1) != 0 if protocol == "paper" else (target != 0).any(dim=1)
