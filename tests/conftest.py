"""Unit tests start no process and reach no network; a marker opens what a test needs."""

from __future__ import annotations

import functools
import os
import socket
import subprocess
from collections.abc import Callable
from typing import NoReturn

import pytest

HEAVY = ("toolchain", "torch", "docker", "build", "network", "browser", "slow", "process")
"""Markers of tests that work on the real machine."""
PROCESS_STARTERS = ("system", "popen", "fork", "forkpty", "posix_spawn", "posix_spawnp", "execv", "execve")


def _refuse(what: str) -> Callable[..., NoReturn]:
    def refuse(*args: object, **_kwargs: object) -> NoReturn:
        said = [item for item in args if isinstance(item, (str, list, tuple))]
        msg = f"a unit test tried to {what}: {said!r}; give it a RecordedHost or a marker of {HEAVY}"
        raise AssertionError(msg)

    return refuse


@functools.cache
def engine_answers() -> bool:
    """Tell whether a Docker engine answers; a client without an engine is not enough."""
    try:
        done = subprocess.run(
            ["docker", "info", "--format", "{{.ServerVersion}}"], capture_output=True, timeout=20, check=False
        )
    except (OSError, subprocess.TimeoutExpired):
        return False
    return done.returncode == 0 and bool(done.stdout.strip())


@pytest.fixture(autouse=True)
def _docker_tests_need_an_engine(request: pytest.FixtureRequest) -> None:
    """Skip tests that carry the marker ``docker`` where no engine answers."""
    if request.node.get_closest_marker("docker") and not engine_answers():
        pytest.skip("no Docker engine answers")


@pytest.fixture(autouse=True)
def _unit_tests_stay_inside(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """Refuse processes and connections in tests that carry no marker of HEAVY."""
    if any(request.node.get_closest_marker(name) for name in HEAVY):
        return
    monkeypatch.setattr(subprocess.Popen, "__init__", _refuse("start a process"))
    for name in PROCESS_STARTERS:
        monkeypatch.setattr(os, name, _refuse("start a process"))
    monkeypatch.setattr(socket.socket, "connect", _refuse("reach the network"))
    monkeypatch.setattr(socket.socket, "connect_ex", _refuse("reach the network"))
    monkeypatch.setattr(socket, "create_connection", _refuse("reach the network"))
    monkeypatch.setattr(socket, "getaddrinfo", _refuse("resolve a name"))


@pytest.fixture(autouse=True)
def _plain_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    """Take away what a person's shell could change in the output."""
    for name in ("NO_COLOR", "FORCE_COLOR", "COLUMNS", "GITHUB_ACTIONS"):
        monkeypatch.delenv(name, raising=False)
