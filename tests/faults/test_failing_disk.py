"""A disk fails to write and recovers: what is told to be on it is there."""

from __future__ import annotations

import contextlib
import os
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Final

import pytest

from jobworker.model import Stream
from jobworker.output.log import OUTPUT_FILE, LogWriter, make_log
from jobworker.output.reader import LogReader
from support.faults import fill, small_disk
from support.guards import need

_BELOW_BYTES: Final = 24 << 20
_DISK_BYTES: Final = 16 << 20
_OUTPUT_BYTES: Final = 4 << 20


class FlakyDisk:
    """A disk that is thinner than it says: what is below it fills up, and then it fails."""

    def __init__(self, below: Path, mounted: Path) -> None:
        self._below = below
        self.mounted = mounted

    def mount(self) -> None:
        subprocess.run(["mount", "-o", "loop", self._image, self.mounted], check=True)

    def unmount(self) -> None:
        subprocess.run(["umount", self.mounted], check=True)

    def make(self) -> None:
        with self._image.open("wb") as file:
            file.truncate(_DISK_BYTES)
        # Without a journal: one that cannot be written would make the file system read-only.
        subprocess.run(["mkfs.ext4", "-q", "-O", "^has_journal", self._image], check=True)
        self.mounted.mkdir()

    @contextlib.contextmanager
    def failing(self) -> Iterator[None]:
        """Nothing can be written where nothing was written before."""
        subprocess.run(["sync", "-f", self.mounted], check=True)
        ballast = fill(self._below)
        try:
            yield
        finally:
            ballast.unlink()

    @property
    def _image(self) -> Path:
        return self._below / "image"


@pytest.fixture
def disk(tmp_path: Path) -> Iterator[FlakyDisk]:
    need(os.geteuid() == 0, "root")
    loops = subprocess.run(["losetup", "-f"], capture_output=True, check=False)
    need(loops.returncode == 0, "loop devices")
    with small_disk(tmp_path / "below", _BELOW_BYTES, kind="tmpfs") as below:
        disk = FlakyDisk(below, tmp_path / "disk")
        disk.make()
        disk.mount()
        try:
            yield disk
        finally:
            disk.unmount()


@contextlib.contextmanager
def _directory(path: Path) -> Iterator[int]:
    fd = os.open(path, os.O_RDONLY)
    try:
        yield fd
    finally:
        os.close(fd)


def _take(writer: LogWriter, data: bytes) -> None:
    read_end, write_end = os.pipe()
    try:
        for start in range(0, len(data), 1 << 16):
            piece = data[start : start + (1 << 16)]
            os.write(write_end, piece)
            assert writer.take(read_end, Stream.STDOUT, len(piece), start) == len(piece)
    finally:
        os.close(read_end)
        os.close(write_end)


def test_a_log_that_could_not_be_written_is_on_the_disk_once_it_says_so(disk: FlakyDisk) -> None:
    data = os.urandom(_OUTPUT_BYTES)
    with _directory(disk.mounted) as directory:
        output, index = make_log(directory)
        try:
            writer = LogWriter(directory, output, index)
            writer.make_room(len(data))
            with disk.failing():
                _take(writer, data)
                for _ in range(3):
                    with pytest.raises(OSError, match=r"No space|Input/output"):
                        writer.flush()
            writer.flush()
        finally:
            os.close(output)
            os.close(index)
    # What was only in memory is gone with this.
    disk.unmount()
    disk.mount()
    assert (disk.mounted / OUTPUT_FILE).read_bytes() == data
    with _directory(disk.mounted) as directory, LogReader(directory) as log:
        assert log.indexed_bytes() == len(data)
    assert {path.name for path in disk.mounted.iterdir()} - {"lost+found"} == {"output", "index"}
