"""Multi-task soft actor-critic in SB3's style: one agent, K tasks, and a combiner between their gradients."""

from __future__ import annotations

import os
from collections.abc import Mapping
from typing import Any, ClassVar, Literal, TypeVar

import numpy as np
import torch
from stable_baselines3.common.buffers import ReplayBuffer
from stable_baselines3.common.noise import ActionNoise
from stable_baselines3.common.policies import BasePolicy
from stable_baselines3.common.type_aliases import GymEnv, Schedule
from torch import Tensor

from mtrl_imgrad.agents.checkpoints.from_sb3 import read_sb3_sac
from mtrl_imgrad.agents.common.arguments import as_float
from mtrl_imgrad.agents.common.execution import Compile
from mtrl_imgrad.agents.common.task_log import record_per_task
from mtrl_imgrad.agents.off_policy.algorithm import GradientSteps, TaskReplayAlgorithm
from mtrl_imgrad.agents.off_policy.buffer import Sampling, TaskBatch
from mtrl_imgrad.agents.sac.policy import MTSACPolicy
from mtrl_imgrad.agents.sac.temperature import Temperature
from mtrl_imgrad.agents.sac.update import Noise, SACUpdate, UpdateReport
from mtrl_imgrad.combiners import Combiner
from mtrl_imgrad.errors import CheckpointError
from mtrl_imgrad.gradients import Heads, Precision
from mtrl_imgrad.gradients.absent_tasks import OnNonFinite
from mtrl_imgrad.validation import Count, NonNegative, NonNegativeInt, PositiveOrInf, Probability, Seed, checked

SelfMTSAC = TypeVar("SelfMTSAC", bound="MTSAC")


@checked
class MTSAC(TaskReplayAlgorithm):
    """Multi-task SAC: SAC (Haarnoja et al., arXiv 1812.05905) whose K task gradients go through a combiner.

    Use it as SB3's SAC: its arguments come first, in its order (``docs/sb3.md`` lists what differs). The replay is a
    ring a task and batches are balanced; every task has its own entropy temperature; the gradients of the shared
    parameters of actor and critic are combined by ``combiner``, those of a task's own parameters are its own. With
    ``combiner="linear_scalarization"`` it is plain SAC on the mean of the task losses.

    Args:
        policy: ``"MlpPolicy"`` or a subclass of `MTSACPolicy`.
        env: what `mtrl_imgrad.envs.make_vec_env` returns; or any SB3 VecEnv or Gymnasium environment with a flat
            Box, which is then one task. None only to load a trained agent.
        learning_rate: of all optimizers; a number or a schedule of the remaining progress (1 to 0).
        buffer_size: transitions kept over all tasks.
        learning_starts: environment steps over all tasks of uniformly random actions before learning.
        batch_size: rows of a batch over all tasks, a multiple of K; None takes 128 a task.
        tau: step of the target critic towards the critic.
        gamma: discount.
        train_freq: steps of the vector environment between trainings, or ``(number, "step" | "episode")``.
        gradient_steps: updates a training; -1 makes as many as transitions were collected.
        action_noise: SB3's noise, added to the actions when acting (in a run's configuration: the standard deviation of
            normal noise, 0 for none).
        replay_buffer_class: a subclass of `TaskReplayBuffer`.
        replay_buffer_kwargs: its further arguments.
        n_steps: rewards of the return before the critic's own estimate; fewer where an episode ends.
        ent_coef: ``"auto"``: a learned temperature for each task, initially 1 (``"auto_0.1"``: initially 0.1);
            ``"shared"`` or ``"shared_0.1"``: a learned one for all; a number: fixed.
        target_update_interval: updates between moves of the target critic.
        target_entropy: ``"auto"`` is minus the number of action dimensions.
        stats_window_size: episodes averaged in ``rollout/`` logs (a task's success: its own episodes).
        tensorboard_log: folder of TensorBoard logs.
        policy_kwargs: arguments of `MTSACPolicy`, for instance ``dict(net_arch=[400, 400], encoder="embedding")``.
        verbose: 0 prints nothing, 1 SB3's tables.
        seed: determines the run on one machine.
        device: ``"auto"``, ``"cpu"``, ``"cuda"`` ...
        optimize_memory_usage, use_sde, sde_sample_freq, use_sde_at_warmup: SB3's, accepted with its defaults.
        combiner: name, `Combiner`, or ``dict(actor=..., critic=...)``. One name or object gives actor and critic
            a combiner (and its state) each.
        combiner_kwargs: the combiner's arguments, if it was given by name; or ``dict(actor=..., critic=...)`` of them.
            What combiners draw follows from the agent's ``seed``, for actor and critic apart; a ``seed`` here wins.
        heads: ``"unweighted"`` (default): a task's own parameters take its plain gradient; ``"weighted"``: times the
            task's combination weight.
        max_grad_norm: clip each network's gradient, its own parameters included, to this length after combining (as
            Meta-World+'s code does); None does not clip.
        on_nonfinite: what becomes of a network's step in which a task's loss or gradient is NaN or infinite:
            ``"raise"`` (default) an error, and nothing moves; ``"skip"`` leaves the step out; ``"drop_task"`` makes it
            without these tasks. The last two are counted in the log (``train/non_finite``, ``train/skipped_steps``).
        sampling: ``"balanced"`` or ``"uniform"``, see `TaskReplayBuffer`.
        reward_normalization: None or ``"std"``, see `TaskReplayBuffer`.
        overlap: update while the environments simulate, between the two halves of a vector step: for EnvPool and worker
            processes on several cores. Updates then lack the newest step's transitions. False (default) is SB3's order.
        trace: record the operations of an update once and replay them; changes no number. False for debugging.
        compile: hand them to PyTorch's compiler, which fuses what lies between matrix products; the same numbers to
            rounding. ``"auto"`` (default) does so where there is a compiler (g++ or clang++; on CUDA Triton) and a
            ``learn`` that begins a run will make at least 10,000 updates; what goes on stays with it. ``verbose=1``
            says what was chosen. True raises an error where it cannot.
        precision: of the matrix products in an update: ``"float32"``, or ``"bf16"``, which is faster on processors with
            instructions for it. Parameters, optimizers, losses and the combination of gradients are float32 in both.

    Raises:
        UnsupportedError: if it asks for something of SB3's that is not there.
    """

    policy_aliases: ClassVar[dict[str, type[BasePolicy]]] = {"MlpPolicy": MTSACPolicy}
    fixed_by_save = TaskReplayAlgorithm.fixed_by_save | {"ent_coef"}
    policy: MTSACPolicy

    def __init__(
        self,
        policy: str | type[BasePolicy],
        env: GymEnv | str | None,
        learning_rate: NonNegative | Schedule = 3e-4,
        buffer_size: Count = 1_000_000,
        learning_starts: NonNegativeInt = 100,
        batch_size: Count | None = None,
        tau: Probability = 0.005,
        gamma: Probability = 0.99,
        train_freq: int | tuple[int, str] = 1,
        gradient_steps: GradientSteps = 1,
        action_noise: ActionNoise | None = None,
        replay_buffer_class: type[ReplayBuffer] | None = None,
        replay_buffer_kwargs: dict[str, Any] | None = None,
        optimize_memory_usage: bool = False,
        n_steps: Count = 1,
        ent_coef: str | float = "auto",
        target_update_interval: Count = 1,
        target_entropy: str | float = "auto",
        use_sde: bool = False,
        sde_sample_freq: int = -1,
        use_sde_at_warmup: bool = False,
        stats_window_size: Count = 100,
        tensorboard_log: str | os.PathLike[str] | None = None,
        policy_kwargs: dict[str, Any] | None = None,
        verbose: int = 0,
        seed: Seed | None = None,
        device: torch.device | str = "auto",
        _init_setup_model: bool = True,
        *,
        combiner: str | Combiner | Mapping[str, str | Combiner] = "imgrad",
        combiner_kwargs: Mapping[str, Any] | None = None,
        heads: Heads = "unweighted",
        max_grad_norm: PositiveOrInf | None = None,
        on_nonfinite: OnNonFinite = "raise",
        sampling: Sampling = "balanced",
        reward_normalization: Literal["std"] | None = None,
        overlap: bool = False,
        trace: bool = True,
        compile: Compile = "auto",
        precision: Precision = "float32",
    ) -> None:
        super().__init__(locals())
        self.ent_coef = ent_coef
        self.target_entropy = target_entropy
        self.target_update_interval = target_update_interval
        if _init_setup_model:
            self._setup_model()

    # ------------------------------------------------------------------ set-up

    def _setup_update(self) -> SACUpdate:
        combiners = (self.critic_combiner, self.actor_combiner)
        return SACUpdate(self.policy, self._setup_temperature(), *combiners, self._settings(), execution=self.execution)

    def _setup_temperature(self) -> Temperature:
        if self.target_entropy == "auto":
            self.target_entropy = -float(np.prod(self.action_space.shape or (1,)))
        target = self.target_entropy = as_float(self.target_entropy, "target_entropy", "'auto' or a number")
        temperature = Temperature.of(self.ent_coef, target, self.num_tasks, self.device)
        if temperature.log_value.requires_grad:
            temperature.optimizer = self.policy.make_ent_coef_optimizer(temperature.log_value, self.lr_schedule(1))
        self.ent_coef_optimizer = temperature.optimizer
        learned = temperature.optimizer is not None
        self.log_ent_coef = temperature.log_value if learned else None  # as in SB3
        return temperature

    @property
    def ent_coef_tensor(self) -> Tensor | None:
        """The temperature, a scalar, where it is fixed; None where it is learned (``log_ent_coef``), as in SB3."""
        return None if self.log_ent_coef is not None else torch.tensor(float(self.ent_coef), device=self.device)

    # ------------------------------------------------------------------ learning

    def _update_once(self, batch: TaskBatch, jacobian: bool, last: bool) -> UpdateReport:
        noise = Noise(
            self._draw_noise(batch.actions),
            self._draw_noise(batch.actions),
            self.update.draw_masks(batch, self.noise_generator),
        )
        moves = self._n_updates % self.target_update_interval == 0
        return self.update(batch, noise, update_target=moves, jacobian=jacobian and last)

    def _optimizers(self) -> list[torch.optim.Optimizer]:
        return [*super()._optimizers(), *([] if self.ent_coef_optimizer is None else [self.ent_coef_optimizer])]

    def _measures(self, report: UpdateReport) -> Tensor:
        return torch.cat([report.temperature_loss.reshape(1), report.temperatures])

    def _record_measures(self, values: list[float]) -> None:
        temperature_loss, *temperatures = values
        self.logger.record("train/ent_coef", float(np.mean(temperatures)))
        if self.ent_coef_optimizer is not None:
            self.logger.record("train/ent_coef_loss", temperature_loss)
        if self.num_tasks > 1:
            record_per_task(self.logger, "train/ent_coef", self.tasks.names, temperatures)

    # ------------------------------------------------------------------ save and load

    @classmethod
    def from_sb3(
        cls: type[SelfMTSAC],
        path: str | os.PathLike[str],
        env: GymEnv,
        device: torch.device | str = "auto",
        **arguments: Any,
    ) -> SelfMTSAC:
        """Go on with a Stable-Baselines3 SAC (``MlpPolicy``, flat observations): MTSAC with one task.

        With the default ``combiner="linear_scalarization"`` it goes on as SAC does, update for update, but with an
        empty replay. No code of the file runs; what SB3 pickled must be given (``docs/checkpoints.md``).

        Args:
            path: of what ``SAC.save`` wrote.
            env: of one task.
            device: as in the constructor.
            arguments: of the constructor, in place of those of the file.

        Raises:
            CheckpointError: if the file is damaged or not a SAC's.
            ArgumentError: if it has an option or a network that MTSAC lacks, naming it, or something must be given.
            TaskMismatchError: if ``env`` has several tasks, or other observations or actions.
        """
        source = read_sb3_sac(path)
        agent = cls("MlpPolicy", env, device=device, **source.arguments(arguments), _init_setup_model=False)
        agent._setup_tasks()
        source.check_env(agent.observation_space, agent.action_space, agent.num_tasks)
        agent._setup_model()
        try:
            source.copy_to(agent)
        except Exception as error:  # parts that do not fit each other fail wherever they are first used
            raise CheckpointError(f"{path} cannot be taken over: {type(error).__name__}: {error}") from error
        return agent

    def _get_torch_save_params(self) -> tuple[list[str], list[str]]:
        state_dicts, variables = super()._get_torch_save_params()
        if self.ent_coef_optimizer is not None:
            state_dicts.append("ent_coef_optimizer")
        return state_dicts, variables if self.log_ent_coef is None else ["log_ent_coef"]
