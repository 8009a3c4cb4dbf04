"""A file that is put onto the disk, and is put there truly also after that has failed.

The kernel tells a failed write once, and takes the pages for written from then on: asked again, it
says that all is well.  Nor does it help to write the same bytes to the same place: ext4 on Linux
6.18 then writes the blocks and goes on taking them for empty.  So the file is copied, and the copy
takes its name; who has the old one open reads on in it.

Source: fsync(2), "Notes"; Linux Documentation/filesystems/vfs.rst, "Handling errors during
writeback".
"""

from __future__ import annotations

import contextlib
import os
from typing import Final

#: So much at a time: on a disk that still takes nothing an attempt costs no more than this.
_BLOCK_BYTES: Final = 1024 * 1024


class DurableFile:
    """Puts one file that is complete onto the disk."""

    def __init__(self, directory: int, name: str, file: int) -> None:
        """file: ``name`` in ``directory``, open for reading; both borrowed."""
        self._directory = directory
        self._name = name
        self._file = file
        self._is_doubtful = False
        """What the disk has of it may be less than the kernel thinks."""

    def sync(self) -> None:
        """Return once all of it is on the disk; its directory may not be.

        Raises OSError: call it again later.
        """
        if self._is_doubtful:
            self._replace()
            self._is_doubtful = False
            return
        try:
            os.fsync(self._file)
        except OSError:
            self._is_doubtful = True
            raise

    def _replace(self) -> None:
        flags = os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC
        copy = os.open(_copy(self._name), flags, 0o600, dir_fd=self._directory)
        try:
            offset = 0
            while block := os.pread(self._file, _BLOCK_BYTES, offset):
                offset += os.pwrite(copy, block, offset)
                os.fdatasync(copy)
            os.fsync(copy)
        finally:
            os.close(copy)
        directory = self._directory
        os.rename(_copy(self._name), self._name, src_dir_fd=directory, dst_dir_fd=directory)


def forget_copy(directory: int, name: str) -> None:
    """Remove what a process that was killed had copied of a file; no-op if that is nothing."""
    with contextlib.suppress(OSError):  # only space would be lost by it
        os.unlink(_copy(name), dir_fd=directory)


def _copy(name: str) -> str:
    return f"{name}.new"
