"""PopArt: statistics against the written-out average, predictions that do not notice, and what it is for."""

import numpy as np
import pytest
import torch

from mtrl_imgrad.agents import MTPPO
from mtrl_imgrad.agents.encoders import list_encoders
from mtrl_imgrad.agents.ppo.popart import PopArt
from mtrl_imgrad.envs import make_vec_env
from mtrl_imgrad.errors import ArgumentError

K = 4


def _agent(encoder="multi_head", **kwargs):
    return MTPPO(
        "MlpPolicy",
        make_vec_env("toy-reach", seed=0),
        n_steps=32,
        n_epochs=1,
        policy_kwargs={"net_arch": [16], "encoder": encoder},
        seed=0,
        device="cpu",
        **{"value_normalization": "popart", "trace": False, **kwargs},
    )


def _targets(generator, rows=50):
    return torch.tensor(generator.normal(5.0, 2.0, (K, rows))) * torch.tensor([[1e-2], [1.0], [30.0], [1e4]])


@pytest.mark.parametrize("encoder", list_encoders())
def test_predictions_do_not_notice_new_statistics(encoder):
    critic = _agent(encoder).critic
    generator = np.random.default_rng(0)
    critic.popart.update(_targets(generator))
    observations = torch.tensor(make_vec_env("toy-reach", seed=1, num_envs_per_task=8).reset())
    for step in range(4):
        before = critic.values(observations)
        critic.popart.update(_targets(generator) + 100 * step)
        scale = critic.popart.std.repeat_interleave(8) + critic.popart.mean.abs().repeat_interleave(8)
        error = (critic.values(observations) - before).abs() / scale
        assert float(error.detach().max()) < 1e-6
        before_in_learned_unit = critic(observations)
    critic.popart.update(_targets(generator) - 500)
    assert not torch.allclose(critic(observations), before_in_learned_unit, rtol=0.1), "nothing was rescaled"


def test_predictions_do_not_notice_in_float64():
    critic = _agent().critic.double()
    critic.popart.update(torch.ones(K, 5))
    observations = torch.tensor(make_vec_env("toy-reach", seed=1).reset(), dtype=torch.float64)
    before = critic.values(observations)
    critic.popart.update(_targets(np.random.default_rng(1)))
    torch.testing.assert_close(critic.values(observations), before, rtol=1e-12, atol=1e-12)


def test_statistics_are_the_written_out_averages():
    """Bias-corrected averages of first and second moments, a rollout of N counting as N steps of beta."""
    beta, rows = 0.01, 50
    popart = PopArt(K, beta=beta)
    generator = np.random.default_rng(2)
    first, second, total = np.zeros(K), np.zeros(K), 0.0
    keep = (1 - beta) ** rows
    for _ in range(5):
        targets = _targets(generator, rows)
        popart.update(targets)
        first = keep * first + (1 - keep) * targets.numpy().mean(1)
        second = keep * second + (1 - keep) * (targets.numpy() ** 2).mean(1)
        total = keep * total + (1 - keep)
        mean = first / total
        np.testing.assert_allclose(popart.mean.numpy(), mean, rtol=1e-10)
        np.testing.assert_allclose(popart.std.numpy(), np.sqrt(second / total - mean**2), rtol=1e-8)
    normal = popart.normalize(targets)
    np.testing.assert_allclose(normal.numpy(), (targets.numpy() - mean[:, None]) / popart.std.numpy()[:, None])
    task = torch.eye(K)[[2, 0]]
    restored = popart.denormalize(normal[[2, 0], 0], task)
    torch.testing.assert_close(restored, targets[[2, 0], 0], rtol=1e-9, atol=1e-9)


def test_the_first_targets_set_the_statistics_and_equal_ones_meet_the_bound():
    popart = PopArt(2, min_std=1e-4)
    popart.update(torch.tensor([[7.0, 7.0, 7.0], [1.0, 2.0, 3.0]]))
    assert popart.mean.tolist() == pytest.approx([7.0, 2.0])
    assert popart.std.tolist() == pytest.approx([1e-4, np.sqrt(2 / 3)])
    assert popart.scale.tolist() == [1.0, 1.0], "an untrained network's predictions are not worth keeping"
    assert popart.shift.tolist() == [0.0, 0.0]


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
def test_targets_that_are_not_finite_move_nothing(bad):
    popart = PopArt(2)
    popart.update(torch.tensor([[1.0, 2.0], [3.0, 5.0]]))
    before = {name: value.clone() for name, value in popart.state_dict().items()}
    popart.update(torch.tensor([[1.0, bad], [0.0, 0.0]]))
    for name, value in popart.state_dict().items():
        torch.testing.assert_close(value, before[name], rtol=1e-7, atol=0, msg=name)
    popart.update(torch.tensor([[0.0, 9.0], [0.0, 0.0]]))
    assert not torch.equal(popart.mean, before["mean"])


def test_it_balances_the_critics_gradients():
    """Rewards are a thousand times apart, and so are the plain critic's gradients."""
    norms = {}
    for kind in (None, "popart"):
        agent = _agent("one_hot", value_normalization=kind, combiner="imgrad").learn(K * 32)
        found = agent.last_combinations["critic"].diagnostics["norms"]
        norms[kind] = float(found.max() / found.min())
    assert norms["popart"] < 10
    assert norms[None] > 300


def test_a_training_takes_the_returns_in_once():
    agent = _agent().learn(K * 32 * 2)
    mean, buffer = agent.critic.popart.mean.clone(), agent.rollout_buffer
    agent.n_epochs = 3
    agent.train()
    rate = 1 - (1 - 3e-4) ** 32
    weight = rate / (1 - (1 - rate) ** 3)
    returns = buffer.task_major(buffer.returns).astype(float).mean(1)
    expected = (1 - weight) * mean.numpy() + weight * returns
    np.testing.assert_allclose(agent.critic.popart.mean.numpy(), expected, rtol=1e-5)


def test_statistics_are_saved(tmp_path):
    agent = _agent(value_normalization_kwargs={"beta": 0.1}).learn(K * 32 * 2)
    agent.save(tmp_path / "agent")
    loaded = MTPPO.load(tmp_path / "agent")
    assert loaded.critic.popart.beta == 0.1
    for name, value in agent.critic.popart.state_dict().items():
        assert torch.equal(loaded.critic.popart.state_dict()[name], value), name
    assert not torch.equal(loaded.critic.popart.mean, torch.zeros(K, dtype=torch.float64))


@pytest.mark.parametrize(
    ("kwargs", "says"),
    [
        ({"value_normalization_kwargs": {"beta": 0.0}}, "beta"),
        ({"value_normalization_kwargs": {"min_std": 0.0}}, "min_std"),
        ({"value_normalization_kwargs": {"decay": 0.1}}, "value_normalization_kwargs takes no 'decay'"),
    ],
)
def test_bad_arguments(kwargs, says):
    with pytest.raises(ArgumentError, match=says):
        _agent(**kwargs)
    with pytest.raises(ArgumentError, match="value_normalization='popart'"):
        MTPPO("MlpPolicy", make_vec_env("toy-reach"), value_normalization_kwargs={"beta": 0.1})
