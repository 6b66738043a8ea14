from __future__ import annotations

import pytest

from envcheck.codec import Unknown
from envcheck.facts import LibraryCopy, LoaderEntry, Package, Toolkit
from envcheck.host import RecordedHost
from envcheck.probes.libraries import CUDNN, NCCL, parse_macros, probe

SITE = "/venv/lib/python3.10/site-packages"
WHEEL = f"{SITE}/nvidia/cudnn"


def header(version: str) -> str:
    major, minor, patch = version.split(".")
    return f"#define CUDNN_MAJOR {major}\n#define CUDNN_MINOR {minor}\n#define CUDNN_PATCHLEVEL {patch}\n"


def nccl_header(version: str) -> str:
    major, minor, patch = version.split(".")
    return f"#define NCCL_MAJOR {major}\n#define NCCL_MINOR {minor}\n#define NCCL_PATCH {patch}\n"


PIP = {
    f"{WHEEL}/include/cudnn.h": "",
    f"{WHEEL}/include/cudnn_version.h": header("9.1.0"),
    f"{WHEEL}/lib/libcudnn.so.9": "",
    f"{WHEEL}/lib/libcudnn_ops.so.9": "",
    f"{WHEEL}/lib/libcudnn_cnn.so.9": "",
}
SYSTEM = {
    "/usr/include/x86_64-linux-gnu/cudnn.h": "",
    "/usr/include/x86_64-linux-gnu/cudnn_version.h": header("9.14.0"),
    "/usr/lib/x86_64-linux-gnu/libcudnn.so.9.14.0": "",
}
SYSTEM_LINKS = {
    "/usr/lib/x86_64-linux-gnu/libcudnn.so.9": "/usr/lib/x86_64-linux-gnu/libcudnn.so.9.14.0",
    "/usr/lib/x86_64-linux-gnu/libcudnn.so": "/usr/lib/x86_64-linux-gnu/libcudnn.so.9.14.0",
}
PACKAGES = (Package(name="nvidia-cudnn-cu12", version="9.1.0.70", location=SITE),)
TOOLKIT = Toolkit(path="/usr/local/cuda", version="12.4", headers=True, source="env", selected=True)


def selected(copies: tuple[LibraryCopy, ...], kind: str) -> LibraryCopy | None:
    return next((item for item in copies if item.selected and item.kind == kind), None)


def test_system_header_and_wheel_library_are_told_apart() -> None:
    host = RecordedHost(files={**PIP, **SYSTEM}, links=SYSTEM_LINKS)
    found = probe(host, CUDNN, (), PACKAGES, ())
    assert {(item.kind, item.source, item.version) for item in found} == {
        ("header", "system", "9.14.0"),
        ("header", "pip", "9.1.0"),
        ("library", "pip", "9.1.0.70"),
        ("library", "system", "9.14.0"),
    }
    built_with = selected(found, "header")
    assert built_with is not None
    assert (built_with.source, built_with.why) == ("system", "the compiler looks there by itself")
    loaded = selected(found, "library")
    assert loaded is not None
    assert (loaded.source, loaded.symlink) == ("pip", False)
    assert loaded.sublibraries == ("libcudnn_cnn.so.9", "libcudnn_ops.so.9")


def test_cudnn_path_names_the_header_that_a_build_takes() -> None:
    host = RecordedHost(files={**PIP, **SYSTEM}, links=SYSTEM_LINKS, environ={"CUDNN_PATH": WHEEL})
    taken = selected(probe(host, CUDNN, (), PACKAGES, ()), "header")
    assert taken is not None
    assert (taken.path, taken.why) == (f"{WHEEL}/include/cudnn.h", "CUDNN_PATH names it")


@pytest.mark.parametrize(
    ("environ", "path", "why"),
    [
        ({"CUDNN_INCLUDE_DIR": "/a"}, "/a", "CUDNN_INCLUDE_DIR names it"),
        ({"CPATH": "/x:/a"}, "/a", "CPATH names it"),
        ({"CONDA_PREFIX": "/conda", "PATH": "/conda/bin"}, "/conda/include", "/conda/bin is on PATH"),
        ({"EBROOTCUDNN": "/sw/cudnn", "PATH": "/sw/cudnn/bin"}, "/sw/cudnn/include", "/sw/cudnn/bin is on PATH"),
    ],
)
def test_where_a_build_looks(environ: dict[str, str], path: str, why: str) -> None:
    host = RecordedHost(files={f"{path}/cudnn.h": header("8.9.7")}, environ=environ)
    (found,) = probe(host, CUDNN, (), (), ())
    assert (found.selected, found.why, found.version) == (True, why, "8.9.7")


def test_a_header_in_a_prefix_that_is_not_on_path_is_not_taken() -> None:
    host = RecordedHost(files={"/conda/include/cudnn.h": header("8.9.7")}, environ={"CONDA_PREFIX": "/conda"})
    (found,) = probe(host, CUDNN, (), (), ())
    assert (found.selected, found.source) == (False, "conda")


def test_a_copy_in_the_toolkit() -> None:
    files = {
        "/usr/local/cuda/include/cudnn.h": "",
        "/usr/local/cuda/include/cudnn_version.h": header("8.9.7"),
        "/usr/local/cuda/lib64/libcudnn.so.8": "",
    }
    found = probe(RecordedHost(files=files), CUDNN, (TOOLKIT,), (), ())
    assert [(item.kind, item.source, item.version) for item in found] == [
        ("header", "toolkit", "8.9.7"),
        ("library", "toolkit", "8.9.7"),
    ]
    assert found[0].why == "it lies in the selected toolkit"


def test_the_loader_says_which_library_is_taken() -> None:
    host = RecordedHost(files={**PIP, **SYSTEM}, links=SYSTEM_LINKS)
    entry = LoaderEntry(
        library="libcudnn.so.9", path="/usr/lib/x86_64-linux-gnu/libcudnn.so.9", through="LD_LIBRARY_PATH"
    )
    taken = selected(probe(host, CUDNN, (), PACKAGES, (entry,)), "library")
    assert taken is not None
    assert (taken.source, taken.why) == ("system", "the loader takes it, through LD_LIBRARY_PATH")


def test_versions_that_nothing_tells_are_unknown() -> None:
    files = {"/usr/include/cudnn.h": "garbage", "/l/libcudnn.so.9": ""}
    found = probe(RecordedHost(files=files, environ={"LD_LIBRARY_PATH": "/l"}), CUDNN, (), (), ())
    assert all(isinstance(item.version, Unknown) for item in found)
    assert [item.source for item in found] == ["system", "env"]


def test_nccl_is_read_alike() -> None:
    files = {
        f"{SITE}/nvidia/nccl/include/nccl.h": nccl_header("2.21.5"),
        f"{SITE}/nvidia/nccl/lib/libnccl.so.2": "",
        "/usr/include/nccl.h": nccl_header("2.28.3"),
        "/opt/nccl/lib/libnccl.so.2.20.3": "",
    }
    host = RecordedHost(
        files=files,
        links={"/opt/nccl/lib/libnccl.so.2": "/opt/nccl/lib/libnccl.so.2.20.3"},
        environ={"NCCL_HOME": "/opt/nccl"},
    )
    packages = (Package(name="nvidia-nccl-cu12", version="2.21.5", location=SITE),)
    found = probe(host, NCCL, (), packages, ())
    assert {(item.kind, item.source, item.version) for item in found} == {
        ("header", "system", "2.28.3"),
        ("header", "pip", "2.21.5"),
        ("library", "pip", "2.21.5"),
        ("library", "env", "2.20.3"),
    }


def test_nothing_is_found_on_an_empty_host() -> None:
    assert probe(RecordedHost(), CUDNN, (), (), ()) == ()


def test_macros() -> None:
    assert parse_macros(header("9.1.0"), CUDNN.macros) == "9.1.0"
    assert parse_macros("#define CUDNN_MAJOR 9", CUDNN.macros) is None
