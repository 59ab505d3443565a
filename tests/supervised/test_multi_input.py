"""A loader a task: equal to one loader where both see the same rows, resumed exactly, mixed as it says."""

import dataclasses
from collections import Counter

import pytest
import torch

from mtrl_imgrad.combiners import list_combiners, make_combiner
from mtrl_imgrad.errors import ArgumentError, NonFiniteError, UnknownNameError
from mtrl_imgrad.experiments.supervised.config import (
    DataConfig,
    MethodConfig,
    ModelConfig,
    SupervisedConfig,
)
from mtrl_imgrad.experiments.supervised.data import load_splits
from mtrl_imgrad.experiments.supervised.run import train
from mtrl_imgrad.supervised.parts import Part
from mtrl_imgrad.supervised.settings import OptimizationConfig, ReportConfig
from mtrl_imgrad.supervised.splits import Splits, TaskSplits
from mtrl_imgrad.supervised.trainer import MultiTaskTrainer
from tests.support.replicas import training as runs
from tests.support.supervised.small_folders import write_office

NAMES = [task.name for task in runs.TASKS]


def settings(**more):
    given = {"epochs": 2, "batch_size": 4, "learning_rate": 1e-2, "lr_schedule": "constant", **more}
    return OptimizationConfig(**given)


def loaders(counts=(9, 9), **more):
    scenes = [runs.Scenes(count, k) for k, count in enumerate(counts)]
    train = dict(zip(NAMES, scenes, strict=True))
    return TaskSplits(train, {"val": dict.fromkeys(NAMES, runs.Scenes(5, 9))}, runs.TASKS, **more)


def trainer_of(data, combiner="imgrad", **more):
    given = {"optimization": settings(), "reporting": ReportConfig(log_every=2), **more}
    return MultiTaskTrainer(runs.Net(), data, combiner, device="cpu", **given)


def flat(trainer):
    return torch.cat([parameter.detach().flatten() for parameter in trainer.model.parameters()])


@pytest.mark.parametrize("combiner", [name for name in list_combiners() if name != "cotbal"])
def test_same_rows_give_the_step_of_one_loader(combiner):
    """Three steps on the same batches, cut by task."""
    scenes = runs.Scenes(12, 0)
    joint = trainer_of(Splits(scenes, {"val": scenes}, runs.TASKS), combiner)
    parted = trainer_of(loaders(), combiner)
    for part in joint.feed.in_order(scenes):
        expected, _ = joint.update(part.images, part.targets)
        parts = [Part(part.images, {name: part.targets[name]}, part.whole) for name in NAMES]
        found, _ = parted.update_by_parts(parts)
        torch.testing.assert_close(torch.stack([found[name] for name in NAMES]), expected, rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(flat(parted), flat(joint), rtol=1e-3, atol=1e-4)
    assert not torch.equal(flat(joint), flat(trainer_of(loaders(), combiner)))  # something was learned


def test_a_whole_run_with_one_batch_an_epoch_is_that_of_one_loader():
    scenes, val = runs.Scenes(6, 0), runs.Scenes(5, 1)
    optimization = settings(epochs=3, batch_size=6)
    joint = trainer_of(Splits(scenes, {"val": val}, runs.TASKS), optimization=optimization)
    data = TaskSplits(dict.fromkeys(NAMES, scenes), {"val": dict.fromkeys(NAMES, val)}, runs.TASKS)
    parted = trainer_of(data, optimization=optimization)
    for ours, theirs in zip(parted.epochs(), joint.epochs(), strict=True):
        assert ours.train_losses == pytest.approx(theirs.train_losses, rel=1e-4)
        for name in NAMES:
            assert ours.results["val"][name] == pytest.approx(theirs.results["val"][name], rel=1e-3)
        for one, other in zip(ours.diagnostics, theirs.diagnostics, strict=True):
            assert one == pytest.approx(other, rel=1e-2, abs=1e-4)
    torch.testing.assert_close(flat(parted), flat(joint), rtol=1e-3, atol=1e-4)


@pytest.mark.parametrize(
    ("mixing", "tasks_per_step"), [("longest", 1), ("round_robin", 1), ("proportional", 1), ("proportional", 2)]
)
@pytest.mark.parametrize("combiner", ["imgrad", "famo"])
def test_a_run_that_is_continued_is_the_same_bit_for_bit(mixing, tasks_per_step, combiner):
    def make():
        return trainer_of(loaders((9, 5), mixing=mixing, tasks_per_step=tasks_per_step), combiner, seed=3)

    whole, first = make(), make()
    records = list(whole.epochs())
    next(first.epochs())
    second = make()
    second.load_state_dict(first.state_dict())
    (last,) = second.epochs()
    assert torch.equal(flat(second), flat(whole))
    assert last.train_losses == records[-1].train_losses


def drawn(data, epoch=0, batch_size=4, seed=0):
    """By step: the tasks, and which images they got."""
    trainer = trainer_of(data, optimization=settings(batch_size=batch_size), seed=seed)
    steps = [[(next(iter(part.targets)), part.images) for part in parts] for parts in trainer.feed.steps(epoch)]
    assert len(steps) == trainer.steps_per_epoch
    return steps


def test_the_longest_loader_ends_an_epoch_and_the_others_begin_anew():
    steps = drawn(loaders((10, 4), batch_sizes={"depth": 3}))
    assert [[name for name, _ in step] for step in steps] == [NAMES] * 3
    assert [len(images) for step in steps for name, images in step if name == NAMES[0]] == [4, 4, 2]
    assert [len(images) for step in steps for name, images in step if name == NAMES[1]] == [3, 1, 3]


def test_every_image_of_a_pass_comes_once_and_epochs_differ():
    data = loaders((10, 4))
    seen = torch.cat([images for step in drawn(data) for name, images in step if name == NAMES[0]])
    assert sorted(seen.sum((1, 2, 3)).tolist()) == sorted(data.train[NAMES[0]].images.sum((1, 2, 3)).tolist())
    other = torch.cat([images for step in drawn(data, epoch=1) for name, images in step if name == NAMES[0]])
    assert not torch.equal(seen, other)


def test_round_robin_takes_every_batch_once_in_turn():
    steps = drawn(loaders((14, 6), mixing="round_robin"))
    first, second = NAMES
    assert [name for step in steps for name, _ in step] == [first, second, first, second, first, first]
    assert all(len(step) == 1 for step in steps)


def test_proportional_draws_by_length():
    data = loaders((90, 10), mixing="proportional")
    counts = Counter(name for epoch in range(4) for step in drawn(data, epoch, batch_size=1) for name, _ in step)
    assert sum(counts.values()) == 400
    assert 0.8 < counts[NAMES[0]] / 400 < 0.97


def test_an_absent_task_leaves_its_own_parameters_alone():
    trainer = trainer_of(loaders())
    heads = {name: [p.detach().clone() for p in trainer.model.head(name).parameters()] for name in NAMES}
    part = next(trainer.feed.steps(0))[0]
    (name,) = part.targets
    values, row = trainer.update_by_parts([part], log=True)
    assert list(values) == [name]
    assert row == {f"loss/{name}": pytest.approx(float(values[name]))}
    for other in NAMES:
        same = [torch.equal(a, b) for a, b in zip(heads[other], trainer.model.head(other).parameters(), strict=True)]
        assert all(same) == (other != name)


def test_what_does_not_go_together_is_refused():
    with pytest.raises(ArgumentError, match="gradients='features' needs one batch for all tasks"):
        trainer_of(loaders(), gradients="features")
    needy = next(name for name in list_combiners() if name != "cotbal" and make_combiner(name).needs_all_tasks)
    with pytest.raises(ArgumentError, match="mixing='round_robin' leaves tasks out of a step"):
        trainer_of(loaders(mixing="round_robin"), needy)
    with pytest.raises(
        ArgumentError, match=r"split 'train' must have tasks \['depth', 'segmentation'\], got \['depth'\]"
    ):
        TaskSplits({"depth": runs.Scenes(2, 0)}, {"val": {}}, runs.TASKS)
    with pytest.raises(ArgumentError, match="tasks_per_step must be at most 2, got 3"):
        loaders(tasks_per_step=3)
    with pytest.raises(ArgumentError, match="batch_sizes must be of tasks"):
        loaders(batch_sizes={"dept": 3})
    with pytest.raises(UnknownNameError, match="'dept'"):
        loaders().only(("dept",))


def test_a_nan_is_located():
    trainer = trainer_of(loaders())
    (part, other) = next(trainer.feed.steps(0))
    bad = dataclasses.replace(other, images=other.images * torch.nan)
    with pytest.raises(NonFiniteError, match="epoch 0, step 0"):
        trainer.update_by_parts([part, bad])


def office(root, **data):
    return SupervisedConfig(
        data=DataConfig(format="office31", root=root, image_size=(16, 16), **data),
        model=ModelConfig(model="attribute_net", single_task_model="attribute_net", width=1 / 16),
        method=MethodConfig(combiner="imgrad"),
        optimization=OptimizationConfig(epochs=1, batch_size=4, learning_rate=1e-3, lr_schedule="constant"),
        reporting=ReportConfig(report="best", log_every=1, panel_images=1),
        device="cpu",
    )


def test_office_31_from_the_folder_to_the_panel(tmp_path):
    root = write_office(tmp_path / "office", ["amazon", "dslr", "webcam"], "images")
    config = dataclasses.replace(office(root, batch_sizes={"dslr": 3}), run_dir=tmp_path / "run")
    result = train(config, progress_bar=False)
    assert result.split == "test"
    assert {task: list(metrics) for task, metrics in result.results.items()} == {
        name: ["accuracy"] for name in ("amazon", "dslr", "webcam")
    }
    assert (tmp_path / "run" / "panel.png").exists()


def test_any_set_may_have_a_loader_a_task_with_part_of_the_labels(tmp_path):
    root = write_office(tmp_path / "office", ["amazon", "dslr", "webcam"], count=10)
    data = load_splits(office(root, task_fractions={"amazon": 0.5}).data)
    assert isinstance(data, TaskSplits)
    assert [len(data.train[name]) for name in ("amazon", "dslr")] == [9, 20]
    with pytest.raises(UnknownNameError, match="task 'amazn'"):
        load_splits(office(root, task_fractions={"amazn": 0.5}).data)
    with pytest.raises(ArgumentError, match="train_fraction and full_tasks go with one loader"):
        load_splits(office(root, train_fraction=0.5).data)
    for given in ({"mixing": "round_robin"}, {"tasks_per_step": 2}, {"batch_sizes": {"depth": 2}}):
        with pytest.raises(ArgumentError, match=f"{next(iter(given))} goes with a loader a task"):
            load_splits(DataConfig(root=root, **given))
    with pytest.raises(ArgumentError, match=r"task_fractions\['amazon'\] must be"):
        office(root, task_fractions={"amazon": 2.0})
