"""AdaTask against torch.optim: one optimizer a task, their steps summed."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from mtrl_imgrad.combiners import AdaTask
from mtrl_imgrad.errors import ArgumentError

OPTIMIZERS = {"adam": torch.optim.Adam, "adagrad": torch.optim.Adagrad, "rmsprop": torch.optim.RMSprop}


def rows(seed, num_tasks=3, width=9):
    generator = torch.Generator().manual_seed(seed)
    sizes = 10.0 ** torch.arange(num_tasks, dtype=torch.float64)[:, None]
    return sizes * torch.randn(num_tasks, width, generator=generator, dtype=torch.float64)


@pytest.mark.parametrize("algorithm", OPTIMIZERS)
def test_with_one_task_and_sgd_it_is_the_optimizer(algorithm):
    start = rows(99)[0]
    ours, theirs = nn.Parameter(start.clone()), nn.Parameter(start.clone())
    combiner, sgd = AdaTask(algorithm), torch.optim.SGD([ours], lr=0.01)
    optimizer = OPTIMIZERS[algorithm]([theirs], lr=0.01)
    for step in range(8):
        target = rows(step)[1]
        for parameter in (ours, theirs):
            parameter.grad = None
        combiner.backward([((ours - target) ** 2).sum()], [ours])
        ((theirs - target) ** 2).sum().backward()
        sgd.step()
        optimizer.step()
        torch.testing.assert_close(ours, theirs, rtol=1e-12, atol=1e-13)


@pytest.mark.parametrize("reduction", ["mean", "sum"])
@pytest.mark.parametrize("algorithm", OPTIMIZERS)
def test_with_more_it_is_the_sum_of_the_steps_of_one_optimizer_a_task(algorithm, reduction):
    combiner = AdaTask(algorithm, reduction=reduction)
    parameters = [nn.Parameter(torch.zeros(9, dtype=torch.float64)) for _ in range(3)]
    optimizers = [OPTIMIZERS[algorithm]([parameter], lr=1.0) for parameter in parameters]
    for step in range(6):
        present = [0, 1, 2] if step % 2 == 0 else [2, 0]  # an absent task's moments and step count wait
        total = torch.zeros(9, dtype=torch.float64)
        for task in present:
            before = parameters[task].detach().clone()
            parameters[task].grad = rows(step)[task]
            optimizers[task].step()
            total += before - parameters[task].detach()
        found = combiner(rows(step)[present], tasks=present).gradient
        expected = total / len(present) if reduction == "mean" else total
        torch.testing.assert_close(found, expected, rtol=1e-10, atol=1e-10)


def test_options_are_the_optimizers():
    for algorithm, options, theirs in (
        ("adam", {"betas": (0.5, 0.6), "eps": 1e-3}, {"betas": (0.5, 0.6), "eps": 1e-3}),
        ("rmsprop", {"alpha": 0.5, "eps": 1e-2}, {"alpha": 0.5, "eps": 1e-2}),
        ("adagrad", {"eps": 1e-1}, {"eps": 1e-1}),
    ):
        combiner = AdaTask(algorithm, **options)
        parameter = nn.Parameter(torch.zeros(9, dtype=torch.float64))
        optimizer = OPTIMIZERS[algorithm]([parameter], lr=1.0, **theirs)
        for step in range(3):
            before = parameter.detach().clone()
            parameter.grad = rows(step)[0]
            optimizer.step()
            torch.testing.assert_close(combiner(rows(step)[:1]).gradient, before - parameter.detach())


def test_a_task_with_small_gradients_gets_its_share():
    found = AdaTask(reduction="sum")(torch.diag(torch.tensor([1e-3, 1e3], dtype=torch.float64)))
    torch.testing.assert_close(found.gradient, torch.ones(2, dtype=torch.float64), rtol=1e-4, atol=0)


def test_state_holds_what_the_algorithm_needs():
    assert set(AdaTask().state_dict()) == {"first_moments", "second_moments", "steps"}
    assert set(AdaTask("adagrad").state_dict()) == {"second_moments", "steps"}


def test_a_state_goes_on_in_the_precision_of_the_gradients():
    """As the states of torch.optim do where parameters are cast after loading."""
    rows = torch.tensor([[1.0, 2.0], [-3.0, 0.5]])
    single, double = AdaTask(), AdaTask()
    for combiner, dtype in ((single, torch.float32), (double, torch.float64)):
        combiner(rows.to(dtype))
    restored = AdaTask()
    restored.load_state_dict(single.state_dict())
    found = restored(rows.flip(0).double()).gradient
    torch.testing.assert_close(found, double(rows.flip(0).double()).gradient, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"algorithm": "sgd"}, "algorithm must be one of 'adam', 'adagrad', 'rmsprop'"),
        ({"betas": (0.9, 1.0)}, "betas must be a sequence of 2"),
        ({"betas": 0.9}, "betas must be a sequence of 2"),
        ({"alpha": -1}, "alpha must be"),
        ({"eps": 0}, "eps must be"),
    ],
)
def test_a_bad_value_names_the_argument(arguments, message):
    with pytest.raises(ArgumentError, match=message):
        AdaTask(**arguments)
