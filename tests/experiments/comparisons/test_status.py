"""``mtrl-imgrad status``: how far a comparison is, said by a process that runs none of it."""

import fcntl
import io
import json
import os
import threading
import time
from contextlib import suppress

import pytest
from rich.console import Console

from mtrl_imgrad.cli import main
from mtrl_imgrad.errors import ArgumentError
from mtrl_imgrad.experiments.comparisons import compare, plan, state
from mtrl_imgrad.experiments.comparisons.compare import make_runs
from mtrl_imgrad.experiments.comparisons.launch import Launch
from mtrl_imgrad.experiments.comparisons.live import show
from mtrl_imgrad.experiments.comparisons.plan import Comparison, load_comparison, plan_comparison
from mtrl_imgrad.experiments.comparisons.state import LOCK, locked, read_state, write_error
from mtrl_imgrad.experiments.rl.config import train_config_class
from mtrl_imgrad.experiments.run_folder import RESULT
from mtrl_imgrad.experiments.supervised.config import SupervisedConfig


@pytest.fixture
def comparison(tmp_path):
    """Six runs that nobody trained: finished, failed, stopped, and three that wait."""
    planned = plan_comparison(train_config_class("mtsac")(), ["ls", "imgrad:c=0.4", "pcgrad"], [0, 1], tmp_path)
    planned.save()
    finished, failed, stopped = planned.runs()[:3]
    for run in (finished, failed, stopped):
        run.folder.mkdir(parents=True)
        (run.folder / "config.yaml").touch()
    (finished.folder / "result.json").write_text(json.dumps({"final": {"success": 0.8}}))
    write_error(failed.folder, "RuntimeError: no more memory")
    return planned


def test_every_run_has_its_word(comparison, capsys):
    assert main(["status", str(comparison.folder)]) == 0
    lines = [" ".join(line.split()) for line in capsys.readouterr().out.splitlines()]
    assert {"method seed 0 seed 1", "ls done 0.80 -", "imgrad:c=0.4 failed -", "pcgrad stopped 0% -"} <= set(lines)
    assert "1 of 6 runs finished, 1 failed, 1 stopped" in lines
    assert "imgrad:c=0.4 seed 0: failed: RuntimeError: no more memory" in lines


def test_watching_ends_with_the_last_run(comparison):
    run = comparison.runs()[-1]
    begun, ended = threading.Event(), threading.Event()

    def hold():
        with locked(run.folder):
            begun.set()
            ended.wait()

    holder = threading.Thread(target=hold)
    console = Console(file=io.StringIO(), force_terminal=True, width=100)
    watcher = threading.Thread(target=show, args=(comparison, console, True))
    holder.start()
    begun.wait()
    watcher.start()
    while "running" not in console.file.getvalue():
        time.sleep(0.01)
    assert watcher.is_alive()
    ended.set()
    watcher.join()
    holder.join()


def test_a_run_starts_after_a_look(comparison):
    """Who looks has the lock for an instant."""
    run = comparison.runs()[-1]
    begun = threading.Event()

    def look():
        with locked(run.folder):
            begun.set()
            time.sleep(0.02)

    looker = threading.Thread(target=look)
    looker.start()
    begun.wait()
    with locked(run.folder):
        looker.join()
        assert str(os.getpid()) in (run.folder / LOCK).read_text(), "the lock is held here"


def test_a_run_that_another_process_looks_at_does_not_run(comparison):
    run = comparison.runs()[-1]
    run.folder.mkdir(parents=True)
    with open(run.folder / LOCK, "w") as file:
        fcntl.flock(file, fcntl.LOCK_SH)  # as `read_state` has it for an instant
        assert read_state(comparison.kind, run).status == "waiting"


def test_a_run_that_ends_while_it_is_looked_at_is_finished(comparison, monkeypatch):
    run = comparison.runs()[2]

    def ends(folder):
        (folder / RESULT).write_text(json.dumps({"final": {"success": 0.6}}))
        return False

    monkeypatch.setattr(state, "_is_locked", ends)
    assert (read_state(comparison.kind, run).status, read_state(comparison.kind, run).success) == ("finished", 0.6)


def test_watching_into_a_file_waits_for_the_last_run_too(comparison):
    run = comparison.runs()[-1]
    console = Console(file=io.StringIO(), width=100)
    with locked(run.folder):
        watcher = threading.Thread(target=show, args=(comparison, console, True))
        watcher.start()
        watcher.join(1.5)  # longer than it takes to print a table
        assert watcher.is_alive()
    watcher.join()
    assert "pcgrad seed 1: waiting" in console.file.getvalue(), "nothing runs any more"


def test_a_folder_without_a_comparison_is_named(tmp_path, capsys):
    assert main(["status", str(tmp_path)]) == 2
    assert f"{tmp_path} holds no comparison" in " ".join(capsys.readouterr().err.split())


@pytest.mark.parametrize("content", [b"", b'{"final": ', b"[1]", b"3", b"\xff\xfe", b'{"final": 1}'])
def test_a_result_that_cannot_be_read_is_named(comparison, content, capsys):
    (comparison.runs()[0].folder / "result.json").write_bytes(content)
    assert main(["status", str(comparison.folder)]) == 1
    assert "seed_0/result.json: cannot be read as a result" in " ".join(capsys.readouterr().err.split())


@pytest.mark.parametrize("content", [b"a,b\n1,2\n", b"timesteps,wall_seconds\nx,1\n", b"\xff\xfe\n1\n"])
def test_a_clock_that_cannot_be_read_is_named(comparison, content, capsys):
    (comparison.runs()[2].folder / "clock.csv").write_bytes(content)
    assert main(["status", str(comparison.folder)]) == 1
    assert "seed_0/clock.csv: cannot be read as a table of times" in " ".join(capsys.readouterr().err.split())


def test_an_error_of_any_bytes_is_shown(comparison, capsys):
    (comparison.runs()[1].folder / "error.txt").write_bytes(b"RuntimeError: \xff\n")
    assert main(["status", str(comparison.folder)]) == 0
    assert "imgrad:c=0.4 seed 0: failed: RuntimeError:" in capsys.readouterr().out


@pytest.mark.parametrize("seeds", ["3", "'012'", "[-1]", "[0, x]", "[1.5]", "null"])
def test_wrong_seeds_in_a_plan_are_named(seeds, tmp_path, capsys):
    (tmp_path / "comparison.yaml").write_text(f"kind: rl\nmethods: {{ls: {seeds}}}\nconfig: {{}}\n")
    assert main(["status", str(tmp_path)]) == 2
    assert "comparison.yaml: methods.ls must be" in " ".join(capsys.readouterr().err.split())


def test_a_wrong_seed_or_folder_is_refused_before_anything_is_written(tmp_path, capsys):
    config = train_config_class("mtsac")()
    with pytest.raises(ArgumentError, match=r"seeds must be an integer in \[0, 2\^63\), got -1"):
        plan_comparison(config, ["ls"], [0, -1], tmp_path)
    (tmp_path / "file").touch()
    with pytest.raises(ArgumentError, match="out .*file cannot be made"):
        plan_comparison(config, ["ls"], [0], tmp_path / "file").save()
    assert [path.name for path in tmp_path.iterdir()] == ["file"]


def test_a_method_is_one_however_it_is_written(tmp_path):
    config = train_config_class("mtsac")()
    before = plan_comparison(config, ["linear_scalarization", "imgrad"], [0], tmp_path)
    before.save()
    after = plan_comparison(config, ["ls", "imgrad:c=null", "ls+imgrad", "imgrad:c=0.75"], [1], tmp_path)
    assert after.methods == {
        "linear_scalarization": (0, 1), "imgrad": (0, 1), "ls+imgrad": (1,), "imgrad:c=0.75": (1,)
    }  # fmt: skip
    with pytest.raises(ArgumentError, match="'ls[+]linear_scalarization' is 'ls'"):
        plan_comparison(config, ["ls", "ls+linear_scalarization"], [0], tmp_path / "new")
    images = plan_comparison(SupervisedConfig(), ["stl", "linear_scalarization"], [0], tmp_path / "images")
    images.save()
    with pytest.raises(ArgumentError, match="'linear_scalarization' is 'ls'"):
        plan_comparison(SupervisedConfig(), ["ls", "linear_scalarization"], [0], tmp_path / "others")
    assert list(plan_comparison(SupervisedConfig(), ["ls"], [0], tmp_path / "images").methods) == list(images.methods)


def test_two_methods_do_not_share_a_folder(tmp_path, monkeypatch):
    monkeypatch.setattr(plan, "slug", lambda text: text.partition(":")[0])
    with pytest.raises(ArgumentError, match="'imgrad:c=1' and 'imgrad:c=2' would share a folder"):
        plan_comparison(train_config_class("mtsac")(), ["imgrad:c=1", "imgrad:c=2"], [0], tmp_path)


def test_two_calls_that_add_methods_at_once_keep_both(tmp_path, monkeypatch):
    """Each reads the folder's plan, waits for the other where nothing stops it, and writes its own."""
    config = train_config_class("mtsac")()
    both_have_read = threading.Barrier(2)
    save = Comparison.save

    def slow_save(comparison):
        with suppress(threading.BrokenBarrierError):  # one alone is what a lock leaves
            both_have_read.wait(timeout=0.5)
        save(comparison)

    monkeypatch.setattr(Comparison, "save", slow_save)
    monkeypatch.setattr(compare, "run_here", lambda *_: None)
    calls = [
        threading.Thread(target=make_runs, args=(config, [method], [0], tmp_path, Launch(jobs=0)))
        for method in ("ls", "pcgrad")
    ]
    for call in calls:
        call.start()
    for call in calls:
        call.join()
    assert set(load_comparison(tmp_path).methods) == {"ls", "pcgrad"}


def test_an_agent_section_that_is_none_is_named(tmp_path, capsys):
    (tmp_path / "comparison.yaml").write_text("kind: rl\nmethods: {ls: [0]}\nconfig: {agent: [1]}\n")
    assert main(["status", str(tmp_path)]) == 2
    assert "comparison.yaml: agent:" in " ".join(capsys.readouterr().err.split())
