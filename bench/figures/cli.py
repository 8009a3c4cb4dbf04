"""``jobctl run -- true`` as a whole process, against a cold ssh and against importing gRPC."""

from __future__ import annotations

import sys

from bench.figures.start import timed
from bench.measure import Result, alternate, compare
from bench.peers.ssh import ssh_server
from bench.processes import ROOT, open_helper
from bench.service import USER, serving
from bench.stage import Stage


async def run(stage: Stage) -> list[Result]:
    times = stage.pick(10, 5)
    program = ROOT / "bench" / "helpers" / "spawner.py"
    with ssh_server(stage.directory / "ssh") as ssh:
        async with (
            serving(stage.directory / "service") as service,
            open_helper(sys.executable, "-I", "-S", program) as spawner,
        ):
            commands = {
                "jobctl": service.jobctl(USER, "run", "--", "true"),
                "ssh": ssh.cold("true"),
                "import": [sys.executable, "-c", "import grpc"],
            }
            taken = await alternate(
                stage.rounds,
                {name: timed(spawner, argv, times, 0.0) for name, argv in commands.items()},
            )
    return [
        compare(
            "cli",
            "jobctl run -- true, whole process",
            taken["jobctl"],
            taken[name],
            peer=peer,
            unit="ms",
            scale=1e3,
            target=target,
        )
        for name, peer, target in (
            ("ssh", "ssh localhost true, new connection, ECDSA", 1.0),
            ("import", "python3 -c 'import grpc'", 1.3),
        )
    ]
