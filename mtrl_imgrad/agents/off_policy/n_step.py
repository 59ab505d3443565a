"""N-step returns from a ring of transitions, made when they are sampled; on tensors only.

A span begins at a sampled transition and takes in up to n. It ends where the episode ends (by termination, or cut off
by time), and before the place where the ring is written next, behind which lie the oldest transitions.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

TERMINATED, CUT_OFF = 1.0, -1.0
"""Values of a transition's last column: its episode terminated, or was truncated by a time limit; 0 otherwise."""


class Spans(NamedTuple):
    """Of transitions ``[...]``."""

    rewards: Tensor
    """``[..., n]`` raw, also beyond the span's end."""
    lengths: Tensor
    """``[...]`` number of transitions, 1 to n."""
    last: Tensor
    """``[...]`` row of the last one."""
    ends: Tensor
    """``[...]`` what the last one ended: `TERMINATED`, `CUT_OFF` or 0."""

    def discounted(self, rewards: Tensor, gamma: float) -> tuple[Tensor, Tensor]:
        """The discounted sum of a span's rewards, and the discount of the value behind it, both ``[...]``.

        Args:
            rewards: ``[..., n]``, those of the spans, normalized or not.
            gamma: discount.
        """
        steps = torch.arange(rewards.shape[-1], device=rewards.device)
        inside = steps < self.lengths[..., None]
        powers = torch.full_like(rewards[..., 0], gamma)[..., None] ** steps
        return (rewards * powers * inside).sum(-1), torch.full_like(rewards[..., 0], gamma) ** self.lengths


def n_step_transitions(rows: Tensor, first: Tensor, num_envs: int, newest: int, n_steps: int) -> Spans:
    """The spans from sampled transitions on.

    Args:
        rows: ``[T * num_envs, W]``: a ring of T steps, each of all environments; the last two columns are the reward
            and how the episode ended.
        first: ``[...]`` sampled rows.
        num_envs: environments.
        newest: the step that was written last.
        n_steps: at most.
    """
    steps = torch.arange(n_steps, device=rows.device)
    index = (first[..., None] + steps * num_envs) % rows.shape[0]  # [..., n]; the ring wraps around
    rewards, ends = rows[:, -2:][index].unbind(-1)
    # Behind the newest step lies the oldest: a span that went on there would join two episodes.
    stops = (ends != 0) | (index // num_envs == newest) | (steps == n_steps - 1)
    length = stops.long().argmax(-1)  # the first that is True
    last = index.gather(-1, length[..., None]).squeeze(-1)
    return Spans(rewards, length + 1, last, ends.gather(-1, length[..., None]).squeeze(-1))
