"""Environments that are slow to build are built once, and shared by tests that start with ``reset``."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import pytest

from mtrl_imgrad.envs import MultiTaskVecEnv, make_vec_env

Build = Callable[[str | tuple[str, ...], str], MultiTaskVecEnv]

THREE = ("reach", "drawer-close", "window-open")


@pytest.fixture(params=["metaworld", "envpool"])
def backend(request: pytest.FixtureRequest) -> str:
    """Either back-end of Meta-World."""
    if request.param == "envpool":
        pytest.importorskip("envpool")
    return request.param


@pytest.fixture(scope="session")
def built() -> Iterator[Build]:
    """Tasks on a back-end, in short episodes: built at the first call, and just seeded with 0."""
    envs: dict[tuple[str | tuple[str, ...], str], MultiTaskVecEnv] = {}

    def build(tasks: str | tuple[str, ...], backend: str) -> MultiTaskVecEnv:
        key = tasks, backend
        if key not in envs:
            envs[key] = make_vec_env(tasks, backend=backend, horizon=10)
        envs[key].seed(0)
        return envs[key]

    yield build
    for env in envs.values():
        env.close()


@pytest.fixture
def mt10(backend: str, built: Build) -> MultiTaskVecEnv:
    """MT10 on either back-end."""
    return built("MT10", backend)


@pytest.fixture
def three(backend: str, built: Build) -> MultiTaskVecEnv:
    """Three tasks on either back-end, where nothing is about ten."""
    return built(THREE, backend)


@pytest.fixture
def envpool_mt10(built: Build) -> MultiTaskVecEnv:
    """MT10 on EnvPool."""
    pytest.importorskip("envpool")
    return built("MT10", "envpool")
