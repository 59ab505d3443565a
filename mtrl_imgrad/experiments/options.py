"""Options as the command line and configuration files take them, for all kinds of runs."""

from __future__ import annotations

import dataclasses
from typing import Annotated, Any, TypeVar

import tyro

from mtrl_imgrad.combiners.method_strings import parse_options

Section = TypeVar("Section")

Flat = tyro.conf.arg(name="")
"""A section whose options stand on the command line without its name before them."""

Options = Annotated[
    dict[str, Any],
    tyro.constructors.PrimitiveConstructorSpec(
        nargs="*",
        metavar="[KEY=VALUE ...]",
        instance_from_str=parse_options,
        is_instance=lambda value: isinstance(value, dict),
        str_from_instance=lambda options: [f"{key}={value}" for key, value in options.items()],
    ),
]
"""Keyword arguments of a combiner or encoder; on the command line ``c=0.4 form=paper``."""


def without_stale_kwargs(section: Section, preset: Any) -> Section:
    """``section`` without the preset's ``combiner_kwargs``, if its ``combiner`` is no longer the preset's."""
    section_: Any = section
    if section_.combiner != preset.combiner and section_.combiner_kwargs == preset.combiner_kwargs:
        return dataclasses.replace(section_, combiner_kwargs={})
    return section


def given_options(options: type[Section], command: str, arguments: list[str]) -> Section:
    """Those of ``options`` among the arguments, parsed first because they set the defaults of all others."""
    given, _ = tyro.cli(
        options, prog=f"mtrl-imgrad {command}", args=arguments, return_unknown_args=True, add_help=False
    )
    return given
