"""Output of runs: atomic files, figures, tables."""

from mtrl_imgrad.extras import require

require("mtrl_imgrad.reporting", "rich", "matplotlib")
