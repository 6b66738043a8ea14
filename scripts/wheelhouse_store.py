"""The wheelhouse: wheels under their wheel key, each with its receipt, and a static index that pip and uv read."""

from __future__ import annotations

import contextlib
import errno
import html
import json
import os
import shutil
import sys
import tempfile
import urllib.parse
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from packaging.utils import canonicalize_name

from envcheck.errors import WorkError
from scripts.build_wheel import metadata
from scripts.cache import cache, locked
from scripts.files import sha256, write

RECEIPT = "receipt.json"
LEAST_BYTES = 1 << 20
"""Room that there has to be before a build starts; its wheel may need more."""


@dataclass(frozen=True, kw_only=True)
class Entry:
    """One wheel of the wheelhouse with its receipt."""

    key: str
    wheel: Path
    receipt: dict[str, Any]

    @property
    def sha256(self) -> str:
        """The hash that the receipt gives."""
        return str(self.receipt["wheel"]["sha256"])

    @property
    def size(self) -> int:
        """The size that the receipt gives."""
        return int(self.receipt["wheel"]["size"])


def default() -> Path:
    """Path of the wheelhouse: $ENVCHECK_WHEELHOUSE, else below the cache."""
    named = os.environ.get("ENVCHECK_WHEELHOUSE")
    return Path(named) if named else cache("wheelhouse")


def get(root: Path, key: str) -> Entry | None:
    """Give the wheel of a key where it is there and whole; a damaged one is said to be so and taken as absent."""
    directory = root / "wheels" / key
    if not (directory / RECEIPT).exists():
        return None
    entry = read(directory)
    fault = damage(entry)
    if fault:
        print(f"{entry.wheel}: {fault}; it is built anew", flush=True)
        return None
    return entry


def read(directory: Path) -> Entry:
    """Read the receipt of one directory."""
    try:
        receipt = json.loads((directory / RECEIPT).read_text(encoding="utf-8"))
        return Entry(key=directory.name, wheel=directory / receipt["wheel"]["file"], receipt=receipt)
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise WorkError(f"{directory / RECEIPT} is not a receipt: {error!r}", fix=f"remove {directory}") from error


def entries(root: Path, faults: list[str] | None = None) -> Iterator[Entry]:
    """List all wheels, by name of file; what has no readable receipt is left out and said, or added to ``faults``."""
    found = []
    for path in sorted(root.glob(f"wheels/*/{RECEIPT}")):
        try:
            found.append(read(path.parent))
        except WorkError as error:
            if faults is None:
                print(f"left out: {error}", file=sys.stderr)
            else:
                faults.append(error.what)
    yield from sorted(found, key=lambda item: (item.wheel.name, item.key))


def damage(entry: Entry) -> str:
    """Say what is wrong with a wheel's file; empty where it is as its receipt says."""
    if not entry.wheel.exists():
        return "the wheel is gone"
    size = entry.wheel.stat().st_size
    if size != entry.size:
        return f"{size} bytes, the receipt says {entry.size}: it is truncated or changed"
    found = sha256(entry.wheel)
    if found != entry.sha256:
        return f"sha256 {found}, the receipt says {entry.sha256}: it was changed"
    return ""


def put(root: Path, key: str, wheel: Path, receipt: Mapping[str, Any]) -> Entry:
    """Add a wheel: its file first, its receipt last, so that what has a receipt is whole; then the index."""
    directory = root / "wheels" / key
    document = {**receipt, "key": key, "wheel": _described(wheel)}
    try:
        with locked(root / ".lock", what=f"the wheelhouse {root}"):
            directory.mkdir(parents=True, exist_ok=True)
            (directory / RECEIPT).unlink(missing_ok=True)
            part = directory / f".{wheel.name}.part"
            shutil.copyfile(wheel, part)
            os.replace(part, directory / wheel.name)
            write(directory / RECEIPT, json.dumps(document, indent=2, sort_keys=True) + "\n")
            write_index(root)
    except OSError as error:
        with contextlib.suppress(OSError):
            (directory / f".{wheel.name}.part").unlink()
        raise _unwritable(root, wheel, error) from error
    return read(directory)


def check_writable(root: Path) -> None:
    """Raise WorkError where nothing can be added, before hours are spent on what would be."""
    try:
        root.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=root) as file:
            file.write(bytes(LEAST_BYTES))
            file.flush()
    except OSError as error:
        what = f"the wheelhouse {root} cannot be written: {error.strerror}"
        raise WorkError(what, fix="name another with --wheelhouse, or nox -s wheelhouse -- prune") from error


def _unwritable(root: Path, wheel: Path, error: OSError) -> WorkError:
    kept = f"the wheel is kept at {wheel}"
    if error.errno == errno.ENOSPC:
        return WorkError(
            f"the wheelhouse {root} is full; {kept}", fix="nox -s wheelhouse -- prune, or --wheelhouse DIR"
        )
    return WorkError(
        f"the wheelhouse {root} cannot be written: {error.strerror}; {kept}", fix="name another: --wheelhouse"
    )


def _described(wheel: Path) -> dict[str, Any]:
    name, version = metadata(wheel)
    size = wheel.stat().st_size
    return {"file": wheel.name, "sha256": sha256(wheel), "size": size, "name": name, "version": version}


def prune(root: Path, *, keep: int, dry_run: bool = False) -> list[Entry]:
    """Remove all but the ``keep`` newest wheels of each name, version and Python; give what was removed."""
    groups: dict[str, list[Entry]] = {}
    for entry in entries(root):
        groups.setdefault(entry.wheel.name, []).append(entry)
    old = []
    for group in groups.values():
        group.sort(key=lambda item: str(item.receipt.get("finished", "")), reverse=True)
        old += group[keep:]
    if not dry_run:
        with locked(root / ".lock", what=f"the wheelhouse {root}"):
            for entry in old:
                shutil.rmtree(entry.wheel.parent)
            write_index(root)
    return old


def newest(root: Path) -> dict[str, Entry]:
    """Give the newest entry of each file name: an index can hold one file of a name only."""
    out: dict[str, Entry] = {}
    for entry in sorted(entries(root), key=lambda item: str(item.receipt.get("finished", ""))):
        out[entry.wheel.name] = entry
    return out


def write_index(root: Path) -> None:
    """Write ``simple/`` as PEP 503 pages and PEP 691 JSON, and one page of all wheels for ``pip --find-links``."""
    projects: dict[str, list[Entry]] = {}
    for entry in newest(root).values():
        projects.setdefault(canonicalize_name(entry.wheel.name.split("-")[0]), []).append(entry)
    simple = root / "simple"
    for old in simple.glob("*/"):
        if old.name not in projects:
            shutil.rmtree(old)
    _page(simple, "Wheelhouse", [(f"{name}/", name) for name in sorted(projects)])
    write(simple / "index.json", _json({"projects": [{"name": name} for name in sorted(projects)]}))
    for name, found in projects.items():
        place = simple / name
        _page(place, name, [_link(entry) for entry in found])
        write(place / "index.json", _json({"name": name, "files": [_file(entry) for entry in found]}))
    flat = [(link.removeprefix("../../"), name) for found in projects.values() for link, name in map(_link, found)]
    _page(root, "Wheelhouse: all wheels", sorted(flat))


def _link(entry: Entry) -> tuple[str, str]:
    name = urllib.parse.quote(entry.wheel.name)
    return f"../../wheels/{entry.key}/{name}#sha256={entry.sha256}", entry.wheel.name


def _file(entry: Entry) -> dict[str, Any]:
    url = _link(entry)[0].partition("#")[0]
    return {"filename": entry.wheel.name, "url": url, "hashes": {"sha256": entry.sha256}, "size": entry.size}


def _json(document: dict[str, Any]) -> str:
    return json.dumps({"meta": {"api-version": "1.1"}, **document}, indent=1) + "\n"


def _page(directory: Path, title: str, links: list[tuple[str, str]]) -> None:
    rows = "\n".join(f'<a href="{html.escape(href)}">{html.escape(text)}</a><br>' for href, text in links)
    head = f'<meta name="pypi:repository-version" content="1.0"><title>{html.escape(title)}</title>'
    write(directory / "index.html", f"<!DOCTYPE html>\n<html><head>{head}</head><body>\n{rows}\n</body></html>\n")
