"""Evaluation: it leaves the model as it is, draws from the run's seed, and its losses are means over what is known."""

import pytest
import torch

from tests.support.supervised.own_network import face_trainer


def _state(trainer):
    return {name: value.clone() for name, value in trainer.model.state_dict().items()}


@pytest.mark.parametrize("mode", ["eval", "train"])
def test_an_evaluation_leaves_model_and_generator_alone_and_repeats(mode):
    """In training mode batch norm would take the images in, and dropout draw from whatever ran before."""
    trainer = face_trainer(evaluation_mode=mode)
    before, generator = _state(trainer), torch.get_rng_state()
    first = trainer.evaluate("val")
    torch.rand(5)
    assert trainer.evaluate("val") == first
    torch.set_rng_state(generator)
    trainer.evaluate("val")
    assert torch.equal(torch.get_rng_state(), generator)
    assert all(torch.equal(value, before[name]) for name, value in _state(trainer).items())


def test_in_training_mode_the_batchs_statistics_count():
    evaluations = []
    for mode in ("eval", "train"):
        trainer = face_trainer(evaluation_mode=mode)
        trainer.model.trunk[2].running_mean += 100
        evaluations.append(trainer.evaluate("val")[1]["age"])
    assert evaluations[0] != evaluations[1]


@pytest.mark.parametrize("epochs", [1, 2])
def test_a_run_that_is_evaluated_in_training_mode_goes_on_as_it_was(epochs):
    def losses(records):
        return [(record.train_losses, record.losses, record.results) for record in records]

    whole, begun, rest = (face_trainer("famo", evaluation_mode="train") for _ in range(3))
    expected = losses(whole.epochs())
    records = begun.epochs()
    found = losses(next(records) for _ in range(epochs))
    torch.rand(epochs)
    rest.load_state_dict(begun.state_dict())
    assert found + losses(rest.epochs()) == expected
    assert all(torch.equal(value, _state(rest)[name]) for name, value in _state(whole).items())


def test_a_second_look_is_not_counted_in_a_cumulative_average():
    """``momentum=None`` divides by the number of batches."""
    watching, plain = face_trainer("famo", momentum=None), face_trainer("linear_scalarization", momentum=None)
    for trainer in (watching, plain):
        next(trainer.epochs())
        assert trainer.model.trunk[2].num_batches_tracked == trainer.step == 3
