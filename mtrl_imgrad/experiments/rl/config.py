"""What a run is made from: typed, frozen, on the command line and in YAML alike.

Each agent has its own options, so that a run cannot set one that its agent lacks: ``agent.name`` (``--agent``) decides
which `TrainConfig` it is.

A run's ``config.yaml`` holds every value, so ``mtrl-imgrad train --config RUN/config.yaml`` repeats it. Presets are
such files, shipped in ``mtrl_imgrad/presets/rl``, with the source of each value beside it.
"""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Any, ClassVar, Literal

import torch
import tyro
from stable_baselines3.common.utils import LinearSchedule

from mtrl_imgrad.errors import UnknownNameError
from mtrl_imgrad.experiments.config_files import STRICT, read_sections, validated
from mtrl_imgrad.experiments.options import Flat, Options
from mtrl_imgrad.gradients.absent_tasks import OnNonFinite
from mtrl_imgrad.validation import checked

__all__ = [
    "TRAIN_CONFIGS",
    "AgentConfig",
    "CheckpointConfig",
    "EnvConfig",
    "EvaluationConfig",
    "MTPPOConfig",
    "MTPPOPolicyConfig",
    "MTPPOTrainConfig",
    "MTSACConfig",
    "MTSACPolicyConfig",
    "MTSACTrainConfig",
    "PolicyConfig",
    "TrainConfig",
    "load_config",
    "train_config_class",
]

ACTIVATIONS: dict[str, type[torch.nn.Module]] = {
    "relu": torch.nn.ReLU,
    "tanh": torch.nn.Tanh,
    "elu": torch.nn.ELU,
    "gelu": torch.nn.GELU,
    "silu": torch.nn.SiLU,
}

OPTIMIZERS: dict[str, type[torch.optim.Optimizer]] = {
    "adam": torch.optim.Adam,
    "adamw": torch.optim.AdamW,
    "rmsprop": torch.optim.RMSprop,
    "sgd": torch.optim.SGD,
}


@dataclass(frozen=True)
class EnvConfig:
    """Arguments of `mtrl_imgrad.envs.make_vec_env`, see there for their meaning."""

    __pydantic_config__: ClassVar = STRICT

    env: tuple[str, ...] = ("MT10",)
    """A task set (MT10, MT25, MT50, toy-reach), or task names."""
    backend: Literal["auto", "metaworld", "envpool", "toy"] = "auto"
    """Simulator back-end."""
    num_envs_per_task: int = 1
    """Copies of each task's environment."""
    vector_strategy: Literal["sync", "async"] = "sync"
    """Step in this process, or in worker processes (metaworld back-end)."""
    horizon: int | None = None
    """Steps of an episode; None takes the task set's own (Meta-World: 500)."""
    reward_version: Literal["v1", "v2"] = "v2"
    """Meta-World's reward functions."""
    num_goals: int | Literal["auto"] | None = "auto"
    """Goals a task; None draws a fresh one at each reset; auto: 50 on metaworld, None on envpool."""
    one_hot: bool = True
    """Append the task to the observation."""
    terminate_on_success: bool = False
    """End an episode at its first success."""
    num_threads: int | None = None
    """Threads of the envpool back-end."""
    worker_restarts: int = 0
    """How often worker processes are started anew after one failed, with the episodes as they were."""


@dataclass(frozen=True)
class PolicyConfig:
    """Arguments that the policies of all agents take."""

    __pydantic_config__: ClassVar = STRICT
    critic_side: ClassVar[str]
    """The critic's name in arguments by side."""

    net_arch: tuple[int, ...] = (400, 400, 400)
    """Hidden widths of actor and critics."""
    critic_net_arch: tuple[int, ...] | None = None
    """Hidden widths of the critics, where they differ."""
    activation: Literal["relu", "tanh", "elu", "gelu", "silu"] = "relu"
    """Non-linearity."""
    layer_norm: bool = False
    """Normalise every hidden layer before its activation."""
    critic_layer_norm: bool | None = None
    """That of the critics, where it differs."""
    dropout: float = 0.0
    """Rate at which units of hidden layers are dropped in updates (MTPPO: of the critic only, by critic_dropout)."""
    critic_dropout: float | None = None
    """That of the critics, where it differs."""
    encoder: str = "multi_head"
    """Task-conditioned encoder."""
    critic_encoder: str | None = None
    """That of the critics, where it differs."""
    encoder_kwargs: Options = field(default_factory=dict)
    """The encoder's own options."""
    initialization: Literal["pytorch", "orthogonal", "metaworld_algorithms", "mtrl"] = "pytorch"
    """Initial values of linear layers: PyTorch's, SB3's PPO's, those of Meta-World+'s code, or of mtrl."""
    optimizer: Literal["adam", "adamw", "rmsprop", "sgd"] = "adam"
    """Optimizer of actor and critics."""
    optimizer_kwargs: Options = field(default_factory=dict)
    """Its options, such as eps=1e-5."""

    def policy_kwargs(self) -> dict[str, Any]:
        """As the agent's ``policy_kwargs``."""

        def by_side(actor: Any, critic: Any) -> dict[str, Any]:
            return {"pi": actor, self.critic_side: actor if critic is None else critic}

        critic_net_arch = None if self.critic_net_arch is None else list(self.critic_net_arch)
        return {
            "net_arch": by_side(list(self.net_arch), critic_net_arch),
            "activation_fn": ACTIVATIONS[self.activation],
            "layer_norm": by_side(self.layer_norm, self.critic_layer_norm),
            "dropout": by_side(self.dropout, self.critic_dropout),
            "encoder": by_side(self.encoder, self.critic_encoder),
            "encoder_kwargs": dict(self.encoder_kwargs),
            "initialization": self.initialization,
            "optimizer_class": OPTIMIZERS[self.optimizer],
            "optimizer_kwargs": dict(self.optimizer_kwargs),
        }


@dataclass(frozen=True)
class MTSACPolicyConfig(PolicyConfig):
    """Arguments of `mtrl_imgrad.agents.MTSACPolicy`."""

    critic_side: ClassVar[str] = "qf"

    n_critics: int = 2
    """Number of critics."""
    ent_coef_optimizer_kwargs: Options = field(default_factory=dict)
    """Options of the temperatures' Adam, such as eps=1e-5."""

    def policy_kwargs(self) -> dict[str, Any]:
        """As the agent's ``policy_kwargs``."""
        own = {"n_critics": self.n_critics, "ent_coef_optimizer_kwargs": dict(self.ent_coef_optimizer_kwargs)}
        return {**super().policy_kwargs(), **own}


@dataclass(frozen=True)
class MTPPOPolicyConfig(PolicyConfig):
    """Arguments of `mtrl_imgrad.agents.MTPPOPolicy`."""

    critic_side: ClassVar[str] = "vf"

    log_std_init: float = 0.0
    """Initial log standard deviation of the actions."""

    def policy_kwargs(self) -> dict[str, Any]:
        """As the agent's ``policy_kwargs``."""
        return {**super().policy_kwargs(), "log_std_init": self.log_std_init}


@dataclass(frozen=True)
class AgentConfig:
    """Arguments that all agents take."""

    __pydantic_config__: ClassVar = STRICT

    combiner: str = "imgrad"
    """Combiner of the task gradients; see `mtrl-imgrad combiners`."""
    combiner_kwargs: Options = field(default_factory=dict)
    """Its arguments, such as c=0.4."""
    actor_combiner: str | None = None
    """A different combiner for the actor."""
    actor_combiner_kwargs: Options = field(default_factory=dict)
    """Its arguments."""
    critic_combiner: str | None = None
    """A different combiner for the critic."""
    critic_combiner_kwargs: Options = field(default_factory=dict)
    """Its arguments."""
    heads: Literal["unweighted", "weighted"] = "unweighted"
    """Gradient of a task's own parameters."""
    max_grad_norm: float | None = None
    """Clip a network's gradient to this length, after combining."""
    on_nonfinite: OnNonFinite = "raise"
    """A step with a NaN or infinite gradient of some task: an error, no step, or a step without the task."""
    learning_rate: float = 3e-4
    """Of all Adam optimizers."""
    lr_schedule: Literal["constant", "linear"] = "constant"
    """Keep the learning rate, or lower it linearly to zero over total_timesteps (max_minutes may stop before)."""
    batch_size: int | None = None
    """Rows of a batch over all tasks; None takes 128 a task (MTPPO: 64)."""
    gamma: float = 0.99
    """Discount."""
    trace: bool = True
    """Record an update's operations once and replay them."""
    stats_window_size: int = 100
    """Episodes averaged in the training logs."""
    device: str = "auto"
    """auto, cpu, cuda ..."""

    def agent_kwargs(self) -> dict[str, Any]:
        """As the agent's constructor takes them."""
        special = {"name", "actor_combiner", "critic_combiner", "lr_schedule"}
        special |= {"actor_combiner_kwargs", "critic_combiner_kwargs"}
        kwargs = {spec.name: getattr(self, spec.name) for spec in dataclasses.fields(self) if spec.name not in special}
        if self.lr_schedule == "linear":
            kwargs["learning_rate"] = LinearSchedule(self.learning_rate, 0.0, end_fraction=1.0)
        if self.actor_combiner is not None or self.critic_combiner is not None:
            sides = {
                "actor": (self.actor_combiner, self.actor_combiner_kwargs),
                "critic": (self.critic_combiner, self.critic_combiner_kwargs),
            }
            common = (self.combiner, self.combiner_kwargs)
            chosen = {side: common if own[0] is None else own for side, own in sides.items()}
            kwargs["combiner"] = {side: name for side, (name, _) in chosen.items()}
            kwargs["combiner_kwargs"] = {side: options for side, (_, options) in chosen.items()}
        return kwargs


@dataclass(frozen=True)
class MTSACConfig(AgentConfig):
    """Arguments of `mtrl_imgrad.agents.MTSAC`, see there for their meaning."""

    name: Annotated[Literal["mtsac"], tyro.conf.arg(name="agent")] = "mtsac"
    """Which agent: mtsac or mtppo; the options below are this one's."""
    buffer_size: int = 1_000_000
    """Transitions kept, over all tasks."""
    learning_starts: int = 100
    """Environment steps of random actions before learning, over all tasks."""
    tau: float = 0.005
    """Step of the target critic."""
    train_freq: int = 1
    """Steps of the vector environment between trainings."""
    gradient_steps: int = 1
    """Updates a training."""
    n_steps: int = 1
    """Rewards of a return before the critic's own estimate."""
    ent_coef: str | float = "auto"
    """Temperature: auto, auto_0.1, shared, shared_0.1, or a number."""
    target_entropy: str | float = "auto"
    """A number, or auto: minus the number of action dimensions."""
    target_update_interval: int = 1
    """Updates between moves of the target critic."""
    sampling: Literal["balanced", "uniform"] = "balanced"
    """Rows of a batch by task."""
    reward_normalization: Literal["std"] | None = None
    """Divide each task's rewards by their standard deviation when sampling."""


@dataclass(frozen=True)
class MTPPOConfig(AgentConfig):
    """Arguments of `mtrl_imgrad.agents.MTPPO`, see there for their meaning."""

    name: Annotated[Literal["mtppo"], tyro.conf.arg(name="agent")] = "mtppo"
    """Which agent: mtsac or mtppo; the options below are this one's."""
    max_grad_norm: float | None = 0.5
    """Clip a network's gradient to this length, after combining."""
    n_steps: int = 2048
    """Steps of every environment in a rollout."""
    n_epochs: int = 10
    """Passes over a rollout."""
    gae_lambda: float = 0.95
    """Of the advantages."""
    clip_range: float = 0.2
    """Of the ratio of probabilities."""
    clip_range_vf: float | None = None
    """How far a value may leave that predicted when acting."""
    normalize_advantage: bool = True
    """Whiten advantages in each minibatch."""
    advantage_scope: Literal["batch", "task"] = "task"
    """Over all rows, or over each task's own."""
    value_normalization: Literal["popart"] | None = None
    """Learn each task's values in the unit of their own mean and deviation."""
    value_normalization_kwargs: Options = field(default_factory=dict)
    """Its arguments, such as beta=3e-4."""
    ent_coef: float = 0.0
    """Weight of the entropy."""
    vf_coef: float = 0.5
    """Weight of the value loss."""
    target_kl: float | None = None
    """Stop a training before an update at 1.5 times this KL divergence."""


@dataclass(frozen=True)
class CheckpointConfig:
    """Checkpoints while learning, from which ``train --resume`` goes on."""

    __pydantic_config__: ClassVar = STRICT

    checkpoint_every: int = 1_000_000
    """Environment steps between checkpoints; 0 keeps none."""
    checkpoints_kept: int = 2
    """How many of the latest to keep."""
    checkpoint_replay: bool = True
    """Whether they hold the replay, their largest part."""


@dataclass(frozen=True)
class EvaluationConfig:
    """How the run is evaluated, on environments of its own."""

    __pydantic_config__: ClassVar = STRICT

    eval_every: int = 100_000
    """Environment steps between evaluations; 0 evaluates before and after training only."""
    eval_episodes: int = 10
    """Episodes a task of the evaluations before and while training."""
    final_episodes: int = 50
    """Episodes a task of the evaluation after training."""
    eval_backend: Literal["auto", "metaworld", "envpool", "toy"] = "metaworld"
    """Simulator back-end of evaluations (Meta-World's reference by default)."""
    eval_envs_per_task: int = 1
    """Copies of each task's environment in evaluations."""
    eval_goals: Literal["unseen", "training"] = "unseen"
    """Evaluate on other goals than those of training, or on the same ones (metaworld back-end)."""


@dataclass(frozen=True)
class TrainConfig:
    """Everything that determines a run; one of `TRAIN_CONFIGS`, which say for which agent."""

    __pydantic_config__: ClassVar = STRICT

    env: Annotated[EnvConfig, Flat] = field(default_factory=EnvConfig)
    agent: Annotated[AgentConfig, Flat] = field(default_factory=AgentConfig)
    policy: Annotated[PolicyConfig, Flat] = field(default_factory=PolicyConfig)
    evaluation: Annotated[EvaluationConfig, Flat] = field(default_factory=EvaluationConfig)
    checkpoint: Annotated[CheckpointConfig, Flat] = field(default_factory=CheckpointConfig)
    total_timesteps: int = 20_000_000
    """Environment steps over all tasks."""
    seed: int = 0
    """Determines the run on one machine."""
    max_minutes: float | None = None
    """Stop learning early after this long; the run says so."""
    torch_threads: int | None = None
    """Threads of PyTorch on the CPU; None leaves its own choice."""
    run_dir: Path | None = None
    """Run folder; None makes runs/<env>-<combiner>-seed<seed>-<time>."""


@dataclass(frozen=True)
class MTSACTrainConfig(TrainConfig):
    """A run of `mtrl_imgrad.agents.MTSAC`."""

    agent: Annotated[MTSACConfig, Flat] = field(default_factory=MTSACConfig)
    policy: Annotated[MTSACPolicyConfig, Flat] = field(default_factory=MTSACPolicyConfig)


@dataclass(frozen=True)
class MTPPOTrainConfig(TrainConfig):
    """A run of `mtrl_imgrad.agents.MTPPO`."""

    agent: Annotated[MTPPOConfig, Flat] = field(default_factory=MTPPOConfig)
    policy: Annotated[MTPPOPolicyConfig, Flat] = field(default_factory=MTPPOPolicyConfig)


TRAIN_CONFIGS: dict[str, type[TrainConfig]] = {"mtsac": MTSACTrainConfig, "mtppo": MTPPOTrainConfig}
"""By ``agent.name``."""


@checked
def train_config_class(agent: str) -> type[TrainConfig]:
    """The configuration of an agent's runs.

    Raises:
        UnknownNameError: if there is no agent of that name.
    """
    if agent not in TRAIN_CONFIGS:
        raise UnknownNameError("agent", agent, TRAIN_CONFIGS)
    return TRAIN_CONFIGS[agent]


@checked
def load_config(path: str | Path) -> TrainConfig:
    """Read a configuration: a preset's or a run's.

    Raises:
        ArgumentError: if the file cannot be read, or holds a key or a value that does not exist, naming it.
    """
    data = read_sections(path)
    agent = data.get("agent")
    name = agent.get("name", "mtsac") if isinstance(agent, dict) else "mtsac"
    return validated(path, data, train_config_class(name))
