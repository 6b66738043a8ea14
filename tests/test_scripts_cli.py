"""Scripts end with one message and a documented exit code."""

from __future__ import annotations

import signal
import threading
import time
from collections.abc import Iterator, Sequence
from pathlib import Path

import pytest

from envcheck.errors import DataError, EnvcheckError, WorkError
from scripts import cli
from scripts.cache import cache, locked


@pytest.fixture(autouse=True)
def _signals() -> Iterator[None]:
    before = signal.getsignal(signal.SIGTERM)
    yield
    signal.signal(signal.SIGTERM, before)


@pytest.mark.parametrize(
    ("error", "code", "words"),
    [
        pytest.param(EnvcheckError("it broke", fix="mend it"), 2, "error: it broke\n  → mend it", id="usage"),
        pytest.param(WorkError("no room"), 1, "error: no room", id="work"),
        pytest.param(
            DataError("f.toml", "a.b", expected="1", found="2"), 2, "f.toml: a.b: expected 1, found 2", id="data"
        ),
        pytest.param(KeyboardInterrupt(), 130, "interrupted", id="interrupt"),
        pytest.param(OSError(28, "No space left on device", "/x"), 2, "/x: No space left", id="os"),
    ],
)
def test_errors(error: BaseException, code: int, words: str, capsys: pytest.CaptureFixture[str]) -> None:
    def main(_: Sequence[str] | None) -> int:
        raise error

    assert cli.run(main, []) == code
    shown = capsys.readouterr()
    assert words in shown.err
    assert shown.out == ""


def test_the_code_of_a_good_end() -> None:
    assert cli.run(lambda _: 3, []) == 3


def test_cache_is_where_the_environment_says(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("ENVCHECK_CACHE", str(tmp_path))
    assert cache("a", "b") == tmp_path / "a" / "b"
    monkeypatch.delenv("ENVCHECK_CACHE")
    monkeypatch.setenv("XDG_CACHE_HOME", "/somewhere")
    assert cache("x") == Path("/somewhere/envcheck/x")


def test_a_second_run_is_told_who_is_busy(tmp_path: Path) -> None:
    lock = tmp_path / "lock"
    with (
        locked(lock, what="the build"),
        pytest.raises(WorkError, match="busy with the build"),
        locked(lock, what="the build", wait=False),
    ):
        pytest.fail("both hold the lock")
    with locked(lock, what="the build", wait=False):
        assert lock.exists()


def test_a_second_run_that_waits_says_so(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    held, order = threading.Event(), []

    def first() -> None:
        with locked(tmp_path / "lock", what="the build"):
            held.set()
            time.sleep(0.3)
            order.append("first")

    thread = threading.Thread(target=first)
    thread.start()
    assert held.wait(10)
    with locked(tmp_path / "lock", what="the build"):
        order.append("second")
    thread.join()
    assert order == ["first", "second"]
    assert capsys.readouterr().err == "another run is busy with the build: waiting for it\n"
