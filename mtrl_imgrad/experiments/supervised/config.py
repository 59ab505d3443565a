"""What a supervised run is made from: typed, frozen, on the command line and in YAML alike.

A run's ``config.yaml`` holds every value and repeats it. Presets are such files, shipped in
``mtrl_imgrad/presets/supervised``, with the source of each value beside it.
"""

from __future__ import annotations

import dataclasses
import math
from dataclasses import dataclass, field
from importlib import resources
from pathlib import Path
from typing import Annotated, Any, ClassVar, Literal

import tyro

from mtrl_imgrad.combiners import combiner_class
from mtrl_imgrad.combiners.arguments import check_choice
from mtrl_imgrad.errors import ArgumentError, UnknownNameError
from mtrl_imgrad.experiments.rl.config import STRICT, Options, read_sections, validated
from mtrl_imgrad.gradients.absent_tasks import OnNonFinite
from mtrl_imgrad.gradients.per_loss import Heads
from mtrl_imgrad.supervised.protocol import Protocol, check_protocol
from mtrl_imgrad.validation import checked

__all__ = [
    "DataConfig",
    "MethodConfig",
    "ModelConfig",
    "OptimisationConfig",
    "ReportConfig",
    "SupervisedConfig",
    "list_presets",
    "load_config",
    "preset_path",
]


@checked
@dataclass(frozen=True)
class DataConfig:
    """Which data, and what is done to it."""

    __pydantic_config__: ClassVar = STRICT

    format: Literal["nyuv2", "cityscapes", "celeba"] = "nyuv2"
    """Format of the folder; simulated scenes come in NYUv2's or CelebA's."""
    root: Path | None = None
    """Folder of the data set."""
    tasks: tuple[str, ...] = ()
    """Names of the tasks to learn; none means all, one gives the single-task network."""
    train_fraction: float = 1.0
    """Share of the training images whose labels are used."""
    full_tasks: tuple[str, ...] = ()
    """Tasks whose labels are used of all training images, whatever train_fraction."""
    augment: bool = True
    """Zoom and mirror the training images (NYUv2, CityScapes)."""
    label_dir: str = "label_7"
    """Folder of the labels (CityScapes)."""
    num_classes: int = 7
    """Classes of these labels (CityScapes)."""
    image_size: tuple[int, int] = (64, 64)
    """Height and width that images are resized to (CelebA)."""
    num_workers: int = 0
    """Processes that read images; 0 reads in this one."""
    simulate: Literal["primitives", "mt10", "attributes"] | None = None
    """Make the folder first, of simulated scenes, where it is not there."""
    simulate_counts: tuple[int, ...] = (320, 80)
    """Scenes for training and validation, and for test where the format has such a split."""
    simulate_size: tuple[int, int] = (96, 128)
    """Height and width of the scenes."""

    def __post_init__(self) -> None:
        check_choice("format", self.format, ("nyuv2", "cityscapes", "celeba"))
        if self.simulate is not None:
            check_choice("simulate", self.simulate, ("primitives", "mt10", "attributes"))
        if len(set(self.tasks)) != len(self.tasks):
            raise ArgumentError(f"tasks must be different ones, got {list(self.tasks)}")
        _check("train_fraction", self.train_fraction, 0 < self.train_fraction <= 1, "above 0 and at most 1")
        _check("num_classes", self.num_classes, self.num_classes >= 2, "at least 2")
        _check("num_workers", self.num_workers, self.num_workers >= 0, "at least 0")
        for name in ("image_size", "simulate_size", "simulate_counts"):
            _check(name, getattr(self, name), all(number >= 1 for number in getattr(self, name)), "of at least 1 each")


@checked
@dataclass(frozen=True)
class ModelConfig:
    """The network, see `mtrl_imgrad.supervised.models`."""

    __pydantic_config__: ClassVar = STRICT

    model: str = "segnet_mtan"
    """Network."""
    single_task_model: str = "segnet"
    """Network of the single-task baselines."""
    width: float = 1.0
    """Multiplies the number of feature maps; 1 is the published network."""

    def __post_init__(self) -> None:
        _check("width", self.width, 0 < self.width < math.inf, "positive and finite")


@checked
@dataclass(frozen=True)
class MethodConfig:
    """How the task gradients become one update. None takes what the preset says of the combiner, see ``methods``."""

    __pydantic_config__: ClassVar = STRICT

    combiner: str = "imgrad"
    """Combiner of the task gradients; see `mtrl-imgrad combiners`."""
    combiner_kwargs: Options = field(default_factory=dict)
    """Its arguments, such as c=0.4; they go before the preset's."""
    reduction: Literal["mean", "sum"] = "sum"
    """Unit of the update: mean of the task gradients, or their sum as in the papers."""
    gradients: Literal["losses", "features"] = "losses"
    """Combine gradients of the shared parameters, or of the representation (one backward through the trunk)."""
    heads: Heads | None = None
    """A task's own parameters take its plain gradient, or that times its weight; None: unweighted."""
    sharing: Literal["cagrad", "nash"] | None = None
    """Which parameters are shared, see `split_parameters`; None: cagrad."""
    max_grad_norm: float | None = None
    """Shorten the combined gradient to this norm; None: never, inf: never, whatever the preset says."""
    on_nonfinite: OnNonFinite = "raise"
    """A step with a NaN or infinite loss or gradient of some task: an error, no step, or a step without the task."""

    def __post_init__(self) -> None:
        check_choice("reduction", self.reduction, ("mean", "sum"))
        check_choice("gradients", self.gradients, ("losses", "features"))
        if self.heads is not None:
            check_choice("heads", self.heads, ("unweighted", "weighted"))
        if self.sharing is not None:
            check_choice("sharing", self.sharing, ("cagrad", "nash"))
        if self.max_grad_norm is not None:
            _check("max_grad_norm", self.max_grad_norm, self.max_grad_norm > 0, "positive, inf for none, or None")


@checked
@dataclass(frozen=True)
class OptimisationConfig:
    """Adam and its schedule."""

    __pydantic_config__: ClassVar = STRICT

    epochs: int = 200
    """Passes over the training images."""
    batch_size: int = 2
    """Images of a batch."""
    learning_rate: float = 1e-4
    """Of Adam."""
    lr_schedule: Literal["constant", "step", "cosine"] = "step"
    """Keep the learning rate, multiply it now and then, or lower it to zero along a cosine; epoch by epoch."""
    lr_step_epochs: int = 100
    """Epochs between two multiplications (step)."""
    lr_factor: float = 0.5
    """What it is multiplied by (step)."""
    weight_decay: float = 0.0
    """Of Adam."""
    amp: Literal["none", "bf16", "fp16"] = "none"
    """Mixed precision; fp16 needs a GPU."""

    def __post_init__(self) -> None:
        check_choice("lr_schedule", self.lr_schedule, ("constant", "step", "cosine"))
        check_choice("amp", self.amp, ("none", "bf16", "fp16"))
        for name in ("epochs", "batch_size", "lr_step_epochs"):
            _check(name, getattr(self, name), getattr(self, name) >= 1, "at least 1")
        for name in ("learning_rate", "lr_factor"):
            value = getattr(self, name)
            _check(name, value, 0 < value < math.inf, "positive and finite")
        _check("weight_decay", self.weight_decay, 0 <= self.weight_decay < math.inf, "at least 0 and finite")

    def learning_rate_at(self, epoch: int) -> float:
        """The learning rate of an epoch, counted from 0."""
        if self.lr_schedule == "step":
            return self.learning_rate * self.lr_factor ** (epoch // self.lr_step_epochs)
        if self.lr_schedule == "cosine":
            return self.learning_rate * (1 + math.cos(math.pi * epoch / self.epochs)) / 2
        return self.learning_rate


@checked
@dataclass(frozen=True)
class ReportConfig:
    """Which numbers are a run's result, and what is logged."""

    __pydantic_config__: ClassVar = STRICT

    report: Literal["last", "best"] = "last"
    """Mean of the last epochs, or the epoch that is best in validation."""
    last_epochs: int = 10
    """How many last epochs are averaged."""
    eval_every: int = 1
    """Epochs between evaluations; those that are reported are always evaluated."""
    log_every: int = 100
    """Steps between two rows of gradient diagnostics; 0 logs none."""
    checkpoint_every: int = 1
    """Epochs between checkpoints."""
    panel_images: int = 3
    """Validation images in the panel of predictions."""

    def __post_init__(self) -> None:
        check_choice("report", self.report, ("last", "best"))
        for name in ("last_epochs", "eval_every", "checkpoint_every", "panel_images"):
            _check(name, getattr(self, name), getattr(self, name) >= 1, "at least 1")
        _check("log_every", self.log_every, self.log_every >= 0, "at least 0")

    def is_evaluated(self, epoch: int, epochs: int) -> bool:
        """Whether an epoch, counted from 0, ends with an evaluation."""
        return self.report == "best" or (epoch + 1) % self.eval_every == 0 or epoch >= epochs - self.last_epochs


Flat = tyro.conf.arg(name="")
Hidden = tyro.conf.Suppress

METHOD_KEYS = ("combiner_kwargs", "heads", "sharing", "max_grad_norm")
"""What a preset may say of a combiner."""


@checked
@dataclass(frozen=True)
class SupervisedConfig:
    """Everything that determines a run."""

    __pydantic_config__: ClassVar = STRICT

    data: Annotated[DataConfig, Flat] = field(default_factory=DataConfig)
    model: Annotated[ModelConfig, Flat] = field(default_factory=ModelConfig)
    method: Annotated[MethodConfig, Flat] = field(default_factory=MethodConfig)
    optimisation: Annotated[OptimisationConfig, Flat] = field(default_factory=OptimisationConfig)
    reporting: Annotated[ReportConfig, Flat] = field(default_factory=ReportConfig)
    methods: Annotated[dict[str, dict[str, Any]], Hidden] = field(default_factory=dict)
    """By combiner: the arguments, heads, sharing and clipping that its paper used."""
    protocol: Protocol = "fixed"
    """"paper" keeps the quirks that published numbers rest on, "fixed" mends them."""
    seed: int = 0
    """Determines the run on one machine."""
    device: str = "auto"
    """auto, cpu, cuda ..."""
    torch_threads: int | None = None
    """Threads of PyTorch on the CPU; None leaves its own choice."""
    run_dir: Path | None = None
    """Run folder; None makes runs/<data>-<combiner>-seed<seed>-<time>."""

    def __post_init__(self) -> None:
        _check("seed", self.seed, self.seed >= 0, "at least 0")
        check_protocol(self.protocol)
        if self.torch_threads is not None:
            _check("torch_threads", self.torch_threads, self.torch_threads >= 1, "at least 1, or None")
        for combiner, settings in self.methods.items():
            combiner_class(combiner)
            if unknown := sorted(set(settings) - set(METHOD_KEYS)):
                raise ArgumentError(f"methods[{combiner!r}] may have {', '.join(METHOD_KEYS)}, got {unknown[0]!r}")

    def resolved_method(self) -> MethodConfig:
        """The method with everything that was left open taken from ``methods``, then from the library's defaults."""
        method, preset = self.method, self.methods.get(self.method.combiner, {})
        return MethodConfig(
            combiner=method.combiner,
            combiner_kwargs={**preset.get("combiner_kwargs", {}), **method.combiner_kwargs},
            reduction=method.reduction,
            gradients=method.gradients,
            heads=method.heads or preset.get("heads", "unweighted"),
            sharing=method.sharing or preset.get("sharing", "cagrad"),
            max_grad_norm=_first(method.max_grad_norm, preset.get("max_grad_norm")),
            on_nonfinite=method.on_nonfinite,
        )


def list_presets() -> list[str]:
    """Names of the shipped configurations.

    >>> list_presets()
    ['attributes', 'celeba', 'cityscapes', 'demo', 'nyuv2', 'primitives', 'scenes']
    """
    folder = resources.files("mtrl_imgrad") / "presets" / "supervised"
    return sorted(entry.name[: -len(".yaml")] for entry in folder.iterdir() if entry.name.endswith(".yaml"))


@checked
def preset_path(name: str) -> Path:
    """The file of a preset.

    Raises:
        UnknownNameError: if there is no preset of that name.
    """
    if name not in list_presets():
        raise UnknownNameError("data preset", name, list_presets())
    return Path(str(resources.files("mtrl_imgrad") / "presets" / "supervised" / f"{name}.yaml"))


@checked
def load_config(path: str | Path) -> SupervisedConfig:
    """Read a configuration: a preset's or a run's.

    ``methods_from: PRESET`` in the file stands for that preset's ``methods``; those of the file go before them.

    Raises:
        ArgumentError: if the file cannot be read, or holds a key or a value that does not exist, naming it.
        UnknownNameError: if ``methods_from`` is no preset.
    """
    data = read_sections(path)
    source = data.pop("methods_from", None)
    config = validated(path, data, SupervisedConfig)
    if source is None:
        return config
    return dataclasses.replace(config, methods={**load_config(preset_path(source)).methods, **config.methods})


def _first(*values: float | None) -> float | None:
    """The first that is not None; infinity stands for none at all."""
    found = next((value for value in values if value is not None), None)
    return None if found == math.inf else found


def _check(name: str, value: object, holds: bool, expected: str) -> None:
    if not holds:
        raise ArgumentError(f"{name} must be {expected}, got {value!r}")
