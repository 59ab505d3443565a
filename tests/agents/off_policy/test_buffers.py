"""The replay: rings by task, balanced and uniform draws, raw rewards, its own generator."""

import numpy as np
import pytest
import torch
from gymnasium import spaces

from mtrl_imgrad.agents.off_policy.buffer import TaskReplayBuffer
from mtrl_imgrad.errors import ArgumentError, NonFiniteError

TASKS, COPIES = 3, 2
ENVS = TASKS * COPIES
NAMES = ["a", "b", "c"]
OBSERVATION = spaces.Box(-np.inf, np.inf, (2,), np.float32)
ACTION = spaces.Box(-1, 1, (1,), np.float32)


def _buffer(capacity=50, **kwargs):
    return TaskReplayBuffer(capacity * ENVS, OBSERVATION, ACTION, "cpu", ENVS, task_names=NAMES, **kwargs)


def _fill(buffer, steps, reward=lambda task, step: step, done=False, infos=None):
    """Observation (env, step); next observation (env, step + 1)."""
    envs = np.arange(ENVS)
    for step in range(steps):
        obs = np.stack([envs, np.full(ENVS, step)], 1).astype(np.float32)
        rewards = np.array([reward(env // COPIES, step) for env in envs], np.float32)
        buffer.add(
            obs,
            obs + np.array([0, 1]),
            np.full((ENVS, 1), 0.5),
            rewards,
            np.full(ENVS, done),
            infos or [{} for _ in envs],
        )


def test_a_batch_is_task_major_and_rows_stay_together():
    buffer = _buffer()
    _fill(buffer, 30)
    batch = buffer.sample(TASKS * 64)
    assert batch.observations.shape == (TASKS, 64, 2)
    assert batch.rewards.shape == (TASKS, 64)
    envs, steps = batch.observations.unbind(-1)
    for task in range(TASKS):
        assert set(envs[task].int().tolist()) == {2 * task, 2 * task + 1}
    assert torch.equal(batch.next_observations[..., 1], steps + 1)
    assert torch.equal(batch.rewards, steps)
    assert torch.equal(batch.weights, torch.full((TASKS, 64), 1 / 64))


def test_the_ring_forgets_the_oldest_and_never_returns_unwritten_rows():
    buffer = _buffer(capacity=10)
    _fill(buffer, 4)
    assert buffer.size() == 4
    assert not buffer.full
    assert buffer.sample(TASKS * 200).observations[..., 1].max() == 3
    _fill(buffer, 25)
    assert buffer.full
    assert buffer.size() == 10
    steps = buffer.sample(TASKS * 500).observations[..., 1]
    assert set(steps.int().flatten().tolist()) == set(range(15, 25))


def test_balanced_sampling_is_uniform_within_a_task():
    buffer = _buffer(capacity=10)
    _fill(buffer, 10)
    steps = buffer.sample(TASKS * 20_000).observations[0, :, 1].long()
    counts = torch.bincount(steps, minlength=10).double()
    chi_square = float(((counts - 2000) ** 2 / 2000).sum())
    assert chi_square < 27.9, "p < 0.001 with 9 degrees of freedom"


def test_uniform_sampling_weights_make_the_mean_over_the_rows_drawn():
    buffer = _buffer(sampling="uniform")
    _fill(buffer, 30)
    batch = buffer.sample(64)
    used = batch.weights > 0
    assert int(used.sum()) == 64
    counts = used.sum(1)
    assert len(set(counts.tolist())) > 1, "a uniform draw is hardly ever balanced"
    mean_of_task_losses = (batch.weights * batch.rewards).sum(1).mean()
    torch.testing.assert_close(mean_of_task_losses, batch.rewards[used].mean())
    shapes = {tuple(buffer.sample(64).weights.shape) for _ in range(20)}
    assert len(shapes) == 1, "shapes must not depend on the draw"


def test_rewards_are_stored_raw_and_normalised_when_sampled():
    generator = np.random.default_rng(0)
    noise = generator.normal(size=(40, TASKS))
    buffer = _buffer(reward_normalization="std")
    _fill(buffer, 20, reward=lambda task, step: 10.0**task * noise[step, task])
    first = buffer._rows.clone()
    _fill(buffer, 20, reward=lambda task, step: 10.0**task * noise[20 + step, task])
    assert torch.equal(buffer._rows[:20], first[:20])
    expected = (10.0 ** np.arange(TASKS)) * noise.std(0)
    np.testing.assert_allclose(buffer._moments.std().numpy(), expected, rtol=1e-6)
    sampled = buffer.sample(TASKS * 4000).rewards
    np.testing.assert_allclose(sampled.std(1), 1.0, rtol=0.05)


def test_constant_rewards_are_left_alone():
    buffer = _buffer(reward_normalization="std")
    _fill(buffer, 5, reward=lambda task, step: 3.0)
    assert torch.equal(buffer.sample(TASKS).rewards, torch.full((TASKS, 1), 3.0))


@pytest.mark.parametrize(("cut", "expected"), [(True, 0.0), (False, 1.0)])
def test_values_are_bootstrapped_through_time_limits_only(cut, expected):
    buffer = _buffer()
    _fill(buffer, 3, done=True, infos=[{"TimeLimit.truncated": cut} for _ in range(ENVS)])
    assert torch.equal(buffer.sample(TASKS * 2).terminated, torch.full((TASKS, 2), expected))


def test_its_own_generator_determines_the_draws():
    buffers = [_buffer(seed=seed) for seed in (1, 1, 2)]
    draws = []
    for i, buffer in enumerate(buffers):
        _fill(buffer, 40)
        torch.manual_seed(i)
        np.random.seed(i)  # noqa: NPY002
        draws.append(buffer.sample(TASKS * 16).observations)
    assert torch.equal(draws[0], draws[1])
    assert not torch.equal(draws[0], draws[2])


@pytest.mark.parametrize("field", ["observation", "reward", "action"])
def test_non_finite_input_is_refused_and_nothing_is_stored(field):
    buffer = _buffer()
    obs, action, reward = np.zeros((ENVS, 2), np.float32), np.zeros((ENVS, 1)), np.zeros(ENVS)
    {"observation": obs, "reward": reward, "action": action}[field][4] = np.inf
    with pytest.raises(NonFiniteError, match=rf"{field} of env 4 \(task 'c'\)"):
        buffer.add(obs, obs, action, reward, np.zeros(ENVS), [{} for _ in range(ENVS)])
    assert buffer.size() == 0


def test_bad_arguments():
    with pytest.raises(ArgumentError, match="empty"):
        _buffer().sample(6)
    buffer = _buffer()
    _fill(buffer, 2)
    with pytest.raises(ArgumentError, match="multiple of 3"):
        buffer.sample(7)
    with pytest.raises(ArgumentError, match="task_names"):
        TaskReplayBuffer(100, OBSERVATION, ACTION, "cpu", 5, task_names=["a", "b"])
    with pytest.raises(ArgumentError, match="optimize_memory_usage"):
        _buffer(optimize_memory_usage=True)
