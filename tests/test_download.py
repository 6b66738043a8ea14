"""Downloads by hash: resumed, checked, refused."""

from __future__ import annotations

import email.message
import errno
import hashlib
import http.client
import io
import shutil
import time
import urllib.error
import urllib.request
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from envcheck.errors import WorkError
from scripts import download

BODY = bytes(range(256)) * 40
DIGEST = hashlib.sha256(BODY).hexdigest()
URL = "https://mirror.example/file"


class Response(io.BytesIO):
    def __init__(self, body: bytes, status: int = 200, length: int | None = None) -> None:
        super().__init__(body)
        self.status = status
        self.headers = email.message.Message()
        self.headers["Content-Length"] = str(len(body) if length is None else length)


Answer = Callable[[urllib.request.Request], Response]


@pytest.fixture
def server(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> list[Answer]:
    """Answers of a server, in order; the last one is repeated."""
    answers: list[Answer] = []

    def urlopen(request: urllib.request.Request, timeout: float) -> Response:
        assert timeout > 0
        return (answers.pop(0) if len(answers) > 1 else answers[0])(request)

    monkeypatch.setattr(urllib.request, "urlopen", urlopen)
    monkeypatch.setattr(time, "sleep", lambda _: None)
    monkeypatch.setenv("ENVCHECK_CACHE", str(tmp_path))
    return answers


def whole(_: urllib.request.Request) -> Response:
    return Response(BODY)


def rest(request: urllib.request.Request) -> Response:
    start = int(str(request.get_header("Range")).removeprefix("bytes=").removesuffix("-"))
    return Response(BODY[start:], status=206)


def fault(code: int) -> Answer:
    def answer(_: urllib.request.Request) -> Response:
        raise urllib.error.HTTPError(URL, code, "no", email.message.Message(), None)

    return answer


def test_a_file_is_kept_under_its_hash(server: list[Answer]) -> None:
    server.append(whole)
    seen: list[int] = []
    path = download.fetch([URL], digest=DIGEST, size=len(BODY), advance=seen.append)
    assert path == download.stored(DIGEST)
    assert path.read_bytes() == BODY
    assert sum(seen) == len(BODY)


def test_what_is_there_is_not_asked_for_again(server: list[Answer]) -> None:
    server.append(whole)
    path = download.fetch([URL], digest=DIGEST)
    server[:] = [fault(500)]
    assert download.fetch([URL], digest=DIGEST) == path


def test_a_damaged_file_in_the_cache_is_fetched_again(server: list[Answer]) -> None:
    server.append(whole)
    path = download.fetch([URL], digest=DIGEST)
    path.write_bytes(b"damaged")
    assert download.fetch([URL], digest=DIGEST).read_bytes() == BODY


def test_an_interrupted_download_goes_on_where_it_stopped(server: list[Answer]) -> None:
    server += [lambda _: Response(BODY[:100], length=len(BODY)), rest]
    seen: list[int] = []
    assert download.fetch([URL], digest=DIGEST, advance=seen.append).read_bytes() == BODY
    assert sum(seen[1:2]) == 100


def test_a_server_without_ranges_starts_anew(server: list[Answer]) -> None:
    server += [lambda _: Response(BODY[:100], length=len(BODY)), whole]
    assert download.fetch([URL], digest=DIGEST).read_bytes() == BODY


def test_a_part_that_is_whole_already_is_taken(server: list[Answer]) -> None:
    part = download.stored(DIGEST).with_suffix(".part")
    part.parent.mkdir(parents=True)
    part.write_bytes(BODY)
    server.append(fault(416))
    assert download.fetch([URL], digest=DIGEST).read_bytes() == BODY


def test_other_bytes_are_refused_with_both_hashes(server: list[Answer]) -> None:
    server.append(lambda _: Response(b"other"))
    with pytest.raises(WorkError, match=f"sha256 expected {DIGEST}, got {hashlib.sha256(b'other').hexdigest()}"):
        download.fetch([URL], digest=DIGEST)
    assert not download.stored(DIGEST).exists()
    assert not download.stored(DIGEST).with_suffix(".part").exists()


def test_the_next_place_is_tried(server: list[Answer]) -> None:
    server += [fault(404), whole]
    assert download.fetch(["https://gone.example/x", URL], digest=DIGEST).read_bytes() == BODY


def test_every_fault_is_named(server: list[Answer]) -> None:
    server += [fault(404), fault(403)]
    with pytest.raises(WorkError, match=r"(?s)gone.example.*404.*mirror.example.*403"):
        download.fetch(["https://gone.example/x", URL], digest=DIGEST)


def test_a_server_that_is_down_for_a_moment_is_asked_again(server: list[Answer]) -> None:
    server += [fault(503), fault(503), whole]
    assert download.fetch([URL], digest=DIGEST).read_bytes() == BODY


def test_a_server_that_stays_down_is_given_up(server: list[Answer]) -> None:
    def down(_: urllib.request.Request) -> Response:
        raise ConnectionResetError("reset by peer")

    server.append(down)
    with pytest.raises(WorkError, match="reset by peer"):
        download.fetch([URL], digest=DIGEST)


class Broken(Response):
    def read(self, _: int | None = -1) -> bytes:
        raise http.client.IncompleteRead(b"")


def test_an_answer_that_breaks_off_is_asked_again(server: list[Answer]) -> None:
    server += [lambda _: Broken(BODY), whole]
    assert download.fetch([URL], digest=DIGEST).read_bytes() == BODY
    server[:] = [lambda _: Broken(BODY)]
    with pytest.raises(WorkError, match="could not be read: the answer broke off or was no HTTP: IncompleteRead"):
        download.text(URL)


def test_on_a_full_disk_no_other_place_is_tried(server: list[Answer], tmp_path: Path) -> None:
    asked: list[str] = []

    def full(request: urllib.request.Request) -> Response:
        asked.append(request.full_url)
        raise OSError(errno.ENOSPC, "No space left on device")

    server.append(full)
    with pytest.raises(WorkError, match=f"{tmp_path} has no room left"):
        download.fetch([URL, "https://other.example/file"], digest=DIGEST)
    assert asked == [URL]


def test_no_place_at_all(server: list[Answer]) -> None:
    server.append(whole)
    with pytest.raises(WorkError, match="no place to download from"):
        download.fetch([], digest=DIGEST)


def test_a_full_disk_is_said_before_the_download(server: list[Answer], monkeypatch: pytest.MonkeyPatch) -> None:
    def usage(_: Any) -> Any:
        return type("Usage", (), {"free": 10 << 20})

    monkeypatch.setattr(shutil, "disk_usage", usage)
    server.append(whole)
    with pytest.raises(WorkError, match="10 MiB free, 264 MiB are needed"):
        download.fetch([URL], digest=DIGEST, size=200 << 20)


def test_text(server: list[Answer]) -> None:
    server.append(lambda _: Response("größe".encode()))
    assert download.text(URL) == "größe"


def test_text_that_cannot_be_read(server: list[Answer]) -> None:
    server.append(fault(404))
    with pytest.raises(WorkError, match=r"mirror.example/file could not be read"):
        download.text(URL)


def test_digest_of() -> None:
    assert download.digest_of(BODY) == DIGEST
