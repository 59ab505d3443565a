"""Measured numbers in JSON files."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any


def null_for_nan(value: Any) -> Any:
    """``value`` as JSON has it, with None for NaN and infinities, which JSON has no numbers for."""
    if isinstance(value, Mapping):
        return {key: null_for_nan(entry) for key, entry in value.items()}
    if isinstance(value, (list, tuple)):
        return [null_for_nan(entry) for entry in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value
