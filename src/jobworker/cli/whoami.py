"""The verb whoami."""

from __future__ import annotations

import argparse
import sys

from jobworker.cli import console, exits
from jobworker.cli.render import Style, fields, one_line, rfc3339
from jobworker.cli.session import is_json, open_client, show_json


async def whoami(options: argparse.Namespace) -> int:
    """Who the service takes the caller for, and until when."""
    async with open_client(options) as client:
        caller = await client.who_am_i()
    not_after = rfc3339(caller.certificate_not_after) or ""
    if is_json(options):
        show_json(
            {
                "user": caller.user,
                "role": caller.role,
                "certificate_serial": caller.certificate_serial,
                "certificate_not_after": not_after,
                "server_version": caller.server_version,
            }
        )
        return exits.OK
    pairs = (
        ("User", one_line(caller.user)),
        ("Role", one_line(caller.role)),
        ("Certificate", f"{one_line(caller.certificate_serial)}, valid until {not_after}"),
        ("Service", f"jobworker {one_line(caller.server_version)}"),
    )
    console.show(fields(pairs, style=Style.of(sys.stdout)))
    return exits.OK
