"""A trained SB3 SAC goes on as MTSAC: the same predictions, the same updates, and nothing of its file is unpickled."""

from __future__ import annotations

import base64
import io
import json
import pickle
import zipfile

import numpy as np
import pytest
import torch
from stable_baselines3 import SAC
from stable_baselines3.common.noise import NormalActionNoise
from stable_baselines3.common.utils import LinearSchedule

from mtrl_imgrad.agents import MTSAC
from mtrl_imgrad.envs import make_vec_env
from mtrl_imgrad.errors import ArgumentError, CheckpointError, TaskMismatchError
from tests.agents.sac.test_sac_equivalence import _layers_of_ours, _layers_of_sb3, _SameBatches

ROWS, UPDATES = 16, 12
BEFORE = 12
COMMON = {"learning_starts": 0, "batch_size": ROWS, "buffer_size": 500, "seed": 0, "device": "cpu"}


def _env(**options):
    return make_vec_env(["toy-reach/left"], seed=3, **{"one_hot": False, **options})


def _trained(tmp_path, steps=BEFORE, **options):
    policy_kwargs = {"net_arch": [12, 8], **options.pop("policy_kwargs", {})}
    agent = SAC("MlpPolicy", _env(), policy_kwargs=policy_kwargs, **{**COMMON, **options}).learn(steps)
    agent.save(tmp_path / "sac")
    return agent, tmp_path / "sac"


@pytest.fixture(scope="module")
def sac(tmp_path_factory):
    """An agent of SB3 that has learned, and its file: tests leave both as they are."""
    return _trained(tmp_path_factory.mktemp("sac"))


def _taken_over(path, env=None, **arguments):
    return MTSAC.from_sb3(path, env or _env(), device="cpu", trace=False, **arguments)


@pytest.mark.parametrize(
    ("options", "given"),
    [
        ({}, {}),
        ({"ent_coef": "auto_0.1", "gamma": 0.9, "tau": 0.02, "learning_rate": 1e-3, "target_update_interval": 2}, {}),
        ({"ent_coef": 0.2, "policy_kwargs": {"net_arch": {"pi": [6], "qf": [10, 4]}, "n_critics": 3}}, {}),
        ({"policy_kwargs": {"activation_fn": torch.nn.Tanh}}, {"policy_kwargs": {"activation_fn": torch.nn.Tanh}}),
        ({"policy_kwargs": {"optimizer_kwargs": {"eps": 1e-5, "weight_decay": 1e-3}}}, {}),
    ],
)
def test_it_goes_on_as_sb3_would(options, given, tmp_path, monkeypatch):
    theirs, path = _trained(tmp_path, **options)
    ours = _taken_over(path, **given)
    observations = np.random.default_rng(0).uniform(-1, 1, (20, 4)).astype(np.float32)
    predicted, expected = (agent.predict(observations, deterministic=True)[0] for agent in (ours, theirs))
    np.testing.assert_allclose(predicted, expected, rtol=1e-5, atol=1e-6)
    assert (ours.num_timesteps, ours._n_updates) == (theirs.num_timesteps, theirs._n_updates) == (BEFORE, BEFORE)

    filled = MTSAC("MlpPolicy", _env(), gradient_steps=0, **COMMON).learn(50)
    ours.replay_buffer = filled.replay_buffer
    ours.set_logger(filled.logger)
    theirs.set_logger(filled.logger)
    state = ours.replay_buffer.generator.get_state()
    monkeypatch.setattr(ours, "_draw_noise", lambda like: torch.normal(torch.zeros_like(like), 1.0))
    before = [parameter.clone() for parameter in ours.actor.parameters()]
    torch.manual_seed(5)
    ours.train(UPDATES)
    ours.replay_buffer.generator.set_state(state)
    torch.manual_seed(5)
    theirs.replay_buffer = _SameBatches(ours.replay_buffer)
    theirs.train(UPDATES, ROWS)
    for a, b in zip(_layers_of_sb3(theirs), _layers_of_ours(ours), strict=True):
        for expected_value, found in zip(a, b, strict=True):
            torch.testing.assert_close(found, expected_value, rtol=1e-4, atol=2e-6)
    if ours.ent_coef_optimizer is not None:
        torch.testing.assert_close(ours.log_ent_coef, theirs.log_ent_coef, rtol=1e-5, atol=1e-6)
    assert not any(torch.equal(x, y) for x, y in zip(before, ours.actor.parameters(), strict=True))


def test_it_learns_on_in_the_environment(sac, tmp_path):
    _, path = sac
    agent = _taken_over(path).learn(30, reset_num_timesteps=False)
    assert agent.num_timesteps == BEFORE + 30
    agent.save_checkpoint(tmp_path / "checkpoint")
    assert MTSAC.load_checkpoint(tmp_path / "checkpoint", _env(), device="cpu").num_timesteps == BEFORE + 30


def test_one_that_never_learned(tmp_path):
    theirs, path = _trained(tmp_path, steps=5, learning_starts=100)
    ours = _taken_over(f"{path}.zip")
    assert not ours.actor.optimizer.state
    assert torch.equal(_layers_of_ours(ours)[1][0], _layers_of_sb3(theirs)[1][0])


@pytest.mark.parametrize(
    ("options", "given", "match"),
    [
        ({"learning_rate": LinearSchedule(1e-3, 1e-4, 1.0)}, {"learning_rate": 1e-4}, "give learning_rate="),
        ({"train_freq": (2, "step")}, {"train_freq": 2}, "give train_freq="),
        ({"policy_kwargs": {"activation_fn": torch.nn.ELU}}, None, "give policy_kwargs=dict"),
        ({"use_sde": True}, None, "use_sde"),
        ({"action_noise": NormalActionNoise(np.zeros(2), np.ones(2))}, None, "action_noise"),
        ({"policy_kwargs": {"optimizer_class": torch.optim.RMSprop}}, None, "optimizer_class"),
        ({"policy_kwargs": {"log_std_init": -2}}, None, "log_std_init"),
    ],
)
def test_what_does_not_fit_is_named(options, given, match, tmp_path):
    _, path = _trained(tmp_path, **options)
    with pytest.raises(ArgumentError, match=match):
        _taken_over(path)
    if given is not None:
        _taken_over(path, **given)


def test_the_network_is_that_of_the_file(sac):
    _, path = sac
    with pytest.raises(ArgumentError, match="can only hold activation_fn and optimizer_kwargs here, got encoder"):
        _taken_over(path, policy_kwargs={"encoder": "film"})


def test_another_environment_is_refused(sac):
    _, path = sac
    with pytest.raises(TaskMismatchError, match="env has 4 tasks"):
        _taken_over(path, make_vec_env("toy-reach", seed=0))
    with pytest.raises(TaskMismatchError, match="the one-hot"):
        _taken_over(path, _env(one_hot=True))
    wider = _env()
    wider.action_space.high[:] = 2.0
    with pytest.raises(TaskMismatchError, match="actions have high="):
        _taken_over(path, wider)


# ---------------------------------------------------------------------- files from others


class _Bomb:
    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        import os

        return os.mkdir, (str(self.path),)


def _rewritten(path, changes, compression=zipfile.ZIP_STORED):
    """The file with other members."""
    target = path.with_name("forged.zip")
    with zipfile.ZipFile(f"{path}.zip") as old, zipfile.ZipFile(target, "w", compression) as new:
        for name in old.namelist():
            new.writestr(name, changes.get(name, old.read(name)))
    return target


def test_no_pickle_is_opened(sac, tmp_path):
    _, path = sac
    bomb = pickle.dumps(_Bomb(tmp_path / "exploded"), protocol=2)
    with zipfile.ZipFile(f"{path}.zip") as archive:
        data = json.loads(archive.read("data"))
    for name, entry in data.items():
        if isinstance(entry, dict) and ":serialized:" in entry and name != "train_freq":
            entry[":serialized:"] = base64.b64encode(bomb).decode()
    _taken_over(_rewritten(path, {"data": json.dumps(data)}))
    data["gamma"] = {":type:": "float", ":serialized:": base64.b64encode(bomb).decode()}
    with pytest.raises(ArgumentError, match="give gamma="):
        _taken_over(_rewritten(path, {"data": json.dumps(data)}))
    tensors = io.BytesIO()
    torch.save({"actor.mu.bias": _Bomb(tmp_path / "exploded")}, tensors)
    for content in (bomb, tensors.getvalue()):
        for member in ("policy.pth", "actor.optimizer.pth", "pytorch_variables.pth"):
            with pytest.raises(CheckpointError, match=member):
                _taken_over(_rewritten(path, {member: content}))
    assert not (tmp_path / "exploded").exists()


def _saved(content):
    buffer = io.BytesIO()
    torch.save(content, buffer)
    return buffer.getvalue()


@pytest.mark.parametrize(
    "changes",
    [
        {"data": b"[]"},
        {"data": b"{"},
        {"data": b"[" * 100_000},
        {"data": b"{}"},
        {"policy.pth": _saved([1])},
        {"policy.pth": b""},
        {"actor.optimizer.pth": _saved({"state": {0: {"step": torch.zeros(())}}, "param_groups": []})},
        {"critic.optimizer.pth": _saved({})},
        {"pytorch_variables.pth": _saved({"log_ent_coef": torch.zeros(3)})},
    ],
)
def test_malformed_files(changes, sac):
    _, path = sac
    with pytest.raises(CheckpointError, match="forged"):
        _taken_over(_rewritten(path, changes))


def test_other_files(sac, tmp_path):
    agent, path = sac
    with pytest.raises(CheckpointError, match="is compressed"):
        _taken_over(_rewritten(path, {}, zipfile.ZIP_DEFLATED))
    (tmp_path / "text").write_text("no zip")
    with pytest.raises(CheckpointError, match="is not the zip file"):
        _taken_over(tmp_path / "text")
    with pytest.raises(CheckpointError, match="is not the zip file"):
        _taken_over(tmp_path / "nowhere")
    wrong = {"actor.cnn.weight": torch.zeros(1), **agent.policy.state_dict()}
    with pytest.raises(ArgumentError, match=r"MlpPolicy on flat observations.*actor\.cnn\.weight"):
        _taken_over(_rewritten(path, {"policy.pth": _saved(wrong)}))
