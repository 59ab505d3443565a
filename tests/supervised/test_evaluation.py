"""Evaluation: it leaves the model as it is, draws from the run's seed, and its losses are means over what is known."""

import math

import pytest
import torch
from torch.nn.functional import binary_cross_entropy_with_logits, mse_loss, nll_loss

from mtrl_imgrad.experiments.supervised.history import best_epoch
from tests.support.supervised.own_network import TASKS, Faces, face_trainer


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


@pytest.mark.parametrize("batch_size", [2, 3, 40])
def test_losses_are_means_over_the_images_with_a_target(batch_size):
    """Whatever the batches: one without any target has the loss 0, which is not a good one."""
    faces = Faces(40, 5, known=0.2)
    trainer = face_trainer(val=faces, batch_size=batch_size)
    with torch.no_grad():
        predictions = trainer.model.eval()(faces.images)
    smiles, who, age = faces.targets.values()
    known = smiles >= 0
    expected = {
        "smiles": binary_cross_entropy_with_logits(predictions["smiles"][known], smiles[known]),
        "who": nll_loss(predictions["who"][who >= 0], who[who >= 0]),
        "age": mse_loss(predictions["age"][~age.isnan()], age[~age.isnan()]),
    }
    found = trainer.evaluate("val")[1]
    assert found == pytest.approx({name: float(loss) for name, loss in expected.items()}, rel=1e-5)


def test_train_losses_leave_out_batches_without_a_target():
    """With a learning rate of next to nothing the mean does not depend on the batches."""
    losses = []
    for batch_size in (2, 60):
        trainer = face_trainer(train=Faces(60, 5, known=0.3), plain=True, batch_size=batch_size, learning_rate=1e-12)
        losses.append(next(trainer.epochs()).train_losses)
    assert losses[0] == pytest.approx(losses[1], rel=1e-4)


def test_without_any_target_a_loss_is_unknown_and_chooses_no_epoch():
    faces = Faces(11, 0)
    faces.targets["age"][:] = torch.nan
    trainer = face_trainer(train=faces, val=faces)
    records = list(trainer.epochs())
    assert all(math.isnan(record.train_losses["age"]) for record in records)
    assert all(math.isnan(record.losses["val"]["age"]) for record in records)
    losses = [record.losses["val"] for record in records]
    score = [sum(one[name] / losses[0][name] for name in ("smiles", "who")) for one in losses]
    assert best_epoch(records, TASKS) == score.index(min(score))
