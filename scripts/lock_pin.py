"""Record the hash of a wheel outside the index in the stack file, on a machine that reaches it."""

from __future__ import annotations

import json
import os
import tempfile
from pathlib import Path

from envcheck import data, errors
from envcheck import stack as stacks
from envcheck.binary.archive import Archive
from envcheck.errors import WorkError
from envcheck.stack import ReleaseWheel
from scripts import download, env_plan, files, lock_files
from scripts.cache import ROOT, cache

ELSEWHERE = "run this where GitHub is reachable; until then the source is built"


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
        digest = digest_of(item)
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


def digest_of(item: ReleaseWheel) -> str:
    """Download a release wheel and give its hash; what is no whole wheel of that name is refused.

    A login page or half a file has a hash too. The wheel is kept where a build looks for it.
    """
    place = cache("downloads")
    place.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=place, prefix=".pin-") as name:
        wheel = Path(name) / env_plan.name_of(item)
        try:
            answered = download.complete(item.url, wheel)
        except download.FullDiskError:
            raise
        except WorkError as error:
            raise WorkError(f"{item.url} could not be read: {error.what}", fix=ELSEWHERE) from error
        _check(item.url, answered, wheel)
        digest = files.sha256(wheel)
        download.stored(digest).parent.mkdir(parents=True, exist_ok=True)
        os.replace(wheel, download.stored(digest))
    return digest


def _check(url: str, answered: str, wheel: Path) -> None:
    """Refuse what came over a connection that anyone can change, or is not the wheel that its address names."""
    if url.startswith("https://") and not answered.startswith("https://"):
        raise WorkError(f"{url} leads to {answered}, which is not https; it was refused", fix=ELSEWHERE)
    with Archive(wheel) as archive:
        archive.read()
    errors_found = [item for item in archive.findings if item.severity == "error"]
    if errors_found:
        seen = "\n".join(f"  {item.summary}: {item.found}, expected {item.expected}" for item in errors_found)
        raise WorkError(f"{answered} gave no wheel that can be pinned, nothing was recorded:\n{seen}", fix=ELSEWHERE)
