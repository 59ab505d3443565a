"""The update against plain autograd, for every encoder: heads, shared parameters, clipping, absent gradients."""

import copy

import numpy as np
import pytest
import torch
from torch.func import functional_call

from mtrl_imgrad.agents import MTSAC
from mtrl_imgrad.agents.encoders import Encoder, list_encoders
from mtrl_imgrad.agents.encoders.layers import TaskLinear
from mtrl_imgrad.agents.off_policy.update import UpdateSettings
from mtrl_imgrad.agents.sac.temperature import Temperature
from mtrl_imgrad.agents.sac.update import Noise, SACUpdate
from mtrl_imgrad.combiners import LinearScalarization, make_combiner
from mtrl_imgrad.envs import make_vec_env
from mtrl_imgrad.errors import NonFiniteError
from mtrl_imgrad.gradients import Execution, NetworkUpdate, StepSettings, by_rows, split_parameters

GAMMA, TAU = 0.97, 0.01


def _agent(encoder="multi_head", layer_norm=False, **kwargs):
    agent = MTSAC(
        "MlpPolicy",
        make_vec_env("toy-reach", seed=1),
        policy_kwargs={"net_arch": [16, 12], "encoder": encoder, "layer_norm": layer_norm},
        learning_starts=0,
        gradient_steps=0,
        batch_size=4 * 8,
        seed=0,
        device="cpu",
        **{"trace": False, **kwargs},
    )
    agent.learn(100)
    return agent


def _double(agent):
    """The agent's networks and a batch in float64, so that agreement is to rounding."""
    agent.policy.double()
    batch = agent.replay_buffer.sample(agent.batch_size)
    batch = type(batch)(*(column if column is None else column.double() for column in batch))
    noise = Noise(*(torch.randn(batch.actions.shape, dtype=torch.float64) for _ in range(2)))
    return batch, noise


def _loop_over_tasks(module, loss, rows, num_tasks):
    """The obvious way: K backwards over the ordinary module."""
    found = []
    for task in range(num_tasks):
        module.zero_grad()
        loss(module, *(row[task] for row in rows)).backward()
        zeros = {name: torch.zeros_like(p) for name, p in module.named_parameters()}
        found.append({n: zeros[n] if p.grad is None else p.grad.clone() for n, p in module.named_parameters()})
    return found


@pytest.mark.parametrize(
    ("encoder", "layer_norm"), [("multi_head", False), *((encoder, True) for encoder in list_encoders())]
)
def test_gradients_by_rows_equal_one_backward_a_task(encoder, layer_norm):
    agent = _agent(encoder, layer_norm)
    normalised = any(isinstance(layer, torch.nn.LayerNorm) for layer in agent.critic.modules())
    assert normalised == (layer_norm or encoder == "residual")  # whose blocks always are
    batch, _ = _double(agent)
    targets = torch.randn_like(batch.rewards)
    rows = (batch.observations, batch.actions, targets)

    def plain(module, observation, action, target):
        return sum((q - target).square().mean() for q in module(observation, action))

    def pure(parameters, observation, action, target):
        values = functional_call(agent.critic, parameters, (observation, action))
        return sum((q - target).square().mean() for q in values), ()

    parameters = split_parameters(agent.critic)
    found = by_rows(pure, parameters, *rows)
    expected = _loop_over_tasks(agent.critic, plain, rows, agent.num_tasks)
    for name, jacobian in found.shared.items():
        for task in range(agent.num_tasks):
            torch.testing.assert_close(jacobian[task], expected[task][name], rtol=1e-10, atol=1e-12)
    for name, gradient in found.task_specific.items():
        for task in range(agent.num_tasks):
            torch.testing.assert_close(gradient[task], expected[task][name][task], rtol=1e-10, atol=1e-12)
            others = torch.arange(agent.num_tasks) != task
            assert not expected[task][name][others].any(), "a task's loss reached another task's row"
    assert bool(parameters.task_specific) == (encoder != "one_hot")


def _plain_critic_loss(agent, batch, noise, alpha):
    """The mean of SAC's task losses, written out on rows that forget their task."""
    flat = [column.flatten(0, 1) for column in batch[:3]]
    observations, next_observations, actions = flat
    shape = batch.rewards.shape
    with torch.no_grad():
        next_actions, next_log_prob = agent.actor(next_observations, noise.next_action.flatten(0, 1))
        values = torch.stack(agent.critic_target(next_observations, next_actions)).amin(0).view(shape)
        soft = values - alpha[:, None] * next_log_prob.view(shape)
        targets = batch.rewards + (1 - batch.terminated) * GAMMA * soft
    values = [q.view(shape) for q in agent.critic(observations, actions)]
    return sum(0.5 * (q - targets).square().mean() for q in values)


@pytest.mark.parametrize("encoder", list_encoders())
@pytest.mark.parametrize("combiner", ["linear_scalarization", "gramian_mean"])
def test_linear_scalarization_is_summed_sac(encoder, combiner):
    """Shared parameters: gradient of the mean loss. Own parameters: their task's gradient, K times as long."""
    agent = _agent(encoder)
    batch, noise = _double(agent)
    alpha = torch.tensor([0.5, 1.0, 0.1, 2.0], dtype=torch.float64)
    critic_loss = _plain_critic_loss(agent, batch, noise, alpha)
    expected = torch.autograd.grad(critic_loss, list(agent.critic.parameters()))
    own = split_parameters(agent.critic).task_specific
    expected = {
        name: gradient * (agent.num_tasks if name in own else 1)
        for (name, _), gradient in zip(agent.critic.named_parameters(), expected, strict=True)
    }
    chosen = LinearScalarization() if combiner == "linear_scalarization" else make_combiner("cagrad", c=0.0)
    temperature = Temperature(alpha.log(), -4.0, None)
    before = {name: p.clone() for name, p in agent.critic.named_parameters()}
    for network in (agent.critic, agent.actor):
        network.optimizer = torch.optim.SGD(network.parameters(), lr=0.1)
    settings = UpdateSettings(GAMMA, TAU)
    SACUpdate(agent.policy, temperature, chosen, chosen, settings, execution=Execution(trace=False))(batch, noise)
    for name, parameter in agent.critic.named_parameters():
        moved = (before[name] - parameter) / 0.1
        torch.testing.assert_close(moved, expected[name], rtol=1e-8, atol=1e-9)


@pytest.mark.parametrize(("sampling", "combiner"), [("balanced", "gramian_mean"), ("uniform", "linear_scalarization")])
@pytest.mark.parametrize("encoder", list_encoders())
def test_actor_step_is_that_of_the_mean_actor_loss(encoder, sampling, combiner):
    """Written out with autograd on rows that forget their task; own parameters by their own task's loss."""
    agent = _agent(encoder, sampling=sampling)
    batch, noise = _double(agent)
    if sampling == "uniform":
        assert batch.weights.unique().numel() == 2, "some columns must be padding"
    alpha = torch.tensor([0.5, 1.0, 0.1, 2.0], dtype=torch.float64)
    agent.critic.optimizer = torch.optim.SGD(agent.critic.parameters(), lr=0.0)
    agent.actor.optimizer = torch.optim.SGD(agent.actor.parameters(), lr=1.0)
    observations, shape = batch.observations.flatten(0, 1), batch.rewards.shape
    actions, log_prob = agent.actor(observations, noise.action.flatten(0, 1))
    values = torch.stack(agent.critic(observations, actions)).amin(0)
    losses = (batch.weights * (alpha[:, None] * log_prob.view(shape) - values.view(shape))).sum(1)
    expected = torch.autograd.grad(losses.mean(), list(agent.actor.parameters()))
    own = split_parameters(agent.actor).task_specific
    before = {name: p.detach().clone() for name, p in agent.actor.named_parameters()}
    chosen = LinearScalarization() if combiner == "linear_scalarization" else make_combiner("cagrad", c=0.0)
    settings = UpdateSettings(GAMMA, TAU)
    SACUpdate(
        agent.policy, Temperature(alpha.log(), -4.0, None), chosen, chosen, settings, execution=Execution(trace=False)
    )(batch, noise)
    for (name, new), gradient in zip(agent.actor.named_parameters(), expected, strict=True):
        factor = agent.num_tasks if name in own else 1
        torch.testing.assert_close(before[name] - new, factor * gradient, rtol=1e-8, atol=1e-10)


class _Listener(LinearScalarization):
    """Remembers the losses before and after each step."""

    needs_losses_after_step = True

    def __init__(self):
        super().__init__()
        self.before, self.after = [], []

    def solve(self, losses, tasks=None):
        self.before.append(losses)
        return super().solve(losses, tasks)

    def after_step(self, losses, tasks=None):
        self.after.append(losses)


@pytest.mark.parametrize("trace", [False, True])
def test_a_combiner_that_asks_is_told_the_same_batchs_losses_after_the_step(trace):
    """Critic: of the new critic against the same targets. Actor: of the new actor, by the new critic."""
    agent = _agent("multi_head")
    batch, noise = _double(agent)
    alpha = torch.tensor([0.5, 1.0, 0.1, 2.0], dtype=torch.float64)
    old = copy.deepcopy(agent.policy)
    for network in (agent.critic, agent.actor):
        network.optimizer = torch.optim.SGD(network.parameters(), lr=0.01)
    critic, actor = _Listener(), _Listener()
    settings = UpdateSettings(GAMMA, TAU)
    update = SACUpdate(
        agent.policy, Temperature(alpha.log(), -4.0, None), critic, actor, settings, execution=Execution(trace=trace)
    )
    report = update(batch, noise)
    shape, observations = batch.rewards.shape, batch.observations.flatten(0, 1)
    with torch.no_grad():
        next_observations = batch.next_observations.flatten(0, 1)
        next_actions, next_log_prob = old.actor(next_observations, noise.next_action.flatten(0, 1))
        soft = torch.stack(old.critic_target(next_observations, next_actions)).amin(0).view(shape)
        soft = soft - alpha[:, None] * next_log_prob.view(shape)
        targets = batch.rewards + (1 - batch.terminated) * GAMMA * soft

        def critic_losses(network):
            values = network(observations, batch.actions.flatten(0, 1))
            return sum(0.5 * (q.view(shape) - targets).square().mean(1) for q in values)

        def actor_losses(network):
            actions, log_prob = network(observations, noise.action.flatten(0, 1))
            values = torch.stack(agent.critic(observations, actions)).amin(0).view(shape)
            return (alpha[:, None] * log_prob.view(shape) - values).mean(1)

        torch.testing.assert_close(critic.before, [critic_losses(old.critic)])
        torch.testing.assert_close(critic.after, [critic_losses(agent.critic)])
        torch.testing.assert_close(actor.before, [actor_losses(old.actor)])
        torch.testing.assert_close(actor.after, [actor_losses(agent.actor)])
    assert not torch.allclose(critic.after[0], report.critic_losses)
    assert not torch.allclose(actor.after[0], report.actor_losses)


@pytest.mark.parametrize("shared", [False, True])
def test_temperatures_follow_the_entropies(shared):
    agent = _agent("one_hot")
    batch, noise = _double(agent)
    log_alpha = torch.zeros(1 if shared else agent.num_tasks, dtype=torch.float64, requires_grad=True)
    optimizer = torch.optim.SGD([log_alpha], lr=1.0)
    with torch.no_grad():
        _, log_prob = agent.actor(batch.observations.flatten(0, 1), noise.action.flatten(0, 1))
    expected = (log_prob.view(batch.rewards.shape) - 4.0).mean(1)
    expected = expected.mean(0, keepdim=True) if shared else expected
    combiner = LinearScalarization()
    settings = UpdateSettings(GAMMA, TAU)
    temperature = Temperature(log_alpha, -4.0, optimizer)
    SACUpdate(agent.policy, temperature, combiner, combiner, settings, execution=Execution(trace=False))(batch, noise)
    torch.testing.assert_close(log_alpha.detach(), expected, rtol=1e-8, atol=1e-10)


@pytest.mark.parametrize("update_target", [True, False])
def test_the_target_critic_moves_by_tau_when_told(update_target):
    agent = _agent("multi_head")
    batch, noise = _double(agent)
    before = [p.detach().clone() for p in agent.critic_target.parameters()]
    combiner = make_combiner("imgrad")
    update = SACUpdate(
        agent.policy,
        Temperature(torch.zeros(agent.num_tasks), -4.0, None),
        combiner,
        combiner,
        UpdateSettings(GAMMA, TAU),
        execution=Execution(trace=False),
    )
    update(batch, noise, update_target=update_target)
    tau = TAU if update_target else 0.0
    for old, new, critic in zip(before, agent.critic_target.parameters(), agent.critic.parameters(), strict=True):
        torch.testing.assert_close(new, old + tau * (critic - old), rtol=1e-6, atol=1e-9)


def test_critic_losses_weigh_the_rows():
    agent = _agent("multi_head", sampling="uniform")
    batch, noise = _double(agent)
    alpha = torch.ones(agent.num_tasks, dtype=torch.float64)
    combiner = LinearScalarization()
    settings = UpdateSettings(GAMMA, TAU)
    poisoned = batch._replace(rewards=torch.where(batch.weights > 0, batch.rewards, 1e6))
    reports = []
    for rows in (batch, poisoned):
        for network in (agent.actor, agent.critic):
            network.optimizer = torch.optim.SGD(network.parameters(), lr=0.0)
        update = SACUpdate(
            agent.policy,
            Temperature(alpha.log(), -4.0, None),
            combiner,
            combiner,
            settings,
            execution=Execution(trace=False),
        )
        reports.append(update(rows, noise, update_target=False))
    torch.testing.assert_close(reports[0].critic_losses, reports[1].critic_losses)


@pytest.mark.parametrize("bad", [0, 2])
def test_nothing_moves_after_a_fault_within_a_training(bad, monkeypatch):
    agent = _agent("multi_head", combiner="imgrad")
    states, sample = [], agent.replay_buffer.sample

    def poisoned(batch_size, env=None):
        states.append([value.clone() for value in _everything(agent)])
        batch = sample(batch_size, env)
        return batch._replace(rewards=batch.rewards * torch.nan) if len(states) == bad + 1 else batch

    monkeypatch.setattr(agent.replay_buffer, "sample", poisoned)
    updates = agent._n_updates
    with pytest.raises(NonFiniteError, match=rf"critic loss of task .* in update {updates + bad + 1}"):
        agent.train(5)
    for before, after in zip(states[bad], _everything(agent), strict=True):
        assert torch.equal(before, after)
    assert agent._n_updates == updates + bad
    monkeypatch.setattr(agent.replay_buffer, "sample", sample)
    agent.train(1)
    assert not torch.equal(states[bad][0], next(iter(_everything(agent))))


def _everything(agent):
    return [*agent.policy.state_dict().values(), agent.log_ent_coef.detach()]


class _Independent(Encoder):
    """A linear network a task: nothing is shared."""

    name = "independent"

    def __init__(self, spec):
        super().__init__(spec)
        self.layer = TaskLinear(spec.num_tasks, spec.in_features, spec.out_features)

    def forward(self, inputs, task):
        return self.layer(inputs, task)


@pytest.mark.parametrize("combiner", ["imgrad", "linear_scalarization"])
def test_tasks_that_share_nothing_need_no_combining(combiner):
    agent = _agent(_Independent, combiner=combiner)
    before = agent.actor.encoder.layer.weight.detach().clone()
    agent.train(2)
    assert not torch.equal(before, agent.actor.encoder.layer.weight)


def test_settings_are_read_at_each_training():
    agent = _agent("one_hot")
    agent.tau, agent.gamma = 0.0, 0.0
    before = [p.detach().clone() for p in agent.critic_target.parameters()]
    agent.train(2)
    assert all(torch.equal(a, b) for a, b in zip(before, agent.critic_target.parameters(), strict=True))


@pytest.mark.parametrize("combiner", ["imgrad", "linear_scalarization"])
def test_weighted_heads_scale_a_tasks_own_gradient_by_its_weight(combiner):
    agent = _agent("multi_head")
    batch, _ = _double(agent)
    rows = (batch.observations, batch.actions, torch.randn_like(batch.rewards))

    def loss(parameters, observation, action, target):
        values = functional_call(agent.critic, parameters, (observation, action))
        return sum((q - target).square().mean() for q in values), ()

    parameters = split_parameters(agent.critic)
    plain, scaled = (
        NetworkUpdate(
            agent.critic, make_combiner(combiner), loss, StepSettings(heads), execution=Execution(trace=False)
        ).gradients(*rows)
        for heads in ("unweighted", "weighted")
    )
    for name in parameters.task_specific:
        weights = plain.combination.weights.view(-1, *[1] * (plain.gradients[name].ndim - 1))
        torch.testing.assert_close(scaled.gradients[name], plain.gradients[name] * weights)
    for name in parameters.shared:
        torch.testing.assert_close(scaled.gradients[name], plain.gradients[name])


def test_max_grad_norm_clips_the_combined_gradient():
    agent = _agent("one_hot", max_grad_norm=1e-3, learning_rate=1.0)
    agent.actor.optimizer = torch.optim.SGD(agent.actor.parameters(), lr=1.0)
    before = torch.cat([p.detach().flatten().clone() for p in agent.actor.parameters()])
    agent.train(1)
    moved = torch.cat([p.detach().flatten() for p in agent.actor.parameters()]) - before
    assert float(moved.norm()) == pytest.approx(1e-3, rel=1e-3)


def test_a_frozen_parameter_is_neither_seen_nor_moved():
    agent = _agent("one_hot")
    frozen = agent.actor.encoder.trunk[0].weight.requires_grad_(False)
    before = frozen.clone()
    parameters = split_parameters(agent.actor)
    assert "encoder.trunk.0.weight" in parameters.frozen
    agent.train(3)
    assert torch.equal(frozen, before)
    assert np.isfinite(agent.logger.name_to_value["train/actor_loss"])


# Of the encoders' operations asks tests/agents/encoders/test_encoders.py.
@pytest.mark.parametrize(
    "encoder",
    [
        "multi_head",
        "film",
        *(pytest.param(name, marks=pytest.mark.slow) for name in list_encoders() if name not in ("multi_head", "film")),
    ],
)
def test_tracing_changes_no_number(encoder):
    runs = []
    for trace in (True, False):
        agent = _agent(encoder, combiner="imgrad", trace=trace)
        agent.train(3)
        runs.append(torch.cat([p.detach().flatten() for p in agent.policy.parameters()]))
    assert torch.equal(*runs)
