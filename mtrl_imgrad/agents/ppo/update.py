"""One gradient step of multi-task PPO, on tensors only.

Nothing here copies to the host, synchronises, or branches on data (with a fused optimizer, the default). Losses are
written for one task; `mtrl_imgrad.gradients` spreads them over the tasks, and a combiner a side turns the K gradients
of the shared parameters into one.

For task k with rows i, ratio ``r_i = pi(a_i | s_i) / pi_old(a_i | s_i)``, advantages A and value targets y:

    actor_k  = mean_i -min(r_i A_i, clip(r_i, 1 - c, 1 + c) A_i) - ent_coef entropy_i
    critic_k = vf_coef mean_i (v(s_i) - y_i)^2

(Schulman et al., "Proximal Policy Optimization Algorithms", arXiv 1707.06347; the parts are SB3's.) With one task, or
with `LinearScalarization`, a step is SB3's on the mean of the task losses, but for the clipping of gradients, which
goes by network.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal, NamedTuple

import torch
from torch import Tensor
from torch.func import functional_call

from mtrl_imgrad.agents.encoders.dropout import NO_MASKS, DropoutLayers, Masks
from mtrl_imgrad.agents.ppo.policy import MTPPOPolicy
from mtrl_imgrad.agents.ppo.rollout import TaskRollout
from mtrl_imgrad.combiners import Combination, Combiner
from mtrl_imgrad.combiners.state.tables import index_of
from mtrl_imgrad.errors import ArgumentError
from mtrl_imgrad.gradients import CombinedGradients, Execution, NetworkUpdate, StepSettings

AdvantageScope = Literal["batch", "task"]


@dataclass(frozen=True)
class PPOSettings:
    """Settings of the updates of one training.

    Attributes:
        clip_range: c of the clipped ratio.
        clip_range_vf: how far a value may leave that predicted when acting; None leaves it free. In the unit in which
            values are learned.
        ent_coef: weight of the entropy.
        vf_coef: weight of the value loss.
        normalize_advantage: whether advantages are whitened in each minibatch.
        advantage_scope: over which rows, see `whitened`.
        target_kl: stop before the first step at which the KL divergence exceeds 1.5 times this; None does not stop.
        step: of both networks.
    """

    clip_range: float
    clip_range_vf: float | None
    ent_coef: float
    vf_coef: float
    normalize_advantage: bool
    advantage_scope: AdvantageScope
    target_kl: float | None
    step: StepSettings


class TaskMeasures(NamedTuple):
    """Of one minibatch, by task: all ``[K]``."""

    policy_loss: Tensor
    """Without the entropy."""
    value_loss: Tensor
    """Mean squared error, without ``vf_coef``, in the unit in which values are learned."""
    entropy_loss: Tensor
    """Minus the mean entropy."""
    approx_kl: Tensor
    """Estimate of the KL divergence from the policy that acted: mean of ``r - 1 - log r`` (SB3's)."""
    clip_fraction: Tensor
    """Part of the rows whose ratio lies outside the clip range."""


class PPOReport(NamedTuple):
    """Report of one update: tensors on the training device."""

    measures: TaskMeasures
    actor: Combination
    critic: Combination
    within_kl: Tensor
    """scalar bool: whether `PPOSettings.target_kl` had not stopped the training before this update."""
    finite: Tensor
    """scalar bool: whether this update, and every one before it since `PPOUpdate.begin`, was finite."""


class _ActorAux(NamedTuple):
    policy_loss: Tensor
    entropy_loss: Tensor
    approx_kl: Tensor
    clip_fraction: Tensor


class PPOUpdate:
    """Updates actor and critic from minibatches of a rollout.

    Args:
        policy: networks and their optimizers; changed in place.
        actor_combiner: for the gradients of the actor losses.
        critic_combiner: for the gradients of the critic losses.
        execution: how the gradients' operations are run; by default recorded once and replayed.
        generator: what the masks of the critic's dropout are drawn from, anew for each update; on its device.

    Raises:
        ArgumentError: if the critic has dropout and there is no generator.
    """

    settings: PPOSettings
    within_kl: Tensor
    """scalar bool: False once `PPOSettings.target_kl` was exceeded."""

    def __init__(
        self,
        policy: MTPPOPolicy,
        actor_combiner: Combiner,
        critic_combiner: Combiner,
        execution: Execution | None = None,
        generator: torch.Generator | None = None,
    ) -> None:
        self.policy = policy
        self.actor = NetworkUpdate(policy.actor, actor_combiner, self._actor_loss, StepSettings(), execution)
        self.critic = NetworkUpdate(policy.critic, critic_combiner, self._critic_loss, StepSettings(), execution)
        self._critic_dropout = DropoutLayers(policy.critic)
        self.generator = generator
        if self._critic_dropout and generator is None:
            raise ArgumentError("generator must be given for the masks of a critic with dropout, got None")

    def begin(self, settings: PPOSettings, returns: Tensor) -> None:
        """Start a training on a rollout.

        Args:
            settings: for all its updates.
            returns: ``[K, N]`` all value targets of the rollout: the statistics of PopArt take them in, if there are.
        """
        self.settings = settings
        self.actor.settings = self.critic.settings = settings.step
        num_tasks = returns.shape[0]
        self.within_kl = torch.ones((), dtype=torch.bool, device=returns.device)
        self._finite = torch.ones_like(self.within_kl)
        self._clip, self._ent_coef, self._vf_coef = (
            returns.new_full((num_tasks,), number)
            for number in (settings.clip_range, settings.ent_coef, settings.vf_coef)
        )
        limit = settings.clip_range_vf
        self._clip_vf = () if limit is None else (returns.new_full((num_tasks,), limit),)
        if self.policy.critic.popart is not None:
            self.policy.critic.popart.update(returns)

    @torch.no_grad()
    def __call__(self, batch: TaskRollout, jacobian: bool = False) -> PPOReport:
        """Make one update.

        Args:
            batch: task-major rows.
            jacobian: compute per-task gradients even for a combiner that does without, for diagnostics.

        Where a combined gradient is not finite, neither network moves, nor does anything up to the next `begin`
        (``finite`` of the report). The same holds from the first minibatch on whose KL divergence is too large. With
        ``on_nonfinite`` other than ``"raise"`` the former is left for faults of the combiner itself: a network whose
        step is skipped stays as it is, the other one goes on.
        """
        actor_rows, critic_rows = self._rows_of_actor(batch), self._rows_of_critic(batch)
        actor = self.actor.gradients(*actor_rows, jacobian=jacobian)
        critic = self.critic.gradients(*critic_rows, jacobian=jacobian)
        aux: _ActorAux = actor.aux
        within_kl = self.within_kl
        # Decided on the device: a minibatch beyond the limit is computed, but moves nothing.
        if self.settings.target_kl is not None:
            self.within_kl = within_kl & (_mean_of_present(aux.approx_kl, actor) <= 1.5 * self.settings.target_kl)
        finite = self.actor.write(actor) & self.critic.write(critic)
        self._finite = self._finite & (finite | ~within_kl)  # no fault where nothing was to move
        for network in (self.actor, self.critic):
            network.step(self._finite & self.within_kl)
        self.actor.after_step(actor, *actor_rows)
        self.critic.after_step(critic, *critic_rows)
        measures = TaskMeasures(aux.policy_loss, critic.aux, aux.entropy_loss, aux.approx_kl, aux.clip_fraction)
        return PPOReport(measures, actor.combination, critic.combination, within_kl, self._finite)

    def _rows_of_actor(self, batch: TaskRollout) -> tuple[Any, ...]:
        advantages = batch.advantages
        if self.settings.normalize_advantage:
            advantages = whitened(advantages, self.settings.advantage_scope)
        return batch.observations, batch.actions, batch.log_probs, advantages, self._clip, self._ent_coef

    def _rows_of_critic(self, batch: TaskRollout) -> tuple[Any, ...]:
        targets, values, popart = batch.returns, batch.values, self.policy.critic.popart
        if popart is not None:
            targets, values = popart.normalize(targets), popart.normalize(values)
        return batch.observations, targets, values, self._clip_vf, self._vf_coef, self._draw_masks(batch)

    def _draw_masks(self, batch: TaskRollout) -> Masks:
        return NO_MASKS if self.generator is None else self._critic_dropout.draw(batch.observations, self.generator)

    def _actor_loss(
        self,
        parameters: dict[str, Tensor],
        observation: Tensor,
        action: Tensor,
        old_log_prob: Tensor,
        advantage: Tensor,
        clip: Tensor,
        ent_coef: Tensor,
    ) -> tuple[Tensor, _ActorAux]:
        """Of one task."""
        log_prob, entropy = functional_call(self.policy.actor, parameters, (observation, action))
        log_ratio = log_prob - old_log_prob
        ratio = log_ratio.exp()
        clipped = torch.clamp(ratio, 1 - clip, 1 + clip)
        policy_loss = -torch.min(advantage * ratio, advantage * clipped).mean()
        entropy_loss = -entropy.mean()
        aux = _ActorAux(
            policy_loss,
            entropy_loss,
            approx_kl=(ratio - 1 - log_ratio).mean(),
            clip_fraction=((ratio - 1).abs() > clip).to(ratio.dtype).mean(),
        )
        return policy_loss + ent_coef * entropy_loss, aux

    def _critic_loss(
        self,
        parameters: dict[str, Tensor],
        observation: Tensor,
        target: Tensor,
        old_value: Tensor,
        clip: tuple[Tensor, ...],
        vf_coef: Tensor,
        masks: Masks,
    ) -> tuple[Tensor, Tensor]:
        """Of one task; ``clip`` holds the range or is empty."""
        value = functional_call(self.policy.critic, (parameters, masks), (observation,))
        for limit in clip:
            value = old_value + torch.clamp(value - old_value, -limit, limit)
        loss = (target - value).square().mean()
        return vf_coef * loss, loss


def _mean_of_present(values: Tensor, gradients: CombinedGradients) -> Tensor:
    """Mean of ``[K]`` over the tasks that were not left out of a step."""
    absent = gradients.combination.non_finite
    if not absent:
        return values.mean()
    return values.index_fill(0, index_of(absent, values.device), 0.0).sum() / max(len(values) - len(absent), 1)


def whitened(advantages: Tensor, scope: AdvantageScope) -> Tensor:
    """Advantages ``[K, B]`` less their mean, over their standard deviation (plus 1e-8, SB3's).

    Args:
        advantages: task-major.
        scope: ``"batch"`` takes both numbers over all rows, as SB3 does; ``"task"`` over each task's own.

    A single row has no deviation: it is left as it is, as in SB3.
    """
    rows = advantages if scope == "task" else advantages.reshape(1, -1)
    if rows.shape[1] == 1:
        return advantages
    white = (rows - rows.mean(1, keepdim=True)) / (rows.std(1, keepdim=True) + 1e-8)
    return white.view_as(advantages)
