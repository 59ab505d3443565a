"""Losses and the gradients of their weighted sum, recorded once and run in two halves: the numbers of autograd."""

import pytest
import torch

from mtrl_imgrad.gradients import Execution, differentiable_losses
from mtrl_imgrad.gradients.compilation import missing_compiler
from mtrl_imgrad.gradients.parameters import Parameters
from mtrl_imgrad.gradients.tracing import TracedPullBack

TASKS, ROWS = 3, 4
EXECUTIONS = [
    pytest.param(Execution(trace=False), id="called"),
    pytest.param(Execution(), id="replayed"),
    pytest.param(
        Execution(compile=True),
        id="compiled",
        marks=[
            pytest.mark.compiled,
            pytest.mark.skipif(missing_compiler(torch.device("cpu")) is not None, reason="no C++ compiler"),
        ],
    ),
]


def _loss(parameters, row):
    """With a view of a parameter, an operation in place, a constant, and a parameter that is not used."""
    hidden = (row @ parameters["w"].T).relu_()
    scale = torch.tensor(0.5)
    out = torch.nn.functional.layer_norm(hidden, (5,)) @ parameters["v"] * parameters["head"]
    return (out.square() * scale).mean(), {"largest": hidden.amax()}


def _draw(seed):
    generator = torch.Generator().manual_seed(seed)

    def normal(*shape):
        return torch.randn(shape, generator=generator, dtype=torch.float64)

    shared = {"w": normal(5, 6), "v": normal(5, 2), "unused": normal(2)}
    return Parameters(shared, {"head": normal(TASKS, 2)}, {}), normal(TASKS, ROWS, 6)


def _by_autograd(parameters, rows):
    """Losses, and the gradients for weights 1 / losses, of a loop over tasks."""
    leaves = [value.clone().requires_grad_() for part in parameters[:2] for value in part.values()]
    w, v, _, head = leaves
    losses = []
    for task in range(TASKS):
        hidden = (rows[task] @ w.T).relu()
        centred = hidden - hidden.mean(1, keepdim=True)
        normal = centred / (centred.square().mean(1, keepdim=True) + 1e-5).sqrt()
        losses.append(0.5 * ((normal @ v) * head[task]).square().mean())
    losses = torch.stack(losses)
    found = torch.autograd.grad((losses / losses.detach()).sum(), leaves, allow_unused=True)
    return losses.detach(), [torch.zeros_like(p) if g is None else g for p, g in zip(leaves, found, strict=True)]


@pytest.mark.parametrize("execution", EXECUTIONS)
def test_gradients_for_weights_that_depend_on_the_losses_are_those_of_autograd(execution):
    traced = TracedPullBack(lambda parameters, rows: differentiable_losses(_loss, parameters, rows), execution)
    for seed in (0, 1, 2):  # the later ones are replayed
        parameters, rows = _draw(seed)
        with torch.no_grad():
            losses, pull_back, aux = traced(parameters, rows)
            shared, task_specific = pull_back(1 / losses)
        expected_losses, expected = _by_autograd(parameters, rows)
        torch.testing.assert_close(losses, expected_losses)
        assert aux["largest"].shape == (TASKS,)
        for found, gradient in zip([*shared.values(), *task_specific.values()], expected, strict=True):
            torch.testing.assert_close(found, gradient)


def test_the_loss_is_run_once_for_each_shape():
    calls = []

    def counted(parameters, rows):
        calls.append(rows.shape)
        return differentiable_losses(_loss, parameters, rows)

    traced = TracedPullBack(counted)
    traced(*_draw(0))
    recorded = len(calls)
    for seed in (1, 2):
        _, pull_back, _ = traced(*_draw(seed))
        pull_back(torch.ones(TASKS, dtype=torch.float64))
    assert len(calls) == recorded


def test_the_pull_back_of_one_call_is_not_touched_by_the_next():
    traced = TracedPullBack(lambda parameters, rows: differentiable_losses(_loss, parameters, rows))
    weights = torch.ones(TASKS, dtype=torch.float64)
    first = traced(*_draw(0))
    before = first.pull_back(weights)[0]["w"]
    traced(*_draw(1)).pull_back(weights)
    assert torch.equal(first.pull_back(weights)[0]["w"], before)


def test_bfloat16_products_act_on_losses_and_on_gradients():
    parameters, rows = torch.utils._pytree.tree_map(torch.Tensor.float, _draw(0))
    weights = torch.ones(TASKS)
    exact, rounded = (
        TracedPullBack(lambda parameters, rows: differentiable_losses(_loss, parameters, rows), execution)(
            parameters, rows
        )
        for execution in (Execution(), Execution(precision="bf16"))
    )
    for value, found in (
        (exact.losses, rounded.losses),
        (exact.pull_back(weights)[0]["w"], rounded.pull_back(weights)[0]["w"]),
    ):
        assert found.dtype == torch.float32
        assert not torch.equal(found, value)
        assert (found - value).norm() < 0.1 * value.norm()
