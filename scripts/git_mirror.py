"""Commits from where they can be had: a local mirror in any usual layout, the project's own cache, or the network."""

from __future__ import annotations

import os
import re
import shutil
from collections.abc import Iterator, Sequence
from pathlib import Path

from envcheck.errors import WorkError
from scripts import process
from scripts.cache import cache, locked
from scripts.git_objects import commit_hash, tree_hash, tree_of_commit

FETCH_SECONDS = 1800
QUIET = {"GIT_TERMINAL_PROMPT": "0", "GIT_LFS_SKIP_SMUDGE": "1", "LC_ALL": "C"}


class UnreachableError(WorkError):
    """No place that was named or is known gave the source."""


def owner_and_name(url: str) -> tuple[str, str]:
    """Split a repository address: ``https://github.com/NVIDIA/TransformerEngine.git`` → NVIDIA, TransformerEngine."""
    parts = re.split(r"[/:]", url.rstrip("/").removesuffix(".git"))
    return (parts[-2] if len(parts) > 1 else "", parts[-1])


def layouts(directory: Path, url: str) -> Iterator[Path]:
    """Name the places below a mirror directory at which a repository may lie."""
    owner, name = owner_and_name(url)
    for stem in (f"{owner}/{name}", f"{owner}+{name}", f"{owner}_{name}", name):
        for place in (f"{stem}.git", f"{stem}/repo", f"{stem}/repo.git", stem):
            yield directory / place
            yield directory / place / ".git"


def git(directory: Path | None, *arguments: str, timeout: float = 120) -> str:
    """Run git on a git directory, without prompts; the user's own configuration (``insteadOf``) counts."""
    where = [f"--git-dir={directory}"] if directory else []
    argv = ["git", "-c", "safe.directory=*", *where, *arguments]
    return process.output(argv, timeout=timeout, environ={**os.environ, **QUIET})


def is_repository(path: Path) -> bool:
    """Tell whether the directory is a git directory."""
    return (path / "HEAD").is_file() and (path / "objects").is_dir()


def has(path: Path, commit: str) -> bool:
    """Tell whether a git directory holds a commit."""
    try:
        git(path, "cat-file", "-e", f"{commit}^{{commit}}")
    except WorkError:
        return False
    return True


def find(commit: str, urls: Sequence[str], directories: Sequence[Path]) -> Path:
    """Give a git directory that holds the commit; fetch it from the first address that has it, where none does."""
    looked = []
    for directory in directories:
        for url in urls:
            for place in layouts(directory, url):
                if is_repository(place):
                    if has(place, commit):
                        return place
                    looked.append(f"{place} does not hold {commit[:12]}")
    own = cache("git", "+".join(owner_and_name(urls[0])) + ".git")
    if is_repository(own) and has(own, commit):
        return own
    return _fetch(own, commit, urls, looked)


def _fetch(own: Path, commit: str, urls: Sequence[str], looked: list[str]) -> Path:
    with locked(own.with_suffix(".lock"), what=f"fetching {urls[0]}"):
        _ready(own)
        for url in urls:
            try:
                git(own, "fetch", "--quiet", "--depth=1", "--no-tags", url, commit, timeout=FETCH_SECONDS)
            except WorkError as error:
                looked.append(f"{url}: {said(error.what)}")
                continue
            if has(own, commit):
                return own
            looked.append(f"{url} gave something else")
    what = f"commit {commit} was not to be had:\n  " + "\n  ".join(looked)
    raise UnreachableError(
        what, fix=f"name a directory with a mirror: --source DIR (as DIR/{'/'.join(owner_and_name(urls[0]))}.git)"
    )


def _ready(own: Path) -> None:
    """Make the cache's repository, or make it whole again after a run that was killed; the caller holds its lock.

    ``shallow.lock``, which a killed fetch leaves, would stop every later one.
    """
    for stale in own.glob("*.lock"):
        stale.unlink()
    try:
        git(own, "rev-parse", "--git-dir")
    except WorkError:
        shutil.rmtree(own, ignore_errors=True)
        own.mkdir(parents=True)
        git(own, "init", "--bare", "--quiet")


def said(text: str) -> str:
    """Give the line of git's that names the fault: ``fatal: repository '/srv/x' does not exist``.

    Its last line is often ``and the repository exists.``, the end of a sentence that tells nothing.
    """
    lines = text.strip().splitlines()
    return next((line for line in lines if line.startswith(("fatal: ", "remote: error", "error: "))), lines[-1])


def submodules_of(repository: Path, commit: str) -> dict[str, str]:
    """Read the submodules of a commit: ``160000 commit 1b0b5eac…<tab>3rdparty/cudnn-frontend``."""
    rows = (line.partition("\t") for line in git(repository, "ls-tree", "-r", commit).splitlines())
    return {path: row.split()[2] for row, _, path in rows if row.startswith("160000 ")}


def export(repository: Path, commit: str, into: Path, submodules: dict[str, str]) -> str:
    """Write the files of a commit, byte for byte, and give its tree hash; every byte is checked against the commit."""
    argv = ["git", "-c", "safe.directory=*", f"--git-dir={repository}", "cat-file", "commit", commit]
    body = process.output_bytes(argv, environ={**os.environ, **QUIET})
    tree = tree_of_commit(body)
    if commit_hash(body) != commit or tree is None:
        raise WorkError(f"{repository}: the object {commit} is not that commit", fix="remove this mirror")
    into.mkdir(parents=True, exist_ok=True)
    environ = {**os.environ, **QUIET, "GIT_INDEX_FILE": str(into / ".git-index"), "GIT_ATTR_NOSYSTEM": "1"}
    base = ["git", "-c", "safe.directory=*", "-c", "core.autocrlf=false", "-c", "core.attributesFile=/dev/null"]
    base += [f"--git-dir={repository}", f"--work-tree={into}"]
    try:
        process.output([*base, "read-tree", commit], environ=environ, timeout=120)
        process.output([*base, "checkout-index", "--all", "--force"], environ=environ, timeout=600, cwd=into)
    except WorkError as error:
        if "unable to write" in error.what or "No space left" in error.what:
            what = f"{into} could not be written, {shutil.disk_usage(into).free >> 20} MiB are free there"
            raise WorkError(what, fix="make room, or set ENVCHECK_CACHE to a place that has it") from error
        raise
    finally:
        (into / ".git-index").unlink(missing_ok=True)
    links = submodules_of(repository, commit)
    if not submodules.items() <= links.items():
        what = f"{commit[:12]} has the submodules {links}, pinned are {submodules}"
        raise WorkError(what, fix="pin the submodules of this commit")
    found = tree_hash(into, links)
    if found != tree:
        what = f"the files of {commit[:12]} hash to tree {found}, the commit says {tree}"
        raise WorkError(what, fix=f"the mirror {repository} is damaged: fetch it again")
    return tree
