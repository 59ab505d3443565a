"""Descent in a batch against descent one by one, and against what is known of the methods."""

import numpy as np
import pytest
import torch

from mtrl_imgrad.combiners import LossCombiner, Status, Weights
from mtrl_imgrad.errors import ArgumentError, NonFiniteError, UnknownNameError
from mtrl_imgrad.synthetic import Method, descend, distance_to_front, evaluate, minimiser, parse_method
from mtrl_imgrad.synthetic.methods import Updates

STARTS = [(-8.5, 7.5), (0.0, 0.0)]


@pytest.mark.parametrize("method", ["pcgrad", "cagrad:c=0.8", "imtl_g", "nash_mtl", "imgrad", "gradvac:beta=0.5"])
def test_a_batch_is_its_trajectories_one_by_one(method):
    together = descend([method, "mgda"], shares=(0.9, 0.3), starts=STARTS, steps=20, lr=0.1)
    for s, share in enumerate((0.9, 0.3)):
        for n, start in enumerate(STARTS):
            alone = descend([method], shares=(share,), starts=[start], steps=20, lr=0.1)
            torch.testing.assert_close(together.positions[:, 0, s, n], alone.positions[:, 0, 0, 0], rtol=0, atol=1e-9)
            torch.testing.assert_close(together.updates[:, 0, s, n], alone.updates[:, 0, 0, 0], rtol=1e-8, atol=1e-9)


def test_linear_scalarization_is_adam_on_the_mean_loss():
    run = descend(["linear_scalarization"], shares=(0.7,), starts=[(9.0, 9.0)], steps=60, lr=0.01)
    x, m, v = np.array([9.0, 9.0]), np.zeros(2), np.zeros(2)
    for t in range(1, 61):
        jacobian = evaluate(torch.tensor(x))[1].numpy()
        gradient = (0.7 * jacobian[0] + 0.3 * jacobian[1]) / 2
        m, v = 0.9 * m + 0.1 * gradient, 0.999 * v + 0.001 * gradient**2
        x = x - 0.01 * (m / (1 - 0.9**t)) / (np.sqrt(v / (1 - 0.999**t)) + 1e-8)
        np.testing.assert_allclose(run.updates[t - 1, 0, 0, 0], gradient, rtol=1e-9)
        np.testing.assert_allclose(run.positions[t, 0, 0, 0], x, rtol=1e-9)


def test_who_ignores_the_scenario_ends_on_the_front_and_who_minds_it_at_the_optimum():
    """Projection-based methods do not see how tasks are scaled; CAGrad and IMGrad are bound to the mean loss."""
    run = descend(["mgda", "imtl_g", "cagrad", "imgrad"], starts=[(-7.5, -0.5), (9.0, -1.0)], steps=300, lr=0.3)
    ends = run.positions[-1, :, 0]
    assert (distance_to_front(ends) < 0.1).all()
    to_optimum = torch.linalg.vector_norm(ends - minimiser(torch.tensor(0.9, dtype=torch.float64)), dim=-1)
    assert (to_optimum[2:] < 0.1).all()
    assert (to_optimum[:2] > 0.5).all()
    assert int(run.unproven.sum()) == 0


def test_steps_are_reported():
    counts = []
    descend(["linear_scalarization"], starts=[(1.0, 1.0)], steps=1203, on_steps=counts.append)
    assert sum(counts) == 1203
    assert len(counts) > 1


def test_threads_are_given_back():
    before = torch.get_num_threads()
    torch.set_num_threads(2)
    descend(["linear_scalarization"], starts=[(1.0, 1.0)], steps=2)
    assert torch.get_num_threads() == 2
    torch.set_num_threads(before)


class _Forgetful(LossCombiner):
    """Looks at the losses it is given, and remembers them without saying so at first."""

    name, paper = "forgetful", "none"

    def __init__(self, values=None):
        super().__init__()
        self._values, self._seen = values, []

    def solve(self, losses, tasks=None):
        self._seen.append(losses.clone())
        values = (
            losses / losses.sum(-1, keepdim=True) if self._values is None else torch.full_like(losses, self._values)
        )
        zeros = torch.zeros_like(losses[..., 0])
        return Weights(values, zeros, zeros.long() + int(Status.INACCURATE))

    def state_dict(self):
        return {"seen": self._seen} if len(self._seen) > 2 else {}


class _Made(Method):
    def make(self):
        return _Forgetful(**self.arguments)


def test_losses_are_shifted_to_be_positive_and_weighted_and_unproven_updates_are_counted():
    run = descend([_Made("made", "made")], shares=(0.9,), starts=STARTS, steps=2)
    values, jacobian = evaluate(torch.tensor(STARTS, dtype=torch.float64))
    losses = (values + 21) * torch.tensor([0.9, 0.1], dtype=torch.float64)
    assert (losses > 0).all()
    expected = (losses / losses.sum(-1, keepdim=True) * torch.tensor([0.9, 0.1]).double())[..., None] * jacobian
    torch.testing.assert_close(run.updates[0, 0, 0], expected.sum(-2))
    assert run.unproven.tolist() == [[[2, 2]]]


def test_a_hidden_memory_is_found_out():
    with pytest.raises(ArgumentError, match="made must show in its first state_dict"):
        descend([_Made("made", "made")], starts=STARTS, steps=5)


def test_a_memory_gets_a_combiner_a_trajectory():
    gradient = evaluate(torch.tensor(STARTS, dtype=torch.float64))[1]
    losses = torch.ones(2, 2, dtype=torch.float64)
    updates = Updates(parse_method("gradvac:beta=1"), 2)
    updates(gradient, losses)
    second = updates(gradient, losses)[0]
    for n in range(2):
        alone = parse_method("gradvac:beta=1").make()
        alone(gradient[n])
        torch.testing.assert_close(second[n], alone(gradient[n]).gradient)


def test_leaving_the_numbers_names_method_scenario_and_start():
    broken = _Made("broken", "broken", {"values": float("nan")})
    with pytest.raises(
        NonFiniteError, match=r"broken reached NaN .* by step 2 with lr=0.001, scenario s=0.4, start \(9.0, -1.0\)"
    ):
        descend(["mgda", broken], shares=(0.4,), starts=[(9.0, -1.0)], steps=2)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"steps": 0}, "steps must be an integer >= 1"),
        ({"lr": 0.0}, "lr must be a finite number > 0"),
        ({"lr": float("nan")}, "lr must be a finite number > 0"),
        ({"methods": []}, "at least one method"),
        ({"methods": ["mgda", "mgda"]}, "none twice"),
        ({"starts": "seven"}, "starts must be"),
        ({"shares": (2.0,)}, "between 0 and 1"),
    ],
)
def test_bad_arguments(arguments, message):
    with pytest.raises(ArgumentError, match=message):
        descend(**{"methods": ["mgda"], "steps": 1, **arguments})


def test_methods_are_read_with_their_arguments():
    found = parse_method("linear_scalarization:task_weights=[1, 3],reduction=sum", c=0.1, seed=4)
    assert found.arguments == {"task_weights": [1, 3], "reduction": "sum"}
    assert parse_method("cagrad:c=4e-1").make().c == 0.4
    assert parse_method("pcgrad", c=0.1, seed=4).arguments == {"seed": 4}
    assert parse_method("imgrad:c=0.8", c=0.1).arguments == {"c": 0.8}


def test_a_mistyped_method_is_named():
    with pytest.raises(UnknownNameError, match="Did you mean 'imgrad'"):
        parse_method("imgard")


@pytest.mark.parametrize("arguments", ["r=1", "c", "c=", "c=[", "c=-1"])
def test_unreadable_arguments(arguments):
    with pytest.raises(ArgumentError):
        parse_method(f"cagrad:{arguments}").make()
