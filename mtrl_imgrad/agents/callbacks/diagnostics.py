"""Logs of the task gradients while learning: angles, norms, conflicts, weights."""

from __future__ import annotations

import itertools

import torch
from stable_baselines3.common.callbacks import BaseCallback

from mtrl_imgrad.agents.common.task_log import record_per_task, task_names_of
from mtrl_imgrad.combiners.base import Combination
from mtrl_imgrad.combiners.diagnostics import gramian_diagnostics
from mtrl_imgrad.errors import ArgumentError, TaskMismatchError
from mtrl_imgrad.validation import Count, checked

COSINES_UP_TO = 20
"""Tasks above which the cosines of pairs are not logged: MT50 has 1,225 pairs."""


@checked
class GradientDiagnosticsCallback(BaseCallback):
    """Logs how the latest task gradients stood to each other, and what the combiner made of them.

    For each network that the agent combines gradients for (``actor``, ``critic``):

    * ``grad/<network>/norm/<task>``, ``grad/<network>/cos_min``, ``grad/<network>/conflict_fraction`` (of
      the pairs of tasks, those with a negative cosine), ``grad/<network>/imbalance`` (largest norm over
      smallest), ``grad/<network>/c_min`` (the smallest radius at which CAGrad would go uphill for no task, 0 where
      the mean gradient does not), where the method formed the Gramian; up to 20 tasks also
      ``grad/<network>/cosine/<task>|<task>`` of each pair;
    * ``grad/<network>/direction_cosine/<task>`` (of the combination with the task's gradient) and
      ``grad/<network>/pareto_failure`` (1 where one of them is negative, so that the step goes uphill for a task, to
      first order and before the optimizer's own scales; else 0), where it also has weights;
    * ``combiner/<network>/weight/<task>`` where it has weights, ``combiner/<network>/residual``,
      ``combiner/<network>/status`` (0 is solved), and every scalar that the method reports of itself as
      ``combiner/<network>/<name>``.

    A step from which tasks were left out (``on_nonfinite``) is not recorded.

    The same names without a network (``grad/cos_min``) repeat those of ``main``, so that what reads the
    library's plain tags finds them, whatever networks an agent has. These go to CSV and JSON, as do the cosines of
    pairs; the values of single tasks to TensorBoard as well; none to the printed table, which they would flood.

    A record is of the first training after every ``log_freq`` steps, and made where that training is over. So a
    `MTCheckpointCallback` that comes after this one in a list of callbacks finds it in the logs.

    Args:
        log_freq: calls between records, that is, steps of the vector environment. A record reads the device
            once for each network.
        main: the network whose values are also recorded without its name; None for none.

    Raises:
        ArgumentError: when learning starts, if the agent keeps no ``last_combinations``.
    """

    def __init__(self, log_freq: Count = 100, main: str | None = "critic", verbose: int = 0) -> None:
        super().__init__(verbose)
        self.log_freq = log_freq
        self.main = main

    def _init_callback(self) -> None:
        if not hasattr(self.model, "last_combinations"):
            raise ArgumentError(f"{type(self.model).__name__} keeps no last_combinations: use an agent with a combiner")

    def _is_pending(self) -> bool:
        """Whether a training is still to measure, as where an actor is updated with a delay."""
        return getattr(self.model, "wants_jacobian", False) and self.model._n_updates > 0

    def _on_training_start(self) -> None:
        self._due = self._is_pending()
        if self.n_calls == 0:  # a training that goes on keeps its rhythm
            self.n_calls = self.num_timesteps // self.training_env.num_envs

    def _on_step(self) -> bool:
        if (self.n_calls + 1) % self.log_freq == 0:
            self._due = True
            if hasattr(self.model, "wants_jacobian"):
                self.model.wants_jacobian = True  # a combiner that does without it would leave nothing to measure
        return True

    def _on_rollout_start(self) -> None:
        if not self._due or self._is_pending():
            return
        self._due = False
        for network, combination in self.model.last_combinations.items():  # type: ignore[attr-defined]
            if combination.non_finite:
                continue
            scalars = _scalars_on_host(combination)
            self._record(f"/{network}", scalars)
            if network == self.main:
                self._record("", scalars, repeated=True)

    def _record(self, network: str, scalars: dict[str, list[float]], repeated: bool = False) -> None:
        names = task_names_of(self.model, self.training_env)
        hidden = ("stdout", "log", "tensorboard") if repeated else ("stdout", "log")
        for tag, values in scalars.items():
            group, _, name = tag.partition("/")
            key = f"{group}{network}/{name}"
            if name == "cosine":
                if not repeated:  # too many to have them twice
                    pairs = [f"{first}|{second}" for first, second in itertools.combinations(names, 2)]
                    record_per_task(self.logger, key, pairs, values, exclude=("stdout", "log", "tensorboard"))
            elif name in ("norm", "weight", "direction_cosine"):
                if len(values) != len(names):
                    raise TaskMismatchError(f"{key} has {len(values)} values, but the tasks are {names}")
                record_per_task(self.logger, key, names, values, exclude=hidden)
            else:
                self.logger.record(key, values[0], exclude=hidden if repeated else None)


def _scalars_on_host(combination: Combination) -> dict[str, list[float]]:
    """Numbers of a combination for the log, by tag; one copy from the device."""
    scalars = {f"combiner/{name}": value for name, value in combination.extras.items() if value.numel() == 1}
    scalars |= {"combiner/residual": combination.residual, "combiner/status": combination.status_code}
    if combination.weights is not None:
        scalars["combiner/weight"] = combination.weights
    if combination.gramian is not None:
        measured = gramian_diagnostics(combination.gramian, combination.weights)
        scalars["grad/norm"] = measured["norms"]
        scalars |= {f"grad/{name}": measured[name] for name in ("cos_min", "conflict_fraction", "imbalance", "c_min")}
        num_tasks = len(combination.gramian)
        if 1 < num_tasks <= COSINES_UP_TO:
            rows, columns = torch.triu_indices(num_tasks, num_tasks, 1, device=combination.gramian.device)
            scalars["grad/cosine"] = measured["cosines"][rows, columns]
        if combination.weights is not None:
            scalars["grad/direction_cosine"] = measured["direction_cosines"]
            scalars["grad/pareto_failure"] = measured["pareto_failure"]
    device = combination.residual.device
    flat = [value.detach().reshape(-1).to(device, torch.float64) for value in scalars.values()]
    values = iter(torch.cat(flat).tolist())
    return {tag: [next(values) for _ in range(value.numel())] for tag, value in scalars.items()}
