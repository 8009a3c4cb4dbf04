"""Control files answer with errors that say what is the matter."""

from __future__ import annotations

import errno
from pathlib import Path

import pytest

from jobworker.cgroup import directories
from jobworker.kernel import kernfs
from kernel.cgroup.bench import Bench

pytestmark = pytest.mark.kernel


def test_a_removed_cgroup_is_told_from_a_missing_file(bench: Bench) -> None:
    cgroup = bench.job.plan.members
    with pytest.raises(kernfs.ControlFileMissingError) as missing:
        kernfs.read(cgroup, "no.such.file")
    bench.job.remove()
    with pytest.raises(kernfs.CgroupGoneError) as gone:
        kernfs.read(cgroup, "cgroup.procs")
    assert missing.value.errno == gone.value.errno == errno.ENOENT
    assert kernfs.read_if_there(cgroup, "cgroup.procs") is None


def test_a_refused_value_is_in_the_text_with_the_file_and_the_reason(bench: Bench) -> None:
    cgroup = bench.job.plan.members
    with pytest.raises(kernfs.ControlFileError) as refused:
        kernfs.write(cgroup, "cgroup.procs", "nobody")
    assert str(refused.value) == (
        f"cannot write 'nobody' to {cgroup}/cgroup.procs: Invalid argument (EINVAL)"
    )
    assert refused.value.filename == f"{cgroup}/cgroup.procs"


def test_writing_never_makes_a_file(tmp_path: Path) -> None:
    with pytest.raises(kernfs.CgroupGoneError):
        kernfs.write(str(tmp_path), "cgroup.kill", "1")
    assert list(tmp_path.iterdir()) == []


def test_no_cgroup_is_made_where_another_file_system_lies_over_the_tree(tmp_path: Path) -> None:
    with pytest.raises(kernfs.CgroupGoneError):
        directories.make_all(str(tmp_path / "parent" / "jobs"))
    assert list(tmp_path.iterdir()) == []


def test_a_file_longer_than_one_read_comes_whole(tmp_path: Path) -> None:
    text = "0123456789" * 20_000
    (tmp_path / "long").write_text(text)
    assert kernfs.read_file(str(tmp_path / "long")) == text
