"""Where the environments that ``nox -s env`` makes are, and which of them fits what is to be run."""

from __future__ import annotations

import os
import shutil
import sys
from pathlib import Path

from envcheck import choices
from envcheck import stack as stacks
from envcheck.errors import EnvcheckError
from envcheck.stack import Stack
from scripts.cache import cache


def place(stack: Stack, engine: str, trainer: str, python: str) -> Path:
    """Give the default folder of an environment; ``python`` is 3.12, or ``*`` for a pattern."""
    return cache(choices.environment(stack, engine, trainer, python))


def made(stack: Stack, engine: str, trainer: str) -> Path | None:
    """Interpreter of the environment made for this, with the stack's own Python where there are several; or None.

    ``trainer`` may be ``*``.
    """
    pattern = place(stack, engine, trainer, "*")
    found = sorted(path / "bin" / "python" for path in pattern.parent.glob(pattern.name))
    found = [path for path in found if path.exists()]
    found.sort(key=lambda path: not path.parent.parent.name.endswith(f"-py{stack.python.default}"))
    return next(iter(found), None)


def holding(module: str) -> Path | None:
    """Interpreter of an environment that was made, of whatever stack, and has a module; or None."""
    found = sorted(cache("envs").glob(f"*/lib/python*/site-packages/{module}"))
    return next((path.parents[3] / "bin" / "python" for path in found), None)


def interpreter(given: str | None, *, stack: str, engine: str, trainer: str) -> str:
    """Absolute path of the interpreter (or environment) that was named, else of the one made for this, else our own.

    Links are kept: a virtual environment needs them.
    """
    if given is None:
        return str(made(stacks.load(stack), engine, trainer) or sys.executable)
    folder = Path(given).expanduser()
    found = shutil.which(str(folder / "bin" / "python" if folder.is_dir() else folder))
    if found is None:
        raise EnvcheckError(f"there is no interpreter {given}", fix="name the training environment's bin/python")
    return os.path.abspath(found)
