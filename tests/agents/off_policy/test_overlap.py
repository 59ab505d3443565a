"""Updates while the environments simulate: when they happen, what they see, and that nothing else changes."""

import gymnasium
import numpy as np
import pytest
from stable_baselines3.common.vec_env import DummyVecEnv

from mtrl_imgrad import MTSAC, MTTD3
from mtrl_imgrad.agents import MTCheckpointCallback
from mtrl_imgrad.envs import make_vec_env
from mtrl_imgrad.errors import ArgumentError, NonFiniteError

AGENTS = {"mtsac": MTSAC, "mttd3": MTTD3}
ENVS = 8
"""Four tasks, two environments each."""


def _agent(kind=MTSAC, **kwargs):
    env = make_vec_env("toy-reach", seed=0, num_envs_per_task=2)
    options = {"policy_kwargs": {"net_arch": [8]}, "batch_size": 16, "learning_starts": 3 * ENVS, "trace": False}
    return kind("MlpPolicy", env, seed=0, device="cpu", **{**options, "overlap": True, **kwargs})


@pytest.fixture
def events(monkeypatch):
    """What happened, in order: sent, received, and updates with the vector steps in the replay then."""
    happened = []

    def watch(owner, name, event):
        before = getattr(owner, name)

        def call(self, *args, **kwargs):
            happened.append(event(self))
            return before(self, *args, **kwargs)

        monkeypatch.setattr(owner, name, call)

    toy = type(make_vec_env("toy-reach", seed=0))
    watch(toy, "step_async", lambda env: "send")
    watch(toy, "step_wait", lambda env: "receive")
    watch(MTSAC, "_update_once", lambda agent: agent.replay_buffer.size())
    return happened


def test_updates_are_made_between_sending_and_receiving(events):
    _agent(gradient_steps=2).learn(6 * ENVS)
    # As in SB3 the first training follows the step that exceeds learning_starts; it lacks that step's transitions.
    step = ["send", "receive"]
    assert events == step * 3 + ["send", 3, 3, "receive", "send", 4, 4, "receive", "send", 5, 5, "receive"]


def test_a_rollout_of_several_steps_updates_during_its_first(events):
    _agent(train_freq=2, gradient_steps=1, learning_starts=0).learn(6 * ENVS)
    rollout = ["receive", "send", "receive"]
    assert events == ["send", *rollout, 2, "send", 2, *rollout, "send", 4, *rollout]


@pytest.mark.parametrize(
    "options", [{"gradient_steps": -1, "train_freq": 2}, {"gradient_steps": 3}, {"gradient_steps": 0}]
)
def test_there_are_as_many_updates_as_without(options):
    agents = [_agent(overlap=overlap, **options).learn(6 * ENVS) for overlap in (False, True)]
    assert agents[0]._n_updates == agents[1]._n_updates


@pytest.mark.parametrize("kind", AGENTS)
def test_a_resumed_run_is_the_same_run(kind, tmp_path):
    whole = _agent(AGENTS[kind]).learn(12 * ENVS, MTCheckpointCallback(6, tmp_path))
    sequential = _agent(AGENTS[kind], overlap=False).learn(12 * ENVS)
    half = AGENTS[kind].load_checkpoint(
        tmp_path / f"step_{6 * ENVS:012d}", make_vec_env("toy-reach", seed=0, num_envs_per_task=2), device="cpu"
    )
    assert half.overlap
    half.learn(12 * ENVS - half.num_timesteps, reset_num_timesteps=False)
    assert np.array_equal(whole.policy.parameters_to_vector(), half.policy.parameters_to_vector())
    assert not np.array_equal(whole.policy.parameters_to_vector(), sequential.policy.parameters_to_vector())


def test_a_stop_by_a_callback_leaves_the_next_training_alone():
    agent = _agent(learning_starts=0)
    agent.learn(4 * ENVS, callback=lambda local, _: local["self"].num_timesteps < 3 * ENVS)
    before = agent._n_updates
    agent.train(1)
    assert agent._n_updates == before + 1


def test_an_update_that_is_refused_leaves_no_step_under_way(monkeypatch):
    agent = _agent(learning_starts=0)
    agent.learn(3 * ENVS)

    def refuse(*args):
        raise NonFiniteError("refused")

    with monkeypatch.context() as patched:
        patched.setattr(agent, "_update_once", refuse)
        with pytest.raises(NonFiniteError, match="refused"):
            agent.learn(3 * ENVS, reset_num_timesteps=False)
    before = agent._n_updates
    agent.learn(3 * ENVS, reset_num_timesteps=False)
    assert agent._n_updates > before


def test_episodes_cannot_be_overlapped():
    env = DummyVecEnv([lambda: gymnasium.make("Pendulum-v1")])
    with pytest.raises(ArgumentError, match="overlap=True needs a train_freq that counts steps, got 'episode'"):
        MTSAC("MlpPolicy", env, train_freq=(1, "episode"), overlap=True)
