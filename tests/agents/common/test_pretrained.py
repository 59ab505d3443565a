import json
import runpy

import numpy as np
import pytest
import torch

from mtrl_imgrad.agents import MTPPO, MTSAC, list_pretrained
from mtrl_imgrad.agents.common import pretrained
from mtrl_imgrad.agents.common.pretrained import pretrained_card
from mtrl_imgrad.agents.registry import agent_class
from mtrl_imgrad.cli import main
from mtrl_imgrad.envs import make_vec_env
from mtrl_imgrad.errors import ArgumentError, TaskMismatchError, UnknownNameError
from mtrl_imgrad.evaluation import evaluate_success
from tests.support.paths import ROOT

SMALL = (
    "--agent mtppo --env toy-reach --total-timesteps 64 --n-steps 8 --batch-size 16 --n-epochs 1 --net-arch 4 "
    "--eval-freq 0 --eval-episodes 1 --final-episodes 1 --checkpoint-every 0 --no-progress-bar --no-trace"
).split()


@pytest.fixture(scope="module")
def shipped(tmp_path_factory):
    """A run, and the agent that the tool made of it, where the shipped ones lie."""
    folder = tmp_path_factory.mktemp("pretrained")
    assert main(["train", *SMALL, "--run-dir", str(folder / "run")]) == 0
    tool = runpy.run_path(str(ROOT / "tools" / "make_pretrained.py"))
    tool["main"]([str(folder / "run"), "toy", "--folder", str(folder / "agents")])
    return folder


@pytest.fixture(autouse=True)
def _where(request, monkeypatch):
    if "shipped" in request.fixturenames:
        monkeypatch.setattr(pretrained, "FOLDER", request.getfixturevalue("shipped") / "agents")


def test_the_shipped_agent_is_that_of_the_run(shipped):
    assert list_pretrained() == ["toy"]
    state = torch.random.get_rng_state()
    agent = MTPPO.from_pretrained("toy", device="cpu")
    assert torch.equal(state, torch.random.get_rng_state())
    original = MTPPO.load(shipped / "run" / "model", device="cpu")
    observations = make_vec_env("toy-reach", seed=0).reset()
    np.testing.assert_array_equal(
        agent.predict(observations, deterministic=True)[0], original.predict(observations, deterministic=True)[0]
    )
    assert agent.num_timesteps == original.num_timesteps == 64
    assert agent.task_names == original.task_names
    report = evaluate_success(agent, make_vec_env("toy-reach", seed=10_000), 1)
    saved = json.loads(pretrained_card("toy")["evaluation"])
    assert report.mean_success == saved["mean_success"]


def test_its_card_says_where_it_comes_from(shipped):
    card = pretrained_card("toy")
    assert card["agent"] == "MTPPO"
    assert card["timesteps"] == 64
    assert json.loads(card["config"])["agent"]["n_steps"] == 8
    assert str(shipped) not in json.dumps(card)


def test_it_goes_on_learning(shipped):
    agent = MTPPO.from_pretrained("toy", make_vec_env("toy-reach", seed=1), device="cpu")
    agent.learn(32, reset_num_timesteps=False)
    assert agent.num_timesteps == 96


def test_there_is_no_pickle_in_it(shipped):
    names = {file.suffix for file in (shipped / "agents" / "toy").iterdir()}
    assert names <= {".json", ".safetensors"}


def test_wrong_names_classes_and_tasks_are_refused(shipped):
    with pytest.raises(UnknownNameError, match="Did you mean 'toy'"):
        MTPPO.from_pretrained("toyy")
    with pytest.raises(ArgumentError, match="is of MTPPO, not of MTSAC"):
        MTSAC.from_pretrained("toy")
    with pytest.raises(TaskMismatchError):
        MTPPO.from_pretrained("toy", make_vec_env(["toy-reach/left", "toy-reach/right"]))


def test_every_agent_in_the_package_loads_and_acts():
    for name in list_pretrained():
        card = pretrained_card(name)
        agent = agent_class(card["agent"].lower()).from_pretrained(name, device="cpu")
        action, _ = agent.predict(np.zeros(agent.observation_space.shape, np.float32), deterministic=True)
        assert agent.action_space.contains(action)


def test_the_laptop_agent_plays():
    """Tasks that it succeeded in 50 of 50 times, on goals it has not seen; an untrained agent never does."""
    agent = MTPPO.from_pretrained("mt10_laptop", device="cpu")
    names = ["reach-v3", "drawer-open-v3", "door-open-v3"]
    env = make_vec_env(
        names, seed=30_000, backend="metaworld", terminate_on_success=True, horizon=200, one_hot=False
    )  # the other seven would take most of the time
    bits = np.eye(10, dtype=np.float32)[[agent.task_names.index(name) for name in names]]

    class Player:
        """The agent, told which of its ten tasks these are."""

        def predict(self, observations, *, deterministic):
            return agent.predict(np.concatenate([observations, bits], axis=1), deterministic=deterministic)

    report = evaluate_success(Player(), env, 1)
    env.close()
    assert report.successes.mean(1).sum() >= 2, dict(zip(names, report.successes, strict=True))
