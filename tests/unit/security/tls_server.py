"""A server for the TLS tests, in a process of its own: the policy must come before gRPC.

Usage: tls_server.py CERTIFICATE KEY CA.  Prints its port, serves until its standard input ends.
"""

from __future__ import annotations

import sys
from concurrent import futures
from pathlib import Path

from jobworker.security.server_credentials import ServerFiles, server_credentials
from jobworker.security.tls import SERVER_OPTIONS, require_tls_policy


def main() -> None:
    certificate, key, ca = map(Path, sys.argv[1:])
    require_tls_policy()
    import grpc  # noqa: PLC0415 -- under the policy only

    files = ServerFiles(certificate=certificate, key=key, client_ca=ca)
    with futures.ThreadPoolExecutor(1) as pool:
        server = grpc.server(pool, options=SERVER_OPTIONS)
        port = server.add_secure_port("127.0.0.1:0", server_credentials(files))
        server.start()
        print(port, flush=True)
        sys.stdin.read()
        server.stop(None).wait()


if __name__ == "__main__":
    main()
