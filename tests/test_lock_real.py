"""The committed locks against the real index: resolved again from nothing, under two Pythons: the same bytes."""

from __future__ import annotations

import time
from pathlib import Path

import pytest

from envcheck import stack as stacks
from scripts import env, lock_files, lock_resolve, lock_tools
from scripts.cache import ROOT

RELOCK_SECONDS = 60.0


@pytest.mark.network
@pytest.mark.slow
@pytest.mark.parametrize("version", ["3.10", "3.12"])
def test_resolving_from_an_empty_cache_gives_the_committed_bytes(
    version: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    python = env.found(version)
    if python is None:
        pytest.skip(f"no Python {version} on this machine")
    monkeypatch.setenv("UV_CACHE_DIR", str(tmp_path / "cache"))
    began = time.monotonic()
    texts: dict[Path, str] = {}
    for name in stacks.names():
        stack = stacks.load(name)
        resolved = lock_resolve.resolve(stack, python=python)
        texts |= {lock_files.directory(name) / file: text for file, text in lock_files.pinned(stack, resolved).items()}
    texts |= {ROOT / "lockfiles" / file: text for file, text in lock_tools.texts().items()}
    seconds = time.monotonic() - began
    assert [path.name for path, text in texts.items() if path.read_text(encoding="utf-8") != text] == []
    assert seconds < RELOCK_SECONDS
