"""The programs that builds and runs need: where they are, their version, and whether they start."""

from __future__ import annotations

import re

from envcheck.codec import Unknown
from envcheck.facts import Package, Text, Tool
from envcheck.host import Completed, Host, Pending
from envcheck.probes.together import guarded
from envcheck.record import dataclass

ASKED = ("ninja", "git", "ccache", "sccache", "uv", "make", "ray", "conda", "mamba")
"""Programs that are run with --version; each answers within milliseconds, or no file tells its version."""
SEEN = (
    "patch",
    "curl",
    "wget",
    "tar",
    "unzip",
    "zstd",
    "ld",
    "pkg-config",
    "apptainer",
    "podman",
    "enroot",
    "nvidia-smi",
)
"""Programs of which it only matters that they are there."""
PYTHON_SCRIPTS = frozenset({"ray", "conda", "mamba"})
"""They take a second to say their version: the package says it."""
NUMBER = re.compile(r"\d+(?:\.\d+)+(?:[a-z]\w*|[.\-+]\w+)?")


@dataclass(frozen=True, kw_only=True)
class Started:
    """The programs that were found, and those that were asked for their version."""

    paths: dict[str, str]
    asked: dict[str, Pending]


def start(host: Host, directory: str | None) -> Started:
    """Find the programs, in the target's environment first, and start those whose version only they tell."""
    names = ("cmake", "pip", *ASKED, *SEEN)
    paths = {name: path for name in names if (path := find(host, name, directory))}
    asked = [name for name in ASKED if name in paths and name not in PYTHON_SCRIPTS]
    if "cmake" in paths and not isinstance(cmake_version(host, paths["cmake"]), str):
        asked.append("cmake")
    return Started(paths=paths, asked={name: host.start([paths[name], "--version"]) for name in asked})


def find(host: Host, name: str, directory: str | None) -> str | None:
    """Path of a program: beside the target interpreter, else on PATH."""
    beside = f"{directory}/{name}" if directory else ""
    if beside and host.exists(beside):
        return beside
    return host.which("ninja-build", None) if name == "ninja" and not host.which(name) else host.which(name)


def finish(host: Host, started: Started, packages: tuple[Package, ...], directory: str | None) -> tuple[Tool, ...]:
    """Give the tools that were found; the target's pip and cmake wheels say their versions by their metadata."""
    known = {item.name: item.version for item in packages}
    found = []
    for name, path in started.paths.items():
        if name in started.asked:
            found.append(answered(name, path, started.asked[name].result()))
        else:
            version = guarded(lambda name=name, path=path: _by_files(host, name, path, known, directory))  # type: ignore[misc]
            found.append(Tool(name=name, path=path, version=version))
    return tuple(found)


def answered(name: str, path: str, done: Completed) -> Tool:
    """Read ``git version 2.39.5``, ``1.11.1.git.kitware``, ``Docker version 28.2.2, build e6534b4`` and their like."""
    number = NUMBER.search(done.stdout)
    if done.ok and number:
        return Tool(name=name, path=path, version=number[0])
    why = f"it answered {done.stdout[:60]!r}" if done.ok else done.why()
    return Tool(name=name, path=path, version=Unknown(f"{path} --version: {why}"), works=done.ok)


def _by_files(host: Host, name: str, path: str, known: dict[str, Text], directory: str | None) -> Text:
    if name == "cmake":
        return cmake_version(host, path)
    in_target = directory is not None and path.startswith(directory + "/")
    if name in known and (in_target or name in PYTHON_SCRIPTS | {"pip"}):
        return known[name]
    if name == "pip":
        return _pip_beside(host, path)
    return Unknown("not asked: it only matters that it is there")


def _pip_beside(host: Host, path: str) -> Text:
    prefix = host.realpath(path).rpartition("/bin/")[0]
    found = [*host.glob(f"{prefix}/lib/python3*/*-packages/pip-*.dist-info")]
    return found[-1].rpartition("/pip-")[2].removesuffix(".dist-info") if found else Unknown(f"not asked: {path}")


def cmake_version(host: Host, path: str) -> Text:
    """Version of CMake by its folder, ``/usr/share/cmake-3.25``: the program itself takes 14 ms to say it."""
    prefix = host.realpath(path).rpartition("/bin/")[0]
    wheels = host.glob(f"{prefix}/lib/python3*/site-packages/cmake-*.dist-info")
    if len(wheels) == 1:
        return wheels[0].rpartition("/cmake-")[2].removesuffix(".dist-info")
    found = [name for name in host.glob(f"{prefix}/share/cmake-[0-9]*") if re.search(r"/cmake-\d+\.\d+$", name)]
    return found[0].rpartition("-")[2] if len(found) == 1 else Unknown(f"no folder {prefix}/share/cmake-*")
