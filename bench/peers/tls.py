"""socat: a file over mutual TLS 1.3, with the same certificates as ours."""

from __future__ import annotations

import contextlib
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Final

from bench.peers.ssh import free_port, wait_port
from bench.processes import background
from bench.service import ADMIN, Service

#: As large as a TLS record can be used; its default of 8 KiB makes it slower.
_BLOCK: Final = 64 * 1024


@contextlib.contextmanager
def tls_file(service: Service, file: Path) -> Iterator[list[str]]:
    """Serves a file to every connection; the command line that reads it to /dev/null."""
    port = free_port()
    ours = f"verify=1,cafile={service.pki('ca.pem')},openssl-min-proto-version=TLS1.3"
    listen = (
        f"OPENSSL-LISTEN:{port},bind=127.0.0.1,fork,reuseaddr,{ours}"
        f",cert={service.pki('server.pem')},key={service.pki('server.key')}"
    )
    reach = (
        f"OPENSSL:localhost:{port},{ours},pf=ip4"
        f",cert={service.pki(f'{ADMIN}.pem')},key={service.pki(f'{ADMIN}.key')}"
    )
    serve = ["socat", f"-b{_BLOCK}", "-U", listen, f"OPEN:{file},rdonly"]
    with background(serve, stderr=subprocess.DEVNULL):
        wait_port(port)
        yield ["socat", f"-b{_BLOCK}", "-u", reach, "OPEN:/dev/null,wronly"]
