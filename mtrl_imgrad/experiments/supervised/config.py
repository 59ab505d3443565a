"""The configuration of a supervised run: typed, frozen, on the command line and in YAML alike.

A run's ``config.yaml`` holds every value and repeats it. Presets are such files, shipped in
``mtrl_imgrad/presets/supervised``, with the source of each value beside it.
"""

from __future__ import annotations

import dataclasses
import math
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Any, ClassVar, Literal

import tyro
from annotated_types import Ge, Gt

from mtrl_imgrad.combiners import combiner_class
from mtrl_imgrad.errors import ArgumentError
from mtrl_imgrad.experiments.config_files import STRICT, read_sections, validated
from mtrl_imgrad.experiments.options import Flat, Options
from mtrl_imgrad.experiments.presets import preset_path
from mtrl_imgrad.gradients.absent_tasks import OnNonFinite
from mtrl_imgrad.gradients.heads import Heads
from mtrl_imgrad.supervised.datasets.registry import data_format
from mtrl_imgrad.supervised.protocol import Protocol
from mtrl_imgrad.supervised.settings import OptimizationConfig, ReportConfig
from mtrl_imgrad.supervised.splits import Mixing
from mtrl_imgrad.validation import Count, NonNegativeInt, Positive, PositiveOrInf, Probability, check, checked


@checked
@dataclass(frozen=True)
class DataConfig:
    """Which data, and what is done to it."""

    format: str = "nyuv2"
    """Format of the folder: nyuv2, cityscapes, celeba, pascal_context, office31, office_home, qm9, or one that was
    registered."""
    root: Path | None = None
    """Folder of the data set."""
    tasks: tuple[str, ...] = ()
    """Names of the tasks to learn; none means all, one gives the single-task network."""
    train_fraction: Annotated[Probability, Gt(0)] = 1.0
    """Share of the training images whose labels are used."""
    full_tasks: tuple[str, ...] = ()
    """Tasks whose labels are used of all training images, whatever train_fraction."""
    task_scales: Options = field(default_factory=dict)
    """What the loss of a task is multiplied by, by task, as another unit would: depth=30 makes tasks unequal."""
    multi_input: bool = False
    """A loader of its own for each task; Office-31 and Office-Home always have that."""
    mixing: Mixing = "longest"
    """Tasks of a step where each has a loader: all till the longest ends, in turn, or drawn by length."""
    tasks_per_step: Count = 1
    """Tasks of a step (round_robin, proportional)."""
    batch_sizes: Options = field(default_factory=dict)
    """Images of a task's batch, by task, where it is not batch_size (multi_input)."""
    task_fractions: Options = field(default_factory=dict)
    """Share of the training images that a task's loader has, by task (multi_input)."""
    augment: bool = True
    """Zoom and mirror the training images (NYUv2, CityScapes, PASCAL-Context)."""
    label_dir: str = "label_7"
    """Folder of the labels (CityScapes)."""
    num_classes: Annotated[int, Ge(2)] = 7
    """Classes of these labels (CityScapes)."""
    image_size: tuple[Count, Count] = (64, 64)
    """Height and width that images are resized to (CelebA, Office) or fitted into (PASCAL-Context)."""
    num_workers: NonNegativeInt = 0
    """Processes that read images; 0 reads in this one."""
    simulate: Literal["primitives", "mt10", "attributes"] | None = None
    """Make the folder first, of simulated scenes, where it is not there."""
    simulate_counts: tuple[Count, ...] = (320, 80)
    """Scenes for training and validation, and for test where the format has such a split."""
    simulate_size: tuple[Count, Count] = (96, 128)
    """Height and width of the scenes."""
    reader_kwargs: Options = field(default_factory=dict)
    """Further arguments of the format's reader."""

    @property
    def name(self) -> str:
        """Of the data, for folders and messages: what the scenes show, or the format."""
        return self.simulate or self.format

    def __post_init__(self) -> None:
        data_format(self.format)
        if len(set(self.tasks)) != len(self.tasks):
            raise ArgumentError(f"tasks must be different ones, got {list(self.tasks)}")
        for name, scale in self.task_scales.items():
            check(f"task_scales[{name!r}]", scale, Positive)
        for name, size in self.batch_sizes.items():
            check(f"batch_sizes[{name!r}]", size, Count)
        for name, share in self.task_fractions.items():
            check(f"task_fractions[{name!r}]", share, Annotated[Probability, Gt(0)])


@checked
@dataclass(frozen=True)
class ModelConfig:
    """The network, see `mtrl_imgrad.supervised.models`."""

    model: str = "segnet_mtan"
    """Network: a backbone, alone or with an architecture behind it, such as resnet18_mmoe; see `list_models`."""
    single_task_model: str = "segnet"
    """Network of the single-task baselines."""
    width: Positive = 1.0
    """Multiplies the number of feature maps; 1 is the published network."""
    weights: Path | None = None
    """File of first weights in torchvision's or timm's names (ResNets, ViTs); None draws them."""
    model_kwargs: Options = field(default_factory=dict)
    """Further arguments of the network, such as experts=4."""


@checked
@dataclass(frozen=True)
class MethodConfig:
    """How the task gradients become one update. None takes what the preset says of the combiner, see ``methods``."""

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
    max_grad_norm: PositiveOrInf | None = None
    """Shorten the combined gradient to this norm; None: never, inf: never, whatever the preset says."""
    on_nonfinite: OnNonFinite = "raise"
    """A step with a NaN or infinite loss or gradient of some task: an error, no step, or a step without the task."""


Hidden = tyro.conf.Suppress

METHOD_KEYS = ("combiner_kwargs", "heads", "sharing", "max_grad_norm")
"""The settings that a preset may have for a combiner."""


@checked
@dataclass(frozen=True)
class SupervisedConfig:
    """Everything that determines a run."""

    __pydantic_config__: ClassVar = STRICT

    data: Annotated[DataConfig, Flat] = field(default_factory=DataConfig)
    model: Annotated[ModelConfig, Flat] = field(default_factory=ModelConfig)
    method: Annotated[MethodConfig, Flat] = field(default_factory=MethodConfig)
    optimization: Annotated[OptimizationConfig, Flat] = field(default_factory=OptimizationConfig)
    reporting: Annotated[ReportConfig, Flat] = field(default_factory=ReportConfig)
    methods: Annotated[dict[str, dict[str, Any]], Hidden] = field(default_factory=dict)
    """By combiner: the arguments, heads, sharing and clipping that its paper used."""
    protocol: Protocol = "fixed"
    """"paper" keeps the quirks that published numbers rest on, "fixed" mends them."""
    seed: NonNegativeInt = 0
    """Determines the run on one machine."""
    device: str = "auto"
    """auto, cpu, cuda ..."""
    torch_threads: Count | None = None
    """Threads of PyTorch on the CPU; None leaves its own choice."""
    run_dir: Path | None = None
    """Run folder; None makes runs/<data>-<combiner>-seed<seed>-<time>."""

    def __post_init__(self) -> None:
        for combiner, settings in self.methods.items():
            combiner_class(combiner)
            if unknown := sorted(set(settings) - set(METHOD_KEYS)):
                raise ArgumentError(f"methods[{combiner!r}] may have {', '.join(METHOD_KEYS)}, got {unknown[0]!r}")
            try:
                MethodConfig(combiner, **settings)
            except ArgumentError as error:
                raise ArgumentError(f"methods[{combiner!r}]: {error}") from error

    def resolved_method(self) -> MethodConfig:
        """The method with everything that was left open taken from ``methods``, then from the library's defaults."""
        method, preset = self.method, self.methods.get(self.method.combiner, {})
        return dataclasses.replace(
            method,
            combiner_kwargs={**preset.get("combiner_kwargs", {}), **method.combiner_kwargs},
            heads=method.heads or preset.get("heads", "unweighted"),
            sharing=method.sharing or preset.get("sharing", "cagrad"),
            max_grad_norm=_first(method.max_grad_norm, preset.get("max_grad_norm")),
        )


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
    return dataclasses.replace(
        config, methods={**load_config(preset_path("supervised", source)).methods, **config.methods}
    )


def _first(*values: float | None) -> float | None:
    """The first that is not None; infinity stands for none at all."""
    first = next((value for value in values if value is not None), None)
    return None if first == math.inf else first
