"""One gradient step of multi-task SAC, on tensors only.

With one task, or with `LinearScalarization`, a step is SB3's SAC step on the mean of the task losses.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.func import functional_call

from mtrl_imgrad.agents.encoders.dropout import Masks
from mtrl_imgrad.agents.off_policy.buffer import TaskBatch
from mtrl_imgrad.agents.off_policy.update import OffPolicyUpdate, UpdateMasks, smallest
from mtrl_imgrad.agents.sac.policy import MTSACPolicy
from mtrl_imgrad.agents.sac.temperature import Temperature, update_temperature
from mtrl_imgrad.combiners import Combination
from mtrl_imgrad.gradients import Parameters, over_tasks


class Noise(NamedTuple):
    """Random inputs of one update: standard normal numbers ``[K, B, A]``, and dropout masks."""

    action: Tensor
    next_action: Tensor
    masks: UpdateMasks = UpdateMasks()
    """Without them no unit is dropped."""


class UpdateReport(NamedTuple):
    """Report of one update: tensors on the training device."""

    critic_losses: Tensor
    """``[K]``"""
    actor_losses: Tensor
    """``[K]``"""
    temperatures: Tensor
    """``[K]``, as used in this update."""
    temperature_loss: Tensor
    """scalar"""
    critic: Combination
    actor: Combination
    finite: Tensor
    """scalar bool: whether this update, and every one before it since `SACUpdate.begin`, was finite."""


class SACUpdate(OffPolicyUpdate):
    """Updates critic, actor, temperatures and target critic, in SB3's order.

    Args:
        policy: networks and their optimizers; changed in place.
        temperature: changed in place.
        options: of `OffPolicyUpdate`.
    """

    critic_loss_scale = 0.5
    policy: MTSACPolicy

    def __init__(self, policy: MTSACPolicy, temperature: Temperature, *options: Any, **more: Any) -> None:
        super().__init__(policy, *options, **more)
        self.temperature = temperature

    @torch.no_grad()
    def __call__(
        self, batch: TaskBatch, noise: Noise, update_target: bool = True, jacobian: bool = False
    ) -> UpdateReport:
        """Make one update.

        Args:
            batch: task-major rows.
            noise: for the actions of the current and of the next observations; masks are those of `draw_masks`.
            update_target: whether the target critic moves.
            jacobian: compute per-task gradients even for a combiner that does without, for diagnostics.

        Where a combined gradient is not finite, neither this network nor anything after it moves, up to the next
        `begin` (``finite`` of the report). Only the critic of the same update may have moved before an actor's fault.
        With ``on_nonfinite`` other than ``"raise"`` that is left for faults of the combiner itself: a network whose
        step is skipped stays as it is (with the actor, the temperatures), everything else goes on.
        """
        # [K], before its own step: critic and actor of an update use the same temperature, as in SB3.
        alpha = self.temperature.log_value.detach().exp().expand(batch.rewards.shape[0])
        batch = self._with_discounts(batch)
        targets = self._targets(self.actor.parameters(), self._critic_target.split(), alpha, noise, batch)
        observations, masks = batch.observations, noise.masks
        critic_rows = (observations, batch.actions, targets, batch.weights, masks.critic)
        critic = self._step(self.critic, jacobian, *critic_rows)
        actor_rows = (observations, noise.action, batch.weights, alpha, masks.actor, masks.actors_critic)
        actor = self._step(self.actor, jacobian, self.critic.parameters(), *actor_rows)
        temperature_loss = update_temperature(self.temperature, batch, actor.aux, actor.combination, self._finite)
        if update_target:
            self._move_targets([self.policy.critic_target], [self.policy.critic])
        return UpdateReport(
            critic.losses, actor.losses, alpha, temperature_loss, critic.combination, actor.combination, self._finite
        )

    # Pure functions of their arguments: parameters come in, only the networks' structure is captured.

    def _compute_targets(
        self,
        actor: Parameters,
        critic_target: Parameters,
        alpha: Tensor,
        noise: Noise,
        batch: TaskBatch,
    ) -> Tensor:
        """Soft targets ``[K, B]``: bootstrapped through a time limit, not through an end."""
        observations = batch.next_observations
        actions, log_prob = over_tasks(
            lambda parameters, masks, *rows: functional_call(self.policy.actor, (parameters, masks), rows),
            actor,
            noise.masks.next_actor,
            observations,
            noise.next_action,
        )
        return self._bootstrapped(critic_target, noise.masks.target_critic, batch, actions, -alpha[:, None] * log_prob)

    def _actor_loss(
        self,
        parameters: dict[str, Tensor],
        critic: dict[str, Tensor],
        observation: Tensor,
        noise: Tensor,
        weight: Tensor,
        alpha: Tensor,
        masks: Masks,
        critic_masks: Masks,
    ) -> tuple[Tensor, Tensor]:
        """Entropy-regularized value of the action under the present critic; with the action's log probability."""
        action, log_prob = functional_call(self.policy.actor, (parameters, masks), (observation, noise))
        values = functional_call(self.policy.critic, (critic, critic_masks), (observation, action))
        return (weight * (alpha * log_prob - smallest(values))).sum(), log_prob
