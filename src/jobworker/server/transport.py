"""The gRPC server as such: its bounds, its watch over dead peers, its port.

Source: github.com/grpc/grpc, include/grpc/impl/channel_arg_names.h; doc/keepalive.md.
"""

from __future__ import annotations

import socket
from collections.abc import Sequence
from typing import Final

import grpc
import grpc.aio

from jobworker.errors import FailedPreconditionError, errno_text
from jobworker.security.tls import SERVER_OPTIONS
from jobworker.server.config_reader import Address

#: Arguments and environment take 2 MiB each at most (``jobworker.model.spec``).
REQUEST_BYTES_MAX: Final = 4 * 1024 * 1024 + 64 * 1024
#: Of one connection: above it a client's calls wait in the client.
_CALLS_PER_CONNECTION_MAX: Final = 512
#: Unary calls at one time, besides the streams and the stops that wait, of all connections.
_UNARY_CALLS_MAX: Final = 1000
#: A peer that vanished without a word is noticed after the two together.
KEEPALIVE_TIME_MS: Final = 20_000
KEEPALIVE_TIMEOUT_MS: Final = 10_000
#: Clients may ping as often as this; gRPC's own default of five minutes would cut off those that
#: want to notice a dead service as quickly as it notices them.
_CLIENT_PING_EVERY_MS: Final = 5_000


def make_server(
    *,
    interceptors: Sequence[grpc.aio.ServerInterceptor],
    max_connections: int,
    max_streams: int,
) -> grpc.aio.Server:
    """Without port and services; not started."""
    options = (
        *SERVER_OPTIONS,
        ("grpc.max_receive_message_length", REQUEST_BYTES_MAX),
        ("grpc.max_concurrent_streams", _CALLS_PER_CONNECTION_MAX),
        ("grpc.max_allowed_incoming_connections", max_connections),
        ("grpc.keepalive_time_ms", KEEPALIVE_TIME_MS),
        ("grpc.keepalive_timeout_ms", KEEPALIVE_TIMEOUT_MS),
        # gRPC never starts the timer of the line above (github.com/grpc/grpc, pull request 39239):
        # what ends a connection is a ping without an answer, after 60 s by default.
        ("grpc.http2.ping_timeout_ms", KEEPALIVE_TIMEOUT_MS),
        ("grpc.keepalive_permit_without_calls", 1),
        ("grpc.http2.min_ping_interval_without_data_ms", _CLIENT_PING_EVERY_MS),
        # Otherwise a second service could listen on the same port and take half of the calls.
        ("grpc.so_reuseport", 0),
    )
    return grpc.aio.server(
        interceptors=interceptors,
        options=options,
        maximum_concurrent_rpcs=max_streams + _UNARY_CALLS_MAX,
    )


def listen(server: grpc.aio.Server, address: Address, credentials: grpc.ServerCredentials) -> int:
    """The port that it listens on from now on; raises FailedPreconditionError."""
    try:
        port = server.add_secure_port(str(address), credentials)
    except RuntimeError as error:
        raise FailedPreconditionError(f"listen on {address}", _why(address)) from error
    if port == 0:
        raise FailedPreconditionError(f"listen on {address}", _why(address))
    return port


def _why(address: Address) -> str:
    """gRPC does not tell, so the same is tried without it."""
    try:
        found = socket.getaddrinfo(
            address.host, address.port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE
        )
        family, kind, protocol, _, target = found[0]
        with socket.socket(family, kind, protocol) as attempt:
            attempt.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            attempt.bind(target)
            attempt.listen()
    except socket.gaierror as error:
        return error.strerror or str(error)
    except OSError as error:
        return errno_text(error.errno or 0)
    return "gRPC gives no reason"
