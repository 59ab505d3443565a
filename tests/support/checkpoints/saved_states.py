"""A small checkpoint of every kind of member, and programs that save it in other processes."""

import subprocess
import sys
import textwrap

import numpy as np
import torch

from mtrl_imgrad.checkpoints.format import write_checkpoint
from tests.support.paths import ROOT

PROGRAM = """
import sys
import os
import signal
from pathlib import Path
import numpy as np
import torch
from mtrl_imgrad.checkpoints.format import write_checkpoint

def state_of(number, size=2000):
    state = {
        "number": number,
        "moments": {0: {"step": torch.tensor(float(number)), "exp_avg": torch.full((size,), float(number))}},
        "betas": (0.9, 0.999), "nothing": None, "odd": [float("nan"), float("inf")], "key/with~signs": np.arange(3),
        "rows": np.full((size, 3), number, dtype=np.float32),
    }
    return state
"""
exec(PROGRAM, namespace := {})
state_of = namespace["state_of"]


def save_small(folder, number=1):
    """Write checkpoint ``number``; its files by member."""
    write_checkpoint(folder, state_of(number, size=20))
    return sorted(path for path in folder.iterdir())


def number_in(state):
    """Which checkpoint this is, if it is one from beginning to end."""
    number = state["number"]
    assert state["moments"][0]["step"] == number
    assert torch.equal(state["moments"][0]["exp_avg"], torch.full_like(state["moments"][0]["exp_avg"], number))
    assert np.array_equal(state["rows"], np.full_like(state["rows"], number))
    return number


def run(code):
    """Run ``code`` after `PROGRAM` in another process; what it printed."""
    command = [sys.executable, "-c", PROGRAM + textwrap.dedent(code)]
    done = subprocess.run(command, capture_output=True, text=True, cwd=ROOT)
    assert done.returncode == 0, done.stderr
    return done.stdout
