"""The text of a new ``jobworker.toml``: every key with its default, and what it means.

Owns: the words.  The keys and their defaults are those of ``jobworker.server.config``; a test holds
the two together.
"""

from __future__ import annotations

from pathlib import Path
from string import Template
from typing import Final

_TEXT: Final = Template("""\
# Configuration of the jobworker service.
#
# Sizes:      a number with K, M, G or T, which go by 1024: "256M", "1.5G".
# Durations:  numbers with d, h, m, s or ms: "90s", "1h30m".
# "none"      takes away a limit or another value that may be absent.
# Relative paths start at the directory of this file.
# A key that is left out has the value that is shown here, or the default that is told.

[server]
# Address and port to listen on; "[::]:50051" is every address of the machine.
# Default: "127.0.0.1:50051".
listen = "$listen"
# Address and port at which Prometheus may read figures over HTTP, such as
# "127.0.0.1:9465".  It has no TLS: leave it on loopback, or put something in
# front of it that has.
metrics = "none"
# Where jobs, their output and the journal are kept.  Nobody else may read it.
# Default: "state".
state_dir = $state_dir
# What becomes of running jobs when the service is told to end: "leave" or "stop".
shutdown = "leave"
# Connections at one time.
max_connections = 1000
# Output and watch streams and stops that wait for the job's end at one time, of everybody
# together and of each user.
max_streams = 1000
max_streams_per_user = 200
# A stream that has nothing to say for so long gives a sign of life; 100ms to 5s, since
# clients give a stream up that is silent for 15s.
heartbeat = "5s"

[tls]
# PEM files.  They are taken up anew when they change, without a restart.
# The CA whose client certificates are trusted, and what it has revoked.
ca = "pki/ca.pem"
crl = "pki/ca.crl"
# The service's own certificate and key; the key must be an elliptic curve's.
cert = "pki/server.pem"
key = "pki/server.key"

# What a job of a standard user may use.  A job may ask for less time and output than
# this, but not for more; only admins can ask for other limits.
[policy.user]
# CPUs, fractions allowed.
cpu = 0.5
# Memory of all processes of the job together, swap included.
memory = "256M"
# Processes and threads at one time.
tasks = 128
# Bytes per second, and operations per second, on each disk.
io_read = "20M"
io_write = "20M"
io_read_iops = "none"
io_write_iops = "none"
# Wall-clock time after which the job is stopped.
timeout = "none"
# Output that is kept of one job, and what happens beyond: "stop" kills the job,
# "discard" throws away what is too much.
max_output = "1G"
on_output_limit = "stop"
# What a job sees of this host: "none" hides nothing that its user may see; "private"
# shows it its own processes only, every file read-only but its scratch directory,
# and a /tmp of its own; "offline" takes the network away besides.  A job may ask
# for more isolation than this, and for less only where may_loosen_isolation says so.
isolation = "none"
may_loosen_isolation = false
# Jobs of one user at one time.
max_running_jobs = 50
# Kept output of all jobs of one user; beyond it no new job of theirs is started.
max_kept = "10G"

# What a job of an admin may use where the admin says nothing else; for time and
# output it is also the most that the admin can ask for.
[policy.admin]
cpu = "none"
memory = "none"
tasks = "none"
io_read = "none"
io_write = "none"
io_read_iops = "none"
io_write_iops = "none"
timeout = "none"
max_output = "10G"
on_output_limit = "stop"
isolation = "none"
may_loosen_isolation = true
max_running_jobs = "none"
max_kept = "none"

[worker]
# A limit that this host cannot keep: "strict" refuses the job, "warn" lets it run
# and says so in its status.
require_limits = "strict"
# The cgroup below which jobs get theirs; "none" is below the service's own.
cgroup_parent = "none"
# Each user's jobs run under a uid, and a gid of the same number, of their own:
# uid_count from uid_first on, up to 4294967294 at most, which must belong to nobody
# else.  "none" runs them as the account of the service.
uid_first = 1900000000
uid_count = 65536
# Where jobs get their scratch directories; "none" is below state_dir.  The users
# of the jobs must be able to pass through the directories above it.
scratch_dir = "none"
# From SIGTERM to SIGKILL when a job is stopped, unless the caller says otherwise.
default_grace = "10s"
# No job starts while the file system of state_dir has less room than this.
min_free = "16M"

# Users whose jobs run as a local account instead: name = "account".
[worker.accounts]

# Ended jobs are kept until one of these is exceeded; then the oldest go.
[worker.retention]
max_jobs = 10000
max_age = "30d"
max_bytes = "50G"

[audit]
# One line for every decision; "none" puts them among the service's other messages.
file = "audit.log"
""")


def config_text(*, listen: str, state_dir: Path) -> str:
    """A whole file; the rest is always the same."""
    return _TEXT.substitute(listen=listen, state_dir=toml_text(str(state_dir)))


def toml_text(text: str) -> str:
    """As a basic string: toml.io, "String"."""
    escaped = text.replace("\\", "\\\\").replace('"', '\\"')
    return f'"{escaped}"'
