"""What moved between two sets of locks: package, old, new, why, and what it weighs."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

from envcheck.errors import DataError
from scripts import files, lock_text
from scripts.lock_text import Pin

Locks = Mapping[str, list[Pin]]


@dataclass(frozen=True, kw_only=True)
class Move:
    """One package that moved in one file; ``old`` or ``new`` is empty where it came or went."""

    file: str
    name: str
    old: str
    new: str
    why: str
    bytes: int | None


def read(place: Path) -> dict[str, list[Pin]]:
    """Give the locks that are there; one that cannot be read counts as absent (it is about to be written again)."""
    found = {}
    for path in sorted(place.glob("*.txt")):
        try:
            found[path.name] = lock_text.parse(lock_text.exact(path), str(path))
        except DataError:
            continue
    return found


def parsed(texts: Mapping[str, str]) -> dict[str, list[Pin]]:
    """Give the locks among generated texts."""
    return {name: lock_text.parse(text, name) for name, text in texts.items() if is_lock(name)}


def is_lock(name: str) -> bool:
    """Tell whether a file of ``lockfiles/<stack>/`` holds pins."""
    return name.startswith("requirements-") or name == "build.txt"


def moves(old: Locks, new: Locks, sizes: Mapping[str, int]) -> Iterator[Move]:
    """List what moved, file by file, package by package."""
    for file, pins in sorted(new.items()):
        before, after = _versions(old.get(file, [])), _versions(pins)
        vias = {pin.name: ", ".join(pin.via) for pin in pins}
        for name in sorted({*before, *after}):
            if before.get(name) != after.get(name):
                yield Move(
                    file=file,
                    name=name,
                    old=before.get(name, ""),
                    new=after.get(name, ""),
                    why=vias.get(name, "nothing asks for it any more"),
                    bytes=max(
                        (sizes.get(value, 0) for pin in pins if pin.name == name for value in pin.hashes), default=0
                    )
                    or None,
                )


def _versions(pins: list[Pin]) -> dict[str, str]:
    grouped: dict[str, list[str]] = {}
    for pin in pins:
        grouped.setdefault(pin.name, []).append(pin.version)
    return {name: " | ".join(sorted(versions)) for name, versions in grouped.items()}


def between(old: Locks, new: Locks, sizes: Mapping[str, int]) -> str:
    """Give the diff as a table, or one line where nothing moved; a file that is new is counted, not listed."""
    lines = [f"{file}: new, {len(pins)} packages" for file, pins in sorted(new.items()) if file not in old]
    rows = [
        (
            move.file,
            move.name,
            move.old or "-",
            move.new or "-",
            "" if move.bytes is None else files.size(move.bytes),
            f"asked for by {move.why}" if move.new else move.why,
        )
        for move in moves(old, {file: pins for file, pins in new.items() if file in old}, sizes)
    ]
    if not rows:
        return "\n".join(lines or ["no package moved"])
    table = [("file", "package", "old", "new", "size", "why"), *rows]
    widths = [max(len(row[column]) for row in table) for column in range(len(table[0]) - 1)]
    for row in table:
        cells = [cell.ljust(width) for cell, width in zip(row, widths, strict=False)]
        lines.append("  ".join([*cells, row[-1]]).rstrip())
    return "\n".join(lines)
