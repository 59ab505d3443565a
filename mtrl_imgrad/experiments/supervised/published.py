"""Results that papers have published on NYUv2, CityScapes and CelebA, for tables of one's own.

They are quoted, not reproduced here; ``published_tables.json`` beside this file holds each number's source.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from importlib.resources import files
from typing import Any

from mtrl_imgrad.validation import checked, look_up


@dataclass(frozen=True)
class PublishedRow:
    """A method's published numbers.

    Attributes:
        results: ``{task: {metric: value}}``; empty where only the summary was published (CelebA).
        delta_m: as published, in per cent; None if it was not.
        source: paper and table.
    """

    results: dict[str, dict[str, float]]
    delta_m: float | None
    source: str


@dataclass(frozen=True)
class PublishedTable:
    """The published results on one data set.

    Attributes:
        baselines: of single-task networks, ``{task: {metric: value}}``; with `higher_is_better` what `delta_m` takes.
        higher_is_better: for every metric.
        rows: by method, without the single-task networks.
    """

    baselines: dict[str, dict[str, float]]
    higher_is_better: dict[str, dict[str, bool]]
    rows: dict[str, PublishedRow]


@checked
def published_table(data_set: str) -> PublishedTable:
    """Published results on ``"nyuv2"``, ``"cityscapes"`` or ``"celeba"``.

    >>> published_table("nyuv2").rows["IMGrad"].delta_m
    -4.57

    Raises:
        UnknownNameError: for any other data set.
    """
    table = look_up("data set with published results", data_set, _read())
    columns = [(task, metric) for task, metrics in table["higher_is_better"].items() for metric in metrics]
    return PublishedTable(
        baselines=_nested(columns, table["baselines"]),
        higher_is_better=table["higher_is_better"],
        rows={
            method: PublishedRow(_nested(columns, row.get("values", [])), row["delta_m"], row["source"])
            for method, row in table["rows"].items()
        },
    )


@checked
def has_published_table(data_set: str) -> bool:
    """Whether `published_table` has the data set."""
    return data_set in _read()


def _read() -> dict[str, Any]:
    return json.loads(files("mtrl_imgrad.experiments.supervised").joinpath("published_tables.json").read_text("utf-8"))


def _nested(columns: list[tuple[str, str]], values: list[float]) -> dict[str, dict[str, float]]:
    nested: dict[str, dict[str, float]] = {}
    if values:
        for (task, metric), value in zip(columns, values, strict=True):
            nested.setdefault(task, {})[metric] = value
    return nested
