"""Recorded functions: same numbers, one record for each combination of shapes, clear refusal."""

import pickle

import pytest
import torch

from mtrl_imgrad.errors import ArgumentError
from mtrl_imgrad.gradients.execution import Execution
from mtrl_imgrad.gradients.tracing import Traced


def _function(parameters, x):
    def one(row):
        return torch.func.grad(lambda w: (row @ w).sin().sum())(parameters["w"])

    return {"jacobian": torch.func.vmap(one)(x), "mean": x.mean()}


def test_replays_the_same_numbers_for_new_values_and_shapes():
    traced = Traced(_function)
    for rows in (3, 3, 5):
        parameters, x = {"w": torch.randn(4, 2)}, torch.randn(rows, 4)
        expected, found = _function(parameters, x), traced(parameters, x)
        for name in expected:
            assert torch.equal(expected[name], found[name])
    assert len(traced._records) == 2


def test_calls_the_function_once_for_each_shape():
    calls = []

    def counted(x):
        calls.append(x.shape)
        return x * 2

    traced, plain = Traced(counted), Traced(counted, Execution(trace=False))
    for _ in range(3):
        traced(torch.ones(2))
    traced(torch.ones(2, dtype=torch.float64))
    assert len(calls) == 2
    for _ in range(3):
        plain(torch.ones(2))
    assert len(calls) == 5


def test_a_branch_on_a_value_is_refused():
    def branching(x):
        return x if x.sum() > 0 else -x

    with pytest.raises(ArgumentError, match=r"branching.*torch.where"):
        Traced(branching)(torch.ones(2))


def test_pickles_without_its_records():
    traced = Traced(_double)
    traced(torch.ones(2))
    copied = pickle.loads(pickle.dumps(traced))
    assert copied._records == {}
    assert torch.equal(copied(torch.ones(2)), torch.full((2,), 2.0))


def _double(x):
    return x * 2
