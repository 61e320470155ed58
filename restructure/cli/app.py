"""The entry point. What it imports at first is small, so that a password leaves the process list
soon.
"""

from __future__ import annotations

import sys

from restructure.cli.secrecy import hide_dsn


def main() -> None:
    """Run the command line of this process and leave with its exit code."""
    hide_dsn()
    try:
        from restructure.cli.commandline import run  # noqa: PLC0415  # slow to import, see above
    except KeyboardInterrupt:
        sys.exit(130)
    sys.exit(run(sys.argv[1:]))
