"""Shipped documents are parsed once, and again as soon as they change."""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import Any

import pytest

from envcheck import data, limits, stack


class Parser:
    """Counts how often it is asked."""

    def __init__(self) -> None:
        self.asked = 0

    def __call__(self, text: str) -> dict[str, Any]:
        self.asked += 1
        return stack.parse_toml(text, "x.toml")


@pytest.fixture
def document(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    (tmp_path / "limits").mkdir()
    path = tmp_path / "limits" / "x.toml"
    path.write_text("a = 1\n")
    monkeypatch.setattr(data, "ROOT", str(tmp_path))
    monkeypatch.setattr(sys, "dont_write_bytecode", False)
    monkeypatch.setattr(sys, "pycache_prefix", None)
    return path


def test_a_document_is_parsed_again_only_where_it_changed(document: Path) -> None:
    """What was kept is valid for one size and time."""
    parse = Parser()
    assert [data.parsed("limits/x.toml", parse) for _ in range(3)] == [{"a": 1}] * 3
    assert parse.asked == 1
    document.write_text("a = 2\n")
    os.utime(document, ns=(1, 1))
    assert data.parsed("limits/x.toml", parse) == {"a": 2}
    assert parse.asked == 2


@pytest.mark.parametrize("content", [b"", b"\0", b"rubbish", b"i\1\0\0\0", b"[\0\0\0\0"])
def test_damaged_copies_are_made_anew(document: Path, content: bytes) -> None:
    """A copy that was cut off, or is of another program, is not believed."""
    parse = Parser()
    data.parsed("limits/x.toml", parse)
    kept = next((document.parent / "__pycache__").iterdir())
    kept.write_bytes(content)
    assert data.parsed("limits/x.toml", parse) == {"a": 1}
    assert parse.asked == 2
    assert data.parsed("limits/x.toml", parse) == {"a": 1}
    assert parse.asked == 2


def test_nothing_is_kept_where_nothing_may_be_written(document: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """As Python does with its own compiled files."""
    monkeypatch.setattr(sys, "dont_write_bytecode", True)
    parse = Parser()
    assert [data.parsed("limits/x.toml", parse) for _ in range(2)] == [{"a": 1}] * 2
    assert parse.asked == 2
    assert not (document.parent / "__pycache__").exists()
    monkeypatch.setattr(sys, "dont_write_bytecode", False)
    (document.parent / "__pycache__").write_text("a file")
    assert data.parsed("limits/x.toml", parse) == {"a": 1}


def test_what_cannot_be_kept_is_parsed_each_time(document: Path) -> None:
    """A date has no form there."""
    document.write_text("a = 2020-01-01\n")
    parse = Parser()
    data.parsed("limits/x.toml", parse)
    data.parsed("limits/x.toml", parse)
    assert parse.asked == 2


def test_every_shipped_table_reads_alike_kept_or_not() -> None:
    """Kept copies give what the files say."""
    for name in limits.load().tables:
        assert limits.shipped(name) == limits.parse(data.read(f"limits/{name}.toml"), f"{name}.toml")
    for name in stack.names():
        assert stack.load(name) == stack.parse(data.read(f"stacks/{name}.toml"), f"{name}.toml")
