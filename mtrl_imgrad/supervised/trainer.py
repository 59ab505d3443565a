"""Train a network on several visual tasks at once with any combiner; with one task, its single-task baseline.

Losses go to the combiner as a list, one scalar a task, so that a task's backward visits its own branch only.
"""

from __future__ import annotations

import copy
import time
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any, Literal

import torch
from torch import Tensor

from mtrl_imgrad.combiners import Combination, Combiner
from mtrl_imgrad.errors import ArgumentError, CheckpointError, NonFiniteError, TaskMismatchError
from mtrl_imgrad.gradients.absent_tasks import NonFiniteCounts, OnNonFinite, after_step, check_on_nonfinite
from mtrl_imgrad.gradients.heads import Heads
from mtrl_imgrad.seeding import Stream
from mtrl_imgrad.supervised.batch_norm import frozen_statistics
from mtrl_imgrad.supervised.epoch_record import EpochRecord
from mtrl_imgrad.supervised.forward import Forward
from mtrl_imgrad.supervised.joint_feed import JointFeed
from mtrl_imgrad.supervised.mean_losses import MeanLosses, known_images
from mtrl_imgrad.supervised.metric_set import MetricSet
from mtrl_imgrad.supervised.misfits import check_values
from mtrl_imgrad.supervised.models import FeatureModel, SharingRule, TaskModel, split_parameters
from mtrl_imgrad.supervised.optimizer import make_optimizer
from mtrl_imgrad.supervised.parts import Feed, Part
from mtrl_imgrad.supervised.protocol import Protocol
from mtrl_imgrad.supervised.random_numbers import seeded_generators
from mtrl_imgrad.supervised.replicas import Replica
from mtrl_imgrad.supervised.run_combiner import run_combiner
from mtrl_imgrad.supervised.settings import OptimizationConfig, ReportConfig
from mtrl_imgrad.supervised.splits import Splits, TaskSplits
from mtrl_imgrad.supervised.step_diagnostics import probe_gramian, step_diagnostics
from mtrl_imgrad.supervised.task_feed import TaskFeed
from mtrl_imgrad.supervised.trainer_checks import (
    check_amp,
    check_step,
    check_task_scales,
    check_task_splits,
    read_device,
)
from mtrl_imgrad.validation import NonNegativeInt, Positive, PositiveOrInf, Seed, checked

__all__ = ["MultiTaskTrainer"]


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
        data: its tasks must be the model's. With `TaskSplits` each task's batch is a micro-batch of the step, whose
            graph is freed before the next.
        combiner: a `Combiner`, or its registry name. With one task it has no part in the update.
        combiner_kwargs: arguments for a registry name; what is left out follows from the run, see `run_combiner`.
        optimization: Adam, its schedule, epochs, batches, mixed precision.
        reporting: which epochs are evaluated and which steps logged.
        gradients: ``"features"`` combines at the model's representation, with one backward through the trunk.
        heads: gradient of a task's own parameters: its plain gradient, or that times the task's weight.
        task_scales: multiplies the losses of some tasks, as another unit of the target would: how unequal they are is
            a dial. Metrics are as they were.
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
        data: Splits | TaskSplits,
        combiner: str | Combiner = "imgrad",
        *,
        combiner_kwargs: Mapping[str, Any] | None = None,
        optimization: OptimizationConfig | None = None,
        reporting: ReportConfig | None = None,
        gradients: Literal["losses", "features"] = "losses",
        heads: Heads = "unweighted",
        task_scales: Mapping[str, Positive] | None = None,
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
        check_task_scales(task_scales or {}, model.task_names)
        self.optimization = optimization or OptimizationConfig()
        self.reporting = reporting or ReportConfig()
        self.device = read_device(device)
        self.replica = Replica(group)
        self.replica.check_batches(model.tasks, self.optimization.batch_size)
        check_amp(self.optimization.amp, self.device, on_nonfinite)
        self.on_nonfinite = on_nonfinite
        self.model, self.data, self.protocol = model.to(self.device), data, protocol
        self.evaluation_mode, self.seed = evaluation_mode, seed
        self.feed = self._make_feed(num_workers)
        self.combiner = run_combiner(
            combiner, combiner_kwargs or {}, tasks=model.tasks, seed=seed, steps_per_epoch=self.steps_per_epoch
        )
        check_on_nonfinite(on_nonfinite, self.combiner)
        check_step(self.combiner, gradients, max_grad_norm)
        if isinstance(data, TaskSplits):
            check_task_splits(self.combiner, data, gradients, self.replica.size)
        self.gradients, self.heads, self.max_grad_norm = gradients, heads, max_grad_norm
        self.epoch = 0
        """Epochs that are done."""
        self.step = 0
        """Batches that are done."""
        self.forward = Forward(self.model, protocol, self.optimization.amp, gradients == "features", task_scales or {})
        self._names = list(model.task_names)
        self._left_out = NonFiniteCounts(self._names)
        self._shared, self._own_of = split_parameters(model, sharing)
        self._own = [parameter for parameters in self._own_of.values() for parameter in parameters]
        self._optimizer = make_optimizer(self.combiner, self._shared, self._own, self.optimization, self.device)
        self._scaler = torch.amp.GradScaler("cuda") if self.optimization.amp == "fp16" else None

    def _make_feed(self, num_workers: int) -> Feed:
        loading = (self.seed, self.device, num_workers)
        if isinstance(self.data, TaskSplits):
            return TaskFeed(self.data, self.optimization.batch_size, *loading)
        return JointFeed(self.data, self.optimization.batch_size, self.replica, *loading)

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
        return self.feed.steps_per_epoch

    def evaluate(self, split: str) -> tuple[dict[str, dict[str, float]], dict[str, float]]:
        """Metrics and mean losses by task, over a split of ``data.evaluation``, of what is known; else NaN."""
        metrics = MetricSet(self.model.tasks, self.protocol)
        losses = MeanLosses(self._names, self.device)
        self.model.train(self.evaluation_mode == "train")
        drawn = seeded_generators(self.device, self.seed, Stream.LOOK, self.replica.rank)
        with torch.no_grad(), frozen_statistics(self.model), drawn:
            for i, part in enumerate(self.feed.evaluation(split)):
                if i == 0:
                    check_values(part.images, part.targets, self.model.tasks)
                predictions, _ = self.forward.predict(part.images, list(part.targets))
                for task in self.model.tasks:
                    if task.name in part.targets:
                        prediction, target = predictions[task.name], part.targets[task.name]
                        loss = self.forward.by_task[task.name](prediction, target)  # first: it names a wrong target
                        losses.add(task.name, loss, known_images(task, target, self.protocol))
                        metrics.metrics[task.name].update(prediction, target)
        losses.totals = self.replica.merge(metrics, losses.totals)
        return metrics.compute(), losses.means()

    def state_dict(self) -> dict[str, Any]:
        """A state that continues the run bit for bit after an epoch."""
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
            CheckpointError: if it is that of another model, optimizer or combiner; all is as it was then.
        """
        before = copy.deepcopy(self.state_dict())
        try:
            self._load(state)
        except (KeyError, TypeError, ValueError, AttributeError, RuntimeError) as error:
            self._load(before)
            raise CheckpointError(f"the state is not that of this run: {error}") from error

    def _load(self, state: Mapping[str, Any]) -> None:
        self.model.load_state_dict(state["model"])
        self._optimizer.load_state_dict(state["optimizer"])
        self.combiner.load_state_dict(state["combiner"])
        if self._scaler is not None:
            self._scaler.load_state_dict(state["scaler"])
        self.epoch, self.step = int(state["epoch"]), int(state["step"])

    def _run_epoch(self, advance: Callable[[], object]) -> EpochRecord:
        learning_rate = self.optimization.learning_rate_at(self.epoch)
        for group in self._optimizer.param_groups:
            group["lr"] = learning_rate
        began = time.perf_counter()
        self._left_out = NonFiniteCounts(self._names)
        # Images come in the same order to all ranks; dropout draws anew on each.
        rank = self.replica.rank
        stream, indices = (Stream.RANK, (self.epoch, rank)) if rank else (Stream.TORCH, (self.epoch,))
        with seeded_generators(self.device, self.seed, stream, *indices):
            train_losses, diagnostics = self._train(advance)
        self.replica.share_buffers(self.model)
        seconds = time.perf_counter() - began
        evaluations = {}
        if self.reporting.is_evaluated(self.epoch, self.optimization.epochs):
            evaluations = {split: self.evaluate(split) for split in self.data.evaluation}
        self.epoch += 1
        return EpochRecord(
            epoch=self.epoch - 1,
            step=self.step,
            learning_rate=learning_rate,
            train_losses=train_losses,
            losses={split: losses for split, (_, losses) in evaluations.items()},
            results={split: results for split, (results, _) in evaluations.items()},
            seconds=seconds,
            diagnostics=diagnostics,
            non_finite={} if self.on_nonfinite == "raise" else self._left_out.tasks,
            skipped_steps=self._left_out.skipped_steps,
        )

    def _train(self, advance: Callable[[], object]) -> tuple[dict[str, float], list[dict[str, float]]]:
        """One pass over the training images."""
        self.model.train()
        means = MeanLosses(self._names, self.device)
        rows: list[dict[str, float]] = []
        every = self.reporting.log_every
        for parts in self.feed.steps(self.epoch):
            if self.step == 0:
                for part in parts:
                    check_values(part.images, part.targets, self.model.tasks)
            log = bool(every) and self.step % every == 0
            if isinstance(self.data, TaskSplits):
                losses, row = self.update_by_parts(parts, log)
            else:
                (part,) = parts
                values, row = self.update(part.images, part.targets, log, part.whole)
                losses = dict(zip(self._names, values, strict=True))
            for part in parts:
                known = self.replica.known_images(self.model.tasks, part.targets, self.protocol, part.whole)
                for name, images in known.items():
                    means.add_finite(name, losses[name], images)
            if row is not None:
                rows.append({"epoch": self.epoch, "step": self.step, **row})
            self.step += 1
            advance()
        return means.means(), rows

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
        predictions, features = self.forward.predict(images)
        losses = self.forward.losses(predictions, targets)
        rows = self.replica.rows(self.model.tasks, targets, self.protocol, whole)
        gramian = self._probe(losses, features, rows) if log else None
        self._optimizer.zero_grad()
        with self._located(self._names):
            combination = self.combiner.backward(
                losses, self._shared, self._own, features=features, group=self.replica.group, rows=rows, **self._options
            )
        values = self.replica.mean(torch.stack([loss.detach() for loss in losses]), rows)

        def look_again() -> None:
            after = torch.stack(self.forward.losses(self.forward.predict(images)[0], targets))
            after_step(self.combiner, combination, after, self.replica.group, rows)

        if not self._step(combination, look_again) or not log:
            return values, None
        gramian = combination.gramian if gramian is None else gramian
        assert gramian is not None, "probed where the combiner does not bring it"
        row = dict(zip((f"loss/{name}" for name in self._names), values.tolist(), strict=True))
        return values, {**row, **step_diagnostics(gramian, combination.weights, self._names)}

    def update_by_parts(
        self, parts: Sequence[Part], log: bool = False
    ) -> tuple[dict[str, Tensor], dict[str, float] | None]:
        """One step of the optimizer on a batch a task; the graph of one is freed before the next is run.

        Args:
            parts: of different tasks, one each; tasks without one are absent from the step.
            log: whether to return diagnostics.

        Returns:
            The losses before the step by task, detached, and with ``log`` what is known of the step: the losses, and
            where the combiner formed the Gramian, the rest of `step_diagnostics`.

        Raises:
            NonFiniteError: if a loss or a gradient is NaN or infinite; names the epoch and the step.
        """
        values: dict[str, Tensor] = {}
        self._optimizer.zero_grad()
        with self._located(values), self.combiner.accumulate(**self._options) as step:
            for part in parts:
                ((name, loss),) = self.forward.losses_of(part).items()
                step.backward([loss], self._shared, self._own_of[name], tasks=[self._names.index(name)])
                values[name] = loss.detach()
        combination, present = step.combination, [self._names[k] for k in step.tasks]
        assert combination is not None, "the block has ended"

        def look_again() -> None:
            after = {name: loss for part in parts for name, loss in self.forward.losses_of(part).items()}
            left = [k for k in step.tasks if k not in combination.non_finite]
            self.combiner.after_step(torch.stack([after[self._names[k]] for k in left]), left)

        if not self._step(combination, look_again) or not log:
            return values, None
        row = {f"loss/{name}": float(values[name]) for name in present}
        if combination.gramian is not None and len(present) > 1:
            row |= step_diagnostics(combination.gramian, combination.weights, present)
        return values, row

    @property
    def _options(self) -> dict[str, Any]:
        """Of the combiner's step, from a batch or from parts."""
        return {
            "heads": self.heads,
            "max_grad_norm": self.max_grad_norm,
            "grad_scaler": self._scaler,
            "on_nonfinite": self.on_nonfinite,
        }

    def _step(self, combination: Combination, look_again: Callable[[], None]) -> bool:
        """The optimizer's step, then ``look_again`` for a combiner that wants the losses after it.

        Returns whether all tasks took part.
        """
        self._left_out.add(combination, f"epoch {self.epoch}, step {self.step}")
        if combination.skipped:
            return False
        if self._scaler is None:
            self._optimizer.step()
        else:
            assert isinstance(self._optimizer, torch.optim.Optimizer), "make_optimizer refuses the rest with a scaler"
            self._scaler.step(self._optimizer)
            self._scaler.update()
        if self.combiner.needs_losses_after_step:
            with self.forward.second_look():
                look_again()
        return not combination.non_finite

    @contextmanager
    def _located(self, names: Collection[str]) -> Iterator[None]:
        """Name epoch, step and tasks in a `NonFiniteError` of the block."""
        try:
            yield
        except NonFiniteError as error:
            tasks = sorted(names, key=self._names.index)
            raise NonFiniteError(f"epoch {self.epoch}, step {self.step}, tasks {tasks}: {error}") from error

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
