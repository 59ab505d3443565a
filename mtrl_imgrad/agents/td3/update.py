"""One gradient step of multi-task TD3, on tensors only.

With one task, or with `LinearScalarization`, a step is SB3's TD3 step on the mean of the task losses.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.func import functional_call

from mtrl_imgrad.agents.encoders.dropout import Masks
from mtrl_imgrad.agents.off_policy.buffer import TaskBatch
from mtrl_imgrad.agents.off_policy.update import OffPolicyUpdate, UpdateMasks, UpdateSettings
from mtrl_imgrad.agents.td3.policy import MTTD3Policy
from mtrl_imgrad.combiners import Combination
from mtrl_imgrad.gradients import ParameterIndex, Parameters, over_tasks


@dataclass(frozen=True)
class TD3Settings(UpdateSettings):
    """Settings of an update.

    Attributes:
        target_policy_noise: standard deviation of the noise on the target actor's actions.
        target_noise_clip: the noise stays within plus and minus this.
    """

    target_policy_noise: float = 0.2
    target_noise_clip: float = 0.5


class TD3Noise(NamedTuple):
    """Random inputs of one update: standard normal numbers ``[K, B, A]``, and dropout masks."""

    next_action: Tensor
    masks: UpdateMasks = UpdateMasks()
    """Without them no unit is dropped."""


class TD3Report(NamedTuple):
    """Report of one update: tensors on the training device, None where the actor was not updated."""

    critic_losses: Tensor
    """``[K]``"""
    actor_losses: Tensor | None
    """``[K]``"""
    critic: Combination
    actor: Combination | None
    finite: Tensor
    """scalar bool: whether this update, and every one before it since `TD3Update.begin`, was finite."""


class TD3Update(OffPolicyUpdate):
    """Updates the critics, and with a delay the actor and all target networks, in SB3's order."""

    policy: MTTD3Policy
    settings: TD3Settings

    def __init__(self, policy: MTTD3Policy, *options: Any, **more: Any) -> None:
        super().__init__(policy, *options, **more)
        self._actor_target = ParameterIndex(policy.actor_target)

    @torch.no_grad()
    def __call__(
        self, batch: TaskBatch, noise: TD3Noise, with_actor: bool = True, jacobian: tuple[bool, bool] = (False, False)
    ) -> TD3Report:
        """Make one update.

        Args:
            batch: task-major rows.
            noise: for the actions of the next observations; masks are those of `draw_masks`.
            with_actor: whether the actor takes a step, and the target networks move.
            jacobian: of critic and actor: compute per-task gradients even for a combiner that does without.

        Where a combined gradient is not finite, neither this network nor anything after it moves, up to the next
        `begin` (``finite`` of the report). Only the critic of the same update may have moved before an actor's fault.
        """
        batch = self._with_discounts(batch)
        settings = self.settings
        smoothing = settings.target_policy_noise * noise.next_action
        smoothing = smoothing.clamp(-settings.target_noise_clip, settings.target_noise_clip)
        targets = self._targets(self._actor_target.split(), self._critic_target.split(), smoothing, noise.masks, batch)
        observations, masks = batch.observations, noise.masks
        critic_rows = (observations, batch.actions, targets, batch.weights, masks.critic)
        critic = self._step(self.critic, jacobian[0], *critic_rows)
        if not with_actor:
            return TD3Report(critic.losses, None, critic.combination, None, self._finite)
        actor_rows = (observations, batch.weights, masks.actor, masks.actors_critic)
        # The actor climbs the critic that has just moved, as in SB3.
        actor = self._step(self.actor, jacobian[1], self.critic.parameters(), *actor_rows)
        policy = self.policy
        self._move_targets([policy.critic_target, policy.actor_target], [policy.critic, policy.actor])
        return TD3Report(critic.losses, actor.losses, critic.combination, actor.combination, self._finite)

    # Pure functions of their arguments: parameters come in, only the networks' structure is captured.

    def _compute_targets(
        self,
        actor_target: Parameters,
        critic_target: Parameters,
        smoothing: Tensor,
        masks: UpdateMasks,
        batch: TaskBatch,
    ) -> Tensor:
        """Targets ``[K, B]``: the smallest target critic's value of the target actor's action with noise."""
        actions = over_tasks(
            lambda parameters, masks, rows: functional_call(self.policy.actor_target, (parameters, masks), (rows,)),
            actor_target,
            masks.next_actor,
            batch.next_observations,
        )
        return self._bootstrapped(critic_target, masks.target_critic, batch, (actions + smoothing).clamp(-1, 1), 0.0)

    def _actor_loss(
        self,
        parameters: dict[str, Tensor],
        critic: dict[str, Tensor],
        observation: Tensor,
        weight: Tensor,
        masks: Masks,
        critic_masks: Masks,
    ) -> tuple[Tensor, tuple[()]]:
        """Minus the first critic's value of the actor's action."""
        action = functional_call(self.policy.actor, (parameters, masks), (observation,))
        (value,) = functional_call(self.policy.critic, (critic, critic_masks), (observation, action, 1))
        return -(weight * value).sum(), ()
