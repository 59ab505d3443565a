"""A stateful method of a user's own, as `examples/own_combiner.py` has it: one class, no list of what it keeps."""

import copy
import runpy
from pathlib import Path

import pytest
import torch

from mtrl_imgrad.errors import ArgumentError

EXAMPLE = Path(__file__).parents[2] / "examples" / "own_combiner.py"
ROWS = torch.tensor([[3.0, 4.0], [0.0, 2.0]], dtype=torch.float64)


@pytest.fixture
def combiner():
    return runpy.run_path(str(EXAMPLE))["UnitGradients"](beta=0.5)


def test_its_table_is_its_state(combiner):
    combiner(ROWS)
    combiner(3 * ROWS)
    assert combiner.state_dict()["norms"].tolist() == pytest.approx([10.0, 4.0])  # means of 5, 15 and of 2, 6
    restored = type(combiner)(beta=0.5)
    restored.load_state_dict(copy.deepcopy(combiner.state_dict()))
    assert torch.equal(restored(ROWS).weights, combiner(ROWS).weights)


def test_a_step_can_be_undone_and_an_absent_task_stays(combiner):
    combiner(ROWS)
    undo = combiner.restore_point()
    combiner(7 * ROWS)
    undo()
    assert combiner.state_dict()["norms"].tolist() == [5.0, 2.0]
    combiner(ROWS[1:], tasks=[1])
    assert combiner.state_dict()["norms"].tolist() == [5.0, 2.0]


def test_a_state_of_another_method_is_refused(combiner):
    with pytest.raises(ArgumentError, match=r"has the parts \['norms'\], but the one given has \['weights'\]"):
        combiner.load_state_dict({"weights": torch.ones(2)})
    with pytest.raises(ArgumentError, match="wrong part 'norms': a table must be a floating point tensor"):
        combiner.load_state_dict({"norms": "five"})
