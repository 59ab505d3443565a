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


@pytest.mark.parametrize("name", [name for name in SUMMARIES if name.startswith("combiner")])
def test_another_rounding_of_a_combiner_stays_far_below_the_tolerance(name):
    find, what = SUMMARIES[name]
    assert distance(find(what, 1e-14), find(what)) < tolerance(name) / 10


@pytest.mark.slow
@pytest.mark.parametrize("name", [name for name in SUMMARIES if name.startswith("agent")])
def test_another_rounding_of_an_agent_stays_far_below_the_tolerance(name):
    find, what = SUMMARIES[name]
    assert distance(find(what, 2e-7), find(what)) < tolerance(name) / 10


def test_a_small_change_is_seen():
    find, _ = SUMMARIES["combiner imgrad"]
    changed = find(("imgrad", {"c": 0.4 * (1 + 1e-6)}))
    assert np.isfinite(changed).all()
    assert distance(changed, KEPT["combiner imgrad"]) > tolerance("combiner imgrad")
