"""``python -m envcheck``. Read by any Python 3: it says which one is needed."""

import contextlib
import gc
import os
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
        _with_streams()
        from envcheck.cli import main

        return main()
    except KeyboardInterrupt:
        sys.stderr.write("interrupted\n")
        return 130


def _with_streams() -> None:
    """Write nowhere where a stream was closed before the start (``>&-``), as a daemon's may be."""
    for name in ("stdout", "stderr"):
        if getattr(sys, name) is None:
            setattr(sys, name, open(os.devnull, "w"))  # noqa: SIM115  # open to the end


def leave(code: int) -> None:
    """End at once: taking apart all that was made would be a tenth of a run. What is traced ends as usual."""
    if sys.gettrace() is None:
        for stream in (sys.stdout, sys.stderr):
            with contextlib.suppress(OSError, ValueError, AttributeError):  # its reader is gone, or there was none
                stream.flush()
        os._exit(code)
    sys.exit(code)


if __name__ == "__main__":
    gc.disable()  # a run is short and keeps most of what it makes: looking for cycles would be a twentieth of its time
    leave(start())
