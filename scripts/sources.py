"""Fetch, verify, unpack and patch the pinned sources of a stack into the cache, where a build takes them from."""

from __future__ import annotations

import argparse
import configparser
import hashlib
import os
import shutil
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from envcheck import stack as stacks
from envcheck.errors import EnvcheckError, WorkError
from envcheck.stack import Component, Stack
from scripts import cli, download, files, git_mirror, index_files, process, sources_lock
from scripts.cache import cache, locked
from scripts.sources_lock import Source

VARIABLE = "ENVCHECK_SOURCES"


@dataclass(frozen=True, kw_only=True)
class Prepared:
    """A source tree that is whole, verified and patched; ``digest`` stands for all of its bytes."""

    name: str
    path: Path
    digest: str


def directories(named: Sequence[str] = ()) -> list[Path]:
    """List the local mirror directories: those named, which have to be there, then those in $ENVCHECK_SOURCES."""
    for name in named:
        if name != "mirror" and not Path(name).expanduser().is_dir():
            raise EnvcheckError(f"--source {name}: there is no such directory", fix="name one, or say mirror")
    listed = [*(name for name in named if name != "mirror"), *os.environ.get(VARIABLE, "").split(os.pathsep)]
    return [Path(name).expanduser().absolute() for name in listed if name]


def digest_of(source: Source) -> str:
    """Hash what pins a source: its commit or archive, its submodules, its patches."""
    pins = [source.name, source.commit or source.sha256 or ""]
    pins += [f"{item.path}={item.commit}" for item in source.submodule] + [item.sha256 for item in source.patch]
    return hashlib.sha256("\n".join(pins).encode()).hexdigest()


def prepare(stack: Stack, source: Source, *, places: Sequence[Path] = (), mirrors_first: bool = False) -> Prepared:
    """Give a source tree, from the cache or made now; nothing unverified is ever left there."""
    digest = digest_of(source)
    path = cache("sources", f"{source.name}-{digest[:16]}")
    with locked(path.with_name(f".{path.name}.lock"), what=f"the source of {source.name}"):
        if not path.exists():
            with files.replacing(path) as work:
                if source.kind == "git":
                    _from_git(source, work, places, mirrors_first=mirrors_first)
                else:
                    _from_sdist(source, work, places)
                for patch in source.patch:
                    _apply(stack, patch, work, places)
    return Prepared(name=source.name, path=path, digest=digest)


def _from_git(source: Source, work: Path, places: Sequence[Path], *, mirrors_first: bool = False) -> None:
    urls = [url for url in (source.url, *source.mirrors) if url]
    if mirrors_first:
        urls = [*urls[1:], *urls[:1]]
    commit = source.commit or ""
    repository = git_mirror.find(commit, urls, places)
    tree = git_mirror.export(repository, commit, work, source.submodules)
    if source.tree and tree != source.tree:
        what = f"{source.name}: the tree of {commit[:12]} was pinned as {source.tree}, it is {tree}"
        raise WorkError(what, fix=f"{sources_lock.COMMAND} after reading what changed")
    for module in source.submodule:
        place = git_mirror.find(module.commit, [module.url], places)
        git_mirror.export(place, module.commit, work / module.path, {})


def _from_sdist(source: Source, work: Path, places: Sequence[Path]) -> None:
    """Unpack an sdist, whose one top directory becomes the tree."""
    archive = _archive(source, places)
    with tempfile.TemporaryDirectory(dir=work.parent, prefix=".unpack-") as name:
        files.unpack(archive, Path(name))
        tops = list(Path(name).iterdir())
        if len(tops) != 1:
            raise WorkError(f"{source.file} holds {len(tops)} top directories, an sdist has one")
        for entry in tops[0].iterdir():
            shutil.move(str(entry), work / entry.name)


def _archive(source: Source, places: Sequence[Path]) -> Path:
    digest, name = source.sha256 or "", source.file or ""
    for place in places:
        if (place / name).is_file():
            found = files.sha256(place / name)
            if found == digest:
                return place / name
            fix = "remove it, or name another directory"
            raise WorkError(f"{place / name}: sha256 expected {digest}, got {found}; it was refused", fix=fix)
    stored = download.stored(digest)
    if stored.exists() and files.sha256(stored) == digest:
        return stored
    file = index_files.sdist_of(source.distribution or "", source.version)
    return download.fetch([file.url], digest=digest, size=source.size)


def patch_bytes(stack: Stack, name: str, places: Sequence[Path] = ()) -> tuple[bytes, str]:
    """Give a patch and its hash: ``component:path`` lies in another component's source, a plain name is our own."""
    component, _, path = name.partition(":")
    file = sources_lock.patch_file(stack.name, name)
    if path:
        origin = stack.component(component).origin
        urls = [url for url in (origin.url, *origin.mirrors) if url]
        repository = git_mirror.find(origin.commit or "", urls, [*places, *directories()])
        argv = ["git", "-c", "safe.directory=*", f"--git-dir={repository}", "show", f"{origin.commit}:{path}"]
        content = process.output_bytes(argv)
    else:
        content = file.read_bytes()
    return content, hashlib.sha256(content).hexdigest()


def _apply(stack: Stack, patch: sources_lock.Patch, work: Path, places: Sequence[Path]) -> None:
    content, found = patch_bytes(stack, patch.name, places)
    if found != patch.sha256:
        what = f"{patch.name}: sha256 expected {patch.sha256}, got {found}; it was refused"
        raise WorkError(what, fix=f"{sources_lock.COMMAND} --stack {stack.name} after reading what changed")
    with tempfile.NamedTemporaryFile(suffix=".patch") as file:
        file.write(content)
        file.flush()
        # Without the ceiling, git would take a repository above the cache for the one to patch.
        environ = {**os.environ, "GIT_CEILING_DIRECTORIES": str(work.parent)}
        argv = ["git", "apply", "--whitespace=nowarn", file.name]
        process.output(argv, cwd=work, environ=environ)


def submodule_urls(item: Component, places: Sequence[Path] = ()) -> dict[str, str]:
    """Read the addresses of the submodules from ``.gitmodules`` of the pinned commit."""
    urls = [url for url in (item.origin.url, *item.origin.mirrors) if url]
    repository = git_mirror.find(item.origin.commit or "", urls, [*places, *directories()])
    text = git_mirror.git(repository, "show", f"{item.origin.commit}:.gitmodules")
    parser = configparser.ConfigParser(strict=False)
    parser.read_string("\n".join(line.strip() for line in text.splitlines()))
    return {parser[section]["path"]: parser[section]["url"] for section in parser.sections()}


def lock(stack: Stack, places: Sequence[Path] = (), *, check: bool) -> int:
    """Write ``sources.toml``, or tell whether it is what the stack file says."""
    text, path = sources_lock.render(sources_lock.make(stack, places)), sources_lock.place(stack.name)
    old = path.read_text(encoding="utf-8") if path.exists() else ""
    if text == old:
        print(f"{path}: up to date")
        return 0
    if check:
        raise WorkError(f"{path} is not what the stack file says", fix=f"{sources_lock.COMMAND} --stack {stack.name}")
    files.write(path, text)
    print(f"{path}: written")
    return 0


def parser() -> argparse.ArgumentParser:
    """Describe the command line."""
    out = argparse.ArgumentParser(prog="python -m scripts.sources", description=__doc__)
    out.add_argument("name", nargs="*", help="components (default: all that come as source)")
    out.add_argument("--stack", default=stacks.DEFAULT_STACK)
    out.add_argument("--source", action="append", default=[], metavar="DIR|mirror", help="local mirrors and archives")
    out.add_argument("--lock", action="store_true", help="pin the sources anew from the stack file")
    out.add_argument("--check", action="store_true", help="with --lock: only compare")
    return out


def main(argv: Sequence[str] | None = None) -> int:
    """Fetch the named sources, or pin them."""
    options = parser().parse_args(argv)
    stack = stacks.load(options.stack)
    places = directories(options.source)
    if options.lock:
        return lock(stack, places, check=options.check)
    pinned = sources_lock.load(stack.name)
    wanted = [pinned.of(name) for name in options.name] or pinned.source
    for source in wanted:
        ready = prepare(stack, source, places=places, mirrors_first="mirror" in options.source)
        print(f"{ready.name} {ready.digest} {ready.path}")
    return 0


if __name__ == "__main__":
    raise SystemExit(cli.run(main))
