"""Find the keys in which the configs of two runs differ although they should not."""

from __future__ import annotations

import fnmatch
from collections.abc import Sequence
from typing import Any

from scripts.metrics import Run

ABSENT = object()


def config_differences(first: Run, second: Run, expected: Sequence[str]) -> list[tuple[str, Any, Any]]:
    """Keys in which two configs differ, less those expected to; nothing where one of them is not known."""
    if not first.config or not second.config:
        return []
    found = []
    for key in sorted({*first.config, *second.config}):
        before, after = first.config.get(key, ABSENT), second.config.get(key, ABSENT)
        if not _same(before, after) and not any(fnmatch.fnmatchcase(key, pattern) for pattern in expected):
            found.append((key, _shown(before), _shown(after)))
    return found


def _shown(value: object) -> Any:  # noqa: ANN401  # any config value
    return "(absent)" if value is ABSENT else value


def _same(before: object, after: object) -> bool:
    """Tell whether two values mean the same; paths do where their last parts are the same."""
    if isinstance(before, str) and isinstance(after, str) and "/" in before + after:
        return before.rstrip("/").rpartition("/")[2] == after.rstrip("/").rpartition("/")[2]
    if isinstance(before, list) and isinstance(after, list):
        return len(before) == len(after) and all(_same(a, b) for a, b in zip(before, after, strict=True))
    return before == after
