"""A small soft actor-critic that chooses task weights: the learning half of IGBv2.

It sees K losses and draws K logits u; its action, which the critics see too, is the weights ``K softmax(u)``.
Everything it has is in its state: networks, targets, optimizers, temperature and replay; a restored agent continues
bit for bit. Noise and initial weights come from the combiner's generator, on the host, so that all devices see the same
numbers.

The replay's length is counted on the device and a transition can be left out there, because whether a step was finite
is known on the device only. So nothing waits for the device.
"""

from __future__ import annotations

import copy
import itertools
import math
from collections.abc import Callable, Iterator
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn

from mtrl_imgrad.combiners.precision import without_autocast
from mtrl_imgrad.errors import ArgumentError

# The authors' numbers.
WIDTH = 128
LEARNING_RATE = 3e-4
DISCOUNT = 0.99
TARGET_STEP = 0.005
INITIAL_TEMPERATURE = 0.2
CAPACITY = 10_000
"""Transitions in the replay."""

_LOG_STD = (-20.0, 2.0)
_ON_HOST: Any = {"dtype": torch.float32, "device": "cpu"}
_TABLES = ("states", "weights", "rewards", "next_states")
_LATEST = ("last_state", "last_weights", "stored")


class WeightAgent:
    """Soft actor-critic on losses; a part of a combiner's state, made at its first step.

    Args:
        generator: on the host; the combiner keeps it as a part of its own.
    """

    def __init__(self, generator: torch.Generator) -> None:
        self._generator = generator
        self._networks: _Networks | None = None
        self._optimizers: list[torch.optim.Adam] = []
        self._before_learning: list[Any] | None = None
        """The state before the last `learn`, kept where the step may be undone."""

    def observe(self, state: Tensor, base: Tensor, usable: Tensor) -> None:
        """Take in what the latest action led to, and put it into the replay.

        The reward is ``min_i (L_i(previous) - L_i) / b_i``.

        Args:
            state: ``[K]`` losses of this step, L.
            base: ``[K]`` base losses b.
            usable: a flag; where it is false nothing changes.
        """
        networks = self._on(state)
        state = state.to(networks.last_state.dtype)
        complete = usable & networks.last_state.isfinite().all()
        reward = ((networks.last_state - state) / base.to(state.dtype)).amin()
        networks.record(reward, state, complete)

    def act(self, state: Tensor, usable: Tensor, random: bool) -> Tensor:
        """Choose weights ``[K]`` of sum K, float64.

        Args:
            state: ``[K]`` losses of this step.
            usable: a flag; where it is false the action is not remembered.
            random: whether to draw standard normal logits in place of the policy's.
        """
        networks = self._on(state)
        state = state.to(networks.last_state.dtype)
        noise = self._normal(state)
        with torch.no_grad(), without_autocast(state.device):
            weights = weights_of(noise if random else networks.sample(state, noise)[0])
        networks.remember(state, weights, usable)
        return weights.double()

    def learn(self, like: Tensor, updates: int, batch_size: int) -> None:
        """Make gradient steps on batches of the replay.

        Args:
            like: ``[K]`` on the device to work on.
            updates: gradient steps.
            batch_size: transitions in a batch.
        """
        networks = self._on(like)
        if self._before_learning is not None and not self._before_learning:
            self._before_learning.append(self.get_state())
        with torch.enable_grad(), without_autocast(like.device):
            for _ in range(updates):
                self._update(networks, batch_size)

    def restore_point(self) -> Callable[[], None]:
        """A function that undoes the next `observe`, `learn` and `act`. Copies all only if that step learns."""
        if self._networks is None:
            return partial(self.set_state, None)
        learned: list[Any] = []
        self._before_learning = learned
        undo = self._networks.restore_point()

        def restore() -> None:
            if learned:
                self.set_state(learned[0])
            assert self._networks is not None, "there is a state to go back to"
            self._networks.load_buffers(undo)

        return restore

    def get_state(self) -> dict[str, Any] | None:
        """Networks (with replay and temperature) and optimizers; None before the first step."""
        if self._networks is None:
            return None
        return {
            "num_tasks": self._networks.num_tasks,
            "networks": {name: value.clone() for name, value in self._networks.state_dict().items()},
            "optimizers": [copy.deepcopy(optimizer.state_dict()) for optimizer in self._optimizers],
        }

    def set_state(self, new_state: Any, /) -> None:
        """Restore `get_state`."""
        if new_state is None:
            self._networks, self._optimizers = None, []
            return
        try:
            device = new_state["networks"]["log_temperature"].device
            self._build(new_state["num_tasks"], device, new_state)
        except (KeyError, TypeError, ValueError, AttributeError, RuntimeError) as error:
            raise ArgumentError(f"it is not the state of a {type(self).__name__}: {error}") from error

    def _on(self, like: Tensor) -> _Networks:
        """The networks, made if there are none, on the device of ``like`` [K]."""
        if self._networks is None:
            networks = self._build(len(like), like.device, None)
            networks.reset(self._generator)
        elif self._networks.log_temperature.device != like.device:
            networks = self._build(self._networks.num_tasks, like.device, self.get_state())
        else:
            networks = self._networks
        if networks.num_tasks != len(like):
            raise ArgumentError(f"losses must be of {networks.num_tasks} tasks as before, got {len(like)}")
        return networks

    def _build(self, num_tasks: int, device: torch.device, state: dict[str, Any] | None) -> _Networks:
        networks = _Networks(num_tasks, device)
        groups = (networks.actor.parameters(), networks.critics.parameters(), [networks.log_temperature])
        optimizers = [torch.optim.Adam(group, lr=LEARNING_RATE) for group in groups]
        if state is not None:
            networks.load_state_dict(state["networks"])
            for optimizer, its in zip(optimizers, state["optimizers"], strict=True):
                optimizer.load_state_dict(copy.deepcopy(its))  # which keeps the tensors it is given
        self._networks, self._optimizers = networks, optimizers
        return networks

    def _update(self, networks: _Networks, batch_size: int) -> None:
        """One gradient step of critics, actor and temperature; of size zero while the replay is empty."""
        rows = networks.draw(torch.rand(batch_size, generator=self._generator, **_ON_HOST))
        noise, next_noise = self._normal(rows[0]), self._normal(rows[0])
        for optimizer, loss in zip(
            (self._optimizers[1], self._optimizers[0], self._optimizers[2]),
            networks.losses(rows, noise, next_noise),
            strict=True,
        ):
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
        networks.move_targets()

    def _normal(self, like: Tensor) -> Tensor:
        return torch.randn(like.shape, generator=self._generator, **_ON_HOST).to(like.device, non_blocking=True)


class _Networks(nn.Module):
    """Networks, temperature and replay of the agent; float32, as are the authors'."""

    last_state: Tensor
    last_weights: Tensor
    states: Tensor
    weights: Tensor
    rewards: Tensor
    next_states: Tensor
    stored: Tensor

    def __init__(self, num_tasks: int, device: torch.device) -> None:
        super().__init__()
        self.num_tasks = num_tasks
        of: Any = {"dtype": torch.float32, "device": device}
        self.actor = _mlp(num_tasks, 2 * num_tasks, of)
        self.critics = nn.ModuleList([_mlp(2 * num_tasks, 1, of) for _ in range(2)])
        self.targets = nn.ModuleList([_mlp(2 * num_tasks, 1, of) for _ in range(2)]).requires_grad_(False)
        self.log_temperature = nn.Parameter(torch.tensor(INITIAL_TEMPERATURE, **of).log())
        unknown = torch.full((num_tasks,), torch.nan, **of)
        self.register_buffer("last_state", unknown)
        self.register_buffer("last_weights", unknown.clone())
        for name in ("states", "weights", "next_states"):
            self.register_buffer(name, torch.zeros(CAPACITY, num_tasks, **of))
        self.register_buffer("rewards", torch.zeros(CAPACITY, **of))
        self.register_buffer("stored", torch.zeros((), dtype=torch.int64, device=device))

    def reset(self, generator: torch.Generator) -> None:
        """Draw initial weights, uniform in +-1 / sqrt(inputs), and let the targets follow."""
        with torch.no_grad():
            for layer in self.actor, *self.critics:
                for linear in layer:
                    if isinstance(linear, nn.Linear):
                        for parameter in (linear.weight, linear.bias):
                            drawn = torch.rand(parameter.shape, generator=generator, **_ON_HOST)
                            parameter.copy_((2 * drawn - 1) / linear.in_features**0.5)
        self.targets.load_state_dict(self.critics.state_dict())

    def sample(self, states: Tensor, noise: Tensor) -> tuple[Tensor, Tensor]:
        """Logits u ``[..., K]`` drawn from the policy, and ``[...]`` the log density of tanh(u).

        The density is the authors', though u goes through a softmax, not a tanh. It penalizes large logits; the softmax
        depends on differences only and would let them grow.
        """
        mean, log_std = self.actor(states).chunk(2, -1)
        log_std = log_std.clamp(*_LOG_STD)
        logits = mean + log_std.exp() * noise
        normal = torch.distributions.Normal(mean, log_std.exp(), validate_args=False)
        log_slope = 2 * (math.log(2) - logits - nn.functional.softplus(-2 * logits))  # log(1 - tanh(u)^2)
        return logits, (normal.log_prob(logits) - log_slope).sum(-1)

    def losses(self, rows: tuple[Tensor, ...], noise: Tensor, next_noise: Tensor) -> Iterator[Tensor]:
        """The losses of critics, actor and temperature; each is made when the step before it is done."""
        states, weights, rewards, next_states = rows
        some = (self.stored > 0).to(rewards.dtype)
        temperature = self.log_temperature.detach().exp()
        with torch.no_grad():
            logits, log_prob = self.sample(next_states, next_noise)
            value = self._smallest(self.targets, next_states, weights_of(logits)) - temperature * log_prob
            target = rewards + DISCOUNT * value
        inputs = torch.cat([states, weights], -1)
        yield some * sum(((critic(inputs)[:, 0] - target).square().mean() for critic in self.critics), some * 0)
        logits, log_prob = self.sample(states, noise)
        value = self._smallest(self.critics, states, weights_of(logits))
        yield some * (temperature * log_prob - value).mean()
        surplus = log_prob.detach().mean() - self.num_tasks
        yield -some * self.log_temperature * surplus

    def draw(self, uniform: Tensor) -> tuple[Tensor, ...]:
        """Transitions of the replay, by numbers ``[B]`` in [0, 1)."""
        filled = self.stored.clamp(max=CAPACITY)
        rows = (uniform.to(filled.device, non_blocking=True) * filled).long().clamp(max=CAPACITY - 1)
        return self.states[rows], self.weights[rows], self.rewards[rows], self.next_states[rows]

    def record(self, reward: Tensor, state: Tensor, where: Tensor) -> None:
        """Put the latest action's transition into the replay, over the oldest, where the flag is true."""
        row = (self.stored % CAPACITY)[None]
        for table, new in (
            (self.states, self.last_state),
            (self.weights, self.last_weights),
            (self.rewards, reward),
            (self.next_states, state),
        ):
            table.index_copy_(0, row, torch.where(where, new, table[row]))
        self.stored += where

    def remember(self, state: Tensor, weights: Tensor, where: Tensor) -> None:
        """Keep the latest state and action, where the flag is true."""
        self.last_state.copy_(torch.where(where, state, self.last_state))
        self.last_weights.copy_(torch.where(where, weights, self.last_weights))

    def restore_point(self) -> tuple[Tensor, dict[str, Tensor]]:
        """The row of the replay that `record` writes next, and the buffers as they are there."""
        row = (self.stored % CAPACITY)[None]
        tables = {name: getattr(self, name)[row] for name in _TABLES}
        return row, {**tables, **{name: getattr(self, name).clone() for name in _LATEST}}

    def load_buffers(self, undo: tuple[Tensor, dict[str, Tensor]]) -> None:
        """Undo one `record` and one `remember`.

        Args:
            undo: what `restore_point` returned before them.
        """
        row, buffers = undo
        for name in _TABLES:
            getattr(self, name).index_copy_(0, row, buffers[name])
        for name in _LATEST:
            getattr(self, name).copy_(buffers[name])

    @torch.no_grad()
    def move_targets(self) -> None:
        """Polyak step of the targets."""
        for target, source in zip(self.targets.parameters(), self.critics.parameters(), strict=True):
            target.lerp_(source, TARGET_STEP)

    def _smallest(self, critics: nn.ModuleList, states: Tensor, weights: Tensor) -> Tensor:
        inputs = torch.cat([states, weights], -1)
        return torch.stack([critic(inputs)[..., 0] for critic in critics]).amin(0)


def weights_of(logits: Tensor) -> Tensor:
    """``K softmax(u)`` along the last dimension, float as the logits."""
    return logits.shape[-1] * logits.softmax(-1)


def _mlp(inputs: int, outputs: int, of: dict[str, Any]) -> nn.Sequential:
    """Two hidden layers; weights are left as they are found in memory, so that no global generator moves."""
    sizes = itertools.pairwise((inputs, WIDTH, WIDTH, outputs))
    linears = [nn.utils.skip_init(nn.Linear, a, b, **of) for a, b in sizes]
    return nn.Sequential(linears[0], nn.ReLU(), linears[1], nn.ReLU(), linears[2])
