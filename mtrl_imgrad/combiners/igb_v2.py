"""IGBv2, improvable gap balancing by reinforcement learning: a small soft actor-critic chooses the weights.

Dai, Fei, Lu, "Improvable Gap Balancing for Multi-Task Learning", UAI 2023, arXiv 2307.15429.

Base losses b and the objective are those of IGBv1; the weights are ``w = softmax(u)`` with the agent's action u. Its
state is ``L / b``, its reward ``min_i (L_i(previous) - L_i) / b_i``. Epochs, as in IGBv1, are windows of steps:

* windows 0 and 1: all weights are 1 / K; window 1 gives the base losses;
* windows 2 to 4: random actions, which fill the replay; from window 3 on the agent learns, every
  ``update_every`` steps;
* from window 5 on: the agent acts.

With k = 1 + (filled part of the replay) it makes ``update_every k / 2`` gradient steps on ``128 k`` transitions.

Departures: rewards are not scaled by the network's learning rate, which a combiner does not know; random actions are
standard normal logits; the critics see the weights, not the logits. As in the authors' code, the density of an action
is that of tanh(u), which it never goes through; it keeps the logits small.
"""

from __future__ import annotations

import torch
from torch import Tensor

from mtrl_imgrad.combiners.arguments import check_count
from mtrl_imgrad.combiners.base import Reduction
from mtrl_imgrad.combiners.igb_agent import CAPACITY, WeightAgent
from mtrl_imgrad.combiners.igb_v1 import IGBv1
from mtrl_imgrad.combiners.memory.base_losses import BaseLosses
from mtrl_imgrad.combiners.memory.tables import Counter, TaskIds, index_of
from mtrl_imgrad.combiners.outcome import Weights
from mtrl_imgrad.combiners.positive import LowerBound, PositiveLossCombiner, are_usable, weights_above
from mtrl_imgrad.errors import ArgumentError

__all__ = ["IGBv2"]

RANDOM_FROM, LEARNS_FROM, ACTS_FROM = 2, 3, 5
"""Windows after which random actions, the agent's learning and its acting begin (the authors' epochs)."""
BATCH_SIZE = 128
"""Of a nearly empty replay."""


class IGBv2(PositiveLossCombiner):
    """Gradient of the logarithms of the losses, weighed by a learning agent. With one task ``d = g / L``.

    All tasks must be there at every step: the agent sees them together. Steps are counted on the host, where nobody
    knows yet whether the losses are usable. So a step with unusable ones counts, and draws its random numbers; it
    leaves no trace in base losses and replay.

    Args:
        window: steps of an epoch; 25 is ours, short enough for a run without epochs.
        update_every: steps from one series of the agent's gradient steps to the next; 50 in the authors' code.
        seed: of the generator of initial weights, actions and batches; None (default): the run's, see
            `Combiner.set_random_seed`.
        lower_bound: taken from the losses, see `PositiveLossCombiner`.
        reduction: ``"mean"`` or ``"sum"`` (the authors').

    Raises:
        ArgumentError: if an argument is not one of those listed.
    """

    name = "igb_v2"
    keeps = ("steps", "base_losses", "generator", "agent")
    needs_all_tasks = True
    departures = "Rewards are not scaled by the learning rate; the critics see the weights."
    paper = IGBv1.paper
    bibtex = IGBv1.bibtex

    def __init__(
        self,
        window: int = 25,
        *,
        update_every: int = 50,
        seed: int | None = None,
        lower_bound: LowerBound = 0.0,
        reduction: Reduction = "mean",
    ) -> None:
        super().__init__(lower_bound=lower_bound, reduction=reduction)
        self.window = check_count("window", window)
        self.update_every = check_count("update_every", update_every)
        self._steps = self._keep("steps", Counter())
        self._base_losses = self._keep("base_losses", BaseLosses(skip=self.window, window=self.window))
        self._generator = self._seeded(seed)
        self._agent = self._keep("agent", WeightAgent(self._generator))

    def solve(self, losses: Tensor, tasks: TaskIds | None = None) -> Weights:
        """``[K]`` weights; see `LossCombiner.weights`. Then takes the losses in.

        Raises:
            ArgumentError: if the tasks are not 0 to K - 1, or not as many as before.
        """
        order = self._order(losses, tasks)
        ordered = losses[index_of(order, losses.device)] if order is not None else losses
        above = self.above(ordered, None)
        usable = are_usable(ordered, above)
        shares = self._shares(above, usable)
        self._base_losses.add(above, None, where=usable)
        self._steps.value += 1
        found = weights_above(shares / above, ordered, above)
        if tasks is not None:
            found = weights_above(found.values[index_of(tasks, losses.device)], losses, above)
        return found

    def _shares(self, above: Tensor, usable: Tensor) -> Tensor:
        """``[K]`` weights of sum one, by task id."""
        step, window = self._steps.value, self.window
        equal = torch.full_like(above, 1 / len(above))
        if step < RANDOM_FROM * window:
            return equal
        base = self._base_losses.means(above, None)
        state = above / base
        usable = usable & state.isfinite().all()
        self._agent.observe(state, usable)
        if step >= LEARNS_FROM * window and step % self.update_every == 0:
            fullness = 1 + min((step - RANDOM_FROM * window) / CAPACITY, 1.0)
            self._agent.learn(state, max(1, round(self.update_every * fullness / 2)), round(BATCH_SIZE * fullness))
        shares = self._agent.act(state, usable, random=step < ACTS_FROM * window)
        return torch.where(base.isnan().any(), equal, shares)

    def _order(self, losses: Tensor, tasks: TaskIds | None) -> list[int] | None:
        """The rows by task id; None where they are in order."""
        if tasks is None:
            return None
        if sorted(tasks) != list(range(len(losses))):
            raise ArgumentError(f"{self.name} needs all tasks from 0 on at every step, got {list(tasks)}")
        return [list(tasks).index(task) for task in range(len(losses))]
