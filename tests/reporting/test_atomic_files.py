"""Files that are the old ones or the new ones."""

import errno
import os
import stat

import torch

from mtrl_imgrad.checkpoints.format import read_checkpoint, write_checkpoint


def test_a_checkpoint_on_a_file_system_that_syncs_no_folders(tmp_path, monkeypatch):
    """The manifest is in place when the folder's sync is refused: its members must stay."""
    sync = os.fsync

    def fsync(descriptor):
        if stat.S_ISDIR(os.fstat(descriptor).st_mode):
            raise OSError(errno.EINVAL, "Invalid argument")
        sync(descriptor)

    monkeypatch.setattr(os, "fsync", fsync)
    for number in (1, 2):
        write_checkpoint(tmp_path / "checkpoint", {"number": number, "values": torch.full((3,), float(number))})
        assert read_checkpoint(tmp_path / "checkpoint")["number"] == number
