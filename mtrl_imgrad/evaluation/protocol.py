"""How the episodes of an evaluation were run: what a caption must say beside their number."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass
from typing import Any

from mtrl_imgrad.errors import CheckpointError
from mtrl_imgrad.validation import checked


@checked
@dataclass(frozen=True)
class EvaluationProtocol:
    """Conditions of an evaluation; None where unknown.

    Attributes:
        deterministic: whether the agent acted by the mean of its policy.
        simulator: back-end of the environment.
        env_seed: seed of the environment, which determines its goals and episodes.
        timesteps: environment steps that the agent had learned from, over all its environments.
    """

    deterministic: bool | None = None
    simulator: str | None = None
    env_seed: int | None = None
    timesteps: int | None = None

    @classmethod
    def of(cls, agent: object, env: Any, deterministic: bool) -> EvaluationProtocol:
        """Read off an agent and an environment, with what they know of themselves."""
        simulator, seed, steps = (
            getattr(env, "backend", None),
            getattr(env, "initial_seed", None),
            getattr(agent, "num_timesteps", None),
        )
        return cls(
            deterministic,
            simulator if isinstance(simulator, str) else None,
            None if seed is None else int(seed),
            None if steps is None else int(steps),
        )

    def __str__(self) -> str:
        parts = []
        if self.timesteps is not None:
            parts.append(f"agent after {self.timesteps:,} steps" if self.timesteps else "untrained agent")
        if self.deterministic is not None:
            parts.append("deterministic" if self.deterministic else "sampled actions")
        if self.simulator is not None:
            parts.append(f"on {self.simulator}")
        if self.env_seed is not None:
            parts.append(f"evaluation seed {self.env_seed}")
        return ", ".join(parts)

    def to_json(self) -> str:
        """One line of JSON."""
        return json.dumps(asdict(self))

    @classmethod
    def from_json(cls, text: str) -> EvaluationProtocol:
        """Read `to_json`.

        Raises:
            CheckpointError: if the text is something else.
        """
        try:
            return cls(**json.loads(text))
        except (TypeError, ValueError) as error:
            raise CheckpointError(f"no conditions of an evaluation: {text!r}") from error


UNKNOWN = EvaluationProtocol()


def read_protocol(text: Any) -> EvaluationProtocol:
    """The member ``protocol`` of a file; `UNKNOWN` for None, as in files of 0.1.0."""
    return UNKNOWN if text is None else EvaluationProtocol.from_json(str(text))
