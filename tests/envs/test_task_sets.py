from __future__ import annotations

import subprocess
import sys

import pytest

from mtrl_imgrad.envs import list_task_sets, list_tasks
from mtrl_imgrad.envs.registry import resolve_tasks
from mtrl_imgrad.envs.task_sets import METAWORLD_TASKS
from mtrl_imgrad.errors import ArgumentError, UnknownNameError


def test_the_lists_are_meta_worlds_in_its_order() -> None:
    from metaworld.env_dict import ALL_V3_ENVIRONMENTS, MT10_V3, MT25_V3, MT50_V3

    assert list_tasks("MT10") == list(MT10_V3)
    assert list_tasks("MT25") == list(MT25_V3)
    assert list_tasks("MT50") == list(MT50_V3) == list(ALL_V3_ENVIRONMENTS) == list(METAWORLD_TASKS)


def test_lists() -> None:
    assert list_task_sets() == ["MT10", "MT25", "MT50", "toy-reach"]
    assert len(list_tasks()) == 54
    assert list_tasks("toy-reach")[2] == "toy-reach/left"
    with pytest.raises(UnknownNameError, match=r"MT100.*Did you mean 'MT10'"):
        list_tasks("MT100")


@pytest.mark.parametrize(
    ("tasks", "names"),
    [
        ("reach", ["reach-v3"]),
        ("reach-v3", ["reach-v3"]),
        ("toy-reach/left", ["toy-reach/left"]),
        (["window-open", "push-v3"], ["window-open-v3", "push-v3"]),
        (("toy-reach/up", "toy-reach/right"), ["toy-reach/up", "toy-reach/right"]),
    ],
)
def test_names_that_resolve(tasks: object, names: list[str]) -> None:
    assert resolve_tasks(tasks) == names  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("tasks", "error", "message"),
    [
        ("raech-v3", UnknownNameError, "Did you mean 'reach-v3'"),
        ("reach-v2", UnknownNameError, "reach-v2"),
        ("MT1", UnknownNameError, "its task's name"),
        (["reach", "nope"], UnknownNameError, "nope"),
        ([], ArgumentError, "empty"),
        (["reach", "reach-v3"], ArgumentError, "reach-v3 more than once.*num_envs_per_task"),
        (["reach", "MT10"], ArgumentError, "within a sequence"),
        (["reach", "toy-reach/up"], ArgumentError, "mixes"),
        (["reach", 3], ArgumentError, "strings"),
        (7, ArgumentError, "int"),
        (None, ArgumentError, "NoneType"),
    ],
)
def test_names_that_do_not(tasks: object, error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=message):
        resolve_tasks(tasks)  # type: ignore[arg-type]


def test_neither_readers_of_data_sets_nor_toys_import_a_simulator() -> None:
    """In one process, which takes a while to import torch."""
    code = (
        "import sys, mtrl_imgrad.supervised.datasets; print(*sys.modules);"
        "from mtrl_imgrad.envs import make_vec_env; make_vec_env('toy-reach').reset(); print(*sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=120)
    readers, toys = (set(line.split()) for line in done.stdout.splitlines())
    assert not {"mujoco", "metaworld", "gymnasium", "matplotlib", "torchvision"} & readers
    assert "mtrl_imgrad.supervised.datasets.dense" in readers
    assert not {"mujoco", "metaworld", "envpool"} & toys
    assert "mtrl_imgrad.envs.backends.toy" in toys
