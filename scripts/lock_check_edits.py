"""Which lines of a lock were edited: those that differ from the last whole lock that git knows."""

from __future__ import annotations

import difflib
from collections.abc import Iterator
from pathlib import Path

from envcheck.errors import WorkError
from scripts import lock_text, process

SHOWN = 5
GIT_SECONDS = 20


def told(path: Path, text: str, mend: str) -> Iterator[str]:
    """Say that a lock was edited, and where, as far as git can tell."""
    before = committed(path)
    numbers = lines(before, text) if lock_text.is_whole(before) else []
    where = f", line {', '.join(map(str, numbers[:SHOWN]))}" if numbers else ""
    more = f" and {len(numbers) - SHOWN} more" if len(numbers) > SHOWN else ""
    yield f"{path.name}{where}{more}: was edited by hand: {mend} writes it again"


def lines(before: str, after: str) -> list[int]:
    """Give the lines of ``after`` that are not as they were; where lines went, the one that stands there now."""
    matched = difflib.SequenceMatcher(
        None, before.splitlines(keepends=True), after.splitlines(keepends=True), autojunk=False
    )
    found: set[int] = set()
    for kind, _, _, start, end in matched.get_opcodes():
        if kind != "equal":
            found.update(range(start + 1, max(end, start + 1) + 1))
    return sorted(found)


def committed(path: Path) -> str:
    """Give the lock as it was committed; nothing where git does not know it."""
    try:
        return process.output_bytes(
            ["git", "show", f"HEAD:./{path.name}"], timeout=GIT_SECONDS, cwd=path.parent
        ).decode()
    except (WorkError, OSError, UnicodeDecodeError):
        return ""
