"""Combiners and agents do over several steps what they did when `snapshots.json` was written."""

from __future__ import annotations

from functools import partial

import pytest

from tests.snapshots.summaries import COMMAND, FILE, LIMIT, has_moved, list_summaries, of_combiner, read, tolerance

pytestmark = [pytest.mark.faults, pytest.mark.portable]
SUMMARIES = list_summaries()
KEPT = read()


@pytest.mark.parametrize("name", SUMMARIES)
def test_nothing_has_moved(name):
    assert name in KEPT, f"{FILE.name} has no summary of {name!r} yet. To add it: {COMMAND}"
    moved = has_moved(SUMMARIES[name], KEPT[name])
    assert moved <= 1, (
        f"{name} has moved by {moved:.1e} times {tolerance(KEPT[name]):.0e}, its tolerance. If that was meant, "
        f"`{COMMAND}` writes it down, and the changelog says why"
    )


def test_nothing_is_kept_of_what_is_gone():
    assert set(KEPT) <= set(SUMMARIES), f"to remove it: {COMMAND}"


def test_only_steps_are_kept_in_which_rounding_does_not_grow():
    assert all(kept["moved_by_rounding"] <= LIMIT and len(kept["steps"]) >= 2 for kept in KEPT.values())


def test_a_small_change_is_seen():
    changed = partial(of_combiner, "imgrad", {"c": 0.4 * (1 + 1e-6)})
    assert has_moved(changed, KEPT["combiner imgrad"]) > 1
