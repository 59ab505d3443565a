import json

import gymnasium as gym
import numpy as np
import pytest
import torch

from mtrl_imgrad.agents import MTPPO, MTSAC, MTTD3
from mtrl_imgrad.agents.encoders import list_encoders
from mtrl_imgrad.envs import make_vec_env
from mtrl_imgrad.errors import ArgumentError, MissingDependencyError

onnxruntime = pytest.importorskip("onnxruntime")


def make(kind, env, encoder="multi_head", **policy_kwargs):
    options = {"trace": False} if kind is not MTPPO else {"n_steps": 8}
    return kind(
        "MlpPolicy", env, seed=0, device="cpu", policy_kwargs=dict(net_arch=[8, 8], encoder=encoder, **policy_kwargs),
        **options,
    )  # fmt: skip


def session(path):
    return onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])


def assert_acts_as_predict(agent, path, rows=9):
    """On states far and near, for tasks in any order, and for any number of rows."""
    tasks = agent.num_tasks
    width = agent.observation_space.shape[0] - tasks
    for count in (1, rows):
        state = np.random.default_rng(count).normal(size=(count, width)).astype(np.float32) * 3
        task = np.arange(count)[::-1] % tasks
        found = session(path).run(["action"], {"state": state, "task": task})[0]
        observation = np.concatenate([state, np.eye(tasks, dtype=np.float32)[task]], axis=1)
        wanted = agent.predict(observation, deterministic=True)[0]
        assert found.shape == wanted.shape
        np.testing.assert_allclose(found, wanted, rtol=0, atol=1e-5 * np.abs(agent.action_space.high).max())


KINDS = (MTSAC, MTPPO, MTTD3)


@pytest.mark.parametrize(
    ("kind", "encoder"),
    [
        pytest.param(kind, encoder, marks=() if i % len(KINDS) == j else pytest.mark.slow)
        for i, encoder in enumerate(list_encoders())
        for j, kind in enumerate(KINDS)
    ],
)
def test_every_encoder_acts_as_predict(tmp_path, kind, encoder):
    agent = make(kind, make_vec_env("toy-reach", seed=0), encoder)
    path = agent.export(tmp_path / "new" / "policy.onnx")
    assert_acts_as_predict(agent, str(path))


class Wide(gym.Env):
    """Actions in other units than (-1, 1)."""

    observation_space = gym.spaces.Box(-1, 1, (3,), np.float32)
    action_space = gym.spaces.Box(np.array([-5.0, 0.0], np.float32), np.array([-1.0, 0.02], np.float32))

    def reset(self, *, seed=None, options=None):
        super().reset(seed=seed)
        return np.zeros(3, np.float32), {}

    def step(self, action):
        return np.zeros(3, np.float32), 0.0, False, False, {}


@pytest.mark.parametrize("kind", [MTSAC, MTPPO, MTTD3])
def test_actions_are_in_the_environments_units(tmp_path, kind):
    env = make_vec_env({"a": Wide, "b": Wide}, horizon=5)
    agent = make(kind, env)
    with torch.no_grad():  # large outputs, which PPO's clipping must cut
        for parameter in agent.policy.actor.parameters():
            parameter.mul_(3)
    path = str(agent.export(tmp_path / "policy.onnx"))
    assert_acts_as_predict(agent, path)
    state = np.random.default_rng(0).normal(size=(50, 3)).astype(np.float32)
    actions = session(path).run(None, {"state": state, "task": np.arange(50) % 2})[0]
    assert (actions >= Wide.action_space.low - 1e-5).all()
    assert (actions <= Wide.action_space.high + 1e-5).all()
    assert np.ptp(actions, axis=0)[0] > 0.1


def test_the_file_names_the_tasks_and_leaves_the_agent_as_it_was(tmp_path):
    agent = make(MTSAC, make_vec_env("toy-reach", seed=0), dropout=0.5)
    before = {name: value.clone() for name, value in agent.policy.state_dict().items()}
    agent.policy.set_training_mode(True)
    path = str(agent.export(tmp_path / "policy.onnx"))
    assert agent.policy.actor.training
    assert all(torch.equal(value, before[name]) for name, value in agent.policy.state_dict().items())
    meta = session(path).get_modelmeta().custom_metadata_map
    assert json.loads(meta["task_names"]) == agent.task_names
    assert_acts_as_predict(agent, path)


def test_an_agent_that_does_not_see_the_task_takes_the_state_alone(tmp_path):
    agent = make(MTSAC, make_vec_env("toy-reach/left", seed=0, one_hot=False), "one_hot")
    found = session(str(agent.export(tmp_path / "policy.onnx")))
    assert [one.name for one in found.get_inputs()] == ["state"]
    state = np.random.default_rng(0).normal(size=(3, 4)).astype(np.float32)
    np.testing.assert_allclose(
        found.run(None, {"state": state})[0], agent.predict(state, deterministic=True)[0], atol=1e-5
    )


def test_a_wrong_ending_and_a_missing_package_are_said(tmp_path, monkeypatch):
    agent = make(MTSAC, make_vec_env("toy-reach", seed=0))
    with pytest.raises(ArgumentError, match=r"path must end in \.onnx"):
        agent.export(tmp_path / "policy.zip")
    monkeypatch.setitem(__import__("sys").modules, "onnx", None)
    with pytest.raises(MissingDependencyError, match=r"mtrl-imgrad\[export\]"):
        agent.export(tmp_path / "policy.onnx")
