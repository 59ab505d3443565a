"""The presets' `methods`: complete, the authors' values, and what they make of an update."""

import dataclasses

import pytest
import torch

from mtrl_imgrad.combiners import list_combiners, make_combiner
from mtrl_imgrad.errors import ArgumentError, UnknownNameError
from mtrl_imgrad.experiments.presets import list_presets, preset_path
from mtrl_imgrad.experiments.supervised.config import SupervisedConfig, load_config
from mtrl_imgrad.experiments.supervised.run import make_trainer
from mtrl_imgrad.supervised.objectives import make_loss
from mtrl_imgrad.supervised.splits import Splits
from tests.supervised.test_run_combiner import TASKS, Faces, batch

WEIGHT_LOSSES = ["bilb4mtl", "dwa", "famo", "gls", "gradnorm", "igb_v1", "igb_v2", "imtl_l", "rlw", "si", "stch", "uw"]


def preset(name, combiner=None):
    config = load_config(preset_path("supervised", name))
    if combiner is None:
        return config
    return dataclasses.replace(config, method=dataclasses.replace(config.method, combiner=combiner))


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"combiner_kwargs": None}, "combiner_kwargs must be"),
        ({"combiner_kwargs": 3}, "combiner_kwargs must be"),
        ({"heads": "x"}, "heads must be"),
        ({"max_grad_norm": -1}, "max_grad_norm must be"),
    ],
)
def test_settings_of_a_method_are_checked_with_its_name(settings, message):
    with pytest.raises(ArgumentError, match=rf"methods\['imgrad'\]: {message}"):
        SupervisedConfig(methods={"imgrad": settings})


@pytest.mark.parametrize("name", list_presets("supervised"))
def test_a_preset_says_of_every_combiner_what_it_runs_with(name):
    methods = preset(name).methods
    assert sorted(methods) == list_combiners()
    for combiner, settings in methods.items():
        if combiner != "cotbal":  # needs its tables
            make_combiner(combiner, **settings.get("combiner_kwargs", {}))
    for combiner in WEIGHT_LOSSES:  # one weighted sum is differentiated: heads take their task's weight, too
        assert methods[combiner]["heads"] == "weighted", combiner


@pytest.mark.parametrize(
    ("name", "combiner", "values"),
    [  # numbers of the authors' scripts
        ("nyuv2", "imgrad", {"c": 0.8}),
        ("cityscapes", "imgrad", {"c": 0.8}),
        ("nyuv2", "bilb4mtl", {"lam": 0.05, "learning_rate": 8e-5, "scale": "initial", "router": "clamped_softmax"}),
        ("cityscapes", "bilb4mtl", {"lam": 0.1, "learning_rate": 3e-4, "gap": "plain", "router": "clamped_softmax"}),
        ("celeba", "bilb4mtl", {"lam": 0.01, "learning_rate": 1e-3, "router": "sigmoid"}),
        ("nyuv2", "famo", {"weight_decay": 1e-3, "learning_rate": 0.025}),
        ("cityscapes", "famo", {"weight_decay": 1e-2, "learning_rate": 0.025}),
        ("celeba", "famo", {"weight_decay": 1e-3, "learning_rate": 0.025}),
        ("nyuv2", "moco", {"beta": 0.99, "gamma": 0.05, "sigma_beta": 0.0, "sigma_gamma": 0.0}),
        ("cityscapes", "moco", {"beta": 0.05, "gamma": 0.05, "sigma_beta": 0.5, "sigma_gamma": 0.5}),
        ("nyuv2", "sdmgrad", {"lam": 0.3}),
        ("celeba", "fairgrad", {"alpha": 2.0}),
        ("nyuv2", "igb_v2", {"update_every": 50}),
    ],
)
def test_a_preset_has_the_authors_values(name, combiner, values):
    found = preset(name, combiner).resolved_method().combiner_kwargs
    assert {key: found[key] for key in values} == values


def gradients(name, combiner):
    """Gradients after one update with a preset's method, as norms: shared, and of each head over its plain one's."""
    config = preset(name, combiner)
    method = dataclasses.replace(config.method, gradients="losses")
    model = dataclasses.replace(config.model, model="attribute_net", width=1 / 32)
    config = dataclasses.replace(config, method=method, model=model, device="cpu")
    trainer = make_trainer(config, Splits(Faces(), {"val": Faces()}, TASKS))
    images, targets = batch()
    trainer.model.train()
    predictions = trainer.model(images)
    losses = [make_loss(task)(predictions[task.name], targets[task.name]) for task in TASKS]
    heads = [list(trainer.model.task_heads[k].parameters()) for k in range(2)]
    plain = [
        torch.cat([g.flatten() for g in torch.autograd.grad(loss, own, retain_graph=True)])
        for loss, own in zip(losses, heads, strict=True)
    ]
    rows = [torch.autograd.grad(loss, trainer._shared, retain_graph=True) for loss in losses]
    jacobian = torch.stack([torch.cat([g.flatten() for g in row]) for row in rows]).double()
    trainer.combiner.backward(
        losses,
        trainer._shared,
        trainer._own,
        heads=trainer.heads,
        max_grad_norm=trainer.max_grad_norm,
    )
    shared = torch.cat([p.grad.flatten() for p in trainer._shared]).double()
    found = [torch.cat([p.grad.flatten() for p in own]) for own in heads]
    factors = torch.stack([f @ g / (g @ g) for f, g in zip(found, plain, strict=True)]).double()
    return jacobian, shared, factors


@pytest.mark.parametrize(("name", "length"), [("nyuv2", 1.0), ("cityscapes", 1.0), ("celeba", 2**0.5)])
def test_nash_mtl_s_heads_take_alpha_as_it_is_and_the_shared_gradient_is_clipped_where_their_code_does(name, length):
    jacobian, shared, alpha = gradients(name, "nash_mtl")
    torch.testing.assert_close(jacobian @ jacobian.T @ alpha, 1 / alpha, rtol=1e-3, atol=0)  # the bargaining equation
    assert float(shared.norm()) == pytest.approx(length, rel=1e-4)


@pytest.mark.parametrize("name", ["nyuv2", "celeba"])
def test_fairgrad_s_heads_take_plain_gradients_and_the_shared_one_is_clipped(name):
    _, shared, factors = gradients(name, "fairgrad")
    torch.testing.assert_close(factors, torch.ones(2, dtype=torch.float64), rtol=1e-4, atol=0)
    assert float(shared.norm()) <= 1 + 1e-4


@pytest.mark.parametrize("combiner", ["imtl_g", "rlw", "famo"])
def test_weights_of_sum_one_stay_so_in_shared_parameters_and_heads(combiner):
    jacobian, shared, factors = gradients("nyuv2", combiner)
    assert float(factors.sum()) == pytest.approx(1, abs=1e-3)
    torch.testing.assert_close(shared, factors @ jacobian, rtol=1e-3, atol=1e-5)


def test_methods_of_another_preset_are_taken_and_overridden(tmp_path):
    path = tmp_path / "mine.yaml"
    path.write_text("methods_from: cityscapes\nmethods: {cagrad: {combiner_kwargs: {c: 0.1}}}\n")
    methods = load_config(path).methods
    assert methods["cagrad"] == {"combiner_kwargs": {"c": 0.1}}
    assert methods["moco"] == preset("cityscapes").methods["moco"]
    path.write_text("methods_from: citiscapes\n")
    with pytest.raises(UnknownNameError, match="cityscapes"):
        load_config(path)


def test_settings_of_a_combiner_that_does_not_exist_are_an_error():
    with pytest.raises(UnknownNameError, match="imgrad"):
        SupervisedConfig(methods={"imgard": {}})
    with pytest.raises(ArgumentError, match="combiner_kwargs"):
        SupervisedConfig(methods={"imgrad": {"c": 1}})
