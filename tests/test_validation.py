"""Annotations as they are used in the package, what fits them, and how an error says what does not."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Annotated, Literal, NamedTuple

import numpy as np
import pytest
from annotated_types import Ge, Gt, Interval, Lt, MinLen

from mtrl_imgrad.errors import ArgumentError
from mtrl_imgrad.validation import (
    Count,
    Finite,
    NonNegative,
    NonNegativeInt,
    Positive,
    PositiveOrInf,
    Probability,
    Seed,
    check,
    checked,
)

NAN, INF = float("nan"), float("inf")
CASES = [
    (int, [1, np.int64(2), -(2**63)], [2**63, 1.0, True, None, "1", NAN]),
    (float, [1, 1.5, np.float32(2), INF], [True, None, "1", NAN, 1j, [1.0], 10**400]),
    (bool, [True, np.bool_(False)], [0, 1, None, "True"]),
    (str, ["", "a"], [b"a", None, 1]),
    (float | None, [None, 2], ["None", NAN]),
    (Literal["a"], ["a"], ["b", 1, None, [], b"a"]),
    (Literal["a", 1], ["a", 1], ["b", True, 1.0, [], None]),
    (Sequence[float], [[1, 2.0], (), (3,)], ["12", 1.0, [NAN], ["a"], {1: 2}]),
    (tuple[int, ...], [(1, 2), [3], ()], [1, "1", [1.5]]),
    (tuple[int, str], [(1, "a"), [1, "a"]], [(1,), ("a", 1), (1, "a", 2)]),
    (Mapping[str, int], [{"a": 1}, {}], [[("a", 1)], {1: 1}, None]),
    (str | os.PathLike[str], ["a", Path("a")], [1, None, ["a"]]),
    (type[Exception], [ValueError], [ValueError(), int, "ValueError"]),
    (Callable[[int], int], [len], [1, "len"]),
    (Path, [Path("a")], ["a"]),
    ("OnlyForTheTypeChecker", [1, None, NAN], []),
    (Finite, [-1, 0, 1e300], [INF, -INF, NAN, True, "1"]),
    (Positive, [1, 1e-300, np.float64(2)], [0, -1, INF, NAN, True, None, "1"]),
    (PositiveOrInf, [1, INF], [0, -1, NAN]),
    (NonNegative, [0, 1], [-1e-300, INF, NAN]),
    (Probability, [0, 1, 0.5], [-0.1, 1.1, NAN, INF]),
    (Count, [1, np.int32(5)], [0, -1, 1.0, True, 2**63]),
    (NonNegativeInt, [0, 1], [-1, 0.0]),
    (Seed, [0, 2**63 - 1], [-1, 2**63, 1.0, True, None]),
    (Annotated[float, Interval(gt=0, le=1)], [1e-9, 1], [0, 1.1]),
    (Annotated[float, Interval(ge=0, lt=1)], [0, 0.9], [1]),
    (Annotated[Sequence[Count], MinLen(1)], [[1], (1, 2)], [[], [0], 1]),
    (Positive | Sequence[Positive] | None, [None, 1, [1, 2]], [0, [1, 0], "1"]),
]


@pytest.mark.parametrize(("annotation", "right", "wrong"), CASES, ids=str)
def test_what_fits_an_annotation(annotation, right, wrong):
    def function(some_argument):
        return some_argument

    function.__annotations__ = {"some_argument": annotation}
    called = checked(function)
    for value in right:
        arrived = called(value)
        assert arrived == value or arrived is value or arrived == tuple(value)
    for value in wrong:
        with pytest.raises(ArgumentError, match="some_argument must be"):
            called(some_argument=value)


@pytest.mark.parametrize(
    ("annotation", "value", "words"),
    [
        (Positive, 0, "x must be a finite number > 0, got 0"),
        (NonNegative, NAN, "x must be a finite number >= 0, got nan"),
        (PositiveOrInf | None, 0, "x must be a number > 0 or None, got 0"),
        (Probability, 1.5, "x must be a finite number in [0, 1], got 1.5"),
        (Annotated[float, Gt(0), Lt(1)], 1, "x must be a finite number in (0, 1), got 1"),
        (Annotated[float, Lt(2.5)], 3, "x must be a number < 2.5, got 3"),
        (Count, True, "x must be an integer >= 1, got True"),
        (Annotated[int, Ge(2)], 1, "x must be an integer >= 2, got 1"),
        (Seed, -1, "x must be an integer in [0, 2^63), got -1"),
        (bool, 1, "x must be True or False, got 1"),
        (Literal["mean", "sum"], "men", "x must be one of 'mean', 'sum', got 'men'. Did you mean 'mean'?"),
        (Literal["mean", "sum"], "max", "x must be one of 'mean', 'sum', got 'max'"),
        (Literal["std"] | None, "st", "x must be 'std' or None, got 'st'. Did you mean 'std'?"),
        (Sequence[Positive], [0], "x must be a sequence of finite numbers > 0, got [0]"),
        (Annotated[tuple[Count, ...], MinLen(1)], (), "x must be a non-empty sequence of integers >= 1, got ()"),
        (Sequence[bool], [1], "x must be a sequence of which each is True or False, got [1]"),
        (Mapping[str, int], 1, "x must be a Mapping, got 1"),
    ],
    ids=str,
)
def test_what_an_error_says(annotation, value, words):
    with pytest.raises(ArgumentError) as caught:
        check("x", value, annotation)
    assert str(caught.value) == words


def test_numbers_arrive_as_pythons_and_lists_as_tuples():
    class Pair(NamedTuple):
        first: float
        second: float

    assert type(check("x", np.float32(2), float)) is float
    assert type(check("x", 1, NonNegative | None)) is float
    assert type(check("x", np.int64(1), Count)) is int
    assert type(check("x", np.bool_(True), bool)) is bool
    assert check("x", [1, np.int64(2)], tuple[int, ...]) == (1, 2)
    assert isinstance(check("x", Pair(1.0, 2.0), tuple[float, float]), Pair)


def test_defaults_and_further_arguments_are_not_looked_at():
    @checked
    def function(first: int, *others: int, last: int = "a default", **rest: int) -> tuple:
        return first, others, last, rest

    assert function(1, "b", c="d") == (1, ("b",), "a default", {"c": "d"})
    with pytest.raises(TypeError, match="first"):
        function()


def test_a_value_that_is_long_to_print_is_named_by_its_type():
    @checked
    def function(name: str) -> None: ...

    with pytest.raises(ArgumentError, match="name must be a string, got a list"):
        function(list(range(1000)))


def test_the_package_imports_neither_pydantic_nor_simulators_for_its_checks():
    code = "import sys, mtrl_imgrad.validation; print('pydantic' in sys.modules, 'torch' in sys.modules)"
    found = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert found.stdout.split() == ["False", "False"]
