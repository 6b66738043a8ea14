"""The archives that a toolchain is made of: each pinned by size and SHA-256 in ``lockfiles/toolchain-*.toml``."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from envcheck.codec import Where, decode
from envcheck.errors import DataError
from envcheck.stack import parse_toml
from scripts.cache import ROOT

SourceName = Literal["debian", "redist"]
SOURCES: tuple[SourceName, ...] = ("debian", "redist")


@dataclass(frozen=True, kw_only=True)
class Archive:
    """One archive: ``path`` is where it lies below a mirror."""

    name: str
    version: str
    path: str
    size: int
    sha256: str | None = None


@dataclass(frozen=True, kw_only=True)
class Pins:
    """Everything that one toolchain is made of."""

    version: int
    kind: SourceName
    release: str
    cuda: str
    nvcc: str
    base: str | None = None
    archive: tuple[Archive, ...]

    @property
    def size(self) -> int:
        """Bytes to download."""
        return sum(item.size for item in self.archive)


def place(kind: SourceName) -> Path:
    """Path of the pins of one source."""
    return ROOT / "lockfiles" / f"toolchain-{kind}.toml"


def load(kind: SourceName) -> Pins:
    """Load the pins of one source."""
    path = place(kind)
    try:
        text = path.read_text(encoding="utf-8")
    except OSError as error:
        fix = f"python -m scripts.toolchain --pin --from {kind}"
        raise DataError(path.name, "", expected="a pins file", found=str(error.strerror), fix=fix) from error
    return parse(text, path.name)


def parse(text: str, source: str) -> Pins:
    """Read and validate a pins file; an archive without a hash is an error that names it."""
    pins: Pins = decode(Pins, parse_toml(text, source), Where(source=source))
    for index, item in enumerate(pins.archive):
        if not item.sha256 or len(item.sha256) != 64:  # noqa: PLR2004  # hex digits of a SHA-256
            key = f"archive[{index}] ({item.name}).sha256"
            fix = f"python -m scripts.toolchain --pin --from {pins.kind}, where the mirror can be reached"
            raise DataError(source, key, expected="64 hex digits", found=repr(item.sha256), fix=fix)
    return pins


def render(pins: Pins) -> str:
    """Write a pins file as TOML."""
    head = [
        f"# Made by `python -m scripts.toolchain --pin --from {pins.kind}`; not edited by hand.",
        f"version = {pins.version}",
        f'kind = "{pins.kind}"',
        f'release = "{pins.release}"',
        f'cuda = "{pins.cuda}"',
        f'nvcc = "{pins.nvcc}"',
        *([f'base = "{pins.base}"'] if pins.base else []),
    ]
    return "\n".join(head) + "\n" + "".join(_row(item) for item in pins.archive)


def _row(item: Archive) -> str:
    digest = f'sha256 = "{item.sha256}"\n' if item.sha256 else ""
    return (
        f'\n[[archive]]\nname = "{item.name}"\nversion = "{item.version}"\npath = "{item.path}"\n'
        f"size = {item.size}\n{digest}"
    )
