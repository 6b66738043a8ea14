"""``lockfiles/<stack>/sources.toml``: every source that is built, pinned to its bytes; made from the stack file."""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from envcheck.codec import Where, decode
from envcheck.errors import DataError
from envcheck.stack import Component, Stack, parse_toml
from scripts import index_files, lock_text
from scripts.cache import ROOT

COMMAND = "nox -s sources -- --lock"


@dataclass(frozen=True, kw_only=True)
class Submodule:
    """One submodule: where it lies in the tree, where it comes from."""

    path: str
    url: str
    commit: str


@dataclass(frozen=True, kw_only=True)
class Patch:
    """One patch: a file of ``patches/``, or ``component:path`` in the source of another component."""

    name: str
    sha256: str


@dataclass(frozen=True, kw_only=True)
class Source:
    """One source, pinned: a git commit with its tree, or an sdist by hash."""

    name: str
    version: str
    kind: Literal["git", "sdist"]
    licence: str | None = None
    reason: str | None = None
    url: str | None = None
    mirrors: tuple[str, ...] = ()
    tag: str | None = None
    commit: str | None = None
    tree: str | None = None
    distribution: str | None = None
    file: str | None = None
    size: int | None = None
    sha256: str | None = None
    submodule: tuple[Submodule, ...] = ()
    patch: tuple[Patch, ...] = ()

    @property
    def submodules(self) -> dict[str, str]:
        """Path -> commit."""
        return {item.path: item.commit for item in self.submodule}


@dataclass(frozen=True, kw_only=True)
class Sources:
    """All sources of a stack."""

    version: int
    stack: str
    source: tuple[Source, ...] = ()

    def of(self, name: str) -> Source:
        """Find a source by the component's name."""
        for item in self.source:
            if item.name == name:
                return item
        known = ", ".join(item.name for item in self.source)
        fix = f"{COMMAND} --stack {self.stack}"
        raise DataError("sources.toml", name, expected=f"one of {known}", found="no such source", fix=fix)


def place(stack: str) -> Path:
    """Path of the file of a stack."""
    return ROOT / "lockfiles" / stack / "sources.toml"


def patch_file(stack: str, name: str) -> Path:
    """Path of a patch of our own."""
    return ROOT / "lockfiles" / stack / "patches" / name


def load(stack: str) -> Sources:
    """Load the pinned sources of a stack."""
    path = place(stack)
    try:
        text = path.read_text(encoding="utf-8")
    except OSError as error:
        fix = f"{COMMAND} --stack {stack}"
        raise DataError(str(path), "", expected="a sources file", found=str(error.strerror), fix=fix) from error
    return parse(text, str(path))


def of_component(stack: Stack, component: Component) -> Source:
    """Give the pinned source of a component: from ``sources.toml``, for a stack without one from its own origin."""
    if place(stack.name).exists():
        return load(stack.name).of(component.name)
    origin = component.origin
    if not (origin.commit or origin.sha256) or origin.submodules:
        expected = "a commit or a sha256 (and no submodules, which only sources.toml can pin)"
        raise DataError(stack.name, f"{component.name}.origin", expected=expected, found=repr(origin))
    stem = component.distribution.replace("-", "_")
    return Source(
        name=component.name,
        version=component.version,
        kind="git" if origin.kind == "git" else "sdist",
        url=origin.url,
        mirrors=origin.mirrors,
        commit=origin.commit,
        tree=origin.tree,
        distribution=component.distribution,
        file=f"{stem}-{component.version}.tar.gz",
        sha256=origin.sha256,
    )


def parse(text: str, source: str) -> Sources:
    """Read and validate a sources file."""
    out: Sources = decode(Sources, parse_toml(text, source), Where(source=source))
    for index, item in enumerate(out.source):
        for key in ("url", "commit") if item.kind == "git" else ("distribution", "file", "sha256"):
            if not getattr(item, key):
                raise DataError(source, f"source[{index}] ({item.name}).{key}", expected="a value", found="no such key")
    return out


def buildable(stack: Stack) -> Iterable[Component]:
    """List the components that come as source."""
    return (item for item in stack.components if item.origin.kind in {"git", "sdist"})


def make(stack: Stack, places: Sequence[Path] = ()) -> Sources:
    """Pin every source of the stack: submodule addresses from the source itself, sdist hashes from the index."""
    rows = tuple(_git(stack, item, places) if item.origin.kind == "git" else _sdist(item) for item in buildable(stack))
    return Sources(version=1, stack=stack.name, source=rows)


def _sdist(item: Component) -> Source:
    file = index_files.sdist_of(item.distribution, item.version)
    return Source(
        name=item.name,
        version=item.version,
        kind="sdist",
        licence=item.origin.licence,
        reason=item.origin.reason,
        distribution=item.distribution,
        file=file.name,
        size=file.size,
        sha256=item.origin.sha256 or file.sha256,
    )


def _git(stack: Stack, item: Component, places: Sequence[Path]) -> Source:
    from scripts.sources import patch_bytes, submodule_urls  # sources uses this module

    origin = item.origin
    urls = submodule_urls(item, places) if origin.submodules else {}
    return Source(
        name=item.name,
        version=item.version,
        kind="git",
        licence=origin.licence,
        reason=origin.reason,
        url=origin.url,
        mirrors=origin.mirrors,
        tag=origin.tag,
        commit=origin.commit,
        tree=origin.tree,
        submodule=tuple(Submodule(path=p, url=urls[p], commit=c) for p, c in sorted(origin.submodules.items())),
        patch=tuple(Patch(name=name, sha256=patch_bytes(stack, name, places)[1]) for name in origin.patches),
    )


def render(sources: Sources) -> str:
    """Write the file as TOML, with the digest of what follows its header."""
    lines = ["version = 1", f'stack = "{sources.stack}"']
    for item in sources.source:
        lines += ["", "[[source]]", *_rows(item)]
        for module in item.submodule:
            lines += ["", "[[source.submodule]]", *_pairs(path=module.path, url=module.url, commit=module.commit)]
        for patch in item.patch:
            lines += ["", "[[source.patch]]", *_pairs(name=patch.name, sha256=patch.sha256)]
    first = f"# Made by `{COMMAND} --stack {sources.stack}`; not edited by hand."
    return lock_text.sealed([first], "\n".join(lines) + "\n")


def _rows(item: Source) -> list[str]:
    names = [
        "name",
        "version",
        "kind",
        "distribution",
        "file",
        "size",
        "sha256",
        "url",
        "mirrors",
        "tag",
        "commit",
        "tree",
        "licence",
        "reason",
    ]
    return _pairs(**{name: getattr(item, name) for name in names})


def _pairs(**values: object) -> list[str]:
    return [
        f"{name} = {json.dumps(list(value) if isinstance(value, tuple) else value, ensure_ascii=False)}"
        for name, value in values.items()
        if value not in {None, ()}
    ]
