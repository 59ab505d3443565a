"""SB3's arguments and calls: accepted as SB3 has them, or refused in one sentence; no bare assertion of SB3's."""

import errno
import inspect
import math
import pickle

import gymnasium as gym
import numpy as np
import pytest
import torch
from gymnasium import spaces
from stable_baselines3 import PPO, SAC, TD3, HerReplayBuffer
from stable_baselines3.common import base_class, off_policy_algorithm
from stable_baselines3.common.buffers import RolloutBuffer
from stable_baselines3.common.callbacks import EveryNTimesteps
from stable_baselines3.common.noise import NormalActionNoise, OrnsteinUhlenbeckActionNoise
from stable_baselines3.common.torch_layers import BaseFeaturesExtractor
from stable_baselines3.common.vec_env import DummyVecEnv, VecNormalize

from mtrl_imgrad import MTPPO, MTSAC, MTTD3, make_vec_env
from mtrl_imgrad.agents.common import unsupported
from mtrl_imgrad.agents.common.arguments import check_arguments
from mtrl_imgrad.agents.common.schedules import scheduled
from mtrl_imgrad.errors import (
    ArgumentError,
    CheckpointError,
    MtrlImgradError,
    NonFiniteError,
    TaskMismatchError,
    UnsupportedError,
)
from tests.support.paths import DOCS

SMALL = {"net_arch": [8]}
PAGE = DOCS / "sb3.md"
AGENTS = pytest.mark.parametrize("agent", [MTSAC, MTPPO, MTTD3])


class Dummy(gym.Env):
    def __init__(self, observations=(3,), actions=None):
        self.observation_space = spaces.Box(-1, 1, observations, np.float32)
        self.action_space = spaces.Box(-1, 1, (2,), np.float32) if actions is None else actions

    def reset(self, *, seed=None, options=None):
        return np.zeros(self.observation_space.shape, np.float32), {}

    def step(self, action):
        assert np.shape(action) == self.action_space.shape
        return np.zeros(self.observation_space.shape, np.float32), 0.0, False, False, {}


def _agent(agent, env=None, **kwargs):
    options = {"n_steps": 8, "batch_size": 8, "n_epochs": 1} if agent is MTPPO else {"buffer_size": 100}
    kwargs = {"policy_kwargs": SMALL, "seed": 0, "device": "cpu", "trace": False, **options, **kwargs}
    return agent("MlpPolicy", env or Dummy(), **kwargs)


@pytest.mark.parametrize(("agent", "theirs"), [(MTSAC, SAC), (MTPPO, PPO), (MTTD3, TD3)])
def test_their_arguments_come_first_in_their_order(agent, theirs):
    ours, names = inspect.signature(agent).parameters, list(inspect.signature(theirs).parameters)
    assert list(ours)[: len(names)] == names
    assert all(one.kind is inspect.Parameter.KEYWORD_ONLY for one in list(ours.values())[len(names) :])
    for name, parameter in inspect.signature(theirs).parameters.items():
        assert name == "batch_size" or ours[name].default == parameter.default, name
    for call in ("learn", "predict", "load", "set_env", "set_parameters", "get_parameters", "save"):
        expected = list(inspect.signature(getattr(theirs, call)).parameters)
        assert list(inspect.signature(getattr(agent, call)).parameters) == expected


@AGENTS
def test_what_asks_for_nothing_is_accepted(agent):
    for name, refusal in agent.refusals.items():
        for value in refusal.neutral:
            check_arguments(agent, _arguments(agent, **{name: value}))
    kwargs = {name: refusal.neutral[0] for name, refusal in unsupported.POLICY_KWARGS.items()}
    if agent is MTPPO:
        kwargs["log_std_init"] = 0.0
    made = _agent(agent, policy_kwargs={**kwargs, **SMALL})
    assert set(made.policy_kwargs) & set(kwargs) == ({"log_std_init"} if agent is MTPPO else set()), "handed on"


def _arguments(agent, **kwargs):
    defaults = {name: one.default for name, one in inspect.signature(agent).parameters.items()}
    return {**defaults, "policy": "MlpPolicy", "env": None, **kwargs}


class Extractor(BaseFeaturesExtractor):
    pass


REFUSED = [
    (MTSAC, {"use_sde": True}),
    (MTSAC, {"sde_sample_freq": 4}),
    (MTSAC, {"use_sde_at_warmup": True}),
    (MTSAC, {"optimize_memory_usage": True}),
    (MTSAC, {"replay_buffer_class": HerReplayBuffer}),
    (MTTD3, {"optimize_memory_usage": True}),
    (MTTD3, {"replay_buffer_class": HerReplayBuffer}),
    (MTTD3, {"policy": TD3.policy_aliases["MlpPolicy"]}),
    (MTPPO, {"use_sde": True}),
    (MTPPO, {"sde_sample_freq": 4}),
    (MTPPO, {"rollout_buffer_class": RolloutBuffer}),
    (MTPPO, {"rollout_buffer_kwargs": {"a": 1}}),
    *((agent, {"policy": name}) for agent in (MTSAC, MTPPO, MTTD3) for name in ("CnnPolicy", "MultiInputPolicy")),
    (MTSAC, {"policy": SAC.policy_aliases["MlpPolicy"]}),
    (MTPPO, {"policy": PPO.policy_aliases["MlpPolicy"]}),
    *((agent, {"policy_kwargs": {"use_expln": True}}) for agent in (MTSAC, MTPPO)),
    *((agent, {"policy_kwargs": {"features_extractor_class": Extractor}}) for agent in (MTSAC, MTPPO, MTTD3)),
    *((agent, {"policy_kwargs": {"features_extractor_kwargs": {"a": 1}}}) for agent in (MTSAC, MTPPO)),
    (MTPPO, {"policy_kwargs": {"ortho_init": True}}),
    (MTSAC, {"policy_kwargs": {"log_std_init": -2}}),
]


@pytest.mark.parametrize(("agent", "kwargs"), REFUSED)
def test_the_rest_is_refused_in_one_sentence_and_on_one_page(agent, kwargs):
    [(name, value)] = kwargs.items()
    named = next(iter(value)) if name == "policy_kwargs" else name
    with pytest.raises(UnsupportedError, match=rf"^{agent.__name__} does not support {named}=\S+: \w.*"):
        agent(**{"policy": "MlpPolicy", "env": Dummy(), **kwargs})
    assert f"`{named}`" in PAGE.read_text()


def test_the_page_names_every_refusal():
    page = PAGE.read_text()
    for table in (unsupported.SAC_ARGUMENTS, unsupported.PPO_ARGUMENTS, unsupported.POLICY_KWARGS):
        assert [name for name in table if f"`{name}`" not in page] == []


@AGENTS
@pytest.mark.parametrize(
    ("env", "words"),
    [
        ("MT10", r"make_vec_env\('MT10'\)"),
        ("reach-v3", r"make_vec_env\('reach-v3'\)"),
        ("Pendulum-v99", "name of one"),
        (gym.make_vec("Pendulum-v1", num_envs=2), "SyncVectorEnv.*make_vec_env"),
        (3, "got 3"),
        (Dummy(observations=(2, 2)), r"does not support observation_space=Box\(.*\(2, 2\)"),
        (Dummy(actions=spaces.Discrete(3)), "does not support action_space=Discrete"),
        (Dummy(actions=spaces.Box(-1, 1, (2,), np.int8)), "real numbers, not int8"),
        (Dummy(actions=spaces.Box(np.float32([-1, 2]), np.float32([1, 2]))), "low must be below high"),
        (Dummy(actions=spaces.Box(-np.inf, np.inf, (2,))), "finite"),
    ],
)
def test_what_is_no_environment_for_an_agent_is_refused_wherever_it_enters(agent, env, words, tmp_path):
    with pytest.raises(MtrlImgradError, match=words):
        agent("MlpPolicy", env)
    model = _agent(agent)
    with pytest.raises(MtrlImgradError, match=words):
        model.set_env(env)
    model.save(tmp_path / "agent")
    with pytest.raises(MtrlImgradError, match=words):
        agent.load(tmp_path / "agent", env=env)


def test_train_freq():
    two = DummyVecEnv([Dummy, Dummy])
    for train_freq, env, words in (
        ((1, "episode"), two, "several environments"),
        ((1, "close"), Dummy(), "'step' or 'episode'"),
        (0, Dummy(), "at least 1"),
        ("4", Dummy(), "an integer"),
    ):
        with pytest.raises(ArgumentError, match=f"train_freq must.*{words}"):
            _agent(MTSAC, env, train_freq=train_freq)
    assert _agent(MTSAC, train_freq=(1, "episode")).train_freq.unit.value == "episode"


def test_unknown_keywords_name_the_class():
    with pytest.raises(TypeError, match=r"^MTSAC\(\) got an unexpected keyword argument 'tauu'"):
        MTSAC("MlpPolicy", Dummy(), tauu=1)


@AGENTS
def test_actions_of_any_shape(agent):
    model = _agent(agent, Dummy(actions=spaces.Box(-1, 1, (2, 2), np.float32)), **({} if agent is MTPPO else _SOON))
    model.learn(8)
    assert model.predict(np.zeros(3, np.float32))[0].shape == (2, 2)


_SOON = {"learning_starts": 4, "batch_size": 4}


@AGENTS
def test_networks_are_saved_and_loaded_one_by_one(agent, tmp_path):
    model = _agent(agent, make_vec_env("toy-reach", seed=0), batch_size=16)
    observations = model.get_env().reset()
    for name in ("actor", "critic"):
        network = getattr(model.policy, name)
        network.save(tmp_path / name)
        loaded = type(network).load(tmp_path / name, device="cpu")
        for key, value in network.state_dict().items():
            assert torch.equal(loaded.state_dict()[key], value)
        if name == "actor":
            expected = network.predict(observations, deterministic=True)[0]
            np.testing.assert_array_equal(loaded.predict(observations, deterministic=True)[0], expected)


def test_a_replay_is_loaded_where_there_is_none(tmp_path):
    model = _agent(MTSAC, **_SOON)
    model.learn(10)
    model.save_replay_buffer(tmp_path / "replay")
    rows, model.replay_buffer = model.replay_buffer.observations, None
    model.load_replay_buffer(tmp_path / "replay")
    np.testing.assert_array_equal(model.replay_buffer.observations, rows)
    other = _agent(MTSAC, DummyVecEnv([Dummy, Dummy]))
    other.replay_buffer = None
    with pytest.raises(TaskMismatchError, match="2 envs"):
        other.load_replay_buffer(tmp_path / "replay")


def test_what_is_no_replay_leaves_the_agent_its_own(tmp_path):
    model = _agent(MTSAC)
    model.save_replay_buffer(tmp_path / "replay")
    whole, before = (tmp_path / "replay.pkl").read_bytes(), model.replay_buffer
    for wrong in (whole[: len(whole) // 2], b"", b"text", pickle.dumps([1])):
        (tmp_path / "wrong.pkl").write_bytes(wrong)
        with pytest.raises(ArgumentError, match="path must be of what save_replay_buffer wrote, got .*wrong"):
            model.load_replay_buffer(tmp_path / "wrong")
        assert model.replay_buffer is before


@AGENTS
def test_what_is_no_saved_agent_is_named(agent, tmp_path):
    _agent(agent).save(tmp_path / "agent")
    whole = (tmp_path / "agent.zip").read_bytes()
    for wrong in (b"", b"text", whole[:100], whole[: len(whole) // 2]):
        (tmp_path / "wrong.zip").write_bytes(wrong)
        with pytest.raises(ArgumentError, match=rf"path must be of what {agent.__name__}.save wrote, got .*wrong"):
            agent.load(tmp_path / "wrong")


@pytest.mark.parametrize(("call", "name"), [("save", "agent.zip"), ("save_replay_buffer", "agent.pkl")])
def test_a_save_that_fails_leaves_the_file_before(call, name, tmp_path, monkeypatch):
    model = _agent(MTSAC)
    save = getattr(model, call)
    save(tmp_path / "agent")
    before = (tmp_path / name).read_bytes()

    def full(file, *_, **__):
        file.write(b"half")
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(base_class, "save_to_zip_file", full)
    monkeypatch.setattr(off_policy_algorithm, "save_to_pkl", full)
    with pytest.raises(CheckpointError, match=rf"{name} cannot be written, and is as it was: No space left"):
        save(tmp_path / "agent")
    assert (tmp_path / name).read_bytes() == before
    assert [path.name for path in tmp_path.iterdir()] == [name]
    (tmp_path / "file").touch()
    with pytest.raises(CheckpointError, match="cannot be written"):
        save(tmp_path / "file" / "agent")


def test_a_link_to_a_saved_agent_stays_a_link(tmp_path):
    (tmp_path / "latest.zip").symlink_to(tmp_path / "agent.zip")
    _agent(MTSAC).save(str(tmp_path / "latest"))
    assert (tmp_path / "latest.zip").is_symlink()
    MTSAC.load(tmp_path / "agent")


class TestActionNoise:
    def test_is_added_to_the_actions_of_every_environment(self):
        noise = NormalActionNoise(np.full(2, 5.0), np.zeros(2))
        model = _agent(MTSAC, DummyVecEnv([Dummy, Dummy]), action_noise=noise, **_SOON)
        model.learn(12)
        assert (model.replay_buffer.actions[: model.replay_buffer.pos] == 1).all()

    def test_goes_on_in_a_resumed_run(self, tmp_path):
        def noise():
            return OrnsteinUhlenbeckActionNoise(np.zeros(2), np.ones(2))

        model = _agent(MTSAC, make_vec_env("toy-reach", seed=0), action_noise=noise(), learning_starts=40)
        model.learn(48)
        model.save_checkpoint(tmp_path / "checkpoint")
        with pytest.raises(MtrlImgradError, match="action_noise"):
            MTSAC.load_checkpoint(tmp_path / "checkpoint", make_vec_env("toy-reach", seed=0))
        resumed = MTSAC.load_checkpoint(
            tmp_path / "checkpoint", make_vec_env("toy-reach", seed=0), device="cpu", action_noise=noise()
        )
        assert [one.noise_prev.any() for one in resumed.action_noise.noises] == [True] * 4
        resumed.learn(20, reset_num_timesteps=False)
        MTSAC.load_checkpoint(  # sets the global generators, which the noise draws from
            tmp_path / "checkpoint", make_vec_env("toy-reach", seed=0), device="cpu", action_noise=noise()
        )
        model.learn(20, reset_num_timesteps=False)
        np.testing.assert_array_equal(resumed.replay_buffer.actions, model.replay_buffer.actions)


class TestVecNormalize:
    @AGENTS
    def test_is_accepted_with_one_task_and_refused_over_a_one_hot(self, agent):
        env = VecNormalize(DummyVecEnv([Dummy]))
        model = _agent(agent, env, **({} if agent is MTPPO else _SOON))
        model.learn(8)
        assert model.get_vec_normalize_env() is env
        with pytest.raises(UnsupportedError, match=r"VecNormalize\(norm_obs=True\) over observations with a one-hot"):
            _agent(agent, VecNormalize(make_vec_env("toy-reach")), batch_size=16)
        several = _agent(agent, VecNormalize(make_vec_env("toy-reach"), norm_obs=False), batch_size=16)
        with pytest.raises(UnsupportedError, match="one-hot"):
            several.set_env(VecNormalize(make_vec_env("toy-reach")))

    def test_rewards_are_not_normalised_twice(self):
        with pytest.raises(ArgumentError, match="reward_normalization must be None"):
            _agent(MTSAC, VecNormalize(DummyVecEnv([Dummy])), reward_normalization="std")


def test_a_truncated_minibatch_warns_and_a_rollout_of_one_row_is_refused():
    with pytest.warns(UserWarning, match="truncated mini-batch of size 1"):
        _agent(MTPPO, n_steps=8, batch_size=7)
    with pytest.raises(ArgumentError, match="normalize_advantage"):
        _agent(MTPPO, n_steps=1)


@AGENTS
def test_wrong_arguments_of_calls_are_errors_of_this_library(agent, tmp_path):
    model = _agent(agent)
    model.save(tmp_path / "agent")
    for wrong in (np.zeros(4), None, "text", {"a": np.zeros(3)}, (np.zeros(3), {})):
        with pytest.raises(ArgumentError, match="observation must be"):
            model.predict(wrong)
    for wrong, place in (
        (np.array([0.0, np.nan, 0.0]), r"nan at index \(1,\)"),
        (np.full((2, 3), np.inf), "inf at index"),
    ):
        with pytest.raises(NonFiniteError, match=f"observation must be finite, got {place}"):
            model.predict(wrong)
    for name, call in {
        "log_interval": lambda: model.learn(8, log_interval=0),
        "total_timesteps": lambda: model.learn(-1),
        "callback": lambda: model.learn(8, callback=5),
        "callback must be .*got <class": lambda: model.learn(8, callback=[EveryNTimesteps]),
        "env must be given to learn in": lambda: agent.load(tmp_path / "agent").learn(8),
        "env": lambda: model.set_env(None),
        "seed": lambda: model.set_random_seed("a"),
        "'tauu'": lambda: agent.load(tmp_path / "agent", tauu=1),
        "device": lambda: agent.load(tmp_path / "agent", device="mars"),
    }.items():
        with pytest.raises(ArgumentError, match=name):
            call()


@AGENTS
def test_load_checks_what_it_is_given_in_place_of_what_was_saved(agent, tmp_path):
    """SB3 takes it as it is: a combiner was ignored, a wrong number failed somewhere in the update."""
    _agent(agent, combiner="imgrad").save(tmp_path / "agent")
    wrong = {
        "combiner": "cagrad", "combiner_kwargs": {"c": 0.7}, "heads": "x", "max_grad_norm": -1, "gamma": 3,
        "learning_rate": math.nan, "policy_kwargs": {"net_arch": [7]}, "custom_objects": 3,
    }  # fmt: skip
    if agent is MTPPO:
        wrong |= {"n_epochs": 0, "value_normalization": "popart", "clip_range": "x"}
    elif agent is MTSAC:
        wrong |= {"ent_coef": 0.3, "target_update_interval": 0, "action_noise": 3}
    for name, value in wrong.items():
        with pytest.raises(ArgumentError, match=name):
            agent.load(tmp_path / "agent", **{name: value})
    with pytest.raises(ArgumentError, match="gamma"):
        agent.load(tmp_path / "agent", custom_objects={"gamma": "x"})
    other = {"gamma": 0.5, "max_grad_norm": 2.0, "learning_rate": 1e-5}
    loaded = agent.load(tmp_path / "agent", **other, custom_objects={"_last_obs": None})
    assert {name: getattr(loaded, name) for name in other} == other


class TestSchedules:
    @AGENTS
    def test_a_rate_that_is_no_number_never_reaches_the_optimizers(self, agent):
        with pytest.raises(ArgumentError, match="learning_rate must be a function .* where 1 of the training remains"):
            _agent(agent, learning_rate=lambda left: math.nan)
        soon = {} if agent is MTPPO else _SOON
        model = _agent(agent, learning_rate=lambda left: 1e-3 if left > 0.5 else math.nan, **soon)
        with pytest.raises(ArgumentError, match="learning_rate must be a function"):
            model.learn(32)
        assert all(parameter.isfinite().all() for parameter in model.policy.parameters())

    @pytest.mark.parametrize("wrong", [math.nan, math.inf, -1e-3, "fast", None])
    def test_what_is_no_rate(self, wrong):
        with pytest.raises(ArgumentError, match=r"rate must be a function .* a finite number >= 0, got .*0\.25"):
            scheduled("rate", lambda left: wrong, 0.25)

    @pytest.mark.parametrize("argument", ["clip_range", "clip_range_vf", "noise_beta"])
    def test_other_schedules_are_checked_too(self, argument):
        with pytest.raises(ArgumentError, match=f"{argument} must be a function"):
            _agent(MTPPO, **{argument: lambda left: math.nan}).learn(8)
        _agent(MTPPO, clip_range=math.inf).learn(8)

    def test_a_linear_rate_ends_at_zero_where_the_last_rollout_goes_on_beyond_the_end(self):
        seen = []
        _agent(MTPPO, learning_rate=lambda left: seen.append(left) or left * 1e-3).learn(20)  # rollouts of 8 steps
        assert min(seen) == 0.0
