"""Arguments, environments and numbers that MTSAC refuses, by name."""

import numpy as np
import pytest
import torch

from mtrl_imgrad.agents import MTSAC
from mtrl_imgrad.agents.encoders import Encoder, make_encoder
from mtrl_imgrad.envs import make_vec_env
from mtrl_imgrad.errors import (
    ArgumentError,
    EnvironmentFaultError,
    NonFiniteError,
    TaskMismatchError,
    UnknownNameError,
)
from tests.support.agents.small import SMALL, make_agent, parameters_of


@pytest.mark.parametrize("combiner", ["si", {"actor": "gls", "critic": "linear_scalarization"}])
def test_losses_that_a_combiner_cannot_weigh_stop_the_training_and_are_told(combiner):
    agent = make_agent(combiner=combiner, ent_coef=1e-6)
    with pytest.raises(NonFiniteError, match=r"cannot weigh the actor losses, of which the lowest is -.*lower_bound"):
        agent.learn(400)
    assert torch.isfinite(parameters_of(agent)).all()


def test_a_method_that_asks_for_two_rows_a_task_is_refused():
    with pytest.raises(ArgumentError, match="asks for 2 rows a task"):
        make_agent(combiner="sdmgrad", combiner_kwargs={"halves": True})


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
        make_agent(policy_kwargs={**SMALL, "encoder": Bad})


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
        make_agent(**kwargs)


def test_environments_with_other_tasks_are_refused(tmp_path):
    agent = make_agent()
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
        make_agent(env, policy_kwargs={**SMALL, "encoder": "multi_head"})
    make_agent(env, policy_kwargs={**SMALL, "encoder": "one_hot"}).learn(120)
    with pytest.raises(ArgumentError, match="encoder must be a string or a class of Encoder"):
        make_encoder(3, None)


def test_a_nan_reward_stops_learning_at_once_and_parameters_stay_finite():
    env = make_vec_env("toy-reach", seed=0)
    agent = make_agent(env).learn(100)
    step = env.step_wait

    def poisoned():
        observations, rewards, dones, infos = step()
        rewards = rewards.copy()
        rewards[2] = np.nan
        return observations, rewards, dones, infos

    env.step_wait = poisoned
    with pytest.raises((NonFiniteError, EnvironmentFaultError), match=r"reward.*env 2.*toy-reach"):
        agent.learn(200, reset_num_timesteps=False)
    assert torch.isfinite(parameters_of(agent)).all()
    env.step_wait = step
    agent.learn(40, reset_num_timesteps=False)


def test_a_nan_gradient_is_not_applied_and_names_the_task():
    agent = make_agent(combiner="imgrad", policy_kwargs={**SMALL, "encoder": "multi_head"}).learn(100)
    agent.critic.q_networks[0].heads.weight.data[1] = torch.nan
    before = agent.actor.state_dict()["encoder.trunk.0.weight"].clone()
    with pytest.raises(NonFiniteError, match=agent.task_names[1]):
        agent.train(1)
    assert torch.equal(agent.actor.state_dict()["encoder.trunk.0.weight"], before)
    assert torch.isfinite(agent.log_ent_coef).all()


def test_adam_on_top_of_adatask_s_step_is_warned_of():
    for combiner in ("adatask", {"actor": "imgrad", "critic": "adatask"}):
        with pytest.warns(UserWarning, match=r"adatask makes an optimizer's step; Adam .* --optimizer sgd"):
            make_agent(combiner=combiner)
    make_agent(combiner="adatask", policy_kwargs={**SMALL, "optimizer_class": torch.optim.SGD})  # warnings are errors


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
        make_agent(combiner=combiner, combiner_kwargs=kwargs)


def test_an_encoder_that_branches_on_values_is_refused_with_the_way_out():
    class Branching(Encoder):
        name = "branching"
        needs_task = False

        def __init__(self, spec):
            super().__init__(spec)
            self.layer = torch.nn.Linear(spec.in_features, spec.out_features)

        def forward(self, inputs, task):
            return self.layer(inputs) if float(inputs.sum()) > 0 else -self.layer(inputs)

    agent = make_agent(policy_kwargs={**SMALL, "encoder": Branching}, trace=True)
    with pytest.raises(ArgumentError, match="torch.where"):
        agent.learn(200)
