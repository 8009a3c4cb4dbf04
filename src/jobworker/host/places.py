"""Where the service of a whole host has its files, unless somebody says otherwise.

The unit in ``packaging/systemd`` counts on the same.  Source: file-hierarchy(7).
"""

from __future__ import annotations

from pathlib import Path
from typing import Final

CONFIG_FILE: Final = "jobworker.toml"
CONFIG_DEFAULT: Final = Path("/etc/jobworker") / CONFIG_FILE
STATE_DEFAULT: Final = Path("/var/lib/jobworker")
