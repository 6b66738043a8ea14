"""Upgrades and pins of URLs: what is edited in the stack file, and what is refused."""

from __future__ import annotations

import dataclasses
import datetime as dt
import io
import urllib.error
import urllib.request
from email.message import Message
from pathlib import Path

import pytest
from packaging.version import Version

from envcheck import stack as stacks
from envcheck.errors import EnvcheckError, WorkError
from envcheck.limits import Limits, Row, Table
from scripts import index_files, lock, lock_pin, lock_upgrade
from scripts.index_files import IndexFile
from scripts.lock_resolve import Resolved
from scripts.lock_upgrade import Wish
from tests import lock_cases
from tests.lock_cases import resolved

__all__ = ["resolved"]

URL = lock_cases.tiny().lock.wheels[0].url


def listed(*names: str) -> list[IndexFile]:
    return [IndexFile(name=name, url="", sha256="", uploaded="2025-06-02T10:00:00.0Z") for name in names]


def test_versions_are_read_from_file_names() -> None:
    found = lock_upgrade.versions(
        [
            *listed("sglang-0.4.6.post5-py3-none-any.whl", "sglang-0.4.6.post5.tar.gz", "strange", "x-y.tar.gz"),
            IndexFile(name="sglang-0.4.7.zip", url="", sha256=""),
        ]
    )
    assert found == {Version("0.4.6.post5"): dt.date(2025, 6, 2), Version("0.4.7"): None}


@pytest.fixture
def offered(monkeypatch: pytest.MonkeyPatch) -> None:
    names = ["helper-1.0-py3-none-any.whl", "helper-1.5-py3-none-any.whl", "helper-2.0rc1-py3-none-any.whl"]
    monkeypatch.setattr(index_files, "files", lambda _: listed(*names))


@pytest.mark.usefixtures("offered")
def test_a_wish_is_looked_up() -> None:
    assert lock_upgrade.wish("Helper") == Wish(name="helper", version="1.5", uploaded=dt.date(2025, 6, 2))
    assert lock_upgrade.wish("helper==2.0rc1").version == "2.0rc1"
    with pytest.raises(EnvcheckError, match="is not NAME or NAME==V"):
        lock_upgrade.wish("helper 2")


@pytest.mark.usefixtures("offered")
def test_what_components_bring_along_becomes_a_direct_pin(tmp_path: Path) -> None:
    stack = lock_cases.tiny()
    new = lock_upgrade.upgraded(stack, "helper==1.5")
    assert new.lock.direct == ("helper[fast]==1.5", "verl")
    path = lock_cases.stack_file(tmp_path)
    lock_upgrade.write(path, stack, new)
    written = stacks.load(str(path))
    assert written.lock.direct == new.lock.direct
    assert written.lock.exempt[-1].until == "2025-06-03"
    again = lock_upgrade.upgraded(written, "helper==1.0")
    lock_upgrade.write(path, written, again)
    assert [row.package for row in stacks.load(str(path)).lock.exempt] == ["kernel", "helper"]


@pytest.mark.usefixtures("offered")
def test_a_component_is_moved_in_its_own_row(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(index_files, "files", lambda _: listed("sglang-0.4.5-py3-none-any.whl"))
    stack = lock_cases.tiny()
    path = lock_cases.stack_file(tmp_path)
    lock_upgrade.write(path, stack, lock_upgrade.upgraded(stack, "sglang"))
    assert stacks.load(str(path)).component("sglang").version == "0.4.5"


def test_what_is_pinned_by_commit_or_twice_is_refused() -> None:
    stack = lock_cases.tiny()
    with pytest.raises(WorkError, match="pinned by commit 333e6d62"):
        lock_upgrade.owner(stack, "verl")
    with pytest.raises(WorkError, match="for each engine on its own"):
        lock_upgrade.owner(stack, "torch")
    with pytest.raises(WorkError, match=r"overrides kernel==0.1.0: sglang asks for ==0.0.3, which is gone"):
        lock_upgrade.owner(stack, "kernel")
    with pytest.raises(WorkError, match="pinned by commit"):
        lock_upgrade.upgraded(stack, "verl==9")
    assert lock_upgrade.owner(stack, "helper") is None


@pytest.mark.usefixtures("offered")
def test_what_one_engine_has_stays_with_it(tmp_path: Path, resolved: Resolved) -> None:
    text = lock_cases.STACK.replace('["sglang[srt]"]', '["other==1", "sglang[srt]"]')
    stack, path = lock_cases.tiny(text), lock_cases.stack_file(tmp_path, text)
    stack = dataclasses.replace(stack, lock=dataclasses.replace(stack.lock, direct=("verl",)))
    resolved.pins["vllm"] = [pin for pin in resolved.pins["vllm"] if pin.name != "helper"]
    place = lock_cases.lay(tmp_path, stack, resolved)
    new = lock_upgrade.upgraded(stack, "helper==1.5", place)
    assert new.lock.direct == ("verl",)
    assert new.lock.engine_direct == {"sglang": ("helper==1.5", "other==1", "sglang[srt]")}
    lock_upgrade.write(path, stack, new)
    assert stacks.load(str(path)).lock.engine_direct == new.lock.engine_direct
    again = lock_upgrade.upgraded(new, "helper==1.0", place)
    assert again.lock.engine_direct["sglang"][0] == "helper==1.0", "where it is asked for it is moved"
    both = lock_upgrade.upgraded(stack, "helper==1.5", tmp_path / "nothing")
    assert both.lock.direct == ("helper==1.5", "verl")


def test_a_project_that_the_index_does_not_have_is_said_so(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("UV_DEFAULT_INDEX", "https://index.example/simple")
    answer(monkeypatch, urllib.error.HTTPError(URL, 404, "Not Found", Message(), None))
    with pytest.raises(WorkError, match=r"has no gone==1 \(any more\); it has no gone at all"):
        lock_upgrade.wish("gone==1")
    answer(monkeypatch, urllib.error.HTTPError(URL, 503, "Busy", Message(), None))
    with pytest.raises(WorkError, match="did not give the files of gone: HTTP Error 503"):
        lock_upgrade.wish("gone==1")


def test_a_stack_file_without_direct_requirements_gets_them() -> None:
    text = lock_cases.STACK.replace('direct = ["helper[fast]", "verl"]\n', "")
    old = stacks.parse(text, "tiny.toml")
    new = dataclasses.replace(old, lock=dataclasses.replace(old.lock, direct=("a==1",)))
    assert stacks.parse(lock_upgrade.edited(text, old, new), "tiny.toml").lock.direct == ("a==1",)


def test_limits_that_hold_are_silent() -> None:
    rows = (
        Row(when={"vllm": "==0.6.3"}, need={"torch": "==2.4.0"}, source="https://x"),
        Row(when={"vllm": "==9"}, need={"torch": "==0"}, source="https://x"),
        Row(when={"vllm": ">0"}, need={"absent": "==0"}, source="https://x"),
        Row(give={"name": "apex"}, source="https://x"),
    )
    known = Limits(tables={"vllm": Table(version=1, title="t", row=rows)})
    assert list(lock_upgrade.faults(known, {"vllm": "0.6.3", "torch": "2.4.0"})) == []
    assert list(lock_upgrade.faults(known, {"vllm": "0.6.3", "torch": "2.5.1"})) == [
        "vllm 0.6.3 needs torch==2.4.0, not 2.5.1 (vllm: https://x)"
    ]


def answer(monkeypatch: pytest.MonkeyPatch, *answers: bytes | Exception) -> list[str]:
    left, asked = list(answers), []

    def urlopen(url: object, timeout: float, context: object = None) -> io.BytesIO:
        asked.append(f"{url} {timeout}")
        found = left.pop(0)
        if isinstance(found, Exception):
            raise found
        return io.BytesIO(found)

    monkeypatch.setattr(urllib.request, "urlopen", urlopen)
    return asked


def test_one_stack_at_a_time(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ENVCHECK_CACHE", str(tmp_path))
    with pytest.raises(WorkError, match="take one --stack"):
        lock.main(["--stack", "a", "--stack", "b", "--upgrade-package", "x"])
    assert lock_pin.stack_file("verl-lts-cu124").is_file()


def test_a_file_is_said_to_be_written_when_it_is(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    lock._write(tmp_path, {"build.txt": "new\n"}, dry=False)
    assert capsys.readouterr().out.startswith("wrote ")

    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("os.replace", full)
    with pytest.raises(OSError, match="No space"):
        lock._write(tmp_path, {"build.txt": "newer\n"}, dry=False)
    assert capsys.readouterr().out == ""
    assert (tmp_path / "build.txt").read_text(encoding="utf-8") == "new\n"
