"""Results in one line, for ``print``. Reads the device: not for the hot path."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import torch
from torch import Tensor

MOST_NUMBERS = 10


def as_line(name: str, parts: Iterable[str]) -> str:
    """``name(part, part, ...)``; empty parts are left out."""
    return f"{name}({', '.join(part for part in parts if part)})"


def numbers_text(name: str, values: Tensor | None) -> str:
    """``name 0.25`` or ``name [0.5, 0.5]``; the shape alone where there are many, nothing for None."""
    if values is None:
        return ""
    if values.ndim > 1 or values.numel() > MOST_NUMBERS:
        return f"{name} of shape {list(values.shape)}"
    texts = [f"{value:.4g}" for value in values.flatten().tolist()]
    return f"{name} {texts[0]}" if values.ndim == 0 else f"{name} [{', '.join(texts)}]"


def norm_text(gradient: Tensor | Sequence[Tensor]) -> str:
    """``norm 0.85``, over all tensors."""
    parts = [gradient] if isinstance(gradient, Tensor) else gradient
    parts = [part.detach().coalesce().values() if part.is_sparse else part.detach() for part in parts]
    norms = [torch.linalg.vector_norm(part.to(torch.promote_types(part.dtype, torch.float64))) for part in parts]
    return f"norm {torch.stack([norm.cpu() for norm in norms]).norm().item():.4g}" if norms else "no gradient"
