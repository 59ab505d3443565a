"""The options of ``train`` for all agents at once, which a completion script offers whatever ``--agent`` says."""

from __future__ import annotations

import dataclasses
from typing import Annotated, Any, Literal, get_type_hints

import tyro

from mtrl_imgrad.agents.registry import AGENTS
from mtrl_imgrad.experiments.options import Flat
from mtrl_imgrad.experiments.rl.agent_config import agent_config, policy_config
from mtrl_imgrad.experiments.rl.commands import Train
from mtrl_imgrad.experiments.rl.config import TrainConfig


def train_of_all_agents() -> type:
    """As `Train`; to be read, not to be run."""
    which = Annotated[Literal[tuple(AGENTS)], tyro.conf.arg(name="agent")]  # type: ignore[valid-type]
    agents = _union("Agent", [agent_config(name) for name in AGENTS], {"name": which})
    policies = _union("Policy", [policy_config(name) for name in AGENTS], {})
    config = _with_sections("TrainConfig", TrainConfig, agent=agents, policy=policies)
    return _with_sections("Train", Train, config=config)


def _union(name: str, kinds: list[Any], changed: dict[str, Any]) -> type:
    """One dataclass with the fields of all; of two by the same name the first."""
    fields: dict[str, tuple[str, Any, Any]] = {}
    for kind in kinds:
        hints = get_type_hints(kind, include_extras=True)
        for spec in dataclasses.fields(kind):
            default: Any = dataclasses.field(default=spec.default)
            if spec.default is dataclasses.MISSING:
                default = dataclasses.field(default_factory=spec.default_factory)
            fields.setdefault(spec.name, (spec.name, changed.get(spec.name, hints[spec.name]), default))
    return dataclasses.make_dataclass(name, fields.values(), frozen=True)


def _with_sections(name: str, base: type, **sections: Any) -> type:
    fields: list[Any] = [
        (key, Annotated[kind, Flat], dataclasses.field(default_factory=kind)) for key, kind in sections.items()
    ]
    return dataclasses.make_dataclass(name, fields, bases=(base,), frozen=True)
