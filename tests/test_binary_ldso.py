from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import pytest

from envcheck.binary.ldso import Files, Library, Process, default_directories, expand
from envcheck.host import LocalHost, RecordedHost
from tests.test_binary_ldcache import X86_64, new
from tests.tiny_elf import shared

PYTHON = "/usr/bin/python3"


def process(files: Mapping[str, bytes], environ: Mapping[str, str] | None = None, **program: str) -> Process:
    host = RecordedHost(files={PYTHON: shared(needed=["libc.so.6"], **program), "/lib64/libc.so.6": shared(), **files})  # type: ignore[arg-type]
    return Process(Files(host), PYTHON, environ or {})


def place(
    files: Mapping[str, bytes], environ: Mapping[str, str] | None = None, **program: str
) -> tuple[str, str] | None:
    """Where liba.so, which /app/ext.so needs, comes from, and through what."""
    library = process(files, environ, **program).load("/app/ext.so")
    assert library is not None
    found = library.needs["liba.so"]
    return None if found is None else (found.path, found.through)


def ext(**paths: str) -> bytes:
    return shared(needed=["liba.so"], **paths)  # type: ignore[arg-type]


A = {"/rpath/liba.so": shared(), "/env/liba.so": shared(), "/run/liba.so": shared(), "/usr/lib/liba.so": shared()}


def test_search_order() -> None:
    env = {"LD_LIBRARY_PATH": "/none:/env"}
    assert place({**A, "/app/ext.so": ext(rpath="/rpath")}, env) == ("/rpath/liba.so", "RPATH")
    assert place({**A, "/app/ext.so": ext(rpath="/rpath", runpath="/run")}, env) == ("/env/liba.so", "LD_LIBRARY_PATH")
    assert place({**A, "/app/ext.so": ext(runpath="/run")}) == ("/run/liba.so", "RUNPATH")
    assert place({**A, "/app/ext.so": ext()}) == ("/usr/lib/liba.so", "default")
    assert place({"/app/ext.so": ext()}) is None


def test_the_cache_comes_before_the_default_directories() -> None:
    cache = new([(X86_64, "liba.so", "/cached/liba.so", 0)])
    files = {**A, "/cached/liba.so": shared(), "/etc/ld.so.cache": cache, "/app/ext.so": ext()}
    assert place(files) == ("/cached/liba.so", "cache")


def test_a_file_may_refuse_cache_and_default_directories() -> None:
    assert place({**A, "/app/ext.so": shared(needed=["liba.so"], no_default=True)}) is None


def test_rpath_of_the_program_serves_all() -> None:
    """As conda's python, whose RPATH $ORIGIN/../lib gives every extension conda's libstdc++."""
    files = {**A, "/usr/lib2/liba.so": shared(), "/app/ext.so": ext()}
    assert place(files, rpath="$ORIGIN/../lib2") == ("/usr/lib2/liba.so", "RPATH")
    assert place({**files, "/app/ext.so": ext(runpath="/run")}, rpath="$ORIGIN/../lib2") == ("/run/liba.so", "RUNPATH")


def test_rpath_of_the_loading_library_serves_what_it_loads() -> None:
    files = {
        "/app/ext.so": shared(needed=["libb.so"], rpath="$ORIGIN/lib"),
        "/app/lib/libb.so": shared(needed=["liba.so"]),
        "/app/lib/liba.so": shared(),
    }
    library = process(files).load("/app/ext.so")
    assert library is not None
    assert [(item.path, item.through) for item in library.closure()[1:]] == [
        ("/app/lib/libb.so", "RPATH"),
        ("/app/lib/liba.so", "RPATH"),
    ]


def test_what_is_loaded_is_taken_by_its_soname() -> None:
    files = {
        "/torch/libcudart-abc.so": shared(soname="libcudart.so.12"),
        "/app/ext.so": shared(needed=["libcudart.so.12"]),
        "/usr/lib/libcudart.so.12": shared(soname="libcudart.so.12"),
    }
    started = process(files)
    started.load("/torch/libcudart-abc.so")
    library = started.load("/app/ext.so")
    assert library is not None
    assert library.needs["libcudart.so.12"] in started.libraries
    assert getattr(library.needs["libcudart.so.12"], "path", "") == "/torch/libcudart-abc.so"


def test_a_branch_leaves_the_process_as_it_was() -> None:
    files = {"/app/ext.so": ext(rpath="/rpath"), **A, "/app/other.so": ext()}
    started = process(files)
    branch = started.branch()
    branch.load("/app/ext.so", everywhere=True)
    assert len(branch.libraries) == len(started.libraries) + 2
    assert len(branch.everywhere) == len(started.everywhere) + 2
    other = started.load("/app/other.so")
    assert other is not None
    assert getattr(other.needs["liba.so"], "path", "") == "/usr/lib/liba.so"


def test_preloaded_libraries() -> None:
    files = {"/hook.so": shared(needed=["libmissing.so"]), **A}
    started = process(files, {"LD_PRELOAD": "/hook.so:liba.so /gone.so"})
    loaded = [(item.path, item.through) for item in started.libraries if item.through == "LD_PRELOAD"]
    assert loaded == [("/hook.so", "LD_PRELOAD"), ("/usr/lib/liba.so", "LD_PRELOAD")]
    assert started.everywhere[-1].path == "/usr/lib/liba.so"


def test_a_file_of_another_machine_is_passed_over() -> None:
    foreign = shared()[:4] + b"\x01" + shared()[5:]
    files = {**A, "/app/ext.so": ext(rpath="/arm:/old:/rpath")}
    files |= {"/arm/liba.so": shared(machine=183), "/old/liba.so": foreign}
    assert place(files) == ("/rpath/liba.so", "RPATH")


def test_a_damaged_file_stops_the_search_as_the_loader_does() -> None:
    files = {**A, "/app/ext.so": ext(rpath="/bad:/rpath"), "/bad/liba.so": b"\x7fELF"}
    library = process(files).load("/app/ext.so")
    assert library is not None
    found = library.needs["liba.so"]
    assert found is not None
    assert (found.path, found.elf) == ("/bad/liba.so", None)
    assert found.fault.startswith("truncated")


def test_a_damaged_dynamic_section_is_a_fault_of_its_file() -> None:
    body = bytearray(ext())
    body[120:124] = b"\x06\0\0\0"
    library = process({"/app/ext.so": bytes(body)}).load("/app/ext.so")
    assert library is not None
    assert library.fault.startswith("no dynamic section")


def test_links_to_one_file_are_one_library() -> None:
    files = {"/lib64/libc.so.6": shared(), PYTHON: shared(), "/a/liba.so.1.2": shared(soname="liba.so.1")}
    host = RecordedHost(files=files, links={"/a/liba.so.1": "/a/liba.so.1.2", "/usr/bin/python": PYTHON})
    started = Process(Files(host), "/usr/bin/python", {})
    assert started.program.path == PYTHON
    assert started.load("/a/liba.so.1") is started.load("/a/liba.so.1.2")


def test_libraries_that_need_each_other() -> None:
    files = {"/a/liba.so": shared(needed=["libb.so"], rpath="/a"), "/a/libb.so": shared(needed=["liba.so"], rpath="/a")}
    library = process(files).load("/a/liba.so")
    assert library is not None
    assert [item.path for item in library.closure()] == ["/a/liba.so", "/a/libb.so"]


@pytest.mark.parametrize("content", [b"#!/bin/sh", b""], ids=["script", "empty"])
def test_a_program_that_is_no_elf_file_is_a_fault(content: bytes) -> None:
    host = RecordedHost(files={PYTHON: content, "/a.so": shared(needed=["libb.so"])})
    started = Process(Files(host), PYTHON, {})
    assert started.program.fault
    assert started.machine == ""
    library = started.load("/a.so")
    assert library is not None
    assert library.needs == {"libb.so": None}


def test_no_program_at_all() -> None:
    started = Process(Files(RecordedHost()), PYTHON, {})
    assert started.program.elf is None
    assert started.load("libc.so.6") is None


@pytest.mark.parametrize(
    ("path", "expected"),
    [
        ("/usr/lib/", "/usr/lib"),
        ("/", "/"),
        ("$ORIGIN/../nvidia", "/a/nvidia"),
        ("${ORIGIN}/x", "/a/b/x"),
        ("/opt/$LIB/$PLATFORM", "/opt/lib64/x86_64"),
    ],
)
def test_expand(path: str, expected: str) -> None:
    assert expand(path, "/a/b", "x86_64") == expected


def test_default_directories() -> None:
    assert next(iter(default_directories("aarch64"))) == "/lib/aarch64-linux-gnu"
    assert list(default_directories("")) == ["/lib64", "/usr/lib64", "/lib", "/usr/lib"]


def test_files_are_opened_once_and_closed() -> None:
    files = Files(RecordedHost(files={"/a.so": shared()}))
    first = files.elf("/a.so")
    assert first is files.elf("/a.so")
    assert files.elf("/gone.so") is None
    files.close()
    assert files.elf("/a.so") is not first


def test_a_library_knows_its_directory() -> None:
    assert Library(path="/a/b/c.so", through="", elf=None).origin == "/a/b"


def test_a_file_that_may_not_be_read_stops_the_search(tmp_path: Path) -> None:
    """A directory of the library's name: the loader finds it and cannot use it."""
    (tmp_path / "liba.so").mkdir()
    (tmp_path / "ext.so").write_bytes(shared(needed=["liba.so"], rpath=str(tmp_path)))
    files = Files(LocalHost(environ={}))
    library = Process(files, str(tmp_path / "ext.so"), {}).program
    found = library.needs["liba.so"]
    assert found is not None
    assert found.fault.startswith("could not be opened")
    files.close()
