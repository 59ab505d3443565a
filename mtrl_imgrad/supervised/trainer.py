"""Train a network on several visual tasks at once with any combiner; with one task, its single-task baseline.

Losses go to the combiner as a list, one scalar a task, so that a task's backward visits its own branch only.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, nullcontext
from typing import Any, Literal

import torch
from torch import Tensor
from torch.utils.data import DataLoader, RandomSampler

from mtrl_imgrad.combiners import Combiner
from mtrl_imgrad.errors import ArgumentError, CheckpointError, NonFiniteError, TaskMismatchError
from mtrl_imgrad.gradients.absent_tasks import NonFiniteCounts, OnNonFinite, after_step, check_on_nonfinite
from mtrl_imgrad.gradients.heads import Heads
from mtrl_imgrad.seeding import Stream, stream_seed, torch_generator
from mtrl_imgrad.supervised.batch_norm import frozen_statistics
from mtrl_imgrad.supervised.epoch_record import EpochRecord
from mtrl_imgrad.supervised.metric_set import MetricSet
from mtrl_imgrad.supervised.models import FeatureModel, SharingRule, TaskModel, split_parameters
from mtrl_imgrad.supervised.objectives import make_loss
from mtrl_imgrad.supervised.optimizer import make_optimizer
from mtrl_imgrad.supervised.protocol import Protocol
from mtrl_imgrad.supervised.replicas import Replica
from mtrl_imgrad.supervised.run_combiner import run_combiner
from mtrl_imgrad.supervised.settings import OptimizationConfig, ReportConfig
from mtrl_imgrad.supervised.splits import ItemDataset, Splits, length
from mtrl_imgrad.supervised.step_diagnostics import probe_gramian, step_diagnostics
from mtrl_imgrad.validation import NonNegativeInt, PositiveOrInf, Seed, checked

__all__ = ["MultiTaskTrainer"]

_AMP_TYPES = {"bf16": torch.bfloat16, "fp16": torch.float16}


@checked
class MultiTaskTrainer:
    """Adam on the combined task gradients, epoch by epoch; with AdaTask, which is an optimizer, its own step.

        trainer = MultiTaskTrainer(model, splits, "imgrad", combiner_kwargs={"c": 0.4})
        for record in trainer.epochs():
            print(record.epoch, record.results["val"])

    Given the same seed (and first weights), two runs on one machine's CPU agree bit for bit, also when one of them was
    stopped after an epoch and continued from `state_dict`: every epoch's random numbers follow from seed and epoch.

    Args:
        model: moved to ``device``.
        data: its tasks must be the model's.
        combiner: a `Combiner`, or its registry name. With one task it has no part in the update.
        combiner_kwargs: arguments for a registry name; what is left out follows from the run, see `run_combiner`.
        optimization: Adam, its schedule, epochs, batches, mixed precision.
        reporting: which epochs are evaluated and which steps logged.
        gradients: ``"features"`` combines at the model's representation, with one backward through the trunk.
        heads: gradient of a task's own parameters: its plain gradient, or that times the task's weight.
        sharing: which parameters are shared, see `split_parameters`.
        max_grad_norm: shorten the combined gradient of the shared parameters to this norm.
        on_nonfinite: what becomes of a step with a NaN or an infinity, see `Combiner.backward`. What is left out is
            counted in the epoch's record.
        protocol: of losses and metrics. Under ``"fixed"`` a second look at a batch (`Combiner.after_step`) leaves
            the running statistics of batch norm alone; under ``"paper"`` it updates them a second time.
        evaluation_mode: ``"train"`` evaluates with the batch's statistics, as the single-task code behind CelebA's
            published baselines does.
        seed: of the order of images, of dropout, and of the combiner.
        device: ``"auto"`` takes a GPU if there is one.
        num_workers: processes that read images.
        group: a ``torch.distributed`` process group, whose ranks share every batch: see docs/distributed.md.

    Raises:
        ArgumentError: if an argument is wrong, or two do not go together.
        TaskMismatchError: if the data's tasks are not the model's.
        UnknownNameError: for an unknown combiner, rule or protocol.
    """

    def __init__(
        self,
        model: TaskModel,
        data: Splits,
        combiner: str | Combiner = "imgrad",
        *,
        combiner_kwargs: Mapping[str, Any] | None = None,
        optimization: OptimizationConfig | None = None,
        reporting: ReportConfig | None = None,
        gradients: Literal["losses", "features"] = "losses",
        heads: Heads = "unweighted",
        sharing: SharingRule = "cagrad",
        max_grad_norm: PositiveOrInf | None = None,
        on_nonfinite: OnNonFinite = "raise",
        protocol: Protocol = "fixed",
        evaluation_mode: Literal["eval", "train"] = "eval",
        seed: Seed = 0,
        device: str | torch.device = "auto",
        num_workers: NonNegativeInt = 0,
        group: Any = None,
    ) -> None:
        if model.tasks != data.tasks:
            raise TaskMismatchError(f"the model's tasks are {model.tasks}, the data's {data.tasks}")
        if gradients == "features" and not isinstance(model, FeatureModel):
            raise ArgumentError(f"gradients='features' needs one representation for all heads; {model.name} has none")
        self.optimization = optimization or OptimizationConfig()
        self.reporting = reporting or ReportConfig()
        self.device = _device(device)
        self.replica = Replica(group)
        self.replica.check_batches(model.tasks, self.optimization.batch_size)
        if self.optimization.amp == "fp16" and self.device.type != "cuda":
            raise ArgumentError(f"amp='fp16' needs a GPU, the device is {self.device}; 'bf16' works on both")
        if self.optimization.amp == "fp16" and on_nonfinite != "raise":
            raise ArgumentError(f"on_nonfinite={on_nonfinite!r} does not go with amp='fp16', which skips steps itself")
        self.on_nonfinite = on_nonfinite
        self.model, self.data, self.protocol = model.to(self.device), data, protocol
        self.combiner = run_combiner(
            combiner, combiner_kwargs or {}, tasks=model.tasks, seed=seed, steps_per_epoch=self.steps_per_epoch
        )
        check_on_nonfinite(on_nonfinite, self.combiner)
        _check_step(self.combiner, gradients, max_grad_norm)
        self.gradients, self.heads, self.max_grad_norm = gradients, heads, max_grad_norm
        self.evaluation_mode, self.seed, self.num_workers = evaluation_mode, seed, num_workers
        self.epoch = 0
        """Epochs that are done."""
        self.step = 0
        """Batches that are done."""
        self._left_out = NonFiniteCounts([task.name for task in model.tasks])
        self._losses = {task.name: make_loss(task, protocol) for task in model.tasks}
        split = split_parameters(model, sharing)
        self._shared = split.shared
        self._own = [parameter for parameters in split.own.values() for parameter in parameters]
        self._optimizer = make_optimizer(self.combiner, self._shared, self._own, self.optimization, self.device)
        self._scaler = torch.amp.GradScaler("cuda") if self.optimization.amp == "fp16" else None

    def epochs(self, advance: Callable[[], object] = lambda: None) -> Iterator[EpochRecord]:
        """Train to the last epoch, and hand out each one's record when it is done.

        Args:
            advance: called after every update, for a progress bar.

        Raises:
            NonFiniteError: if a loss or a gradient is NaN or infinite; names the epoch and the step. Not with another
                ``on_nonfinite``, which warns of the first such step of an epoch.
        """
        while self.epoch < self.optimization.epochs:
            yield self._run_epoch(advance)

    @property
    def steps_per_epoch(self) -> int:
        """Updates of an epoch."""
        count, size = length(self.data.train), self.optimization.batch_size
        return count // size if self._drops_last() else math.ceil(count / size)

    def evaluate(self, split: str) -> tuple[dict[str, dict[str, float]], dict[str, float]]:
        """Metrics by task and mean losses by task, over a split of ``data.evaluation``."""
        metrics = MetricSet(self.model.tasks, self.protocol)
        totals, count = torch.zeros(len(self._losses), dtype=torch.float64, device=self.device), 0
        self.model.train(self.evaluation_mode == "train")
        with torch.no_grad():
            for images, targets in self._batches(self.data.evaluation[split]):
                predictions, _ = self._predict(images)
                metrics.update(predictions, targets)
                totals += torch.stack(self._task_losses(predictions, targets)).double() * len(images)
                count += len(images)
        totals, number = self.replica.merge(metrics, totals, count)
        return metrics.compute(), dict(zip(self._losses, (totals / number).tolist(), strict=True))

    def state_dict(self) -> dict[str, Any]:
        """What continues the run bit for bit after an epoch."""
        return {
            "model": self.model.state_dict(),
            "optimizer": self._optimizer.state_dict(),
            "combiner": self.combiner.state_dict(),
            "scaler": self._scaler.state_dict() if self._scaler is not None else {},
            "epoch": self.epoch,
            "step": self.step,
        }

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Restore `state_dict`.

        Raises:
            CheckpointError: if it is that of another model, optimizer or combiner.
        """
        try:
            self.model.load_state_dict(state["model"])
            self._optimizer.load_state_dict(state["optimizer"])
            self.combiner.load_state_dict(state["combiner"])
            if self._scaler is not None:
                self._scaler.load_state_dict(state["scaler"])
            self.epoch, self.step = int(state["epoch"]), int(state["step"])
        except (KeyError, TypeError, ValueError, RuntimeError) as error:
            raise CheckpointError(f"the state is not that of this run: {error}") from error

    def _run_epoch(self, advance: Callable[[], object]) -> EpochRecord:
        learning_rate = self.optimization.learning_rate_at(self.epoch)
        for group in self._optimizer.param_groups:
            group["lr"] = learning_rate
        if hasattr(self.data.train, "set_epoch"):
            self.data.train.set_epoch(self.epoch)
        began = time.perf_counter()
        self._left_out = NonFiniteCounts(list(self._losses))
        with self._own_random_numbers():
            train_losses, diagnostics = self._train(advance)
        self.replica.share_buffers(self.model)
        seconds = time.perf_counter() - began
        found = {}
        if self.reporting.is_evaluated(self.epoch, self.optimization.epochs):
            found = {split: self.evaluate(split) for split in self.data.evaluation}
        self.epoch += 1
        return EpochRecord(
            epoch=self.epoch - 1,
            step=self.step,
            learning_rate=learning_rate,
            train_losses=train_losses,
            losses={split: losses for split, (_, losses) in found.items()},
            results={split: results for split, (results, _) in found.items()},
            seconds=seconds,
            diagnostics=diagnostics,
            non_finite={} if self.on_nonfinite == "raise" else self._left_out.tasks,
            skipped_steps=self._left_out.skipped_steps,
        )

    def _train(self, advance: Callable[[], object]) -> tuple[dict[str, float], list[dict[str, float]]]:
        """One pass over the training images."""
        self.model.train()
        totals = torch.zeros(len(self._losses), dtype=torch.float64, device=self.device)
        counts = torch.zeros_like(totals)  # images with a finite loss: all, unless others may be left out
        rows: list[dict[str, float]] = []
        size, count = self.optimization.batch_size, length(self.data.train)
        for number, (images, targets) in enumerate(self._batches(self.data.train, shuffle=True)):
            every = self.reporting.log_every
            whole = min(size, count - number * size)  # images of the batch, those of other ranks included
            losses, row = self.update(images, targets, bool(every) and self.step % every == 0, whole)
            finite = losses.isfinite()
            totals += torch.where(finite, losses.double(), 0.0) * whole
            counts += finite * whole
            if row is not None:
                rows.append({"epoch": self.epoch, "step": self.step, **row})
            self.step += 1
            advance()
        return dict(zip(self._losses, (totals / counts).tolist(), strict=True)), rows

    def update(
        self, images: Tensor, targets: Mapping[str, Tensor], log: bool = False, whole: int | None = None
    ) -> tuple[Tensor, dict[str, float] | None]:
        """One step of the optimizer on a batch that lies on the device.

        Args:
            images: those of this rank.
            targets: by task.
            log: whether to return diagnostics.
            whole: images of the batch with those of all ranks; None for those given.

        Returns:
            The K losses before the step, detached, and with ``log`` the step's diagnostics, unless something was left
            out of it.

        Raises:
            NonFiniteError: if a loss or a gradient is NaN or infinite; names the epoch and the step.
        """
        predictions, features = self._predict(images)
        losses = self._task_losses(predictions, targets)
        rows = self.replica.rows(self.model.tasks, targets, self.protocol, whole)
        gramian = self._probe(losses, features, rows) if log else None
        self._optimizer.zero_grad()
        try:
            combination = self.combiner.backward(
                losses,
                self._shared,
                self._own,
                features=features,
                heads=self.heads,
                max_grad_norm=self.max_grad_norm,
                grad_scaler=self._scaler,
                on_nonfinite=self.on_nonfinite,
                group=self.replica.group,
                rows=rows,
            )
        except NonFiniteError as error:
            raise NonFiniteError(
                f"epoch {self.epoch}, step {self.step}, tasks {list(self._losses)}: {error}"
            ) from error
        values = self.replica.mean(torch.stack([loss.detach() for loss in losses]), rows)
        self._left_out.add(combination, f"epoch {self.epoch}, step {self.step}")
        if combination.skipped:
            return values, None
        if self._scaler is None:
            self._optimizer.step()
        else:
            assert isinstance(self._optimizer, torch.optim.Optimizer), "make_optimizer refuses the rest with a scaler"
            self._scaler.step(self._optimizer)
            self._scaler.update()
        if self.combiner.needs_losses_after_step:
            after = self._losses_again(images, targets)
            after_step(self.combiner, combination, after, self.replica.group, rows)
        if not log or combination.non_finite:
            return values, None
        gramian = combination.gramian if gramian is None else gramian
        assert gramian is not None, "probed where the combiner does not bring it"
        row = dict(zip((f"loss/{name}" for name in self._losses), values.tolist(), strict=True))
        return values, {**row, **step_diagnostics(gramian, combination.weights, list(self._losses))}

    def _probe(self, losses: list[Tensor], features: Tensor | None, rows: list[float] | None) -> Tensor | None:
        """The Gramian, unless the combiner is about to form it."""
        samples = getattr(self.combiner, "tasks_per_step", None) is not None
        if self.combiner.needs == "gramian" and self.combiner.needs_jacobian() and not samples:
            return None
        scale = self._scaler.get_scale() if self._scaler is not None else 1.0
        inputs = self._shared if features is None else [features]
        if rows is not None:
            return self.replica.gramian(losses, inputs, features is not None, rows, scale)
        return probe_gramian(losses, inputs, scale)

    def _predict(self, images: Tensor) -> tuple[dict[str, Tensor], Tensor | None]:
        """Predictions in float32, and the representation if gradients are combined there."""
        amp = self.optimization.amp
        with nullcontext() if amp == "none" else torch.autocast(self.device.type, _AMP_TYPES[amp]):
            features = None
            if self.gradients == "features" and isinstance(self.model, FeatureModel):
                features = self.model.features(images)
                predictions = self.model.heads(features)
            else:
                predictions = self.model(images)
        return {name: prediction.float() for name, prediction in predictions.items()}, features

    def _task_losses(self, predictions: Mapping[str, Tensor], targets: Mapping[str, Tensor]) -> list[Tensor]:
        return [loss(predictions[name], targets[name]) for name, loss in self._losses.items()]

    def _losses_again(self, images: Tensor, targets: Mapping[str, Tensor]) -> Tensor:
        """The batch's losses after the step, in training mode, as FAMO's authors take them."""
        once = frozen_statistics(self.model) if self.protocol == "fixed" else nullcontext()
        with torch.no_grad(), once:
            return torch.stack(self._task_losses(self._predict(images)[0], targets))

    def _batches(self, split: ItemDataset, shuffle: bool = False) -> Iterator[tuple[Tensor, dict[str, Tensor]]]:
        generator = torch_generator(self.seed, Stream.ORDER, self.epoch)
        order = RandomSampler(split, generator=generator) if shuffle else range(length(split))  # type: ignore[arg-type]
        loader = DataLoader(
            split,
            batch_sampler=self.replica.batches(
                order, self.optimization.batch_size, shared=shuffle, drop_last=shuffle and self._drops_last()
            ),
            num_workers=self.num_workers,
            generator=generator,
            pin_memory=self.device.type == "cuda",
        )
        for images, targets in loader:
            wanted = {name: targets[name].to(self.device, non_blocking=True) for name in self._losses}
            yield images.to(self.device, non_blocking=True), wanted

    def _drops_last(self) -> bool:
        """Whether the last batch is left out: one vector alone has no variance that batch norm could use."""
        return (
            all(not task.record.dense for task in self.model.tasks)
            and 0 < length(self.data.train) % self.optimization.batch_size < 2 * self.replica.size
        )

    @contextmanager
    def _own_random_numbers(self) -> Iterator[None]:
        """Torch's global generators follow from seed and epoch inside, and are as they were afterwards."""
        devices = [self.device] if self.device.type == "cuda" else []
        with torch.random.fork_rng(devices):
            # Images come in the same order to all ranks; dropout draws anew on each.
            rank = self.replica.rank
            stream, indices = (Stream.RANK, (self.epoch, rank)) if rank else (Stream.TORCH, (self.epoch,))
            torch.manual_seed(stream_seed(self.seed, stream, *indices))
            yield


def _check_step(combiner: Combiner, gradients: str, max_grad_norm: float | None) -> None:
    """A combination that is a step already cannot be clipped as a gradient, nor be taken at a representation."""
    if not combiner.returns_step:
        return
    if gradients != "losses":
        raise ArgumentError(
            f"gradients={gradients!r} does not go with {combiner.name}, whose moments are of parameters; take 'losses'"
        )
    if max_grad_norm is not None:
        raise ArgumentError(
            f"max_grad_norm={max_grad_norm:g} does not go with {combiner.name}: it makes a step, whose length is the "
            "learning rate's business"
        )


def _device(device: str | torch.device) -> torch.device:
    if device == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    try:
        found = torch.device(device)
        torch.empty(0, device=found)
    except (RuntimeError, AssertionError) as error:
        raise ArgumentError(f"device must be auto, cpu, cuda ... and there, got {device!r} ({error})") from error
    return found
