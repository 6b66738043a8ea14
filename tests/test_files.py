"""Files are whole or not there."""

from __future__ import annotations

import hashlib
import io
import tarfile
import zipfile
from pathlib import Path

import pytest

from envcheck.errors import WorkError
from scripts import files


def test_write_replaces_whole(tmp_path: Path) -> None:
    path = tmp_path / "deep" / "file.txt"
    files.write(path, "one")
    files.write(path, b"two")
    assert path.read_bytes() == b"two"
    assert [item.name for item in path.parent.iterdir()] == ["file.txt"]


def test_failed_write_leaves_the_old(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "file.txt"
    files.write(path, "old")

    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("os.replace", full)
    with pytest.raises(OSError, match="No space left"):
        files.write(path, "new")
    assert path.read_text() == "old"
    assert list(tmp_path.iterdir()) == [path]


def test_sha256_both_ways(tmp_path: Path) -> None:
    path = tmp_path / "x"
    path.write_bytes(b"abc" * 1000)
    assert files.sha256(path) == files._sha256(path) == hashlib.sha256(b"abc" * 1000).hexdigest()


@pytest.mark.parametrize(
    ("count", "text"),
    [(0, "0 B"), (999, "999 B"), (13_124, "13 kB"), (99_999, "100 kB"), (100_000, "0.1 MB"), (2_400_000_000, "2.4 GB")],
)
def test_a_size_is_told_in_a_unit_that_fits(count: int, text: str) -> None:
    assert files.size(count) == text


def test_a_directory_that_is_not_ours_is_not_replaced(tmp_path: Path) -> None:
    place = tmp_path / "home"
    files.check_ours(place, "mark")
    place.mkdir()
    files.check_ours(place, "mark")
    (place / "thesis.txt").touch()
    with pytest.raises(WorkError, match="was not made by this command"):
        files.check_ours(place, "mark")
    (place / "mark").write_text("ours")
    files.check_ours(place, "mark")
    with pytest.raises(WorkError, match="would replace all of it"):
        files.check_ours(place, "mark", "another")
    with pytest.raises(WorkError, match="name another directory"):
        files.check_ours(place / "mark", "mark")


def test_replacing_swaps_when_it_ends_well(tmp_path: Path) -> None:
    place = tmp_path / "env"
    place.mkdir()
    (place / "old").touch()
    with files.replacing(place) as work:
        (work / "new").touch()
    assert [item.name for item in place.iterdir()] == ["new"]
    assert list(tmp_path.iterdir()) == [place]


def test_replacing_keeps_the_old_when_it_fails(tmp_path: Path) -> None:
    place = tmp_path / "env"
    place.mkdir()
    (place / "old").touch()
    with pytest.raises(KeyboardInterrupt), files.replacing(place):
        raise KeyboardInterrupt
    assert [item.name for item in place.iterdir()] == ["old"]
    assert list(tmp_path.iterdir()) == [place]


def _tar(path: Path, name: str) -> Path:
    with tarfile.open(path, "w:gz") as archive:
        member = tarfile.TarInfo(name)
        member.size = 2
        archive.addfile(member, io.BytesIO(b"hi"))
    return path


def _zip(path: Path, name: str) -> Path:
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr(name, "hi")
    return path


@pytest.mark.parametrize("make", [_tar, _zip])
def test_unpack(make: object, tmp_path: Path) -> None:
    archive = make(tmp_path / "a", "top/x")  # type: ignore[operator]
    files.unpack(archive, tmp_path / "out")
    assert (tmp_path / "out" / "top" / "x").read_text() == "hi"


@pytest.mark.parametrize("make", [_tar, _zip])
@pytest.mark.parametrize("name", ["../evil", "/etc/evil", "a/../../evil"])
def test_unpack_refuses_to_leave(make: object, name: str, tmp_path: Path) -> None:
    archive = make(tmp_path / "a", name)  # type: ignore[operator]
    out = tmp_path / "deep" / "out"
    with pytest.raises(WorkError, match="would land outside"):
        files.unpack(archive, out)
    assert not (tmp_path / "evil").exists()
    assert not (tmp_path / "deep" / "evil").exists()
    assert not Path("/etc/evil").exists()


def test_unpack_of_a_truncated_archive(tmp_path: Path) -> None:
    archive = _tar(tmp_path / "a.tar.gz", "x")
    archive.write_bytes(archive.read_bytes()[:30])
    with pytest.raises(WorkError, match="could not be unpacked"):
        files.unpack(archive, tmp_path / "out")


@pytest.mark.parametrize("with_filter", [True, False], ids=["new-python", "3.11.2"])
@pytest.mark.parametrize(
    ("kind", "link"),
    [(tarfile.SYMTYPE, "../../etc"), (tarfile.LNKTYPE, "../secret"), (tarfile.SYMTYPE, "/etc"), (tarfile.CHRTYPE, "")],
)
def test_unpack_refuses_links_out_and_devices(
    kind: bytes, link: str, with_filter: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    if not with_filter:
        monkeypatch.delattr(tarfile, "data_filter", raising=False)
    with tarfile.open(tmp_path / "a.tar", "w") as archive:
        member = tarfile.TarInfo("top/link")
        member.type, member.linkname = kind, link
        archive.addfile(member)
    with pytest.raises(WorkError, match="would land outside"):
        files.unpack(tmp_path / "a.tar", tmp_path / "out")
    assert not (tmp_path / "out" / "top" / "link").is_symlink()


def test_unpack_keeps_links_inside_and_programs(tmp_path: Path) -> None:
    with tarfile.open(tmp_path / "a.tar", "w") as archive:
        program = tarfile.TarInfo("top/run")
        program.mode = 0o4777
        archive.addfile(program, io.BytesIO())
        link = tarfile.TarInfo("top/also")
        link.type, link.linkname = tarfile.SYMTYPE, "run"
        archive.addfile(link)
    files.unpack(tmp_path / "a.tar", tmp_path / "out")
    assert (tmp_path / "out/top/run").stat().st_mode & 0o7777 == 0o755
    assert (tmp_path / "out/top/also").readlink() == Path("run")
