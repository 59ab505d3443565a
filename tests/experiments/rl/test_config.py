"""Configurations: every argument reaches them, files hold them exactly, mistakes are named."""

import contextlib
import dataclasses
import inspect
import re
from typing import Any

import numpy as np
import pytest
import tyro
import yaml

from mtrl_imgrad.agents import MTPPO, MTSAC, MTTD3, registry
from mtrl_imgrad.agents.common import unsupported
from mtrl_imgrad.envs import make_vec_env
from mtrl_imgrad.errors import ArgumentError, CheckpointError, UnknownNameError
from mtrl_imgrad.experiments.config_files import save_config
from mtrl_imgrad.experiments.options import without_stale_kwargs
from mtrl_imgrad.experiments.presets import list_presets, preset_path
from mtrl_imgrad.experiments.rl.agent_config import AgentConfig, PolicyConfig, agent_config, policy_config
from mtrl_imgrad.experiments.rl.config import (
    EnvConfig,
    EvaluationConfig,
    TrainConfig,
    load_config,
    train_config_class,
)
from mtrl_imgrad.experiments.rl.train import make_agent, make_env, make_eval_env

# Set by the run itself, or SB3's plumbing.
NOT_OPTIONS = {"self", "policy", "env", "seed", "verbose", "tensorboard_log", "policy_kwargs", "_init_setup_model"}
NOT_OPTIONS |= {"replay_buffer_class", "replay_buffer_kwargs"}
NOT_OPTIONS |= {*unsupported.SAC_ARGUMENTS, *unsupported.PPO_ARGUMENTS}
# Matters of the machine, not of the experiment, or given by the evaluation.
NOT_ENV_OPTIONS = {"tasks", "seed", "num_workers", "worker_timeout", "render_mode"}


AGENTS = {name: (agent, agent.policy_aliases["MlpPolicy"]) for name, agent in registry.AGENTS.items()}
MTSACConfig, MTPPOConfig, MTTD3Config = map(agent_config, ("mtsac", "mtppo", "mttd3"))
MTSACPolicyConfig, MTPPOPolicyConfig = map(policy_config, ("mtsac", "mtppo"))
MTSACTrainConfig, MTPPOTrainConfig, MTTD3TrainConfig = map(train_config_class, ("mtsac", "mtppo", "mttd3"))


def _fields(cls):
    return set(cls.__dataclass_fields__)


def _defaults(function):
    return {name: parameter.default for name, parameter in inspect.signature(function).parameters.items()}


@pytest.mark.parametrize("cls", [cls for pair in AGENTS.values() for cls in pair])
def test_every_constructor_argument_is_described(cls):
    (arguments,) = re.findall(r"^Args:\n(.+?)(?:\n\n|\Z)", inspect.getdoc(cls), re.MULTILINE | re.DOTALL)
    described = [name for names in re.findall(r"^    (\w.*?): ", arguments, re.MULTILINE) for name in names.split(", ")]
    assert sorted(described) == sorted(set(_defaults(cls)) - {"_init_setup_model"})


@pytest.mark.parametrize("name", AGENTS)
def test_every_option_has_a_text(name):
    own = [spec for spec in dataclasses.fields(agent_config(name)) if spec.name not in _fields(AgentConfig)]
    own += [spec for spec in dataclasses.fields(policy_config(name)) if spec.name not in _fields(PolicyConfig)]
    assert [spec.name for spec in own if not spec.type.__metadata__[-1].help] == []


def test_every_constructor_argument_reaches_the_command_line():
    for name, (agent, _) in AGENTS.items():
        assert set(_defaults(agent)) - NOT_OPTIONS <= _fields(type(train_config_class(name)().agent))
    assert set(inspect.signature(make_vec_env).parameters) - NOT_ENV_OPTIONS <= _fields(EnvConfig)
    parsed = tyro.cli(
        MTSACTrainConfig,
        args=(
            "--env reach-v3 push-v3 --backend metaworld --combiner cagrad --combiner-kwargs c=0.9 rescale=false "
            "--critic-combiner mgda --net-arch 32 16 --no-one-hot --encoder one_hot --activation tanh --seed 7 "
            "--ent-coef 0.1 --max-grad-norm 1e-1 --num-goals 3 --run-dir somewhere --critic-net-arch 8 "
            "--optimizer adamw --optimizer-kwargs eps=1e-5"
        ).split(),
    )
    assert parsed.env.env == ("reach-v3", "push-v3")
    assert parsed.env.num_goals == 3
    assert not parsed.env.one_hot
    assert parsed.agent.combiner_kwargs == {"c": 0.9, "rescale": False}
    agent = make_agent(
        dataclasses.replace(parsed, agent=dataclasses.replace(parsed.agent, batch_size=8)),
        make_env(EnvConfig(env=("toy-reach",), one_hot=False), seed=0),
    )
    assert repr(agent.actor_combiner).startswith("CAGrad(c=0.9")
    assert repr(agent.critic_combiner).startswith("MGDA(")
    assert agent.policy.optimizer_kwargs == {"eps": 1e-5}
    assert agent.critic.q_networks[0].spec.net_arch == (8,)
    assert parsed.policy.net_arch == (32, 16)
    assert parsed.seed == 7
    assert str(parsed.run_dir) == "somewhere"


@pytest.mark.parametrize("name", AGENTS)
def test_defaults_are_those_of_the_classes(name):
    agent_class, policy_class = AGENTS[name]
    config = train_config_class(name)()
    expected = _defaults(agent_class)
    for option, value in vars(config.agent).items():
        if option == "action_noise":  # a number here
            assert value == 0
        elif option in expected:
            assert value == ({} if value == {} and expected[option] is None else expected[option]), option
    policy = set(_defaults(policy_class)) - {
        "observation_space",
        "action_space",
        "lr_schedule",
        "task_names",
        "one_hot",
    }
    assert set(config.policy.policy_kwargs()) == policy - {"value_normalization", "value_normalization_kwargs"}
    env = _defaults(make_vec_env)
    assert all(value == env[option] for option, value in vars(EnvConfig()).items() if option in env)


def test_a_configuration_makes_its_agent():
    env = make_env(EnvConfig(env=("toy-reach",)), seed=0)
    config = MTPPOTrainConfig(
        agent=MTPPOConfig(n_steps=8, value_normalization="popart", value_normalization_kwargs={"beta": 0.5}),
        policy=dataclasses.replace(MTPPOTrainConfig().policy, critic_layer_norm=True, critic_net_arch=(8,)),
    )
    agent = make_agent(config, env)
    assert isinstance(agent, MTPPO)
    assert (agent.n_steps, agent.critic.popart.beta) == (8, 0.5)
    assert agent.critic.encoder.spec.layer_norm
    assert not agent.actor.encoder.spec.layer_norm
    assert agent.critic.encoder.spec.net_arch == (8,)
    sac = MTSACTrainConfig(policy=MTSACPolicyConfig(layer_norm=True, critic_layer_norm=False, n_critics=1))
    agent = make_agent(sac, env)
    assert isinstance(agent, MTSAC)
    assert agent.actor.encoder.spec.layer_norm
    assert [network.spec.layer_norm for network in agent.critic.q_networks] == [False]
    with pytest.raises(UnknownNameError, match="Known: mtsac, mtppo, mttd3"):
        make_agent(TrainConfig(), env)


def test_action_noise_is_a_number_in_a_configuration():
    env = make_env(EnvConfig(env=("toy-reach",)), seed=0)
    for kind in (MTSACTrainConfig, MTTD3TrainConfig):
        agent = make_agent(tyro.cli(kind, args=["--action-noise", "0.3", "--net-arch", "8"]), env)
        noises = np.stack([agent.action_noise() for _ in range(2000)])
        assert noises.shape == (2000, *env.action_space.shape)
        assert noises.std(axis=0) == pytest.approx(0.3, abs=0.03)
        assert abs(np.corrcoef(noises.T)[0, 1]) < 0.15, "each action has noise of its own"
    assert make_agent(MTTD3TrainConfig(), env).action_noise is None


def test_an_agent_added_to_the_registry_has_a_configuration(monkeypatch):
    class Third(MTTD3):
        """TD3 with another name.

        Args:
            swing: a number
                of its own.
        """

        def __init__(self, policy, env, swing: float = 2.0, learning_rate: float = 0.1, **kwargs: Any) -> None:
            super().__init__(policy, env, learning_rate, **kwargs)
            self.swing = swing

    monkeypatch.setitem(registry.AGENTS, "third", Third)
    config = tyro.cli(train_config_class("third"), args=["--swing", "3", "--net-arch", "8"])
    assert config.agent.learning_rate == 0.1
    with pytest.raises(SystemExit):
        tyro.cli(train_config_class("third"), args=["--swung", "3"])


def test_dropout_of_the_critics_alone_from_the_command_line():
    env = make_env(EnvConfig(env=("toy-reach",)), seed=0)
    for kind in (MTSACTrainConfig, MTPPOTrainConfig):
        agent = make_agent(tyro.cli(kind, args=["--critic-dropout", "0.01", "--net-arch", "8"]), env)
        critics = agent.critic.q_networks if kind is MTSACTrainConfig else [agent.critic.encoder]
        assert {network.spec.dropout for network in critics} == {0.01}
        assert agent.actor.encoder.spec.dropout == 0.0
    with pytest.raises(ArgumentError, match="MTPPO's actor takes no dropout"):
        make_agent(MTPPOTrainConfig(policy=MTPPOPolicyConfig(dropout=0.1)), env)


@pytest.mark.parametrize("name", list_presets("rl"))
def test_presets_load_build_and_give_the_source_of_every_value(name):
    config = load_config(preset_path("rl", name))
    lines = preset_path("rl", name).read_text().splitlines()
    assert lines[0].startswith("# "), "the first line says what it is for"
    for line in lines:
        key, _, value = line.partition(":")
        if value.split("#")[0].strip() and not key.startswith("#"):
            assert "#" in line, f"{name}: where does {line!r} come from?"
    env = make_env(EnvConfig(env=("toy-reach",), one_hot=config.env.one_hot), seed=0)
    assert make_agent(config, env).num_tasks == 4


def test_a_linear_schedule_ends_at_zero():
    agent = make_agent(
        MTSACTrainConfig(agent=MTSACConfig(learning_rate=0.1, lr_schedule="linear", batch_size=8)),
        make_env(EnvConfig(env=("toy-reach",)), seed=0),
    )
    assert [agent.lr_schedule(left) for left in (1.0, 0.5, 0.0)] == pytest.approx([0.1, 0.05, 0.0])


def test_a_saved_config_is_the_same_config(tmp_path):
    config = MTSACTrainConfig(
        env=EnvConfig(env=("toy-reach",), num_goals=None),
        agent=MTSACConfig(combiner_kwargs={"c": 0.3, "form": "paper"}, learning_rate=1e-4),
        policy=MTSACPolicyConfig(net_arch=(8, 9)),
        run_dir=tmp_path,
        max_minutes=1.5,
    )
    save_config(config, tmp_path / "config.yaml", {"versions": {"python": "3"}})
    repeated = load_config(tmp_path / "config.yaml")
    assert repeated == dataclasses.replace(config, run_dir=None), "a repetition has a folder of its own"
    assert yaml.safe_load((tmp_path / "config.yaml").read_text())["ran_with"]["versions"] == {"python": "3"}


def test_a_config_is_written_whole_or_not_at_all(tmp_path, monkeypatch):
    path = tmp_path / "config.yaml"
    save_config(MTSACTrainConfig(), path, {})
    before = path.read_text()

    def no_space(*args):
        raise OSError("no space left")

    monkeypatch.setattr("os.fsync", no_space)
    with pytest.raises(CheckpointError, match=r"config.yaml cannot be written: no space left"):
        save_config(MTSACTrainConfig(seed=1), path, {})
    assert path.read_text() == before


def test_another_combiner_than_the_presets_does_not_get_its_arguments():
    preset = load_config(preset_path("rl", "mt10_demo")).agent
    assert preset.combiner_kwargs == {"c": 0.4}
    other = dataclasses.replace(preset, combiner="mgda")
    assert without_stale_kwargs(other, preset).combiner_kwargs == {}
    assert without_stale_kwargs(preset, preset) is preset
    told = dataclasses.replace(preset, combiner="cagrad", combiner_kwargs={"c": 0.9})
    assert without_stale_kwargs(told, preset).combiner_kwargs == {"c": 0.9}


@pytest.mark.parametrize(("goals", "same"), [("training", True), ("unseen", False)])
def test_evaluation_goals_are_those_of_training_or_others(goals, same):
    config = MTSACTrainConfig(
        env=EnvConfig(env=("reach-v3",), backend="metaworld", num_goals=1),
        evaluation=EvaluationConfig(eval_goals=goals),
    )
    with (
        contextlib.closing(make_env(config.env, config.seed)) as env,
        contextlib.closing(make_eval_env(config)) as other,
    ):
        assert np.array_equal(env.reset()[:, 36:39], other.reset()[:, 36:39]) == same


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("agent: {learning_rat: 1}", "agent.learning_rat"),
        ("agent: {learning_rate: fast}", "agent.learning_rate"),
        ("agent: {heads: both}", "agent.heads"),
        ("agent: {gamma: 1.5}", "agent.gamma"),
        ("agent: {gradient_steps: -2}", "agent.gradient_steps"),
        ("agent: {name: mtppo, noise_beta: 2.1}", "agent.noise_beta"),
        ("agent: {name: mtppo, clip_range: 0}", "agent.clip_range"),
        ("agent: {name: mtpo}", "Did you mean 'mtppo'"),
        ("agent: {name: mtppo, tau: 0.1}", "agent.tau"),
        ("agent: {n_epochs: 10}", "agent.n_epochs"),
        ("agent: {name: mtppo}\npolicy: {n_critics: 1}", "policy.n_critics"),
        ("env: {env: [MT10], horizon: 1.5}", "env.horizon"),
        ("envs: {}", "envs"),
        ("total_timesteps: many", "total_timesteps"),
        ("- a list", "sections"),
        ("a: [", "config"),
        ("ran_with: {torch: 2}\nagent: {gama: 1}", "agent.gama"),
        ("agent: !!python/object/apply:os.system [echo]", "could not determine a constructor"),
    ],
)
def test_mistakes_in_a_file_are_named(text, says, tmp_path):
    path = tmp_path / "config.yaml"
    path.write_text(text)
    with pytest.raises(ArgumentError, match=says):
        load_config(path)


def test_unknown_files_and_presets(tmp_path):
    with pytest.raises(ArgumentError, match="missing.yaml"):
        load_config(tmp_path / "missing.yaml")
    with pytest.raises(UnknownNameError, match="Did you mean 'mt10_cpu'"):
        preset_path("rl", "mt10_cqu")
