"""Environments that are slow to build are built once, and shared by tests that start with ``reset``."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from mtrl_imgrad.envs import MultiTaskVecEnv, make_vec_env


@pytest.fixture(scope="session")
def reference_mt10() -> Iterator[MultiTaskVecEnv]:
    """MT10 on the reference back-end, short episodes, seed 0."""
    env = make_vec_env("MT10", seed=0, backend="metaworld", horizon=10)
    yield env
    env.close()


@pytest.fixture(scope="session")
def envpool_mt10() -> Iterator[MultiTaskVecEnv]:
    """MT10 on EnvPool, short episodes, seed 0."""
    pytest.importorskip("envpool")
    env = make_vec_env("MT10", seed=0, backend="envpool", horizon=10)
    yield env
    env.close()


@pytest.fixture(params=["metaworld", "envpool"])
def mt10(request: pytest.FixtureRequest) -> MultiTaskVecEnv:
    """MT10 on either back-end, just seeded with 0: call ``reset`` first."""
    name = {"metaworld": "reference_mt10", "envpool": "envpool_mt10"}[request.param]
    env: MultiTaskVecEnv = request.getfixturevalue(name)
    env.seed(0)
    return env
