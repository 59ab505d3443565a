"""Agents that meet a NaN in one task's gradient: they raise, skip the step, or make it without the task."""

import copy

import numpy as np
import pytest
import torch

from mtrl_imgrad.agents import MTPPO, MTSAC, GradientDiagnosticsCallback
from mtrl_imgrad.agents.sac.update import Noise
from mtrl_imgrad.checkpoints.format import read_checkpoint
from mtrl_imgrad.envs import make_vec_env
from mtrl_imgrad.errors import ArgumentError, NonFiniteError
from mtrl_imgrad.gradients import split_parameters

pytestmark = pytest.mark.faults

LOST = 2
SMALL = {"net_arch": [8, 8]}
KINDS = {
    "mtsac": (MTSAC, {"learning_starts": 40, "batch_size": 16, "buffer_size": 400}),
    "mtppo": (MTPPO, {"n_steps": 16, "batch_size": 16, "n_epochs": 2}),
}


def _agent(kind="mtsac", **kwargs):
    cls, settings = KINDS[kind]
    options = {"policy_kwargs": SMALL, "seed": 0, "device": "cpu", "trace": False, **settings, **kwargs}
    return cls("MlpPolicy", make_vec_env("toy-reach", seed=0), **options)


def _break_rewards(agent, monkeypatch, tasks=(LOST,), times=(1,)):
    """NaN in what some batches tell of some tasks: of the critics, and with MTPPO of the actor."""
    calls = iter(range(10**6))

    def broken(batch):
        if next(calls) not in times:
            return batch
        spoil = torch.zeros(agent.num_tasks, 1)
        spoil[list(tasks)] = torch.nan
        if isinstance(agent, MTSAC):
            return batch._replace(rewards=batch.rewards + spoil)
        return batch._replace(returns=batch.returns + spoil, advantages=batch.advantages + spoil)

    if isinstance(agent, MTSAC):
        sample = agent.replay_buffer.sample
        monkeypatch.setattr(agent.replay_buffer, "sample", lambda *args, **kwargs: broken(sample(*args, **kwargs)))
    else:
        minibatches = agent._minibatches
        monkeypatch.setattr(agent, "_minibatches", lambda rollout: map(broken, minibatches(rollout)))
    return agent


def _is_finite(agent):
    parts = [*agent.policy.parameters(), *agent.critic.optimizer.state_dict()["state"].values()]
    tensors = [value for part in parts for value in (part.values() if isinstance(part, dict) else [part])]
    return all(bool(tensor.isfinite().all()) for tensor in tensors)


@pytest.mark.parametrize("kind", KINDS)
def test_the_default_is_an_error_that_names_the_task(kind, monkeypatch):
    agent = _break_rewards(_agent(kind), monkeypatch)
    with pytest.raises(NonFiniteError, match=rf"critic loss of task '{agent.task_names[LOST]}' is nan .*drop_task"):
        agent.learn(80)
    assert _is_finite(agent)


@pytest.mark.parametrize(
    ("kind", "on_nonfinite", "combiner", "kwargs"),
    [
        ("mtsac", "skip", "imgrad", {}),
        ("mtsac", "drop_task", "famo", {"lower_bound": -1e4}),
        ("mtppo", "skip", "moco", {}),
        ("mtppo", "drop_task", "famo", {"lower_bound": -1e4}),
    ],
)
def test_learning_goes_on_and_the_log_counts(kind, on_nonfinite, combiner, kwargs, monkeypatch):
    agent = _agent(kind, on_nonfinite=on_nonfinite, combiner=combiner, combiner_kwargs=kwargs)
    _break_rewards(agent, monkeypatch, times=(1, 3))
    with pytest.warns(
        UserWarning, match=rf"critic, update \d: a loss or gradient of '{agent.task_names[LOST]}' is NaN"
    ):
        agent.learn(80, callback=GradientDiagnosticsCallback(log_freq=1))
    assert _is_finite(agent)
    networks = 1 if kind == "mtsac" else 2
    logged = agent.logger.name_to_value
    assert logged["train/non_finite"] == 2 * networks
    assert logged[f"train/non_finite/{agent.task_names[LOST]}"] == 2 * networks
    assert logged[f"train/non_finite/{agent.task_names[0]}"] == 0
    assert logged["train/skipped_steps"] == (2 * networks if on_nonfinite == "skip" else 0)
    losses = [value for name, value in logged.items() if name.startswith("train/") and "loss" in name]
    assert losses
    assert np.isfinite(losses).all()


@pytest.mark.parametrize("kind", KINDS)
def test_counts_are_saved(kind, monkeypatch, tmp_path):
    agent = _break_rewards(_agent(kind, on_nonfinite="skip"), monkeypatch)
    with pytest.warns(UserWarning, match="it was skipped"):
        agent.learn(80)
    counts = agent.non_finite.get_state()
    assert sum(counts["tasks"].values()) > 0
    agent.save_checkpoint(tmp_path / "it")
    assert read_checkpoint(tmp_path / "it")["progress"]["non_finite"] == counts
    loaded = type(agent).load_checkpoint(tmp_path / "it", make_vec_env("toy-reach", seed=0), device="cpu")
    assert loaded.on_nonfinite == "skip"
    assert loaded.non_finite.get_state() == counts


def _update(agent, batch, lost=None, network="rewards", seed=0):
    """One update of SAC by hand; ``lost`` tasks have NaN in the given column."""
    generator = torch.Generator().manual_seed(seed)
    noise = [torch.randn(batch.actions.shape, generator=generator) for _ in range(2)]
    if lost is not None and network == "noise":  # which only the actor meets
        noise[0][lost] = torch.nan
    elif lost is not None:
        column = getattr(batch, network).clone()
        column[lost] = torch.nan
        batch = batch._replace(**{network: column})
    agent.update.begin(agent._settings())
    return agent.update(batch, Noise(*noise))


def _trained(**kwargs):
    agent = _agent(**kwargs)
    agent.learn(60)
    return agent, agent.replay_buffer.sample(agent.batch_size)


def _parameters(network):
    return torch.cat([parameter.detach().flatten() for parameter in network.parameters()]).clone()


@pytest.mark.parametrize("column", ["rewards", "noise"])
def test_a_skipped_step_leaves_its_network_alone(column):
    agent, batch = _trained(on_nonfinite="skip", combiner="gradvac")
    hit, other = (agent.critic, agent.actor) if column == "rewards" else (agent.actor, agent.critic)
    combiner = agent.critic_combiner if column == "rewards" else agent.actor_combiner
    before, beside, temperatures = _parameters(hit), _parameters(other), agent.log_ent_coef.detach().clone()
    moments, state = copy.deepcopy(hit.optimizer.state_dict()["state"]), repr(combiner.state_dict())
    report = _update(agent, batch, LOST, column)
    assert bool(report.finite), "nothing that is not forgiven"
    torch.testing.assert_close(_parameters(hit), before, rtol=0, atol=0)
    assert repr(hit.optimizer.state_dict()["state"]) == repr(moments)
    assert repr(combiner.state_dict()) == state
    assert not torch.equal(_parameters(other), beside)
    assert torch.equal(agent.log_ent_coef.detach(), temperatures) == (column == "noise")


@pytest.mark.parametrize("column", ["rewards", "noise"])
@pytest.mark.parametrize("ent_coef", ["auto", "shared"])
def test_the_others_step_as_if_they_were_alone(ent_coef, column):
    """Under linear scalarization: their mean, 4/3 of what the four give where the lost one's rows weigh nothing."""
    ours, batch = _trained(on_nonfinite="drop_task", combiner="linear_scalarization", ent_coef=ent_coef)
    for group in ours.critic.optimizer.param_groups:
        group["lr"] = 0.0  # so that both actors meet the same critic
    theirs = copy.deepcopy(ours)
    report = _update(ours, batch, LOST, column)
    weights = batch.weights.clone()
    weights[LOST] = 0
    _update(theirs, batch._replace(weights=weights))
    dropped, network = (report.critic, "critic") if column == "rewards" else (report.actor, "actor")
    assert dropped.non_finite == (LOST,)
    assert dropped.weights.tolist() == pytest.approx([1 / 3, 1 / 3, 0, 1 / 3])
    mine, plain = (dict(getattr(agent, network).named_parameters()) for agent in (ours, theirs))
    kinds = split_parameters(getattr(ours, network))
    assert kinds.shared
    assert kinds.task_specific
    for name in kinds.shared:
        torch.testing.assert_close(mine[name].grad, 4 / 3 * plain[name].grad)
    for name in kinds.task_specific:
        torch.testing.assert_close(mine[name].grad, plain[name].grad)
        assert not mine[name].grad[LOST].any()
    if column == "noise":
        factor = 1 if ent_coef == "auto" else 4 / 3
        torch.testing.assert_close(ours.log_ent_coef.grad, factor * theirs.log_ent_coef.grad)


def test_arguments():
    with pytest.raises(ArgumentError, match="on_nonfinite must be one of 'raise', 'skip', 'drop_task', got 'ignore'"):
        _agent(on_nonfinite="ignore")
    with pytest.raises(ArgumentError, match="on_nonfinite='drop_task' does not go with igb_v2"):
        _agent("mtppo", on_nonfinite="drop_task", combiner={"actor": "igb_v2", "critic": "cagrad"})
