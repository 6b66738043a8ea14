"""Differences between resolvers are explained by the requirement that keeps them apart."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from packaging.requirements import Requirement

from scripts import env_plan, lock_reasons, sbom_remote
from scripts.index_files import IndexFile

HERE = env_plan.python_environment("3.12.1")
KNOWN = {"google-auth": ["cachetools<6.0,>=2.0.0"], "google-api-core": ["google-auth>=2.14.1"]}


def known(name: str, _: str) -> Iterator[Requirement]:
    yield from (Requirement(line) for line in KNOWN.get(name, []))


def test_what_keeps_versions_apart_is_named() -> None:
    moved = {
        "cachetools": ("6.1.0", "5.5.2"),
        "google-auth": ("1.6.3", "2.40.3"),
        "google-api-core": ("1.16.0", "2.25.1"),
        "filelock": ("3.18.0", "3.17.0"),
    }
    mine = {name: ours for name, (ours, _) in moved.items()} | {"torch": "2.6.0"}
    found = lock_reasons.of(moved, mine, known)
    assert found == {
        "cachetools": "google-auth 2.40.3 asks for cachetools<6.0,>=2.0.0",
        "google-auth": "google-api-core 2.25.1 asks for google-auth>=2.14.1",
        "google-api-core": "google-api-core 2.25.1 asks for google-auth>=2.14.1, the lock has google-auth 1.6.3",
        "filelock": "both satisfy what is asked",
    }


def test_requirements_are_read_from_metadata() -> None:
    text = "Requires-Dist: a<2\nRequires-Dist: b; extra == 'x'\nRequires-Dist: c; python_version < '3.11'\n"
    rows = list(lock_reasons.required(f"{text}Requires-Dist: not a requirement (\n", HERE))
    assert [str(row) for row in rows] == ["a<2"]


def test_the_metadata_of_the_right_wheel_is_asked_for(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sbom_remote, "metadata", lambda url: f"Requires-Dist: {url}==1\n")
    names = ["x-1.0.tar.gz", "x-1.0-py3-none-any.whl", "x-2.0-py3-none-any.whl"]
    files = [IndexFile(name=name, url=f"url{number}", sha256=None) for number, name in enumerate(names)]
    look = lock_reasons.asks(HERE, lambda _: files)
    assert [str(row) for row in look("x", "2.0")] == ["url2==1"]
    assert list(look("x", "3.0")) == []
