"""The programs that builds and runs need: where they are, their version, and whether they start."""

from __future__ import annotations

import re

from envcheck.codec import Unknown
from envcheck.facts import Package, Tool
from envcheck.host import Completed, Host, Pending
from envcheck.record import dataclass

BY_FILES = ("cmake", "pip", "uv")
"""Programs whose version a folder beside them tells; cmake and uv are run where none does."""
ASKED = ("ninja", "git", "ccache", "sccache")
"""Programs that are run with --version; each answers within milliseconds."""
SEEN = (
    "docker",
    "patch",
    "make",
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
PYTHON_SCRIPTS = ("ray", "conda", "mamba")
"""They take a second to say their version: the package says it."""
NOT_ASKED = Unknown("not asked: it only matters that it is there")
NUMBER = re.compile(r"\d+(?:\.\d+)+(?:[a-z]\w*|[.\-+]\w+)?")


@dataclass(frozen=True, kw_only=True)
class Started:
    """The programs that were found, and those that were asked for their version."""

    paths: dict[str, str]
    said: dict[str, str]
    """Versions that files tell."""
    asked: dict[str, Pending]


def start(host: Host, directory: str | None) -> Started:
    """Find the programs, in the target's environment first, and start those whose version only they tell."""
    names = (*BY_FILES, *ASKED, *PYTHON_SCRIPTS, *SEEN)
    paths = {name: path for name in names if (path := find(host, name, directory))}
    said = {name: by_files(host, name, path) for name, path in paths.items() if name in BY_FILES}
    silent = [name for name, version in said.items() if version is None and name != "pip"]
    asked = [*(name for name in ASKED if name in paths), *silent]
    commands = {name: host.start([paths[name], "--version"]) for name in asked}
    return Started(paths=paths, said={name: it for name, it in said.items() if it}, asked=commands)


def find(host: Host, name: str, directory: str | None) -> str | None:
    """Path of a program: beside the target interpreter, else on PATH."""
    beside = f"{directory}/{name}" if directory else ""
    if beside and host.exists(beside):
        return beside
    return host.which("ninja-build", None) if name == "ninja" and not host.which(name) else host.which(name)


def finish(started: Started, packages: tuple[Package, ...], directory: str | None) -> tuple[Tool, ...]:
    """Give the tools that were found; the target's pip and cmake wheels say their versions by their metadata."""
    beside = {name for name, path in started.paths.items() if directory and path.startswith(f"{directory}/")}
    told = {*PYTHON_SCRIPTS, *beside}
    known = {item.name: item.version for item in packages if item.name in told}
    found = []
    for name, path in started.paths.items():
        if name in started.asked:
            found.append(answered(name, path, started.asked[name].result()))
        else:
            found.append(Tool(name=name, path=path, version=started.said.get(name) or known.get(name, NOT_ASKED)))
    return tuple(found)


def answered(name: str, path: str, done: Completed) -> Tool:
    """Read ``git version 2.39.5``, ``1.11.1.git.kitware``, ``Docker version 28.2.2, build e6534b4`` and their like."""
    number = NUMBER.search(done.stdout)
    if done.ok and number:
        return Tool(name=name, path=path, version=number[0])
    why = f"it answered {done.stdout[:60]!r}" if done.ok else done.why()
    return Tool(name=name, path=path, version=Unknown(f"{path} --version: {why}"), works=done.ok)


def by_files(host: Host, name: str, path: str) -> str | None:
    """Version by the wheel that a program comes from, or by CMake's folder, ``/usr/share/cmake-3.25``.

    The programs themselves take 14 ms (cmake) and 300 ms (pip) to say it.
    """
    prefix = host.realpath(path).rpartition("/bin/")[0]
    wheels = host.glob(f"{prefix}/lib/python3*/*-packages/{name}-*.dist-info")
    if len(wheels) == 1:
        return wheels[0].rpartition(f"/{name}-")[2].removesuffix(".dist-info")
    folders = host.glob(f"{prefix}/share/cmake-[0-9]*") if name == "cmake" else []
    found = [folder for folder in folders if re.search(r"/cmake-\d+\.\d+$", folder)]
    return found[0].rpartition("-")[2] if len(found) == 1 else None
