"""What of a kit the bench's commands name: the same lock, installed by uv from its cache and by pip from wheels."""

from __future__ import annotations

import json
from pathlib import Path

from envcheck.errors import DataError, HostError
from scripts import env

NAMES = ("kit", "kit_lock", "kit_stack", "kit_engine", "kit_python")


def values(kit: Path | None) -> dict[str, str]:
    """Give the placeholders of the kit's first environment; empty ones where no kit is named."""
    if kit is None:
        return dict.fromkeys(NAMES, "")
    place = kit.absolute()
    path = place / "kit.json"
    try:
        document = json.loads(path.read_text(encoding="utf-8"))
        row, stack = document["environments"][0], str(document["stack"])
        lock, engine, version = (str(row[name]) for name in ("lock", "engine", "python"))
    except (OSError, ValueError, KeyError, IndexError, TypeError) as error:
        raise DataError(str(path), "", expected="a kit", found=repr(error), fix="nox -s kit -- --output DIR") from error
    python = env.found(version)
    if python is None:
        raise HostError(f"the kit is for Python {version}, of which there is none here", fix="install it")
    return dict(zip(NAMES, (str(place), str(place / lock), stack, engine, python), strict=True))
