"""The README's Python runs as it stands there, on the toy set and for a moment."""

import re
import shlex

import pytest
import torch

from mtrl_imgrad import cli, make_combiner
from mtrl_imgrad.experiments.config_files import save_config
from mtrl_imgrad.experiments.rl.config import train_config_class
from mtrl_imgrad.experiments.supervised.config import SupervisedConfig
from tests.support.paths import ROOT

README = ROOT / "README.md"


def _blocks():
    return re.findall(r"```python\n(.*?)```", README.read_text(encoding="utf-8"), flags=re.DOTALL)


def test_training_lines(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    code = _blocks()[0]
    for here, there in (
        ('"MT10", seed=1, backend="metaworld"', '"toy-reach", seed=1'),
        ('"MT10"', '"toy-reach"'),
        ("[400, 400, 400]", "[16]"),
        ("2_000_000", "400"),
        ("eval_freq=10_000, n_eval_episodes=10", "eval_freq=50, n_eval_episodes=1"),
        ("n_episodes=50", "n_episodes=1"),
        ("seed=0,\n)", "seed=0, learning_starts=100, batch_size=16)"),
    ):
        assert here in code, f"the README no longer says {here}"
        code = code.replace(here, there)
    exec(compile(code, "README.md", "exec"), {})
    assert (tmp_path / "mt10_imgrad.zip").exists()


def test_backward_lines():
    trunk, heads = torch.nn.Linear(3, 4), torch.nn.Linear(4, 2)
    outputs = heads(trunk(torch.ones(5, 3)).tanh())
    losses = {"loss_a": outputs[:, 0].square().mean(), "loss_b": (outputs[:, 1] - 1).square().mean()}
    optimizer = torch.optim.SGD([*trunk.parameters(), *heads.parameters()], lr=0.1)
    before = trunk.weight.detach().clone()
    combiner = make_combiner("imgrad")
    names = {"combiner": combiner, "trunk": trunk, "heads": heads, "optimizer": optimizer, **losses}
    exec(compile(_blocks()[1], "README.md", "exec"), names)
    assert not torch.equal(trunk.weight, before)


def test_combiner_lines():
    found = {}
    exec(compile(_blocks()[2], "README.md", "exec"), found)
    assert found["out"].status.name == "SOLVED"
    assert found["out"].weights.tolist() == pytest.approx([0.496080, 0.287356, 0.494504], abs=1e-4)


def _documented_commands():
    """Commands of the README's and the pages' shell blocks; lines that end with a backslash go on."""
    for page in (README, *sorted((README.parent / "docs").rglob("*.md"))):
        for block in re.findall(r"```(?:bash|sh)\n(.*?)```", page.read_text(encoding="utf-8"), flags=re.DOTALL):
            for line in block.replace("\\\n", " ").splitlines():
                if line.startswith("mtrl-imgrad ") and not re.search(r"[$|]|--help", line):
                    yield shlex.split(line, comments=True)[1:]


@pytest.mark.parametrize("arguments", list(_documented_commands()), ids=" ".join)
def test_documented_commands_are_read(arguments, tmp_path):
    if "--config" in arguments:
        kind = SupervisedConfig() if arguments[0] == "supervised" else train_config_class("mtsac")()
        save_config(kind, tmp_path / "config.yaml", {})
        arguments[arguments.index("--config") + 1] = str(tmp_path / "config.yaml")
    assert callable(cli.read(arguments))
