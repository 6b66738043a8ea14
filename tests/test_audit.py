"""Audits: OSV records against a lock, names that are not what they seem."""

from __future__ import annotations

import http.client
import io
import json
import urllib.request
import zipfile
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from envcheck import stack as stacks
from envcheck.errors import DataError, EnvcheckError, WorkError
from scripts import audit, audit_database
from scripts.lock_resolve import Resolved
from scripts.lock_text import Pin
from tests import lock_cases
from tests.lock_cases import resolved

__all__ = ["resolved"]


def record(name: str = "torch", **changes: Any) -> dict[str, Any]:
    events = [{"introduced": "0"}, {"fixed": "2.6.0"}]
    row = {"package": {"ecosystem": "PyPI", "name": name}, "ranges": [{"type": "ECOSYSTEM", "events": events}]}
    return {
        "id": "PYSEC-2025-41",
        "aliases": ["CVE-2025-32434"],
        "summary": "weights_only",
        "affected": [row],
    } | changes


def place(tmp_path: Path, resolved: Resolved) -> list[str]:
    lock_cases.lay(tmp_path, lock_cases.tiny(), resolved)
    return ["--stack", str(lock_cases.stack_file(tmp_path)), "--root", str(tmp_path)]


def database(tmp_path: Path, *records: object) -> str:
    path = tmp_path / "osv.json"
    path.write_text(json.dumps(list(records)), encoding="utf-8")
    return str(path)


def test_a_vulnerable_version_is_found_with_what_fixes_it(
    tmp_path: Path, resolved: Resolved, capsys: pytest.CaptureFixture[str]
) -> None:
    words = place(tmp_path, resolved)
    assert audit.main([*words, "--database", database(tmp_path, record()), "--engine", "sglang"]) == 1
    out = capsys.readouterr().out
    assert (
        "tiny/requirements-sglang.txt: torch==2.5.1: PYSEC-2025-41 (CVE-2025-32434): weights_only; fixed in 2.6.0"
        in out
    )
    assert "1 locks: 1 findings, 0 ignored" in out


def test_what_is_built_from_source_is_checked_too(
    tmp_path: Path, resolved: Resolved, capsys: pytest.CaptureFixture[str]
) -> None:
    words = [*place(tmp_path, resolved), "--database"]
    row = record(affected=[{"package": {"ecosystem": "PyPI", "name": "flash-attn"}, "versions": ["2.7.4"]}])
    assert audit.main([*words, database(tmp_path, row)]) == 1
    out = capsys.readouterr().out
    assert "tiny/sources.toml: flash-attn==2.7.4: PYSEC-2025-41" in out
    assert "2 locks: 1 findings" in out


def test_an_index_package_of_another_project_is_not_what_is_built_here() -> None:
    names = {pin.name for pin in audit.from_source(stacks.load(), "sglang")}
    assert {"flash-attn", "transformer-engine", "verl"} <= names
    assert "apex" not in names


def test_what_is_ignored_needs_a_reason_and_is_still_shown(
    tmp_path: Path, resolved: Resolved, capsys: pytest.CaptureFixture[str]
) -> None:
    words = [*place(tmp_path, resolved), "--database", database(tmp_path, record())]
    assert audit.main([*words, "--ignore", "CVE-2025-32434=no foreign checkpoints are loaded"]) == 0
    assert "accepted: no foreign checkpoints are loaded" in capsys.readouterr().out
    with pytest.raises(EnvcheckError, match="says no reason"):
        audit.main([*words, "--ignore", "CVE-2025-32434"])


def test_without_a_database_only_names_are_checked(
    tmp_path: Path, resolved: Resolved, capsys: pytest.CaptureFixture[str]
) -> None:
    resolved.pins["vllm"].append(Pin(name="apex", version="0.9.10", hashes=("a" * 64,)))
    resolved.pins["vllm"].append(Pin(name="verl", version="0.2", hashes=("b" * 64,)))
    words = place(tmp_path, resolved)
    assert audit.main([*words, "--format", "json"]) == 1
    document = json.loads(capsys.readouterr().out)
    assert document["database"] is False
    assert [(row["package"], row["kind"]) for row in document["findings"]] == [
        ("apex==0.9.10", "name"),
        ("verl==0.2", "name"),
    ]
    assert "NVIDIA's apex" in document["findings"][0]["text"]
    assert "volcengine/verl" in document["findings"][1]["text"]


def test_a_clean_lock_is_clean(tmp_path: Path, resolved: Resolved, capsys: pytest.CaptureFixture[str]) -> None:
    assert audit.main(place(tmp_path, resolved)) == 0
    assert "2 locks: 0 findings" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("events", "versions", "hit"),
    [
        ([{"introduced": "0"}, {"fixed": "2.5.1"}], [], False),
        ([{"introduced": "0"}, {"last_affected": "2.5.1"}], [], True),
        ([{"introduced": "0"}, {"last_affected": "2.5.0"}], [], False),
        ([{"introduced": "2.5.1"}], [], True),
        ([{"introduced": "2.6"}], [], False),
        ([{"introduced": "1"}, {"fixed": "2"}, {"introduced": "2.5"}, {"fixed": "2.6"}], [], True),
        ([], ["2.5.1"], True),
        ([], ["2.5"], False),
        ([{"introduced": "0"}, {"fixed": "not a version"}], [], False),
    ],
)
def test_ranges(events: list[dict[str, str]], versions: list[str], hit: bool) -> None:
    row = {"ranges": [{"type": "ECOSYSTEM", "events": events}], "versions": versions}
    assert audit_database.affects(row, "2.5.1") is hit


def test_git_ranges_and_other_ecosystems_do_not_count() -> None:
    other = record(affected=[{"package": {"ecosystem": "npm", "name": "torch"}, "versions": ["2.5.1"]}])
    assert not list(audit_database.hits([other], [Pin(name="torch", version="2.5.1")]))
    assert not audit_database.affects({"ranges": [{"type": "GIT", "events": [{"introduced": "0"}]}]}, "2.5.1")


def test_databases_come_as_one_record_lists_directories_and_archives(tmp_path: Path) -> None:
    one = tmp_path / "records" / "one.json"
    one.parent.mkdir()
    one.write_text(json.dumps(record()), encoding="utf-8")
    (tmp_path / "vulns.json").write_text(json.dumps({"vulns": [record(), record("other")]}), encoding="utf-8")
    packed = tmp_path / "all.zip"
    with zipfile.ZipFile(packed, "w") as archive:
        archive.writestr("PYSEC-1.json", json.dumps(record(withdrawn="2025-01-01")))
        archive.writestr("PYSEC-2.json", json.dumps(record()))
        archive.writestr("README", "x")
    for path in (one.parent, one, tmp_path / "vulns.json", packed):
        assert len(audit_database.load(str(path), {"torch"})) == 1
    assert len(audit_database.load(one.as_uri(), {"torch"})) == 1
    assert audit_database.load(str(one), {"numpy"}) == []


@pytest.mark.parametrize(
    ("text", "said"), [("nonsense", "JSON or a zip"), ("3", "a record or a list"), ("[]", "OSV records")]
)
def test_damaged_databases_are_named(tmp_path: Path, text: str, said: str) -> None:
    path = tmp_path / "osv.json"
    path.write_text(text, encoding="utf-8")
    with pytest.raises(DataError, match=said):
        audit_database.load(str(path), {"torch"})
    with pytest.raises(WorkError, match="absent"):
        audit_database.load(str(tmp_path / "absent.json"), {"torch"})


def test_an_address_is_tried_again_and_then_given_up(monkeypatch: pytest.MonkeyPatch) -> None:
    answers: list[bytes | None] = [None, json.dumps([record()]).encode()]

    def answer(*_: object, **__: object) -> io.BytesIO:
        content = answers.pop(0)
        if content is None:
            raise http.client.IncompleteRead(b"[{")
        return io.BytesIO(content)

    monkeypatch.setattr(urllib.request, "urlopen", answer)
    assert len(audit_database.load("https://example.org/all.json", {"torch"})) == 1
    answers[:] = [None] * audit_database.ATTEMPTS
    with pytest.raises(WorkError, match="could not be read in 3 attempts: the answer broke off"):
        audit_database.load("https://example.org/all.json", {"torch"})


@given(st.integers(0, 30), st.integers(0, 30), st.integers(0, 30))
def test_a_range_holds_exactly_from_introduced_to_before_fixed(start: int, length: int, now: int) -> None:
    events = [{"fixed": f"1.{start + length + 1}"}, {"introduced": f"1.{start}"}]
    row = {"ranges": [{"type": "ECOSYSTEM", "events": events}]}
    assert audit_database.affects(row, f"1.{now}") is (start <= now < start + length + 1)


@pytest.mark.parametrize(
    "affected",
    [None, [{"package": None}], [{"package": {"ecosystem": "PyPI", "name": "torch"}, "ranges": None}], [3]],
)
def test_a_record_of_another_shape_is_named(tmp_path: Path, affected: object) -> None:
    path = tmp_path / "records.json"
    path.write_text(json.dumps([{"id": "X-1", "affected": affected}]), encoding="utf-8")
    with pytest.raises(DataError, match="record X-1: expected packages, versions and ranges as OSV has them"):
        audit_database.load(str(path), {"torch"})


def test_an_engine_that_the_stack_has_not_is_named() -> None:
    with pytest.raises(EnvcheckError, match="has no engine 'tgi'"):
        audit.main(["--engine", "tgi"])
