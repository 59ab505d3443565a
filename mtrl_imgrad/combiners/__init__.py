"""Combiners: K task gradients in, one update and its certificate out.

    >>> import torch
    >>> out = make_combiner("imgrad", c=0.4)(torch.tensor([[2.0, 0.0], [-1.0, 1.0]]))
    >>> [round(weight, 4) for weight in out.weights.tolist()]
    [0.4734, 0.6406]

Pure PyTorch: nothing here knows of reinforcement learning, vision, or files.
"""

from mtrl_imgrad.combiners.adatask import AdaTask
from mtrl_imgrad.combiners.aligned_mtl import AlignedMTL
from mtrl_imgrad.combiners.base import (
    Combination,
    Combiner,
    GramianCombiner,
    LossCombiner,
    MatrixCombiner,
    Status,
    Weights,
)
from mtrl_imgrad.combiners.bilb4mtl import BiLB4MTL
from mtrl_imgrad.combiners.cagrad import CAGrad
from mtrl_imgrad.combiners.cagrad_fast import CAGradFast
from mtrl_imgrad.combiners.con_fig import ConFIG
from mtrl_imgrad.combiners.conicgrad import ConicGrad
from mtrl_imgrad.combiners.cotbal import CoTBal
from mtrl_imgrad.combiners.db_mtl import DBMTL
from mtrl_imgrad.combiners.dwa import DWA
from mtrl_imgrad.combiners.fairgrad import FairGrad
from mtrl_imgrad.combiners.famo import FAMO
from mtrl_imgrad.combiners.gls import GLS
from mtrl_imgrad.combiners.graddrop import GradDrop
from mtrl_imgrad.combiners.gradnorm import GradNorm
from mtrl_imgrad.combiners.gradvac import GradVac
from mtrl_imgrad.combiners.gramian import gramian_diagnostics
from mtrl_imgrad.combiners.igb_v1 import IGBv1
from mtrl_imgrad.combiners.igb_v2 import IGBv2
from mtrl_imgrad.combiners.imgrad import IMGrad
from mtrl_imgrad.combiners.imtl import IMTL
from mtrl_imgrad.combiners.imtl_g import IMTLG
from mtrl_imgrad.combiners.imtl_l import IMTLL
from mtrl_imgrad.combiners.linear_scalarization import LinearScalarization
from mtrl_imgrad.combiners.mgda import MGDA
from mtrl_imgrad.combiners.moco import MoCo
from mtrl_imgrad.combiners.nash_mtl import NashMTL
from mtrl_imgrad.combiners.pcgrad import PCGrad
from mtrl_imgrad.combiners.registry import combiner_class, list_combiners, make_combiner
from mtrl_imgrad.combiners.rlw import RLW
from mtrl_imgrad.combiners.sdmgrad import SDMGrad
from mtrl_imgrad.combiners.sdmgrad_os import SDMGradOS
from mtrl_imgrad.combiners.si import SI
from mtrl_imgrad.combiners.solvers.simplex_problems import SimplexSolution, conflict_averse_dual, min_norm_point
from mtrl_imgrad.combiners.stch import STCH
from mtrl_imgrad.combiners.upgrad import UPGrad
from mtrl_imgrad.combiners.uw import UW

__all__ = [
    "DBMTL",
    "DWA",
    "FAMO",
    "GLS",
    "IMTL",
    "IMTLG",
    "IMTLL",
    "MGDA",
    "RLW",
    "SI",
    "STCH",
    "UW",
    "AdaTask",
    "AlignedMTL",
    "BiLB4MTL",
    "CAGrad",
    "CAGradFast",
    "CoTBal",
    "Combination",
    "Combiner",
    "ConFIG",
    "ConicGrad",
    "FairGrad",
    "GradDrop",
    "GradNorm",
    "GradVac",
    "GramianCombiner",
    "IGBv1",
    "IGBv2",
    "IMGrad",
    "LinearScalarization",
    "LossCombiner",
    "MatrixCombiner",
    "MoCo",
    "NashMTL",
    "PCGrad",
    "SDMGrad",
    "SDMGradOS",
    "SimplexSolution",
    "Status",
    "UPGrad",
    "Weights",
    "combiner_class",
    "conflict_averse_dual",
    "gramian_diagnostics",
    "list_combiners",
    "make_combiner",
    "min_norm_point",
]
