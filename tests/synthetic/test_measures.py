"""Counts and curves of hand-made trajectories, against loops written out here."""

import math

import pytest
import torch

from mtrl_imgrad.combiners import make_combiner
from mtrl_imgrad.synthetic import (
    Method,
    Trajectories,
    curves,
    descend,
    evaluate,
    failure_table,
    minimiser,
    outcomes,
    reached_table,
    scenario_table,
)


def hand_made(paths, updates, s=0.9):
    """One method, one scenario; ``paths`` [N, T + 1, 2], ``updates`` [N, T, 2]."""
    paths = paths if isinstance(paths, torch.Tensor) else torch.tensor(paths, dtype=torch.float64)
    updates = updates.double()
    return Trajectories(
        methods=(Method("mine", "cagrad"),),
        shares=(s,),
        starts=tuple((float(path[0, 0]), float(path[0, 1])) for path in paths),
        lr=0.1,
        positions=paths.transpose(0, 1)[:, None, None],
        updates=updates.transpose(0, 1)[:, None, None],
        unproven=torch.tensor([[[3] * len(paths)]]),
    )


def cosine(a, b):
    return float(a @ b / (a.norm() * b.norm()))


BEST = minimiser(torch.tensor(0.9, dtype=torch.float64)).tolist()


def test_arrivals():
    way = [[9.0, -1.0], [0.0, -5.0], [1.0, -8.36], [BEST[0], BEST[1] + 0.05], [BEST[0], -4.0]]
    never = [[9.0, 9.0]] * 5
    first, second = outcomes(hand_made([way, never], torch.ones(2, 4, 2)))
    assert (first.front_step, first.optimum_step, first.steps_on_the_way) == (2, 3, 2)
    assert not first.at_front
    assert not first.at_optimum
    assert (second.front_step, second.optimum_step, second.steps_on_the_way) == (None, None, 4)
    assert first.end == (BEST[0], -4.0)
    assert first.unproven_updates == 3
    stays = [[9.0, -1.0], BEST, BEST]
    (last,) = outcomes(hand_made([stays], torch.ones(1, 2, 2)))
    assert (last.optimum_step, last.at_optimum, last.at_front) == (1, True, True)


def test_arrival_at_the_very_last_step():
    (found,) = outcomes(hand_made([[[9.0, -1.0], [5.0, -5.0], BEST]], torch.ones(1, 2, 2)))
    assert (found.optimum_step, found.front_step, found.steps_on_the_way) == (2, 2, 2)


def test_pareto_failures_are_those_before_the_front():
    generator = torch.Generator().manual_seed(1)
    path = torch.rand(61, 2, generator=generator, dtype=torch.float64) * 6 - torch.tensor([0.0, 6.0])
    path[40:] = torch.tensor(BEST)
    updates = torch.randn(60, 2, generator=generator, dtype=torch.float64)
    updates[7] = 0.0
    run = hand_made(path[None], updates[None], s=0.3)
    expected, similarity, ratios = [], [], []
    for x, d in zip(path[:40], updates[:40], strict=True):
        g1, g2 = evaluate(x)[1] * torch.tensor([[0.3], [0.7]], dtype=torch.float64)
        expected.append(bool(d.norm() > 0) and min(cosine(d, g1), cosine(d, g2)) < -1e-10)
        similarity.append(cosine(g1, g2))
        ratios.append(float(max(g1.norm(), g2.norm()) / min(g1.norm(), g2.norm())))
    (found,) = outcomes(run)
    assert 5 < sum(expected) < 39
    assert found.pareto_failures == sum(expected)
    assert found.steps_on_the_way == 40
    assert found.similarity == pytest.approx(sum(similarity) / 40, rel=1e-12)
    assert found.imbalance == pytest.approx(sorted(ratios)[19], rel=1e-12)
    curve = curves(run, 0, 0, count=60)
    assert curve.steps.tolist() == list(range(60))
    assert curve.failures[:40, 0].tolist() == torch.tensor(expected).cumsum(0).tolist()
    assert (curve.failures[40:, 0] == sum(expected)).all()
    torch.testing.assert_close(curve.similarity[:40, 0], torch.tensor(similarity, dtype=torch.float64))
    assert curve.cos_theta[:40].isfinite().all()
    assert curve.cos_theta[40:].isnan().all()


def test_progress_is_one_at_the_start_and_zero_at_a_tasks_best():
    ends = torch.tensor([7.0, float(minimiser(torch.tensor(1.0, dtype=torch.float64))[1])], dtype=torch.float64)
    run = hand_made([[[-8.5, -5.0], ends.tolist()]], torch.ones(1, 1, 2))
    (found,) = outcomes(run)
    f1, f2 = evaluate(torch.tensor([[-8.5, -5.0], ends.tolist()], dtype=torch.float64))[0].T
    assert found.progress[0] == pytest.approx(0, abs=1e-12)
    assert found.progress[1] == pytest.approx(float((f2[1] - f1[1]) / (f2[0] - f1[1])), rel=1e-12)
    assert curves(run, 0, 0).progress[0, 0].tolist() == [1.0, 1.0]


def test_cos_theta_is_imgrads():
    run = descend(["linear_scalarization"], starts=[(9.0, -1.0), (-8.5, 7.5)], steps=12, lr=0.5)
    curve = curves(run, 0, 0, count=12)
    weights = torch.tensor([[0.9], [0.1]], dtype=torch.float64)
    for t, position in enumerate(run.positions[:-1, 0, 0]):
        for n, x in enumerate(position):
            expected = make_combiner("imgrad")(evaluate(x)[1] * weights).extras["cos_theta"]
            assert float(curve.cos_theta[t, n]) == pytest.approx(float(expected), abs=1e-12)


def test_a_start_on_the_front_has_no_way():
    (found,) = outcomes(hand_made([[BEST, BEST]], torch.ones(1, 1, 2)))
    assert (found.optimum_step, found.steps_on_the_way, found.pareto_failures) == (0, 0, 0)
    assert math.isnan(found.similarity)
    assert failure_table([found]).rows == (("mine", "-", "-", "0"),)


def test_tables():
    way = [[9.0, -1.0], [0.0, -5.0], [1.0, -8.36]] + [BEST] * 1500
    late = [[0.0, 0.0]] * 1200 + [[-3.0, -8.37]] * 303
    never = [[9.0, 9.0]] * 1503
    found = outcomes(hand_made([way, late, never], torch.zeros(3, 1502, 2)))
    assert reached_table(found, 1502).header == ("method", "s=0.9", "all")
    assert reached_table(found, 1502).rows == (("mine", "1 / 2", "1 / 2"),)
    assert scenario_table(found, 0.9).rows == (("mine", "0.0", "(1.2)", "-", "0.0"),)
    text = scenario_table(found, 0.9).markdown().splitlines()
    assert text[2] == "| method | (9, -1) | (0, 0) | (9, 9) | Pareto failures, % |"
    assert text[3] == "| :-- | --: | --: | --: | --: |"
