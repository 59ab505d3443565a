"""Success on MT10 that others have published, for tables of one's own. Quoted, not reproduced here."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class PublishedSuccess:
    """A number of a paper.

    Attributes:
        method: as the paper calls it.
        mean: success over tasks and seeds.
        iqm: interquartile mean, where it was given.
        protocol: what it was measured by; numbers of different protocols do not compare.
        source: paper.
    """

    method: str
    mean: str
    iqm: str
    protocol: str
    source: str


MW_PLUS = "Meta-World+: v3 tasks, v2 rewards, 10 seeds, 20 M steps"
MW_2021 = "2021: v1 tasks and rewards, fixed goals, best of the mean curve, 20 M steps"
_PLUS, _CAGRAD = "Meta-World+ (McLean et al., 2025)", "as quoted by CAGrad (Liu et al., NeurIPS 2021)"

PUBLISHED_MT10 = (
    PublishedSuccess("MTMHSAC, 400 wide", ".773", ".754", MW_PLUS, _PLUS),
    PublishedSuccess("Soft modularization", ".822", ".812", MW_PLUS, _PLUS),
    PublishedSuccess("MOORE", ".834", ".810", MW_PLUS, _PLUS),
    PublishedSuccess("PaCo", ".723", ".738", MW_PLUS, _PLUS),
    PublishedSuccess("TOPPO (PPO, 717 k parameters)", ".972", "", "its own, v2 rewards", "Li et al., arXiv:2605.11473"),
    PublishedSuccess("MT-SAC", ".49 ± .07", "", MW_2021, _CAGRAD),
    PublishedSuccess("PCGrad", ".72 ± .02", "", MW_2021, _CAGRAD),
    PublishedSuccess("CAGrad", ".83", "", MW_2021, _CAGRAD),
    PublishedSuccess("FAMO", ".83", "", MW_2021, "FAMO (Liu et al., NeurIPS 2023)"),
    PublishedSuccess("Nash-MTL", ".91", "", MW_2021, "Nash-MTL (Navon et al., ICML 2022)"),
    PublishedSuccess("IMGrad (on CAGrad)", ".93 ± .07", "", MW_2021, "IMGrad (Zhou et al., IJCAI 2025)"),
)
