"""What a running, idle job costs besides itself: its shim, against the conmon of a container."""

from __future__ import annotations

from bench.measure import Result, alternate, compare
from bench.peers.containers import conmons, containers
from bench.processes import children, memory_kib, name_of
from bench.service import USER, Service, serving, stop_jobs
from bench.stage import Stage
from jobworker.model.spec import JobSpec


async def run(stage: Stage) -> list[Result]:
    count = stage.pick(100, 20)
    with containers(stage.directory / "oci") as peers:
        async with (
            serving(stage.directory / "service") as service,
            service.client(USER) as client,
            peers.spawner() as spawner,
        ):
            before = set(conmons())
            await spawner.ask(argv=peers.podman_run("/bin/sleep", "3600", detach=True), times=count)
            mine = sorted(set(conmons()) - before)

            async def conmon() -> list[float]:
                return [memory_kib(pid) for pid in mine]

            async def shims() -> list[float]:
                for _ in range(count):
                    await client.start(JobSpec(argv=("/bin/sleep", "3600")))
                found: list[float] = [memory_kib(pid) for pid in _with_jobs(service)]
                if len(found) != count or len(mine) != count:
                    raise SystemExit(f"bench: {len(found)} shims, {len(mine)} conmons of {count}")
                await stop_jobs(service)
                return found

            taken = await alternate(stage.rounds, {"shim": shims, "conmon": conmon})
    return [
        compare(
            "memory",
            f"PSS of a job's shim, {count} idle jobs",
            taken["shim"],
            taken["conmon"],
            peer=f"PSS of conmon, {count} podman containers",
            unit="KiB",
            target=1.0,
        )
    ]


def _with_jobs(service: Service) -> list[int]:
    return [pid for pid in service.shims() if "sleep" in map(name_of, children(pid))]
