"""Locks that were edited: the lines are named, whatever was changed in them, and sources are held to their digest."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest

from envcheck.errors import DataError
from scripts import files, lock_check, lock_check_edits, lock_files, lock_text
from scripts.lock_resolve import Resolved
from scripts.lock_text import Pin
from tests import lock_cases
from tests.lock_cases import resolved

__all__ = ["resolved"]

PINS = [Pin(name=name, version="1", marker="python_version < '3.12'", hashes=("a" * 64, "b" * 64)) for name in "xyz"]


@pytest.mark.parametrize(
    ("old", "new", "numbers"),
    [
        ("y==1 ; python_version < '3.12'", "y==1 ; python_version < '3.11'", [6]),
        (f" \\\n    --hash=sha256:{'b' * 64}\nz==1", "\nz==1", [7]),
        ("z==1", "y==2 \\\n    --hash=sha256:00\nz==1", [9, 10]),
    ],
)
def test_the_edited_lines_are_found(old: str, new: str, numbers: list[int]) -> None:
    before = lock_text.render(PINS, ["for a test"])
    assert old in before
    assert lock_check_edits.lines(before, before.replace(old, new)) == numbers
    assert lock_check_edits.lines(before, before) == []


@pytest.mark.process
def test_git_knows_the_lock_as_it_was(tmp_path: Path) -> None:
    path = lock_cases.lock_of(tmp_path / "build.txt", PINS)
    whole = path.read_text(encoding="utf-8")
    edited = whole.replace("'3.12'", "'3.11'").replace("x==1", "x==2")
    assert list(lock_check_edits.told(path, edited, "nox -s lock")) == [
        "build.txt: was edited by hand: nox -s lock writes it again"
    ], "git does not know it yet"
    for words in (["init", "-q"], ["add", "."], ["-c", "user.name=a", "-c", "user.email=a", "commit", "-qm", "a"]):
        subprocess.run(["git", "-C", str(tmp_path), *words], check=True)
    assert list(lock_check_edits.told(path, edited, "nox -s lock")) == [
        "build.txt, line 3, 6, 9: was edited by hand: nox -s lock writes it again"
    ]
    assert "line 1, 2, 3, 4, 5 and 6 more" in next(lock_check_edits.told(path, whole.replace("\n", "\r\n"), "x"))


def test_a_lock_that_is_no_text_is_a_fault_and_no_crash(
    tmp_path: Path, resolved: Resolved, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(lock_check_edits, "committed", lambda _: "")
    place = lock_cases.lay(tmp_path, lock_cases.tiny(), resolved)
    path = place / "requirements-sglang.txt"
    path.write_bytes(path.read_bytes().replace(b"\n", b"\r\n"))
    (place / "build.txt").write_bytes(b"# \xff\xfe\n")
    (place / "sources.toml").write_bytes(b"\xff")
    found = list(lock_check.offline(lock_cases.tiny(), tmp_path, proof=False))
    assert "requirements-sglang.txt: was edited by hand: nox -s lock writes it again" in found, "other line ends"
    assert any("build.txt: byte 2: expected text (UTF-8), found other bytes" in line for line in found)
    assert any(line.startswith("sources.toml: ") and "byte 0" in line for line in found)
    with pytest.raises(DataError, match="byte 2"):
        lock_text.exact(place / "build.txt")


SAID = "the stack file says"


@pytest.mark.parametrize(
    ("old", "new", "fault"),
    [
        ("e" * 64, "f" * 64, "sources.toml: was edited by hand"),
        ("github.com/volcengine", "github.com/other", f"url is 'https://github.com/other/verl.git', {SAID} 'https"),
    ],
)
def test_an_edited_source_is_found(tmp_path: Path, old: str, new: str, fault: str) -> None:
    path = tmp_path / "sources.toml"
    path.write_text(lock_cases.SOURCES, encoding="utf-8")
    assert lock_files.source_faults(lock_cases.tiny(), path) == []
    path.write_text(lock_cases.SOURCES.replace(old, new), encoding="utf-8")
    found = lock_files.source_faults(lock_cases.tiny(), path)
    assert found[0] == "sources.toml: was edited by hand"
    assert any(fault in line for line in found)


def test_a_patch_that_is_not_the_pinned_one_is_found(tmp_path: Path) -> None:
    row = 'commit = "333e6d624a11cd971b6e1ce32eb7d48fa36890fd"\n'
    stack = lock_cases.tiny(lock_cases.STACK.replace(row, row + 'patches = ["own.patch", "torch:theirs.patch"]\n'))
    (tmp_path / "patches").mkdir()
    (tmp_path / "patches" / "own.patch").write_bytes(b"patch")
    digest = files.sha256(tmp_path / "patches" / "own.patch")
    rows = [("own.patch", digest), ("torch:theirs.patch", "0" * 64)]
    text = lock_cases.SOURCES.partition("\n\n")[2]
    body = 'version = 1\nstack = "tiny"\n\n' + text
    body += "".join(f'\n[[source.patch]]\nname = "{name}"\nsha256 = "{value}"\n' for name, value in rows)
    path = tmp_path / "sources.toml"
    path.write_text(lock_text.sealed(["# x"], body), encoding="utf-8")
    assert lock_files.source_faults(stack, path) == []
    (tmp_path / "patches" / "own.patch").write_bytes(b"another")
    assert f"verl: sha256 of own.patch is '{digest}', the file's is" in lock_files.source_faults(stack, path)[0]
    (tmp_path / "patches" / "own.patch").unlink()
    assert lock_files.source_faults(stack, path)[0].endswith("the file's is None")
