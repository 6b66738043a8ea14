"""Pinning a release wheel: its hash is recorded where it came whole and is what its address names, else nothing is."""

from __future__ import annotations

import dataclasses
import email.message
import hashlib
import http.client
import io
import time
import urllib.error
import urllib.request
from pathlib import Path

import pytest

from envcheck import stack as stacks
from envcheck.errors import WorkError
from scripts import download, lock, lock_pin
from tests import lock_cases
from tests.lock_index import wheel

ITEM = lock_cases.tiny().lock.wheels[0]
URL = ITEM.url
TAG = "cp311-cp311-linux_x86_64"
WHEEL = wheel("flash-attn", "2.7.4", tag=TAG)[1]
DIGEST = hashlib.sha256(WHEEL).hexdigest()


class Response(io.BytesIO):
    def __init__(self, body: bytes, *, length: int | None = None, url: str = URL) -> None:
        super().__init__(body)
        self.url = url
        self.headers = email.message.Message()
        self.headers["Content-Length"] = str(len(body) if length is None else length)

    def close(self) -> None:
        """Stay open: the same answer is given again."""


class Broken(Response):
    def read(self, _: int | None = -1) -> bytes:
        raise http.client.IncompleteRead(b"")


@pytest.fixture
def server(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> list[Response | Exception]:
    """Answers in order, the last one again and again."""
    answers: list[Response | Exception] = []

    def urlopen(_: object, timeout: float) -> Response:
        assert timeout > 0
        found = answers.pop(0) if len(answers) > 1 else answers[0]
        if isinstance(found, Exception):
            raise found
        found.seek(0)
        return found

    monkeypatch.setattr(urllib.request, "urlopen", urlopen)
    monkeypatch.setattr(time, "sleep", lambda _: None)
    monkeypatch.setenv("ENVCHECK_CACHE", str(tmp_path / "cache"))
    return answers


def left(cache: Path) -> list[Path]:
    return [path for path in (cache / "downloads").rglob("*") if path.is_file()]


def test_the_hash_is_recorded_in_the_stack_file(
    tmp_path: Path, server: list[Response | Exception], capsys: pytest.CaptureFixture[str]
) -> None:
    path = lock_cases.stack_file(tmp_path)
    server[:] = [TimeoutError("slow"), Response(WHEEL)]
    words = ["--stack", str(path), "--root", str(tmp_path), "--pin-url", "flash-attn"]
    assert lock.main(words) == 0
    assert DIGEST in capsys.readouterr().out
    assert stacks.load(str(path)).lock.wheels[0].sha256 == DIGEST
    assert f'sha256 = "{DIGEST}"' in (tmp_path / "lockfiles/tiny/wheels.toml").read_text(encoding="utf-8")
    assert left(tmp_path / "cache") == [download.stored(DIGEST)], "a build takes it from there"
    server[:] = [Response(WHEEL)]
    assert lock.main(words) == 0
    server[:] = [Response(wheel("flash-attn", "2.7.4", tag=TAG, licence="replaced")[1])]
    with pytest.raises(WorkError, match=f"sha256 expected {DIGEST}, got") as caught:
        lock.main(words)
    assert "do not use it" in caught.value.fix


@pytest.mark.parametrize(
    ("answer", "said"),
    [
        (urllib.error.HTTPError(URL, 404, "Not Found", email.message.Message(), None), "answered 404 Not Found"),
        (TimeoutError("slow"), "could not be read: slow"),
        (Response(WHEEL[:500], length=len(WHEEL)), f"ended after 500 of {len(WHEEL)} bytes"),
        (Broken(WHEEL), "the answer broke off or was no HTTP: IncompleteRead"),
        (http.client.BadStatusLine("\0"), "was no HTTP: BadStatusLine"),
        (Response(b"<html>log in</html>"), "File is not a zip file"),
        (Response(b""), "File is not a zip file"),
        (Response(WHEEL[:-300] + WHEEL[-299:]), "the wheel is damaged|is not what RECORD says"),
        (Response(wheel("flash-attn", "2.6.0", tag=TAG)[1]), "another version than METADATA: 2.6.0, expected 2.7.4"),
        (Response(wheel("other", "2.7.4", tag=TAG)[1]), "another project than METADATA: other"),
        (Response(WHEEL, url="http://elsewhere/x.whl"), "leads to http://elsewhere/x.whl, which is not https"),
    ],
)
def test_what_did_not_come_whole_is_not_recorded(
    tmp_path: Path, server: list[Response | Exception], answer: Response | Exception, said: str
) -> None:
    path = lock_cases.stack_file(tmp_path)
    server[:] = [answer]
    with pytest.raises(WorkError, match=said) as caught:
        lock_pin.pin(str(path), "flash-attn", root=tmp_path)
    assert "until then the source is built" in caught.value.fix
    assert path.read_text(encoding="utf-8") == lock_cases.STACK
    assert not (tmp_path / "lockfiles").exists()
    assert left(tmp_path / "cache") == []


def test_another_host_may_answer(server: list[Response | Exception]) -> None:
    server[:] = [Response(WHEEL, url="https://objects.example/4f2a")]
    assert lock_pin.digest_of(ITEM) == DIGEST


def test_a_full_disk_is_said_and_nothing_is_left(tmp_path: Path, server: list[Response | Exception]) -> None:
    server[:] = [OSError(28, "No space left on device")]
    with pytest.raises(WorkError, match="cache has no room left") as caught:
        lock_pin.digest_of(ITEM)
    assert "ENVCHECK_CACHE" in caught.value.fix
    assert list((tmp_path / "cache/downloads").iterdir()) == []


def test_an_unknown_wheel_and_an_unusual_row_are_refused(tmp_path: Path) -> None:
    path = lock_cases.stack_file(tmp_path)
    with pytest.raises(WorkError, match="no release wheel of 'torch'") as caught:
        lock_pin.pin(str(path), "torch", root=tmp_path)
    assert "it has: flash-attn" in caught.value.fix
    with pytest.raises(WorkError, match="has no line url"):
        lock_pin.with_hash("url='x'", ITEM, "0")
    pinned = dataclasses.replace(ITEM, sha256="1")
    assert lock_pin.with_hash("url='x'", pinned, "0") == "url='x'"
