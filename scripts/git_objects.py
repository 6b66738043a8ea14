"""Git's hashes computed from files: proof that a tree is the pinned one, whoever delivered it, without git."""

from __future__ import annotations

import hashlib
import os
import re
from collections.abc import Mapping
from pathlib import Path

FILE, PROGRAM, LINK, DIRECTORY, SUBMODULE = "100644", "100755", "120000", "40000", "160000"


def _hash(kind: str, content: bytes) -> bytes:
    head = f"{kind} {len(content)}\0".encode()
    return hashlib.sha1(head + content, usedforsecurity=False).digest()  # git's own object hash


def commit_hash(content: bytes) -> str:
    """Hash the body of a commit object."""
    return _hash("commit", content).hex()


def tree_of_commit(content: bytes) -> str | None:
    """Read the tree from the body of a commit: its first line is ``tree <40 hex digits>``."""
    match = re.match(rb"tree ([0-9a-f]{40})\n", content)
    return match[1].decode() if match else None


def tree_hash(root: Path, submodules: Mapping[str, str] | None = None) -> str:
    """Hash a directory as git would hash its tree; ``submodules`` maps their paths to commits."""
    return _tree(root, "", dict(submodules or {})).hex()


def _tree(directory: Path, prefix: str, submodules: Mapping[str, str]) -> bytes:
    entries = []
    for entry in os.scandir(directory):
        path = f"{prefix}{entry.name}"
        if path in submodules:
            mode, digest = SUBMODULE, bytes.fromhex(submodules[path])
        elif entry.is_symlink():
            mode, digest = LINK, _hash("blob", os.fsencode(os.readlink(entry.path)))
        elif entry.is_dir():
            if not _has_files(Path(entry.path), path, submodules):
                continue
            mode, digest = DIRECTORY, _tree(Path(entry.path), f"{path}/", submodules)
        else:
            mode = PROGRAM if entry.stat().st_mode & 0o100 else FILE
            digest = _hash("blob", Path(entry.path).read_bytes())
        # Git sorts a directory as if its name ended in a slash.
        key = os.fsencode(entry.name) + (b"/" if mode == DIRECTORY else b"")
        entries.append((key, f"{mode} ".encode() + os.fsencode(entry.name) + b"\0" + digest))
    return _hash("tree", b"".join(row for _, row in sorted(entries)))


def _has_files(directory: Path, prefix: str, submodules: Mapping[str, str]) -> bool:
    """Tell whether git would keep the directory: it holds a file, a link or a submodule somewhere below."""
    if any(path.startswith(f"{prefix}/") for path in submodules):
        return True
    return any(entry.is_symlink() or entry.is_file() for entry in directory.rglob("*"))
