"""Files that are shipped inside the package, read alike from a directory and from ``envcheck.pyz``."""

from __future__ import annotations

import contextlib
import marshal
import os
import sys
from collections.abc import Callable
from typing import Any, Protocol, cast

import envcheck

ROOT = os.path.dirname(envcheck.__file__)  # hot path: pathlib is not needed for a join
FORMAT = 1
AS_MODULE = "python -m envcheck"


class _Loader(Protocol):
    def get_data(self, path: str) -> bytes: ...


def started() -> str:
    """How this program was started, to be typed again: ``python -m envcheck``, or ``python3 envcheck.pyz``."""
    archive = os.path.dirname(ROOT)
    if not os.path.isfile(archive):
        return AS_MODULE
    import shlex

    return f"python3 {shlex.quote(archive)}"


def as_started(text: str) -> str:
    """Write the commands of this program that stand in a text as it was started."""
    return text.replace(AS_MODULE, started())


def read(name: str) -> str:
    """Give the text of a shipped file, named as ``stacks/verl-lts-cu124.toml``; raise OSError where there is none."""
    return read_bytes(name).decode("utf-8")


def read_bytes(name: str) -> bytes:
    """Give the bytes of a shipped file; raise OSError where there is none."""
    spec = envcheck.__spec__
    assert spec is not None  # noqa: S101  # every imported package has one
    # The loader's own get_data needs none of the 25 ms that importing importlib.resources costs.
    return cast("_Loader", spec.loader).get_data(os.path.join(ROOT, *name.split("/")))


def parsed(name: str, parse: Callable[[str], dict[str, Any]]) -> dict[str, Any]:
    """Give a shipped document, parsed; kept beside Python's compiled modules, and valid as long as they would be.

    Parsing the tables that one run of the doctor needs would take as long as starting two bare interpreters.
    """
    path = os.path.join(ROOT, *name.split("/"))
    try:
        status = os.stat(path)
    except OSError:  # in an archive
        return parse(read(name))
    state = [FORMAT, status.st_mtime_ns, status.st_size]
    directory, file = os.path.split(path)
    kept = os.path.join(directory, "__pycache__", f"{file}.{sys.implementation.cache_tag}.data")
    found = _kept(kept, state)
    if found is None:
        found = parse(read(name))
        if not sys.dont_write_bytecode and sys.pycache_prefix is None:
            _keep(kept, [state, found])
    return found


def _kept(path: str, state: list[int]) -> dict[str, Any] | None:
    """Give what was kept of this very state of a file."""
    try:
        with open(path, "rb") as file:
            of, found = marshal.loads(file.read())  # noqa: S302  # trusted as the .pyc files beside it are
    except (OSError, ValueError, EOFError, TypeError):
        return None
    return found if of == state and isinstance(found, dict) else None


def _keep(path: str, content: list[object]) -> None:
    """Keep it; where nothing may be written, or it holds what cannot be kept, that only costs time."""
    work = f"{path}.{os.getpid()}"
    with contextlib.suppress(OSError, ValueError):
        data = marshal.dumps(content)
        os.makedirs(os.path.dirname(path), exist_ok=True)
        try:
            with open(work, "wb") as file:
                file.write(data)
            os.replace(work, path)
        except OSError:
            os.unlink(work)


def names(directory: str, suffix: str) -> list[str]:
    """Sorted names of the shipped files in ``directory`` that end in ``suffix``."""
    place = os.path.join(ROOT, *directory.split("/"))
    found = os.listdir(place) if os.path.isdir(place) else _names_in_archive(directory)
    return sorted(name for name in found if name.endswith(suffix))


def _names_in_archive(directory: str) -> list[str]:
    from importlib.resources import files  # only in the pyz: 25 ms

    place = files("envcheck").joinpath(directory)
    return [item.name for item in place.iterdir()] if place.is_dir() else []
