"""Annotations as they are used in the package, and what fits them."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Literal

import numpy as np
import pytest

from mtrl_imgrad.checked import checked
from mtrl_imgrad.errors import ArgumentError

NAN = float("nan")
CASES = [
    (int, [1, np.int64(2), -(2**63)], [2**63, 1.0, True, None, "1", NAN]),
    (float, [1, 1.5, np.float32(2), float("inf")], [True, None, "1", NAN, 1j, [1.0]]),
    (bool, [True, np.bool_(False)], [0, 1, None, "True"]),
    (str, ["", "a"], [b"a", None, 1]),
    (float | None, [None, 2], ["None", NAN]),
    (Literal["a"], ["a", "left to the function"], [1, None, [], b"a"]),
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
]


@pytest.mark.parametrize(("annotation", "right", "wrong"), CASES, ids=str)
def test_what_fits_an_annotation(annotation, right, wrong):
    def function(some_argument):
        return some_argument

    function.__annotations__ = {"some_argument": annotation}
    called = checked(function)
    for value in right:
        assert called(value) is value
    for value in wrong:
        with pytest.raises(ArgumentError, match="some_argument must be"):
            called(some_argument=value)


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
