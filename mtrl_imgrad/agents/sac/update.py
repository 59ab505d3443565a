"""One gradient step of multi-task SAC, on tensors only.

Nothing here copies to the host, synchronises, or branches on data (with a fused optimizer, the default), so the same
code runs on CPU and CUDA and can be compiled or captured. All randomness comes in as noise. Losses are written for one
task; `mtrl_imgrad.gradients` spreads them over the tasks, and the combiner turns the K gradients of the shared
parameters into one.

With one task, or with `LinearScalarization`, a step is SB3's SAC step on the mean of the task losses.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.func import functional_call

from mtrl_imgrad.agents.encoders.dropout import NO_MASKS, DropoutLayers, Masks
from mtrl_imgrad.agents.off_policy.buffer import TaskBatch
from mtrl_imgrad.agents.sac.policy import MTSACPolicy
from mtrl_imgrad.agents.sac.temperature import Temperature, update_temperature
from mtrl_imgrad.combiners import Combination, Combiner
from mtrl_imgrad.gradients import CombinedGradients, NetworkUpdate, ParameterIndex, Parameters, StepSettings, over_tasks
from mtrl_imgrad.gradients.tracing import Traced

__all__ = ["Noise", "SACMasks", "SACUpdate", "UpdateReport", "UpdateSettings"]


class SACMasks(NamedTuple):
    """Dropout masks of one update, drawn anew for each pass of a network; empty for networks without dropout.

    Where they count is DroQ's (Hiraoka et al., "Dropout Q-Functions for Doubly Efficient Reinforcement Learning", ICLR
    2022, arXiv 2110.02034): in the target, the critic's loss and the actor's loss, the target critic dropping units as
    the critic does. Its actor has no dropout; one that has drops units in the same three places.
    """

    next_actor: Masks = NO_MASKS
    """Of the actor on the next observations, for the targets."""
    target_critic: Masks = NO_MASKS
    """Of the target critic."""
    critic: Masks = NO_MASKS
    """Of the critic in its own loss."""
    actor: Masks = NO_MASKS
    """Of the actor in its own loss."""
    actors_critic: Masks = NO_MASKS
    """Of the critic in the actor's loss."""


class Noise(NamedTuple):
    """What is random in one update: standard normal numbers ``[K, B, A]``, and dropout masks."""

    action: Tensor
    next_action: Tensor
    masks: SACMasks = SACMasks()
    """Without them no unit is dropped."""


@dataclass(frozen=True)
class UpdateSettings:
    """What stays the same from step to step.

    Attributes:
        gamma: discount.
        tau: step of the target critic towards the critic.
        step: of both networks.
    """

    gamma: float
    tau: float
    step: StepSettings = field(default_factory=StepSettings)


class UpdateReport(NamedTuple):
    """What one update says of itself; tensors on the training device."""

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


class SACUpdate:
    """Updates critic, actor, temperatures and target critic, in SB3's order.

    Args:
        policy: networks and their optimizers; changed in place.
        temperature: changed in place.
        critic_combiner: for the gradients of the critic losses.
        actor_combiner: for the gradients of the actor losses.
        settings: may be set anew between updates.
        trace: record the gradients' operations once and replay them, see `mtrl_imgrad.gradients.tracing`.
    """

    def __init__(
        self,
        policy: MTSACPolicy,
        temperature: Temperature,
        critic_combiner: Combiner,
        actor_combiner: Combiner,
        settings: UpdateSettings,
        trace: bool = True,
    ) -> None:
        self.policy = policy
        self.temperature = temperature
        self.settings = settings
        self.critic = NetworkUpdate(policy.critic, critic_combiner, self._critic_loss, settings.step, trace)
        self.actor = NetworkUpdate(policy.actor, actor_combiner, self._actor_loss, settings.step, trace)
        self._critic_target = ParameterIndex(policy.critic_target)
        self._actor_dropout, self._critic_dropout = DropoutLayers(policy.actor), DropoutLayers(policy.critic)
        self._alive = torch.ones((), dtype=torch.bool, device=temperature.log_value.device)
        self._targets = Traced(self._compute_targets, trace)

    def begin(self, settings: UpdateSettings) -> None:
        """Start a series of updates, all of which stop moving anything after the first that is not finite."""
        self.settings = settings
        self.critic.settings = self.actor.settings = settings.step
        self._alive = torch.ones_like(self._alive)

    def draw_masks(self, batch: TaskBatch, generator: torch.Generator) -> SACMasks:
        """Dropout masks for an update on this batch; nothing is drawn for networks without dropout."""
        actor, critic = self._actor_dropout, self._critic_dropout  # the target critic's layers are the critic's
        layers = {
            "next_actor": actor,
            "target_critic": critic,
            "critic": critic,
            "actor": actor,
            "actors_critic": critic,
        }
        return SACMasks(**{name: its.draw(batch.observations, generator) for name, its in layers.items()})

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
        alpha = self.temperature.log_value.detach().exp().expand(batch.rewards.shape[0])
        if batch.discounts is None:
            gamma = torch.full((), self.settings.gamma, dtype=batch.rewards.dtype, device=alpha.device)
            batch = batch._replace(discounts=gamma)
        targets = self._targets(self.actor.parameters(), self._critic_target.split(), alpha, noise, batch)
        observations, masks = batch.observations, noise.masks
        critic_rows = (observations, batch.actions, targets, batch.weights, masks.critic)
        critic = self._step(self.critic, jacobian, *critic_rows)
        actor_rows = (observations, noise.action, batch.weights, alpha, masks.actor, masks.actors_critic)
        actor = self._step(self.actor, jacobian, self.critic.parameters(), *actor_rows)
        temperature_loss = update_temperature(self.temperature, batch, actor.aux, actor.combination, self._alive)
        if update_target:
            self._move_target()
        return UpdateReport(
            critic.losses, actor.losses, alpha, temperature_loss, critic.combination, actor.combination, self._alive
        )

    def _step(self, network: NetworkUpdate, jacobian: bool, *rows: Any) -> CombinedGradients:
        """Step a network if all gradients have been finite so far."""
        found = network.gradients(*rows, jacobian=jacobian)
        self._alive = self._alive & network.write(found)
        network.step(self._alive)
        network.after_step(found, *rows)
        return found

    def _move_target(self) -> None:
        """Polyak step of the target critic, of length zero once something was not finite."""
        targets: list[Tensor] = list(self.policy.critic_target.parameters())
        critics: list[Tensor] = list(self.policy.critic.parameters())
        moves = list(torch._foreach_sub(critics, targets))
        torch._foreach_mul_(moves, self._alive * self.settings.tau)
        torch._foreach_add_(targets, moves)

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
        values = over_tasks(
            lambda parameters, masks, *rows: functional_call(self.policy.critic_target, (parameters, masks), rows),
            critic_target,
            noise.masks.target_critic,
            observations,
            actions,
        )
        soft_value = _smallest(values) - alpha[:, None] * log_prob
        assert batch.discounts is not None
        return batch.rewards + (1 - batch.terminated) * batch.discounts * soft_value

    def _critic_loss(
        self,
        parameters: dict[str, Tensor],
        observation: Tensor,
        action: Tensor,
        target: Tensor,
        weight: Tensor,
        masks: Masks,
    ) -> tuple[Tensor, tuple[()]]:
        """Half the sum of the critics' mean squared errors, SB3's convention."""
        values = functional_call(self.policy.critic, (parameters, masks), (observation, action))
        errors = torch.stack([(value - target).square() for value in values])
        return 0.5 * (errors * weight).sum(), ()

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
        return (weight * (alpha * log_prob - _smallest(values))).sum(), log_prob


def _smallest(values: tuple[Tensor, ...]) -> Tensor:
    """Element-wise minimum over the critics."""
    return torch.stack(values).amin(0)
