"""Configurations of agents and their policies, read from their constructors.

An argument is declared once: where the agent takes it, with its type, its default, and the text that ``--help`` shows.
Written down here is only what all agents have in common, and what a file or a command line says in another way.
"""

from __future__ import annotations

import dataclasses
import functools
import inspect
import re
import types
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Annotated, Any, ClassVar, Literal, Union, get_args, get_origin

import torch
import tyro
from pydantic import StringConstraints
from stable_baselines3.common.noise import ActionNoise
from stable_baselines3.common.utils import LinearSchedule

from mtrl_imgrad.agents.common import unsupported
from mtrl_imgrad.agents.common.execution import Compile
from mtrl_imgrad.agents.registry import AGENTS, agent_class
from mtrl_imgrad.experiments.config_files import STRICT
from mtrl_imgrad.experiments.options import Options
from mtrl_imgrad.gradients import Precision
from mtrl_imgrad.gradients.absent_tasks import OnNonFinite
from mtrl_imgrad.validation import Count, NonNegative, PositiveOrInf, Probability

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

LINEAR = re.compile(r"lin_(\d+\.?\d*(?:e-?\d+)?)")
Linear = Annotated[str, StringConstraints(pattern=f"^{LINEAR.pattern}$")]
"""A schedule that falls linearly to zero, as SB3 zoo writes it: ``lin_0.2``."""

NOT_OPTIONS = {"self", "policy", "env", "policy_kwargs", "seed", "verbose", "tensorboard_log", "_init_setup_model"}
NOT_OPTIONS |= {"replay_buffer_class", "replay_buffer_kwargs", *unsupported.SAC_ARGUMENTS, *unsupported.PPO_ARGUMENTS}
"""Arguments of agents that a run sets itself, or that have one value only."""


@dataclass(frozen=True)
class PolicyConfig:
    """Arguments that the policies of all agents take."""

    __pydantic_config__: ClassVar = STRICT
    critic_side: ClassVar[str]
    """The critic's name in arguments by side."""
    own_arguments: ClassVar[tuple[str, ...]] = ()
    """Arguments that only this policy takes."""

    net_arch: tuple[int, ...] = (400, 400, 400)
    """Hidden widths of actor and critics."""
    critic_net_arch: tuple[int, ...] | None = None
    """Hidden widths of the critics, where they differ."""
    activation: Literal["relu", "tanh", "elu", "gelu", "silu"] = "relu"
    """Non-linearity."""
    layer_norm: bool = False
    """Normalize every hidden layer before its activation."""
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
            **{name: getattr(self, name) for name in self.own_arguments},
        }


@dataclass(frozen=True)
class AgentConfig:
    """Arguments that all agents take."""

    __pydantic_config__: ClassVar = STRICT
    name: ClassVar[str] = ""
    """Of the agent, in `mtrl_imgrad.agents.registry.AGENTS`; a field of each agent's configuration."""

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
    max_grad_norm: PositiveOrInf | None = None
    """Clip a network's gradient to this length, after combining."""
    on_nonfinite: OnNonFinite = "raise"
    """A step with a NaN or infinite gradient of some task: an error, no step, or a step without the task."""
    learning_rate: NonNegative = 3e-4
    """Of actor's and critic's optimizers."""
    lr_schedule: Literal["constant", "linear"] = "constant"
    """Keep the learning rate, or lower it linearly to zero over total_timesteps (max_minutes may stop before)."""
    batch_size: Count | None = None
    """Rows of a batch over all tasks; None takes 128 a task (MTPPO: 64)."""
    gamma: Probability = 0.99
    """Discount."""
    trace: bool = True
    """Record an update's operations once and replay them."""
    compile: Compile = "auto"
    """Hand them to PyTorch's compiler: True, False, or auto: where there is one and the run is long enough."""
    precision: Precision = "float32"
    """Of an update's matrix products; bf16 is faster on processors with instructions for it."""
    stats_window_size: Count = 100
    """Episodes averaged in the training logs."""
    device: str = "auto"
    """auto, cpu, cuda ..."""

    def sides(self) -> dict[str, tuple[str, dict[str, Any]]]:
        """The combiners of actor and critic, each with its arguments."""
        own = {
            "actor": (self.actor_combiner, self.actor_combiner_kwargs),
            "critic": (self.critic_combiner, self.critic_combiner_kwargs),
        }
        both = (self.combiner, self.combiner_kwargs)
        return {side: both if name is None else (name, kwargs) for side, (name, kwargs) in own.items()}

    def agent_kwargs(self) -> dict[str, Any]:
        """As the agent's constructor takes them, but for ``action_noise``, which here is a number."""
        special = {"name", "actor_combiner", "critic_combiner", "lr_schedule", "action_noise"}
        special |= {"actor_combiner_kwargs", "critic_combiner_kwargs"}
        kwargs = {spec.name: getattr(self, spec.name) for spec in dataclasses.fields(self) if spec.name not in special}
        for name, value in kwargs.items():
            if isinstance(value, str) and (linear := LINEAR.fullmatch(value)):
                kwargs[name] = LinearSchedule(float(linear[1]), 0.0, end_fraction=1.0)
        if self.lr_schedule == "linear":
            kwargs["learning_rate"] = LinearSchedule(self.learning_rate, 0.0, end_fraction=1.0)
        if self.actor_combiner is not None or self.critic_combiner is not None:
            kwargs["combiner"] = {side: name for side, (name, _) in self.sides().items()}
            kwargs["combiner_kwargs"] = {side: options for side, (_, options) in self.sides().items()}
        return kwargs


@functools.cache
def agent_config(name: str) -> type[AgentConfig]:
    """The configuration of an agent: a frozen dataclass whose fields are its constructor's arguments.

    Raises:
        UnknownNameError: if there is no agent of that name.
    """
    agent, described = agent_class(name), agent_class("mtsac")
    which = tyro.conf.arg(name="agent", help=f"Which agent: {', '.join(AGENTS)}. The options below are this one's.")
    fields = _fields(agent, AgentConfig, NOT_OPTIONS, {**_texts(described), **_texts(agent)})
    fields = [("name", Annotated[Literal[name], which], field(default=name)), *fields]
    namespace = {"__doc__": f"Arguments of `{agent.__name__}`, see there.", "__module__": __name__}
    return dataclasses.make_dataclass(
        f"{agent.__name__}Config", fields, bases=(AgentConfig,), namespace=namespace, frozen=True
    )


@functools.cache
def policy_config(name: str) -> type[PolicyConfig]:
    """The configuration of an agent's policy, likewise.

    Raises:
        UnknownNameError: if there is no agent of that name.
    """
    agent = agent_class(name)
    policy: Any = agent.policy_aliases["MlpPolicy"]
    described = agent_class("mtsac").policy_aliases["MlpPolicy"]
    common = {"activation_fn", "optimizer_class", *(spec.name for spec in dataclasses.fields(PolicyConfig))}
    left_out = NOT_OPTIONS | common | agent.set_by_agent["policy_kwargs"]
    fields = _fields(policy, PolicyConfig, left_out, {**_texts(described), **_texts(policy)})
    namespace = {
        "__doc__": f"Arguments of `{policy.__name__}`, see there.",
        "__module__": __name__,
        "critic_side": policy.sides[1],
        "own_arguments": tuple(entry[0] for entry in fields),
    }
    return dataclasses.make_dataclass(
        f"{policy.__name__}Config", fields, bases=(PolicyConfig,), namespace=namespace, frozen=True
    )


def _fields(target: Any, base: Any, left_out: set[str], texts: Mapping[str, str]) -> list[tuple[str, Any, Any]]:
    """Fields for a constructor's arguments: those that the base lacks, or has with another default."""
    hints = inspect.get_annotations(target.__init__, eval_str=True)
    common = {spec.name: spec for spec in dataclasses.fields(base)}
    fields = []
    for name, parameter in inspect.signature(target).parameters.items():
        default = parameter.default
        if name in left_out or parameter.kind is parameter.VAR_KEYWORD:
            continue
        if name in common:
            if isinstance(default, (int, float)) and common[name].default != default:
                fields.append((name, inspect.get_annotations(base, eval_str=True)[name], field(default=default)))
        elif (option := _option(hints[name], default)) is not None:
            kind, own = option
            fields.append((name, Annotated[kind, tyro.conf.arg(help=texts.get(name, ""))], own))
    return fields


def _texts(target: Any) -> dict[str, str]:
    """Texts of a docstring's ``Args:``, by argument; without those that are as in `MTSAC`, named several in a line."""
    arguments = (inspect.getdoc(target) or "").partition("Args:\n")[2].partition("\n\n")[0]
    entries = re.findall(r"^    (\w+): (.+(?:\n     .+)*)", arguments, re.MULTILINE)
    return {name: " ".join(text.replace("``", "").split()) for name, text in entries}


def _option(hint: Any, default: Any) -> tuple[Any, Any] | None:
    """Type and default in a file: no class or tuple; keywords as KEY=VALUE, noise by its deviation, schedules `Linear`.

    None for what only Python can give.
    """
    members = get_args(hint) if get_origin(hint) in (Union, types.UnionType) else (hint,)
    if ActionNoise in members:
        return NonNegative, field(default=0.0)
    if any(get_origin(member) in (dict, Mapping) for member in members):
        return Options, field(default_factory=dict)
    plain = tuple(member for member in members if _is_plain(member))
    if any(get_origin(member) is Callable for member in members):
        plain += (Linear,)
    return (Union[plain], field(default=default)) if plain else None  # noqa: UP007


def _is_plain(hint: Any) -> bool:
    if get_origin(hint) is Annotated:
        return _is_plain(get_args(hint)[0])
    return get_origin(hint) is Literal or hint in (int, float, str, bool, type(None))
