from __future__ import annotations

import sys
from pathlib import Path

import pytest

from envcheck import stack as stacks
from envcheck.errors import EnvcheckError
from scripts import env_place

STACK = "verl-lts-cu124"
LOADED = stacks.load(STACK)


@pytest.fixture
def cache(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    monkeypatch.setenv("ENVCHECK_CACHE", str(tmp_path))
    return tmp_path


def _make(cache: Path, name: str) -> Path:
    python = cache / "envs" / name / "bin" / "python"
    python.parent.mkdir(parents=True)
    python.symlink_to(sys.executable)
    return python


def test_the_stacks_own_python_comes_first(cache: Path) -> None:
    assert env_place.made(LOADED, "sglang", "fsdp") is None
    older = _make(cache, f"{STACK}-sglang-fsdp-py3.11")
    assert env_place.made(LOADED, "sglang", "fsdp") == older
    own = _make(cache, f"{STACK}-sglang-fsdp-py3.12")
    assert env_place.made(LOADED, "sglang", "fsdp") == own
    assert env_place.made(LOADED, "sglang", "*") == own
    assert env_place.made(LOADED, "sglang", "megatron") is None
    assert env_place.made(LOADED, "vllm", "fsdp") is None
    own.unlink()
    own.symlink_to(cache / "gone")
    assert env_place.made(LOADED, "sglang", "fsdp") == older


def test_interpreter(cache: Path) -> None:
    def interpreter(given: str | None) -> str:
        return env_place.interpreter(given, stack=STACK, engine="sglang", trainer="fsdp")

    assert interpreter(None) == sys.executable
    python = _make(cache, f"{STACK}-sglang-fsdp-py3.12")
    assert interpreter(None) == str(python)
    assert interpreter(str(python)) == interpreter(str(python.parent.parent)) == str(python)
    with pytest.raises(EnvcheckError, match="no interpreter /no/python"):
        interpreter("/no/python")
