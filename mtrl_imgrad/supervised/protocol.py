"""Two ways to compute losses and metrics: as the published tables did, or as one would."""

from __future__ import annotations

from typing import Literal

Protocol = Literal["paper", "fixed"]
"""``"paper"``: what the code behind the published tables computes, for comparison with their numbers.
``"fixed"``: the same quantities over the whole split and without 0/0; the default. The differences are listed in
``docs/supervised_networks.md``."""
