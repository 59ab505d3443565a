"""Networks of a backbone and an architecture in a run: their arguments, single tasks, a loader a task."""

import dataclasses

import numpy as np
import pytest

from mtrl_imgrad.errors import ArgumentError
from mtrl_imgrad.experiments.supervised.config import DataConfig, MethodConfig, ModelConfig, SupervisedConfig
from mtrl_imgrad.experiments.supervised.data import load_splits
from mtrl_imgrad.experiments.supervised.run import build_model, load_model, make_trainer, train
from mtrl_imgrad.supervised.datasets import DenseSample, write_nyuv2
from mtrl_imgrad.supervised.settings import OptimizationConfig, ReportConfig


def samples(seeds):
    for seed in seeds:
        rng = np.random.default_rng(seed)
        label = rng.integers(3, size=(32, 32))
        yield DenseSample(rng.uniform(0, 1, (32, 32, 3)), label, (1.0 + label) / 4, np.eye(3)[label])


@pytest.fixture
def config(tmp_path):
    root = write_nyuv2(tmp_path / "data", {"train": samples(range(4)), "val": samples([9])}, classes=("a", "b", "c"))
    return SupervisedConfig(
        data=DataConfig(root=root, augment=False),
        model=ModelConfig("resnet18_cgc", "vit_tiny", width=1 / 16, model_kwargs={"experts": 2}),
        optimization=OptimizationConfig(epochs=1),
        reporting=ReportConfig(last_epochs=1, log_every=1),
        device="cpu",
        run_dir=tmp_path / "run",
    )


def test_arguments_reach_the_network_and_single_tasks_have_none(config):
    data = load_splits(config.data)
    assert len(build_model(config, data).experts) == 2
    assert build_model(config, data.only(("depth",))).name == "vit_tiny"
    wrong = dataclasses.replace(config.model, model_kwargs={"expert": 2})
    with pytest.raises(ArgumentError, match="model 'resnet18_cgc' takes no argument 'expert'"):
        build_model(dataclasses.replace(config, model=wrong), data)


def test_a_run_can_be_loaded(config):
    train(config, progress_bar=False)
    saved = config.run_dir / "config.yaml"
    text = saved.read_text()
    assert "weights: null" in text
    saved.write_text(text.replace("weights: null", "weights: elsewhere.pth"))  # its first weights are not needed
    model = load_model(config.run_dir, load_splits(config.data))
    assert model.name == "resnet18_cgc"
    assert len(model.experts) == 2


@pytest.mark.parametrize("model", ["resnet18_mtan", "resnet18_ple", "vit_tiny_cross_stitch"])
@pytest.mark.parametrize("combiner", ["cagrad", "famo"])
def test_a_loader_a_task_moves_every_parameter(config, model, combiner):
    config = dataclasses.replace(
        config,
        data=dataclasses.replace(config.data, multi_input=True),
        model=ModelConfig(model, width=1 / 16),
        method=MethodConfig(combiner=combiner),
    )
    trainer = make_trainer(config, load_splits(config.data))
    before = {name: value.detach().clone() for name, value in trainer.model.named_parameters()}
    for _ in trainer.epochs():
        pass
    still = [name for name, value in trainer.model.named_parameters() if bool((value == before[name]).all())]
    assert not still
