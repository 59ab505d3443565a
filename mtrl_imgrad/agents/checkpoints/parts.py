"""Parts of a checkpoint that all agents have, each with a getter and a setter."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from stable_baselines3.common.logger import Logger
from stable_baselines3.common.running_mean_std import RunningMeanStd
from stable_baselines3.common.save_util import recursive_getattr
from stable_baselines3.common.vec_env import VecNormalize

from mtrl_imgrad.envs.vec_env import MultiTaskVecEnv
from mtrl_imgrad.errors import ArgumentError
from mtrl_imgrad.gradients.compilation import missing_compiler
from mtrl_imgrad.gradients.conditional_step import check_optimizer

if TYPE_CHECKING:
    from mtrl_imgrad.agents.common.multi_task import MultiTaskAlgorithm


COUNTERS = ("num_timesteps", "_total_timesteps", "_num_timesteps_at_start", "_episode_num", "_n_updates")


@dataclass(frozen=True)
class Part:
    """One part of an agent's state.

    Attributes:
        get: the state: nested dicts, lists, numbers, text, tensors, arrays (`mtrl_imgrad.checkpoints.state_tree`).
        set: restores it. Returns None, or a sentence on what could not be restored; raises whatever fits where the
            state is malformed.
    """

    get: Callable[[], Any]
    set: Callable[[Any], str | None]


def agent_parts(agent: MultiTaskAlgorithm) -> dict[str, Part]:
    """The parts of every agent, by name, in the order in which they are restored."""

    def part(get: Callable[[Any], Any], restore: Callable[[Any, Any], str | None]) -> Part:
        return Part(lambda: get(agent), lambda state: restore(agent, state))

    return {
        "parameters": part(lambda agent: agent.get_parameters(), _set_parameters),
        "variables": part(_variables, _set_variables),
        "combiners": part(_combiners, _set_combiners),
        "streams": part(_streams, _set_streams),
        "progress": part(_progress, _set_progress),
        "normalization": part(_normalization, _set_normalization),
        "episodes": part(_episodes, _set_episodes),
    }


# ---------------------------------------------------------------------- parameters, optimizers, combiners


def _set_parameters(agent: MultiTaskAlgorithm, state: dict[str, Any]) -> None:
    agent.set_parameters(state, exact_match=True, device=agent.device)
    for name in state:
        if name.endswith("optimizer"):
            check_optimizer(name, recursive_getattr(agent, name))


def _variables(agent: MultiTaskAlgorithm) -> dict[str, torch.Tensor]:
    """Parameters that belong to no module, such as the temperature."""
    return {name: getattr(agent, name) for name in agent._get_torch_save_params()[1]}


@torch.no_grad()
def _set_variables(agent: MultiTaskAlgorithm, state: Mapping[str, torch.Tensor]) -> None:
    for name, tensor in _variables(agent).items():
        if tensor.shape != state[name].shape:
            raise ArgumentError(f"{name} was saved in shape {tuple(state[name].shape)}, not {tuple(tensor.shape)}")
        tensor.copy_(state[name])


def _combiners(agent: MultiTaskAlgorithm) -> dict[str, Any]:
    return {"actor": agent.actor_combiner.state_dict(), "critic": agent.critic_combiner.state_dict()}


def _set_combiners(agent: MultiTaskAlgorithm, state: Mapping[str, Any]) -> None:
    agent.actor_combiner.load_state_dict(state["actor"])
    agent.critic_combiner.load_state_dict(state["critic"])


def _streams(agent: MultiTaskAlgorithm) -> dict[str, Any]:
    states = {name: generator.get_state() for name, (generator, _) in agent._streams().items()}
    return {"device": agent.device.type, "states": states}


def _set_streams(agent: MultiTaskAlgorithm, state: Mapping[str, Any]) -> str | None:
    if agent.device.type != state["device"]:
        return f"the random numbers of {state['device']} cannot go on on {agent.device.type}"
    for name, (generator, _) in agent._streams().items():
        generator.set_state(state["states"][name])
    return None


# ---------------------------------------------------------------------- counters and logs


def _progress(agent: MultiTaskAlgorithm) -> dict[str, Any]:
    episodes, successes = agent.ep_info_buffer, agent.ep_success_buffer
    return {
        "counters": {name: getattr(agent, name) for name in COUNTERS},
        "remaining": agent._current_progress_remaining,
        "wants_jacobian": agent.wants_jacobian,
        "compiled": agent.execution.compile,
        "episodes": None if episodes is None else [dict(info) for info in episodes],
        "successes": None if successes is None else [float(success) for success in successes],
        "task_successes": {name: list(window) for name, window in agent.task_success_buffers.items()},
        "non_finite": agent.non_finite.get_state(),
        "records": list(agent._unwritten_records or _records(vars(agent).get("_logger"))),
    }


def _set_progress(agent: MultiTaskAlgorithm, state: Mapping[str, Any]) -> str | None:
    for name in COUNTERS:
        setattr(agent, name, int(state["counters"][name]))
    agent._current_progress_remaining = float(state["remaining"])
    agent.wants_jacobian = bool(state["wants_jacobian"])
    size = agent.episode_window
    if state["episodes"] is not None:
        agent.ep_info_buffer = deque((dict(info) for info in state["episodes"]), maxlen=size)
        agent.ep_success_buffer = deque(map(float, state["successes"]), maxlen=size)
    for name, window in agent.task_success_buffers.items():
        window.extend(map(float, state["task_successes"][name]))
    agent.non_finite.set_state(state["non_finite"])
    agent._unwritten_records = tuple(_checked_record(record) for record in state["records"])
    return _restore_execution(agent, bool(state.get("compiled", False)))


def _restore_execution(agent: MultiTaskAlgorithm, compiled: bool) -> str | None:
    """Go on as a checkpoint's run did, unless ``compile`` is given; a sentence where that is impossible."""
    if agent.compile != "auto" or not agent.trace:
        return None
    missing = missing_compiler(agent.device) if compiled else None
    agent.execution.compile = compiled and missing is None
    return f"its updates were compiled, but {missing}" if missing else None


def _records(logger: Logger | None) -> list[list[Any]]:
    """Records not yet written: key, value, count of the mean, formats that leave it out.

    Numbers and text; figures and videos are left out.
    """
    if logger is None:
        return []
    kinds = (bool, int, float, str, np.integer, np.floating)
    return [
        [key, value, logger.name_to_count[key], list(logger.name_to_excluded[key])]
        for key, value in logger.name_to_value.items()
        if isinstance(value, kinds)
    ]


def _checked_record(record: Any) -> list[Any]:
    match record:
        case [str(), bool() | int() | float() | str(), int(), [*formats]] if all(isinstance(f, str) for f in formats):
            return record
    raise ArgumentError(f"{record!r:.80} is no record of the logs")


def restore_records(agent: MultiTaskAlgorithm) -> None:
    """Give a checkpoint's unwritten records to the logger, which ``learn`` has just made."""
    for key, value, count, excluded in agent._unwritten_records:
        agent.logger.name_to_value[key] = value
        agent.logger.name_to_count[key] = count
        agent.logger.name_to_excluded[key] = tuple(excluded)
    agent._unwritten_records = ()


# ---------------------------------------------------------------------- environment


def _normalization(agent: MultiTaskAlgorithm) -> dict[str, Any] | None:
    """The statistics of a VecNormalize."""
    env = agent.get_vec_normalize_env()
    if env is None:
        return None
    return {
        "moments": {
            name: [np.asarray(rms.mean), np.asarray(rms.var), rms.count] for name, rms in _moments(env).items()
        },
        "returns": env.returns,
        "last_original_obs": agent._last_original_obs,
    }


def _set_normalization(agent: MultiTaskAlgorithm, state: Mapping[str, Any] | None) -> str | None:
    env = agent.get_vec_normalize_env()
    if agent.env is None or (env is None and state is None):
        return None
    if env is None:
        return "it was saved with a VecNormalize around the environment, and there is none now"
    if state is None:
        return "it holds no statistics of a VecNormalize; those of env are used"
    for name, rms in _moments(env).items():
        mean, var, count = state["moments"][name]
        if mean.shape != np.shape(rms.mean) or var.shape != np.shape(rms.var):
            raise ArgumentError(f"{name} of VecNormalize has shape {mean.shape}, not {np.shape(rms.mean)}")
        rms.mean, rms.var, rms.count = mean.copy(), var.copy(), float(count)
    if state["returns"].shape != env.returns.shape:
        raise ArgumentError("the returns of VecNormalize are malformed")
    env.returns, agent._last_original_obs = state["returns"].copy(), state["last_original_obs"]
    return None


def _moments(env: VecNormalize) -> dict[str, RunningMeanStd]:
    """Running moments by name; without ``norm_obs`` there are none of the observations."""
    named = {name: getattr(env, name, None) for name in ("obs_rms", "ret_rms")}
    return {name: rms for name, rms in named.items() if isinstance(rms, RunningMeanStd)}


def _task_env(agent: MultiTaskAlgorithm) -> MultiTaskVecEnv | None:
    """The environment that can restore its episodes, also inside a VecNormalize."""
    env = agent.env.venv if type(agent.env) is VecNormalize else agent.env
    return env if isinstance(env, MultiTaskVecEnv) else None


def _episodes(agent: MultiTaskAlgorithm) -> dict[str, Any] | None:
    """The running episodes; ``environment`` is None where it cannot restore them, all is None where new ones begin."""
    running = agent._last_obs is not None  # not so after a failure; the environment knows what it would draw next
    env = _task_env(agent)
    state = None if env is None else env.get_state(episodes=running)
    if not running:
        return None if state is None else {"environment": state, "last_obs": None, "starts": None}
    return {"environment": state, "last_obs": agent._last_obs, "starts": agent._last_episode_starts}


def _set_episodes(agent: MultiTaskAlgorithm, state: Mapping[str, Any] | None) -> str | None:
    if state is None:
        return None
    env = _task_env(agent)
    if state["environment"] is None:
        return "the environment's episodes could not be saved; new ones begin"
    if env is None:
        return f"a {type(agent.env).__name__} cannot take over the episodes; new ones begin"
    env.set_state(state["environment"])
    agent._last_obs, agent._last_episode_starts = state["last_obs"], state["starts"]
    return None
