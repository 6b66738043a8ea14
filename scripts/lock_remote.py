"""The files behind the hashes of a lock: their names, addresses and sizes, as the index tells them."""

from __future__ import annotations

import functools
import threading
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor

from envcheck.errors import WorkError
from scripts import index_files
from scripts.index_files import IndexFile
from scripts.lock_text import Pin

WORKERS = 12
ATTEMPTS = 3
Lister = Callable[[str], Sequence[IndexFile]]


def index() -> Lister:
    """Give the lister of the index in use, which is looked up once."""
    return functools.partial(index_files.files, index=index_files.simple_url())


def files_of(pins: Iterable[Pin], listed: Lister) -> dict[Pin, list[IndexFile]]:
    """Give the locked files of each pin, by name; raise WorkError naming every pin of which none is left."""
    wanted = list(pins)
    names = sorted({pin.name for pin in wanted})
    given_up = threading.Event()
    with ThreadPoolExecutor(WORKERS) as pool:
        tables = dict(zip(names, pool.map(lambda name: _listed(name, listed, given_up), names), strict=True))
    found = {pin: sorted((item for item in tables[pin.name] if item.sha256 in pin.hashes), key=_name) for pin in wanted}
    gone = [f"{pin.name}=={pin.version}" for pin, items in found.items() if not items]
    if gone:
        fix = "take them from a kit (nox -s kit -- --help), or name other versions in the stack file"
        raise WorkError(f"gone from the package index: {', '.join(gone)}", fix=fix)
    return found


def _name(item: IndexFile) -> str:
    return item.name


def _listed(name: str, listed: Lister, given_up: threading.Event) -> Sequence[IndexFile]:
    """Ask again where there is no answer; once one package was given up, an index that is slow is not waited for."""
    if given_up.is_set():
        raise WorkError(f"the package index was not asked for {name}")
    for attempt in range(1, ATTEMPTS + 1):
        try:
            return listed(name)
        except WorkError:
            if attempt == ATTEMPTS:
                given_up.set()
                raise
    raise AssertionError  # pragma: no cover  # the loop returns or raises
