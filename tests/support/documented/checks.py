"""Whether a command would be accepted, found out without running what it starts."""

from __future__ import annotations

import re
import tomllib
from collections.abc import Sequence
from pathlib import Path

import pytest

from mtrl_imgrad import cli
from mtrl_imgrad.combiners import list_combiners
from mtrl_imgrad.combiners.registry import SHORT_NAMES
from mtrl_imgrad.experiments.config_files import save_config
from mtrl_imgrad.experiments.rl.config import train_config_class
from mtrl_imgrad.experiments.supervised.config import SupervisedConfig
from tests.support.paths import ROOT

OF_OTHERS = (
    "git clone ",
    "pip install pandas",
    "pip install --no-deps torchjd",
    "python main.py --weighting",  # LibMTL's
    "python3 -u main.py setup=metaworld",  # mtrl's
    "python -m http.server ",
)
"""Beginnings of commands that are not ours to check."""


def check(words: Sequence[str], folder: Path) -> None:
    """Fail where a program, file, test, target or option does not exist, or a value is refused.

    Args:
        words: of a command.
        folder: an empty one.
    """
    program, *arguments = words
    if " ".join(words).startswith(OF_OTHERS):
        return
    if "-m" in arguments and program != "pytest" and arguments[arguments.index("-m") + 1].startswith("mtrl_imgrad"):
        arguments = arguments[arguments.index("-m") + 2 :]
        program = "mtrl-imgrad"
    if arguments[:2] == ["-m", "pytest"]:
        program, arguments = "pytest", arguments[2:]
    checks = {"mtrl-imgrad": _check_cli, "make": _check_make, "pytest": _check_pytest, "pip": _check_pip}
    if program in checks:
        checks[program](list(arguments), folder)
    else:
        _check_script(list(arguments))


def _check_cli(arguments: list[str], folder: Path) -> None:
    if "--help" in arguments:
        with pytest.raises(SystemExit) as stop:
            cli.read(arguments)
        assert stop.value.code == 0
        return
    if "--config" in arguments:
        kind = SupervisedConfig() if arguments[0] == "supervised" else train_config_class("mtsac")()
        save_config(kind, folder / "config.yaml", {})
        arguments[arguments.index("--config") + 1] = str(folder / "config.yaml")
    assert callable(cli.read(arguments))
    for name in _combiner_names(arguments):
        assert name in (*list_combiners(), *SHORT_NAMES, "stl"), f"there is no combiner {name}"


def _combiner_names(arguments: list[str]) -> list[str]:
    """Behind --combiner, --actor-combiner, --critic-combiner, and all behind --methods."""
    found = []
    for option in ("--combiner", "--actor-combiner", "--critic-combiner"):
        found += [arguments[arguments.index(option) + 1]] if option in arguments else []
    if "--methods" in arguments:
        for method in arguments[arguments.index("--methods") + 1 :]:
            if method.startswith("--"):
                break
            found += [side.partition(":")[0] for side in method.split("+")]
    return found


def _check_make(arguments: list[str], folder: Path) -> None:
    targets = re.findall(r"^([\w-]+):", (ROOT / "Makefile").read_text(encoding="utf-8"), re.MULTILINE)
    missing = {word for word in arguments if "=" not in word} - set(targets)
    assert not missing, f"the Makefile has no {missing}"


def _check_pip(arguments: list[str], folder: Path) -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    extras = re.findall(r"\[(.*)\]", " ".join(arguments))
    assert arguments[0] == "install"
    missing = {extra for group in extras for extra in group.split(",")} - set(project["optional-dependencies"])
    assert not missing, f"there is no extra {missing}"


def _check_pytest(arguments: list[str], folder: Path) -> None:
    """Files and tests exist; the words of ``-k`` stand in them; ``-m`` names a marker."""
    paths = [word for word in arguments if word.startswith("tests")]
    texts = []
    for word in paths:
        file, *names = word.split("::")
        path = ROOT / file
        assert path.exists(), f"{file} does not exist"
        files = [path] if path.is_file() else list(path.rglob("test_*.py"))
        texts += [f"{each.name} {each.read_text(encoding='utf-8')}" for each in files]
        assert all(re.search(rf"(def|class) {name}\b", texts[-1]) for name in names), f"{word} does not exist"
    if "-k" in arguments:
        for word in set(re.findall(r"\w+", arguments[arguments.index("-k") + 1])) - {"and", "or", "not"}:
            assert any(word in text for text in texts), f"no test has {word!r} in its name"
    if "-m" in arguments:
        markers = (ROOT / "pyproject.toml").read_text(encoding="utf-8")
        assert f'"{arguments[arguments.index("-m") + 1].removeprefix("not ")}: ' in markers


def _check_script(arguments: list[str]) -> None:
    """The file or module exists and knows the options; behind ``--`` stand files of tests."""
    words = [word for word in arguments if word not in ("--nproc-per-node", "-m") and not word.isdigit()]
    target, *rest = words
    path = ROOT / (target if target.endswith(".py") else target.replace(".", "/"))
    if path.is_dir():
        texts = [file.read_text(encoding="utf-8") for file in path.glob("*.py")]
    else:
        path = path.with_suffix(".py")
        assert path.is_file(), f"{target} does not exist"
        texts = [path.read_text(encoding="utf-8")]
    if "--" in rest:
        place = rest.index("--")
        _check_pytest(rest[place + 1 :], ROOT)
        rest = rest[:place]
    for word in rest:
        if word.startswith("--"):
            assert any(f'"{word}"' in text for text in texts), f"{target} takes no {word}"
