"""Wrong configuration files and wrong options: an error of ours in a line, never a traceback."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import pytest
import yaml

from mtrl_imgrad.cli import main
from mtrl_imgrad.errors import ArgumentError
from mtrl_imgrad.experiments.config_files import plain
from mtrl_imgrad.experiments.rl import config as agents
from mtrl_imgrad.experiments.supervised import config as supervised

pytestmark = pytest.mark.faults

WRONG = ["no such thing", float("nan"), [[]], {"no such thing": 1}, None, True, -1e308]
CONFIGURATIONS = [
    (agents.train_config_class("mtsac"), agents.load_config),
    (agents.train_config_class("mtppo"), agents.load_config),
    (agents.train_config_class("mttd3"), agents.load_config),
    (supervised.SupervisedConfig, supervised.load_config),
]


def settings(data: dict, above: tuple[str, ...] = ()) -> list[tuple[str, ...]]:
    """The ways to all values of a tree of sections."""
    return [
        way
        for key, value in data.items()
        for way in (settings(value, (*above, key)) if isinstance(value, dict) and value else [(*above, key)])
    ]


def with_value(data: dict, way: tuple[str, ...], value: object) -> dict:
    head, *rest = way
    return {**data, head: with_value(data.get(head, {}), tuple(rest), value) if rest else value}


def refusal(load, path: Path) -> str | None:
    """What the error says, if it is refused."""
    try:
        load(path)
    except ArgumentError as error:
        return str(error)
    return None


@pytest.mark.parametrize(("kind", "load"), CONFIGURATIONS)
def test_wrong_values_of_every_setting(kind, load, tmp_path):
    valid = plain(dataclasses.asdict(kind()))
    path = tmp_path / "config.yaml"
    rest = {"agent": {"name": valid["agent"]["name"]}} if "agent" in valid else {}  # all else has its default
    refused = 0
    for way in settings(valid):
        for value in WRONG:
            path.write_text(yaml.safe_dump(with_value(rest, way, value)))
            said = refusal(load, path)
            assert said is None or any(part in said for part in way), f"{way} = {value!r}: {said}"
            assert said is not None or value == value, f"{'.'.join(way)}: NaN was accepted"
            refused += said is not None
    assert refused > 3 * len(settings(valid))


@pytest.mark.parametrize(("kind", "load"), CONFIGURATIONS)
@pytest.mark.parametrize("text", ["", "[]", "3", "a: b", "{", "env: 1", "agent: [1]", "agent: {name: nobody}", "\0"])
def test_files_that_are_no_configuration(kind, load, text, tmp_path):
    path = tmp_path / "config.yaml"
    path.write_text(text)
    with pytest.raises(ArgumentError, match=r"config\.yaml|agent"):
        load(path)


@pytest.mark.parametrize(("kind", "load"), CONFIGURATIONS)
@pytest.mark.parametrize("content", [b"\xff\xfe\x00", b"seed: 2020-13-45\n"])
def test_files_that_yaml_does_not_read(kind, load, content, tmp_path):
    path = tmp_path / "config.yaml"
    path.write_bytes(content)
    with pytest.raises(ArgumentError, match=r"config\.yaml"):
        load(path)


OPTIONS = [
    ["train", "--gamma", "nan"],
    ["train", "--gamma", "2"],
    ["train", "--batch-size", "-1"],
    ["train", "--combiner", "no-such-thing"],
    ["train", "--combiner-kwargs", "c=-1"],
    ["train", "--total-timesteps", "1e6.5"],
    ["train", "--seed", "-1"],
    ["train", "--device", "no-such-thing"],
    ["train", "--net-arch", "0"],
    ["train", "--eval-episodes", "0"],
    ["train", "--no-such-option", "1"],
    ["train", "--config", "no-such-file"],
    ["train", "--resume", "no-such-folder"],
    ["evaluate", "no-such-folder"],
    ["toy", "--s", "nan"],
    ["toy", "--steps", "-1"],
    ["toy", "--lr", "nan"],
    ["plot"],
    ["report"],
    ["compare", "--methods", "ls", "--seeds", "-1"],
    ["combiners", "no-such-thing"],
    ["supervised", "no-such-command"],
    ["supervised", "--data", "no-such-thing"],
    ["supervised", "--data", "primitives", "--batch-size", "-1"],
    ["no-such-command"],
]


@pytest.mark.parametrize("arguments", OPTIONS, ids=" ".join)
def test_wrong_options_end_with_a_message(arguments, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    if arguments[0] == "train" and "--resume" not in arguments and "--config" not in arguments:
        arguments = ["train", "--env", "toy-reach", "--no-progress-bar", *arguments[1:]]
    try:
        status = main(arguments)
    except SystemExit as stop:  # an option that the parser refuses
        status = stop.code
    said = capsys.readouterr().err
    assert status in (1, 2)
    assert said.strip()
    assert "Traceback" not in said
    assert not list(Path().rglob("model.zip"))
