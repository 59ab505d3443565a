"""The convergence bound and the angle: the numbers of the last sections of `docs/convergence.md`.

``python -m tests.support.synthetic.angles`` prints their table.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from mtrl_imgrad.combiners import make_combiner

OFFSETS = {"authors": 1.5, "paper": 1.0}
CONFLICTS = {"none": 0.0, "some": 1.0, "strong": 3.0}
IMBALANCES = {"none": 0.0, "strong": 2.0}


class Angles(NamedTuple):
    """For N Gramians, all computed from the gradients.

    Attributes:
        theta: ``[N]`` cosine between g0 and MGDA's point.
        phi: ``[N]`` cosine between g0 and the correction ``d - g0``.
    """

    theta: Tensor
    phi: Tensor


def gradients(count: int, num_tasks: int, conflict: float, imbalance: float, seed: int) -> Tensor:
    """``[N, K, P]``: normal, against a common direction of this size, norms log-normal with this deviation."""
    generator = torch.Generator().manual_seed(seed)
    normal = torch.randn(count, num_tasks, 8, generator=generator, dtype=torch.float64)
    normal[..., 0] += conflict * (torch.arange(num_tasks) % 2 * 2 - 1)
    return normal * (imbalance * torch.randn(count, num_tasks, 1, generator=generator, dtype=torch.float64)).exp()


def measure(G: Tensor, method: str, c: float, **options: str) -> Angles:
    """The angles of a method's updates on gradients ``[N, K, P]``."""
    gramian, mean = G @ G.mT, G.mean(1)
    update = (make_combiner(method, c=c, rescale=False, **options).weights(gramian).values[..., None] * G).sum(1)
    nearest = (make_combiner("mgda").weights(gramian).values[..., None] * G).sum(1)
    return Angles(_cosine(mean, nearest), _cosine(mean, update - mean))


def _cosine(a: Tensor, b: Tensor) -> Tensor:
    return (a * b).sum(-1) / (a.norm(dim=-1) * b.norm(dim=-1))


def descent(cosine: Tensor, c: float, step: float) -> Tensor:
    """What a step of ``step / L`` is sure to take off the mean loss, in units of ``(step / L) |g0|^2``; rho."""
    return 1 - step * (1 + c * c) / 2 + c * (1 - step) * cosine


def radius_factor(theta: Tensor, form: str) -> Tensor:
    """kappa: IMGrad's correction points where CAGrad's does for the radius kappa c."""
    return theta / (OFFSETS[form] - theta)


def lower_bound(theta: Tensor, radius: Tensor) -> Tensor:
    """``cos(theta + 2 atan(sin theta / (kappa c)))``, which phi's cosine is not below; -1 where nothing is proven."""
    sine = (1 - theta * theta).clamp_min(0).sqrt()
    bound = (theta.clamp(-1, 1).acos() + 2 * (sine / radius).atan()).cos()
    return torch.where(radius >= sine, bound, -1.0)


def main() -> None:
    """Print the table."""
    print("| conflict | imbalance | cos theta | cos phi, IMGrad | CAGrad | balanced: tighter | imbalanced: looser |")
    print("| --- | --- | ---: | ---: | ---: | ---: | ---: |")
    for conflict, size in CONFLICTS.items():
        for imbalance, spread in IMBALANCES.items():
            G = gradients(2000, 4, size, spread, seed=0)
            ours, cagrad = measure(G, "imgrad", 0.4), measure(G, "cagrad", 0.4)
            balanced = ours.theta > 0.75
            above = ours.phi >= cagrad.phi - 1e-9
            below = ours.phi <= cagrad.phi + 1e-9
            shares = (
                f"{100 * float(good[where].double().mean()):.0f} % of {int(where.sum())}" if bool(where.any()) else "-"
                for good, where in ((above, balanced), (below, ~balanced))
            )
            means = " | ".join(f"{float(x.mean()):.2f}" for x in (ours.theta, ours.phi, cagrad.phi))
            print(f"| {conflict} | {imbalance} | {means} | {' | '.join(shares)} |")


if __name__ == "__main__":
    main()
