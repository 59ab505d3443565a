"""Runs: configuration, training, evaluation of a run folder, and what is installed."""

from mtrl_imgrad.extras import require

require("mtrl_imgrad.experiments", "tyro", "rich", "yaml", "pydantic")
