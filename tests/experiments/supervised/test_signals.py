"""A signal that ends a comparison says how to go on."""

import os
import signal

import pytest

from mtrl_imgrad.cli import main
from mtrl_imgrad.experiments.supervised import compare, cotbal


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
@pytest.mark.parametrize(
    ("command", "module", "name"),
    [
        ("compare", compare, "compare"),
        ("cotbal", cotbal, "measure_cotbal"),
    ],
)
def test_a_signal_says_how_to_go_on(number, command, module, name, monkeypatch, capsys):
    monkeypatch.setattr(module, name, lambda *_, **__: os.kill(os.getpid(), number))
    before = signal.getsignal(number)
    assert main(["supervised", command, "--data", "demo", "--out", "here"]) == 128 + number
    said = capsys.readouterr().err
    assert f"interrupted by {number.name}: what is done is kept in here; to go on, give the same command again" in said
    assert signal.getsignal(number) is before
