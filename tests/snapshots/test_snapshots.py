"""Combiners and agents do over several steps what they did when `snapshots.json` was written."""

from __future__ import annotations

import numpy as np
import pytest
from summaries import COMMAND, FILE, distance, list_summaries, read, tolerance

SUMMARIES = list_summaries()
KEPT = read()


@pytest.mark.parametrize("name", SUMMARIES)
def test_nothing_has_moved(name):
    assert name in KEPT, f"{FILE.name} has no summary of {name!r} yet. To add it: {COMMAND}"
    find, what = SUMMARIES[name]
    moved = distance(find(what), KEPT[name])
    assert moved <= tolerance(name), (
        f"{name} has moved by {moved:.1e} of its size; {tolerance(name):.0e} is rounding. If that was meant, "
        f"`{COMMAND}` writes it down, and the changelog says why"
    )


def test_nothing_is_kept_of_what_is_gone():
    assert set(KEPT) <= set(SUMMARIES), f"to remove it: {COMMAND}"


@pytest.mark.slow
@pytest.mark.parametrize("name", SUMMARIES)
def test_another_rounding_stays_far_below_the_tolerance(name):
    find, what = SUMMARIES[name]
    rounding = 1e-14 if name.startswith("combiner") else 2e-7  # of numbers around 1, in float64 and float32
    assert distance(find(what, rounding), find(what)) < tolerance(name) / 10


def test_a_small_change_is_seen():
    find, _ = SUMMARIES["combiner imgrad"]
    changed = find(("imgrad", {"c": 0.4 * (1 + 1e-6)}))
    assert np.isfinite(changed).all()
    assert distance(changed, KEPT["combiner imgrad"]) > tolerance("combiner imgrad")
