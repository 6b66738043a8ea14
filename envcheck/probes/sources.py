"""Checkouts of the components' sources: in the working directory, beside it, on PYTHONPATH, installed as editable."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence

from envcheck.codec import Unknown
from envcheck.facts import Package, Source, Text
from envcheck.host import Host
from envcheck.probes.places import split

MARKS = {
    "TransformerEngine": ("transformer_engine", "setup.py"),
    "Megatron-LM": ("megatron/core",),
    "verl": ("verl/trainer", "setup.py"),
    "sglang": ("python/sglang",),
    "flash-attention": ("csrc/flash_attn", "setup.py"),
    "vllm": ("vllm/engine", "setup.py"),
    "apex": ("apex", "csrc/amp_C_frontend.cpp"),
}
"""Name of a checkout -> paths that are in it."""


def probe(host: Host, packages: Sequence[Package]) -> tuple[Source, ...]:
    """Read every checkout that is found, each once."""
    on_path = {host.realpath(path) for path in split(host.environ.get("PYTHONPATH"))}
    editable = {host.realpath(_file(item)) for item in packages if item.origin and item.origin.editable}
    found: dict[str, Source] = {}
    for path in places(host, packages):
        name = named(host, path)
        real = host.realpath(path)
        if name and real not in found:
            importable = real in on_path | editable or f"{real}/python" in on_path | editable
            found[real] = Source(
                name=name,
                path=path,
                commit=commit(host, path),
                submodules=submodules(host, path),
                importable=importable,
            )
    return tuple(found.values())


def _file(package: Package) -> str:
    return package.origin.url.removeprefix("file://") if package.origin else ""


def places(host: Host, packages: Sequence[Package]) -> Iterator[str]:
    """Directories that may be checkouts; of those around, only the ones whose names say so are looked into."""
    here = host.realpath(".")
    yield from split(host.environ.get("PYTHONPATH"))
    for item in packages:
        path = _file(item)
        if item.origin and item.origin.editable and path.startswith("/"):
            yield path
            yield path.removesuffix("/python")
    if not here.startswith("/"):
        return
    yield here
    for folder in dict.fromkeys([here, here.rpartition("/")[0] or "/"]):
        for name in host.listdir(folder):
            if any(_alike(name, mark) for mark in MARKS):
                yield f"{folder.rstrip('/')}/{name}"


def _alike(name: str, mark: str) -> bool:
    return name.lower().replace("_", "-").startswith(mark.lower().replace("engine", ""))


def named(host: Host, path: str) -> str | None:
    """Name the checkout by what is in it."""
    return next((name for name, marks in MARKS.items() if all(host.exists(f"{path}/{mark}") for mark in marks)), None)


def commit(host: Host, path: str) -> Text:
    """Commit that is checked out, by .git/HEAD and its ref; git is not started."""
    directory = git_directory(host, path)
    if directory is None:
        return Unknown(f"{path} is no git checkout")
    try:
        head = host.read(f"{directory}/HEAD", 4096).strip()
        if not head.startswith("ref: "):
            return head
        return _ref(host, directory, head.removeprefix("ref: "))
    except OSError as error:
        return Unknown(f"{directory}: {error.strerror}")


def git_directory(host: Host, path: str) -> str | None:
    """Give the .git directory; in a submodule or worktree .git is a file, ``gitdir: ../.git/modules/x``."""
    place = f"{path}/.git"
    if host.exists(f"{place}/HEAD"):
        return place
    try:
        link = host.read(place, 4096).strip()
    except OSError:
        return None
    target = link.removeprefix("gitdir: ")
    return target if target.startswith("/") else f"{path}/{target}"


def _ref(host: Host, directory: str, ref: str) -> Text:
    common = directory
    if host.exists(f"{directory}/commondir"):
        common = f"{directory}/{host.read(f'{directory}/commondir', 4096).strip()}"
    for place in dict.fromkeys((directory, common)):
        if host.exists(f"{place}/{ref}"):
            return host.read(f"{place}/{ref}", 4096).strip()
    found = re.search(rf"^([0-9a-f]{{40}}) {re.escape(ref)}$", host.read(f"{common}/packed-refs"), re.MULTILINE)
    return found[1] if found else Unknown(f"{ref} has no commit")


def submodules(host: Host, path: str) -> dict[str, bool]:
    """Submodule path -> its files are there, for the lines ``path = 3rdparty/cudnn-frontend`` of .gitmodules."""
    try:
        text = host.read(f"{path}/.gitmodules", 64 << 10)
    except OSError:
        return {}
    return {
        inner: bool(host.listdir(f"{path}/{inner}")) for inner in re.findall(r"^\s*path = (\S+)$", text, re.MULTILINE)
    }
