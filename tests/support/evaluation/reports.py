"""Reports of made-up episodes."""

import numpy as np

from mtrl_imgrad.evaluation.report import SuccessReport


def make_report(seed=0, names=("reach", "push", "näher"), n=20, confidence=0.9):
    rng = np.random.default_rng(seed)
    shape = (len(names), n)
    return SuccessReport(
        names, rng.random(shape) < 0.4, rng.normal(size=shape), rng.integers(1, 500, shape), confidence
    )


def assert_same(a, b):
    assert (a.task_names, a.confidence) == (b.task_names, b.confidence)
    for name in ("successes", "returns", "lengths"):
        left, right = getattr(a, name), getattr(b, name)
        assert left.dtype == right.dtype
        np.testing.assert_array_equal(left, right)
