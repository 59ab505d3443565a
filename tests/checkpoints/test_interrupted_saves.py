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

    folder, draw, number = Path({folder!r}), random.Random({seed}), 0
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


def _kill_at_random(folder, seed, kills):
    numbers = list(map(int, run(KILLED_AT_RANDOM.format(folder=str(folder), seed=seed, kills=kills)).split()))
    assert len(numbers) == kills
    assert numbers == sorted(set(numbers)), "every process saved at least once"


def test_killed_while_saving(tmp_path):
    _kill_at_random(tmp_path / "checkpoint", seed=0, kills=20)


@pytest.mark.slow
def test_killed_while_saving_two_hundred_times(tmp_path):
    _kill_at_random(tmp_path / "checkpoint", seed=1, kills=200)


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
        folder = Path({folder!r}) / str(fatal)
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


def test_killed_before_each_call_of_the_system(tmp_path):
    run(KILLED_BEFORE_A_CALL.format(folder=str(tmp_path)))
    found = [number_in(read_checkpoint(tmp_path / str(fatal))) for fatal in range(1, len(list(tmp_path.iterdir())) + 1)]
    assert len(found) > 12, "three files are opened, brought to the disk with their folder, and renamed"
    assert found == sorted(found), "the old one up to some call, the new one from there on"
    assert set(found) == {1, 2}


FULL_DISK = """
    import resource

    folder = Path({folder!r})
    write_checkpoint(folder, state_of(1))
    before = sorted(folder.iterdir())
    resource.setrlimit(resource.RLIMIT_FSIZE, ({limit}, {limit}))
    try:
        write_checkpoint(folder, state_of(2))
    except Exception as error:
        print(type(error).__name__, error)
    assert sorted(folder.iterdir()) == before, "nothing half written stays"
"""


@pytest.mark.parametrize("limit", [1000, 10_000])
def test_a_full_disk_leaves_the_old_one_and_names_the_path(limit, tmp_path):
    out = run(FULL_DISK.format(folder=str(tmp_path / "full"), limit=limit))
    assert out.startswith(f"CheckpointError checkpoint {tmp_path / 'full'} cannot be written: ")
    needed = int(
        re.search(r"-[0-9a-f]{16}\.(?:json|safetensors), (\d+) bytes: File too large \(\d+ bytes are free", out)[1]
    )
    assert needed > limit
    assert number_in(read_checkpoint(tmp_path / "full")) == 1
