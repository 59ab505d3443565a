"""Whatever happens while a checkpoint is saved, a whole one remains: the old one or the new one."""

import re

import pytest

from mtrl_imgrad.checkpoints.format import read_checkpoint
from tests.support.checkpoints.saved_states import number_in, run

pytestmark = pytest.mark.faults

KILLED_AT_RANDOM = """
    import random
    import time
    from tests.support.checkpoints.saved_states import number_in
    from mtrl_imgrad.checkpoints.format import read_checkpoint

    folder, draw, number = Path({folder!r}) / "checkpoint", random.Random({seed}), 0
    for _ in range({kills}):
        receive, send = os.pipe()
        child = os.fork()
        if not child:  # saves over the same checkpoint until it is killed, and tells each that it has saved
            while True:
                number += 1
                write_checkpoint(folder, state_of(number))
                os.write(send, number.to_bytes(4))
        os.close(send)
        reported = os.read(receive, 4)
        time.sleep(draw.uniform(0, 0.03))
        os.kill(child, signal.SIGKILL)
        assert os.waitpid(child, 0)[1] == signal.SIGKILL
        while more := os.read(receive, 4):
            reported = more
        os.close(receive)
        last = int.from_bytes(reported)
        number = number_in(read_checkpoint(folder))
        assert number in (last, last + 1), (number, last)
        print(number)
"""


KILLED_BEFORE_A_CALL = """
    import builtins

    def save_and_die(folder, fatal):
        calls = 0

        def counted(function):
            def call(*args, **kwargs):
                nonlocal calls
                calls += 1
                if calls == fatal:
                    os.kill(os.getpid(), signal.SIGKILL)
                return function(*args, **kwargs)
            return call

        os.replace, os.fsync, builtins.open = counted(os.replace), counted(os.fsync), counted(open)
        Path.unlink, Path.mkdir = counted(Path.unlink), counted(Path.mkdir)
        write_checkpoint(folder, state_of(2))

    for fatal in range(1, 1000):
        folder = Path({folder!r}) / "calls" / str(fatal)
        write_checkpoint(folder, state_of(1))
        child = os.fork()
        if not child:
            save_and_die(folder, fatal)
            os._exit(0)
        status = os.waitpid(child, 0)[1]
        assert status in (0, signal.SIGKILL), status
        if status == 0:
            break
"""


FULL_DISK = """
    import resource

    for limit in {limits}:
        folder = Path({folder!r}) / f"full at {{limit}}"
        write_checkpoint(folder, state_of(1))
        before = sorted(folder.iterdir())
        unlimited = resource.getrlimit(resource.RLIMIT_FSIZE)
        resource.setrlimit(resource.RLIMIT_FSIZE, (limit, unlimited[1]))
        try:
            write_checkpoint(folder, state_of(2))
        except Exception as error:
            said = f"{{type(error).__name__}} {{error}}"
        resource.setrlimit(resource.RLIMIT_FSIZE, unlimited)
        assert sorted(folder.iterdir()) == before, "nothing half written stays"
        folder.with_suffix(".txt").write_text(said)
"""
LIMITS = (1000, 10_000)
KILLS = 20


@pytest.fixture(scope="module")
def saved(tmp_path_factory):
    """A folder in which one process (it starts slowly) has done all of the above, and the numbers it printed."""
    folder = tmp_path_factory.mktemp("saved")
    given = {"folder": str(folder), "seed": 0, "kills": KILLS, "limits": LIMITS}
    programs = KILLED_AT_RANDOM, KILLED_BEFORE_A_CALL, FULL_DISK
    return folder, run("".join(programs).format(**given))


def _assert_saved(numbers, kills):
    numbers = list(map(int, numbers.split()))
    assert len(numbers) == kills
    assert numbers == sorted(set(numbers)), "every process saved at least once"


def test_killed_while_saving(saved):
    _assert_saved(saved[1], KILLS)


@pytest.mark.slow
def test_killed_while_saving_two_hundred_times(tmp_path):
    _assert_saved(run(KILLED_AT_RANDOM.format(folder=str(tmp_path), seed=1, kills=200)), 200)


def test_killed_before_each_call_of_the_system(saved):
    folder = saved[0] / "calls"
    found = [number_in(read_checkpoint(folder / str(fatal))) for fatal in range(1, len(list(folder.iterdir())) + 1)]
    assert len(found) > 12, "three files are opened, brought to the disk with their folder, and renamed"
    assert found == sorted(found), "the old one up to some call, the new one from there on"
    assert set(found) == {1, 2}


@pytest.mark.parametrize("limit", LIMITS)
def test_a_full_disk_leaves_the_old_one_and_names_the_path(limit, saved):
    folder = saved[0] / f"full at {limit}"
    said = folder.with_suffix(".txt").read_text()
    assert said.startswith(f"CheckpointError checkpoint {folder} cannot be written: ")
    needed = int(
        re.search(r"-[0-9a-f]{16}\.(?:json|safetensors), (\d+) bytes: File too large \(\d+ bytes are free", said)[1]
    )
    assert needed > limit
    assert number_in(read_checkpoint(folder)) == 1
