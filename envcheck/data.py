"""Files that are shipped inside the package, read alike from a directory and from ``envcheck.pyz``."""

from __future__ import annotations

import os
from typing import Protocol, cast

import envcheck

ROOT = os.path.dirname(envcheck.__file__)  # hot path: pathlib is not needed for a join


class _Loader(Protocol):
    def get_data(self, path: str) -> bytes: ...


def read(name: str) -> str:
    """Give the text of a shipped file, named as ``stacks/verl-lts-cu124.toml``; raise OSError where there is none."""
    return read_bytes(name).decode("utf-8")


def read_bytes(name: str) -> bytes:
    """Give the bytes of a shipped file; raise OSError where there is none."""
    spec = envcheck.__spec__
    assert spec is not None  # noqa: S101  # every imported package has one
    # The loader's own get_data needs none of the 25 ms that importing importlib.resources costs.
    return cast("_Loader", spec.loader).get_data(os.path.join(ROOT, *name.split("/")))


def names(directory: str, suffix: str) -> list[str]:
    """Sorted names of the shipped files in ``directory`` that end in ``suffix``."""
    place = os.path.join(ROOT, *directory.split("/"))
    found = os.listdir(place) if os.path.isdir(place) else _names_in_archive(directory)
    return sorted(name for name in found if name.endswith(suffix))


def _names_in_archive(directory: str) -> list[str]:
    from importlib.resources import files  # only in the pyz: 25 ms

    place = files("envcheck").joinpath(directory)
    return [item.name for item in place.iterdir()] if place.is_dir() else []
