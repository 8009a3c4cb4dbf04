"""How long the processes of a cgroup waited for CPU, memory and disks.

Owns: cpu.pressure, memory.pressure, io.pressure.  They belong to the cgroup2 tree itself and not to
a controller: a hybrid host has them for jobs that v1 trees limit.
Source: Linux Documentation/accounting/psi.rst.
"""

from __future__ import annotations

from jobworker.kernel import kernfs
from jobworker.model.usage import Pressure, Pressures


def read_pressures(cgroup: str) -> Pressures:
    """What the kernel keeps of it, which may be nothing."""
    try:
        return {
            "cpu_pressure": _read(cgroup, "cpu.pressure"),
            "memory_pressure": _read(cgroup, "memory.pressure"),
            "io_pressure": _read(cgroup, "io.pressure"),
        }
    except OSError:
        # ENOENT: a kernel without PSI, one told not to keep it for this cgroup (cgroup.pressure),
        # or a cgroup that is gone; EOPNOTSUPP: switched off at boot.  For all three files alike.
        return {}


def _read(cgroup: str, name: str) -> Pressure:
    return parse_pressure(kernfs.read_small(f"{cgroup}/{name}"))


def parse_pressure(text: str) -> Pressure:
    """The totals of a pressure file (``"some avg10=0.00 avg60=0.00 avg300=0.00 total=12"``)."""
    totals = {line.split(" ", 1)[0]: int(line.rpartition("=")[2]) for line in text.splitlines()}
    return Pressure(some_us=totals["some"], full_us=totals.get("full"))
