"""docs/recipes.md does what it says: its files are written outside of our package, its other blocks run beside them."""

from __future__ import annotations

import re
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from mtrl_imgrad import make_vec_env
from mtrl_imgrad.agents import MTTD3
from mtrl_imgrad.supervised.models import split_parameters
from tests.support.paths import DOCS
from tests.support.registries import forget_registrations

BLOCK = re.compile(r'^```(\w+)(?: title="([^"]+)")?\n(.*?)^```', re.MULTILINE | re.DOTALL)


@pytest.fixture(autouse=True)
def elsewhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """A folder of the reader's own, on the path; modules and registrations are forgotten after the test."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(tmp_path)
    forget_registrations(monkeypatch)
    yield
    for file in tmp_path.glob("*.py"):
        sys.modules.pop(file.stem, None)


def follow(title: str) -> dict[str, Any]:
    """Do what a section says; the names that its blocks leave behind."""
    sections = re.split(r"^## ", (DOCS / "recipes.md").read_text(encoding="utf-8"), flags=re.MULTILINE)
    (section,) = [text for text in sections if text.startswith(f"{title}\n")]
    names: dict[str, Any] = {}
    for language, file, code in BLOCK.findall(section):
        if file:
            Path(file).write_text(code, encoding="utf-8")
        elif language == "python":
            exec(compile(code, f"recipes.md, {title}", "exec"), names)
    return names


def test_a_combiner() -> None:
    names = follow("A combiner")
    assert names["answer"].weights.tolist() == pytest.approx([1 / 6, 5 / 6])
    combiner, agent = names["combiner"], names["agent"]
    second = combiner(torch.tensor([[0.0, 1.0], [0.0, 1.0]]))  # averages: 3 and 1
    assert second.weights.tolist() == pytest.approx([1 / 4, 3 / 4])
    other = type(combiner)(decay=0.5)
    other.load_state_dict(combiner.state_dict())
    third = torch.tensor([[2.0, 0.0], [0.0, 4.0]])
    assert other(third).weights.tolist() == combiner(third).weights.tolist()
    assert agent._n_updates > 0
    agent.save("agent")
    loaded = type(agent).load("agent")
    assert loaded.critic_combiner.state_dict().keys() == agent.critic_combiner.state_dict().keys()


def test_an_encoder() -> None:
    names = follow("An encoder")
    agent = names["agent"]
    assert type(agent.policy.actor.encoder) is names["ScaledInputs"]
    assert agent._n_updates > 0
    encoder, scales = agent.policy.actor.encoder, agent.policy.actor.encoder.scales
    task = torch.zeros(3, 4)
    task[:, 1] = 1
    encoder.zero_grad()
    encoder(torch.ones(3, 4), task).sum().backward()
    (table,) = scales.parameters()
    assert table.grad[1].abs().min() > 0
    assert table.grad[[0, 2, 3]].abs().max() == 0, "a task's loss reaches its own row alone"


def test_an_agent() -> None:
    names = follow("An agent")
    ours, arguments = names["agent"], names["arguments"]
    assert names["config"].agent.name == "mtmeantd3"
    theirs = MTTD3("MlpPolicy", names["env"], **arguments).learn(40)
    assert ours._n_updates == theirs._n_updates > 2
    before = MTTD3("MlpPolicy", names["env"], **arguments)
    for agent in (ours, theirs):
        assert not torch.equal(*(flat(one.policy.actor) for one in (agent, before))), "the actor has learned"
    assert not torch.equal(flat(ours.policy.actor), flat(theirs.policy.actor)), "by another loss"
    ours.save_checkpoint("checkpoint")
    loaded = type(ours).load_checkpoint("checkpoint", names["env"], device="cpu")
    assert torch.equal(flat(loaded.policy), flat(ours.policy))


def flat(module: torch.nn.Module) -> torch.Tensor:
    return torch.cat([parameter.detach().flatten() for parameter in module.parameters()])


def test_a_simulator() -> None:
    names = follow("A simulator")
    env = names["env"]
    assert (env.backend, env.num_envs) == ("line", 4)
    assert names["agent"]._n_updates > 0
    assert names["report"].successes.shape == (2, 2)
    other = make_vec_env("line", seed=0, num_envs_per_task=2)
    env.reset()
    actions = np.linspace(-1, 1, 4, dtype=np.float32)[:, None]
    env.step(actions)
    other.set_state(env.get_state())
    for _ in range(30):  # beyond the end of an episode
        ours, theirs = env.step(actions), other.step(actions)
        assert all(np.array_equal(a, b) for a, b in zip(ours[:3], theirs[:3], strict=True))


def test_a_data_set() -> None:
    names = follow("A data set")
    assert set(names["result"].results) == {"stripe", "distance"}
    (run,) = Path("runs").iterdir()
    assert run.name.startswith("stripes-imgrad")


def test_a_task_set() -> None:
    names = follow("A task set")
    assert names["env"].task_names == ["moon", "mars", "earth"]
    assert names["agent"]._n_updates > 0
    assert names["report"].returns.shape == (3, 1)


def test_a_loss_and_a_network() -> None:
    names = follow("A loss and a network")
    first, last = names["records"]
    assert last.train_losses["dots"] < first.train_losses["dots"]
    assert set(last.results["val"]["dots"]) == {"mae"}
    shared, own = split_parameters(names["trainer"].model, "cagrad")
    assert len(shared) == 2  # weight and bias of the convolution
    assert [len(parameters) for parameters in own.values()] == [2, 2]
