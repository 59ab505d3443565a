"""The TorchJD adapters, and TorchJD as an oracle of the methods that it has, too."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from mtrl_imgrad.combiners import Status, make_combiner
from mtrl_imgrad.errors import ArgumentError

pytest.importorskip("torchjd")
pytest.importorskip("quadprog", reason="TorchJD's UPGrad and DualProj need it")
aggregation = pytest.importorskip("torchjd.aggregation")

from torchjd.autojac import jac_to_grad, mtl_backward  # noqa: E402  (only where it is installed)
from torchjd.linalg import QuadprogProjector  # noqa: E402

from mtrl_imgrad.combiners.torchjd import TorchJDCombiner, as_aggregator, as_weighting  # noqa: E402


def rows(seed=0, num_tasks=4, width=12):
    return torch.randn(num_tasks, width, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def cut(G):
    return [G[:, :6].reshape(-1, 2, 3), G[:, 6:7].reshape(-1), G[:, 7:]]


# ------------------------------------------------------------------ TorchJD as an oracle

SAME = [
    ("imtl_g", {}, aggregation.IMTLG, {}, 1e-7),
    ("config", {"reduction": "sum"}, aggregation.ConFIG, {}, 1e-7),
    ("aligned_mtl", {}, aggregation.AlignedMTL, {}, 1e-7),
    ("upgrad", {}, aggregation.UPGrad, {"projector": QuadprogProjector(reg_eps=1e-10)}, 1e-6),
    ("fairgrad", {"alpha": 2.0}, aggregation.FairGrad, {"alpha": 2.0}, 1e-5),
    ("cagrad", {"rescale": False}, aggregation.CAGrad, {"c": 0.4}, 1e-3),
    ("mgda", {}, aggregation.MGDA, {"epsilon": 1e-9, "max_iters": 4000}, 5e-3),
    ("linear_scalarization", {}, aggregation.Mean, {}, 1e-12),
]


@pytest.mark.parametrize(("name", "ours", "aggregator", "theirs", "tolerance"), SAME, ids=[case[0] for case in SAME])
def test_methods_that_both_define_agree(name, ours, aggregator, theirs, tolerance):
    """Tolerances are those of TorchJD's solvers."""
    theirs = aggregator(**theirs)
    for seed in range(4):
        found, expected = make_combiner(name, **ours)(rows(seed)).gradient, theirs(rows(seed))
        torch.testing.assert_close(found, expected, rtol=0, atol=tolerance * rows(seed).norm(dim=1).max().item())


def test_pcgrad_of_two_tasks_agrees():
    for seed in range(8):
        expected = aggregation.PCGrad()(rows(seed, 2))
        torch.testing.assert_close(make_combiner("pcgrad", reduction="sum")(rows(seed, 2)).gradient, expected)


def test_graddrop_has_the_same_statistics():
    torch.manual_seed(0)
    G, leak = rows(0, 4, 20), torch.tensor([0.0, 0.2, 0.5, 0.0], dtype=torch.float64)
    theirs, ours = aggregation.GradDrop(leak=leak), make_combiner("graddrop", leak=leak.tolist(), reduction="sum")
    a, b = (torch.stack([method(G) for _ in range(1500)]) for method in (theirs, lambda G: ours(G).gradient))
    spread = (a.std(0) + b.std(0)) / 1500**0.5
    assert ((a.mean(0) - b.mean(0)).abs() <= 4 * spread + 1e-12).all()
    torch.testing.assert_close(a.std(0), b.std(0), rtol=0.25, atol=1e-9)


def test_sdmgrad_of_halves_agrees():
    ours, theirs = make_combiner("sdmgrad", halves=True), aggregation.SDMGradWeighting(lambda_=0.3)
    for seed in range(4):
        a, b = rows(seed), rows(seed) + 0.5 * rows(seed + 9)
        expected = theirs(a @ b.T) @ (a + b)
        torch.testing.assert_close(ours(torch.stack([a, b], 1).flatten(0, 1)).gradient, expected, rtol=1e-5, atol=1e-6)


# ------------------------------------------------------------------ an aggregator as a combiner


@pytest.mark.parametrize(
    "aggregator",
    [aggregation.UPGrad(), aggregation.ConFIG(), aggregation.Sum(), aggregation.Krum(1), aggregation.IMTLG()],
)
def test_an_aggregator_is_called_as_it_is(aggregator):
    combiner = TorchJDCombiner(aggregator)
    found, pieces = combiner(rows()), combiner(cut(rows()))
    expected = aggregator(rows())
    torch.testing.assert_close(found.gradient, expected)
    assert [piece.shape for piece in pieces.gradient] == [(2, 3), (), (5,)]
    torch.testing.assert_close(torch.cat([piece.reshape(-1) for piece in pieces.gradient]), expected)
    if isinstance(aggregator, aggregation.WeightedAggregator):
        torch.testing.assert_close(found.weights @ rows(), expected)
    else:
        assert found.weights is None


def test_single_precision_stays_single():
    for aggregator in (aggregation.UPGrad(), aggregation.ConFIG()):
        found = TorchJDCombiner(aggregator)(rows().float())
        assert found.gradient.dtype == torch.float32
        torch.testing.assert_close(found.gradient, aggregator(rows()).float(), rtol=1e-3, atol=1e-3)


def test_backward_is_torchjds_own():
    torch.manual_seed(0)
    trunk, heads = nn.Linear(4, 8), nn.ModuleList(nn.Linear(8, 1) for _ in range(3))
    inputs = torch.randn(10, 4)

    def losses(features):
        return [((10**k * head(features)) ** 2).mean() for k, head in enumerate(heads)]

    features = trunk(inputs)
    TorchJDCombiner(aggregation.UPGrad()).backward(losses(features), trunk.parameters(), heads.parameters())
    ours = [parameter.grad.clone() for parameter in (*trunk.parameters(), *heads.parameters())]
    trunk.zero_grad()
    heads.zero_grad()
    features = trunk(inputs)
    mtl_backward(losses(features), features=features)
    jac_to_grad(trunk.parameters(), aggregation.UPGrad())
    theirs = [parameter.grad for parameter in (*trunk.parameters(), *heads.parameters())]
    for a, b in zip(ours, theirs, strict=True):
        torch.testing.assert_close(a, b, rtol=1e-4, atol=1e-4)


def test_bad_numbers_are_answered_with_nan():
    G = rows()
    G[1, 0] = torch.nan
    for aggregator in (aggregation.UPGrad(), aggregation.IMTLG(), aggregation.ConFIG(), aggregation.GradDrop()):
        found = TorchJDCombiner(aggregator).combine(cut(G))
        assert found.status == Status.NON_FINITE
        assert all(part.isnan().all() for part in found.gradient)


def test_what_is_no_aggregator_or_has_a_memory_is_refused():
    with pytest.raises(ArgumentError, match="aggregator must be a torchjd"):
        TorchJDCombiner("UPGrad")
    for aggregator in (aggregation.NashMTL(n_tasks=3), aggregation.GradVac()):
        with pytest.raises(ArgumentError, match="aggregator must have no memory"):
            TorchJDCombiner(aggregator)


# ------------------------------------------------------------------ a combiner as an aggregator


@pytest.mark.parametrize("name", ["imgrad", "cagrad", "mgda", "graddrop", "linear_scalarization"])
def test_a_combiner_is_an_aggregator(name):
    aggregator = as_aggregator(make_combiner(name))
    assert isinstance(aggregator, aggregation.Aggregator)
    assert name.replace("_", "") in repr(aggregator).lower()
    torch.testing.assert_close(aggregator(rows()), make_combiner(name)(rows()).gradient)


def test_a_gramian_combiner_is_a_weighting():
    M = rows() @ rows().T
    torch.testing.assert_close(as_weighting(make_combiner("imgrad"))(M), make_combiner("imgrad").weights(M).values)
    assert as_weighting(make_combiner("imgrad"))(M.float()).dtype == torch.float32
    for wrong in (make_combiner("graddrop"), "imgrad"):
        with pytest.raises(ArgumentError, match="combiner must be a GramianCombiner"):
            as_weighting(wrong)
    with pytest.raises(ArgumentError, match="combiner must be a Combiner"):
        as_aggregator("imgrad")
    with pytest.raises(ArgumentError, match="losses must be given"):
        as_aggregator(make_combiner("db_mtl"))(rows())
