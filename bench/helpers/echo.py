"""The bare gRPC service that ours is measured against: the same TLS, one method, no work.

Arguments: CA, certificate and key.  Says its port on standard output.
"""

from __future__ import annotations

import asyncio
import json
import sys
from pathlib import Path

import grpc
import grpc.aio


async def _echo(request: bytes, _context: object) -> bytes:
    return request


async def main(credentials: grpc.ServerCredentials) -> None:
    server = grpc.aio.server()
    handler: grpc.RpcMethodHandler[bytes, bytes] = grpc.unary_unary_rpc_method_handler(_echo)
    server.add_generic_rpc_handlers(
        (grpc.method_handlers_generic_handler("bench.Echo", {"Echo": handler}),)
    )
    port = server.add_secure_port("127.0.0.1:0", credentials)
    await server.start()
    print(json.dumps("ready"), flush=True)
    print(json.dumps(port), flush=True)
    await server.wait_for_termination()


if __name__ == "__main__":
    ca, certificate, key = (Path(path).read_bytes() for path in sys.argv[1:4])
    asyncio.run(
        main(grpc.ssl_server_credentials([(key, certificate)], ca, require_client_auth=True))
    )
