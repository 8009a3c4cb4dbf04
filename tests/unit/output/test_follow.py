"""What a reader makes of the answers that a file gives."""

from __future__ import annotations

from pathlib import Path

from jobworker.output.follow import _read_cached


def test_a_read_that_does_not_wait_never_says_that_a_file_ends(tmp_path: Path) -> None:
    """Linux 5.9 and 5.10 say so in the middle of one: preadv2(2), BUGS."""
    file = tmp_path / "output"
    file.write_bytes(b"abc")
    with file.open("rb") as output:
        assert _read_cached(output.fileno(), memoryview(bytearray(8)), 1) == b"bc"
        assert _read_cached(output.fileno(), memoryview(bytearray(8)), 3) is None
