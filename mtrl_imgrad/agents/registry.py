"""The agents by name: what configurations, the command line, runs and their evaluation read."""

from __future__ import annotations

from mtrl_imgrad.agents.common.multi_task import MultiTaskAlgorithm
from mtrl_imgrad.agents.ppo.agent import MTPPO
from mtrl_imgrad.agents.sac.agent import MTSAC
from mtrl_imgrad.agents.td3.agent import MTTD3
from mtrl_imgrad.validation import checked, look_up

Agent = MultiTaskAlgorithm
"""An agent: an algorithm of SB3's with tasks, combiners and checkpoints."""

AGENTS: dict[str, type[Agent]] = {"mtsac": MTSAC, "mtppo": MTPPO, "mttd3": MTTD3}
"""An agent's name is its class's in small letters. Agents of other packages may be added here at run time."""


@checked
def agent_class(name: str) -> type[Agent]:
    """The agent of a name.

    Raises:
        UnknownNameError: if there is none.
    """
    return look_up("agent", name, AGENTS)
