"""Every error that a person may meet, with its exit code."""

from __future__ import annotations

OK = 0
FINDINGS = 1
USAGE = 2
UNJUDGED = 3
FAULT = 70
"""This program itself failed: no verdict on anything (EX_SOFTWARE of sysexits.h)."""
INTERRUPTED = 130


class EnvcheckError(Exception):
    """What was tried, what was seen and what to do, in one message; ``exit_code`` is what the process returns."""

    exit_code = USAGE

    def __init__(self, what: str, *, fix: str = "") -> None:
        """Join the fault and the way out."""
        super().__init__(f"{what}\n  → {fix}" if fix else what)
        self.what = what
        self.fix = fix


class DataError(EnvcheckError):
    """A stack, limits, facts, lock or signatures file does not hold what its schema asks for."""

    def __init__(self, source: str, key: str, *, expected: str, found: str, fix: str = "") -> None:
        """Name the file, the key in it, what was expected there and what stands there."""
        place = f"{source}: {key}" if key else source
        super().__init__(f"{place}: expected {expected}, found {found}", fix=fix)
        self.source = source
        self.key = key


class HostError(EnvcheckError):
    """The host that was named cannot be reached: no interpreter, no engine, no such image."""


class WorkError(EnvcheckError):
    """A script (build, lock, image, run …) was asked for something right and could not do it."""

    exit_code = FINDINGS
