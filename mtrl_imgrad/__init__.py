"""Train one agent on many tasks: gradient combiners (IMGrad and its baselines), agents, task sets, evaluation.

Everything is loaded when it is first asked for, so that who wants a combiner does not pay for simulators and
Stable-Baselines3, nor a simulator's worker process for torch.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

from mtrl_imgrad import errors

if TYPE_CHECKING:
    from mtrl_imgrad.agents import MTPPO, MTSAC, MTTD3
    from mtrl_imgrad.combiners import Combiner, list_combiners, make_combiner
    from mtrl_imgrad.envs import make_vec_env
    from mtrl_imgrad.evaluation import evaluate_success

__version__ = "0.1.0"

__all__ = [
    "MTPPO",
    "MTSAC",
    "MTTD3",
    "Combiner",
    "__version__",
    "errors",
    "evaluate_success",
    "list_combiners",
    "make_combiner",
    "make_vec_env",
]

_LAZY = {
    "MTPPO": "mtrl_imgrad.agents",
    "MTSAC": "mtrl_imgrad.agents",
    "MTTD3": "mtrl_imgrad.agents",
    "Combiner": "mtrl_imgrad.combiners",
    "list_combiners": "mtrl_imgrad.combiners",
    "make_combiner": "mtrl_imgrad.combiners",
    "make_vec_env": "mtrl_imgrad.envs",
    "evaluate_success": "mtrl_imgrad.evaluation",
}


def __getattr__(name: str) -> Any:
    if name in _LAZY:
        return getattr(importlib.import_module(_LAZY[name]), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
