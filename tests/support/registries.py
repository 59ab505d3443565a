"""Registries that forget what a test registers."""

from __future__ import annotations

import functools

import pytest

from mtrl_imgrad.envs import registry as backends
from mtrl_imgrad.supervised.datasets import registry as formats

__all__ = ["forget_registrations"]


def forget_registrations(monkeypatch: pytest.MonkeyPatch) -> None:
    """Back-ends and formats that are registered from now on are gone after the test."""
    monkeypatch.setattr(backends, "_registry", functools.cache(backends._registry.__wrapped__))
    monkeypatch.setattr(formats, "_FORMATS", dict(formats._FORMATS))
