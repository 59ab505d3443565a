"""Which parts of a target carry a measurement."""

from __future__ import annotations

import math

from torch import Tensor

from mtrl_imgrad.supervised.protocol import Protocol

IGNORED_LABEL = -1
"""Label of a pixel or an image without a class."""
UNKNOWN_ATTRIBUTE = -1.0
"""Target of an image whose attribute is unknown."""
UNKNOWN_NUMBER = math.nan
"""Target of an image whose number is unknown."""


def measured_pixels(target: Tensor, protocol: Protocol) -> Tensor:
    """The measured pixels of a depth or normal map; both formats write zeros where nothing was measured.

    Args:
        target: ``[B, C, H, W]``.
        protocol: ``"fixed"`` takes pixels with any channel other than zero; ``"paper"`` those whose channels do not
            sum to zero, which drops a real normal whose components cancel.

    Returns:
        ``[B, H, W]``, boolean.
    """
    return target.sum(dim=1) != 0 if protocol == "paper" else (target != 0).any(dim=1)
