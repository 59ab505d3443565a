"""The TD3 update against plain autograd, task after task; the delay, n steps, tracing, faults."""

import numpy as np
import pytest
import torch

from mtrl_imgrad.agents import MTTD3, GradientDiagnosticsCallback
from mtrl_imgrad.agents.td3.update import TD3Noise, TD3Settings, TD3Update
from mtrl_imgrad.combiners import LinearScalarization, make_combiner
from mtrl_imgrad.envs import make_vec_env
from mtrl_imgrad.errors import ArgumentError, NonFiniteError
from mtrl_imgrad.gradients import Execution, split_parameters

GAMMA, TAU, NOISE, CLIP = 0.97, 0.01, 0.7, 0.4
ENCODERS = ("one_hot", "multi_head", "care", "film", "moore")


def _agent(encoder="multi_head", **kwargs):
    agent = MTTD3(
        "MlpPolicy",
        make_vec_env("toy-reach", seed=1),
        policy_kwargs={"net_arch": [16, 12], "encoder": encoder},
        seed=0,
        device="cpu",
        **{"learning_starts": 0, "gradient_steps": 0, "batch_size": 4 * 8, "trace": False, **kwargs},
    )
    return agent.learn(400)


def _double(agent):
    """The agent's networks, apart from their targets, and a batch in float64, so that agreement is to rounding."""
    agent.policy.double()
    generator = torch.Generator().manual_seed(2)
    with torch.no_grad():
        for target in (agent.critic_target, agent.actor_target):
            for parameter in target.parameters():
                parameter += 0.05 * torch.randn(parameter.shape, generator=generator, dtype=torch.float64)
    batch = agent.replay_buffer.sample(agent.batch_size)
    batch = type(batch)(*(column if column is None else column.double() for column in batch))
    return batch, TD3Noise(torch.randn(batch.actions.shape, generator=generator, dtype=torch.float64))


def _update(agent, combiner):
    settings = TD3Settings(GAMMA, TAU, target_policy_noise=NOISE, target_noise_clip=CLIP)
    for network in (agent.actor, agent.critic):
        network.optimizer = torch.optim.SGD(network.parameters(), lr=0.1)
    return TD3Update(agent.policy, combiner, combiner, settings, execution=Execution(trace=False))


def _summed_gradient(network, loss):
    """Shared parameters: gradient of the mean loss. Own parameters: their task's gradient, K times as long."""
    own = split_parameters(network).task_specific
    names, parameters = zip(*network.named_parameters(), strict=True)
    gradients = torch.autograd.grad(loss.mean(), parameters)
    return {name: (len(loss) if name in own else 1) * value for name, value in zip(names, gradients, strict=True)}


def _values(network):
    return {name: parameter.detach().clone() for name, parameter in network.named_parameters()}


@pytest.mark.parametrize("combiner", ["linear_scalarization", "gramian_mean"])
@pytest.mark.parametrize("encoder", ENCODERS)
def test_an_update_is_that_of_the_mean_losses(encoder, combiner):
    """Written out with autograd on rows that forget their task."""
    agent = _agent(encoder, sampling="uniform")
    batch, noise = _double(agent)
    assert batch.weights.unique().numel() == 2, "some columns must be padding"
    chosen = LinearScalarization() if combiner == "linear_scalarization" else make_combiner("cagrad", c=0.0)
    update, shape = _update(agent, chosen), batch.rewards.shape
    observations, next_observations, actions = (column.flatten(0, 1) for column in batch[:3])
    with torch.no_grad():
        smoothing = (NOISE * noise.next_action.flatten(0, 1)).clip(-CLIP, CLIP)
        assert (smoothing.abs() == CLIP).any()
        next_actions = (agent.actor_target(next_observations) + smoothing).clip(-1, 1)
        first, second = agent.critic_target(next_observations, next_actions)
        targets = batch.rewards + (1 - batch.terminated) * GAMMA * torch.minimum(first, second).view(shape)
    errors = [(values.view(shape) - targets).square() for values in agent.critic(observations, actions)]
    critic_losses = (batch.weights * sum(errors)).sum(1)
    expected = _summed_gradient(agent.critic, critic_losses)
    before = _values(agent.critic)

    report = update(batch, noise, with_actor=False)
    torch.testing.assert_close(report.critic_losses, critic_losses.detach())
    assert report.actor is None
    for name, value in _values(agent.critic).items():
        torch.testing.assert_close((before[name] - value) / 0.1, expected[name], rtol=1e-8, atol=1e-9)

    for network in (agent.actor, agent.critic):
        network.optimizer = torch.optim.SGD(network.parameters(), lr=0.1 if network is agent.actor else 0.0)
    values = agent.critic(observations, agent.actor(observations))[0].view(shape)
    expected = _summed_gradient(agent.actor, -(batch.weights * values).sum(1))
    before = _values(agent.actor)
    update(batch, noise)
    for name, value in _values(agent.actor).items():
        torch.testing.assert_close((before[name] - value) / 0.1, expected[name], rtol=1e-8, atol=1e-9)


def test_target_networks_move_with_the_actor_only():
    agent = _agent()
    batch, noise = _double(agent)
    update = _update(agent, make_combiner("pcgrad"))
    pairs = ((agent.critic_target, agent.critic), (agent.actor_target, agent.actor))
    before = [_values(target) for target, _ in pairs]
    update(batch, noise, with_actor=False)
    for (target, _), old in zip(pairs, before, strict=True):
        assert all(torch.equal(value, old[name]) for name, value in _values(target).items())
    update(batch, noise)
    for (target, network), old in zip(pairs, before, strict=True):
        now, values = _values(target), _values(network)
        for name in old:
            torch.testing.assert_close(now[name], old[name] + TAU * (values[name] - old[name]), rtol=1e-6, atol=1e-9)


def test_the_delay_counts_updates_over_trainings():
    agent = _agent(policy_delay=3, combiner="linear_scalarization")
    moved = []
    for _ in range(6):
        before = _values(agent.actor)
        agent.train(1)
        moved.append(any(not torch.equal(value, before[name]) for name, value in _values(agent.actor).items()))
    assert moved == [False, False, True] * 2


@pytest.mark.parametrize("options", [{}, {"n_steps": 3, "gamma": 0.9, "max_grad_norm": 0.1, "heads": "weighted"}])
def test_tracing_changes_no_number(options):
    traced, plain = (_agent(trace=trace, combiner="cagrad", **options) for trace in (True, False))
    for agent in (traced, plain):
        agent.train(4)
    for name, value in traced.policy.state_dict().items():
        assert torch.equal(value, plain.policy.state_dict()[name]), name


def test_n_steps_bootstrap_with_the_discount_of_the_steps_made():
    agent = _agent(n_steps=3)
    batch, noise = _double(agent)
    assert batch.discounts is not None
    update = _update(agent, LinearScalarization())
    targets = update._compute_targets(
        update._actor_target.split(), update._critic_target.split(), 0 * noise.next_action, noise.masks, batch
    )
    with torch.no_grad():
        flat = batch.next_observations.flatten(0, 1)
        values = torch.stack(agent.critic_target(flat, agent.actor_target(flat))).amin(0).view(targets.shape)
    torch.testing.assert_close(targets, batch.rewards + (1 - batch.terminated) * batch.discounts * values)


def test_a_fault_stops_everything_and_names_the_task(monkeypatch):
    agent = _agent(combiner="imgrad")
    sample, states = agent.replay_buffer.sample, []

    def poisoned(batch_size, env=None):
        states.append({name: value.clone() for name, value in agent.policy.state_dict().items()})
        batch = sample(batch_size)
        scale = torch.ones(4)
        scale[2] = torch.nan
        return batch._replace(rewards=batch.rewards * scale[:, None]) if len(states) == 3 else batch

    monkeypatch.setattr(agent.replay_buffer, "sample", poisoned)
    with pytest.raises(NonFiniteError, match=rf"critic loss of task {agent.task_names[2]!r} is nan in update 3;"):
        agent.train(6)
    assert agent._n_updates == 2
    for name, value in agent.policy.state_dict().items():
        assert torch.equal(value, states[2][name]), name


def test_on_nonfinite_leaves_a_task_out_and_counts_it(monkeypatch):
    agent = _agent(combiner="imgrad", on_nonfinite="drop_task")
    sample = agent.replay_buffer.sample

    def poisoned(batch_size, env=None):
        batch = sample(batch_size)
        return batch._replace(rewards=batch.rewards * torch.tensor([1, torch.inf, 1, 1])[:, None])

    monkeypatch.setattr(agent.replay_buffer, "sample", poisoned)
    before = _values(agent.critic)
    with pytest.warns(UserWarning, match="critic, update 1: a loss or gradient of 'toy-reach/up'"):
        agent.train(4)
    assert agent.non_finite.tasks[agent.task_names[1]] == 4
    assert sum(agent.non_finite.tasks.values()) == 4
    assert all(torch.isfinite(value).all() for value in agent.policy.state_dict().values())
    assert any(not torch.equal(value, before[name]) for name, value in _values(agent.critic).items())


def test_diagnostics_wait_for_the_delayed_actor():
    """A combiner that does without task gradients is measured for both networks, whichever update the call falls on."""
    for start in (0, 4):  # vector steps before learning: the record falls on an update of either kind
        agent = _agent(combiner="linear_scalarization", gradient_steps=1, learning_starts=400 + 4 * start)
        seen = []
        agent.set_logger(agent.logger)
        record = agent.logger.record

        def spy(key, value, *args, record=record, seen=seen, **kwargs):
            seen.append(key)
            record(key, value, *args, **kwargs)

        agent.logger.record = spy
        agent.learn(4 * 30, GradientDiagnosticsCallback(log_freq=5), log_interval=None, reset_num_timesteps=False)
        assert seen.count("grad/actor/cos_min") >= 2
        assert abs(seen.count("grad/actor/cos_min") - seen.count("grad/critic/cos_min")) <= 1


@pytest.mark.parametrize(
    ("given", "says"),
    [
        ({"policy_delay": 0}, "policy_delay"),
        ({"target_policy_noise": -0.1}, "target_policy_noise"),
        ({"target_noise_clip": np.nan}, "target_noise_clip"),
        ({"batch_size": 30}, "batch_size must be a multiple of the 4 tasks"),
        ({"policy_kwargs": {"ent_coef_optimizer_kwargs": {}}}, "ent_coef_optimizer_kwargs"),
    ],
)
def test_wrong_arguments_are_named(given, says):
    with pytest.raises(ArgumentError, match=says):
        MTTD3("MlpPolicy", make_vec_env("toy-reach", seed=1), device="cpu", **given)
