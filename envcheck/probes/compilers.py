"""The C and C++ compilers: the ones that a build would take, through what, and the others that are there."""

from __future__ import annotations

import re
import shlex
from collections.abc import Iterator

from envcheck.codec import Unknown
from envcheck.facts import Compiler, Text
from envcheck.host import Completed, Host, Pending
from envcheck.probes.places import split
from envcheck.record import dataclass

VERSIONED = re.compile(r"(?:gcc|g\+\+|clang|clang\+\+)-\d+(?:\.\d+)?")
PLAIN = ("gcc", "g++", "clang", "clang++")
CCBIN = re.compile(r"(?:^|\s)(?:-ccbin|--compiler-bindir)(?:=|\s+)(\S+)")
TIMEOUT_SECONDS = 5.0


@dataclass(frozen=True, kw_only=True)
class Role:
    """A compiler that a build would take, and through what."""

    role: str
    command: str
    why: str


@dataclass(frozen=True, kw_only=True)
class Started:
    """The compilers that were found, and those that were asked for their version."""

    roles: tuple[Role, ...]
    paths: dict[str, str | None]
    others: tuple[str, ...]
    real: dict[str, str]
    """Path -> the program that it leads to; each program is asked once."""
    asked: dict[str, Pending]


def start(host: Host) -> Started:
    """Find the compiler of each role and the others, and ask for their versions."""
    roles = tuple(taken(host))
    paths = {role.role: locate(host, role.command) for role in roles}
    named = list(dict.fromkeys(path for path in paths.values() if path))
    known = {host.realpath(path) for path in named}
    others = [path for path in installed(host) if host.realpath(path) not in known]
    real = {path: host.realpath(path) for path in [*named, *others]}
    asked = {path: host.start(question(path), timeout=TIMEOUT_SECONDS) for path in dict.fromkeys(real.values())}
    return Started(roles=roles, paths=paths, others=tuple(others), real=real, asked=asked)


def finish(host: Host, started: Started) -> tuple[Compiler, ...]:
    """Give the compilers of each role, then the others."""
    answers = {path: parse(host, path, pending.result()) for path, pending in started.asked.items()}
    said = {path: answers[real] for path, real in started.real.items()}
    found = [_of_role(role, started.paths[role.role], said) for role in started.roles]
    rest = [Compiler(role="other", path=path, family=said[path][0], version=said[path][1]) for path in started.others]
    return tuple(item for item in found if item) + tuple(rest)


def taken(host: Host) -> Iterator[Role]:
    """Say what each role takes, in the order in which torch, nvcc and CMake look."""
    environ = host.environ
    yield _from(environ.get("CC"), "cc", "CC", host, ("cc", "gcc"))
    yield _from(environ.get("CXX"), "cxx", "CXX", host, ("c++", "g++"))
    yield cuda_host(host)
    yield _from(environ.get("CXX"), "cmake-cxx", "CXX", host, ("c++", "g++", "clang++"))


def _from(value: str | None, role: str, variable: str, host: Host, names: tuple[str, ...]) -> Role:
    if value and value.strip():
        return Role(role=role, command=value, why=f"{variable}={value}")
    name = next((name for name in names if host.which(name)), names[0])
    return Role(role=role, command=name, why=f"{name} is the first on PATH")


def cuda_host(host: Host) -> Role:
    """Give the host compiler of nvcc: -ccbin of its flag variables, CUDAHOSTCXX, torch's ``-ccbin $CC``, else g++."""
    environ = host.environ
    for name in ("NVCC_APPEND_FLAGS", "NVCC_PREPEND_FLAGS"):
        found = CCBIN.search(environ.get(name, ""))
        if found:
            return Role(role="cuda-host", command=_in_directory(host, found[1]), why=f"{name} has -ccbin {found[1]}")
    for name in ("NVCC_CCBIN", "CUDAHOSTCXX"):
        if environ.get(name):
            return Role(role="cuda-host", command=_in_directory(host, environ[name]), why=f"{name}={environ[name]}")
    if environ.get("CC"):
        return Role(
            role="cuda-host", command=environ["CC"], why=f"torch gives nvcc -ccbin {environ['CC']} where CC is set"
        )
    return Role(role="cuda-host", command="g++", why="nvcc takes the g++ on PATH")


def _in_directory(host: Host, value: str) -> str:
    """-ccbin may name a directory: nvcc then takes the g++ in it."""
    return f"{value.rstrip('/')}/g++" if host.exists(f"{value}/g++") else value


def locate(host: Host, command: str) -> str | None:
    """Find the program of a command line such as ``ccache g++-13 -m64``; a launcher in front is passed over."""
    try:
        words = shlex.split(command)
    except ValueError:
        return None
    rest = [word for word in words if word.rpartition("/")[2] not in {"ccache", "sccache", "distcc", "env"}]
    if not rest:
        return None
    return rest[0] if rest[0].startswith("/") and host.exists(rest[0]) else host.which(rest[0])


def installed(host: Host) -> list[str]:
    """Compilers of every directory of PATH and of the versioned folders of /opt, each program once."""
    found: dict[str, str] = {}
    for place in _directories(host):
        names = [name for name in PLAIN if host.exists(f"{place}/{name}")]
        names += [name for name in host.listdir(place) if VERSIONED.fullmatch(name)]
        for name in names:
            found.setdefault(host.realpath(f"{place}/{name}"), f"{place}/{name}")
    return list(found.values())


def _directories(host: Host) -> Iterator[str]:
    seen: set[str] = set()
    extra = [*host.glob("/opt/gcc*/bin"), *host.glob("/opt/rh/gcc-toolset-*/root/usr/bin")]
    for place in [*split(host.environ.get("PATH")), *extra]:
        real = host.realpath(place)
        if real not in seen:
            seen.add(real)
            yield place


def question(path: str) -> list[str]:
    """Ask GCC for its full version (the first option is of GCC 7 and later, the second older), clang for its own."""
    return [path, "--version"] if "clang" in path.rpartition("/")[2] else [path, "-dumpfullversion", "-dumpversion"]


def parse(host: Host, path: str, done: Completed) -> tuple[str, Text]:
    """Read ``12.2.0``, the answer to -dumpfullversion; a compiler that does not know it is asked for --version."""
    number = done.stdout.strip()
    if done.ok and re.fullmatch(r"\d+(\.\d+)*", number):
        return "gcc", number
    if done.ok and number:
        return parse_long(path, done.stdout)
    if done.error:
        return "gcc", Unknown(f"{path}: {done.why()}")
    again = host.run([path, "--version"], timeout=TIMEOUT_SECONDS)
    return parse_long(path, again.stdout) if again.ok else ("gcc", Unknown(f"{path}: {done.why()}"))


def parse_long(path: str, text: str) -> tuple[str, Text]:
    """Read ``Debian clang version 14.0.6`` or ``gcc (Debian 12.2.0-14) 12.2.0``."""
    if "clang" in text.lower():
        found = re.search(r"version (\d+(?:\.\d+)+)", text)
        return "clang", found[1] if found else Unknown(f"{path} answered {text[:60]!r}")
    first = re.search(r"\) (\d+(?:\.\d+)+)", text)
    return "gcc", first[1] if first else Unknown(f"{path} answered {text[:60]!r}")


def _of_role(role: Role, path: str | None, said: dict[str, tuple[str, Text]]) -> Compiler | None:
    if path is None:
        if "=" not in role.why and "-ccbin" not in role.why:
            return None
        missing = Unknown(f"{role.command!r} was not found")
        return Compiler(role=role.role, path=role.command, version=missing, selected=True, why=role.why)
    family, version = said[path]
    return Compiler(role=role.role, path=path, family=family, version=version, selected=True, why=role.why)
