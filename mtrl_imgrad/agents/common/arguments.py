"""Arguments of agents that an annotation cannot check: combiners, policies, replay buffers, devices, keywords."""

from __future__ import annotations

import copy
import inspect
import math
import warnings
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any

import torch

from mtrl_imgrad.agents.common.environments import check_env
from mtrl_imgrad.agents.common.unsupported import refuse, refuse_policy, supported_policy_kwargs
from mtrl_imgrad.combiners import Combiner, make_combiner
from mtrl_imgrad.errors import ArgumentError, UnknownNameError, UnsupportedError
from mtrl_imgrad.seeding import Stream, stream_seed
from mtrl_imgrad.validation import check

if TYPE_CHECKING:
    from mtrl_imgrad.agents.common.multi_task import MultiTaskAlgorithm


def two_combiners(combiner: Any, kwargs: Mapping[str, Any], seed: int | None) -> tuple[Combiner, Combiner]:
    """Combiners for actor and critic, copies of those given: state must not mix, nor leak to the caller.

    Args:
        combiner: name, `Combiner`, or ``dict(actor=..., critic=...)``.
        kwargs: arguments for both, or ``dict(actor=..., critic=...)`` of arguments.
        seed: of the run; each draws from its own stream of it, unless it was given a seed.

    Raises:
        ArgumentError: if a dict has other keys, or a combiner or its arguments are wrong.
    """
    if isinstance(combiner, Mapping):
        if set(combiner) != {"actor", "critic"}:
            raise ArgumentError(f"combiner must have the keys 'actor' and 'critic', got {sorted(combiner)}")
        given = (combiner["actor"], combiner["critic"])
    else:
        given = (combiner, combiner)
    # Combiners have no argument `actor` or `critic`, so these keys alone are sides.
    by_side = bool(kwargs) and set(kwargs) <= {"actor", "critic"}
    options = (kwargs.get("actor", {}), kwargs.get("critic", {})) if by_side else (kwargs, kwargs)
    actor, critic = (make_combiner(copy.deepcopy(one), **its) for one, its in zip(given, options, strict=True))
    seed_combiners(actor, critic, seed)
    for own in (actor, critic):
        if own.rows_per_task != 1:
            raise ArgumentError(f"{own!r} asks for {own.rows_per_task} rows a task, the agent has one")
    return actor, critic


def seed_combiners(actor: Combiner, critic: Combiner, seed: int | None) -> None:
    """Let each draw from its own stream of a run's seed (None: of fresh entropy), unless it was given a seed."""
    actor.set_random_seed(stream_seed(seed, Stream.ACTOR_COMBINER))
    critic.set_random_seed(stream_seed(seed, Stream.CRITIC_COMBINER))


def check_combiners(actor: Combiner, critic: Combiner, num_tasks: int, policy_kwargs: Mapping[str, Any]) -> None:
    """Hold the combiners against the number of tasks and the optimizer of the networks.

    Args:
        actor: of the actor.
        critic: of the critic.
        num_tasks: K.
        policy_kwargs: the policy's, for ``optimizer_class``.

    Raises:
        ArgumentError: if a combiner has arguments for another number of tasks.
    """
    for combiner in (actor, critic):
        combiner.check_num_tasks(num_tasks)
    optimizer = policy_kwargs.get("optimizer_class", torch.optim.Adam)
    steps = sorted({combiner.name for combiner in (actor, critic) if combiner.returns_step})
    if steps and not (isinstance(optimizer, type) and issubclass(optimizer, torch.optim.SGD)):
        warnings.warn(
            f"{', '.join(steps)} makes an optimizer's step; {optimizer.__name__} on top takes the moments twice. "
            "Take policy_kwargs={'optimizer_class': torch.optim.SGD} (train: --optimizer sgd)",
            stacklevel=4,
        )


def check_keywords(what: str, given: Mapping[str, Any], function: Callable[..., Any], set_by_agent: set[str]) -> None:
    """Refuse keywords that a class does not take, or that the agent sets itself.

    Raises:
        ArgumentError: naming the keyword and those accepted.
    """
    parameters = inspect.signature(function).parameters
    accepted = set(parameters) - set_by_agent
    takes_any = any(one.kind is inspect.Parameter.VAR_KEYWORD for one in parameters.values())
    for name in given:
        if name in set_by_agent or (name not in accepted and not takes_any):
            raise ArgumentError(f"{what} takes no {name!r}; accepted: {', '.join(sorted(accepted))}")


def check_arguments(agent: type[MultiTaskAlgorithm], values: Mapping[str, Any]) -> None:
    """Check what no annotation says of a constructor's arguments: policy, environment, device, SB3's that we lack.

    Args:
        agent: its class.
        values: by name.

    Raises:
        UnsupportedError: if it is something of SB3's that the agent does not have.
        UnknownNameError: if there is no policy of that name.
        ArgumentError: if another one is wrong.
    """
    owner, policies, policy = agent.__name__, agent.policy_aliases, values["policy"]
    refuse(owner, values, agent.refusals)
    base = policies["MlpPolicy"]
    if isinstance(policy, str):
        refuse_policy(owner, policy)
        if policy not in policies:
            raise UnknownNameError("policy", policy, policies)
    elif not issubclass(policy, base):
        raise UnsupportedError(owner, f"policy={policy.__name__}", f"its networks are those of {base.__name__}")
    check_env(values["env"])
    check_device(values["device"])


def check_loaded(agent: type[MultiTaskAlgorithm], values: Mapping[str, Any], custom_objects: Any) -> None:
    """Check what ``load`` is given in place of what was saved; SB3 takes it as it is.

    Args:
        agent: its class.
        values: arguments of its constructor, by name.
        custom_objects: SB3's, for what cannot be read from the file.

    Raises:
        ArgumentError: if one is wrong, is no argument of the constructor, or belongs to the saved parameters.
    """
    if unknown := sorted(set(values) - set(inspect.signature(agent).parameters)):
        raise ArgumentError(f"load takes arguments of {agent.__name__}, of which {unknown[0]!r} is none")
    if fixed := sorted(set(values) & agent.fixed_by_save):
        raise ArgumentError(
            f"load cannot change {fixed[0]}, which the saved parameters were learned with: make a new {agent.__name__} "
            "with it, whose set_parameters reads them"
        )
    objects = check("custom_objects", custom_objects, dict[str, Any] | None) or {}
    annotations = inspect.get_annotations(agent.__init__, eval_str=True)
    for name, value in {**objects, **values}.items():
        check(name, value, annotations.get(name, Any))


def policy_arguments(agent: type[MultiTaskAlgorithm], policy: Any, policy_kwargs: Mapping[str, Any]) -> dict[str, Any]:
    """``policy_kwargs`` as the policy takes them, see `unsupported.supported_policy_kwargs`.

    Raises:
        ArgumentError: if the policy does not take one, or the agent sets it.
    """
    policy_class = agent.policy_aliases[policy] if isinstance(policy, str) else policy
    set_by_agent = agent.set_by_agent["policy_kwargs"]
    accepted = set(inspect.signature(policy_class).parameters) - set_by_agent
    supported = supported_policy_kwargs(agent.__name__, policy_kwargs, accepted)
    check_keywords("policy_kwargs", supported, policy_class, set_by_agent)
    return supported


def check_replay_class(
    owner: str, given: type | None, base: type, kwargs: Mapping[str, Any], set_by_agent: set[str]
) -> None:
    """Refuse a replay buffer that does not know of tasks, and arguments that it does not take.

    Raises:
        UnsupportedError: if the class is another one of Stable-Baselines3's.
        ArgumentError: if it does not take an argument.
    """
    buffer_class = given or base
    if not issubclass(buffer_class, base):
        reason = f"batches hold equally many rows of each task, which a {base.__name__} draws; give a subclass of it"
        raise UnsupportedError(owner, f"replay_buffer_class={buffer_class.__name__}", reason)
    check_keywords("replay_buffer_kwargs", kwargs, buffer_class, set_by_agent)


def check_device(device: torch.device | str) -> None:
    """Refuse a device that PyTorch does not know.

    Raises:
        ArgumentError: if it is neither ``"auto"`` nor a device.
    """
    try:
        torch.device("cpu" if device == "auto" else device)
    except RuntimeError as error:
        raise ArgumentError(f"device must be auto, cpu, cuda ..., got {device!r}") from error


def as_float(value: Any, argument: str, expected: str) -> float:
    """``value`` as a number."""
    try:
        number = float(value)
        if not math.isfinite(number):
            raise ValueError
        return number
    except (TypeError, ValueError):
        raise ArgumentError(f"{argument} must be {expected}, got {value!r}") from None
