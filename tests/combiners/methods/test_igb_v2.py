"""IGBv2: its schedule, what its replay holds, and whether its agent learns."""

from __future__ import annotations

import copy

import pytest
import torch

from mtrl_imgrad.combiners import IGBv2
from mtrl_imgrad.combiners.state import igb_agent
from mtrl_imgrad.combiners.state.igb_agent import WeightAgent
from mtrl_imgrad.errors import ArgumentError

YES = torch.tensor(True)


def falling(count: int) -> torch.Tensor:
    generator = torch.Generator().manual_seed(0)
    return torch.rand(count, 2, generator=generator, dtype=torch.float64) + 0.5


def test_the_replay_holds_states_weights_and_rewards_as_defined():
    combiner, given = IGBv2(window=3, update_every=100), falling(14)
    shares = torch.stack([combiner.weights(losses).values * losses for losses in given])
    base = given[3:6].mean(0)
    stored = combiner.state_dict()["agent"]["networks"]
    assert stored["stored"] == 8  # from the first step at which the base losses are known
    torch.testing.assert_close(stored["states"][:8].double(), given[5:13], rtol=1e-6, atol=0)
    torch.testing.assert_close(stored["next_states"][:8].double(), given[6:], rtol=1e-6, atol=0)
    rewards = ((given[5:13] - given[6:]) / base).amin(1)
    torch.testing.assert_close(stored["rewards"][:8].double(), rewards, rtol=0, atol=1e-6)
    torch.testing.assert_close(stored["weights"][:8].double(), 2 * shares[5:13], rtol=1e-5, atol=0)
    torch.testing.assert_close(shares.sum(1), torch.ones(14).double(), rtol=1e-6, atol=0)
    assert (shares[:, 0] - 0.5).abs().min() > 1e-3  # random from the first step on


def test_the_policys_spread_is_clamped():
    networks = WeightAgent(torch.Generator().manual_seed(0))._build(2, torch.device("cpu"), None)
    for parameter in networks.actor.parameters():
        parameter.data.zero_()
    networks.actor[4].bias.data[2:] = torch.tensor([-100.0, 100.0])
    logits, _ = networks.sample(torch.zeros(2), torch.ones(2))
    torch.testing.assert_close(logits, torch.tensor([-20.0, 2.0]).exp())


def test_the_agents_first_weights_are_those_of_a_torch_layer():
    """Uniform in +-1 / sqrt(inputs); targets start as the critics."""
    agent = WeightAgent(torch.Generator().manual_seed(0))
    agent.act(torch.ones(3), YES, random=True)
    networks = agent._networks
    for layer in (layer for net in (networks.actor, *networks.critics) for layer in net if hasattr(layer, "weight")):
        bound = layer.in_features**-0.5
        assert layer.weight.abs().max() <= bound
        assert float(layer.weight.detach().std()) == pytest.approx(bound / 3**0.5, rel=0.15)
        assert layer.bias.abs().max() <= bound
    for mine, its in zip(networks.targets.parameters(), networks.critics.parameters(), strict=True):
        assert torch.equal(mine, its)


def test_the_agent_learns_on_schedule():
    combiner = IGBv2(window=2, update_every=4)
    moved = []
    for losses in falling(16):
        before = combiner.state_dict()["agent"]
        combiner.weights(losses)
        after = combiner.state_dict()["agent"]
        name = "actor.0.weight"
        moved.append(before is not None and not torch.equal(before["networks"][name], after["networks"][name]))
    assert [step for step, flag in enumerate(moved) if flag] == [8, 12]  # from step 3 x 2 on, every fourth


def test_the_batch_grows_with_the_transitions_that_are_stored(monkeypatch):
    """``int(128 (1 + n / 10000))`` is 129 from n = 79 on, which are stored at the 79th step after window 1."""
    combiner, batches = IGBv2(window=20, update_every=1), {}
    monkeypatch.setattr(combiner._agent, "learn", lambda like, updates, size: batches.update({len(batches): size}))
    for losses in falling(40 + 80):
        combiner.weights(losses)
    assert combiner.state_dict()["agent"]["networks"]["stored"] == 80
    sizes = list(batches.values())
    assert sizes == [128] * 58 + [129] * 2  # from step 60 on; step 118 is the 79th


def test_a_step_that_is_not_finite_leaves_no_transition():
    combiner, given = IGBv2(window=1, update_every=100), falling(8)
    for step, losses in enumerate(given):
        combiner.weights(losses if step != 5 else losses * torch.nan)
    stored = combiner.state_dict()["agent"]["networks"]
    assert stored["stored"] == 5
    assert stored["states"][:5].isfinite().all()
    torch.testing.assert_close(stored["states"][3].double(), given[4], rtol=1e-6, atol=0)
    torch.testing.assert_close(stored["next_states"][3].double(), given[6], rtol=1e-6, atol=0)


def test_the_losses_are_those_of_soft_actor_critic():
    """Written out with the agent's own networks on its own noise."""
    agent = WeightAgent(torch.Generator().manual_seed(0))
    for state in falling(6).float():
        agent.observe(state, torch.ones(2), YES)
        agent.act(state, YES, random=True)
    networks = agent._networks
    rows = networks.draw(torch.rand(9, generator=torch.Generator().manual_seed(1)))
    states, weights, rewards, next_states = rows
    noise, next_noise = torch.randn(2, 9, 2, generator=torch.Generator().manual_seed(2))

    def policy(inputs, epsilon):
        mean, log_std = networks.actor(inputs).split(2, dim=1)
        normal = torch.distributions.Normal(mean, log_std.exp())
        action = mean + log_std.exp() * epsilon
        log_prob = normal.log_prob(action) - torch.log(1 - torch.tanh(action) ** 2)
        return 2 * torch.softmax(action, 1), log_prob.sum(1)

    alpha = networks.log_temperature.exp().item()
    assert alpha == pytest.approx(0.2)
    action, log_prob = policy(next_states, next_noise)
    next_values = [target(torch.cat([next_states, action], 1))[:, 0] for target in networks.targets]
    target = (rewards + 0.99 * (torch.minimum(*next_values) - alpha * log_prob)).detach()
    values = [critic(torch.cat([states, weights], 1))[:, 0] for critic in networks.critics]
    critic_loss = sum(((value - target) ** 2).mean() for value in values)
    action, log_prob = policy(states, noise)
    values = [critic(torch.cat([states, action], 1))[:, 0] for critic in networks.critics]
    actor_loss = (alpha * log_prob - torch.minimum(*values)).mean()
    temperature_loss = -(networks.log_temperature * (log_prob.detach() - 2)).mean()
    found = list(networks.losses(rows, noise, next_noise))
    torch.testing.assert_close(found, [critic_loss, actor_loss, temperature_loss])
    old = copy.deepcopy(list(networks.targets.parameters()))
    with torch.no_grad():
        for parameter in networks.critics.parameters():
            parameter += 1
    networks.move_targets()
    for before, now, critic in zip(old, networks.targets.parameters(), networks.critics.parameters(), strict=True):
        torch.testing.assert_close(now, 0.995 * before + 0.005 * critic)


def test_the_agent_learns_which_weights_are_rewarded(monkeypatch, learning_seed, record_property):
    """Rewards are the first weight: after some learning, here a fast one, the policy gives most to it."""
    monkeypatch.setattr(igb_agent, "LEARNING_RATE", 3e-3)
    agent = WeightAgent(torch.Generator().manual_seed(learning_seed))
    state = torch.ones(2)
    agent.act(state, YES, random=True)
    networks = agent._networks
    generator = torch.Generator().manual_seed(1 + learning_seed)
    networks.weights[:200] = 2 * (3 * torch.randn(200, 2, generator=generator)).softmax(-1)
    networks.states[:200] = networks.next_states[:200] = 1.0
    networks.rewards[:200] = 10 * networks.weights[:200, 0]
    networks.stored += 200

    def preference():
        with torch.no_grad():
            return float(networks.actor(state)[:2].softmax(0)[0])

    assert preference() < 0.65
    agent.learn(state, updates=60, batch_size=64)
    record_property("reached", preference())
    assert preference() > 0.8  # ten seeds: .47 to .61 before, .98 to 1 after 40 updates and after 80


def test_the_global_generator_is_left_alone():
    before = torch.get_rng_state()
    combiner = IGBv2(window=1, update_every=2)
    for losses in falling(9):
        combiner.weights(losses)
    assert torch.equal(torch.get_rng_state(), before)


def test_the_seed_decides():
    runs = []
    for seed in (0, 0, 1):
        combiner = IGBv2(window=1, update_every=3, seed=seed)
        runs.append(torch.stack([combiner.weights(losses).values for losses in falling(12)]))
    assert torch.equal(runs[0], runs[1])
    assert not torch.equal(runs[0], runs[2])


@pytest.mark.parametrize("tasks", [[0, 2], [1, 2]])
def test_a_step_without_all_tasks_is_refused(tasks):
    with pytest.raises(ArgumentError, match=r"igb_v2 needs all tasks from 0 on at every step, got \["):
        IGBv2().weights(torch.ones(2), tasks)


def test_another_number_of_tasks_is_refused():
    combiner = IGBv2(window=1)
    for _ in range(4):
        combiner.weights(torch.ones(2))
    with pytest.raises(ArgumentError, match="2 tasks as before, got 3"):
        combiner.weights(torch.ones(3))
