"""Which service to reach, and the files that prove who is asking."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Final

from jobworker.errors import InvalidArgumentError

_PORT_MAX: Final = 65_535


@dataclass(frozen=True, slots=True, kw_only=True)
class Target:
    """A service and this client's credentials for it.  Raises InvalidArgumentError."""

    server: str
    """``HOST:PORT``; an IPv6 address stands in brackets.  HOST must be a name in the service's
    certificate."""
    ca: Path
    """Certificates of the CAs that may vouch for the service, PEM."""
    cert: Path
    """The client's certificate, PEM."""
    key: Path
    """The private key that belongs to it, PEM, not encrypted."""

    def __post_init__(self) -> None:
        _parse_address(self.server)

    @property
    def host(self) -> str:
        """Without the brackets of an IPv6 address."""
        return _parse_address(self.server)[0]

    @property
    def port(self) -> int:
        return _parse_address(self.server)[1]


def _parse_address(server: str) -> tuple[str, int]:
    host, colon, port = server.rpartition(":")
    if host.startswith("[") and host.endswith("]"):
        host = host[1:-1]
    elif ":" in host:
        raise InvalidArgumentError("server", server, "an IPv6 address takes brackets: [::1]:50051")
    if not colon or not host or not host.isprintable() or set(host) & set("/[] "):
        raise InvalidArgumentError("server", server, "it takes HOST:PORT")
    if not (port.isascii() and port.isdigit() and 0 < int(port) <= _PORT_MAX):
        raise InvalidArgumentError("server", server, f"a port takes 1 to {_PORT_MAX}")
    return host, int(port)
