"""MTSAC as a user meets it: SB3's interface, options, errors, reproducibility."""

import io

import numpy as np
import pytest
import torch
from stable_baselines3.common.callbacks import CheckpointCallback, EveryNTimesteps, StopTrainingOnMaxEpisodes
from stable_baselines3.common.evaluation import evaluate_policy
from stable_baselines3.common.logger import configure

from mtrl_imgrad.agents import MTSAC
from mtrl_imgrad.agents.encoders import Encoder, list_encoders, make_encoder
from mtrl_imgrad.agents.encoders.layers import mlp
from mtrl_imgrad.combiners import CAGrad, IMGrad, LinearScalarization, list_combiners
from mtrl_imgrad.envs import list_tasks, make_vec_env
from mtrl_imgrad.errors import (
    ArgumentError,
    EnvironmentFaultError,
    NonFiniteError,
    TaskMismatchError,
    UnknownNameError,
)
from mtrl_imgrad.gradients import split_parameters
from tests.support.combiners.examples import example_arguments

SMALL = {"net_arch": [16, 16]}


def _agent(env=None, **kwargs):
    kwargs = {"policy_kwargs": SMALL, "learning_starts": 80, "batch_size": 32, "seed": 0, "device": "cpu", **kwargs}
    # Recording changes no number (test_update) and costs most of a short run's time.
    return MTSAC("MlpPolicy", env or make_vec_env("toy-reach", seed=0), **{"trace": False, **kwargs})


def _parameters(agent):
    return torch.cat([p.detach().flatten() for p in agent.policy.parameters()])


def test_the_readme_lines():
    agent = MTSAC("MlpPolicy", make_vec_env("toy-reach", seed=0), combiner="imgrad", seed=0, learning_starts=100)
    agent.learn(total_timesteps=120)
    observations = agent.get_env().reset()
    actions, state = agent.predict(observations, deterministic=True)
    assert actions.shape == (4, 2)
    assert state is None
    assert np.array_equal(actions, agent.predict(observations, deterministic=True)[0])
    assert not np.array_equal(actions, agent.predict(observations, deterministic=False)[0])


@pytest.mark.parametrize("encoder", list_encoders())
def test_learn_save_load_predict_for_every_encoder(encoder, tmp_path):
    agent = _agent(policy_kwargs={**SMALL, "encoder": encoder}).learn(96)
    agent.save(tmp_path / "agent")
    env = make_vec_env("toy-reach", seed=0)
    observations = env.reset()
    for loaded in (MTSAC.load(tmp_path / "agent"), MTSAC.load(tmp_path / "agent", env=env)):
        assert torch.equal(_parameters(loaded), _parameters(agent))
        assert torch.equal(loaded.log_ent_coef, agent.log_ent_coef)
        assert loaded.task_names == agent.task_names
        expected, _ = agent.predict(observations, deterministic=True)
        assert np.array_equal(loaded.predict(observations, deterministic=True)[0], expected)
    one = observations[2]
    assert np.allclose(agent.predict(one, deterministic=True)[0], expected[2], atol=1e-6)
    loaded.learn(16, reset_num_timesteps=False)
    assert loaded.num_timesteps == 112


def test_a_seed_determines_the_run():
    runs = [_parameters(_agent(seed=seed, combiner="imgrad").learn(160)) for seed in (1, 1, 2)]
    assert torch.equal(runs[0], runs[1])
    assert not torch.equal(runs[0], runs[2])


def test_get_and_set_parameters():
    source, target = _agent(seed=1).learn(100), _agent(seed=2)
    assert not torch.equal(_parameters(source), _parameters(target))
    target.set_parameters(source.get_parameters())
    assert torch.equal(_parameters(source), _parameters(target))


@pytest.mark.parametrize(
    ("ent_coef", "size", "learned", "initial"),
    [
        ("auto", 4, True, 1.0),
        ("auto_0.3", 4, True, 0.3),
        ("shared", 1, True, 1.0),
        ("shared_0.3", 1, True, 0.3),
        (0.25, 4, False, 0.25),
        ("0.25", 4, False, 0.25),
    ],
)
def test_temperature_options(ent_coef, size, learned, initial):
    agent = _agent(ent_coef=ent_coef)
    temperature = agent.update.temperature.log_value
    assert temperature.shape == (size,)
    assert torch.allclose(temperature.exp(), torch.tensor(initial))
    agent.learn(120)
    moved = not torch.allclose(temperature.exp(), torch.tensor(initial), rtol=1e-4)
    assert moved == learned
    if learned:
        assert agent.log_ent_coef is temperature
        assert agent.ent_coef_tensor is None
    else:  # as in SB3
        assert agent.log_ent_coef is None
        assert agent.ent_coef_tensor.item() == pytest.approx(initial)


def test_a_combiner_each_for_actor_and_critic():
    agent = _agent(combiner={"actor": "cagrad", "critic": IMGrad(c=0.8)}).learn(100)
    assert isinstance(agent.actor_combiner, CAGrad)
    assert agent.critic_combiner.c == 0.8
    shared = _agent(combiner=IMGrad(c=0.7))
    assert shared.actor_combiner is not shared.critic_combiner, "state would mix"
    assert shared.actor_combiner.c == shared.critic_combiner.c == 0.7
    assert _agent(combiner="imgrad", combiner_kwargs={"c": 0.1}).critic_combiner.c == 0.1
    assert isinstance(_agent(combiner="linear_scalarization").actor_combiner, LinearScalarization)


def test_combiners_change_what_is_learned():
    runs = [_parameters(_agent(combiner=name).learn(160)) for name in ("linear_scalarization", "imgrad", "mgda")]
    assert not torch.allclose(runs[0], runs[1], atol=1e-4)
    assert not torch.allclose(runs[1], runs[2], atol=1e-4)


def test_train_freq_and_gradient_steps():
    assert _agent(train_freq=5, gradient_steps=2, learning_starts=0).learn(200)._n_updates == 20
    assert _agent(train_freq=2, gradient_steps=-1, learning_starts=0).learn(24)._n_updates == 24


def test_sb3_callbacks_and_logger(tmp_path):
    agent = _agent(tensorboard_log=None, train_freq=10)
    agent.set_logger(configure(str(tmp_path), ["csv", "tensorboard", "json"]))
    seen = []
    agent.learn(
        2000,
        [
            CheckpointCallback(100, str(tmp_path), name_prefix="step"),
            EveryNTimesteps(400, _Note(seen)),
            StopTrainingOnMaxEpisodes(10),
        ],
        log_interval=4,
    )
    agent.logger.close()
    assert agent.num_timesteps < 2000, "SB3's stopping callback was not heard"
    assert seen[:2] == [400, 800]
    assert (tmp_path / "step_400_steps.zip").exists()
    header = (tmp_path / "progress.csv").read_text().splitlines()[0].split(",")
    for tag in (
        "rollout/ep_rew_mean",
        "rollout/success_rate",
        "rollout/success_rate/toy-reach/left",
        "time/fps",
        "train/actor_loss",
        "train/critic_loss",
        "train/critic_loss/toy-reach/left",
        "train/ent_coef",
        "train/ent_coef/toy-reach/left",
        "train/n_updates",
    ):
        assert tag in header


class _Note(CheckpointCallback):
    def __init__(self, seen):
        super().__init__(1, "unused")
        self.seen = seen

    def _on_step(self):
        self.seen.append(self.num_timesteps)
        return True

    def _init_callback(self):
        pass


def test_a_functional_callback_can_stop():
    agent = _agent()
    agent.learn(1000, callback=lambda variables, _: variables["self"].num_timesteps < 200)
    assert agent.num_timesteps == 200


def test_progress_bar_prints_every_task(capsys):
    _agent(train_freq=10).learn(400, progress_bar=True)
    out = capsys.readouterr().out
    assert all(f"{name} " in out for name in list_tasks("toy-reach"))


def test_num_envs_per_task_and_one_task_and_plain_gym_env():
    env = make_vec_env("toy-reach", seed=0, num_envs_per_task=3)
    agent = _agent(env).learn(240)
    assert agent.num_timesteps == 240
    assert agent.replay_buffer.size() == 20
    assert _agent("Pendulum-v1", learning_starts=50).learn(80)._n_updates == 30


def test_sb3_evaluate_policy_works_on_the_agent():
    agent = _agent()
    mean, _ = evaluate_policy(agent, make_vec_env("toy-reach", seed=5), n_eval_episodes=8, warn=False)
    assert np.isfinite(mean)


def test_replay_buffer_can_be_saved_and_loaded(tmp_path):
    agent = _agent().learn(120)
    agent.save_replay_buffer(tmp_path / "replay")
    other = _agent()
    other.load_replay_buffer(tmp_path / "replay")
    assert other.replay_buffer.size() == agent.replay_buffer.size()
    torch.testing.assert_close(
        agent.replay_buffer.sample(32),
        other.replay_buffer.sample(32),
        rtol=0,
        atol=0,
        msg="the generator was not saved",
    )


def test_a_replay_buffer_of_other_tasks_is_refused(tmp_path):
    agent = _agent().learn(80)
    agent.save_replay_buffer(tmp_path / "replay")
    for tasks in (agent.task_names[::-1], agent.task_names[:2]):
        other = _agent(make_vec_env(tasks))
        own = other.replay_buffer
        with pytest.raises(TaskMismatchError, match="keeps its own"):
            other.load_replay_buffer(tmp_path / "replay")
        assert other.replay_buffer is own


@pytest.mark.parametrize("combiner", list_combiners())
def test_every_combiner_trains_the_agent(combiner):
    kwargs = example_arguments(combiner, 4, any_losses=True)
    optimizer = torch.optim.SGD if combiner == "adatask" else torch.optim.Adam
    agent = _agent(combiner=combiner, combiner_kwargs=kwargs, policy_kwargs={**SMALL, "optimizer_class": optimizer})
    before = _parameters(agent)
    agent.learn(104)
    assert torch.isfinite(_parameters(agent)).all()
    assert not torch.equal(before, _parameters(agent))


@pytest.mark.parametrize("combiner", ["si", {"actor": "gls", "critic": "linear_scalarization"}])
def test_losses_that_a_combiner_cannot_weigh_stop_the_training_and_are_told(combiner):
    agent = _agent(combiner=combiner, ent_coef=1e-6)
    with pytest.raises(NonFiniteError, match=r"cannot weigh the actor losses, of which the lowest is -.*lower_bound"):
        agent.learn(400)
    assert torch.isfinite(_parameters(agent)).all()


def test_adatask_brings_its_own_moments_so_the_optimizer_is_sgd():
    options = {**SMALL, "optimizer_class": torch.optim.SGD}
    agent = _agent(combiner="adatask", policy_kwargs=options, learning_rate=1e-3)
    before = {name: value.clone() for name, value in split_parameters(agent.critic).shared.items()}
    agent.learn(120)
    moves = [(value - before[name]).abs().max() for name, value in split_parameters(agent.critic).shared.items()]
    # Adam's first steps are of length lr in every entry, those of several tasks on average at most so.
    assert 1e-4 < max(moves) < 1.5e-3 * agent._n_updates
    assert set(agent.critic_combiner.state_dict()) == {"first_moments", "second_moments", "steps"}


def test_a_torchjd_aggregator_trains_the_agent():
    aggregation = pytest.importorskip("torchjd.aggregation")
    from mtrl_imgrad.combiners.torchjd import TorchJDCombiner

    agent = _agent(combiner=TorchJDCombiner(aggregation.IMTLG()))
    before = _parameters(agent)
    agent.learn(120)
    assert torch.isfinite(_parameters(agent)).all()
    assert not torch.equal(before, _parameters(agent))


def test_a_method_that_asks_for_two_rows_a_task_is_refused():
    with pytest.raises(ArgumentError, match="asks for 2 rows a task"):
        _agent(combiner="sdmgrad", combiner_kwargs={"halves": True})


@pytest.mark.parametrize("layer", [torch.nn.Dropout(0.1), torch.nn.BatchNorm1d(8)])
def test_layers_that_would_go_wrong_in_silence_are_refused(layer):
    class Bad(Encoder):
        name = "bad"

        def __init__(self, spec):
            super().__init__(spec)
            self.layer = layer

        def forward(self, inputs, task):
            return inputs

    with pytest.raises(ArgumentError, match="layer 'layer'"):
        _agent(policy_kwargs={**SMALL, "encoder": Bad})


class _TinyEncoder(Encoder):
    name = "tiny"

    def __init__(self, spec):
        super().__init__(spec)
        self.net = mlp(spec.in_features + spec.num_tasks, spec, spec.out_features)

    def forward(self, inputs, task):
        return self.net(torch.cat([inputs, task], -1))


def test_an_encoder_of_the_users_own():
    agent = _agent(policy_kwargs={**SMALL, "encoder": _TinyEncoder}).learn(120)
    assert isinstance(agent.actor.encoder, _TinyEncoder)
    mixed = _agent(policy_kwargs={**SMALL, "encoder": {"pi": "embedding", "qf": "multi_head"}})
    assert mixed.actor.encoder.name == "embedding"
    assert mixed.critic.q_networks[0].name == "multi_head"


# ------------------------------------------------------------------ bad input


@pytest.mark.parametrize(
    ("kwargs", "error", "says"),
    [
        ({"combiner": "imgard"}, UnknownNameError, "Did you mean 'imgrad'"),
        ({"combiner": {"actor": "imgrad"}}, ArgumentError, "'actor' and 'critic'"),
        ({"combiner": "imgrad", "combiner_kwargs": {"d": 1}}, ArgumentError, "'d'"),
        ({"batch_size": 30}, ArgumentError, "batch_size must be a multiple of the 4 tasks"),
        ({"batch_size": 0}, ArgumentError, "batch_size"),
        ({"buffer_size": 3}, ArgumentError, "buffer_size"),
        ({"gamma": 1.5}, ArgumentError, "gamma"),
        ({"gamma": "x"}, ArgumentError, "gamma"),
        ({"batch_size": 16.0}, ArgumentError, "batch_size"),
        ({"batch_size": -4, "sampling": "uniform"}, ArgumentError, "batch_size"),
        ({"buffer_size": 1e5}, ArgumentError, "buffer_size"),
        ({"target_update_interval": 0}, ArgumentError, "target_update_interval"),
        ({"gradient_steps": -5}, ArgumentError, "gradient_steps"),
        ({"stats_window_size": 0}, ArgumentError, "stats_window_size"),
        ({"seed": -1}, ArgumentError, "seed"),
        ({"learning_rate": "3e-4"}, ArgumentError, "learning_rate"),
        ({"learning_rate": -1.0}, ArgumentError, "learning_rate"),
        ({"ent_coef": True}, ArgumentError, "ent_coef"),
        ({"target_entropy": float("nan")}, ArgumentError, "target_entropy"),
        ({"combiner": ["imgrad"]}, ArgumentError, "combiner"),
        ({"combiner_kwargs": "c=1"}, ArgumentError, "combiner_kwargs"),
        ({"policy_kwargs": {"net": [4]}}, ArgumentError, "policy_kwargs takes no 'net'"),
        ({"policy_kwargs": {"net_arch": 64}}, ArgumentError, "net_arch"),
        ({"policy_kwargs": {"encoder": {"pi": "one_hot"}}}, ArgumentError, "'pi' and 'qf'"),
        ({"policy_kwargs": {"activation_fn": "relu"}}, ArgumentError, "activation_fn"),
        ({"replay_buffer_kwargs": {"seed": 1}}, ArgumentError, "replay_buffer_kwargs takes no 'seed'"),
        ({"tau": -0.1}, ArgumentError, "tau"),
        ({"max_grad_norm": 0.0}, ArgumentError, "max_grad_norm"),
        ({"heads": "both"}, ArgumentError, "heads"),
        ({"ent_coef": "atuo"}, ArgumentError, "ent_coef"),
        ({"ent_coef": "auto_-1"}, ArgumentError, "ent_coef"),
        ({"target_entropy": "low"}, ArgumentError, "target_entropy"),
        ({"sampling": "balance"}, ArgumentError, "sampling"),
        ({"reward_normalization": "max"}, ArgumentError, "reward_normalization"),
        ({"policy_kwargs": {"encoder": "moe"}}, UnknownNameError, "encoder"),
        ({"policy_kwargs": {"encoder": "embedding", "encoder_kwargs": {"dim": 3}}}, ArgumentError, "encoder_kwargs"),
        ({"policy_kwargs": {"net_arch": [0]}}, ArgumentError, "net_arch"),
        ({"policy_kwargs": {"net_arch": {"pi": [4]}}}, ArgumentError, "'pi' and 'qf'"),
        ({"policy_kwargs": {"n_critics": 0}}, ArgumentError, "n_critics"),
    ],
)
def test_bad_arguments_name_themselves(kwargs, error, says):
    with pytest.raises(error, match=says):
        _agent(**kwargs)


def test_environments_with_other_tasks_are_refused(tmp_path):
    agent = _agent()
    names = agent.task_names
    for tasks, says in ((names[:3], "3 tasks"), (names[::-1], "task 0"), (None, "one_hot")):
        other = make_vec_env(tasks or "toy-reach", one_hot=tasks is not None)
        with pytest.raises(TaskMismatchError, match=says):
            agent.set_env(other)
    agent.save(tmp_path / "agent")
    with pytest.raises(TaskMismatchError, match="task 0"):
        MTSAC.load(tmp_path / "agent", env=make_vec_env(names[::-1]))
    with pytest.raises(TaskMismatchError, match="3 environments a task"):
        agent.set_env(make_vec_env("toy-reach", num_envs_per_task=3))
    agent.set_env(make_vec_env("toy-reach", seed=9))
    agent.learn(40)


def test_encoders_that_need_the_task_say_so():
    env = make_vec_env("toy-reach", one_hot=False)
    with pytest.raises(ArgumentError, match="one_hot=False"):
        _agent(env, policy_kwargs={**SMALL, "encoder": "multi_head"})
    _agent(env, policy_kwargs={**SMALL, "encoder": "one_hot"}).learn(120)
    with pytest.raises(ArgumentError, match="encoder must be a string or a class of Encoder"):
        make_encoder(3, None)


def test_a_nan_reward_stops_learning_at_once_and_parameters_stay_finite():
    env = make_vec_env("toy-reach", seed=0)
    agent = _agent(env).learn(100)
    step = env.step_wait

    def poisoned():
        observations, rewards, dones, infos = step()
        rewards = rewards.copy()
        rewards[2] = np.nan
        return observations, rewards, dones, infos

    env.step_wait = poisoned
    with pytest.raises((NonFiniteError, EnvironmentFaultError), match=r"reward.*env 2.*toy-reach"):
        agent.learn(200, reset_num_timesteps=False)
    assert torch.isfinite(_parameters(agent)).all()
    env.step_wait = step
    agent.learn(40, reset_num_timesteps=False)


def test_a_nan_gradient_is_not_applied_and_names_the_task():
    agent = _agent(combiner="imgrad", policy_kwargs={**SMALL, "encoder": "multi_head"}).learn(100)
    agent.critic.q_networks[0].heads.weight.data[1] = torch.nan
    before = agent.actor.state_dict()["encoder.trunk.0.weight"].clone()
    with pytest.raises(NonFiniteError, match=agent.task_names[1]):
        agent.train(1)
    assert torch.equal(agent.actor.state_dict()["encoder.trunk.0.weight"], before)
    assert torch.isfinite(agent.log_ent_coef).all()


def test_saving_to_a_stream():
    stream = io.BytesIO()
    agent = _agent()
    agent.save(stream)
    stream.seek(0)
    assert torch.equal(_parameters(MTSAC.load(stream)), _parameters(agent))


def test_target_update_interval():
    agent = _agent(target_update_interval=3, gradient_steps=0, learning_starts=0).learn(80)
    moved = []
    for _ in range(6):
        before = agent.critic_target.state_dict()["q_networks.0.trunk.0.weight"].clone()
        agent.train(1)
        moved.append(not torch.equal(before, agent.critic_target.state_dict()["q_networks.0.trunk.0.weight"]))
    assert moved == [True, False, False, True, False, False]


def test_adam_on_top_of_adatask_s_step_is_warned_of():
    for combiner in ("adatask", {"actor": "imgrad", "critic": "adatask"}):
        with pytest.warns(UserWarning, match=r"adatask makes an optimizer's step; Adam .* --optimizer sgd"):
            _agent(combiner=combiner)
    _agent(combiner="adatask", policy_kwargs={**SMALL, "optimizer_class": torch.optim.SGD})  # warnings are errors


@pytest.mark.parametrize(
    ("combiner", "kwargs"),
    [
        ("cotbal", {"mini": [1.0], "single": [[2.0]]}),
        ("linear_scalarization", {"task_weights": [1.0, 2.0]}),
        ("famo", {"lower_bound": [0.0, 0.0]}),
    ],
)
def test_arguments_for_another_number_of_tasks_are_told_at_construction(combiner, kwargs):
    with pytest.raises(ArgumentError, match=f"of {combiner} must hold an entry for each of the 4 tasks"):
        _agent(combiner=combiner, combiner_kwargs=kwargs)
