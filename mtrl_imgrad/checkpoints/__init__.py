"""The checkpoint format of agents and supervised runs."""

from mtrl_imgrad.extras import require

require("mtrl_imgrad.checkpoints", "safetensors")
