"""What all tests have in common: the marker `portable`, imitated machines, seeds of learning tests, Ctrl-C.

--by-file        says which files are done, in place of dots (see progress.py)
--rounding SEED  tests run as if another machine had rounded (see rounding.py)
--seeds N        tests that train until something is learned run with the seeds 0 to N - 1
"""

from __future__ import annotations

import signal
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support.progress import ProgressByFile
from tests.support.rounding import OtherRounding

HERE = Path(__file__).parent
NUMBERS = tuple(HERE / folder for folder in ("combiners", "gradients", "snapshots", "synthetic"))
"""Folders whose tests compare numbers that a processor rounds: all of them are `portable`."""
LONGEST = tuple(
    HERE / f"{name}.py"
    for name in (
        "experiments/comparisons/test_runner",
        "gradients/test_replicas",
        "test_inputs",
        "experiments/supervised/test_compare",
        "envs/backends/test_metaworld_backend",
        "combiners/test_property_table",
        "combiners/test_no_waits",
        "agents/common/test_environment_faults",
        "agents/checkpoints/test_exact_resume",
        "agents/sac/test_mtsac",
        "agents/sac/test_update",
        "experiments/test_cli",
        "experiments/rl/test_resume",
        "supervised/test_training",
        "envs/test_restoring",
    )
)
"""Files that begin first, so that no process waits at the end for another that has just begun one of them."""


def pytest_addoption(parser: pytest.Parser) -> None:
    """The options above."""
    parser.addoption("--by-file", action="store_true", help="a line for each file that is done, in place of dots")
    parser.addoption("--rounding", type=int, default=0, metavar="SEED", help="round as another machine; 0: as this one")
    parser.addoption("--seeds", type=int, default=1, metavar="N", help="seeds of each learning test")


@pytest.hookimpl(trylast=True)  # after the terminal's plugin is there
def pytest_configure(config: pytest.Config) -> None:
    """Put `ProgressByFile` in place, in the process that writes to the terminal."""
    if config.getoption("--by-file") and not hasattr(config, "workerinput"):
        config.pluginmanager.register(ProgressByFile(config.pluginmanager.getplugin("terminalreporter")))


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Mark the tests of `NUMBERS`, and put those of `LONGEST` in front."""
    places = {path: place for place, path in enumerate(LONGEST)}
    items.sort(key=lambda item: places.get(item.path, len(LONGEST)))
    of_numbers = {path for path in {item.path for item in items} if not set(NUMBERS).isdisjoint(path.parents)}
    for item in items:
        if item.path in of_numbers:
            item.add_marker(pytest.mark.portable)


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    """Give learning tests their seeds."""
    if "learning_seed" in metafunc.fixturenames:
        metafunc.parametrize("learning_seed", range(metafunc.config.getoption("--seeds")))


@pytest.hookimpl(wrapper=True)
def pytest_runtest_call(item: pytest.Item) -> Iterator[None]:
    """Tests, not their fixtures, run under `--rounding`; those that compile cannot: the compiler refuses its mode."""
    seed = item.config.getoption("--rounding")
    if not seed or item.get_closest_marker("compiled"):
        return (yield)
    with OtherRounding(seed):
        return (yield)


@pytest.fixture
def interruptible() -> Iterator[None]:
    """SIGINT raises KeyboardInterrupt, as in a terminal: a shell's background jobs ignore it."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)
