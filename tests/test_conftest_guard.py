"""The guard of conftest.py."""

from __future__ import annotations

import os
import socket
import subprocess
import sys

import pytest


def test_a_unit_test_cannot_start_a_process() -> None:
    with pytest.raises(AssertionError, match="start a process"):
        subprocess.run([sys.executable, "-c", "pass"], check=True)
    with pytest.raises(AssertionError, match="start a process"):
        os.system("true")  # noqa: S605  # refused before it runs


def test_a_unit_test_cannot_reach_the_network() -> None:
    with socket.socket() as plug, pytest.raises(AssertionError, match="reach the network"):
        plug.connect(("127.0.0.1", 9))
    with pytest.raises(AssertionError, match="resolve a name"):
        socket.getaddrinfo("localhost", 80)


@pytest.mark.process
def test_a_marked_test_may() -> None:
    assert subprocess.run([sys.executable, "-c", "pass"], check=False).returncode == 0
