"""Jobs that are isolated: what they see, how they end, and who may choose."""

from __future__ import annotations

import dataclasses

import pytest

from jobworker.errors import PermissionDeniedError, StartFailedError
from jobworker.model import EndReason, Isolation, JobPolicy
from support.worker import ALICE, WorkerPlace, output_of, python, read_until, run, sh

pytestmark = [pytest.mark.kernel, pytest.mark.anyio]

ISOLATED = (Isolation.PRIVATE, Isolation.OFFLINE)


@pytest.mark.parametrize("isolation", ISOLATED)
async def test_it_sees_its_own_processes_only(place: WorkerPlace, isolation: Isolation) -> None:
    script = "echo /proc/[0-9]*; echo $$; hostname; readlink /proc/1/ns/pid || echo closed"
    async with place.open() as worker:
        job, output = await run(worker, sh(script, isolation=isolation))
        processes, own, host, init = output.stdout.decode().splitlines()
        assert processes.split() == ["/proc/1", f"/proc/{own}"]
        assert host == f"job-{job.id}"
        assert init == "closed", "the init is not the job's user"
        assert job.isolation is isolation


async def test_it_can_write_to_its_scratch_and_to_a_tmp_of_its_own_alone(
    place: WorkerPlace,
) -> None:
    script = """
    pwd; echo mine > file && cat file
    for d in /tmp /var/tmp /dev/shm; do ls -A $d | grep -v jobworker-test; echo x > $d/left; done
    for d in / /etc /usr /dev /sys /sys/fs/cgroup /proc/sys/kernel; do
        (: > $d/written) 2>/dev/null && echo "wrote to $d"
    done
    echo gone > /dev/null && echo devices work
    """
    async with place.open() as worker:
        spec = sh(script, isolation=Isolation.PRIVATE)
        # Twice: what the first one leaves in /tmp the second one does not find.
        for _ in range(2):
            job, output = await run(worker, spec)
            scratch = place.state_dir / "scratch" / job.id
            assert output.stdout.decode() == f"{scratch}\nmine\ndevices work\n"
            assert not scratch.exists()


async def test_offline_has_a_loopback_and_nothing_else(place: WorkerPlace) -> None:
    program = """
import socket
print([name for _, name in socket.if_nameindex() if name.startswith(("lo", "eth", "en"))])
with socket.create_server(("127.0.0.1", 0)) as server:
    with socket.create_connection(server.getsockname()):
        print("loopback works")
"""
    async with place.open() as worker:
        told = await output_of(worker, python(program, isolation=Isolation.OFFLINE))
        assert told == "['lo']\nloopback works\n"


async def test_how_the_command_ended_is_told_as_without_an_init(place: WorkerPlace) -> None:
    async with place.open() as worker:
        for script, code, number in (
            ("exit 0", 0, None),
            ("exit 137", 137, None),
            ("kill -9 $$", None, 9),
            ("kill -15 $$", None, 15),
        ):
            job, _ = await run(worker, sh(script, isolation=Isolation.PRIVATE))
            assert job.ending is not None
            assert (job.ending.exit_code, job.ending.signal) == (code, number)
            reason = EndReason.EXITED if number is None else EndReason.SIGNALED
            assert job.ending.reason is reason


async def test_the_init_waits_for_orphans_and_takes_them_along(place: WorkerPlace) -> None:
    # A process whose parent has died is the init's; dead, it is not left as a zombie.
    script = """
    (sleep 0.05 & echo $! > orphan); read pid < orphan
    while [ -e /proc/$pid ]; do sleep 0.01; done
    echo reaped
    setsid sleep 1000 >/dev/null 2>&1 &
    """
    async with place.open() as worker:
        job, output = await run(worker, sh(script, isolation=Isolation.PRIVATE))
        assert output.stdout == b"reaped\n"
        assert job.ending is not None
        assert job.ending.exit_code == 0


async def test_a_stop_reaches_the_command_and_grace_is_kept(place: WorkerPlace) -> None:
    script = "trap 'echo got it; exit 3' TERM; echo ready; while :; do sleep 0.01; done"
    async with place.open() as worker:
        job = await worker.start(sh(script, isolation=Isolation.PRIVATE), owner=ALICE)
        await read_until(worker, job.id, lambda data: b"ready" in data)
        job = await worker.stop(job.id, stopped_by=ALICE, grace_s=30)
        assert job.ending is not None
        assert (job.ending.reason, job.ending.exit_code) == (EndReason.STOPPED, 3)


async def test_what_can_not_be_executed_says_why_there_too(place: WorkerPlace) -> None:
    async with place.open() as worker:
        for spec, text in (
            (sh("", isolation=Isolation.PRIVATE, cwd="/missing"), "'/missing': No such file"),
            (dataclasses.replace(sh("", isolation=Isolation.OFFLINE), argv=("nope",)), "in PATH"),
        ):
            with pytest.raises(StartFailedError, match=text):
                await worker.start(spec, owner=ALICE)


async def test_the_policy_names_the_least_isolation(place: WorkerPlace) -> None:
    policy = JobPolicy(isolation=Isolation.PRIVATE)
    async with place.open() as worker:
        job, _ = await run(worker, sh(""), policy=policy)
        assert job.isolation is Isolation.PRIVATE
        job, _ = await run(worker, sh("", isolation=Isolation.OFFLINE), policy=policy)
        assert job.isolation is Isolation.OFFLINE
        looser = sh("", isolation=Isolation.NONE)
        with pytest.raises(PermissionDeniedError, match="cannot start a job with less isolation"):
            await worker.start(looser, owner=ALICE, policy=policy)
        may = dataclasses.replace(policy, may_loosen_isolation=True)
        job, _ = await run(worker, looser, policy=may)
        assert job.isolation is Isolation.NONE
