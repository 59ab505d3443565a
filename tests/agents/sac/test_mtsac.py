"""MTSAC as users meet it: learning, saving, SB3's tools, every encoder and combiner."""

import io

import numpy as np
import pytest
import torch
from stable_baselines3.common.callbacks import CheckpointCallback, EveryNTimesteps, StopTrainingOnMaxEpisodes
from stable_baselines3.common.evaluation import evaluate_policy
from stable_baselines3.common.logger import configure

from mtrl_imgrad.agents import MTSAC
from mtrl_imgrad.agents.encoders import Encoder, list_encoders
from mtrl_imgrad.agents.encoders.layers import mlp
from mtrl_imgrad.combiners import CAGrad, IMGrad, LinearScalarization, list_combiners
from mtrl_imgrad.envs import list_tasks, make_vec_env
from mtrl_imgrad.errors import TaskMismatchError
from mtrl_imgrad.gradients import split_parameters
from tests.support.agents.small import SMALL, make_agent, parameters_of
from tests.support.combiners.examples import example_arguments


def test_the_readme_lines():
    agent = MTSAC("MlpPolicy", make_vec_env("toy-reach", seed=0), combiner="imgrad", seed=0, learning_starts=100)
    agent.learn(total_timesteps=104)
    observations = agent.get_env().reset()
    actions, state = agent.predict(observations, deterministic=True)
    assert actions.shape == (4, 2)
    assert state is None
    assert np.array_equal(actions, agent.predict(observations, deterministic=True)[0])
    assert not np.array_equal(actions, agent.predict(observations, deterministic=False)[0])


@pytest.mark.parametrize("encoder", list_encoders())
def test_learn_save_load_predict_for_every_encoder(encoder, tmp_path):
    agent = make_agent(policy_kwargs={**SMALL, "encoder": encoder}).learn(84)
    agent.save(tmp_path / "agent")
    env = make_vec_env("toy-reach", seed=0)
    observations = env.reset()
    for loaded in (MTSAC.load(tmp_path / "agent"), MTSAC.load(tmp_path / "agent", env=env)):
        assert torch.equal(parameters_of(loaded), parameters_of(agent))
        assert torch.equal(loaded.log_ent_coef, agent.log_ent_coef)
        assert loaded.task_names == agent.task_names
        expected, _ = agent.predict(observations, deterministic=True)
        assert np.array_equal(loaded.predict(observations, deterministic=True)[0], expected)
    one = observations[2]
    assert np.allclose(agent.predict(one, deterministic=True)[0], expected[2], atol=1e-6)
    loaded.learn(4, reset_num_timesteps=False)
    assert loaded.num_timesteps == 88
    assert not torch.equal(parameters_of(loaded), parameters_of(agent))


def test_a_seed_determines_the_run():
    runs = [parameters_of(make_agent(seed=seed, combiner="imgrad").learn(92)) for seed in (1, 1, 2)]
    assert torch.equal(runs[0], runs[1])
    assert not torch.equal(runs[0], runs[2])


def test_get_and_set_parameters():
    source, target = make_agent(seed=1).learn(88), make_agent(seed=2)
    assert not torch.equal(parameters_of(source), parameters_of(target))
    target.set_parameters(source.get_parameters())
    assert torch.equal(parameters_of(source), parameters_of(target))


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
    agent = make_agent(ent_coef=ent_coef)
    temperature = agent.update.temperature.log_value
    assert temperature.shape == (size,)
    assert torch.allclose(temperature.exp(), torch.tensor(initial))
    agent.learn(88)
    moved = not torch.allclose(temperature.exp(), torch.tensor(initial), rtol=1e-4)
    assert moved == learned
    if learned:
        assert agent.log_ent_coef is temperature
        assert agent.ent_coef_tensor is None
    else:  # as in SB3
        assert agent.log_ent_coef is None
        assert agent.ent_coef_tensor.item() == pytest.approx(initial)


def test_a_combiner_each_for_actor_and_critic():
    agent = make_agent(combiner={"actor": "cagrad", "critic": IMGrad(c=0.8)}).learn(88)
    assert isinstance(agent.actor_combiner, CAGrad)
    assert agent.critic_combiner.c == 0.8
    shared = make_agent(combiner=IMGrad(c=0.7))
    assert shared.actor_combiner is not shared.critic_combiner, "state would mix"
    assert shared.actor_combiner.c == shared.critic_combiner.c == 0.7
    assert make_agent(combiner="imgrad", combiner_kwargs={"c": 0.1}).critic_combiner.c == 0.1
    assert isinstance(make_agent(combiner="linear_scalarization").actor_combiner, LinearScalarization)


def test_combiners_change_what_is_learned():
    runs = [parameters_of(make_agent(combiner=name).learn(92)) for name in ("linear_scalarization", "imgrad", "mgda")]
    assert not torch.allclose(runs[0], runs[1], atol=1e-4)
    assert not torch.allclose(runs[1], runs[2], atol=1e-4)


def test_train_freq_and_gradient_steps():
    assert make_agent(train_freq=5, gradient_steps=2, learning_starts=0).learn(40)._n_updates == 4
    assert make_agent(train_freq=2, gradient_steps=-1, learning_starts=0).learn(8)._n_updates == 8


def test_sb3_callbacks_and_logger(tmp_path):
    agent = make_agent(tensorboard_log=None, train_freq=10)
    agent.set_logger(configure(str(tmp_path), ["csv", "tensorboard", "json"]))
    seen = []
    agent.learn(
        2000,
        [
            CheckpointCallback(50, str(tmp_path), name_prefix="step"),
            EveryNTimesteps(100, _Note(seen)),
            StopTrainingOnMaxEpisodes(4),
        ],
        log_interval=4,
    )
    agent.logger.close()
    assert agent.num_timesteps < 2000, "SB3's stopping callback was not heard"
    assert seen[:2] == [100, 200]
    assert (tmp_path / "step_200_steps.zip").exists()
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
    agent = make_agent()
    agent.learn(1000, callback=lambda variables, _: variables["self"].num_timesteps < 100)
    assert agent.num_timesteps == 100


def test_progress_bar_prints_every_task(capsys):
    make_agent(train_freq=10).learn(200, progress_bar=True)
    out = capsys.readouterr().out
    assert all(f"{name} " in out for name in list_tasks("toy-reach"))


def test_num_envs_per_task_and_one_task_and_plain_gym_env():
    env = make_vec_env("toy-reach", seed=0, num_envs_per_task=3)
    agent = make_agent(env).learn(108)
    assert agent.num_timesteps == 108
    assert agent.replay_buffer.size() == 9
    assert make_agent("Pendulum-v1", learning_starts=50).learn(54)._n_updates == 4


def test_sb3_evaluate_policy_works_on_the_agent():
    agent = make_agent()
    mean, _ = evaluate_policy(agent, make_vec_env("toy-reach", seed=5), n_eval_episodes=8, warn=False)
    assert np.isfinite(mean)


def test_replay_buffer_can_be_saved_and_loaded(tmp_path):
    agent = make_agent().learn(80)
    agent.save_replay_buffer(tmp_path / "replay")
    other = make_agent()
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
    agent = make_agent().learn(80)
    agent.save_replay_buffer(tmp_path / "replay")
    for tasks in (agent.task_names[::-1], agent.task_names[:2]):
        other = make_agent(make_vec_env(tasks))
        own = other.replay_buffer
        with pytest.raises(TaskMismatchError, match="keeps its own"):
            other.load_replay_buffer(tmp_path / "replay")
        assert other.replay_buffer is own


@pytest.mark.parametrize("combiner", list_combiners())
def test_every_combiner_trains_the_agent(combiner):
    kwargs = example_arguments(combiner, 4, any_losses=True)
    optimizer = torch.optim.SGD if combiner == "adatask" else torch.optim.Adam
    agent = make_agent(combiner=combiner, combiner_kwargs=kwargs, policy_kwargs={**SMALL, "optimizer_class": optimizer})
    before = parameters_of(agent)
    agent.learn(92)
    assert torch.isfinite(parameters_of(agent)).all()
    assert not torch.equal(before, parameters_of(agent))


def test_adatask_brings_its_own_moments_so_the_optimizer_is_sgd():
    options = {**SMALL, "optimizer_class": torch.optim.SGD}
    agent = make_agent(combiner="adatask", policy_kwargs=options, learning_rate=1e-3)
    before = {name: value.clone() for name, value in split_parameters(agent.critic).shared.items()}
    agent.learn(92)
    moves = [(value - before[name]).abs().max() for name, value in split_parameters(agent.critic).shared.items()]
    # Adam's first steps are of length lr in every entry, those of several tasks on average at most so.
    assert 1e-4 < max(moves) < 1.5e-3 * agent._n_updates
    assert set(agent.critic_combiner.state_dict()) == {"first_moments", "second_moments", "steps"}


def test_a_torchjd_aggregator_trains_the_agent():
    aggregation = pytest.importorskip("torchjd.aggregation")
    from mtrl_imgrad.combiners.torchjd import TorchJDCombiner

    agent = make_agent(combiner=TorchJDCombiner(aggregation.IMTLG()))
    before = parameters_of(agent)
    agent.learn(88)
    assert torch.isfinite(parameters_of(agent)).all()
    assert not torch.equal(before, parameters_of(agent))


class _TinyEncoder(Encoder):
    name = "tiny"

    def __init__(self, spec):
        super().__init__(spec)
        self.net = mlp(spec.in_features + spec.num_tasks, spec, spec.out_features)

    def forward(self, inputs, task):
        return self.net(torch.cat([inputs, task], -1))


def test_an_encoder_of_the_users_own():
    agent = make_agent(policy_kwargs={**SMALL, "encoder": _TinyEncoder}).learn(88)
    assert isinstance(agent.actor.encoder, _TinyEncoder)
    mixed = make_agent(policy_kwargs={**SMALL, "encoder": {"pi": "embedding", "qf": "multi_head"}})
    assert mixed.actor.encoder.name == "embedding"
    assert mixed.critic.q_networks[0].name == "multi_head"


def test_saving_to_a_stream():
    stream = io.BytesIO()
    agent = make_agent()
    agent.save(stream)
    stream.seek(0)
    assert torch.equal(parameters_of(MTSAC.load(stream)), parameters_of(agent))


def test_target_update_interval():
    agent = make_agent(target_update_interval=3, gradient_steps=0, learning_starts=0).learn(80)
    moved = []
    for _ in range(6):
        before = agent.critic_target.state_dict()["q_networks.0.trunk.0.weight"].clone()
        agent.train(1)
        moved.append(not torch.equal(before, agent.critic_target.state_dict()["q_networks.0.trunk.0.weight"]))
    assert moved == [True, False, False, True, False, False]
