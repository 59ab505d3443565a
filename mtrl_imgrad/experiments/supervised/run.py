"""A supervised run from its configuration: trains, resumes, and leaves a run folder behind."""

from __future__ import annotations

import dataclasses
import sys
import textwrap
import time
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import torch
from rich.console import Console
from rich.markup import escape
from rich.progress import MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn
from torch.utils.tensorboard import SummaryWriter

from mtrl_imgrad.checkpoints.format import is_checkpoint, read_checkpoint, write_checkpoint
from mtrl_imgrad.errors import ArgumentError, CheckpointError
from mtrl_imgrad.experiments.config_files import differences, plain, save_config
from mtrl_imgrad.experiments.run_folder import check_run, new_run_dir
from mtrl_imgrad.experiments.supervised.config import MethodConfig, SupervisedConfig, load_config
from mtrl_imgrad.experiments.supervised.data import load_splits
from mtrl_imgrad.experiments.supervised.history import (
    RunResult,
    best_epoch,
    epoch_row,
    read_rows,
    reported_result,
    write_rows,
)
from mtrl_imgrad.experiments.supervised.panels import draw_run_panel
from mtrl_imgrad.experiments.versions import installed_versions
from mtrl_imgrad.reporting.atomic_files import make_folder
from mtrl_imgrad.supervised.epoch_record import EpochRecord
from mtrl_imgrad.supervised.models import TaskModel, load_backbone, make_model
from mtrl_imgrad.supervised.replicas import Replica
from mtrl_imgrad.supervised.splits import Splits, TaskSplits
from mtrl_imgrad.supervised.trainer import MultiTaskTrainer
from mtrl_imgrad.validation import checked

LINE_EVERY = 20.0
"""Seconds between two lines of progress where there is no terminal."""


@checked
def train(
    config: SupervisedConfig, *, group: Any = None, console: Console | None = None, progress_bar: bool = True
) -> RunResult:
    """Run a configuration from start to end, in a folder of its own.

    The folder holds ``config.yaml`` (repeats the run), ``epochs.csv``, ``diagnostics.csv`` (a row for each logged
    step), TensorBoard events, ``checkpoint/`` (continues the run), and at the end ``result.json``, ``model/`` (the
    parameters that are reported or, with a mean of epochs, the last) and ``panel.png``. ``checkpoint/`` and ``model/``
    are of the format of `mtrl_imgrad.checkpoints.format`.

    Args:
        config: what to run.
        group: a ``torch.distributed`` process group whose ranks train together; the first of them writes the folder.
        console: where to print.
        progress_bar: whether to show how far it is.

    Raises:
        ArgumentError: if the run folder holds a run already, or the configuration is wrong.
        DatasetError: if the data's folder is not what its format says.
    """
    replica = Replica(group)
    method = config.data.tasks[0] if len(config.data.tasks) == 1 else config.method.combiner
    name = f"{config.data.name}-{method}-seed{config.seed}"
    folder = replica.of_first(lambda: new_run_dir(config.run_dir, name))
    return _Run(config, folder, replica, console, progress_bar).finish()


@checked
def resume(folder: Path, *, group: Any = None, console: Console | None = None, progress_bar: bool = True) -> RunResult:
    """Continue a run from its last checkpoint, as if it had never stopped; at once if it is finished.

    Args:
        folder: of a run that `train` began.
        group: as in `train`. Another number of ranks changes the rounding, and what dropout draws.
        console: where to print.
        progress_bar: whether to show how far it is.

    Raises:
        ArgumentError: if there is no run in the folder.
        CheckpointError: if its checkpoint cannot be read.
    """
    folder = folder.expanduser()
    check_run(folder)
    if (folder / "result.json").exists():
        return RunResult.load(folder / "result.json")
    _refuse_earlier_version(folder / "checkpoint.pt")
    return _Run(load_config(folder / "config.yaml"), folder, Replica(group), console, progress_bar).finish()


@checked
def check_settings(config: SupervisedConfig) -> None:
    """Whether the run folder of a configuration is free, or holds a run of this configuration.

    Raises:
        ArgumentError: if it holds another run; names each difference.
    """
    if config.run_dir is None:
        raise ArgumentError("run_dir must name the folder of the run, got none")
    made = config.run_dir / "config.yaml"
    if not made.exists():
        return
    before, now = (plain(dataclasses.asdict(dataclasses.replace(c, run_dir=None))) for c in (load_config(made), config))
    if changes := differences(before, now):
        raise ArgumentError(
            f"{config.run_dir} holds a run with other settings ({'; '.join(changes)}); take another folder (--out)"
        )


@checked
def train_or_resume(
    config: SupervisedConfig, *, console: Console | None = None, progress_bar: bool = True
) -> RunResult:
    """`train` where the run folder is free, else `resume`; see `check_settings`."""
    check_settings(config)
    assert config.run_dir is not None, "check_settings"
    if (config.run_dir / "config.yaml").exists():
        return resume(config.run_dir, console=console, progress_bar=progress_bar)
    return train(config, console=console, progress_bar=progress_bar)


@checked
def build_model(config: SupervisedConfig, data: Splits | TaskSplits) -> TaskModel:
    """The network of a configuration, with first weights that follow from its seed; not those of a file."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(config.seed)
        single = len(data.tasks) == 1
        name = config.model.single_task_model if single else config.model.model
        kwargs = {} if single else config.model.model_kwargs
        return make_model(name, data.tasks, width=config.model.width, protocol=config.protocol, **kwargs)


@checked
def load_model(folder: Path, data: Splits | TaskSplits) -> TaskModel:
    """The network of a finished run, on the CPU.

    Args:
        folder: of the run.
        data: its tasks.

    Raises:
        CheckpointError: if the file cannot be read.
    """
    model = build_model(load_config(folder / "config.yaml"), data)
    _load_parameters(model, folder)
    return model


def _refuse_earlier_version(path: Path) -> None:
    if path.exists():
        raise CheckpointError(f"{path} is of an earlier version of mtrl-imgrad; only that version reads it")


def _load_parameters(model: TaskModel, folder: Path) -> None:
    _refuse_earlier_version(folder / "model.pt")
    state = read_checkpoint(folder / "model")
    try:
        model.load_state_dict(state["model"])
    except (KeyError, TypeError, AttributeError, RuntimeError) as error:
        raise CheckpointError(f"{folder}/model does not fit the run's network: {error}") from error


@checked
def make_trainer(config: SupervisedConfig, data: Splits | TaskSplits, group: Any = None) -> MultiTaskTrainer:
    """The trainer of a configuration; ``group`` as in `train`."""
    method = _method(config, len(data.tasks))
    model = build_model(config, data)
    if config.model.weights is not None:
        load_backbone(model, config.model.weights)
    single = len(data.tasks) == 1
    # The code behind CelebA's published single-task baselines never leaves the training mode.
    in_training_mode = config.protocol == "paper" and single and data.tasks[0].kind == "attribute"
    return MultiTaskTrainer(
        model,
        data,
        method.combiner,
        combiner_kwargs={"reduction": method.reduction, **method.combiner_kwargs},
        optimization=config.optimization,
        reporting=config.reporting,
        gradients=method.gradients,
        heads=method.heads or "unweighted",
        task_scales=_task_scales(config, data),
        sharing=method.sharing or "cagrad",
        max_grad_norm=method.max_grad_norm,
        on_nonfinite=method.on_nonfinite,
        protocol=config.protocol,
        evaluation_mode="train" if in_training_mode else "eval",
        seed=config.seed,
        device=config.device,
        num_workers=config.data.num_workers,
        group=group,
    )


def _method(config: SupervisedConfig, num_tasks: int) -> MethodConfig:
    """The method of a run; with one task there is nothing to combine."""
    method = config.resolved_method()
    if num_tasks == 1:
        return MethodConfig("linear_scalarization", sharing=method.sharing, on_nonfinite=method.on_nonfinite)
    if config.protocol == "paper" and method.combiner == "imgrad" and num_tasks == 2:
        quirk = {"official_k2_quirk": True}  # a slip of the authors' CityScapes code
        return dataclasses.replace(method, combiner_kwargs={**quirk, **method.combiner_kwargs})
    return method


def _task_scales(config: SupervisedConfig, data: Splits | TaskSplits) -> dict[str, float]:
    """Those of the run's tasks; a single-task run keeps only its own."""
    learned = {task.name for task in data.tasks}
    scales: dict[str, float] = config.data.task_scales
    return {name: scale for name, scale in scales.items() if name in learned or not config.data.tasks}


class _Run:
    """A run on its way: the trainer, what it has recorded, and the folder."""

    def __init__(
        self, config: SupervisedConfig, folder: Path, replica: Replica, console: Console | None, progress_bar: bool
    ) -> None:
        self.config, self.folder, self.replica = config, folder, replica
        self.writes = replica.rank == 0
        """Whether this process keeps the folder and the console."""
        self.progress_bar = progress_bar and self.writes
        self.console = console or Console(file=sys.stdout, highlight=False, quiet=not self.writes)
        if config.torch_threads is not None:
            torch.set_num_threads(config.torch_threads)
        # The first makes simulated scenes, the others find them.
        with replica.first_alone():
            self.data = load_splits(
                config.data, protocol=config.protocol, seed=config.seed, progress_bar=self.progress_bar
            )
        self.trainer = make_trainer(config, self.data, replica.group)
        self.records: list[EpochRecord] = []
        self.rows: list[dict[str, float]] = []
        # Nothing is written before everything could be built, so that a mistake leaves no folder behind.
        if is_checkpoint(folder / "checkpoint"):
            self._restore()
        elif self.writes and not (folder / "config.yaml").exists():
            make_folder("run_dir", folder)
            record = {"device": str(self.trainer.device), "versions": installed_versions()}
            save_config(config, folder / "config.yaml", record)

    def finish(self) -> RunResult:
        """Train what is left, then report."""
        self._introduce()
        with SummaryWriter(str(self.folder), purge_step=self.trainer.step) if self.writes else nullcontext() as writer:
            self._train(writer)
        result = reported_result(self.records, self.config.reporting, self.data.tasks, self.data.reported)
        if not self.writes:
            return result
        if self.config.reporting.report == "best":
            _load_parameters(self.trainer.model, self.folder)
        else:
            self._save_model()
        draw_run_panel(self.trainer, self.folder / "panel.png", self.config.reporting.panel_images)
        result.save(self.folder / "result.json")  # last: it says that the run is finished
        return result

    def _train(self, writer: SummaryWriter | None) -> None:
        left = self.config.optimization.epochs - self.trainer.epoch
        live = self.progress_bar and self.console.is_terminal
        columns = (
            *Progress.get_default_columns()[:2],
            MofNCompleteColumn(),
            TimeRemainingColumn(),
            TextColumn("{task.fields[news]}"),
        )
        with Progress(*columns, console=self.console, disable=not live) as bar:
            task = bar.add_task(_name(self.config), total=left * self.trainer.steps_per_epoch, news="")
            said = time.monotonic()
            for record in self.trainer.epochs(lambda: bar.advance(task)):
                self._keep(record, writer)
                news = _news(record, self.config.optimization.epochs)
                bar.update(task, news=news)
                if self.progress_bar and not live and time.monotonic() - said > LINE_EVERY:
                    self.console.print(f"  {_name(self.config)}: {news}", soft_wrap=True)
                    said = time.monotonic()

    def _keep(self, record: EpochRecord, writer: SummaryWriter | None) -> None:
        """Everything that an epoch leaves goes to the folder; the checkpoint last."""
        self.records.append(record)
        self.rows += record.diagnostics
        if writer is None:
            return
        if (
            self.config.reporting.report == "best"
            and best_epoch(self.records, self.data.tasks) == len(self.records) - 1
        ):
            self._save_model()
        for row in record.diagnostics:
            for name, value in row.items():
                if name not in ("epoch", "step"):
                    writer.add_scalar(f"diagnostics/{name}", value, int(row["step"]))
        for name, value in epoch_row(record).items():
            if name not in ("epoch", "step"):
                writer.add_scalar(name, value, record.step)
        last = self.trainer.epoch == self.config.optimization.epochs
        if last or self.trainer.epoch % self.config.reporting.checkpoint_every == 0:
            write_rows(self.folder / "epochs.csv", [epoch_row(record) for record in self.records])
            write_rows(self.folder / "diagnostics.csv", self.rows)
            # The diagnostics have a file of their own.
            history = [dataclasses.asdict(dataclasses.replace(record, diagnostics=[])) for record in self.records]
            write_checkpoint(self.folder / "checkpoint", {**self.trainer.state_dict(), "history": history})

    def _restore(self) -> None:
        state = read_checkpoint(self.folder / "checkpoint")
        try:
            self.trainer.load_state_dict(state)
            self.records = [EpochRecord(**record) for record in state["history"]]
        except (KeyError, TypeError, AttributeError, CheckpointError) as error:
            raise CheckpointError(f"{self.folder}/checkpoint cannot be restored: {error}") from error
        # A crash may have come between the table and the checkpoint.
        rows = read_rows(self.folder / "diagnostics.csv")
        self.rows = [row for row in rows if row["epoch"] < self.trainer.epoch]

    def _save_model(self) -> None:
        write_checkpoint(self.folder / "model", {"model": self.trainer.model.state_dict()})

    def _introduce(self) -> None:
        count = sum(parameter.numel() for parameter in self.trainer.model.parameters())
        begun = f", continued at epoch {self.trainer.epoch + 1}" if self.trainer.epoch else ""
        self.console.print(escape(f"{_name(self.config)} in {self.folder}{begun}"), style="bold", soft_wrap=True)
        single = len(self.data.tasks) == 1
        what = "single task" if single else textwrap.shorten(repr(self.trainer.combiner), 200)  # tables may be long
        self.console.print(
            escape(
                f"  {what}; {self.trainer.model.name}, {count:,} parameters, {len(self.data.tasks)} task(s), "
                f"protocol {self.config.protocol}, on {self.trainer.device}"
            ),
            soft_wrap=True,
        )


def _name(config: SupervisedConfig) -> str:
    tasks = config.data.tasks
    method = tasks[0] + " alone" if len(tasks) == 1 else config.method.combiner
    return f"{config.data.name}, {method}, seed {config.seed}"


def _news(record: EpochRecord, epochs: int) -> str:
    losses = ", ".join(f"{task} {loss:.3g}" for task, loss in list(record.train_losses.items())[:4])
    return f"epoch {record.epoch + 1}/{epochs}, {record.seconds:.1f} s, losses: {losses}"
