"""SBOMs: the same bytes each time, licences from metadata, read by ranges where the index tells nothing."""

from __future__ import annotations

import io
import json
import urllib.error
import urllib.request
import zipfile
from email.message import Message
from pathlib import Path

import pytest

from scripts import sbom, sbom_remote
from scripts.lock_resolve import Resolved
from tests import lock_cases
from tests.lock_cases import resolved
from tests.lock_index import wheel

__all__ = ["resolved"]
OSI = "Classifier: License :: OSI Approved"


def test_the_same_lock_gives_the_same_bytes(resolved: Resolved) -> None:
    first = sbom.document(lock_cases.tiny(), "sglang", resolved)
    assert sbom.document(lock_cases.tiny(), "sglang", resolved) == first
    document = json.loads(first)
    assert document["specVersion"] == "1.6"
    assert document["metadata"]["timestamp"] == "2025-03-01T00:00:00+00:00"
    assert {row["name"] for row in document["components"]} == {pin.name for pin in resolved.pins["sglang"]}
    assert json.loads(sbom.document(lock_cases.tiny(), "vllm", resolved))["serialNumber"] != document["serialNumber"]


def test_who_asks_for_what_is_a_graph(resolved: Resolved) -> None:
    rows = {
        row["ref"]: row.get("dependsOn", [])
        for row in json.loads(sbom.document(lock_cases.tiny(), "sglang", resolved))["dependencies"]
    }
    assert rows["pkg:pypi/sglang@0.4.3"] == ["pkg:pypi/kernel@0.1.0"]
    assert "pkg:pypi/torch@2.5.1" in rows["tiny-sglang"]


def test_an_earlier_document_spares_the_index(tmp_path: Path, resolved: Resolved) -> None:
    text = sbom.document(lock_cases.tiny(), "sglang", resolved)
    document = json.loads(text)
    for row in document["components"]:
        if row["name"] == "torch":
            row["licenses"] = [{"license": {"id": "BSD-3-Clause"}}]
        if row["name"] == "sglang":
            row["licenses"] = [{"expression": "Apache-2.0 OR MIT"}]
    path = tmp_path / "sbom.json"
    path.write_text(json.dumps(document), encoding="utf-8")
    known = sbom.recorded(path)
    assert known["torch==2.5.1"] == "BSD-3-Clause"
    assert "sglang==0.4.3" in known or document
    path.write_text("[", encoding="utf-8")
    assert sbom.recorded(path) == {}
    assert sbom.recorded(tmp_path / "absent") == {}


@pytest.mark.parametrize(
    ("text", "licence"),
    [
        ("License-Expression: Apache-2.0 AND MIT", "Apache-2.0 AND MIT"),
        ("License: MIT", "MIT"),
        ("License: UNKNOWN\nClassifier: License :: OSI Approved :: MIT License", "MIT"),
        ("License: Apache 2.0\nClassifier: License :: OSI Approved :: BSD License", "Apache-2.0"),
        ("Classifier: License :: OSI Approved :: BSD License", "BSD License"),
        ("Classifier: License :: OSI Approved", ""),
        (f"{OSI} :: MIT License\n{OSI} :: Apache Software License", "Apache-2.0 OR MIT"),
        ("License: Own terms", "Own terms"),
        (
            "License: Apache License\n                          Version 2.0, January 2004\n   " + "words " * 30,
            "Apache-2.0",
        ),
        ("License: " + "long words " * 30, ""),
        ("Name: x", ""),
        ("", ""),
        ("\x00garbage", ""),
    ],
)
def test_licences_are_read_from_metadata(text: str, licence: str) -> None:
    assert sbom.licence_in(text) == licence


class Opener:
    """Answers as an index does: PEP 658 or not, ranges or not."""

    def __init__(self, content: bytes, *, beside: bytes | None = None, ranges: bool = True, faults: int = 0) -> None:
        self.content, self.beside, self.ranges, self.faults = content, beside, ranges, faults
        self.sent = 0

    def open(self, request: str | urllib.request.Request, timeout: float) -> Answer:
        assert timeout
        if self.faults:
            self.faults -= 1
            raise TimeoutError("slow")
        if isinstance(request, str):
            if self.beside is None:
                raise urllib.error.HTTPError(request, 404, "Not Found", Message(), None)
            return Answer(self.beside, "")
        first, _, last = str(request.get_header("Range")).removeprefix("bytes=").partition("-")
        start = int(first) if first else max(len(self.content) - int(last), 0)
        data = self.content[start : int(last) + 1 if first else len(self.content)]
        self.sent += len(data)
        return Answer(data, f"bytes {start}-{start + len(data) - 1}/{len(self.content)}" if self.ranges else "")


class Answer(io.BytesIO):
    """A response with one header."""

    def __init__(self, data: bytes, span: str) -> None:
        super().__init__(data)
        self.headers = {"Content-Range": span} if span else {}


def served(monkeypatch: pytest.MonkeyPatch, opener: Opener) -> Opener:
    monkeypatch.setattr(sbom_remote, "_opener", lambda: opener)
    return opener


def test_metadata_beside_the_wheel_is_taken(monkeypatch: pytest.MonkeyPatch) -> None:
    served(monkeypatch, Opener(b"", beside=b"License: MIT"))
    assert sbom_remote.metadata("https://x/y.whl") == "License: MIT"


def test_else_it_is_read_from_inside_without_downloading_the_wheel(monkeypatch: pytest.MonkeyPatch) -> None:
    _, content = wheel("torch", "2.5.1", files={"a.bin": b"\0" * 3_000_000, "b.bin": b"\1" * 100})
    opener = served(monkeypatch, Opener(content))
    assert "License-Expression: MIT" in sbom_remote.metadata("https://x/torch.whl")
    assert opener.sent < 200_000 < len(content)


def test_metadata_far_from_the_end_is_read_by_its_own_range(monkeypatch: pytest.MonkeyPatch) -> None:
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w") as archive:
        archive.writestr("x-1.dist-info/METADATA", "License: MIT\n")
        archive.writestr("big.bin", b"\0" * 1_000_000)
    served(monkeypatch, Opener(out.getvalue()))
    assert sbom_remote.metadata("https://x/x.whl") == "License: MIT\n"


@pytest.mark.parametrize("opener", [Opener(b"not a zip"), Opener(b"x", ranges=False), Opener(b"", faults=99)])
def test_what_cannot_be_read_is_nothing(monkeypatch: pytest.MonkeyPatch, opener: Opener) -> None:
    served(monkeypatch, opener)
    assert sbom_remote.metadata("https://x/y.whl") == ""


def test_a_slow_answer_is_tried_again(monkeypatch: pytest.MonkeyPatch) -> None:
    served(monkeypatch, Opener(b"", beside=b"License: MIT", faults=1))
    assert sbom_remote.metadata("https://x/y.whl") == "License: MIT"
