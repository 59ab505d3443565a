"""Updates of off-policy agents, the common part: critics against targets, an actor, target networks.

Nothing here copies to the host, synchronises, or branches on data (with a fused optimizer, the default), so the same
code runs on CPU and CUDA and can be compiled or captured. All randomness comes in as noise. Losses are written for one
task; `mtrl_imgrad.gradients.NetworkUpdate` spreads them over the tasks.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, ClassVar, NamedTuple

import torch
from torch import Tensor, nn
from torch.func import functional_call

from mtrl_imgrad.agents.encoders.dropout import NO_MASKS, DropoutLayers, Masks
from mtrl_imgrad.agents.off_policy.buffer import TaskBatch
from mtrl_imgrad.agents.off_policy.policy import TwinCriticPolicy
from mtrl_imgrad.combiners import Combiner
from mtrl_imgrad.gradients import (
    CombinedGradients,
    Execution,
    NetworkUpdate,
    ParameterIndex,
    StepSettings,
    over_tasks,
)
from mtrl_imgrad.gradients.parameters import Parameters
from mtrl_imgrad.gradients.tracing import Traced


class UpdateMasks(NamedTuple):
    """Dropout masks of one update, drawn anew for each pass of a network; empty for networks without dropout.

    Where they count is DroQ's (Hiraoka et al., "Dropout Q-Functions for Doubly Efficient Reinforcement Learning", ICLR
    2022, arXiv 2110.02034): in the target, the critic's loss and the actor's loss, the target critic dropping units as
    the critic does. Its actor has no dropout; one that has drops units in the same three places.
    """

    next_actor: Masks = NO_MASKS
    """Of the actor (TD3: the target actor) on the next observations, for the targets."""
    target_critic: Masks = NO_MASKS
    """Of the target critic."""
    critic: Masks = NO_MASKS
    """Of the critic in its own loss."""
    actor: Masks = NO_MASKS
    """Of the actor in its own loss."""
    actors_critic: Masks = NO_MASKS
    """Of the critic in the actor's loss."""


@dataclass(frozen=True)
class UpdateSettings:
    """Settings of an update.

    Attributes:
        gamma: discount.
        tau: step of the target networks towards the networks.
        step: of both networks.
    """

    gamma: float
    tau: float
    step: StepSettings = field(default_factory=StepSettings)


class OffPolicyUpdate:
    """Base: steps critic and actor in turn. An agent writes ``_compute_targets``, ``_actor_loss`` and their order.

    Args:
        policy: networks and their optimizers; changed in place.
        critic_combiner: for the gradients of the critic losses.
        actor_combiner: for the gradients of the actor losses.
        settings: may be set anew between updates.
        execution: how the gradients' operations are run; by default recorded once and replayed.
    """

    critic_loss_scale: ClassVar[float] = 1.0
    """Factor of the critics' mean squared errors."""
    policy: TwinCriticPolicy
    settings: Any
    _actor_loss: Any
    _compute_targets: Any

    def __init__(
        self,
        policy: TwinCriticPolicy,
        critic_combiner: Combiner,
        actor_combiner: Combiner,
        settings: UpdateSettings,
        execution: Execution | None = None,
    ) -> None:
        self.policy = policy
        self.settings = settings
        self.critic = NetworkUpdate(policy.critic, critic_combiner, self._critic_loss, settings.step, execution)
        self.actor = NetworkUpdate(policy.actor, actor_combiner, self._actor_loss, settings.step, execution)
        self._critic_target = ParameterIndex(policy.critic_target)
        self._actor_dropout, self._critic_dropout = DropoutLayers(policy.actor), DropoutLayers(policy.critic)
        self._finite = torch.ones((), dtype=torch.bool, device=policy.device)
        self._targets = Traced(self._compute_targets, execution)

    def begin(self, settings: UpdateSettings) -> None:
        """Start a series of updates, all of which stop moving anything after the first that is not finite."""
        self.settings = settings
        self.critic.settings = self.actor.settings = settings.step
        self._finite = torch.ones_like(self._finite)

    def draw_masks(self, batch: TaskBatch, generator: torch.Generator) -> UpdateMasks:
        """Dropout masks for an update on this batch; nothing is drawn for networks without dropout."""
        actor, critic = self._actor_dropout, self._critic_dropout  # a target network's layers are its network's
        layers = {
            "next_actor": actor,
            "target_critic": critic,
            "critic": critic,
            "actor": actor,
            "actors_critic": critic,
        }
        return UpdateMasks(**{name: its.draw(batch.observations, generator) for name, its in layers.items()})

    def _with_discounts(self, batch: TaskBatch) -> TaskBatch:
        """The batch with the agent's discount, as a tensor, where it has none of its own."""
        if batch.discounts is not None:
            return batch
        rewards = batch.rewards
        return batch._replace(discounts=torch.full((), self.settings.gamma, dtype=rewards.dtype, device=rewards.device))

    def _step(self, network: NetworkUpdate, jacobian: bool, *rows: Any) -> CombinedGradients:
        """Step a network if all gradients have been finite so far."""
        gradients = network.gradients(*rows, jacobian=jacobian)
        self._finite = self._finite & network.write(gradients)
        network.step(self._finite)  # a fault in the critic also stops the actor behind it
        network.after_step(gradients, *rows)
        return gradients

    def _move_targets(self, targets: Sequence[nn.Module], networks: Sequence[nn.Module]) -> None:
        """Polyak step of target networks, of length zero once something was not finite."""
        theirs: list[Tensor] = [parameter for target in targets for parameter in target.parameters()]
        values: list[Tensor] = [parameter for network in networks for parameter in network.parameters()]
        moves = list(torch._foreach_sub(values, theirs))
        torch._foreach_mul_(moves, self._finite * self.settings.tau)  # times 0 or 1: no branch, no device sync
        torch._foreach_add_(theirs, moves)

    # Pure functions of their arguments: parameters come in, only the networks' structure is captured.

    def _bootstrapped(
        self, critic_target: Parameters, masks: Masks, batch: TaskBatch, next_actions: Tensor, bonus: Tensor | float
    ) -> Tensor:
        """Targets ``[K, B]``: the smallest critic's value and a bonus, through a time limit, not through an end."""
        values = over_tasks(
            lambda parameters, masks, *rows: functional_call(self.policy.critic_target, (parameters, masks), rows),
            critic_target,
            masks,
            batch.next_observations,
            next_actions,
        )
        assert batch.discounts is not None
        return batch.rewards + (1 - batch.terminated) * batch.discounts * (smallest(values) + bonus)

    def _critic_loss(
        self,
        parameters: dict[str, Tensor],
        observation: Tensor,
        action: Tensor,
        target: Tensor,
        weight: Tensor,
        masks: Masks,
    ) -> tuple[Tensor, tuple[()]]:
        """The sum of the critics' mean squared errors, times SB3's factor of the algorithm."""
        values = functional_call(self.policy.critic, (parameters, masks), (observation, action))
        errors = torch.stack([(value - target).square() for value in values])
        return self.critic_loss_scale * (errors * weight).sum(), ()


def smallest(values: tuple[Tensor, ...]) -> Tensor:
    """Element-wise minimum over the critics."""
    return torch.stack(values).amin(0)
