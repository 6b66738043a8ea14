"""``python -m envcheck``. Read by any Python 3: it says which one is needed."""

import gc
import sys

OLDEST = (3, 10)


def start() -> int:
    """Run the command line; ^C while it is still being imported ends as it does later."""
    if sys.version_info < OLDEST:
        sys.stderr.write(
            f"error: envcheck needs Python 3.10 or newer, and this is {'.'.join(map(str, sys.version_info[:2]))} "
            f"({sys.executable})\n  -> run it with another python3; --python judges any interpreter from 3.8 on\n"
        )
        return 2
    try:
        from envcheck.cli import main

        # A run is short and keeps most of what it makes: looking for cycles would be a twentieth of its time.
        gc.disable()
        return main()
    except KeyboardInterrupt:
        sys.stderr.write("interrupted\n")
        return 130


if __name__ == "__main__":
    sys.exit(start())
