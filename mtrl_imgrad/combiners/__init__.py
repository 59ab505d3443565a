"""Combiners: K task gradients in, one update and its certificate out.

    >>> import torch
    >>> out = make_combiner("imgrad", c=0.4)(torch.tensor([[2.0, 0.0], [-1.0, 1.0]]))
    >>> [round(weight, 4) for weight in out.weights.tolist()]
    [0.4734, 0.6406]

Pure PyTorch: nothing here knows of reinforcement learning, vision, or files.
"""

from mtrl_imgrad.combiners.base import Combiner
from mtrl_imgrad.combiners.diagnostics import gramian_diagnostics
from mtrl_imgrad.combiners.families.gramian import GramianCombiner
from mtrl_imgrad.combiners.families.loss import LossCombiner
from mtrl_imgrad.combiners.families.matrix import MatrixCombiner
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
from mtrl_imgrad.combiners.registry import combiner_class, list_combiners, make_combiner
from mtrl_imgrad.combiners.result import Combination
from mtrl_imgrad.combiners.solvers.simplex_problems import SimplexSolution, conflict_averse_dual, min_norm_point
from mtrl_imgrad.combiners.weights import Status, Weights

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
