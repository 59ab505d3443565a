"""One gradient step of multi-task SAC, as a pure function of tensors.

Nothing here copies to the host, synchronises, or branches on data, so the same code runs on CPU and CUDA and can be
compiled or captured. All randomness comes in as noise. Losses are written for one task; `mtrl_imgrad.gradients`
spreads them over the tasks, and the combiner turns the K gradients of the shared parameters into one.

With one task, or with `LinearScalarization`, a step is SB3's SAC step on the mean of the task losses.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.func import functional_call

from mtrl_imgrad.agents.buffers import TaskBatch
from mtrl_imgrad.agents.policies import MTSACPolicy
from mtrl_imgrad.combiners import Combination, Combiner, Status
from mtrl_imgrad.gradients import CombinedGradients, Heads, combined_by_rows, over_tasks, split_parameters

__all__ = ["Noise", "Temperature", "UpdateReport", "UpdateSettings", "sac_update"]


class Noise(NamedTuple):
    """Standard normal numbers of one update, both ``[K, B, A]``."""

    action: Tensor
    next_action: Tensor


@dataclass(frozen=True)
class UpdateSettings:
    """What stays the same from step to step.

    Attributes:
        gamma: discount.
        tau: step of the target critic towards the critic.
        heads: how own parameters take their gradient, see `mtrl_imgrad.gradients.combined_by_rows`.
        max_grad_norm: clip the combined gradient of a network to this length; None does not clip.
    """

    gamma: float
    tau: float
    heads: Heads
    max_grad_norm: float | None


@dataclass
class Temperature:
    """Entropy temperatures.

    Attributes:
        log_value: ``[K]`` (a temperature a task) or ``[1]`` (one for all).
        target_entropy: what a learned temperature steers the entropy to.
        optimizer: None keeps them fixed.
    """

    log_value: Tensor
    target_entropy: float
    optimizer: torch.optim.Optimizer | None


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


def sac_update(
    policy: MTSACPolicy,
    temperature: Temperature,
    critic_combiner: Combiner,
    actor_combiner: Combiner,
    batch: TaskBatch,
    noise: Noise,
    settings: UpdateSettings,
    update_target: bool = True,
) -> UpdateReport:
    """Update critic, actor, temperatures and target critic once, in SB3's order.

    Args:
        policy: networks and their optimizers; changed in place.
        temperature: changed in place.
        critic_combiner: for the gradients of the critic losses.
        actor_combiner: for the gradients of the actor losses.
        batch: task-major rows.
        noise: for the actions of the current and of the next observations.
        settings: constants.
        update_target: whether the target critic moves.

    A network whose combination is not finite is left as it was (`Status.NON_FINITE` in the report).
    """
    num_tasks = batch.rewards.shape[0]
    with torch.no_grad():
        alpha = temperature.log_value.detach().exp().expand(num_tasks)
        targets = _targets(policy, batch, noise.next_action, alpha, settings.gamma)
        critic = _critic_gradients(policy, critic_combiner, batch, targets, settings.heads)
        _apply(policy.critic, critic, settings.max_grad_norm)
        actor = _actor_gradients(policy, actor_combiner, batch, noise.action, alpha, settings.heads)
        _apply(policy.actor, actor, settings.max_grad_norm)
        temperature_loss = _update_temperature(temperature, batch, actor.aux, actor.combination)
        if update_target:
            torch._foreach_lerp_(
                list(policy.critic_target.parameters()), list(policy.critic.parameters()), settings.tau
            )
    return UpdateReport(
        critic.losses, actor.losses, alpha, temperature_loss, critic.combination, actor.combination
    )


def _targets(policy: MTSACPolicy, batch: TaskBatch, noise: Tensor, alpha: Tensor, gamma: float) -> Tensor:
    """Soft one-step targets ``[K, B]``: through a time limit values are bootstrapped, through an end they are not."""
    observations = batch.next_observations
    actions, log_prob = over_tasks(
        lambda parameters, *rows: functional_call(policy.actor, parameters, rows),
        split_parameters(policy.actor),
        observations,
        noise,
    )
    values = over_tasks(
        lambda parameters, *rows: functional_call(policy.critic_target, parameters, rows),
        split_parameters(policy.critic_target),
        observations,
        actions,
    )
    soft_value = _smallest(values) - alpha[:, None] * log_prob
    return batch.rewards + (1 - batch.terminated) * gamma * soft_value


def _critic_gradients(
    policy: MTSACPolicy, combiner: Combiner, batch: TaskBatch, targets: Tensor, heads: Heads
) -> CombinedGradients:
    def loss(
        parameters: dict[str, Tensor], observation: Tensor, action: Tensor, target: Tensor, weight: Tensor
    ) -> tuple[Tensor, tuple[()]]:
        values = functional_call(policy.critic, parameters, (observation, action))
        errors = torch.stack([(value - target).square() for value in values])
        return 0.5 * (errors * weight).sum(), ()

    rows = (batch.observations, batch.actions, targets, batch.weights)
    return combined_by_rows(combiner, loss, split_parameters(policy.critic), *rows, heads=heads)


def _actor_gradients(
    policy: MTSACPolicy, combiner: Combiner, batch: TaskBatch, noise: Tensor, alpha: Tensor, heads: Heads
) -> CombinedGradients:
    """Actor losses and gradients; the critic's parameters are constants here, its own rows travel with the task."""
    critic = split_parameters(policy.critic)

    def loss(
        parameters: dict[str, Tensor],
        observation: Tensor,
        noise_rows: Tensor,
        weight: Tensor,
        alpha_of_task: Tensor,
        critic_rows: dict[str, Tensor],
    ) -> tuple[Tensor, Tensor]:
        action, log_prob = functional_call(policy.actor, parameters, (observation, noise_rows))
        values = functional_call(policy.critic, critic.of_one_task(critic_rows), (observation, action))
        return (weight * (alpha_of_task * log_prob - _smallest(values))).sum(), log_prob

    rows = (batch.observations, noise, batch.weights, alpha, critic.own)
    return combined_by_rows(combiner, loss, split_parameters(policy.actor), *rows, heads=heads)


def _smallest(values: tuple[Tensor, ...]) -> Tensor:
    """Element-wise minimum over the critics."""
    return torch.stack(values).amin(0)


def _apply(network: nn.Module, found: CombinedGradients, max_grad_norm: float | None) -> None:
    """Hand the gradients to the network's optimizer and step, unless they are not finite."""
    for name, parameter in network.named_parameters():
        parameter.grad = found.gradients.get(name)
    if max_grad_norm is not None:
        nn.utils.clip_grad_norm_(network.parameters(), max_grad_norm)
    _step(network.optimizer, found.combination)  # type: ignore[arg-type]


def _step(optimizer: torch.optim.Optimizer, combination: Combination) -> None:
    """Step unless the combination is not finite."""
    found_inf = (combination.status_code == Status.NON_FINITE).float()
    if getattr(optimizer, "_step_supports_amp_scaling", False):
        # Fused optimizers skip the step by themselves where found_inf is 1, without a look from the host.
        optimizer.found_inf = found_inf  # type: ignore[attr-defined]
    elif bool(found_inf):
        return
    optimizer.step()


def _update_temperature(
    temperature: Temperature, batch: TaskBatch, log_prob: Tensor, actor: Combination
) -> Tensor:
    """Step towards the target entropy; the gradient of the loss is written down, so no graph is needed."""
    surplus = (batch.weights * (log_prob + temperature.target_entropy)).sum(1)  # [K], or its mean for one temperature
    gradient = -surplus if temperature.log_value.numel() == surplus.numel() else -surplus.mean(0, keepdim=True)
    loss = (temperature.log_value.detach() * gradient).mean()
    if temperature.optimizer is not None:
        temperature.log_value.grad = gradient.to(temperature.log_value.dtype)
        _step(temperature.optimizer, actor)
    return loss
