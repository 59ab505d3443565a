"""What a run gives its combiner: an epoch's steps, the optimizer that fits, arguments for as many tasks as it has."""

import copy

import pytest
import torch

from mtrl_imgrad.combiners import make_combiner
from mtrl_imgrad.errors import ArgumentError
from mtrl_imgrad.supervised.models import make_model
from mtrl_imgrad.supervised.objectives import make_loss
from mtrl_imgrad.supervised.settings import OptimizationConfig
from mtrl_imgrad.supervised.splits import Splits
from mtrl_imgrad.supervised.tasks import TaskSpec
from mtrl_imgrad.supervised.trainer import MultiTaskTrainer

TASKS = (TaskSpec("a", "attribute", 1), TaskSpec("b", "attribute", 1))


class Faces(torch.utils.data.Dataset):
    def __len__(self):
        return 10

    def __getitem__(self, index):
        numbers = torch.Generator().manual_seed(index)
        image = torch.rand(3, 8, 8, generator=numbers)
        return image, {"a": (image[0].mean() > 0.5).float()[None], "b": (image[1].mean() > 0.5).float()[None]}


def trainer_with(combiner, kwargs=None, *, rate=1e-2, weight_decay=0.0, **options):
    torch.manual_seed(0)
    optimization = OptimizationConfig(
        epochs=2, batch_size=4, learning_rate=rate, lr_schedule="constant", weight_decay=weight_decay, amp="none"
    )
    data = Splits(Faces(), {"val": Faces()}, TASKS)
    model = make_model("attribute_net", TASKS, width=1 / 32)
    return MultiTaskTrainer(
        model, data, combiner, combiner_kwargs=kwargs, optimization=optimization, device="cpu", **options
    )


def batch():
    items = [Faces()[i] for i in range(6)]
    return torch.stack([image for image, _ in items]), {
        name: torch.stack([targets[name] for _, targets in items]) for name in ("a", "b")
    }


@pytest.mark.parametrize(
    ("algorithm", "theirs"),
    [("adam", torch.optim.Adam), ("adagrad", torch.optim.Adagrad), ("rmsprop", torch.optim.RMSprop)],
)
def test_adatask_is_one_optimizer_of_torch_for_each_task(algorithm, theirs):
    eps = 1e-3  # large, so that gradients that are rounding errors do not become steps
    trainer = trainer_with("adatask", {"algorithm": algorithm, "eps": eps})
    twin = copy.deepcopy(trainer.model).train()
    parameters = list(twin.parameters())
    images, targets = batch()
    # For every task, a copy of every parameter that torch's own optimizer moves.
    shadows = {task.name: [torch.nn.Parameter(torch.zeros_like(p)) for p in parameters] for task in TASKS}
    optimizers = {name: theirs(copies, lr=1e-2, eps=eps) for name, copies in shadows.items()}
    for _ in range(3):
        twin.load_state_dict(trainer.model.state_dict())
        predictions = twin(images)
        moves = [torch.zeros_like(p) for p in parameters]
        for task in TASKS:
            loss = make_loss(task)(predictions[task.name], targets[task.name])
            found = torch.autograd.grad(loss, parameters, retain_graph=True, allow_unused=True)
            before = [shadow.detach().clone() for shadow in shadows[task.name]]
            for shadow, gradient in zip(shadows[task.name], found, strict=True):
                shadow.grad = gradient
            optimizers[task.name].step()
            moves = [m + s.detach() - b for m, s, b in zip(moves, shadows[task.name], before, strict=True)]
        trainer.model.train()
        trainer.update(images, targets)
        for ours, start, move in zip(trainer.model.parameters(), parameters, moves, strict=True):
            torch.testing.assert_close(ours.detach() - start.detach(), move, rtol=1e-2, atol=2e-5)


def test_a_stopped_run_of_adatask_goes_on_as_if_it_had_not_stopped():
    whole, first, second = (trainer_with("adatask") for _ in range(3))
    list(whole.epochs())
    next(iter(first.epochs()))
    second.load_state_dict(copy.deepcopy(first.state_dict()))
    list(second.epochs())
    for ours, theirs in zip(second.model.parameters(), whole.model.parameters(), strict=True):
        assert torch.equal(ours, theirs)


def test_learning_rate_and_weight_decay_reach_every_parameter_of_adatask():
    trainer = trainer_with("adatask", rate=0.5, weight_decay=0.25)
    assert [(group["lr"], group["weight_decay"]) for group in trainer._optimizer.param_groups] == [(0.5, 0.25)] * 2
    counted = sum(len(group["params"]) for group in trainer._optimizer.param_groups)
    assert counted == len(list(trainer.model.parameters()))


@pytest.mark.parametrize(
    ("options", "words"),
    [({"max_grad_norm": 1.0}, "max_grad_norm=1 does not go"), ({"gradients": "features"}, "take 'losses'")],
)
def test_what_is_for_gradients_does_not_go_with_a_step(options, words):
    with pytest.raises(ArgumentError, match=words):
        trainer_with("adatask", **options)


@pytest.mark.parametrize("name", ["dwa", "igb_v1", "igb_v2", "moco", "stch"])
def test_an_epoch_is_the_run_s_epoch(name):
    assert trainer_with(name).combiner.window == 3  # ten images by fours
    assert trainer_with(name, {"window": 7}).combiner.window == 7
    assert trainer_with(make_combiner(name, window=5)).combiner.window == 5


@pytest.mark.parametrize(
    ("name", "kwargs", "argument"),
    [
        ("cotbal", {"mini": [1.0, 1.0, 1.0], "single": [[2.0] * 3] * 3}, "mini"),
        ("linear_scalarization", {"task_weights": [1.0, 2.0, 3.0]}, "task_weights"),
        ("graddrop", {"leak": [0.5]}, "leak"),
        ("si", {"lower_bound": [0.0, 0.0, 0.0]}, "lower_bound"),
        ("famo", {"lower_bound": [0.0]}, "lower_bound"),
        ("igb_v2", {"lower_bound": [0.0]}, "lower_bound"),
    ],
)
def test_values_for_another_number_of_tasks_are_an_error_before_the_first_step(name, kwargs, argument):
    with pytest.raises(ArgumentError, match=f"{argument} of {name} must hold an entry for each of the 2 tasks"):
        trainer_with(name, kwargs)
    with pytest.raises(ArgumentError, match=argument):
        trainer_with(make_combiner(name, **kwargs))
