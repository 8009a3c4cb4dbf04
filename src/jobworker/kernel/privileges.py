"""Giving up what a process may do, and a few more prctl(2) calls that Python lacks.

Source: prctl(2), capabilities(7), capset(2).
"""

from __future__ import annotations

import ctypes
import functools
import os
import signal
import struct
from typing import Final

#: <linux/prctl.h>
_PR_SET_PDEATHSIG: Final = 1
_PR_SET_NAME: Final = 15
_PR_CAPBSET_READ: Final = 23
_PR_CAPBSET_DROP: Final = 24
_PR_SET_CHILD_SUBREAPER: Final = 36
_PR_SET_NO_NEW_PRIVS: Final = 38
_PR_CAP_AMBIENT: Final = 47
_PR_CAP_AMBIENT_CLEAR_ALL: Final = 4
#: _LINUX_CAPABILITY_VERSION_3, <linux/capability.h>: 64 capabilities as two words of each set.
_CAPABILITY_VERSION: Final = 0x20080522
_CAPABILITIES_MAX: Final = 64

#: Of capset(2), for the calling thread; made once, since ctypes makes a class for each size.
_HEADER: Final = ctypes.create_string_buffer(struct.pack("=Ii", _CAPABILITY_VERSION, 0), 8)
_EMPTY_SETS: Final = ctypes.create_string_buffer(bytes(24), 24)

_libc = ctypes.PyDLL(None, use_errno=True)


def set_process_name(name: str) -> None:
    """What ``ps`` shows as the command; cut to 15 bytes by the kernel."""
    _prctl(_PR_SET_NAME, ctypes.c_char_p(name.encode()))


def become_subreaper() -> None:
    """Orphans among one's descendants become one's own children, not those of PID 1."""
    _prctl(_PR_SET_CHILD_SUBREAPER, 1)


def die_with_parent() -> None:
    """SIGKILL for this process once its parent ends.  The caller checks that it still lives."""
    _prctl(_PR_SET_PDEATHSIG, int(signal.SIGKILL))


def forbid_new_privileges() -> None:
    """No set-user-id program will raise what this process and its children may do."""
    _prctl(_PR_SET_NO_NEW_PRIVS, 1)


@functools.cache
def bounding_set() -> tuple[int, ...]:
    """The capabilities that a program could be given; a process remembers them, as do its
    children.
    """
    # Beyond the last one that this kernel knows the answer is -1.
    answers = (_libc.prctl(_PR_CAPBSET_READ, one, 0, 0, 0) for one in range(_CAPABILITIES_MAX))
    return tuple(one for one, answer in enumerate(answers) if answer == 1)


def drop_bounding_set() -> None:
    """No program will be given any capability.  Needs CAP_SETPCAP: call it before setuid."""
    for capability in bounding_set():
        _prctl(_PR_CAPBSET_DROP, capability)


def drop_capabilities() -> None:
    """Empty the effective, permitted, inheritable and ambient sets."""
    _prctl(_PR_CAP_AMBIENT, _PR_CAP_AMBIENT_CLEAR_ALL)
    if _libc.capset(_HEADER, _EMPTY_SETS) != 0:
        raise _last_error("capset")


def _prctl(option: int, argument: object) -> None:
    if _libc.prctl(option, argument, 0, 0, 0) != 0:
        raise _last_error("prctl")


def _last_error(call: str) -> OSError:
    number = ctypes.get_errno()
    return OSError(number, os.strerror(number), call)
