"""What `load_checkpoint` gives back, asks for and refuses; that it goes on exactly: test_exact_resume.py."""

import gymnasium as gym
import numpy as np
import pytest
import torch
from stable_baselines3.common.logger import Logger
from stable_baselines3.common.monitor import Monitor
from stable_baselines3.common.utils import LinearSchedule
from stable_baselines3.common.vec_env import DummyVecEnv, VecNormalize

from mtrl_imgrad.agents import MTPPO, MTSAC, TaskReplayBuffer
from mtrl_imgrad.checkpoints.format import read_checkpoint, write_checkpoint
from mtrl_imgrad.combiners import CAGrad
from mtrl_imgrad.envs import list_tasks, make_vec_env
from mtrl_imgrad.errors import ArgumentError, CheckpointError, TaskMismatchError
from mtrl_imgrad.evaluation import evaluate_success
from tests.support.agents.resumed_runs import assert_equal_states

SMALL = {"net_arch": [16, 16]}
SAC = {"policy_kwargs": SMALL, "learning_starts": 80, "batch_size": 32, "buffer_size": 240, "seed": 3, "device": "cpu"}


# ---------------------------------------------------------------------- what a checkpoint is asked for


def _agent(env=None, **kwargs):
    # Recording changes no number (test_update) and costs most of a short run's time.
    return MTSAC("MlpPolicy", env or make_vec_env("toy-reach", seed=0), **{**SAC, "trace": False, **kwargs})


@pytest.fixture(scope="module")
def genuine(tmp_path_factory):
    """A checkpoint to be forged: read only."""
    folder = tmp_path_factory.mktemp("genuine") / "it"
    _agent().learn(96).save_checkpoint(folder)
    return folder


def test_saving_and_loading_changes_nothing(tmp_path):
    agent = _agent().learn(96)
    agent.save_checkpoint(tmp_path / "a")
    MTSAC.load_checkpoint(tmp_path / "a", make_vec_env("toy-reach", seed=9), device="cpu").save_checkpoint(
        tmp_path / "b"
    )
    assert_equal_states(tmp_path / "a", tmp_path / "b")


def test_without_an_environment_it_predicts_and_draws_no_global_number(tmp_path):
    agent = _agent().learn(96)
    agent.save_checkpoint(tmp_path / "it")
    observations = agent.get_env().reset()
    before = torch.get_rng_state(), np.random.get_state()[1].tolist()  # noqa: NPY002
    loaded = MTSAC.load_checkpoint(tmp_path / "it", device="cpu")
    assert np.array_equal(
        loaded.predict(observations, deterministic=True)[0], agent.predict(observations, deterministic=True)[0]
    )
    assert torch.equal(torch.get_rng_state(), before[0])
    assert np.random.get_state()[1].tolist() == before[1]  # noqa: NPY002


def test_a_missing_replay_is_said(tmp_path):
    agent = _agent().learn(96)
    agent.save_checkpoint(tmp_path / "it", replay=False)
    with pytest.warns(UserWarning, match="saved without its replay"):
        loaded = MTSAC.load_checkpoint(tmp_path / "it", make_vec_env("toy-reach", seed=0), device="cpu")
    assert loaded.replay_buffer.size() == 0
    loaded.learn(12, reset_num_timesteps=False)


def test_arguments_come_back_as_they_are_now(tmp_path):
    policy_kwargs = {"net_arch": {"pi": [8], "qf": [12]}, "activation_fn": torch.nn.Tanh, "encoder": "film"}
    agent = _agent(
        policy_kwargs=policy_kwargs,
        learning_rate=LinearSchedule(1e-3, 1e-4, 0.5),
        combiner={"actor": CAGrad(c=0.7), "critic": "upgrad"},
        train_freq=(2, "step"),
        stats_window_size=7,
        reward_normalization="std",
        ent_coef="shared_0.2",
        replay_buffer_class=TaskReplayBuffer,
    )
    agent.gamma = 0.5
    agent.save_checkpoint(tmp_path / "it")
    loaded = MTSAC.load_checkpoint(tmp_path / "it", make_vec_env("toy-reach", seed=0), device="cpu", tau=0.1)
    assert (loaded.gamma, loaded.tau, loaded._stats_window_size) == (0.5, 0.1, 7)
    assert repr(loaded.actor_combiner) == "CAGrad(c=0.7)"
    assert loaded.critic_combiner.name == "upgrad"
    assert loaded.policy_kwargs["activation_fn"] is torch.nn.Tanh
    assert loaded.replay_buffer.reward_normalization == "std"
    assert [loaded.lr_schedule(left) for left in (1, 0.75, 0)] == pytest.approx([1e-3, 5.5e-4, 1e-4])
    loaded.learn(96)


def test_functions_must_be_given_again(tmp_path):
    agent = _agent(learning_rate=lambda left: 1e-3 * left)
    agent.save_checkpoint(tmp_path / "it")
    env = make_vec_env("toy-reach", seed=0)
    with pytest.raises(CheckpointError, match="cannot hold what learning_rate was: give it again"):
        MTSAC.load_checkpoint(tmp_path / "it", env, device="cpu")
    loaded = MTSAC.load_checkpoint(tmp_path / "it", env, device="cpu", learning_rate=lambda left: 2e-3 * left)
    assert loaded.lr_schedule(0.5) == 1e-3


def test_another_agent_or_environment_is_refused(tmp_path):
    agent = _agent().learn(96)
    agent.save_checkpoint(tmp_path / "it")
    with pytest.raises(CheckpointError, match="a checkpoint of 'MTSAC', not of MTPPO"):
        MTPPO.load_checkpoint(tmp_path / "it")
    names = list_tasks("toy-reach")
    with pytest.raises(TaskMismatchError, match="env's task 0"):
        MTSAC.load_checkpoint(tmp_path / "it", make_vec_env(names[::-1], seed=0), device="cpu")
    with pytest.raises(TaskMismatchError, match="8 environments, the agent had 4"):
        MTSAC.load_checkpoint(tmp_path / "it", make_vec_env("toy-reach", seed=0, num_envs_per_task=2), device="cpu")
    longer = make_vec_env("toy-reach", seed=0, horizon=30)
    with pytest.raises(CheckpointError, match="horizon=25, this one has 30"):
        MTSAC.load_checkpoint(tmp_path / "it", longer, device="cpu")
    MTSAC.load_checkpoint(tmp_path / "it", longer, device="cpu", new_episodes=True).learn(8, reset_num_timesteps=False)


def test_a_foreign_environment_begins_new_episodes_and_it_is_said(tmp_path):
    def make():
        return DummyVecEnv([lambda: Monitor(gym.make("Pendulum-v1"))])

    MTSAC("MlpPolicy", make(), **{**SAC, "batch_size": 8}).learn(20).save_checkpoint(tmp_path / "it")
    with pytest.warns(UserWarning, match="new ones begin"):
        loaded = MTSAC.load_checkpoint(tmp_path / "it", make(), device="cpu")
    loaded.learn(20, reset_num_timesteps=False)


PPO = {"policy_kwargs": SMALL, "n_steps": 20, "batch_size": 40, "n_epochs": 1, "seed": 3, "device": "cpu"}


@pytest.mark.parametrize(("kind", "options"), [(MTSAC, SAC), (MTPPO, PPO)])
def test_vec_normalize_goes_on_with_its_statistics(kind, options, tmp_path):
    def make_plain():
        return make_vec_env("toy-reach/right", seed=0, one_hot=False, num_envs_per_task=4)

    def make():
        return VecNormalize(make_plain(), gamma=0.9)

    agent = kind("MlpPolicy", make(), trace=False, **options).learn(92)
    agent.save_checkpoint(tmp_path / "it")
    agent.learn(40, reset_num_timesteps=False).save_checkpoint(tmp_path / "a")
    loaded = kind.load_checkpoint(tmp_path / "it", make(), device="cpu")
    loaded.learn(40, reset_num_timesteps=False).save_checkpoint(tmp_path / "b")
    assert agent.get_vec_normalize_env().obs_rms.count > 120
    assert_equal_states(tmp_path / "a", tmp_path / "b")
    state = read_checkpoint(tmp_path / "it")
    state["normalization"]["moments"]["obs_rms"][0] = np.zeros(1)
    write_checkpoint(tmp_path / "forged", state)
    with pytest.raises(CheckpointError, match="obs_rms of VecNormalize has shape"):
        kind.load_checkpoint(tmp_path / "forged", make(), device="cpu")
    with pytest.warns(UserWarning, match="saved with a VecNormalize around the environment, and there is none now"):
        kind.load_checkpoint(tmp_path / "it", make_plain(), device="cpu")
    agent = kind("MlpPolicy", make_plain(), trace=False, **options)
    agent.save_checkpoint(tmp_path / "without")
    with pytest.warns(UserWarning, match="no statistics of a VecNormalize"):
        kind.load_checkpoint(tmp_path / "without", make(), device="cpu")


@pytest.mark.parametrize("used", [False, True])
def test_evaluations_go_on_where_they_were(used, tmp_path):
    agent = _agent().learn(96)
    ours, theirs = (make_vec_env("toy-reach", seed=seed) for seed in (7, 8))
    if used:
        evaluate_success(agent, ours, n_episodes=2)
    agent.save_checkpoint(tmp_path / "it", eval_env=ours)
    loaded = MTSAC.load_checkpoint(tmp_path / "it", make_vec_env("toy-reach", seed=0), device="cpu", eval_env=theirs)
    a, b = (evaluate_success(one, env, n_episodes=2).returns for one, env in ((agent, ours), (loaded, theirs)))
    assert np.array_equal(a, b) == used, "there is nothing to go on from before the first"
    with pytest.raises(ArgumentError, match="eval_env must be what make_vec_env returns"):
        agent.save_checkpoint(tmp_path / "other", eval_env=DummyVecEnv([lambda: gym.make("Pendulum-v1")]))


def test_records_that_are_not_written_yet_are_kept(tmp_path):
    agent = _agent()
    agent.set_logger(Logger(None, []))
    agent.learn(96, log_interval=None)
    agent.logger.record("text", "it", exclude="stdout")
    agent.logger.record_mean("mean", 3.0)
    agent.logger.record_mean("mean", 4.0)
    agent.logger.record("figure", object())
    agent.save_checkpoint(tmp_path / "it")
    loaded = MTSAC.load_checkpoint(tmp_path / "it", make_vec_env("toy-reach", seed=0), device="cpu")
    loaded.set_logger(Logger(None, []))
    loaded.learn(0, reset_num_timesteps=False)
    found = loaded.logger
    assert (found.name_to_value["text"], found.name_to_excluded["text"]) == ("it", ("stdout",))
    assert (found.name_to_value["mean"], found.name_to_count["mean"]) == (3.5, 2)
    assert found.name_to_value["train/n_updates"] == agent._n_updates > 0
    assert "figure" not in found.name_to_value


@pytest.mark.parametrize(
    ("place", "value"),
    [
        (("generators", "numpy", "state", "pos"), 10**9),
        (("generators", "torch"), torch.zeros(3, dtype=torch.uint8)),
        (("generators", "actions", "state"), 3),
        (("parameters", "policy"), {}),
        (("parameters", "actor.optimizer", "state", 0, "exp_avg"), torch.zeros(3)),
        (("variables", "log_ent_coef"), torch.zeros(2)),
        (("combiners", "actor"), {"a": 1}),
        (("progress", "counters"), {}),
        (("progress", "records"), [["key", {}, 0, []]]),
        (("progress", "records"), [["key", 1.0, 0, [1]]]),
        (("arguments", "values", "policy_kwargs"), {"net_arch": [16, 17]}),
        (("tasks",), None),
        (("arguments", "values", "buffer_size"), 10**18),
        (("arguments", "values", "gamma"), "x"),
        (("arguments", "values", "env"), "CartPole-v1"),
        (("arguments", "values", "tensorboard_log"), "/"),
        (("arguments", "values", "policy"), "os.system"),
        (("arguments", "values", "policy_kwargs"), {"activation_fn": {"=class": "os.system"}}),
        (("episodes", "environment", "episodes", "lengths"), np.full(4, 20)),
        (("episodes", "environment", "actions"), np.zeros((1, 1), np.float32)),
        (("episodes", "environment", "streams"), []),
    ],
)
def test_forged_states_are_refused(place, value, genuine, tmp_path):
    state = read_checkpoint(genuine)
    inner = state
    for key in place[:-1]:
        inner = inner[key]
    inner[place[-1]] = value
    write_checkpoint(tmp_path / "forged", state)
    with pytest.raises(CheckpointError, match=str(tmp_path / "forged")):
        MTSAC.load_checkpoint(tmp_path / "forged", make_vec_env("toy-reach", seed=0), device="cpu")


@pytest.mark.parametrize("name", ["rows", "position", "moments"])
def test_forged_replays_are_refused(name, genuine, tmp_path):
    state = read_checkpoint(genuine)
    state["replay"][name] = state["replay"][name][:1]
    write_checkpoint(tmp_path / "forged", state)
    with pytest.raises(CheckpointError, match="replay"):
        MTSAC.load_checkpoint(tmp_path / "forged", make_vec_env("toy-reach", seed=0), device="cpu")
