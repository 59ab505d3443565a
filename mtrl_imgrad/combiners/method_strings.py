"""Methods as text: ``NAME``, ``NAME:KEY=VALUE,KEY=VALUE``."""

from __future__ import annotations

from mtrl_imgrad.extras import require

require("a method with its arguments as text", "yaml")

import inspect
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import yaml

from mtrl_imgrad.combiners.base import Combiner
from mtrl_imgrad.combiners.registry import SHORT_NAMES, combiner_class, make_combiner
from mtrl_imgrad.errors import ArgumentError
from mtrl_imgrad.validation import checked


@dataclass(frozen=True)
class Method:
    """A combiner by name, with its arguments.

    Attributes:
        label: name in tables, plots and files; for instance ``"cagrad:c=0.8"``.
        name: registry name.
        arguments: of its constructor.
    """

    label: str
    name: str
    arguments: Mapping[str, Any] = field(default_factory=dict)

    def make(self) -> Combiner:
        """A new combiner.

        Raises:
            ArgumentError: if the combiner does not take the arguments.
        """
        return make_combiner(self.name, **self.arguments)

    def identity(self) -> tuple[str, dict[str, Any]]:
        """Name and all arguments, those that are not given at their defaults: equal where the combiners are.

        Raises:
            ArgumentError: if the combiner does not take the arguments.
        """
        self.make()
        bound = inspect.signature(combiner_class(self.name)).bind(**self.arguments)
        bound.apply_defaults()
        return self.name, bound.arguments


@checked
def parse_method(text: str, **defaults: Any) -> Method:
    """A method from ``NAME`` or ``NAME:KEY=VALUE,KEY=VALUE``; values are read as YAML, ``ls`` is short.

    >>> parse_method("cagrad:c=0.8,rescale=false", c=0.4, seed=1).arguments
    {'c': 0.8, 'rescale': False}

    Args:
        text: name and arguments.
        defaults: arguments for those combiners that take them, where ``text`` does not say otherwise.

    Raises:
        UnknownNameError: if there is no such combiner; proposes the closest ones.
        ArgumentError: if the arguments cannot be read. `Method.make` holds them against the combiner.
    """
    name, _, options = text.partition(":")
    name = SHORT_NAMES.get(name, name)
    accepted = inspect.signature(combiner_class(name)).parameters
    try:
        # a comma separates where KEY= follows; others belong to a value, as in task_weights=[1,3]
        given = parse_options(re.split(r",(?=\s*\w+=)", options) if options else [])
    except ValueError as error:
        raise ArgumentError(f"method {text!r}: {error}; expected NAME or NAME:KEY=VALUE,KEY=VALUE") from error
    return Method(text, name, {key: value for key, value in defaults.items() if key in accepted} | given)


def format_method(name: str, arguments: Mapping[str, Any]) -> str:
    """The text that `parse_method` reads as this combiner.

    >>> format_method("linear_scalarization", {"task_weights": [1, 3]})
    'ls:task_weights=[1, 3]'
    """
    short = next((short for short, full in SHORT_NAMES.items() if full == name), name)
    given = ",".join(f"{key}={_text(value)}" for key, value in arguments.items())
    return f"{short}:{given}" if given else short


def _text(value: Any) -> str:
    """As YAML on one line."""
    return yaml.safe_dump(value, default_flow_style=True, width=10**6).partition("\n")[0]


def parse_options(arguments: Sequence[str]) -> dict[str, Any]:
    """``["c=0.4", "form=paper"]`` to ``{"c": 0.4, "form": "paper"}``.

    Raises:
        ValueError: if one is not KEY=VALUE.
    """
    options = {}
    for argument in arguments:
        key, _, value = (part.strip() for part in argument.partition("="))
        if not key or not value:
            raise ValueError(f"expected KEY=VALUE, got {argument!r}")
        options[key] = _value(value)
    return options


def _value(text: str) -> Any:
    """A number, a truth value, null, a list, or else the text itself."""
    try:
        value = yaml.safe_load(text)
        return float(value) if isinstance(value, str) else value  # YAML 1.1 reads 1e-1 as text
    except (ValueError, yaml.YAMLError):
        return text
