"""Freed blocks are kept, and given out again without a page fault."""

from __future__ import annotations

import subprocess
import sys

#: Blocks of a large message, made and freed over and over; prints the page faults of all but the
#: first rounds.
_PROGRAM = """
import resource, sys
from jobworker.kernel.allocator import keep_freed_blocks
def rounds():
    for _ in range(200):
        first, second = bytearray(600 * 1024), bytes(600 * 1024)
        del first, second
    return resource.getrusage(resource.RUSAGE_SELF).ru_minflt
if sys.argv[1:] == ["keep"]:
    keep_freed_blocks()
print(-rounds() + rounds())
"""


def _faults(*arguments: str) -> int:
    command = [sys.executable, "-c", _PROGRAM, *arguments]
    return int(subprocess.run(command, check=True, capture_output=True).stdout)


def test_large_blocks_are_used_again_without_page_faults() -> None:
    assert _faults("keep") < 500
    # Else there is nothing to do on this host, and this test proves nothing.
    assert _faults() > 5000
