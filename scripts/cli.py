"""How every script ends: an error is one message on stderr and a documented exit code, never a traceback."""

from __future__ import annotations

import os
import signal
import sys
from collections.abc import Callable, Sequence

from envcheck import errors


def run(main: Callable[[Sequence[str] | None], int], argv: Sequence[str] | None = None) -> int:
    """Run a command; give its exit code. SIGTERM ends it like ^C, a closed pipe ends it quietly."""
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    try:
        code = main(argv)
        sys.stdout.flush()
    except errors.EnvcheckError as error:
        print(f"error: {error}", file=sys.stderr)
        return error.exit_code
    except KeyboardInterrupt:
        print("interrupted", file=sys.stderr)
        return errors.INTERRUPTED
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return errors.OK
    except OSError as error:
        place = f"{error.filename}: " if error.filename else ""
        print(f"error: {place}{error.strerror or error}", file=sys.stderr)
        return errors.USAGE
    return code
