"""A signal that ends the runs of CoTBal says how to go on. Comparisons: tests/experiments/comparisons."""

import os
import signal

import pytest

from mtrl_imgrad.cli import main
from mtrl_imgrad.experiments.supervised import cotbal


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_says_how_to_go_on(number, monkeypatch, capsys):
    monkeypatch.setattr(cotbal, "measure_cotbal", lambda *_, **__: os.kill(os.getpid(), number))
    before = signal.getsignal(number)
    assert main(["supervised", "cotbal", "--data", "demo", "--out", "here"]) == 128 + number
    said = capsys.readouterr().err
    assert f"interrupted by {number.name}: what is done is kept in here; to go on, give the same command again" in said
    assert signal.getsignal(number) is before
