"""Combiners of a run as text: ``METHOD`` for both sides, ``ACTOR+CRITIC`` for two."""

from __future__ import annotations

import dataclasses
import re
from typing import Any, TypeVar

from mtrl_imgrad.combiners.method_strings import Method, format_method, parse_method
from mtrl_imgrad.errors import ArgumentError
from mtrl_imgrad.experiments.rl.agent_config import AgentConfig
from mtrl_imgrad.experiments.rl.config import TrainConfig

Config = TypeVar("Config", bound=TrainConfig)

NEITHER_SIDE = "linear_scalarization"
"""Value of ``combiner`` where both sides have their own."""


def parse_sides(text: str) -> list[Method]:
    """The combiner of both sides, or those of actor and critic.

    >>> [method.name for method in parse_sides("pcgrad+fairgrad:alpha=2")]
    ['pcgrad', 'fairgrad']

    Args:
        text: ``METHOD`` or ``METHOD+METHOD``, each as `parse_method` reads it. A plus sign separates where a letter
            follows; others belong to a number, as in ``c=1e+3``.

    Raises:
        UnknownNameError: if there is no such combiner.
        ArgumentError: if the text cannot be read, or a combiner does not take its arguments.
    """
    sides = [parse_method(side) for side in re.split(r"\+(?=[a-z])", text)]
    if len(sides) > 2:
        raise ArgumentError(f"method {text!r}: expected METHOD or ACTOR+CRITIC")
    for side in sides:
        side.make()
    return sides


def identity(text: str) -> list[tuple[str, dict[str, Any]]]:
    """`Method.identity` of actor and critic: equal for two texts of the same combiners.

    >>> identity("ls") == identity("linear_scalarization+ls")
    True

    Raises:
        UnknownNameError: if there is no such combiner.
        ArgumentError: if the text cannot be read, or a combiner does not take its arguments.
    """
    sides = [side.identity() for side in parse_sides(text)]
    return sides if len(sides) == 2 else sides * 2


def with_method(config: Config, text: str) -> Config:
    """A configuration with the combiners of ``text`` and all else as it is.

    Arguments that the text does not name have the library's defaults, whatever the configuration's own combiner had.
    """
    sides = parse_sides(text)
    both = sides[0] if len(sides) == 1 else Method(NEITHER_SIDE, NEITHER_SIDE)
    given = dict(zip(("actor", "critic"), sides, strict=True)) if len(sides) == 2 else {}
    options: dict[str, object] = {"combiner": both.name, "combiner_kwargs": dict(both.arguments)}
    for side in ("actor", "critic"):
        options[f"{side}_combiner"] = given[side].name if given else None
        options[f"{side}_combiner_kwargs"] = dict(given[side].arguments) if given else {}
    return dataclasses.replace(config, agent=dataclasses.replace(config.agent, **options))  # type: ignore[arg-type]


def method_of(agent: AgentConfig) -> str:
    """The combiners of an agent's configuration as text, which `with_method` reads."""
    texts = [format_method(*side) for side in agent.sides().values()]
    return texts[0] if texts[0] == texts[1] else "+".join(texts)
