"""Where documents go, and how text fits there."""

from __future__ import annotations

import io
import os
import sys
from importlib.metadata import PackageNotFoundError
from pathlib import Path
from typing import Any

import pytest

from envcheck import output, version
from envcheck.report.style import NARROWEST, WIDEST, Style, one_line, safe, style_for


def test_a_write_that_fails_leaves_the_old_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "x"
    path.write_text("old")

    def fail(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "replace", fail)
    with pytest.raises(OSError, match="No space") as caught:
        output.write(str(path), b"new")
    assert caught.value.filename == str(path)
    assert path.read_text() == "old"
    assert list(tmp_path.iterdir()) == [path]


def test_a_link_stays_one_and_its_target_is_replaced(tmp_path: Path) -> None:
    (tmp_path / "real").write_text("old")
    (tmp_path / "link").symlink_to("real")
    output.write(str(tmp_path / "link"), b"new")
    assert (tmp_path / "link").is_symlink()
    assert (tmp_path / "real").read_bytes() == b"new"


def test_a_new_file_has_the_mode_of_the_umask(tmp_path: Path) -> None:
    before = os.umask(0o027)
    try:
        output.write(str(tmp_path / "x"), b"")
    finally:
        os.umask(before)
    assert (tmp_path / "x").stat().st_mode & 0o777 == 0o640


def test_a_pipe_is_written_to_as_it_is(tmp_path: Path) -> None:
    fifo = tmp_path / "fifo"
    os.mkfifo(fifo)
    reader = os.open(fifo, os.O_RDONLY | os.O_NONBLOCK)
    output.write(str(fifo), b"hello")
    assert os.read(reader, 10) == b"hello"
    os.close(reader)


def test_a_stream_of_text_only_is_served(monkeypatch: pytest.MonkeyPatch) -> None:
    stream = io.StringIO()
    monkeypatch.setattr(sys, "stdout", stream)
    output.deliver("text", None)
    assert stream.getvalue() == "text"
    assert output.encoding_of(stream) == "ascii"


def test_a_reader_that_left_is_no_error(monkeypatch: pytest.MonkeyPatch) -> None:
    class Closed(io.StringIO):
        def write(self, _: str) -> int:
            raise BrokenPipeError

    monkeypatch.setattr(sys, "stdout", Closed())
    output.deliver("text", None)
    sys.stdout.close()


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("plain\ttext\n", "plain\ttext\n"),
        ("a\r\nb", "a\nb"),
        ("a\rb", "a\\x0db"),
        ("\x1b]0;title\x07", "\\x1b]0;title\\x07"),
        ("\x9b31m", "\\x9b31m"),
        ("\udc80", "\\udc80"),
        ("\u202eevil", "\\u202eevil"),
        ("zürich 東京", "zürich 東京"),
    ],
)
def test_text_that_would_steer_a_terminal_is_escaped(text: str, shown: str) -> None:
    assert safe(text) == shown


def test_one_line_has_one() -> None:
    assert one_line(" a\n b\t c ") == "a b c"


@pytest.mark.parametrize(
    ("columns", "width"), [("60", 60), ("5", NARROWEST), ("900", WIDEST), ("", 100), ("zero", 100), ("0", 100)]
)
def test_width(columns: str, width: int) -> None:
    assert style_for(io.StringIO(), {"COLUMNS": columns}, "auto", "utf-8").width == width


def test_width_of_a_terminal(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "get_terminal_size", lambda _: os.terminal_size((72, 20)))
    with Path(os.devnull).open() as stream:
        assert style_for(stream, {}, "auto", "utf-8").width == 72
        monkeypatch.setattr(os, "get_terminal_size", lambda _: os.terminal_size((0, 0)))
        assert style_for(stream, {}, "auto", "utf-8").width == 100


@pytest.mark.parametrize(("encoding", "fits"), [("utf-8", True), ("ascii", False), ("latin-1", False), ("none", False)])
def test_symbols_fit_the_encoding(encoding: str, fits: bool) -> None:
    assert style_for(io.StringIO(), {}, "auto", encoding).unicode is fits


def test_folding_keeps_lines_and_indents() -> None:
    style = Style(width=40)
    assert style.wrap("one\n\ntwo", indent="  ", first="- ") == "- one\n\n  two"
    assert style.wrap("", indent="  ", first="- ") == "-"
    assert style.paint("", "red") == ""


def test_version_of_a_checkout_and_of_neither(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    def absent(_: str) -> Any:
        raise PackageNotFoundError

    monkeypatch.setattr("importlib.metadata.version", absent)
    assert version.version()[0].isdigit()
    monkeypatch.setattr("envcheck.data.ROOT", str(tmp_path / "envcheck"))
    assert version.version() == version.UNKNOWN
    (tmp_path / "envcheck").mkdir()
    (tmp_path / "pyproject.toml").write_text("nothing")
    assert version.version() == version.UNKNOWN
