"""The choice of a back-end, and every argument's refusal."""

from __future__ import annotations

import importlib.util
import logging
import sys
from typing import Any

import pytest

from mtrl_imgrad.envs import make_vec_env
from mtrl_imgrad.errors import ArgumentError, MissingDependencyError, UnknownNameError


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"seed": -1}, "seed must be an integer in"),
        ({"seed": 1.5}, "seed must be an integer"),
        ({"seed": True}, "seed must be an integer"),
        ({"num_envs_per_task": 0}, "num_envs_per_task"),
        ({"horizon": 0}, "horizon must be an integer >= 1 or None, got 0"),
        ({"horizon": 501}, r"horizon=501 \(between 1 and 500\)"),
        ({"vector_strategy": "threads"}, "vector_strategy must be one of 'sync', 'async'"),
        ({"reward_version": "v3"}, r"reward_version='v3' \(has v2 and v1 only\)"),
        ({"num_goals": 0}, "num_goals must be an integer >= 1 or 'auto' or None, got 0"),
        ({"num_goals": 51}, r"num_goals=51 \(between 1 and 50, or None\)"),
        ({"num_goals": "many"}, "num_goals must be an integer"),
        ({"one_hot": 1}, "one_hot must be True or False"),
        ({"terminate_on_success": None}, "terminate_on_success"),
        ({"num_threads": 0}, "num_threads"),
        ({"num_workers": 0}, "num_workers"),
        ({"worker_timeout": 0}, "worker_timeout"),
        ({"worker_timeout": float("nan")}, "worker_timeout"),
        ({"render_mode": "human"}, "render_mode must be 'rgb_array' or None"),
    ],
)
def test_bad_arguments_are_named(options: dict[str, Any], message: str) -> None:
    with pytest.raises(ArgumentError, match=message):
        make_vec_env("reach", **options)


def test_unknown_names() -> None:
    with pytest.raises(UnknownNameError, match="backend 'gym'"):
        make_vec_env("reach", backend="gym")
    with pytest.raises(UnknownNameError, match="MT11"):
        make_vec_env("MT11")


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"reward_version": "v1"}, "reward_version='v1'"),
        ({"num_goals": 50}, "num_goals=50"),
        ({"vector_strategy": "async"}, "vector_strategy='async'"),
        ({"render_mode": "rgb_array"}, "render_mode='rgb_array'"),
    ],
)
def test_what_envpool_cannot_do(
    options: dict[str, Any], message: str, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    with pytest.raises(ArgumentError, match=f"backend='envpool' cannot do .*{message}.*; backend='metaworld' can"):
        make_vec_env("reach", backend="envpool", **options)
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: object())
    built = _record_builds(monkeypatch)
    with caplog.at_level(logging.INFO, logger="mtrl_imgrad"):
        make_vec_env("reach", **options)
    assert built == ["metaworld"]
    assert message in caplog.text


def _record_builds(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Replace the makers by one that notes its name."""
    from mtrl_imgrad.envs import make

    built: list[str] = []
    monkeypatch.setattr(make, "_build", lambda backend, tasks, options: built.append(backend.name))
    return built


@pytest.mark.parametrize(("installed", "expected"), [(True, "envpool"), (False, "metaworld")])
def test_auto_takes_envpool_where_it_is_installed_and_says_so(
    installed: bool, expected: str, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: object() if installed else None)
    built = _record_builds(monkeypatch)
    with caplog.at_level(logging.INFO, logger="mtrl_imgrad"):
        make_vec_env("MT10")
    assert built == [expected]
    assert f"backend: {expected}" in caplog.text
    make_vec_env("MT10", backend="metaworld")
    assert built[-1] == "metaworld"


def test_a_missing_envpool_says_how_to_install_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "envpool", None)
    with pytest.raises(MissingDependencyError, match=r"pip install 'mtrl-imgrad\[fast\]'"):
        make_vec_env("reach", backend="envpool")


@pytest.mark.parametrize(
    ("tasks", "options", "message"),
    [
        ("toy-reach", {"backend": "metaworld"}, "which backend='toy' has"),
        (
            "reach",
            {"backend": "toy"},
            "not have the task 'reach-v3', which backend='metaworld' or backend='envpool' has",
        ),
        ("toy-reach", {"reward_version": "v1"}, "reward_version"),
        ("toy-reach", {"num_goals": 5}, "num_goals"),
        ("toy-reach", {"render_mode": "rgb_array"}, "render"),
        ("toy-reach", {"vector_strategy": "async"}, "vector_strategy"),
    ],
)
def test_back_ends_and_families_of_tasks(tasks: str, options: dict[str, Any], message: str) -> None:
    with pytest.raises(ArgumentError, match=message):
        make_vec_env(tasks, **options)
