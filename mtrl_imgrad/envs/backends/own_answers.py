"""Checks of what a Gymnasium environment returned: the number of parts, the type of each.

Each function raises `WrongAnswerError` that names the part; whose environment it was, the caller knows.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from mtrl_imgrad.envs.episodes import FloatArray
from mtrl_imgrad.envs.success import success_of


class WrongAnswerError(Exception):
    """An environment returned something else than Gymnasium's interface says."""


_OLD_GYM = " (OpenAI Gym's old interface? Gymnasium's is needed)"


def read_reset(answer: Any) -> Any:
    """The observation of ``(observation, info)``.

    Raises:
        WrongAnswerError: if the answer is something else.
    """
    if isinstance(answer, tuple) and len(answer) == 2 and isinstance(answer[1], dict):
        return answer[0]
    hint = _OLD_GYM if isinstance(answer, np.ndarray) else ""
    raise WrongAnswerError(f"reset must return (observation, info), info a dict; got {_in_words(answer)}{hint}")


def read_step(answer: Any) -> tuple[Any, float, bool, bool, bool | None]:
    """Observation, reward, terminated, truncated, and what the info says of success (None: nothing).

    Raises:
        WrongAnswerError: if there are not five parts, the reward is no number, an end no bool, the info no dict, or the
            success neither a bool nor a number.
    """
    if not isinstance(answer, tuple) or len(answer) != 5:
        hint = _OLD_GYM if isinstance(answer, tuple) and len(answer) == 4 else ""
        raise WrongAnswerError(
            f"step must return (observation, reward, terminated, truncated, info), got {_in_words(answer)}{hint}"
        )
    observation, reward, terminated, truncated, info = answer
    if not isinstance(info, dict):
        raise WrongAnswerError(f"info must be a dict, got {_in_words(info)}")
    try:
        success = success_of(info)
    except TypeError as error:
        raise WrongAnswerError(str(error)) from None
    ends = _flag("terminated", terminated), _flag("truncated", truncated)
    return observation, _number("reward", reward), *ends, success


def read_observation(observation: Any, width: int) -> FloatArray:
    """``[width]`` numbers as float64; shares memory with the argument where that is float64.

    Raises:
        WrongAnswerError: if it has another shape or holds something else.
    """
    try:
        numbers = np.asarray(observation)
    except Exception as error:  # what a tensor on a device or an array of a kind of its own raises has no common base
        raise WrongAnswerError(f"the observation cannot be read as an array: {error}") from error
    if numbers.dtype.kind not in "biuf":
        raise WrongAnswerError(f"the observation must hold numbers, got {_in_words(observation)}")
    if numbers.shape != (width,):
        raise WrongAnswerError(f"the observation has shape {numbers.shape}, its space ({width},)")
    return numbers.astype(np.float64, copy=False)


def _number(name: str, value: Any) -> float:
    if isinstance(value, (int, float, np.integer, np.floating, np.bool_)):
        return float(value)
    # An array or a tensor of one number; torch's dtypes have no kind.
    if getattr(value, "shape", None) == () and getattr(value.dtype, "kind", "f") in "biuf":
        return float(value)
    raise WrongAnswerError(f"the {name} must be a number, got {_in_words(value)}")


def _flag(name: str, value: Any) -> bool:
    if value is True or value is False or isinstance(value, np.bool_):
        return bool(value)
    if getattr(value, "shape", None) == () and str(getattr(value, "dtype", "")).endswith("bool"):
        return bool(value)
    raise WrongAnswerError(f"{name} must be True or False, got {_in_words(value)}")


def _in_words(value: Any) -> str:
    """Short, whatever it is."""
    if isinstance(value, tuple):
        return f"a tuple of {len(value)}: ({', '.join(type(part).__name__ for part in value)})"
    if hasattr(value, "shape") and hasattr(value, "dtype"):
        return f"{type(value).__name__} of shape {tuple(value.shape)}, {value.dtype}"
    text = repr(value)
    return text if len(text) <= 60 else f"{type(value).__name__} {text[:57]}..."
