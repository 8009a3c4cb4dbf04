"""Telling systemd how far the service is.

Source: sd_notify(3), "Standalone Implementations".
"""

from __future__ import annotations

import logging
import os
import socket

logger = logging.getLogger(__name__)


def notify(state: str) -> None:
    """Send ``"READY=1"`` or the like to who started us; nothing where nobody asked for it."""
    address = os.environ.get("NOTIFY_SOCKET", "")
    if not address.startswith(("/", "@")):
        return
    # An address in the abstract namespace begins with a NUL, which no variable can hold.
    name = "\0" + address[1:] if address.startswith("@") else address
    try:
        with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_CLOEXEC) as sender:
            sender.settimeout(0)  # does not wait
            sender.sendto(state.encode(), name)
    except OSError as error:
        # Serving does not depend on it; systemd will say what it missed.
        logger.warning("systemd not notified", extra={"why": str(error), "state": state})
