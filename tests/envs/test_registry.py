"""Records of back-ends: what is registered is found, compared and named; what no record says nobody knows."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

import pytest

from mtrl_imgrad.envs import Backend, list_backends, list_task_sets, list_tasks, make_vec_env, register_backend
from mtrl_imgrad.envs.backends.toy import ToyReachVecEnv
from mtrl_imgrad.envs.vec_env import MultiTaskVecEnv
from mtrl_imgrad.errors import ArgumentError, MissingDependencyError, UnknownNameError
from tests.support.paths import DOCS
from tests.support.registries import forget_registrations

TOY_LIKE = Backend("mine", ToyReachVecEnv, {"pair": ("toy-reach/up", "toy-reach/left")})


@pytest.fixture(autouse=True)
def own_registry(monkeypatch: pytest.MonkeyPatch) -> None:
    forget_registrations(monkeypatch)


def test_a_registered_back_end_is_known_by_its_name_and_its_task_sets() -> None:
    register_backend(TOY_LIKE)
    assert "pair" in list_task_sets()
    assert list_tasks("pair") == ["toy-reach/up", "toy-reach/left"]
    env = make_vec_env("pair", backend="mine")
    assert isinstance(env, ToyReachVecEnv)
    assert env.task_names == list_tasks("pair")
    with pytest.raises(UnknownNameError, match="Did you mean 'mine'"):
        make_vec_env("pair", backend="mien")


def test_auto_prefers_what_was_registered_later_where_it_can_do_what_is_asked_for() -> None:
    built: list[str] = []

    def build(tasks: list[str], **arguments: Any) -> MultiTaskVecEnv:
        built.append("mine")
        return ToyReachVecEnv(tasks, **arguments)

    register_backend(dataclasses.replace(TOY_LIKE, vec_env=build, max_horizon=10))
    make_vec_env("pair", horizon=10)
    make_vec_env("pair", horizon=11)  # by the toy back-end
    assert built == ["mine"]
    with pytest.raises(ArgumentError, match=r"'mine' cannot .*horizon=11 \(between 1 and 10\); backend='toy' can"):
        make_vec_env("pair", backend="mine", horizon=11)


@pytest.mark.parametrize(
    ("ability", "argument"),
    [
        ({"reward_versions": ("v1", "v2")}, {"reward_version": "v1"}),
        ({"fixed_goals": 7}, {"num_goals": 3}),
        ({"threads": True}, {"num_threads": 2}),
        ({"renders": True}, {"render_mode": "rgb_array"}),
        ({"workers": True}, {"vector_strategy": "async"}),
    ],
)
def test_a_constructor_gets_what_its_record_mentions_and_nothing_else(ability: Any, argument: Any) -> None:
    got: dict[str, Any] = {}
    register_backend(dataclasses.replace(TOY_LIKE, vec_env=lambda tasks, **given: got.update(given), **ability))
    make_vec_env("pair", backend="mine", **argument)
    common = {"seed", "num_envs_per_task", "one_hot", "terminate_on_success"}
    workers = {"num_workers", "worker_timeout", "worker_restarts"} if "workers" in ability else set()
    assert set(got) == common | set(argument) | workers
    assert got.items() >= argument.items()


def test_workers_are_restarted_only_where_episodes_are_restored() -> None:
    register_backend(dataclasses.replace(TOY_LIKE, workers=True, restores=False))
    with pytest.raises(ArgumentError, match="worker_restarts=1 .does not restore episodes"):
        make_vec_env("pair", backend="mine", vector_strategy="async", worker_restarts=1)


def test_a_package_that_is_absent_is_named_with_the_command_that_installs_it() -> None:
    register_backend(Backend("mine", "no_such_simulator:Env", {"set": ("a", "b")}, package="no_such_simulator"))
    with pytest.raises(MissingDependencyError, match="backend='mine' needs .*: pip install no_such_simulator"):
        make_vec_env("set")


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"name": "toy"}, "a name of its own, got 'toy'"),
        ({"name": "auto"}, "a name of its own, got 'auto'"),
        ({"task_sets": {}}, "must name a task set"),
        ({"task_sets": {"set": ("a", "a")}}, r"task_sets\['set'\] must name different tasks"),
        ({"task_sets": {"MT10": ("a", "b")}}, r"task_sets\['MT10'\] must hold what it holds for 'metaworld'"),
        ({"workers": 1}, "workers"),
    ],
)
def test_wrong_records_are_refused(change: dict[str, Any], message: str) -> None:
    before = list_backends()
    with pytest.raises(ArgumentError, match=message):
        register_backend(dataclasses.replace(TOY_LIKE, **change))
    assert list_backends() == before


def test_an_installed_package_offers_its_back_end_as_an_entry_point(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "their_simulator.py").write_text(
        "from mtrl_imgrad.envs import Backend\n"
        "BACKEND = Backend('theirs', 'mtrl_imgrad.envs.backends.toy:ToyReachVecEnv', {'up': ('toy-reach/up',)})\n"
    )
    info = tmp_path / "their_simulator-1.0.dist-info"
    info.mkdir()
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: their-simulator\nVersion: 1.0\n")
    entry_points = "[mtrl_imgrad.backends]\ntheirs = their_simulator:BACKEND\nbroken = their_simulator:NOTHING\n"
    (info / "entry_points.txt").write_text(entry_points)
    monkeypatch.syspath_prepend(tmp_path)
    with pytest.warns(UserWarning, match="the back-end 'broken' .*NOTHING"):
        assert [backend.name for backend in list_backends()][-1] == "theirs"
    assert make_vec_env("up", backend="theirs").num_tasks == 1


def test_the_table_of_the_docs_is_made_of_the_records() -> None:
    page = (DOCS / "environments.md").read_text(encoding="utf-8")
    for backend in list_backends():
        row = [
            f"`{backend.name}`",
            ", ".join(f"`{name}`" for name in backend.task_sets) or "your own",
            " and ".join(backend.reward_versions) if len(backend.reward_versions) > 1 else "one",
            str(backend.fixed_goals or "fresh"),
            str(backend.max_horizon or "any"),
            *("yes" if able else "-" for able in (backend.workers, backend.threads, backend.renders, backend.restores)),
        ]
        assert f"| {' | '.join(row)} |" in page
