"""Several runs at a time: how many, what a failed one leaves, whom a signal stops. The runs are made up."""

import signal

import pytest
from rich.console import Console

from mtrl_imgrad.errors import LearningInterruptedError
from mtrl_imgrad.experiments.comparisons.plan import plan_comparison
from mtrl_imgrad.experiments.comparisons.pool import run_all
from mtrl_imgrad.experiments.comparisons.processes import INTERRUPTED
from mtrl_imgrad.experiments.comparisons.state import LOG, read_state
from mtrl_imgrad.experiments.rl.config import train_config_class


class Machine:
    """Where runs are made: each is there for ``looks`` looks at it, then ends as ``endings`` say, or with 0."""

    def __init__(self, looks=2, endings=(), signals=()):
        self.looks, self.endings, self.signals = looks, dict(endings), list(signals)
        self.running, self.events = [], []

    def start(self, run):
        self.running.append(run.name)
        self.events.append(f"start {run.label} beside {len(self.running) - 1}")
        return Started(self, run)


class Started:
    def __init__(self, machine, run):
        self.machine, self.run, self.left = machine, run, machine.looks

    def poll(self):
        if self.machine.signals:
            signal.raise_signal(self.machine.signals.pop(0))
        self.left -= 1
        if self.left:
            return None
        self.machine.running.remove(self.run.name)
        return self.machine.endings.get(self.run.label, 0)

    def stop(self, at_once):
        self.machine.events.append(f"stop {self.run.label}{' at once' if at_once else ''}")
        self.machine.endings.setdefault(self.run.label, -signal.SIGKILL if at_once else INTERRUPTED)


@pytest.fixture
def comparison(tmp_path, monkeypatch):
    monkeypatch.setattr("mtrl_imgrad.experiments.comparisons.pool.POLL_EVERY", 0)
    return plan_comparison(train_config_class("mtsac")(), ["ls", "mgda", "pcgrad"], [0], tmp_path)


def run(comparison, machine, jobs=2):
    run_all(comparison, comparison.runs(), jobs, Console(quiet=True), False, machine.start)


def states(comparison):
    return [read_state(comparison.kind, run) for run in comparison.runs()]


@pytest.mark.parametrize("jobs", [1, 2, 5])
def test_as_many_at_a_time_as_were_asked_for(comparison, jobs):
    machine = Machine()
    run(comparison, machine, jobs)
    beside = {1: (0, 0, 0), 2: (0, 1, 0), 5: (0, 1, 2)}[jobs]
    names = [run.label for run in comparison.runs()]
    assert machine.events == [f"start {name} beside {n}" for name, n in zip(names, beside, strict=True)]
    assert not machine.running


def test_a_run_that_dies_is_said_to_have_failed_and_the_others_are_made(comparison):
    first, second, _ = comparison.runs()
    first.folder.mkdir(parents=True)
    (first.folder / LOG).write_text("the last words\n")
    machine = Machine(endings={first.label: -signal.SIGKILL, second.label: 3})
    run(comparison, machine)
    assert len(machine.events) == 3
    assert [state.status for state in states(comparison)] == ["failed", "failed", "waiting"]
    errors = [state.error for state in states(comparison)]
    assert "killed by SIGKILL" in errors[0]
    assert "the last words" in errors[0]
    assert "exit status 3" in errors[1]


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_stops_every_run_and_a_second_one_at_once(comparison, number):
    first, second, third = (run.label for run in comparison.runs())
    for signals, stops in (
        ([number], [f"stop {first}", f"stop {second}"]),
        ([number] * 2, [f"stop {first}", f"stop {second}", f"stop {first} at once", f"stop {second} at once"]),
    ):
        machine = Machine(looks=5, signals=signals)
        before = signal.getsignal(number)
        with pytest.raises(LearningInterruptedError, match="to go on: mtrl-imgrad compare --out") as told:
            run(comparison, machine)
        assert told.value.number == number
        assert signal.getsignal(number) is before
        assert sorted(event for event in machine.events if event.startswith("stop")) == sorted(stops)
        assert not any(third in event for event in machine.events)
        assert [state.status for state in states(comparison)] == ["waiting"] * 3, "none of them failed"
