"""The version of this program."""

from __future__ import annotations

import re

from envcheck import data

UNKNOWN = "0+unknown"


def version() -> str:
    """Give the installed version; in a checkout, that of pyproject.toml beside the package."""
    from importlib import metadata

    try:
        return metadata.version("envcheck")
    except metadata.PackageNotFoundError:
        return _of_checkout()


def _of_checkout() -> str:
    try:
        with open(f"{data.ROOT}/../pyproject.toml", encoding="utf-8") as file:
            found = re.search(r'^version = "([^"]+)"$', file.read(), re.MULTILINE)
    except OSError:
        return UNKNOWN
    return found[1] if found else UNKNOWN
