"""IGBv2, improvable gap balancing by reinforcement learning: a small soft actor-critic chooses the weights.

Dai et al., UAI 2023, arXiv 2307.15429.

Base losses b and the objective are those of IGBv1; the weights are ``w = softmax(u)`` with u drawn by the agent. Its
state is the losses L as they are, its action ``K w``, its reward ``min_i (L_i(previous) - L_i) / b_i``. Epochs, as in
IGBv1, are windows of steps:

* windows 0 to 4: random weights, the softmax of standard normal numbers; window 1 gives the base losses, and from
  window 2 on there are rewards, so transitions go into the replay;
* from window 3 on the agent learns, every ``update_every`` steps;
* from window 5 on it acts.

With k = 1 + (filled part of the replay) it makes ``int(update_every k / 2)`` gradient steps on ``int(128 k)``
transitions each. All of this is the authors' code.

Departures: rewards are not scaled by the network's learning rate (theirs: first rate over current rate), which a
combiner does not know; with a ``lower_bound`` the state is the losses less it; mean in place of the sum. As in the
authors' code, the density of an action is that of tanh(u), which it never goes through.
"""

from __future__ import annotations

from torch import Tensor

from mtrl_imgrad.combiners.families.positive_loss import LowerBound, PositiveLossCombiner, are_usable, weights_above
from mtrl_imgrad.combiners.method import Reduction
from mtrl_imgrad.combiners.state.base_losses import BaseLosses
from mtrl_imgrad.combiners.state.igb_agent import CAPACITY, WeightAgent
from mtrl_imgrad.combiners.state.tables import Counter, TaskIds, index_of
from mtrl_imgrad.combiners.weights import Weights
from mtrl_imgrad.errors import ArgumentError
from mtrl_imgrad.validation import Count, Seed

STORES_FROM, LEARNS_FROM, ACTS_FROM = 2, 3, 5
"""Windows after which the replay fills, the agent learns, and it acts (the authors' epochs)."""
BATCH_SIZE = 128
"""Of a nearly empty replay (the authors' 256 k / 2)."""


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
    """

    name = "igb_v2"
    citation = "dai2023improvable"
    needs_all_tasks = True
    departures = "Rewards are not scaled by the learning rate; epochs are windows of steps; mean in place of the sum."

    def __init__(
        self,
        window: Count = 25,
        *,
        update_every: Count = 50,
        seed: Seed | None = None,
        lower_bound: LowerBound = 0.0,
        reduction: Reduction = "mean",
    ) -> None:
        super().__init__(lower_bound=lower_bound, reduction=reduction)
        self.window = window
        self.update_every = update_every
        self._steps = Counter()
        self._base_losses = BaseLosses(skip=self.window, window=self.window)
        self._generator = self._seed_generator(seed)
        self._agent = WeightAgent(self._generator)

    def solve(self, losses: Tensor, tasks: TaskIds | None = None) -> Weights:
        """``[K]`` weights; see `LossCombiner.weights`. Then takes the losses in."""
        order = self._order(losses, tasks)
        ordered = losses[index_of(order, losses.device)] if order is not None else losses
        above = self.above(ordered, None)
        usable = are_usable(ordered, above)
        shares = self._shares(above, usable)
        self._base_losses.add(above, None, where=usable)
        self._steps.value += 1
        weights = weights_above(shares / above, ordered, above)
        if tasks is not None:
            weights = weights_above(weights.values[index_of(tasks, losses.device)], losses, above)
        return weights

    def _shares(self, above: Tensor, usable: Tensor) -> Tensor:
        """``[K]`` weights of sum one, by task id."""
        step, window = self._steps.value, self.window
        base = self._base_losses.means(above, None)
        self._agent.observe(above, base, usable & base.isfinite().all())
        if step >= LEARNS_FROM * window and step % self.update_every == 0:
            stored = step - STORES_FROM * window + 1
            fullness = 1 + min(stored / CAPACITY, 1.0)
            updates = max(1, int(self.update_every * fullness / 2))  # truncated, as the batch size is
            self._agent.learn(above, updates, int(BATCH_SIZE * fullness))
        return self._agent.act(above, usable, random=step < ACTS_FROM * window) / len(above)

    def _order(self, losses: Tensor, tasks: TaskIds | None) -> list[int] | None:
        """The rows by task id; None where they are in order."""
        if tasks is None:
            return None
        if sorted(tasks) != list(range(len(losses))):
            raise ArgumentError(f"{self.name} needs all tasks from 0 on at every step, got {list(tasks)}")
        return [list(tasks).index(task) for task in range(len(losses))]
