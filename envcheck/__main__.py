"""``python -m envcheck``."""

from __future__ import annotations

import sys


def start() -> int:
    """Run the command line; ^C while it is still being imported ends as it does later."""
    try:
        from envcheck.cli import main

        return main()
    except KeyboardInterrupt:
        sys.stderr.write("interrupted\n")
        return 130


if __name__ == "__main__":
    sys.exit(start())
