"""A gigabyte of finished output to one client, against ssh and against socat with TLS 1.3."""

from __future__ import annotations

import sys

from bench.figures.start import timed
from bench.measure import Result, Samples, alternate, compare
from bench.peers.ssh import ssh_server
from bench.peers.tls import tls_file
from bench.processes import ROOT, open_helper
from bench.service import ADMIN, serving, write_output
from bench.stage import Stage

_MIB = 1 << 20


async def run(stage: Stage) -> list[Result]:
    size = stage.pick(1024, 256) * _MIB
    program = ROOT / "bench" / "helpers" / "spawner.py"
    with ssh_server(stage.directory / "ssh") as ssh:
        async with (
            serving(stage.directory / "service") as service,
            open_helper(sys.executable, "-I", "-S", program) as spawner,
            service.clients() as reader,
        ):
            async with service.client() as client:
                job = await write_output(client, size)
            output = service.state / "jobs" / job / "output"
            with tls_file(service, output) as socat:
                commands = {
                    "jobctl": service.jobctl(ADMIN, "logs", "--stdout", job),
                    "ssh": ssh.warm("cat", str(output)),
                    "socat": socat,
                }

                async def sdk() -> list[float]:
                    return [(await reader.ask(do="read", job=job))["seconds"]]

                taken = await alternate(
                    stage.rounds,
                    {"sdk": sdk}
                    | {name: timed(spawner, argv, 1, 0.0) for name, argv in commands.items()},
                )
    speeds: dict[str, Samples] = {
        name: [[size / seconds for seconds in turn] for turn in turns]
        for name, turns in taken.items()
    }
    return [
        compare(
            "stream",
            f"{size // _MIB} MiB of finished output, {what}",
            speeds[name],
            speeds[peer],
            peer=named,
            unit="MB/s",
            scale=1e-6,
            target=target,
            at_most=False,
        )
        for name, what in (("sdk", "SDK"), ("jobctl", "jobctl logs > /dev/null"))
        for peer, named, target in (
            ("ssh", "ssh cat, aes128-gcm, standing connection", 1.5),
            ("socat", "socat, mutual TLS 1.3", 0.9),
        )
    ]
