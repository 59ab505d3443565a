"""Which software a run used."""

from __future__ import annotations

import platform
from importlib import metadata

__all__ = ["PACKAGES", "installed_versions"]

PACKAGES = (
    "mtrl-imgrad",
    "torch",
    "numpy",
    "stable_baselines3",
    "gymnasium",
    "metaworld",
    "mujoco",
    "envpool",
    "cvxpy",
    "tensorboard",
)
"""What a run's numbers may depend on."""


def installed_versions() -> dict[str, str]:
    """Versions of Python and of every installed package of `PACKAGES`."""
    versions = {"python": platform.python_version()}
    for name in PACKAGES:
        try:
            versions[name] = metadata.version(name)
        except metadata.PackageNotFoundError:
            continue
    return versions
