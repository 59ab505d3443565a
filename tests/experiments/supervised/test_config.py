"""Configurations of supervised runs: presets, what a method's settings become, what is refused."""

import dataclasses

import pytest

from mtrl_imgrad.errors import ArgumentError, UnknownNameError
from mtrl_imgrad.experiments.presets import list_presets, preset_path
from mtrl_imgrad.experiments.supervised.config import MethodConfig, SupervisedConfig, load_config
from mtrl_imgrad.experiments.supervised.data import load_splits
from mtrl_imgrad.experiments.supervised.run import make_trainer
from mtrl_imgrad.supervised.models import make_model
from mtrl_imgrad.supervised.settings import OptimizationConfig, ReportConfig
from mtrl_imgrad.supervised.tasks import TaskSpec
from tests.support.supervised.learned import config_for, write_scenes


@pytest.fixture(scope="module")
def root(tmp_path_factory):
    return write_scenes(tmp_path_factory.mktemp("data") / "scenes")


@pytest.mark.parametrize("name", list_presets("supervised"))
def test_presets_load_and_their_networks_exist(name):
    config = load_config(preset_path("supervised", name))
    of_scenes = config.data.format in ("nyuv2", "cityscapes")
    tasks = [TaskSpec("depth", "depth", 1) if of_scenes else TaskSpec("a", "attribute", 1)]
    for model in (config.model.model, config.model.single_task_model):
        assert make_model(model, tasks, width=1 / 16).task_names


@pytest.mark.parametrize(
    ("name", "epochs", "batch", "rate", "last_rate"),
    [("nyuv2", 200, 2, 1e-4, 5e-5), ("cityscapes", 200, 8, 1e-4, 5e-5), ("celeba", 15, 256, 3e-4, 3e-4)],
)
def test_paper_presets_have_the_papers_numbers(name, epochs, batch, rate, last_rate):
    config = load_config(preset_path("supervised", name))
    optimization = config.optimization
    assert (optimization.epochs, optimization.batch_size) == (epochs, batch)
    assert optimization.learning_rate_at(0) == rate
    assert optimization.learning_rate_at(epochs - 1) == pytest.approx(last_rate)
    assert config.method.reduction == "sum"
    assert config.protocol == "fixed"


def test_a_preset_says_of_a_combiner_what_the_command_leaves_open():
    config = SupervisedConfig(
        method=MethodConfig(combiner="cagrad", combiner_kwargs={"rescale": False}),
        methods={"cagrad": {"combiner_kwargs": {"c": 0.2, "rescale": True}, "heads": "weighted", "max_grad_norm": 1.0}},
    )
    method = config.resolved_method()
    assert method.combiner_kwargs == {"c": 0.2, "rescale": False}
    assert (method.heads, method.sharing, method.max_grad_norm) == ("weighted", "cagrad", 1.0)
    chosen = MethodConfig(combiner="cagrad", heads="unweighted", sharing="nash", max_grad_norm=float("inf"))
    method = dataclasses.replace(config, method=chosen).resolved_method()
    assert (method.heads, method.sharing, method.max_grad_norm) == ("unweighted", "nash", None)


def test_wrong_settings_are_named():
    for kwargs in ({"epochs": 0}, {"batch_size": 0}, {"learning_rate": 0.0}, {"weight_decay": -1.0}):
        with pytest.raises(ArgumentError, match=next(iter(kwargs))):
            OptimizationConfig(**kwargs)
    with pytest.raises(ArgumentError, match="last_epochs"):
        ReportConfig(last_epochs=0)
    with pytest.raises(ArgumentError, match="seed"):
        SupervisedConfig(seed=-1)
    with pytest.raises(ArgumentError, match="radius"):
        SupervisedConfig(methods={"cagrad": {"radius": 1}})
    with pytest.raises(UnknownNameError, match="nyuv2"):
        preset_path("supervised", "nyuv3")


def test_official_slip_is_kept_under_paper_only(root):
    found = {}
    for protocol in ("fixed", "paper"):
        config = dataclasses.replace(config_for(root), protocol=protocol)
        config = dataclasses.replace(config, data=dataclasses.replace(config.data, tasks=("segmentation", "depth")))
        found[protocol] = make_trainer(config, load_splits(config.data)).combiner.official_k2_quirk
    assert found == {"fixed": False, "paper": True}
