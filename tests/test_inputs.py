"""Whatever is handed to a public function: it is legitimate, or an error says which argument was wrong.

Public is what a package of ours exports (``__all__`` of its ``__init__``), what the modules of rooms without exports
define without an underscore (`ROOMS`), and every registered combiner and encoder. Not asked are abstract classes, which
nobody can make, and records: named tuples and dataclasses without checks, which functions return. Whole runs
(`experiments.train` and the like) are asked through their configurations and the command line, and what runs at each
step (`HOT_PATH`) through the entry point that checks for it.
"""

from __future__ import annotations

import dataclasses
import importlib
import inspect
import pkgutil
import warnings
from collections.abc import Callable, Mapping
from enum import Enum
from types import ModuleType
from typing import Any

import pytest

import mtrl_imgrad
from mtrl_imgrad.agents.encoders import ENCODERS
from mtrl_imgrad.combiners import combiner_class, list_combiners
from mtrl_imgrad.errors import MtrlImgradError, UnknownNameError
from tests.support.inputs.bad_values import bad_values, must_refuse
from tests.support.inputs.hot_path import HOT_PATH
from tests.support.inputs.public_calls import CALLS, METHODS
from tests.support.registries import forget_registrations

pytestmark = pytest.mark.faults

ROOMS = (
    "gradients",
    "reporting.atomic_files",
    "synthetic.plots",
    "experiments.presets",
    "experiments.rl.config",
    "experiments.supervised.comparison",
    "supervised.losses",
    "experiments.supervised.published",
    "supervised.metric_set",
    "supervised.objectives",
    "supervised.settings",
    "supervised.splits",
    "experiments.supervised.data",
    "supervised.tasks",
    "supervised.trainer",
    "experiments.supervised.config",
)


def parameters_of(function: Any) -> dict[str, inspect.Parameter]:
    named = (inspect.Parameter.POSITIONAL_ONLY, inspect.Parameter.POSITIONAL_OR_KEYWORD, inspect.Parameter.KEYWORD_ONLY)
    found = inspect.signature(function).parameters
    return {name: one for name, one in found.items() if one.kind in named and not name.startswith("_")}


def public_callables() -> dict[str, Any]:
    """By module and name; what several export, by its home."""
    packages = [one.name for one in pkgutil.walk_packages(mtrl_imgrad.__path__, "mtrl_imgrad.") if one.ispkg]
    modules = ["mtrl_imgrad", *packages, *(f"mtrl_imgrad.{room}" for room in ROOMS)]
    found = [
        getattr(module, name)
        for module in map(importlib.import_module, modules)
        for name in getattr(module, "__all__", ()) or defined_in(module)
    ]
    found += [combiner_class(name) for name in list_combiners()] + list(ENCODERS.values())
    named = {
        f"{one.__module__.removeprefix('mtrl_imgrad.')}.{one.__name__}": one
        for one in found
        if (inspect.isclass(one) or inspect.isfunction(one)) and takes_arguments(one) and not is_record(one)
    }
    return {name: one for name, one in named.items() if name not in HOT_PATH}


def defined_in(module: ModuleType) -> list[str]:
    """Names of the functions and classes of a module, those for itself apart; none of a package."""
    if hasattr(module, "__path__"):
        return []
    own = {name: one for name, one in vars(module).items() if getattr(one, "__module__", "") == module.__name__}
    return [name for name in own if not name.startswith("_")]


def takes_arguments(one: Any) -> bool:
    return not inspect.isabstract(one) and bool(parameters_of(one))


def is_record(one: Any) -> bool:
    if not inspect.isclass(one):
        return False
    record = dataclasses.is_dataclass(one) and not (
        hasattr(one, "__post_init__") or hasattr(one.__init__, "__wrapped__")
    )
    return record or issubclass(one, (tuple, Enum, Exception))


PUBLIC = public_callables()
Make = Callable[[], tuple[Callable[..., Any], Mapping[str, Any]]]
"""A function and the arguments of a valid call, new each time: some calls use theirs up."""


def test_every_public_callable_has_a_valid_call():
    assert set(PUBLIC) - set(CALLS) == set(), "add a valid call to public_calls.py"
    assert set(CALLS) - set(PUBLIC) == set(), "not public any more"


@pytest.mark.parametrize("name", HOT_PATH)
def test_the_hot_path_carries_no_checks(name):
    function = pkgutil.resolve_name(f"mtrl_imgrad.{name}")
    function = function.__init__ if inspect.isclass(function) else function
    assert inspect.unwrap(function) is function


def says_which(error: BaseException, name: str, value: Any) -> bool:
    """Whether an error is one that a user may see, and its message holds the argument's name.

    Of a path it is enough to hold the path itself, of a dict of options the key that is wrong, and of a name what
    kind of name it is and which one is unknown.
    """
    if isinstance(error, UnknownNameError):
        unknown = value[0] if isinstance(value, list) and value else value
        return str(unknown) in str(error) or repr(unknown) in str(error)
    expected = [name]
    if isinstance(value, dict):
        expected += value
    elif isinstance(value, str) and name in PATHS:
        expected.append(value)
        if isinstance(error, OSError):
            return value in str(error)
    return isinstance(error, (MtrlImgradError, TypeError, ValueError)) and any(one in str(error) for one in expected)


PATHS = ("path", "root", "folder", "evaluations", "label_dir")
FUNCTIONS = ("Callable", "SharingRule", "Schedule", "TaskLoss", "Statistic", "Callback")


def complaints(make: Make) -> list[str]:
    """What went wrong with one argument after the other replaced by one bad value after the other."""
    found = []
    for name, parameter in parameters_of(make()[0]).items():
        annotation = str(parameter.annotation)
        for label, value in bad_values():
            if callable(value) and any(kind in annotation for kind in FUNCTIONS):
                continue  # a function of the caller's own, whose errors are not ours
            function, valid = make()
            try:
                function(**{**valid, name: value})
            except Exception as error:
                if not says_which(error, name, value):
                    found.append(f"{name} = {label}: {type(error).__name__}: {str(error)[:200]}")
            else:
                if must_refuse(annotation, label):
                    found.append(f"{name} = {label}: accepted for {annotation}")
    return found


def ask(make: Make) -> None:
    """Make the valid call, then every wrong one."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # what is odd but legitimate may warn
        function, valid = make()
        function(**valid)
        found = complaints(make)
    assert not found, "\n".join([f"{len(found)} complaints", *found])


@pytest.fixture(autouse=True)
def elsewhere(tmp_path, monkeypatch):
    """Wrong paths are written to a folder that nobody misses, and registrations are forgotten."""
    monkeypatch.chdir(tmp_path)
    forget_registrations(monkeypatch)


@pytest.mark.parametrize("name", CALLS)
def test_wrong_arguments_of_a_public_callable(name, tmp_path):
    ask(lambda: (PUBLIC[name], CALLS[name](tmp_path)))


@pytest.mark.parametrize("name", METHODS)
def test_wrong_arguments_of_a_method(name, tmp_path):
    ask(lambda: METHODS[name](tmp_path))
