"""Each task's reward statistics, by which a replay normalizes rewards when they are sampled."""

from __future__ import annotations

import torch
from torch import Tensor


class RewardMoments:
    """Running mean and variance of each task's raw rewards, by Chan's parallel update, on the training device."""

    def __init__(self, num_tasks: int, device: torch.device) -> None:
        self.count = 0
        self.mean = torch.zeros(num_tasks, dtype=torch.float64, device=device)
        self.sum_of_squares = torch.zeros_like(self.mean)

    def to(self, device: torch.device | str) -> None:
        """Move to another device."""
        self.mean, self.sum_of_squares = self.mean.to(device), self.sum_of_squares.to(device)

    def add(self, rewards: Tensor) -> None:
        """Take in ``[K, n]`` rewards."""
        rewards = rewards.double()
        new = rewards.shape[1]
        mean = rewards.mean(1)
        delta = mean - self.mean  # between the groups; its square is what merging adds to the sums of squares
        total = self.count + new
        self.sum_of_squares += (rewards - mean[:, None]).square().sum(1) + delta.square() * (self.count * new / total)
        self.mean += delta * (new / total)
        self.count = total

    def std(self) -> Tensor:
        """Standard deviation ``[K]`` float32, 1 where a task's rewards have not varied yet."""
        std = (self.sum_of_squares / max(self.count, 1)).sqrt()
        return torch.where(std > 0, std, 1.0).float()
