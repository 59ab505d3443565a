"""What valid calls of public functions are made of; small, and made once where a call does not use it up."""

from __future__ import annotations

import itertools
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import torch
from gymnasium import spaces
from torch import nn

from mtrl_imgrad.agents import MTSAC
from mtrl_imgrad.agents.encoders import NetworkSpec
from mtrl_imgrad.combiners import combiner_class, make_combiner
from mtrl_imgrad.envs import make_vec_env
from mtrl_imgrad.evaluation import EvaluationHistory, SuccessReport
from mtrl_imgrad.experiments.supervised.config import DataConfig, ModelConfig, SupervisedConfig
from mtrl_imgrad.experiments.supervised.data import load_splits
from mtrl_imgrad.supervised.datasets import (
    AttributeSample,
    DenseSample,
    write_celeba,
    write_cityscapes,
    write_nyuv2,
)
from mtrl_imgrad.supervised.models import make_model
from mtrl_imgrad.supervised.settings import OptimizationConfig
from mtrl_imgrad.supervised.tasks import TaskSpec
from mtrl_imgrad.synthetic import descend, outcomes
from tests.support.supervised.pascal_folders import write_pascal
from tests.support.supervised.small_folders import molecules, write_office

NUMBERS = itertools.count()
STATE = spaces.Box(-1.0, 1.0, (6,), np.float32)
ACTION = spaces.Box(-1.0, 1.0, (2,), np.float32)
SPEC = NetworkSpec(4, 2, ("a", "b"), True, (8, 8))
TASKS = (TaskSpec("segmentation", "segmentation", 3), TaskSpec("depth", "depth", 1))
PAIR = {"a": {"error": 1.0}, "b": {"error": 2.0}}
SIGNS = {"a": {"error": False}, "b": {"error": False}}


def jacobian() -> torch.Tensor:
    return torch.tensor([[1.0, 0, 2, 0], [0, 3, -1, 0], [-1, 1, 0, 0.5]], dtype=torch.float64)


def gramian() -> torch.Tensor:
    return jacobian() @ jacobian().T


@cache
def env() -> Any:
    return make_vec_env("toy-reach", seed=0)


def agent_arguments(**more: Any) -> dict[str, Any]:
    return {"policy": "MlpPolicy", "env": env(), "policy_kwargs": {"net_arch": [4]}, "seed": 0, "device": "cpu", **more}


@cache
def agent() -> MTSAC:
    return MTSAC(**agent_arguments(buffer_size=400))


@cache
def report() -> SuccessReport:
    successes = np.array([[True, False], [False, False]])
    return SuccessReport(("a", "b"), successes, np.ones((2, 2)), np.ones((2, 2), dtype=np.int64))


@cache
def history() -> EvaluationHistory:
    found = EvaluationHistory(("a", "b"))
    found.append(0, report())
    found.append(10, report())
    return found


@cache
def run() -> Any:
    return descend(["cagrad"], starts=[(9.0, -1.0)], steps=2)


@cache
def outcomes_of_run() -> Any:
    return outcomes(run())


def sample(seed: int) -> DenseSample:
    rng = np.random.default_rng(seed)
    label = rng.integers(3, size=(32, 32))
    return DenseSample(rng.uniform(0, 1, (32, 32, 3)), label, (1.0 + label) / 4, np.eye(3)[label])


def dense_splits() -> dict[str, list[DenseSample]]:
    return {"train": [sample(0), sample(1)], "val": [sample(2)]}


def face_splits() -> dict[str, list[AttributeSample]]:
    face = AttributeSample(np.zeros((8, 8, 3), np.uint8), np.array([True, False]))
    return {"train": [face], "val": [face], "test": [face]}


def nyuv2(folder: Path) -> Path:
    root = folder / "nyuv2"
    return root if root.exists() else write_nyuv2(root, dense_splits(), classes=("a", "b", "c"))


def resnet() -> Any:
    return make_model("resnet18", TASKS, width=1 / 32)


def weights_of(folder: Path) -> Path:
    torch.save(resnet().trunk.state_dict(), folder / "resnet18.pth")
    return folder / "resnet18.pth"


def office(folder: Path, *sources: str) -> Path:
    root = folder / sources[0]
    return root if root.exists() else write_office(root, sources)


def pascal(folder: Path) -> Path:
    root = folder / "pascal"
    return root if root.exists() else write_pascal(root)


def qm9(folder: Path) -> Path:
    np.savez(folder / "qm9_eV.npz", **molecules(8))
    return folder


def task_splits(folder: Path) -> dict[str, Any]:
    data = splits(folder)
    names = [task.name for task in data.tasks]
    evaluation = {split: dict.fromkeys(names, items) for split, items in data.evaluation.items()}
    return {"train": dict.fromkeys(names, data.train), "evaluation": evaluation, "tasks": data.tasks}


def cityscapes(folder: Path) -> Path:
    root = folder / "cityscapes"
    return root if root.exists() else write_cityscapes(root, dense_splits(), classes=("a", "b", "c"))


@cache
def splits(folder: Path) -> Any:
    return load_splits(DataConfig(root=nyuv2(folder), tasks=("segmentation", "depth")))


def supervised_config(folder: Path) -> SupervisedConfig:
    return SupervisedConfig(
        data=DataConfig(root=nyuv2(folder), tasks=("segmentation", "depth")),
        model=ModelConfig(model="segnet", width=1 / 32),
        optimization=OptimizationConfig(epochs=1),
        device="cpu",
        run_dir=folder / "run",
    )


@cache
def model() -> Any:
    return make_model("segnet", TASKS, width=1 / 32)


def image_batch(channels: int) -> torch.Tensor:
    return torch.rand(2, channels, 8, 8)


def labels() -> torch.Tensor:
    return torch.zeros(2, 8, 8, dtype=torch.int64)


def module() -> nn.Module:
    return nn.Linear(2, 1)


def task_loss(parameters: dict[str, torch.Tensor]) -> tuple[torch.Tensor, Any]:
    return sum(value.square().sum() for value in parameters.values()), ()


def optimization_step(folder: Path) -> dict[str, Any]:
    """Losses of two tasks with a graph, for `Combiner.backward`."""
    trunk, heads = nn.Linear(3, 3), [nn.Linear(3, 1), nn.Linear(3, 1)]
    features = trunk(torch.ones(4, 3))
    return {
        "losses": [head(features).square().mean() for head in heads],
        "shared": list(trunk.parameters()),
        "task_specific": [one for head in heads for one in head.parameters()],
        "heads": "weighted",
        "max_grad_norm": 1.0,
        "tasks": [0, 1],
    }


def policy_arguments(folder: Path) -> dict[str, Any]:
    return {
        "observation_space": STATE,
        "action_space": ACTION,
        "lr_schedule": lambda progress: 1e-3,
        "task_names": ("a", "b"),
        "one_hot": True,
        "net_arch": [4],
    }


def eval_env() -> Any:
    return make_vec_env("toy-reach", seed=1, horizon=2)


def combiner_key(name: str) -> str:
    found = combiner_class(name)
    return f"{found.__module__.removeprefix('mtrl_imgrad.')}.{found.__name__}"


def write_evaluations(folder: Path) -> Path:
    return history().save(folder / "evaluations.npz")


def faces(folder: Path) -> Path:
    root = folder / "faces"
    return root if root.exists() else write_celeba(root, face_splits(), ["Red", "Green"])


def saved_checkpoint(folder: Path) -> Path:
    if not (folder / "checkpoints").exists():
        agent().save_checkpoint(folder / "checkpoints" / "step_000000000001")
    return folder / "checkpoints"


def fresh_agent() -> MTSAC:
    return MTSAC(**agent_arguments(buffer_size=400, env=eval_env()))


def fresh_history() -> EvaluationHistory:
    return EvaluationHistory(("a", "b"))


def famo() -> Any:
    combiner = make_combiner("famo")
    combiner(jacobian(), torch.ones(3))
    return combiner
