"""The PPO update against plain autograd, task after task; the masks that stop it; minibatches by task."""

import numpy as np
import pytest
import torch
from gymnasium import spaces
from torch.utils._python_dispatch import TorchDispatchMode

from mtrl_imgrad.agents import MTPPO
from mtrl_imgrad.agents.encoders import list_encoders
from mtrl_imgrad.agents.ppo.rollout import TaskRollout, TaskRolloutBuffer
from mtrl_imgrad.agents.ppo.update import PPOSettings, PPOUpdate, whitened
from mtrl_imgrad.combiners import make_combiner
from mtrl_imgrad.envs import make_vec_env
from mtrl_imgrad.errors import ArgumentError, NonFiniteError
from mtrl_imgrad.gradients import Execution, StepSettings, split_parameters

K, STEPS, COPIES = 4, 24, 2
CLIP, ENT, VF, CLIP_VF = 0.15, 0.03, 0.7, 0.4


def _agent(encoder="multi_head", **kwargs):
    agent = MTPPO(
        "MlpPolicy",
        make_vec_env("toy-reach", seed=1, num_envs_per_task=COPIES),
        n_steps=STEPS,
        policy_kwargs={"net_arch": [16, 12], "encoder": encoder, "layer_norm": {"pi": False, "vf": True}},
        seed=0,
        device="cpu",
        **{"combiner": "linear_scalarization", "batch_size": K * 16, "n_epochs": 2, "trace": False, **kwargs},
    )
    return agent.learn(K * COPIES * STEPS)


def _double(agent):
    """Networks and rollout in float64, with old values and probabilities moved a little off the present ones."""
    agent.policy.double()
    rollout = TaskRollout(*(column.double() for column in agent.rollout_buffer.rollout()))
    generator = torch.Generator().manual_seed(3)
    off = [0.2 * torch.randn(rollout.values.shape, generator=generator, dtype=torch.float64) for _ in range(2)]
    return rollout._replace(log_probs=rollout.log_probs + off[0], values=rollout.values * (1 + off[1]))


def _settings(**changes):
    given = {
        "clip_range": CLIP,
        "clip_range_vf": CLIP_VF,
        "ent_coef": ENT,
        "vf_coef": VF,
        "normalize_advantage": True,
        "advantage_scope": "task",
        "target_kl": None,
        "step": StepSettings(),
    }
    return PPOSettings(**{**given, **changes})


def _plain_losses(agent, rollout, task):
    """Of one task, written out with torch.distributions on the ordinary modules; whitened over the task's rows."""
    observations, actions, values, old_log_prob, advantages, returns = (column[task] for column in rollout)
    popart = agent.critic.popart
    if popart is not None:
        mean, std = popart.mean[task], popart.std[task]
        values, returns = (values - mean) / std, (returns - mean) / std
    mean, log_std = agent.actor.gaussian(observations)
    distribution = torch.distributions.Normal(mean, log_std.exp())
    ratio = (distribution.log_prob(actions).sum(-1) - old_log_prob).exp()
    advantages = (advantages - advantages.mean()) / (advantages.std() + 1e-8)
    surrogate = torch.minimum(advantages * ratio, advantages * ratio.clip(1 - CLIP, 1 + CLIP))
    actor = -surrogate.mean() - ENT * distribution.entropy().sum(-1).mean()
    predicted = values + (agent.critic(observations) - values).clip(-CLIP_VF, CLIP_VF)
    return actor, VF * (predicted - returns).square().mean()


def _jacobians(agent, rollout):
    """K backwards a network: ``{name: [K, *shape]}``."""
    found = []
    for side, network in enumerate((agent.actor, agent.critic)):
        names, parameters = zip(*network.named_parameters(), strict=True)
        rows = [
            torch.autograd.grad(_plain_losses(agent, rollout, task)[side], parameters, materialize_grads=True)
            for task in range(agent.num_tasks)
        ]
        found.append({name: torch.stack(column) for name, column in zip(names, zip(*rows, strict=True), strict=True)})
    return found


@pytest.mark.parametrize(
    ("encoder", "popart"), [("multi_head", None), *((encoder, "popart") for encoder in list_encoders())]
)
def test_an_update_is_the_combination_of_one_backward_a_task(encoder, popart):
    """Shared parameters by the combiner's own answer to autograd's Jacobian; own ones by their task's gradient."""
    agent = _agent(encoder, value_normalization=popart)
    rollout = _double(agent)
    actor_combiner, critic_combiner = make_combiner("cagrad", c=0.4), make_combiner("imgrad", c=0.4)
    update = PPOUpdate(agent.policy, actor_combiner, critic_combiner, execution=Execution(trace=False))
    update.begin(_settings(), rollout.returns)
    expected = _jacobians(agent, rollout)
    networks = (agent.actor, agent.critic)
    for network in networks:
        network.optimizer = torch.optim.SGD(network.parameters(), lr=1.0)
    before = [{name: p.detach().clone() for name, p in network.named_parameters()} for network in networks]
    report = update(rollout)
    assert bool(report.finite)
    for network, jacobian, combiner, old in zip(
        networks, expected, (actor_combiner, critic_combiner), before, strict=True
    ):
        shared, own = split_parameters(network)[:2]
        rows = torch.cat([jacobian[name].flatten(1) for name in shared], dim=1)
        answer = combiner(rows).gradient.split([jacobian[name][0].numel() for name in shared])
        gradients = dict(zip(shared, answer, strict=True))
        for name in own:
            gradients[name] = torch.stack([jacobian[name][task, task] for task in range(K)])
        for name, parameter in network.named_parameters():
            moved = (old[name] - parameter).detach().flatten()
            torch.testing.assert_close(moved, gradients[name].flatten(), rtol=1e-6, atol=1e-8, msg=name)
    assert {"log_std.weight"} <= set(split_parameters(agent.actor).task_specific)


@pytest.mark.parametrize("combiner", ["linear_scalarization", "gramian_mean"])
def test_linear_scalarization_is_the_mean_loss_and_measures_are_those_of_the_tasks(combiner):
    agent = _agent("one_hot", value_normalization="popart")
    rollout = _double(agent)
    chosen = make_combiner("cagrad", c=0.0) if combiner == "gramian_mean" else make_combiner(combiner)
    update = PPOUpdate(agent.policy, chosen, chosen, execution=Execution(trace=False))
    update.begin(_settings(), rollout.returns)
    losses = torch.stack([torch.stack(_plain_losses(agent, rollout, task)) for task in range(K)])
    weights = [network.encoder.trunk[0].weight for network in (agent.actor, agent.critic)]
    expected = torch.autograd.grad(losses.sum(1).mean(), weights)
    for network in (agent.actor, agent.critic):
        network.optimizer = torch.optim.SGD(network.parameters(), lr=0.0)
    measures = update(rollout).measures
    for weight, gradient in zip(weights, expected, strict=True):
        torch.testing.assert_close(weight.grad, gradient, rtol=1e-7, atol=1e-10)
    torch.testing.assert_close(measures.policy_loss + ENT * measures.entropy_loss, losses[:, 0].detach())
    torch.testing.assert_close(VF * measures.value_loss, losses[:, 1].detach())
    with torch.no_grad():
        log_prob, _ = agent.actor(rollout.observations.flatten(0, 1), rollout.actions.flatten(0, 1))
    off = ((log_prob.view(K, -1) - rollout.log_probs).exp() - 1).abs()
    torch.testing.assert_close(measures.clip_fraction, (off > CLIP).double().mean(1))
    assert 0 < float(measures.clip_fraction.min()) < float(measures.clip_fraction.max()) < 1


@pytest.mark.parametrize(("scope", "columns"), [("task", 1), ("batch", None)])
def test_advantages_are_whitened_over_their_scope(scope, columns):
    advantages = torch.randn(3, 7, dtype=torch.float64) * torch.tensor([[1.0], [10.0], [0.1]]) + 4
    rows = advantages.numpy()
    mean = rows.mean(axis=columns, keepdims=True)
    std = rows.std(axis=columns, keepdims=True, ddof=1)
    np.testing.assert_allclose(whitened(advantages, scope).numpy(), (rows - mean) / (std + 1e-8))
    single = torch.tensor([[3.0]])
    assert torch.equal(whitened(single, scope), single), "one row has no deviation"


def test_minibatches_hold_every_row_once_and_its_own_task_only():
    buffer = TaskRolloutBuffer(6, *_spaces(), n_envs=6, task_names=["a", "b", "c"], seed=0, device="cpu")
    envs = np.arange(6)
    for step in range(6):
        obs = np.stack([envs, np.full(6, step)], 1).astype(np.float32)
        buffer.add(obs, np.zeros((6, 1)), 10.0 * envs + step, np.zeros(6), torch.zeros(6), torch.zeros(6))
    buffer.compute_returns_and_advantage(torch.zeros(6), np.ones(6))
    expected = [[(env, step) for env in (2 * task, 2 * task + 1) for step in range(6)] for task in range(3)]
    epochs = []
    for _ in range(2):
        batches = list(buffer.get(15))
        assert [batch.values.shape for batch in batches] == [(3, 5), (3, 5), (3, 2)]
        rows = torch.cat([batch.observations for batch in batches], 1).int().tolist()
        assert [sorted(map(tuple, task)) for task in rows] == expected
        epochs.append(rows)
    assert epochs[0] != epochs[1]
    orders = [[(env % 2, step) for env, step in task] for task in epochs[0]]
    assert orders[0] != orders[1], "every task has an order of its own"
    # The advantages are their rows' own: discounted sums of the rewards still to come.
    whole = buffer.rollout()
    decay = buffer.gamma * buffer.gae_lambda
    sums = [
        [sum(decay ** (later - step) * (10.0 * env + later) for later in range(int(step), 6)) for env, step in task]
        for task in whole.observations.tolist()
    ]
    np.testing.assert_allclose(whole.advantages.numpy(), sums, rtol=1e-5)


def _spaces():
    return spaces.Box(-np.inf, np.inf, (2,), np.float32), spaces.Box(-1, 1, (1,), np.float32)


def _everything(agent):
    return list(agent.policy.state_dict().values())


@pytest.mark.parametrize("bad", [0, 3])
def test_nothing_moves_after_a_fault_within_a_training(bad, monkeypatch):
    """In the second case the fault is in the second epoch: three minibatches an epoch hold 16 rows of 48 each."""
    agent = _agent("multi_head", combiner="imgrad", value_normalization="popart")
    seen, update = [], agent.update

    def watched(batch, jacobian):
        seen.append([value.clone() for value in _everything(agent)])
        poison = torch.nan if len(seen) == bad + 1 else 1.0
        return update(batch._replace(advantages=batch.advantages * poison), jacobian)

    watched.begin = update.begin
    monkeypatch.setattr(agent, "update", watched)
    with pytest.raises(NonFiniteError, match=rf"actor loss of task .* in minibatch 1 of epoch {bad // 3 + 1}"):
        agent.train()
    assert len(seen) == 6
    for before, after in zip(seen[bad], _everything(agent), strict=True):
        assert torch.equal(before, after)
    assert bad == 0 or not all(map(torch.equal, seen[0], seen[bad])), "the updates before the fault count"
    monkeypatch.undo()
    agent.train()
    assert not all(map(torch.equal, seen[bad], _everything(agent)))


def test_target_kl_stops_before_the_update_that_goes_too_far():
    agent = _agent()
    rollout = agent.rollout_buffer.rollout()
    agent.update.begin(_settings(target_kl=1e-3), rollout.returns)
    states, reports = [], []
    far = rollout._replace(log_probs=rollout.log_probs + 0.5)  # mean of r - 1 - log r: exp(-.5) - 1 + .5 = 0.107
    for batch in (rollout, far, rollout):
        reports.append(agent.update(batch))
        states.append([value.clone() for value in _everything(agent)])
    assert [bool(report.within_kl) for report in reports] == [True, True, False]
    assert float(reports[1].measures.approx_kl.mean()) == pytest.approx(0.107, abs=0.05)
    assert all(map(torch.equal, states[0], states[1])), "the update that goes too far is not made"
    assert all(map(torch.equal, states[0], states[2]))
    poisoned = rollout._replace(returns=rollout.returns * torch.nan)
    assert bool(agent.update(poisoned).finite), "what comes after the stop does not count"
    agent.update.begin(_settings(target_kl=1.0), rollout.returns)
    agent.update(far)
    assert not all(map(torch.equal, states[0], _everything(agent)))


def test_max_grad_norm_clips_each_network_on_its_own():
    agent = _agent("one_hot", max_grad_norm=1e-3, n_epochs=1, batch_size=K * STEPS * COPIES)
    networks = (agent.actor, agent.critic)
    for network in networks:
        network.optimizer = torch.optim.SGD(network.parameters(), lr=1.0)
    agent.lr_schedule = lambda _: 1.0
    before = [torch.nn.utils.parameters_to_vector(network.parameters()).clone() for network in networks]
    agent.train()
    for network, old in zip(networks, before, strict=True):
        moved = torch.nn.utils.parameters_to_vector(network.parameters()) - old
        assert float(moved.detach().norm()) == pytest.approx(1e-3, rel=1e-3)


class _NoLook(TorchDispatchMode):
    """Refuses what reads a tensor's value on the host."""

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        name = func.overloadpacket.__name__
        assert name not in ("_local_scalar_dense", "nonzero", "equal", "is_nonzero"), f"{name} reads a value"
        return func(*args, **(kwargs or {}))


@pytest.mark.parametrize("combiner", ["linear_scalarization", "pcgrad"])
def test_updates_read_no_value_on_the_host(combiner):
    """With combiners that solve nothing: the exact solvers look whether they are done, on CPU only."""
    agent = _agent(combiner=combiner, value_normalization="popart", max_grad_norm=0.5, target_kl=0.1)
    rollout = agent.rollout_buffer.rollout()
    with _NoLook():
        agent.update.begin(_settings(step=StepSettings(max_grad_norm=0.5), target_kl=0.1), rollout.returns)
        for batch in agent.rollout_buffer.minibatches(rollout, 16):
            agent.update(batch)
    with pytest.raises(AssertionError, match="reads a value"), _NoLook():
        float(rollout.returns[0, 0])


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
    runs = [_agent(encoder, combiner="imgrad", value_normalization="popart", trace=trace) for trace in (True, False)]
    assert all(map(torch.equal, *map(_everything, runs)))


def test_settings_are_read_at_each_training():
    agent = _agent("one_hot", trace=True)
    agent.clip_range_vf = lambda _: 1e-9
    agent.n_epochs = 1
    before = [p.detach().clone() for p in agent.critic.encoder.parameters()]
    agent.critic.optimizer = torch.optim.SGD(agent.critic.parameters(), lr=1.0)
    agent.rollout_buffer.values += 100.0  # no value is within its range: the clipped loss has no gradient
    agent.train()
    assert all(map(torch.equal, before, agent.critic.encoder.parameters()))
    assert agent.logger.name_to_value["train/clip_range_vf"] == pytest.approx(1e-9)


def test_a_rollout_must_be_complete():
    agent = MTPPO("MlpPolicy", make_vec_env("toy-reach"), n_steps=8)
    with pytest.raises(ArgumentError, match="0 of 8 steps"):
        agent.train()
    with pytest.raises(ArgumentError, match="multiple of the 3 task_names"):
        TaskRolloutBuffer(6, *_spaces(), n_envs=4, task_names=["a", "b", "c"])
