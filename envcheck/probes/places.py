"""Directories in which toolkits, headers and libraries lie on the hosts that are met."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from envcheck.host import Host

LIBRARY_DIRECTORIES = (
    "/usr/lib/x86_64-linux-gnu",
    "/usr/lib/aarch64-linux-gnu",
    "/usr/lib64",
    "/usr/lib",
    "/usr/local/lib",
    "/usr/local/lib64",
    "/usr/local/nvidia/lib64",
    "/usr/local/nvidia/lib",
    "/usr/lib/wsl/lib",
)
INCLUDE_DIRECTORIES = (
    "/usr/local/include",
    "/usr/include",
    "/usr/include/x86_64-linux-gnu",
    "/usr/include/aarch64-linux-gnu",
)
TARGETS = ("", "/targets/x86_64-linux", "/targets/sbsa-linux")


def split(value: str | None) -> list[str]:
    """Parts of a path list that are not empty, each once."""
    return list(dict.fromkeys(part.rstrip("/") or "/" for part in (value or "").split(":") if part))


def unique(host: Host, paths: Iterable[str]) -> Iterator[str]:
    """Paths that exist, each place once, whatever links lead to it."""
    seen: set[str] = set()
    for path in paths:
        if host.exists(path):
            real = host.realpath(path)
            if real not in seen:
                seen.add(real)
                yield path


def toolkit_includes(root: str) -> tuple[str, ...]:
    """Include directories of a toolkit."""
    return tuple(f"{root}{target}/include" for target in TARGETS)


def toolkit_libraries(root: str) -> tuple[str, ...]:
    """Library directories of a toolkit."""
    return (f"{root}/lib64", f"{root}/lib", *(f"{root}{target}/lib" for target in TARGETS[1:]))
