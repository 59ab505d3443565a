"""IGBv2's agent beside its authors': sizes, rates, schedule, replay and one gradient step; see `authors`."""

from __future__ import annotations

from unittest.mock import patch

import torch
from torch import Tensor, nn

from mtrl_imgrad.combiners import IGBv2
from mtrl_imgrad.combiners.state import igb_agent
from mtrl_imgrad.combiners.state.igb_agent import WeightAgent, _Networks
from tests.support.authors.numbers import Comparison, Comparisons, Facts, deviation, double

SINGLE = 1e-6
"""Rounding of single precision, in which both agents work."""


def igb_v2(given: Facts, theirs: Facts) -> Comparisons:
    yield from (_one_step if given["what"] == "two gradient steps" else _schedule)(given, theirs)


def _losses(given: Facts, step: int, generator: torch.Generator) -> Tensor:
    """Those of the golden file from step 2 window - 1 on for 21 steps, else such that the base losses are theirs."""
    base, window = double(given["base_losses"]), given["window"]
    recorded = step - (2 * window - 1)
    if 0 <= recorded < len(given["losses_from_step_99"]):
        return double(given["losses_from_step_99"][recorded])
    if step == 2 * window - 2:  # the rest of the second window has its mean
        return 2 * base - double(given["losses_from_step_99"][0])
    if window <= step < 2 * window - 2:
        return base
    return base * (0.5 + torch.rand(len(base), generator=generator, dtype=torch.float64))


class _Recorder:
    """A run of the combiner, with what its agent was asked to do; its gradient steps are left out."""

    def __init__(self, given: Facts) -> None:
        self.updates: dict[int, int] = {}
        self.batches: dict[int, int] = {}
        self.acts_from = -1
        self.shares: list[Tensor] = []
        self.combiner = IGBv2(window=given["window"], reduction="sum")
        agent, generator = self.combiner._agent, torch.Generator().manual_seed(0)
        act = agent.act

        def spy_act(state: Tensor, usable: Tensor, random: bool) -> Tensor:
            if not random and self.acts_from < 0:
                self.acts_from = len(self.shares)
            return act(state, usable, random)

        def spy_learn(like: Tensor, updates: int, batch_size: int) -> None:
            self.updates[len(self.shares)] = updates
            self.batches[len(self.shares)] = batch_size

        with patch.object(agent, "act", spy_act), patch.object(agent, "learn", spy_learn):
            for step in range(given["steps"]):
                losses = _losses(given, step, generator)
                self.shares.append(self.combiner.weights(losses).values * losses)
        self.agent = agent
        assert agent._networks is not None
        self.networks: _Networks = agent._networks


def _widths(network: nn.Module) -> list[list[int]]:
    return [list(parameter.shape) for parameter in network.parameters() if parameter.ndim == 2]


def _steps_of(counts: dict[str, int]) -> dict[int, int]:
    return {int(step): count for step, count in counts.items()}


def _schedule(given: Facts, theirs: Facts) -> Comparisons:
    run = _Recorder(given)
    networks, window = run.networks, given["window"]
    ours_theirs = {
        "actor's layers": (_join_heads(theirs["actor_shapes"]), _widths(networks.actor)),
        "critics' layers": (theirs["critic_shapes"], _widths(networks.critics[0])),
        "critics": (theirs["critics"], len(networks.critics)),
        "learning rates": (
            [theirs[f"learning_rate_{part}"] for part in ("actor", "critics", "temperature")],
            [optimizer.param_groups[0]["lr"] for optimizer in run.agent._optimizers],
        ),
        "bounds of the log std": (theirs["log_std"], list(igb_agent._LOG_STD)),
        "capacity": (theirs["capacity"], len(networks.rewards)),
        "gradient steps": (_steps_of(theirs["updates_at"]), run.updates),
        "batch sizes": (_steps_of(theirs["batch_at"]), run.batches),
        "first step of acting": (theirs["first_window_acting"] * window, run.acts_from),
        "transitions": (theirs["stored"], int(networks.stored)),
        "equal weights in the first window": (
            theirs["equal_weights_in_first_window"],
            bool((run.shares[0] - run.shares[0].mean()).abs().max() < 1e-3),
        ),
    }
    for part, (expected, found) in ours_theirs.items():
        yield Comparison(f"{part}: differs", float(expected != found), 0.0)
    temperature = float(networks.log_temperature.detach().exp())
    yield Comparison("first temperature", deviation(temperature, theirs["initial_temperature"]), SINGLE)
    yield Comparison("sum of the weights", deviation(run.shares[0].sum(), theirs["sum_of_weights"]), SINGLE)
    yield Comparison("sum of an action", deviation(networks.weights[0].sum(), theirs["sum_of_first_action"]), SINGLE)
    rewards = theirs["rewards"]
    yield Comparison("rewards", deviation(networks.rewards[: len(rewards)], rewards), SINGLE)
    yield Comparison("first state", deviation(networks.states[0], theirs["first_state"]), SINGLE)
    yield Comparison("next state", deviation(networks.next_states[0], theirs["first_next_state"]), SINGLE)


def _join_heads(shapes: list[list[int]]) -> list[list[int]]:
    """Their mean and log std are two layers, ours one."""
    *hidden, mean, log_std = shapes
    return [*hidden, [mean[0] + log_std[0], mean[1]]]


LINEARS = (0, 2, 4)


def _fill(networks: _Networks, given: Facts) -> None:
    """Put their parameters in."""

    def put(layer: nn.Module, table: Facts, *names: str) -> None:
        for kind in ("weight", "bias"):
            joined = torch.cat([torch.tensor(table[f"{name}.{kind}"]) for name in names])
            layer.get_parameter(kind).data.copy_(joined)

    for linear, names in zip(LINEARS, (("a_net.0",), ("a_net.2",), ("mu_layer", "log_std_layer")), strict=True):
        put(networks.actor.get_submodule(str(linear)), given["actor"], *names)
    for table, critics in ((given["critics"], networks.critics), (given["targets"], networks.targets)):
        for number, critic in enumerate(critics, 1):
            for linear in LINEARS:
                put(critic.get_submodule(str(linear)), table, f"Q_{number}.{linear}")


def _critic_parameters(critics: nn.ModuleList) -> Tensor:
    return torch.cat([parameter.flatten() for critic in critics for parameter in critic.parameters()])


def _their_critics(table: Facts) -> Tensor:
    names = [f"Q_{number}.{linear}.{kind}" for number in (1, 2) for linear in LINEARS for kind in ("weight", "bias")]
    return torch.cat([torch.tensor(table[name]).flatten() for name in names])


def _actor_parameters(actor: nn.Module) -> Tensor:
    return torch.cat([parameter.flatten() for parameter in actor.parameters()])


def _their_actor(table: Facts) -> Tensor:
    parts = [table[f"{name}.{kind}"] for name in ("a_net.0", "a_net.2") for kind in ("weight", "bias")]
    heads = [
        table["mu_layer.weight"] + table["log_std_layer.weight"],
        table["mu_layer.bias"] + table["log_std_layer.bias"],
    ]
    return torch.cat([torch.tensor(part).flatten() for part in [*parts, *heads]])


def _one_step(given: Facts, theirs: Facts) -> Comparisons:
    with patch.object(igb_agent, "WIDTH", given["hidden"]):
        agent = WeightAgent(torch.Generator().manual_seed(0))
        networks = agent._build(given["num_tasks"], torch.device("cpu"), None)
    _fill(networks, given)
    networks.stored.fill_(1)
    states, actions, rewards, next_states = (
        torch.tensor(given[name]) for name in ("states", "actions", "rewards", "next_states")
    )
    rows, values = (states, actions, rewards[:, 0], next_states), []
    noise = [torch.tensor(numbers) for numbers in given["noise"]]
    losses = networks.losses

    def spy(*arguments):
        for loss in losses(*arguments):
            values.append(float(loss.detach()))
            yield loss

    moved = _critic_parameters(networks.targets).clone()
    for step, expected in enumerate(theirs["steps"]):
        # Theirs draws for the next states first.
        order = [noise[2 * step + 1], noise[2 * step]]
        with (
            patch.object(networks, "draw", lambda _: rows),
            patch.object(networks, "losses", spy),
            patch.object(agent, "_normal", lambda _, order=order: order.pop(0)),
        ):
            agent._update(networks, len(states))
        for name, value in zip(("critic_loss", "actor_loss", "temperature_loss"), values[-3:], strict=True):
            yield Comparison(f"gradient steps: {name.replace('_', ' ')}", deviation(value, expected[name]), 1e-5)
        temperature = float(networks.log_temperature.detach().exp())
        yield Comparison("gradient steps: temperature", deviation(temperature, expected["temperature"]), SINGLE)
        critics, targets = _critic_parameters(networks.critics), _critic_parameters(networks.targets)
        yield Comparison("gradient steps: critics", deviation(critics, _their_critics(expected["critics"])), SINGLE)
        change = _their_critics(expected["targets"]) - moved
        yield Comparison("gradient steps: what the targets moved", deviation(targets - moved, change), 1e-3)
        yield Comparison(
            "gradient steps: actor",
            deviation(_actor_parameters(networks.actor), _their_actor(expected["actor"])),
            SINGLE,
        )
