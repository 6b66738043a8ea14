"""The wheelhouse: whole wheels only, an index that pip reads, pushed and pulled by hash."""

from __future__ import annotations

import http.client
import io
import json
import re
import threading
from collections.abc import Iterator
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest

from envcheck.errors import EnvcheckError, WorkError
from scripts import wheelhouse, wheelhouse_remote, wheelhouse_store
from scripts.wheelhouse_store import RECEIPT
from tests import build_cases

KEY, OTHER = "1" * 64, "2" * 64


@pytest.fixture
def house(tmp_path: Path) -> Path:
    root = tmp_path / "house"
    wheelhouse_store.put(root, KEY, build_cases.wheel(tmp_path / "w"), build_cases.receipt())
    return root


def another(tmp_path: Path, house: Path, **changes: Any) -> wheelhouse_store.Entry:
    wheel = build_cases.wheel(tmp_path / "other", members={"flash_attn/new.py": b"y = 2\n"})
    return wheelhouse_store.put(house, OTHER, wheel, build_cases.receipt(**changes))


@pytest.fixture
def served(tmp_path: Path) -> Iterator[str]:
    """The temporary directory on the loopback, without listings of directories."""

    class Handler(SimpleHTTPRequestHandler):
        def list_directory(self, path: object) -> None:
            self.send_error(403, str(path))

        def log_message(self, *_: object) -> None: ...

    server = ThreadingHTTPServer(("127.0.0.1", 0), partial(Handler, directory=str(tmp_path)))
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield f"http://127.0.0.1:{server.server_port}"
    server.shutdown()
    server.server_close()


def test_a_wheel_is_found_by_its_key(house: Path) -> None:
    found = wheelhouse_store.get(house, KEY)
    assert found is not None
    assert found.receipt["wheel"]["name"] == "flash-attn"
    assert wheelhouse_store.get(house, OTHER) is None


def test_a_truncated_or_changed_wheel_counts_as_absent(house: Path, capsys: pytest.CaptureFixture[str]) -> None:
    entry = wheelhouse_store.get(house, KEY)
    assert entry is not None
    whole = entry.wheel.read_bytes()
    entry.wheel.write_bytes(whole[:-5])
    assert wheelhouse_store.get(house, KEY) is None
    assert "it is truncated or changed; it is built anew" in capsys.readouterr().out
    entry.wheel.write_bytes(b"x" + whole[1:])
    assert "it was changed" in wheelhouse_store.damage(entry)
    entry.wheel.unlink()
    assert wheelhouse_store.damage(entry) == "the wheel is gone"


@pytest.mark.parametrize("text", ["{", "{}", "[]"])
def test_a_receipt_that_is_none(house: Path, text: str) -> None:
    (house / "wheels" / KEY / RECEIPT).write_text(text, encoding="ascii")
    with pytest.raises(WorkError, match="is not a receipt"):
        wheelhouse_store.get(house, KEY)


def test_a_damaged_receipt_stops_no_other_wheel(
    house: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    another(tmp_path, house)
    (house / "wheels" / KEY / RECEIPT).write_text("{", encoding="ascii")
    assert [entry.key for entry in wheelhouse_store.entries(house)] == [OTHER]
    assert f"left out: {house / 'wheels' / KEY / RECEIPT} is not a receipt" in capsys.readouterr().err
    another(tmp_path, house, finished="2026-03-03")
    with pytest.raises(WorkError, match=f"{KEY}/{RECEIPT} is not a receipt"):
        wheelhouse.main(["verify", "--wheelhouse", str(house)])


def test_the_index_names_every_wheel_with_its_hash(house: Path) -> None:
    entry = next(wheelhouse_store.entries(house))
    page = (house / "simple/flash-attn/index.html").read_text(encoding="utf-8")
    href = re.findall(r'href="([^"#]+)#sha256=(\w+)"', page)
    assert href == [(f"../../wheels/{KEY}/{entry.wheel.name}", entry.sha256)]
    assert (house / "simple/flash-attn" / href[0][0]).resolve() == entry.wheel.resolve()
    document = json.loads((house / "simple/flash-attn/index.json").read_text(encoding="utf-8"))
    assert document["files"][0]["hashes"] == {"sha256": entry.sha256}
    assert "flash-attn" in (house / "simple/index.html").read_text(encoding="utf-8")


def test_of_two_wheels_of_one_name_the_newest_is_in_the_index(house: Path, tmp_path: Path) -> None:
    newer = another(tmp_path, house, finished="2026-02-02")
    page = (house / "simple/flash-attn/index.html").read_text(encoding="utf-8")
    assert newer.sha256 in page
    assert page.count("<a ") == 1


def test_pruning_keeps_the_newest(house: Path, tmp_path: Path) -> None:
    another(tmp_path, house, finished="2026-02-02")
    assert [entry.key for entry in wheelhouse_store.prune(house, keep=1, dry_run=True)] == [KEY]
    assert len(list(wheelhouse_store.entries(house))) == 2
    wheelhouse_store.prune(house, keep=1)
    assert [entry.key for entry in wheelhouse_store.entries(house)] == [OTHER]
    wheelhouse_store.prune(house, keep=0)
    assert not (house / "simple/flash-attn").exists()


def test_a_wheelhouse_that_is_full_keeps_the_wheel(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    wheel = build_cases.wheel(tmp_path / "w")
    monkeypatch.setattr("shutil.copyfile", full)
    with pytest.raises(WorkError, match=r"(?s)is full; the wheel is kept at .*prune"):
        wheelhouse_store.put(tmp_path / "house", KEY, wheel, build_cases.receipt())
    assert wheelhouse_store.get(tmp_path / "house", KEY) is None


def test_a_wheelhouse_that_is_read_only(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refused(*_: object, **__: object) -> None:
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(wheelhouse_store, "write", refused)
    with pytest.raises(WorkError, match="cannot be written: Permission denied; the wheel is kept at"):
        wheelhouse_store.put(tmp_path / "house", KEY, build_cases.wheel(tmp_path / "w"), build_cases.receipt())
    assert wheelhouse_store.get(tmp_path / "house", KEY) is None


def test_where_the_wheelhouse_is(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ENVCHECK_CACHE", "/c")
    monkeypatch.delenv("ENVCHECK_WHEELHOUSE", raising=False)
    assert wheelhouse_store.default() == Path("/c/wheelhouse")
    monkeypatch.setenv("ENVCHECK_WHEELHOUSE", "/w")
    assert wheelhouse_store.default() == Path("/w")


def test_listing(house: Path, capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    assert wheelhouse.main(["--wheelhouse", str(house)]) == 0
    out = capsys.readouterr().out
    assert KEY[:12] in out
    assert re.search(r"  \d{3} B  flash_attn", out)
    assert "2.5.1+cu124 CUDA 12.4.131" in out
    assert wheelhouse.main(["list", "--wheelhouse", str(house), "--format", "json"]) == 0
    assert json.loads(capsys.readouterr().out)["wheels"][0]["key"] == KEY
    assert wheelhouse.main(["list", "--wheelhouse", str(tmp_path / "none")]) == 0
    assert "holds no wheels" in capsys.readouterr().out


def test_verifying(house: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert wheelhouse.main(["verify", "--wheelhouse", str(house)]) == 0
    assert "1 wheels are as their receipts say" in capsys.readouterr().out
    next(wheelhouse_store.entries(house)).wheel.write_bytes(b"cut")
    with pytest.raises(WorkError, match=r"3 bytes, the receipt says \d+"):
        wheelhouse.main(["verify", "--wheelhouse", str(house)])


def test_pruning_from_the_command_line(house: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    another(tmp_path, house, finished="2026-02-02")
    assert wheelhouse.main(["prune", "--wheelhouse", str(house), "--dry-run"]) == 0
    assert "1 wheels would be removed" in capsys.readouterr().out
    assert wheelhouse.main(["prune", "--wheelhouse", str(house)]) == 0
    assert f"removed: {KEY[:12]}" in capsys.readouterr().out


def test_push_and_pull_through_a_directory(house: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    pytest.importorskip("fsspec")
    remote, mine = f"file://{tmp_path}/remote", tmp_path / "mine"
    assert wheelhouse.main(["push", remote, "--wheelhouse", str(house)]) == 0
    assert capsys.readouterr().out.startswith(f"sent {KEY[:12]}")
    assert wheelhouse_remote.push(house, remote) == []
    assert (tmp_path / "remote/simple/flash-attn/index.html").exists()
    assert wheelhouse_remote.pull(mine, remote, keys=[OTHER]) == []
    assert wheelhouse.main(["pull", remote, "--wheelhouse", str(mine)]) == 0
    assert wheelhouse_store.get(mine, KEY) is not None
    assert wheelhouse_remote.pull(mine, remote) == []


@pytest.mark.process
def test_pull_from_a_web_server_that_lists_nothing(
    house: Path, tmp_path: Path, served: str, capsys: pytest.CaptureFixture[str]
) -> None:
    mine = tmp_path / "mine"
    assert wheelhouse.main(["pull", f"{served}/house/", "--wheelhouse", str(mine)]) == 0
    assert "1 wheels taken" in capsys.readouterr().out
    assert wheelhouse_store.get(mine, KEY) is not None
    assert wheelhouse_remote.pull(mine, f"{served}/house", keys=[OTHER]) == []
    with pytest.raises(WorkError, match="holds no wheels"):
        wheelhouse_remote.pull(mine, f"{served}/nothing")
    with pytest.raises(WorkError, match="an http address is only read"):
        wheelhouse_remote.push(house, f"{served}/nothing")


def test_a_web_server_that_is_not_there(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refused(*_: object, **__: object) -> None:
        raise OSError(111, "Connection refused")

    monkeypatch.setattr("urllib.request.urlopen", refused)
    with pytest.raises(WorkError, match=r"http://host/w cannot be reached: .*Connection refused"):
        wheelhouse_remote.pull(tmp_path / "mine", "http://me:secret@host/w")


def test_a_web_server_whose_answer_breaks_off(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    class Broken(io.BytesIO):
        def read(self, _: int | None = -1) -> bytes:
            raise http.client.IncompleteRead(b"")

    monkeypatch.setattr("urllib.request.urlopen", lambda *_, **__: Broken())
    with pytest.raises(WorkError, match=r"http://host/w broke off: .*IncompleteRead"):
        wheelhouse_remote.pull(tmp_path / "mine", "http://host/w")


@pytest.mark.parametrize(
    "text",
    ["{", "[]", '{"wheel": {"file": "../../x.whl", "sha256": "%s"}}' % ("a" * 64), '{"wheel": {"file": "x.whl"}}'],
)
def test_a_receipt_of_the_other_side_is_not_trusted(house: Path, tmp_path: Path, text: str) -> None:
    pytest.importorskip("fsspec")
    (house / "wheels" / KEY / RECEIPT).write_text(text, encoding="ascii")
    with pytest.raises(WorkError, match=r"is not a receipt|is no wheel beside it"):
        wheelhouse_remote.pull(tmp_path / "mine", f"file://{house}")
    assert not (tmp_path / "mine").exists()


def test_a_pulled_wheel_with_other_bytes_is_refused(house: Path, tmp_path: Path) -> None:
    pytest.importorskip("fsspec")
    remote = tmp_path / "remote"
    wheelhouse_remote.push(house, f"file://{remote}")
    next(remote.glob("wheels/*/*.whl")).write_bytes(b"evil")
    with pytest.raises(WorkError, match=r"its receipt says \w{64}; it was refused"):
        wheelhouse_remote.pull(tmp_path / "mine", f"file://{remote}", keys=[KEY])
    assert wheelhouse_store.get(tmp_path / "mine", KEY) is None


def test_a_damaged_wheel_is_not_pushed(house: Path, tmp_path: Path) -> None:
    pytest.importorskip("fsspec")
    next(wheelhouse_store.entries(house)).wheel.write_bytes(b"cut")
    with pytest.raises(WorkError, match="truncated or changed"):
        wheelhouse_remote.push(house, f"file://{tmp_path}/remote")


def test_where_to_push(house: Path) -> None:
    with pytest.raises(EnvcheckError, match="push needs the address"):
        wheelhouse.main(["push", "--wheelhouse", str(house)])


def test_push_without_fsspec_says_what_to_install(house: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(__import__("sys").modules, "fsspec", None)
    with pytest.raises(WorkError, match=r"need fsspec"):
        wheelhouse_remote.push(house, "file:///x")


def test_a_store_that_cannot_be_reached(house: Path) -> None:
    pytest.importorskip("fsspec")
    with pytest.raises(WorkError, match="cannot be reached"):
        wheelhouse_remote.push(house, "nosuchprotocol://bucket/path")


@pytest.mark.process
def test_pip_and_uv_read_the_index(house: Path, tmp_path: Path) -> None:
    import sys

    from scripts import process

    argv = [sys.executable, "-m", "pip", "download", "--no-deps", "--dest", str(tmp_path / "got"), "--isolated"]
    index = (house / "simple").as_uri()
    process.output([*argv, "--index-url", index, "flash-attn==2.7.4.post1"], timeout=120)
    assert len(list((tmp_path / "got").glob("flash_attn-*.whl"))) == 1
    flat = [*argv[:6], str(tmp_path / "flat"), "--isolated", "--no-index", "--find-links", str(house)]
    process.output([*flat, "flash-attn==2.7.4.post1"], timeout=120)
    assert len(list((tmp_path / "flat").glob("flash_attn-*.whl"))) == 1
