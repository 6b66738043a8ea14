"""A real ninja build that is stopped by ^C or loses a compiler: nothing is left running, what was compiled is kept."""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import subprocess
import sys
import tarfile
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from envcheck import data
from scripts import build_memory, process, wheelhouse_store
from scripts.cache import ROOT
from scripts.files import sha256

PARTS = 4
COMPILER = "cc1plus"
PART = """\
#include <regex>
#include <string>
bool part_@N@(const std::string& text) { return std::regex_search(text, std::regex("(a|b)*@N@[^c]+")); }
bool wide_@N@(const std::wstring& text) { return std::regex_search(text, std::wregex(L"(a|b)*@N@[^c]+")); }
"""
MODULE = """\
#include <Python.h>
static PyModuleDef module = {PyModuleDef_HEAD_INIT, "envcheck_parts", "parts", -1, nullptr};
PyMODINIT_FUNC PyInit_envcheck_parts() { return PyModule_Create(&module); }
"""
SETUP = """\
import os
import subprocess
import sysconfig

from setuptools import Extension, setup
from setuptools.command.build_ext import build_ext

NINJA = f'''
rule cxx
  command = {os.environ["CXX"]} -O2 -fPIC -MD -MF $out.d -I{sysconfig.get_paths()["include"]} -c $in -o $out
  depfile = $out.d
rule link
  command = {os.environ["CXX"]} -shared -s $in -o $out
'''


class Ninja(build_ext):
    def build_extension(self, ext):
        names = [source.removesuffix(".cpp") for source in ext.sources]
        rules = [f"build {name}.o: cxx ../{name}.cpp" for name in names]
        rules.append("build module.so: link " + " ".join(f"{name}.o" for name in names))
        os.makedirs("build", exist_ok=True)
        text = NINJA + "\\n".join(rules) + "\\n"
        if not os.path.exists("build/build.ninja"):
            with open("build/build.ninja", "w") as file:
                file.write(text)
        subprocess.check_call(["ninja", "-v", "-C", "build", "-j", os.environ["MAX_JOBS"]])
        path = self.get_ext_fullpath(ext.name)
        os.makedirs(os.path.dirname(path), exist_ok=True)
        self.copy_file("build/module.so", path)


sources = ["module.cpp", *(f"part_{number}.cpp" for number in range(@PARTS@))]
setup(
    name="envcheck-parts",
    version="1.0",
    ext_modules=[Extension("envcheck_parts", sources)],
    cmdclass={"build_ext": Ninja},
)
"""
COMPONENT = """
[[components]]
name = "parts"
distribution = "envcheck-parts"
version = "1.0"
origin = {{ kind = "sdist", sha256 = "{sha256}" }}
[components.recipe]
requires = ["setuptools==78.1.1", "ninja"]
environment = {{ MAX_JOBS = "{{jobs}}" }}
compiles = false
cxx = true
disk_bytes = 104857600
"""
pytestmark = pytest.mark.build


@dataclass(frozen=True, kw_only=True)
class Run:
    """A build that runs: its process, and the file that its words go to."""

    child: subprocess.Popen[bytes]
    said: Path

    def text(self) -> str:
        return self.said.read_text(encoding="utf-8")

    def compilers(self) -> set[int]:
        """Compilers that run below it now."""
        return {pid for pid in build_memory.descendants(self.child.pid) if name_of(pid) == COMPILER}


def name_of(pid: int) -> str:
    try:
        return Path(f"/proc/{pid}/comm").read_text(encoding="utf-8").strip()
    except OSError:
        return ""


def runs(pid: int) -> bool:
    """Tell whether a process runs; one that has ended and that nobody has asked about yet does not."""
    try:
        return Path(f"/proc/{pid}/stat").read_text(encoding="utf-8").rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False


def until(holds: Callable[[], object], seconds: float = 60) -> None:
    """Wait until something holds."""
    end = time.monotonic() + seconds
    while not holds():
        assert time.monotonic() < end, "it did not come about"
        time.sleep(0.02)


@pytest.fixture
def stack_file(tmp_path: Path) -> Path:
    """A stack of its own: the lts stack and a C++ extension that ninja builds, pinned by its hash."""
    if not shutil.which("g++") or not shutil.which("uv", path=f"{Path(sys.executable).parent}:{os.environ['PATH']}"):
        pytest.skip("needs g++, and uv for ninja and setuptools")
    tree = tmp_path / "sources/envcheck_parts-1.0"
    tree.mkdir(parents=True)
    (tree / "setup.py").write_text(SETUP.replace("@PARTS@", str(PARTS)), encoding="utf-8")
    (tree / "module.cpp").write_text(MODULE, encoding="utf-8")
    for number in range(PARTS):
        (tree / f"part_{number}.cpp").write_text(PART.replace("@N@", str(number)), encoding="utf-8")
    sdist = tmp_path / "sources/envcheck_parts-1.0.tar.gz"
    with tarfile.open(sdist, "w:gz") as file:
        file.add(tree, tree.name)
    text = data.read("stacks/verl-lts-cu124.toml").replace('name = "verl-lts-cu124"', 'name = "parts-cu124"', 1)
    head, lock, tail = text.partition("[[traps]]")
    path = tmp_path / "parts-cu124.toml"
    path.write_text(head + COMPONENT.format(sha256=sha256(sdist)) + "\n" + lock + tail, encoding="utf-8")
    return path


@contextlib.contextmanager
def building(stack_file: Path) -> Iterator[Run]:
    """Start the build as a person does, with two jobs and a cache of its own; end it where a test fails."""
    root = stack_file.parent
    argv = [sys.executable, "-m", "scripts.build", "parts", "--stack", str(stack_file), "--jobs", "2"]
    argv += ["--python", sys.executable, "--source", str(root / "sources")]
    environ = {**os.environ, "ENVCHECK_CACHE": str(root / "cache")}
    environ.pop("ENVCHECK_WHEELHOUSE", None)
    said = root / "said.txt"
    with (
        said.open("wb") as file,
        subprocess.Popen(
            argv, stdout=file, stderr=subprocess.STDOUT, env=environ, cwd=ROOT, start_new_session=True
        ) as child,
    ):
        try:
            yield Run(child=child, said=said)
        finally:
            if child.poll() is None:
                child.send_signal(signal.SIGINT)
            child.wait(timeout=60)


def logs(root: Path) -> str:
    return "".join(path.read_text(encoding="utf-8") for path in sorted((root / "cache/logs").glob("parts-*.log")))


def compiled(root: Path) -> dict[str, int]:
    """Objects that ninja has written down as done, with the time at which each was written."""
    (tree,) = (root / "cache/builds").glob("parts-*[0-9]")
    lines = (tree / "build/.ninja_log").read_text(encoding="utf-8").splitlines()[1:]
    names = {line.split("\t")[3] for line in lines}
    return {name: (tree / "build" / name).stat().st_mtime_ns for name in names if name.endswith(".o")}


def wheel_of(root: Path) -> wheelhouse_store.Entry:
    (entry,) = wheelhouse_store.entries(root / "cache/wheelhouse")
    return entry


def test_an_interrupted_build_stops_its_compilers_and_goes_on_where_it_was(stack_file: Path, tmp_path: Path) -> None:
    with building(stack_file) as run:
        until(lambda: "part_" in logs(tmp_path).partition("[1/")[2] and run.compilers())
        below = build_memory.descendants(run.child.pid)
        os.killpg(run.child.pid, signal.SIGINT)  # as a terminal does
        assert run.child.wait(timeout=30) == 130
        assert not [name_of(pid) for pid in below if runs(pid)]
    done = compiled(tmp_path)
    assert 0 < len(done) < PARTS + 1
    before = len(logs(tmp_path))
    with building(stack_file) as run:
        assert run.child.wait(timeout=60) == 0
        assert "going on with parts 1.0" in run.text()
    again = logs(tmp_path)[before:]
    assert all(f"-o {name}" not in again for name in done)
    assert f"/{PARTS + 2 - len(done)}] " in again
    assert wheel_of(tmp_path).receipt["jobs"] == 2


def test_a_compiler_that_is_killed_is_taken_for_memory_and_tried_with_half_the_jobs(
    stack_file: Path, tmp_path: Path
) -> None:
    with building(stack_file) as run:

        def tried_again() -> bool:
            if "trying once more" in run.text():
                return True
            for pid in run.compilers():
                with contextlib.suppress(ProcessLookupError):
                    os.kill(pid, signal.SIGKILL)
            return run.child.poll() is not None

        until(tried_again)
        assert run.child.wait(timeout=60) == 0, run.text()
    assert "a compiler was killed, as the kernel does it, for want of memory (2 jobs" in run.text()
    assert "trying once more with 1 instead of 2 jobs" in run.text()
    assert wheel_of(tmp_path).receipt["jobs"] == 1


def test_ninja_and_the_compiler_are_real(stack_file: Path, tmp_path: Path) -> None:
    with building(stack_file) as run:
        assert run.child.wait(timeout=60) == 0, run.text()
    entry = wheel_of(tmp_path)
    shutil.unpack_archive(entry.wheel, tmp_path / "site", "zip")
    said = process.output(
        [sys.executable, "-c", "import envcheck_parts; print(envcheck_parts.__doc__)"],
        environ={**os.environ, "PYTHONPATH": str(tmp_path / "site")},
    )
    assert said == "parts\n"
