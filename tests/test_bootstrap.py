"""From a bare python3 to nox."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

import pytest

from scripts import bootstrap


@pytest.fixture
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    (tmp_path / "lockfiles").mkdir()
    (tmp_path / "lockfiles" / "tools.txt").write_text("nox==1 --hash=sha256:0\n")
    monkeypatch.setattr(bootstrap, "ROOT", tmp_path)
    monkeypatch.setattr(bootstrap, "PLACES", {"tools": tmp_path / ".venv"})
    return tmp_path / ".venv"


class Programs:
    def __init__(self, place: Path, code: int = 0) -> None:
        self.started: list[list[str]] = []
        self.place = place
        self.code = code

    def run(self, argv: Sequence[str], **_: object) -> subprocess.CompletedProcess[str]:
        self.started.append(list(argv))
        if "venv" in argv:
            (self.place / "bin").mkdir(parents=True, exist_ok=True)
            (self.place / "bin" / "python").touch()
        return subprocess.CompletedProcess(list(argv), self.code if "pip" in argv or "nox" in argv else 0)


@pytest.fixture
def programs(place: Path, monkeypatch: pytest.MonkeyPatch) -> Programs:
    fake = Programs(place)
    monkeypatch.setattr(subprocess, "run", fake.run)
    return fake


def test_makes_the_environment_once(place: Path, programs: Programs) -> None:
    assert bootstrap.ensure("tools") == place / "bin" / "python"
    first = len(programs.started)
    assert any("--require-hashes" in argv for argv in programs.started)
    bootstrap.ensure("tools")
    assert len(programs.started) == first


def test_a_changed_lock_makes_it_anew(place: Path, programs: Programs) -> None:
    bootstrap.ensure("tools")
    first = len(programs.started)
    (place.parent / "lockfiles" / "tools.txt").write_text("nox==2 --hash=sha256:1\n")
    bootstrap.ensure("tools")
    assert len(programs.started) == 2 * first


def test_a_failed_install_leaves_nothing(place: Path, programs: Programs, capsys: pytest.CaptureFixture[str]) -> None:
    programs.code = 1
    assert bootstrap.main([]) == 2
    assert "exit code 1" in capsys.readouterr().err
    assert not place.exists()


def test_time_out_asks_about_the_index(programs: Programs, monkeypatch: pytest.MonkeyPatch) -> None:
    def run(argv: Sequence[str], **_: object) -> None:
        raise subprocess.TimeoutExpired(list(argv), 1)

    monkeypatch.setattr(subprocess, "run", run)
    with pytest.raises(bootstrap.BootstrapError, match="package index reachable"):
        bootstrap.ensure("tools")


@pytest.mark.parametrize(
    ("arguments", "session"),
    [
        pytest.param([], ["-s", "up"], id="default"),
        pytest.param(["lint", "tests"], ["-s", "lint", "tests"], id="named"),
        pytest.param(["-l"], ["-l"], id="option"),
    ],
)
def test_runs_nox(arguments: list[str], session: list[str], place: Path, programs: Programs) -> None:
    assert bootstrap.main(arguments) == 0
    assert programs.started[-1] == [str(place / "bin" / "python"), "-m", "nox", *session]


def test_what_is_compiled_is_kept(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PYTHONDONTWRITEBYTECODE", "1")
    monkeypatch.setenv("LANG", "C.UTF-8")
    assert "PYTHONDONTWRITEBYTECODE" not in bootstrap.keeping_compiled()
    assert bootstrap.keeping_compiled()["LANG"] == "C.UTF-8"


def test_help(capsys: pytest.CaptureFixture[str]) -> None:
    assert bootstrap.main(["--help"]) == 0
    assert "bootstrap.py lint tests" in capsys.readouterr().out


def test_old_python_is_told(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setattr(sys, "version_info", (3, 8, 1))
    assert bootstrap.main([]) == 2
    assert "Python >= 3.10 is needed" in capsys.readouterr().err
