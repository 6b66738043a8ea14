"""Record the hash of a wheel outside the index in the stack file, on a machine that reaches it."""

from __future__ import annotations

import hashlib
import json
import time
import urllib.error
import urllib.request
from pathlib import Path

from envcheck import data, errors
from envcheck import stack as stacks
from envcheck.errors import WorkError
from envcheck.stack import ReleaseWheel
from scripts import files, lock_files
from scripts.cache import ROOT

ATTEMPTS = 3
TIMEOUT_SECONDS = 120
PAUSE_SECONDS = 2.0


def stack_file(name: str) -> Path:
    """Path of a stack file."""
    return Path(name) if name.endswith(".toml") else Path(data.ROOT, "stacks", f"{name}.toml")


def pin(name: str, component: str, *, root: Path = ROOT) -> int:
    """Download every release wheel of a component, write its hash into the stack file and wheels.toml again."""
    stack = stacks.load(name)
    chosen = [item for item in stack.lock.wheels if item.component == component]
    if not chosen:
        known = ", ".join(sorted({item.component for item in stack.lock.wheels})) or "none"
        raise WorkError(f"stack {stack.name} names no release wheel of {component!r}", fix=f"it has: {known}")
    path = stack_file(name)
    for item in chosen:
        digest = digest_of(item.url)
        if item.sha256 and item.sha256 != digest:
            what = f"{item.url}: sha256 expected {item.sha256}, got {digest}; the pin was not changed"
            raise WorkError(what, fix="the file was replaced after it was pinned: do not use it before someone looked")
        files.write(path, with_hash(path.read_text(encoding="utf-8"), item, digest))
        print(f"{component}: sha256 {digest}")
    files.write(lock_files.directory(stack.name, root) / "wheels.toml", lock_files.wheels(stacks.load(name)))
    return errors.OK


def with_hash(text: str, item: ReleaseWheel, digest: str) -> str:
    """Put ``sha256 = "…"`` below the wheel's ``url = "…"`` line."""
    line = f"url = {json.dumps(item.url)}\n"
    if item.sha256:
        return text
    if text.count(line) != 1:
        raise WorkError(f"the stack file has no line {line.strip()}", fix="write the row's url on a line of its own")
    return text.replace(line, f'{line}sha256 = "{digest}"\n')


def digest_of(url: str) -> str:
    """Hash what a URL gives; a fault is tried again."""
    for attempt in range(1, ATTEMPTS + 1):
        try:
            return _digest(url)
        except OSError as error:
            last = error
            if isinstance(error, urllib.error.HTTPError) and error.code < 500:  # noqa: PLR2004  # the server's own no
                break
            time.sleep(PAUSE_SECONDS * (attempt < ATTEMPTS))
    raise WorkError(
        f"{url} could not be read: {last}", fix="run this where GitHub is reachable; until then the source is built"
    )


def _digest(url: str) -> str:
    digest = hashlib.sha256()
    with urllib.request.urlopen(url, timeout=TIMEOUT_SECONDS) as response:  # noqa: S310  # the stack file's own URL
        while chunk := response.read(files.CHUNK_BYTES):
            digest.update(chunk)
    return digest.hexdigest()
