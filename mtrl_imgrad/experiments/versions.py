"""Which software a run used."""

from __future__ import annotations

import platform
from importlib import metadata

from mtrl_imgrad.envs.registry import list_backends

_PACKAGES = (
    "mtrl-imgrad",
    "torch",
    "numpy",
    "stable_baselines3",
    "gymnasium",
    "mujoco",
    "cvxpy",
    "tensorboard",
)


def relevant_packages() -> list[str]:
    """Packages that a run's numbers may depend on, those of the simulators included."""
    return [*_PACKAGES, *(backend.package for backend in list_backends() if backend.package)]


def installed_versions() -> dict[str, str]:
    """Versions of Python and of every installed package of `relevant_packages`."""
    versions = {"python": platform.python_version()}
    for name in relevant_packages():
        try:
            versions[name] = metadata.version(name)
        except metadata.PackageNotFoundError:
            continue
    return versions
