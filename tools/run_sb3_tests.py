"""Stable-Baselines3's own tests, run on MTSAC and MTPPO with one task.

    git clone https://github.com/DLR-RM/stable-baselines3
    python tools/run_sb3_tests.py stable-baselines3

Their tests are read from a checkout of their repository, at the tag of the installed version or the nearest one;
nothing of them is kept here. These substitutions are made in a copy:

* ``SAC`` is `MTSAC` and ``PPO`` is `MTPPO`, also where a log is called so;
* ``NStepReplayBuffer``, where it is asked for, is `TaskReplayBuffer`;
* ``CartPole-v1`` is ``Pendulum-v1``: MTPPO has no discrete actions;
* where a test wants an ``AssertionError``, an error of this library will do;
* tests that use neither agent are left out.

``sb3_tests.toml`` beside this file lists the tests that are expected to fail, by reason. A test outside it that fails,
and one in it that passes or does not exist, is an error (exit status 1). Further arguments go to pytest.
"""

from __future__ import annotations

import argparse
import fnmatch
import re
import shutil
import sys
import tempfile
import tomllib
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from types import CodeType
from typing import Any

import pytest
import stable_baselines3
import stable_baselines3.common.buffers
import torch

from mtrl_imgrad import MTPPO, MTSAC
from mtrl_imgrad.agents.off_policy.buffer import TaskReplayBuffer

EXPECTED = Path(__file__).with_name("sb3_tests.toml")
AGENTS = {"SAC": MTSAC, "PPO": MTPPO}
SUBSTITUTIONS = (
    (re.compile(r"CartPole-v1"), "Pendulum-v1"),
    (re.compile(r"model_name\.upper\(\)"), "'MT' + model_name.upper()"),
    (
        re.compile(r"pytest\.raises\(AssertionError"),
        "pytest.raises((AssertionError, __import__('mtrl_imgrad').errors.MtrlImgradError)",
    ),
)
PYTEST = ("-q", "--tb=short", "--no-header", "--import-mode=importlib", "-W", "ignore", "-p", "no:cacheprovider")


def main() -> int:
    """Run the tests; 0 if all ended as expected."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("checkout", type=Path, help="folder of a checkout of stable-baselines3")
    options, pytest_arguments = parser.parse_known_args()
    if not (options.checkout / "tests" / "test_save_load.py").is_file():
        parser.error(f"{options.checkout} is not a checkout of stable-baselines3: it has no tests/test_save_load.py")
    if any(re.match(r"-n|--numprocesses|--dist", argument) for argument in pytest_arguments):
        parser.error("the substitutions hold in this process only: run without pytest-xdist's options")
    version = (options.checkout / "stable_baselines3" / "version.txt").read_text().strip()
    print(f"tests of stable-baselines3 {version}, on the installed {stable_baselines3.__version__}")
    for name, agent in AGENTS.items():
        setattr(stable_baselines3, name, agent)
    stable_baselines3.common.buffers.NStepReplayBuffer = TaskReplayBuffer
    with tempfile.TemporaryDirectory() as folder:
        tests = _substituted(options.checkout / "tests", Path(folder) / "tests")
        outcomes = Outcomes(tomllib.loads(EXPECTED.read_text())["expected_failures"])
        status = pytest.main([*map(str, tests), *PYTEST, f"--rootdir={folder}", *pytest_arguments], plugins=[outcomes])
    partial = bool(pytest_arguments)  # which may select tests
    return int(outcomes.report(partial) or status not in (pytest.ExitCode.OK, pytest.ExitCode.TESTS_FAILED))


def _substituted(source: Path, target: Path) -> list[Path]:
    """Copy the tests with the substitutions; the files that name an agent."""
    shutil.copytree(source, target)
    found = []
    for file in sorted(target.rglob("test_*.py")):
        text = file.read_text()
        for pattern, replacement in SUBSTITUTIONS:
            text = pattern.sub(replacement, text)
        file.write_text(text)
        if re.search("|".join(rf"\b{name}\b" for name in AGENTS), text):
            found.append(file)
    return found


class Outcomes:
    """A pytest plugin: selects the tests of the two agents, and holds their outcomes against those expected.

    Args:
        expected: by test id (``*`` stands for anything), the reason why it fails.
    """

    def __init__(self, expected: list[dict[str, Any]]) -> None:
        here = [one for one in expected if not (one.get("only_without_cuda") and torch.cuda.is_available())]
        self.reasons = {test: entry["reason"] for entry in here for test in entry["tests"]}
        self.found: dict[str, str] = {}

    def pytest_collection_modifyitems(self, config: pytest.Config, items: list[pytest.Item]) -> None:
        """Leave out the tests that use neither agent."""
        left_out = [item for item in items if not _uses_agents(item)]
        items[:] = [item for item in items if _uses_agents(item)]
        config.hook.pytest_deselected(items=left_out)

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        """Keep the worst of set-up, call and tear-down."""
        test = report.nodeid.split("tests/", 1)[-1]
        if report.outcome != "passed" or test not in self.found:
            self.found[test] = report.outcome

    def report(self, partial: bool) -> bool:
        """Print what was not as expected and the counts; whether there was any."""
        failed = {test for test, outcome in self.found.items() if outcome == "failed"}
        patterns = {test: [p for p in self.reasons if _matches(test, p)] for test in self.found}
        unexpected = sorted(test for test in failed if not patterns[test])
        healed = sorted(test for test, its in patterns.items() if its and self.found[test] == "passed")
        used = {pattern for its in patterns.values() for pattern in its}
        unknown = [] if partial else sorted(set(self.reasons) - used)
        for words, tests in (
            ("FAILED", unexpected),
            ("PASSED, listed to fail", healed),
            ("LISTED, not found", unknown),
        ):
            for test in tests:
                print(f"{words}: {test}")
        reasons = Counter(self.reasons[patterns[test][0]] for test in failed if patterns[test])
        for reason, count in reasons.most_common():
            print(f"{count:4d} fail as expected: {reason}")
        passed = sum(outcome == "passed" for outcome in self.found.values())
        skipped = len(self.found) - passed - len(failed)
        print(
            f"{len(self.found)} tests: {passed} pass, {len(failed) - len(unexpected)} fail as expected, "
            f"{skipped} skipped; not as expected: {len(unexpected)} fail, {len(healed)} pass, {len(unknown)} not found"
        )
        return bool(unexpected or healed or unknown)


def _matches(test: str, pattern: str) -> bool:
    """Brackets stand for themselves, ``*`` for anything."""
    return fnmatch.fnmatchcase(test, pattern.replace("[", "[[]"))


def _uses_agents(item: pytest.Item) -> bool:
    """Whether a test was parametrized with an agent, or names one and was parametrized with no other algorithm."""
    parameters = list(getattr(getattr(item, "callspec", None), "params", {}).values())
    algorithms = [value for value in parameters if isinstance(value, type) and hasattr(value, "policy_aliases")]
    if algorithms:
        return any(value in AGENTS.values() for value in algorithms)
    if any(isinstance(value, str) and value.upper() in ("A2C", "TD3", "DQN", "DDPG") for value in parameters):
        return False
    return bool(set(AGENTS) & set(_names(item.function.__code__))) or any(  # type: ignore[attr-defined]
        isinstance(value, str) and value.upper() in AGENTS for value in parameters
    )


def _names(code: CodeType) -> Iterator[str]:
    """Globals that a function and the functions in it name."""
    yield from code.co_names
    for constant in code.co_consts:
        if isinstance(constant, CodeType):
            yield from _names(constant)


if __name__ == "__main__":
    sys.exit(main())
