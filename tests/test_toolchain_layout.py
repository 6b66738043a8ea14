"""Where files of Debian packages and vendor archives go, so that the result is a CUDA_HOME."""

from __future__ import annotations

import io
import os
import tarfile
from pathlib import Path

import pytest

from envcheck.errors import WorkError
from scripts import toolchain_layout as layout
from scripts.toolchain_pins import Archive

TARGET = "targets/x86_64-linux"
ARCHIVE = Archive(name="pkg", version="1", path="pool/pkg_1_amd64.deb", size=1, sha256="0" * 64)


def tar(members: dict[str, bytes | str], *, mode: str = "w:xz", executable: tuple[str, ...] = ()) -> bytes:
    """A tar archive: bytes are files, text is the target of a link."""
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode=mode) as file:  # type: ignore[call-overload]
        for name, content in members.items():
            info = tarfile.TarInfo(name)
            if isinstance(content, str):
                info.type, info.linkname = tarfile.SYMTYPE, content
                file.addfile(info)
            else:
                info.size, info.mode = len(content), 0o755 if name in executable else 0o644
                file.addfile(info, io.BytesIO(content))
    return out.getvalue()


def deb(data: bytes) -> bytes:
    """A Debian package: ar with debian-binary, control.tar and data.tar."""

    def member(name: str, content: bytes) -> bytes:
        head = f"{name:<16}{0:<12}{0:<6}{0:<6}{'100644':<8}{len(content):<10}`\n".encode()
        return head + content + b"\n" * (len(content) % 2)

    parts = [("debian-binary", b"2.0\n"), ("control.tar.xz", b"odd"), ("data.tar.xz", data)]
    return b"!<arch>\n" + b"".join(member(*part) for part in parts)


@pytest.mark.parametrize(
    ("path", "place"),
    [
        ("usr/include/cuda_runtime.h", f"{TARGET}/include/cuda_runtime.h"),
        ("usr/include/thrust/version.h", f"{TARGET}/include/thrust/version.h"),
        ("usr/lib/x86_64-linux-gnu/libcublas.so.12", f"{TARGET}/lib/libcublas.so.12"),
        ("usr/lib/x86_64-linux-gnu/stubs/libcuda.so", f"{TARGET}/lib/stubs/libcuda.so"),
        ("usr/lib/x86_64-linux-gnu/libcudart_static.a", f"{TARGET}/lib/libcudart_static.a"),
        ("usr/lib/x86_64-linux-gnu/libcublas_static.a", None),
        ("usr/lib/x86_64-linux-gnu/libnppc.so", None),
        ("usr/lib/x86_64-linux-gnu/cuda-gdb/libcudacore.a", None),
        ("usr/lib/nvidia-cuda-toolkit/bin/nvcc", "bin/nvcc"),
        ("usr/lib/nvidia-cuda-toolkit/bin/cicc", "nvvm/bin/cicc"),
        ("usr/lib/nvidia-cuda-toolkit/bin/crt/link.stub", "bin/crt/link.stub"),
        ("usr/lib/nvidia-cuda-toolkit/bin/g++", None),
        ("usr/lib/nvidia-cuda-toolkit/libdevice/libdevice.10.bc", "nvvm/libdevice/libdevice.10.bc"),
        ("usr/lib/nvidia-cuda-toolkit/compute-sanitizer/compute-sanitizer", "compute-sanitizer/compute-sanitizer"),
        ("usr/lib/nvidia-cuda-toolkit/other", None),
        ("usr/bin/ptxas", "bin/ptxas"),
        ("usr/bin/nvcc", None),
        ("usr/share/doc/nvidia-cuda-toolkit/copyright", "share/doc/nvidia-cuda-toolkit/copyright"),
        ("usr/share/doc/nvidia-cuda-toolkit/changelog.gz", None),
        ("etc/nvcc.profile", None),
    ],
)
def test_places_of_debian_files(path: str, place: str | None) -> None:
    assert layout.debian_place(path) == place


@pytest.mark.parametrize(
    ("path", "place"),
    [
        ("cuda_nvcc-linux-x86_64-12.4.131-archive/bin/nvcc", "bin/nvcc"),
        ("cuda_nvcc-linux-x86_64-12.4.131-archive/bin/nvcc.profile", None),
        ("cuda_nvcc-linux-x86_64-12.4.131-archive/nvvm/bin/cicc", "nvvm/bin/cicc"),
        ("cuda_cudart-linux-x86_64-12.4.127-archive/include/cuda_runtime.h", f"{TARGET}/include/cuda_runtime.h"),
        ("libcublas-linux-x86_64-12.4.5.8-archive/lib/libcublas.so", f"{TARGET}/lib/libcublas.so"),
        ("libcublas-linux-x86_64-12.4.5.8-archive/lib/libcublas_static.a", None),
        ("libcublas-linux-x86_64-12.4.5.8-archive/LICENSE", "share/doc/libcublas/LICENSE"),
        ("libcublas-linux-x86_64-12.4.5.8-archive/pkg-config/x.pc", None),
    ],
)
def test_places_of_vendor_files(path: str, place: str | None) -> None:
    assert layout.redist_place(path) == place


@pytest.mark.parametrize(
    ("path", "place"),
    [
        ("usr/bin/x86_64-linux-gnu-g++-10", "usr/bin/x86_64-linux-gnu-g++-10"),
        ("usr/lib/gcc/x86_64-linux-gnu/10/cc1plus", "usr/lib/gcc/x86_64-linux-gnu/10/cc1plus"),
        ("usr/lib/x86_64-linux-gnu/libisl.so.23.0.0", "programs/lib/libisl.so.23.0.0"),
        ("lib/x86_64-linux-gnu/libz.so.1", "programs/lib/libz.so.1"),
        ("usr/lib/x86_64-linux-gnu/libbfd-2.35.2-system.so", "programs/lib/libbfd-2.35.2-system.so"),
        ("lib/x86_64-linux-gnu/libc.so.6", "lib/x86_64-linux-gnu/libc.so.6"),
        ("usr/share/doc/gcc-10-base/copyright", "share/doc/gcc-10-base/copyright"),
        ("usr/share/man/man1/gcc.1.gz", None),
        ("usr/share/doc/gcc-10-base/changelog.gz", None),
    ],
)
def test_places_of_the_compilers_files(path: str, place: str | None) -> None:
    assert layout.gcc_place(path) == place


def test_the_compilers_prefix_stands_for_the_root(tmp_path: Path) -> None:
    file, into = tmp_path / "x.deb", tmp_path / "prefix"
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w:xz") as archive:
        for name, kind, target in (
            ("./lib/x86_64-linux-gnu/libdl.so.2", tarfile.REGTYPE, ""),
            ("./usr/lib/x86_64-linux-gnu/libdl.so", tarfile.SYMTYPE, "/lib/x86_64-linux-gnu/libdl.so.2"),
            ("./usr/bin/one", tarfile.REGTYPE, ""),
            ("./usr/bin/two", tarfile.LNKTYPE, "./usr/bin/one"),
            ("./usr/bin/three", tarfile.LNKTYPE, "./usr/share/man/lost"),
        ):
            info = tarfile.TarInfo(name)
            info.type, info.linkname = kind, target
            archive.addfile(info)
    file.write_bytes(deb(out.getvalue()))
    layout.unpack("gcc", ARCHIVE, file, into)
    assert (into / "usr/lib/x86_64-linux-gnu/libdl.so").resolve() == into / "lib/x86_64-linux-gnu/libdl.so.2"
    assert (into / "usr/bin/two").samefile(into / "usr/bin/one")
    assert not (into / "usr/bin/three").exists()


def unpacked(tmp_path: Path, members: dict[str, bytes | str], *, executable: tuple[str, ...] = ()) -> Path:
    file, into = tmp_path / "x.deb", tmp_path / "prefix"
    file.write_bytes(deb(tar(members, executable=executable)))
    layout.unpack("debian", ARCHIVE, file, into)
    return into


def test_a_debian_package_is_unpacked_to_its_places(tmp_path: Path) -> None:
    members: dict[str, bytes | str] = {
        "./usr/lib/nvidia-cuda-toolkit/bin/nvcc": b"elf",
        "./usr/lib/x86_64-linux-gnu/libx.so.1": b"elf",
        "./usr/lib/x86_64-linux-gnu/libx.so": "libx.so.1",
        "./etc/nvcc.profile": b"not wanted",
    }
    into = unpacked(tmp_path, members, executable=("./usr/lib/nvidia-cuda-toolkit/bin/nvcc",))
    found = sorted(str(path.relative_to(into)) for path in into.rglob("*") if not path.is_dir())
    assert found == ["bin/nvcc", f"{TARGET}/lib/libx.so", f"{TARGET}/lib/libx.so.1"]
    assert os.access(into / "bin/nvcc", os.X_OK)
    assert (into / f"{TARGET}/lib/libx.so").read_bytes() == b"elf"


def test_members_and_links_that_leave_the_prefix_are_left_out(tmp_path: Path) -> None:
    members: dict[str, bytes | str] = {
        "./usr/include/../../../evil.h": b"x",
        "./usr/include/out.h": "../../../../../../etc/passwd",
        "./usr/include/root.h": "/etc/passwd",
        "./usr/include/good.h": b"x",
    }
    into = unpacked(tmp_path, members)
    assert [path.name for path in into.rglob("*.h")] == ["good.h"]


def test_a_vendor_archive_is_unpacked(tmp_path: Path) -> None:
    file = tmp_path / "x.tar.xz"
    file.write_bytes(tar({"cuda_nvcc-1-archive/bin/nvcc": b"elf", "cuda_nvcc-1-archive/LICENSE": b"EULA"}))
    layout.unpack("redist", ARCHIVE, file, tmp_path / "prefix")
    assert (tmp_path / "prefix/bin/nvcc").read_bytes() == b"elf"
    assert (tmp_path / "prefix/share/doc/cuda_nvcc/LICENSE").read_bytes() == b"EULA"


@pytest.mark.parametrize(
    "content",
    [
        pytest.param(b"garbage", id="not-ar"),
        pytest.param(b"!<arch>\n" + b"debian-binary   " + b" " * 32 + b"4         `\n2.0\n", id="no-data"),
        pytest.param(deb(tar({"./usr/include/x.h": b"x" * 9000}))[:-300], id="truncated"),
    ],
)
def test_a_damaged_archive_is_named(tmp_path: Path, content: bytes) -> None:
    file = tmp_path / "x.deb"
    file.write_bytes(content)
    with pytest.raises(WorkError, match=r"pool/pkg_1_amd64.deb could not be unpacked"):
        layout.unpack("debian", ARCHIVE, file, tmp_path / "prefix")


def test_finish_makes_a_cuda_home(tmp_path: Path) -> None:
    for name in (f"{TARGET}/include/cuda.h", f"{TARGET}/lib/libnvvm.so.4", "bin/nvcc"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text("x", encoding="ascii")
    (tmp_path / TARGET / "lib/libnvvm.so").symlink_to("libnvvm.so.4")
    (tmp_path / TARGET / "lib/libgone.so").symlink_to("libgone.so.1")
    layout.finish(tmp_path, (2, 36))
    assert (tmp_path / "include/cuda.h").exists()
    assert (tmp_path / "lib64/libnvvm.so").exists()
    assert (tmp_path / "nvvm/lib64/libnvvm.so").exists()
    assert not os.path.lexists(tmp_path / TARGET / "lib/libgone.so")
    assert "NVVMIR_LIBRARY_DIR = $(TOP)/nvvm/libdevice" in (tmp_path / "bin/nvcc.profile").read_text(encoding="ascii")


def test_newer_c_libraries_see_cuda_as_system_headers() -> None:
    assert "-isystem" not in layout.profile((2, 40))
    assert "-isystem" in layout.profile((2, 41))
    assert "{" not in layout.profile(())


@pytest.mark.parametrize(
    ("said", "version"), [("glibc 2.36", (2, 36)), ("musl 1.2", ()), (None, ()), ("glibc two", ()), ("glibc", ())]
)
def test_the_c_library_of_the_host(monkeypatch: pytest.MonkeyPatch, said: str | None, version: tuple[int, ...]) -> None:
    monkeypatch.setattr(os, "confstr", lambda _: said)
    assert layout.host_glibc() == version


def test_a_host_that_does_not_know_the_question(monkeypatch: pytest.MonkeyPatch) -> None:
    def unknown(_: str) -> str:
        raise ValueError("unrecognized configuration name")

    monkeypatch.setattr(os, "confstr", unknown)
    assert layout.host_glibc() == ()
