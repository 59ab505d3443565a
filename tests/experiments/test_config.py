"""Configurations: every argument reaches them, files hold them exactly, mistakes are named."""

import inspect

import pytest
import tyro
import yaml

from mtrl_imgrad.agents import MTSAC
from mtrl_imgrad.envs import make_vec_env
from mtrl_imgrad.errors import ArgumentError, UnknownNameError
from mtrl_imgrad.experiments.config import (
    AgentConfig,
    EnvConfig,
    PolicyConfig,
    TrainConfig,
    list_presets,
    load_config,
    preset_path,
    save_config,
)
from mtrl_imgrad.experiments.train import make_agent, make_env

# Set by the run itself, or SB3's plumbing.
NOT_OPTIONS = {"self", "policy", "env", "seed", "verbose", "tensorboard_log", "policy_kwargs", "_init_setup_model"}
NOT_OPTIONS |= {"replay_buffer_class", "replay_buffer_kwargs"}
# Matters of the machine, not of the experiment, or given by the evaluation.
NOT_ENV_OPTIONS = {"tasks", "seed", "num_workers", "worker_timeout", "render_mode"}


def _fields(cls):
    return set(cls.__dataclass_fields__)


def test_every_constructor_argument_reaches_the_command_line():
    assert set(inspect.signature(MTSAC.__init__).parameters) - NOT_OPTIONS <= _fields(AgentConfig)
    assert set(inspect.signature(make_vec_env).parameters) - NOT_ENV_OPTIONS <= _fields(EnvConfig)
    parsed = tyro.cli(
        TrainConfig,
        args=(
            "--env reach-v3 push-v3 --backend metaworld --combiner cagrad --combiner-kwargs c=0.9 rescale=false "
            "--critic-combiner mgda --net-arch 32 16 --no-one-hot --encoder one_hot --activation tanh --seed 7 "
            "--ent-coef 0.1 --max-grad-norm 1 --num-goals 3 --run-dir somewhere"
        ).split(),
    )
    assert parsed.env.env == ("reach-v3", "push-v3")
    assert parsed.env.num_goals == 3
    assert not parsed.env.one_hot
    assert parsed.agent.combiner_kwargs == {"c": 0.9, "rescale": False}
    assert parsed.agent.agent_kwargs()["combiner"] == {"actor": "cagrad", "critic": "mgda"}
    assert parsed.policy.net_arch == (32, 16)
    assert parsed.seed == 7
    assert str(parsed.run_dir) == "somewhere"


def test_defaults_are_those_of_the_classes():
    agent = inspect.signature(MTSAC.__init__).parameters
    for name, value in vars(AgentConfig()).items():
        if name in agent:
            expected = agent[name].default
            assert value == ({} if name == "combiner_kwargs" and expected is None else expected), name
    env = inspect.signature(make_vec_env).parameters
    assert all(value == env[name].default for name, value in vars(EnvConfig()).items() if name in env)


@pytest.mark.parametrize("name", list_presets())
def test_presets_load_build_and_give_the_source_of_every_value(name):
    config = load_config(preset_path(name))
    lines = preset_path(name).read_text().splitlines()
    assert lines[0].startswith("# "), "the first line says what it is for"
    for line in lines:
        key, _, value = line.partition(":")
        if value.split("#")[0].strip() and not key.startswith("#"):
            assert "#" in line, f"{name}: where does {line!r} come from?"
    env = make_env(EnvConfig(env=("toy-reach",), one_hot=config.env.one_hot), seed=0)
    assert make_agent(config, env).num_tasks == 4


def test_a_linear_schedule_ends_at_zero():
    agent = make_agent(
        TrainConfig(agent=AgentConfig(learning_rate=0.1, lr_schedule="linear", batch_size=8)),
        make_env(EnvConfig(env=("toy-reach",)), seed=0),
    )
    assert [agent.lr_schedule(left) for left in (1.0, 0.5, 0.0)] == pytest.approx([0.1, 0.05, 0.0])


def test_a_saved_config_is_the_same_config(tmp_path):
    config = TrainConfig(
        env=EnvConfig(env=("toy-reach",), num_goals=None),
        agent=AgentConfig(combiner_kwargs={"c": 0.3, "form": "paper"}, learning_rate=1e-4),
        policy=PolicyConfig(net_arch=(8, 9)),
        run_dir=tmp_path,
        max_minutes=1.5,
    )
    save_config(config, tmp_path / "config.yaml", {"python": "3"})
    assert load_config(tmp_path / "config.yaml") == config
    assert yaml.safe_load((tmp_path / "config.yaml").read_text())["versions"] == {"python": "3"}


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("agent: {learning_rat: 1}", "agent.learning_rat"),
        ("agent: {learning_rate: fast}", "agent.learning_rate"),
        ("agent: {heads: both}", "agent.heads"),
        ("env: {env: [MT10], horizon: 1.5}", "env.horizon"),
        ("envs: {}", "envs"),
        ("total_timesteps: many", "total_timesteps"),
        ("- a list", "sections"),
        ("a: [", "config"),
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
        preset_path("mt10_cqu")
