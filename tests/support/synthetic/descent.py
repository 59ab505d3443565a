"""Gradient descent with a ledger: what the convergence theorem of `docs/convergence.md` promises and what came.

``python -m tests.support.synthetic.descent`` prints the table of that page.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from mtrl_imgrad.combiners import Combiner, make_combiner
from mtrl_imgrad.synthetic import evaluate, minimiser, task_weights

Evaluate = Callable[[Tensor], tuple[Tensor, Tensor]]
"""Parameters ``[P]`` to losses ``[K]`` and Jacobian ``[K, P]``."""

TOY_SMOOTHNESS = 3.0
"""L of the toy's mean loss, for every scenario, where |x1| <= 10 and -12 <= x2 <= 0; derived in docs/convergence.md."""


@dataclass(frozen=True)
class Problem:
    """Losses whose mean is L-smooth on the way, with a lower bound of the mean."""

    evaluate: Evaluate
    start: Tensor
    smoothness: float
    lowest: float


@dataclass(frozen=True)
class Ledger:
    """T steps.

    Attributes:
        positions: ``[T + 1, P]``.
        losses: ``[T + 1]`` mean loss.
        squared: ``[T + 1]`` squared norm of the mean gradient g0.
        off_centre: ``[T]`` ``|d - g0| / |g0|``, d before any rescaling.
        stretch: what d was divided by before it was applied.
        step_size: of the descent.
    """

    positions: Tensor
    losses: Tensor
    squared: Tensor
    off_centre: Tensor
    stretch: float
    step_size: float

    @property
    def effective(self) -> float:
        """Step size on d before rescaling, the eta of the theorem."""
        return self.step_size / self.stretch

    def broken_promises(self, c: float) -> Tensor:
        """``[T]`` where ``L0(next) <= L0 - eta (1 - c^2) |g0|^2 / 2`` does not hold, up to rounding."""
        promised = self.losses[:-1] - self.effective * (1 - c * c) / 2 * self.squared[:-1]
        return self.losses[1:] > promised + 1e-13 * self.losses[:-1].abs().clamp_min(1)

    def rate_bound(self, c: float, lowest: float) -> Tensor:
        """``[T]`` the theorem's bound of the least |g0|^2 among the first t + 1 points."""
        count = torch.arange(1, len(self.losses), dtype=torch.float64)
        return 2 * (self.losses[0] - lowest) / (self.effective * (1 - c * c) * count)

    def least_squared(self) -> Tensor:
        """``[T]`` the least |g0|^2 among the first t + 1 points."""
        return self.squared[:-1].cummin(0).values


def descend_and_record(problem: Problem, combiner: Combiner, steps: int) -> Ledger:
    """Gradient descent at step size 1 / L on the combined gradient, which may be rescaled."""
    c, rescale = combiner.c, combiner.rescale  # type: ignore[attr-defined]
    stretch = 1 + c * c if rescale else 1.0
    x, rows = problem.start.clone(), []
    for step in range(steps + 1):
        losses, jacobian = problem.evaluate(x)
        mean = jacobian.mean(0)
        update = combiner(jacobian).gradient
        off_centre = torch.linalg.vector_norm(stretch * update - mean) / torch.linalg.vector_norm(mean)
        rows.append((x.clone(), losses.mean(), mean @ mean, off_centre))
        if step < steps:
            x = x - update / problem.smoothness
    positions, losses, squared, off_centre = (torch.stack(part) for part in zip(*rows, strict=True))
    return Ledger(positions, losses, squared, off_centre[:-1], stretch, 1 / problem.smoothness)


def bowls(seed: int, num_tasks: int = 4, size: int = 6) -> Problem:
    """Quadratics of different curvature, centre and scale (three orders of magnitude), exact L and minimum."""
    generator = torch.Generator().manual_seed(seed)
    roots = torch.randn(num_tasks, size, 2, generator=generator, dtype=torch.float64)
    scales = 10 ** (3 * torch.rand(num_tasks, generator=generator, dtype=torch.float64) - 1.5)
    curvatures = scales[:, None, None] * (roots @ roots.mT)
    centres = torch.randn(num_tasks, size, generator=generator, dtype=torch.float64)

    def values(x: Tensor) -> tuple[Tensor, Tensor]:
        away = x - centres
        jacobian = (curvatures @ away[..., None])[..., 0]
        return (jacobian * away).sum(-1) / 2, jacobian

    mean = curvatures.mean(0)
    best = torch.linalg.lstsq(mean, (curvatures @ centres[..., None]).mean(0)[:, 0]).solution
    start = 3 * torch.randn(size, generator=generator, dtype=torch.float64)
    return Problem(values, start, float(torch.linalg.eigvalsh(mean)[-1]), float(values(best)[0].mean()))


def toy(s: float, start: tuple[float, float]) -> Problem:
    """The synthetic problem's scenario s. L holds in the lower half; the lowest mean loss is that of the optimum."""
    weights = task_weights([s])[0]

    def values(x: Tensor) -> tuple[Tensor, Tensor]:
        losses, jacobian = evaluate(x)
        return weights * losses, weights[:, None] * jacobian

    lowest = float(values(minimiser(torch.tensor(s, dtype=torch.float64)))[0].mean())
    return Problem(values, torch.tensor(start, dtype=torch.float64), TOY_SMOOTHNESS, lowest)


def main() -> None:
    """Print what was promised and what came."""
    problems = {
        "bowls, K = 4": (bowls(0), 2000),
        "toy s=0.5 from (-8.5, -5)": (toy(0.5, (-8.5, -5.0)), 2000),
        "toy s=0.9 from (9, -1)": (toy(0.9, (9.0, -1.0)), 2000),
        "toy s=0.9 from (9, 9)": (toy(0.9, (9.0, 9.0)), 2000),
    }
    print("| problem | method | steps | promises broken | least squared norm of g0 | bound |")
    print("| --- | --- | ---: | ---: | ---: | ---: |")
    for name, (problem, steps) in problems.items():
        for method, c in (("imgrad", 0.4), ("imgrad", 0.8), ("cagrad", 0.8)):
            ledger = descend_and_record(problem, make_combiner(method, c=c, rescale=False), steps)
            broken = int(ledger.broken_promises(c).sum())
            found, bound = float(ledger.least_squared()[-1]), float(ledger.rate_bound(c, problem.lowest)[-1])
            print(f"| {name} | {method} c={c} | {steps} | {broken} | {found:.1e} | {bound:.1e} |")


if __name__ == "__main__":
    main()
