"""Arguments of Stable-Baselines3's agents that are refused here, with the reasons.

An argument of SB3's is accepted with the values that ask for nothing, so that SB3's calls need not be rewritten. The
page ``docs/sb3.md`` lists what is refused here and what is different.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NamedTuple

import numpy as np
from stable_baselines3.common.torch_layers import FlattenExtractor

from mtrl_imgrad.errors import UnsupportedError


class Refusal(NamedTuple):
    """Of an argument."""

    neutral: tuple[Any, ...]
    """Values that ask for nothing, SB3's default first."""
    reason: str
    """Why every other value is refused."""


_SDE = "its noise is made from the last layer of one network, encoders end in several; MTSAC takes action_noise"
_SDE_OPTION = "it belongs to use_sde=True"
_EXTRACTOR = "an encoder takes its place: policy_kwargs=dict(encoder=...)"
SAC_ARGUMENTS: dict[str, Refusal] = {
    "optimize_memory_usage": Refusal((False,), "a row of the replay holds both observations, to be read at once"),
    "use_sde": Refusal((False,), _SDE),
    "sde_sample_freq": Refusal((-1,), _SDE_OPTION),
    "use_sde_at_warmup": Refusal((False,), _SDE_OPTION),
}
"""Of `MTSAC`."""
PPO_ARGUMENTS: dict[str, Refusal] = {
    "use_sde": Refusal((False,), _SDE),
    "sde_sample_freq": Refusal((-1,), _SDE_OPTION),
    "rollout_buffer_class": Refusal((None,), "minibatches are drawn by task, from a TaskRolloutBuffer"),
    "rollout_buffer_kwargs": Refusal((None, {}), "the agent makes its TaskRolloutBuffer itself"),
}
"""Of `MTPPO`."""
POLICY_KWARGS: dict[str, Refusal] = {
    "use_sde": Refusal((False,), _SDE),
    "use_expln": Refusal((False,), _SDE_OPTION),
    "full_std": Refusal((True,), _SDE_OPTION),
    "clip_mean": Refusal((2.0,), _SDE_OPTION),
    "squash_output": Refusal((False,), _SDE_OPTION),
    "features_extractor_class": Refusal((FlattenExtractor,), _EXTRACTOR),
    "features_extractor_kwargs": Refusal((None, {}), _EXTRACTOR),
    "share_features_extractor": Refusal((True, False), _EXTRACTOR),
    "normalize_images": Refusal((True, False), "observations are no images"),
    "ortho_init": Refusal((False,), "layers begin as PyTorch's, or as `initialization` says"),
    "log_std_init": Refusal((-3,), "it belongs to use_sde=True in a SAC"),
}
"""Of both policies, where they have no argument of the name."""
_POLICIES = {
    "CnnPolicy": "encoders take flat observations; make features in the environment, or wrap it",
    "MultiInputPolicy": "encoders take flat observations; gymnasium.wrappers.FlattenObservation makes them",
}


def refuse(owner: str, arguments: Mapping[str, Any], refusals: Mapping[str, Refusal]) -> None:
    """Refuse arguments whose value is not supported.

    Args:
        owner: name of the agent's class.
        arguments: by name; others than those of ``refusals`` are not looked at.
        refusals: `SAC_ARGUMENTS`, `PPO_ARGUMENTS` or `POLICY_KWARGS`.

    Raises:
        UnsupportedError: naming the argument, with the reason.
    """
    for name, (neutral, reason) in refusals.items():
        if name in arguments and not any(_same(arguments[name], one) for one in neutral):
            value = arguments[name]
            shown = value.__name__ if isinstance(value, type) else repr(value)
            raise UnsupportedError(owner, f"{name}={shown}", reason)


def refuse_policy(owner: str, policy: Any) -> None:
    """Refuse SB3's names of policies that are not there.

    Raises:
        UnsupportedError: with the reason.
    """
    if isinstance(policy, str) and policy in _POLICIES:
        raise UnsupportedError(owner, f"policy={policy!r}", _POLICIES[policy])


def supported_policy_kwargs(owner: str, policy_kwargs: Mapping[str, Any], accepted: set[str]) -> dict[str, Any]:
    """``policy_kwargs`` without SB3's options that ask for nothing, and without ``net_arch=None``, its default.

    Args:
        owner: name of the agent's class.
        policy_kwargs: as given.
        accepted: options that the policy has.

    Raises:
        UnsupportedError: if an option of SB3's asks for what there is not.
    """
    theirs = {name: refusal for name, refusal in POLICY_KWARGS.items() if name not in accepted}
    refuse(owner, policy_kwargs, theirs)
    supported = {name: value for name, value in policy_kwargs.items() if name not in theirs}
    if "net_arch" in supported and supported["net_arch"] is None:
        del supported["net_arch"]
    return supported


def _same(value: Any, neutral: Any) -> bool:
    """Equal, and of the same kind: 0 is not False."""
    if value is neutral:
        return True
    plain = (bool, int, float, dict, np.bool_, np.integer, np.floating)
    alike = isinstance(value, (bool, np.bool_)) == isinstance(neutral, bool)
    return isinstance(value, plain) and isinstance(neutral, plain) and alike and bool(value == neutral)
