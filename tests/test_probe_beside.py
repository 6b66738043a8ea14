"""Binaries are read in copies of this process, and give what they give when they are read here."""

from __future__ import annotations

import os
import time
from pathlib import Path
from typing import NoReturn

import pytest

from envcheck.facts import Facts
from envcheck.host import LocalHost, RecordedHost
from envcheck.probes import beside
from envcheck.probes.collection import collect

HOST = LocalHost()


@pytest.mark.process
def test_a_child_gives_what_the_call_gives() -> None:
    """Large results come whole."""
    child = beside.Beside(lambda: (os.getpid(), "x" * 1_000_000))
    number, text = child.result()
    assert number != os.getpid()
    assert len(text) == 1_000_000
    with pytest.raises(ChildProcessError):
        os.waitpid(child._pid, os.WNOHANG)


@pytest.mark.process
def test_where_the_child_fails_the_call_is_made_here() -> None:
    """A child that dies without an answer hides nothing."""
    here = os.getpid()

    def dies() -> int:
        if os.getpid() != here:
            os._exit(3)
        return os.getpid()

    assert beside.Beside(dies).result() == here

    def fails() -> NoReturn:
        message = "surprise"
        raise ValueError(message)

    with pytest.raises(ValueError, match="surprise"):
        beside.Beside(fails).result()


@pytest.mark.process
def test_a_child_that_hangs_is_ended() -> None:
    """No one is waited for longer than is said."""
    here = os.getpid()
    begin = time.monotonic()

    def hangs() -> int:
        if os.getpid() != here:
            time.sleep(60)
        return os.getpid()

    assert beside.Beside(hangs).result(0.1) == here
    assert time.monotonic() - begin < 10


def test_without_processes_the_call_is_made_here(monkeypatch: pytest.MonkeyPatch) -> None:
    """A limit on processes costs time only."""

    def refuse() -> NoReturn:
        raise OSError(11, "Resource temporarily unavailable")

    monkeypatch.setattr(os, "fork", refuse)
    assert beside.beside(os.getpid)() == os.getpid()


def test_only_this_machine_is_read_beside(monkeypatch: pytest.MonkeyPatch) -> None:
    """A recorded host and a container answer one at a time; a single core gains nothing."""
    assert beside.children(RecordedHost()) == 0
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: {0}, raising=False)
    assert beside.children(HOST) == 0
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: set(range(64)), raising=False)
    assert beside.children(HOST) == beside.MOST_CHILDREN


def _comparable(found: Facts) -> dict[str, object]:
    assert isinstance(found.packages, tuple)
    return {"packages": {item.name: item for item in found.packages}, "loader": found.loader, "cudnn": found.cudnn}


@pytest.mark.process
@pytest.mark.parametrize("count", [1, 3])
def test_an_environment_reads_alike_beside_and_here(
    count: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Packages, damage, extensions and loader are the same whoever reads them."""
    import sys
    import venv

    venv.create(tmp_path / "venv", with_pip=False, symlinks=True)
    version = "python{}.{}".format(*sys.version_info[:2])
    site = tmp_path / "venv" / "lib" / version / "site-packages"
    for name in ("torch", "flash_attn", "numpy", "other"):
        info = site / f"{name}-1.0.dist-info"
        info.mkdir()
        (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {name}\nVersion: 1.0\n\n")
        (info / "RECORD").write_text(f"{name}/__init__.py,,\n{name}/gone.so,,\n")
        (site / name).mkdir()
        (site / name / "__init__.py").write_text("")
    (site / "flash_attn_2_cuda.cpython-310-x86_64-linux-gnu.so").write_bytes(b"no library")
    monkeypatch.setattr("envcheck.probes.binaries.children", lambda _: 0)
    here = _comparable(collect(HOST, python=str(tmp_path / "venv")))
    monkeypatch.setattr("envcheck.probes.binaries.children", lambda _: count)
    assert _comparable(collect(HOST, python=str(tmp_path / "venv"))) == here
    assert isinstance(here["packages"], dict)
    assert here["packages"]["torch"].damage
    assert here["packages"]["flash-attn"].extensions
    assert not here["packages"]["other"].damage
