"""Registries that forget what a test registers."""

from __future__ import annotations

import functools

import pytest

from mtrl_imgrad.agents import registry as agents
from mtrl_imgrad.envs import registry as backends
from mtrl_imgrad.supervised.datasets import registry as formats
from mtrl_imgrad.supervised.kinds import registry as kinds

__all__ = ["forget_registrations"]


def forget_registrations(monkeypatch: pytest.MonkeyPatch) -> None:
    """Agents, back-ends, formats and kinds of tasks that are registered from now on are gone after the test."""
    monkeypatch.setattr(backends, "_registry", functools.cache(backends._registry.__wrapped__))
    monkeypatch.setattr(formats, "_FORMATS", dict(formats._FORMATS))
    monkeypatch.setattr(kinds, "_KINDS", dict(kinds._KINDS))
    monkeypatch.setattr(agents, "AGENTS", dict(agents.AGENTS))
