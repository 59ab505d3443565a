"""Combiners by name."""

from __future__ import annotations

import inspect
from typing import Any

from mtrl_imgrad.combiners.base import Combiner
from mtrl_imgrad.combiners.methods.adatask import AdaTask
from mtrl_imgrad.combiners.methods.aligned_mtl import AlignedMTL
from mtrl_imgrad.combiners.methods.bilb4mtl import BiLB4MTL
from mtrl_imgrad.combiners.methods.cagrad import CAGrad
from mtrl_imgrad.combiners.methods.cagrad_fast import CAGradFast
from mtrl_imgrad.combiners.methods.con_fig import ConFIG
from mtrl_imgrad.combiners.methods.conicgrad import ConicGrad
from mtrl_imgrad.combiners.methods.cotbal import CoTBal
from mtrl_imgrad.combiners.methods.db_mtl import DBMTL
from mtrl_imgrad.combiners.methods.dwa import DWA
from mtrl_imgrad.combiners.methods.fairgrad import FairGrad
from mtrl_imgrad.combiners.methods.famo import FAMO
from mtrl_imgrad.combiners.methods.gls import GLS
from mtrl_imgrad.combiners.methods.graddrop import GradDrop
from mtrl_imgrad.combiners.methods.gradnorm import GradNorm
from mtrl_imgrad.combiners.methods.gradvac import GradVac
from mtrl_imgrad.combiners.methods.igb_v1 import IGBv1
from mtrl_imgrad.combiners.methods.igb_v2 import IGBv2
from mtrl_imgrad.combiners.methods.imgrad import IMGrad
from mtrl_imgrad.combiners.methods.imtl import IMTL
from mtrl_imgrad.combiners.methods.imtl_g import IMTLG
from mtrl_imgrad.combiners.methods.imtl_l import IMTLL
from mtrl_imgrad.combiners.methods.linear_scalarization import LinearScalarization
from mtrl_imgrad.combiners.methods.mgda import MGDA
from mtrl_imgrad.combiners.methods.moco import MoCo
from mtrl_imgrad.combiners.methods.nash_mtl import NashMTL
from mtrl_imgrad.combiners.methods.pcgrad import PCGrad
from mtrl_imgrad.combiners.methods.rlw import RLW
from mtrl_imgrad.combiners.methods.sdmgrad import SDMGrad
from mtrl_imgrad.combiners.methods.sdmgrad_os import SDMGradOS
from mtrl_imgrad.combiners.methods.si import SI
from mtrl_imgrad.combiners.methods.stch import STCH
from mtrl_imgrad.combiners.methods.upgrad import UPGrad
from mtrl_imgrad.combiners.methods.uw import UW
from mtrl_imgrad.errors import ArgumentError
from mtrl_imgrad.validation import look_up

_COMBINERS: dict[str, type[Combiner]] = {
    "linear_scalarization": LinearScalarization,
    "mgda": MGDA,
    "sdmgrad": SDMGrad,
    "sdmgrad_os": SDMGradOS,
    "moco": MoCo,
    "cagrad": CAGrad,
    "cagrad_fast": CAGradFast,
    "imgrad": IMGrad,
    "conicgrad": ConicGrad,
    "pcgrad": PCGrad,
    "gradvac": GradVac,
    "graddrop": GradDrop,
    "nash_mtl": NashMTL,
    "fairgrad": FairGrad,
    "imtl_g": IMTLG,
    "aligned_mtl": AlignedMTL,
    "config": ConFIG,
    "upgrad": UPGrad,
    "si": SI,
    "gls": GLS,
    "rlw": RLW,
    "uw": UW,
    "dwa": DWA,
    "imtl_l": IMTLL,
    "imtl": IMTL,
    "famo": FAMO,
    "igb_v1": IGBv1,
    "igb_v2": IGBv2,
    "bilb4mtl": BiLB4MTL,
    "stch": STCH,
    "cotbal": CoTBal,
    "gradnorm": GradNorm,
    "db_mtl": DBMTL,
    "adatask": AdaTask,
}
SHORT_NAMES = {"ls": "linear_scalarization"}
"""As the papers' tables call them."""


def list_combiners() -> list[str]:
    """Registry names, in alphabetical order.

    >>> "imgrad" in list_combiners()
    True
    """
    return sorted(_COMBINERS)


def combiner_class(name: str) -> type[Combiner]:
    """The class behind a registry name or its short form (`SHORT_NAMES`).

    Raises:
        UnknownNameError: if no combiner has this name; proposes the closest ones.
    """
    full = SHORT_NAMES.get(name, name) if isinstance(name, str) else name
    return look_up("combiner", full, dict(sorted(_COMBINERS.items())))


def make_combiner(combiner: str | Combiner, **kwargs: Any) -> Combiner:
    """A combiner from its registry name and its arguments; a combiner is handed back as it is.

    >>> make_combiner("imgrad", c=0.8)
    IMGrad(c=0.8)

    Args:
        combiner: a name from `list_combiners`, or a `Combiner`.
        kwargs: arguments of its constructor.

    Raises:
        UnknownNameError: if no combiner has this name; proposes the closest ones.
        ArgumentError: if the combiner does not take an argument, or not its value, or must be given one, or if
            arguments come with a combiner that exists already.
    """
    if isinstance(combiner, Combiner):
        if kwargs:
            raise ArgumentError(f"a ready combiner takes no arguments, got {', '.join(sorted(kwargs))}")
        return combiner
    method = combiner_class(combiner)
    parameters = inspect.signature(method).parameters
    accepted = list(parameters)
    unknown = sorted(set(kwargs) - set(accepted))
    if unknown:
        raise ArgumentError(
            f"combiner {combiner!r} takes no argument {', '.join(map(repr, unknown))}; accepted: {', '.join(accepted)}"
        )
    missing = [name for name, one in parameters.items() if one.default is one.empty and name not in kwargs]
    if missing:
        raise ArgumentError(f"combiner {combiner!r} must be given the arguments {', '.join(map(repr, missing))}")
    return method(**kwargs)
