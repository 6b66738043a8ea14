"""The files of a kit: the best wheel of each pin for each Python, built wheels, sources, locks, the doctor, uv."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

from packaging.utils import parse_wheel_filename

from envcheck.errors import WorkError
from envcheck.stack import Stack
from scripts import (
    download,
    env_plan,
    git_mirror,
    index_files,
    kit_check,
    lock_files,
    lock_remote,
    lock_text,
    pyz,
    sources_lock,
)
from scripts.env_plan import Extra, Selection
from scripts.files import sha256, write
from scripts.index_files import IndexFile
from scripts.lock_text import Pin
from scripts.wheelhouse_store import Entry

WORKERS = 4
INSTALLER = Path(__file__).with_name("kit_install.py")


@dataclass(frozen=True, kw_only=True)
class Job:
    """One environment that the kit can make."""

    engine: str
    version: str
    pins: tuple[Pin, ...]
    extras: tuple[Extra, ...]
    sdists: tuple[str, ...]
    missing: tuple[str, ...]


def job(stack: Stack, engine: str, version: str, house: Sequence[Entry], root: Path) -> Job:
    """Read a lock for one Python, all trainers, and find the wheels beside it."""
    pins = [
        pin
        for pin in env_plan.read(lock_files.requirements(stack.name, engine, root))
        if pin.applies(env_plan.python_environment(f"{version}.9"))
    ]
    torch = next((pin.version for pin in pins if pin.name == "torch"), "")
    extras: dict[str, Extra] = {}
    missing: set[str] = set()
    for trainer in stack.trainers:
        wanted = Selection(stack=stack, engine=engine, trainer=trainer, version=version)
        found, lacking = env_plan.beside(wanted, house, torch)
        extras |= {extra.component: extra for extra in found}
        missing |= set(lacking)
    sdists = tuple(sorted(env_plan.sdists(stack) & {pin.name for pin in pins}))
    return Job(
        engine=engine,
        version=version,
        pins=tuple(pins),
        extras=tuple(extras[name] for name in sorted(extras)),
        sdists=sdists,
        missing=tuple(sorted(missing)),
    )


def wheels(
    place: Path, jobs: Sequence[Job], shared: Sequence[Pin], older: Sequence[Path], listed: lock_remote.Lister
) -> None:
    """Put the wheels of all jobs, and those that all of them share, into the kit, each checked by its hash."""
    place.mkdir(parents=True)
    found = lock_remote.files_of({pin for item in jobs for pin in item.pins} | set(shared), _with_older(listed, older))
    chosen: dict[str, IndexFile] = {}
    for item in jobs:
        environment = env_plan.python_environment(f"{item.version}.9")
        for pin in [*item.pins, *(pin for pin in shared if pin.applies(environment))]:
            best = best_of(found[pin], item.version)
            if best is None:
                what = f"the index has no file of {pin.name}=={pin.version} for Python {item.version}"
                raise WorkError(what, fix="take another --python-version")
            chosen[best.name] = best
    with ThreadPoolExecutor(WORKERS) as pool:
        list(pool.map(lambda file: _fetch(file, place, older), chosen.values()))
    for extra in (extra for item in jobs for extra in item.extras):
        source = extra.path or download.fetch([extra.url or ""], digest=extra.sha256)
        _copy(source, place.parent / "built" / extra.sha256[:12] / extra.file)


def shared(stack: Stack, root: Path) -> list[Pin]:
    """Give what every environment of a kit needs: uv, and what builds the locked packages that have no wheel."""
    tools = env_plan.read(root / "lockfiles" / "tools.txt")
    return [
        *(pin for pin in tools if pin.name == "uv"),
        *env_plan.read(lock_files.directory(stack.name, root) / "build.txt"),
    ]


def _with_older(listed: lock_remote.Lister, older: Sequence[Path]) -> lock_remote.Lister:
    """Look into earlier kits first: what they have need not be on the index any more."""
    kept = {path.name: path for kit in older for path in (kit / "wheels").glob("*")}

    def look(name: str) -> Sequence[IndexFile]:
        mine = [path for file, path in kept.items() if kit_check.flat(file).startswith(f"{name}-")]
        own = [
            IndexFile(name=path.name, url=path.as_uri(), sha256=sha256(path), size=path.stat().st_size) for path in mine
        ]
        try:
            return [*own, *(item for item in listed(name) if item.name not in kept)]
        except WorkError:
            if own:
                return own
            raise

    return look


def best_of(items: Iterable[IndexFile], version: str) -> IndexFile | None:
    """Choose the wheel whose tag this Python likes best, else the source archive."""
    order = {tag: rank for rank, tag in enumerate(env_plan.ordered_tags(version))}
    ranked = []
    for item in items:
        if item.name.endswith(".whl"):
            ranks = [order[tag] for tag in parse_wheel_filename(item.name)[3] if tag in order]
            ranked += [(min(ranks), item)] if ranks else []
        else:
            ranked.append((len(order), item))
    return min(ranked, key=lambda row: (row[0], row[1].name), default=(0, None))[1]


def _fetch(file: IndexFile, place: Path, older: Sequence[Path]) -> None:
    for kit in older:
        path = kit / "wheels" / file.name
        if path.exists() and sha256(path) == file.sha256:
            _copy(path, place / file.name)
            return
    _copy(download.fetch([file.url], digest=file.sha256 or "", size=file.size), place / file.name)


def _copy(source: Path, target: Path) -> None:
    """Link the file where that is possible (a kit is as large as everything it holds), else copy it."""
    target.parent.mkdir(parents=True, exist_ok=True)
    try:
        os.link(source, target)
    except OSError:
        shutil.copyfile(source, target)


def sources(place: Path, stack: Stack, places: Sequence[Path]) -> None:
    """Put the pinned sources into the kit as a local mirror; an optional one that no place gives is left out, and said.

    Archives stand there by name, commits as bare repositories.
    """
    place.mkdir(parents=True)
    optional = {item.name for item in stack.components if item.optional}
    for source in sources_lock.load(stack.name).source:
        try:
            _source(place, source, places)
        except git_mirror.UnreachableError as error:
            if source.name not in optional:
                raise
            print(f"the source of {source.name} is not in the kit, which is optional: {error}")


def _source(place: Path, source: sources_lock.Source, places: Sequence[Path]) -> None:
    if source.kind == "git":
        rows = [(source.commit or "", [url for url in (source.url, *source.mirrors) if url])]
        rows += [(module.commit, [module.url]) for module in source.submodule]
        for wanted, urls in rows:
            commit(place, wanted, urls, places)
    else:
        file = index_files.sdist_of(source.distribution or "", source.version)
        _copy(
            download.fetch([file.url], digest=source.sha256 or "", size=source.size),
            place / (source.file or file.name),
        )


def commit(place: Path, wanted: str, urls: Sequence[str], places: Sequence[Path]) -> None:
    """Copy one commit without its history into ``OWNER+NAME.git``."""
    found = git_mirror.find(wanted, urls, places)
    target = place / ("+".join(git_mirror.owner_and_name(urls[0])) + ".git")
    git_mirror.git(None, "init", "--bare", "--quiet", str(target))
    allowed = ["-c", "uploadpack.allowAnySHA1InWant=true", "-c", "protocol.file.allow=always"]
    git_mirror.git(
        target,
        *allowed,
        "fetch",
        "--quiet",
        "--depth=1",
        "--no-tags",
        found.absolute().as_uri(),
        wanted,
        timeout=git_mirror.FETCH_SECONDS,
    )
    git_mirror.git(target, "update-ref", "refs/heads/pinned", wanted)


def programs(work: Path, stack: Stack, root: Path) -> None:
    """Put the locks, the doctor and the installer into the kit."""
    shutil.copytree(lock_files.directory(stack.name, root), work / "lockfiles" / stack.name)
    pyz.main(["--output", str(work / "envcheck.pyz")])
    write(work / "install", "#!/usr/bin/env python3\n" + INSTALLER.read_text(encoding="utf-8"))
    (work / "install").chmod(0o755)


def locks(work: Path, jobs: Sequence[Job]) -> None:
    """Write the lock of each environment, only the lines that apply."""
    for item in jobs:
        text = lock_text.render(item.pins, [f"engine {item.engine}, Python {item.version}"])
        write(work / "locks" / f"{item.engine}-py{item.version}.txt", text)
