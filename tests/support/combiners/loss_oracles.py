"""The loss-weighting methods as their papers state them: total losses for autograd, torch.optim for what is learned.

Slow and plain. Each has ``total(losses)``, which the network descends, and ``after(losses)``, told the losses of the
same batch after the network's step.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor


class Oracle:
    reduction = "sum"
    """That of our combiner whose weights are the published ones."""

    def total(self, losses: Tensor) -> Tensor:
        raise NotImplementedError

    def after(self, losses: Tensor) -> None:
        pass


class _Learns(Oracle):
    """Numbers a task that an Adam moves along with the network."""

    def __init__(self, first: float, learning_rate: float, weight_decay: float = 0.0, num_tasks: int = 3) -> None:
        self.numbers = torch.full((num_tasks,), first, dtype=torch.float64, requires_grad=True)
        self.optimizer = torch.optim.Adam([self.numbers], lr=learning_rate, weight_decay=weight_decay)

    def descend(self, total: Tensor) -> Tensor:
        (self.numbers.grad,) = torch.autograd.grad(total, self.numbers, retain_graph=True)
        constant = self.numbers.detach().clone()
        self.optimizer.step()
        return constant


class SI(Oracle):
    def total(self, losses):
        return losses.log().sum()


class GLS(Oracle):
    reduction = "mean"

    def total(self, losses):
        return losses.prod() ** (1 / len(losses))


class RLW(Oracle):
    reduction = "mean"

    def __init__(self, seed):
        self.generator = torch.Generator().manual_seed(seed)

    def total(self, losses):
        z = torch.randn(len(losses), generator=self.generator, dtype=torch.float64)
        return (z.exp() / z.exp().sum()) @ losses


class UW(_Learns):
    def total(self, losses):
        def total(s):
            return ((-s).exp() * losses / 2 + s / 2).sum()

        return total(self.descend(total(self.numbers)))


class IMTLL(_Learns):
    def total(self, losses):
        def total(s):
            return (s.exp() * losses - s).sum()

        return total(self.descend(total(self.numbers)))


class DWA(Oracle):
    def __init__(self, window, temperature):
        self.window, self.temperature = window, temperature
        self.history: list[Tensor] = []

    def total(self, losses):
        n, done = self.window, len(self.history) // self.window
        weights = torch.ones_like(losses)
        if done >= 2:
            means = torch.stack(self.history[: done * n]).view(done, n, -1).mean(1)
            weights = len(losses) * torch.softmax(means[-1] / means[-2] / self.temperature, 0)
        self.history.append(losses.detach())
        return weights @ losses


class FAMO(_Learns):
    reduction = "mean"

    def __init__(self, learning_rate, weight_decay, bound):
        super().__init__(0.0, learning_rate, weight_decay)
        self.bound = bound

    def total(self, losses):
        above = losses - self.bound + 1e-8
        self.before = above.detach().log()
        z = self.numbers.detach().softmax(0)
        c = (z / above.detach()).sum()
        return (z * above.log()).sum() / c

    def after(self, losses):
        gained = self.before - (losses - self.bound + 1e-8).log()
        (self.numbers.grad,) = torch.autograd.grad(self.numbers.softmax(0), self.numbers, gained)
        self.optimizer.step()


class IGBv1(Oracle):
    def __init__(self, window):
        self.window = window
        self.history: list[Tensor] = []

    def total(self, losses):
        n = self.window
        weights = torch.ones_like(losses)
        if len(self.history) >= 2 * n:
            base = torch.stack(self.history[n : 2 * n]).mean(0)
            weights = len(losses) * (losses.detach() / base).softmax(0)
        self.history.append(losses.detach())
        return weights @ losses.log()


class STCH(Oracle):
    def __init__(self, window, warm_up, mu):
        self.window, self.warm_up, self.mu = window, warm_up, mu
        self.history: list[Tensor] = []

    def total(self, losses):
        start, stop = self.warm_up * self.window, (self.warm_up + 1) * self.window
        total = losses.log().sum()
        if len(self.history) >= stop:
            nadir = torch.stack(self.history[start:stop]).mean(0)
            total = len(losses) * self.mu * ((losses / nadir).log() / self.mu).logsumexp(0)
        self.history.append(losses.detach())
        return total


class BiLB4MTL(_Learns):
    reduction = "mean"

    def __init__(self, lam, learning_rate, router, gap, scale):
        super().__init__(1.0, learning_rate)
        self.lam, self.router, self.gap, self.scale = lam, router, gap, scale
        self.first: Tensor | None = None

    def total(self, losses):
        if self.first is None:
            self.first = losses.detach()
        scaled = {
            "none": losses,
            "initial": losses / self.first * self.first.min(),
            "log_initial": torch.log(losses / self.first),
        }[self.scale]

        def total(x):
            w = {
                "sigmoid": torch.sigmoid(x),
                "relu_sigmoid": torch.sigmoid(torch.relu(x)),
                "softmax": torch.softmax(x, 0),
                "clamped_softmax": torch.clamp(torch.softmax(x, 0), 0.2, 0.8),
            }[self.router]
            compared = w * scaled if self.gap == "weighted" else scaled
            f = sum((compared[i] - compared[i + 1]).abs() for i in range(len(scaled) - 1))
            divisor = w.sum().detach() if "sigmoid" in self.router else w.sum()
            return w @ scaled / divisor + self.lam * f

        return total(self.descend(total(self.numbers)))


class CoTBal(Oracle):
    def __init__(self, mini, single, temperature):
        self.weights = by_hand(mini, single, temperature)

    def total(self, losses):
        return torch.tensor(self.weights, dtype=torch.float64) @ losses


def by_hand(mini, single, temperature):
    """CoTBal's weights with loops; gains are large enough for no bound to matter."""
    tasks = range(len(mini))

    def softmax(scores):
        powers = [math.exp(score / temperature) for score in scores]
        return [len(scores) * power / sum(powers) for power in powers]

    def contribution(i, j):
        return (single[i][j] - mini[j]) / (single[j][j] - mini[j])

    others = len(mini) - 1
    gives = softmax([sum(contribution(i, j) for j in tasks if j != i) / others for i in tasks])
    receives = softmax([-sum(contribution(j, i) for j in tasks if j != i) / others for i in tasks])
    difficulty = softmax([1 - mini[i] / single[i][i] for i in tasks])
    return [a / 4 + b / 4 + c / 2 for a, b, c in zip(gives, receives, difficulty, strict=True)]
