"""Resolve the stack files into ``lockfiles/``: every package pinned and hashed, from scratch, the same bytes each time.

nox -s lock                                        both stacks and the tools
nox -s lock -- --stack S                           one stack
nox -s lock -- --stack S --upgrade-package NAME[==V]   a newer version: written to the stack file, diff printed
nox -s lock -- --stack S --pin-url NAME            record the hash of a release wheel that is outside the index
"""

from __future__ import annotations

import argparse
import os
from collections.abc import Sequence
from pathlib import Path

from envcheck import errors
from envcheck import stack as stacks
from envcheck.errors import WorkError
from envcheck.stack import Stack
from scripts import (
    cli,
    files,
    lock_diff,
    lock_files,
    lock_inputs,
    lock_page,
    lock_pin,
    lock_resolve,
    lock_tools,
    lock_upgrade,
    sbom,
)
from scripts.cache import ROOT, cache, locked
from scripts.lock_resolve import Resolved


def parser() -> argparse.ArgumentParser:
    """Give the command line."""
    it = argparse.ArgumentParser(
        prog="python -m scripts.lock", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    it.add_argument("--stack", action="append", help="a stack's name or file (default: every stack and the tools)")
    it.add_argument("--tools", action="store_true", help="only lockfiles/tools.txt and dev.txt")
    it.add_argument("--python", help="interpreter that uv resolves with (any: the result is the same)")
    it.add_argument(
        "--upgrade-package", metavar="NAME[==V]", help="take another version of a package, and print what moves"
    )
    it.add_argument(
        "--pin-url", metavar="COMPONENT", help="download the release wheel of a component and record its hash"
    )
    it.add_argument("--dry-run", action="store_true", help="print the diff, write nothing")
    it.add_argument("--root", type=Path, default=ROOT, help=argparse.SUPPRESS)
    return it


def main(argv: Sequence[str] | None = None) -> int:
    """Write the locks and say what moved."""
    given = parser().parse_args(argv)
    names = given.stack or ([] if given.tools else stacks.names())
    if given.pin_url or given.upgrade_package:
        names = [_single(given.stack)]
    with locked(cache("lock.lock"), what="locking"):
        if given.pin_url:
            return lock_pin.pin(names[0], given.pin_url, root=given.root)
        for name in names:
            _lock(name, given)
        if given.tools or not given.stack:
            _write(given.root / "lockfiles", lock_tools.texts(given.root), dry=given.dry_run)
        if names and set(names) <= set(stacks.names()) and not given.dry_run:
            lock_page.write(given.root)
    return errors.OK


def _single(named: list[str] | None) -> str:
    if named and len(named) > 1:
        raise WorkError("--upgrade-package and --pin-url take one --stack")
    return named[0] if named else stacks.DEFAULT_STACK


def _lock(name: str, given: argparse.Namespace) -> None:
    stack = stacks.load(name)
    place = lock_files.directory(stack.name, given.root)
    wanted = stack
    if given.upgrade_package:
        wanted = lock_upgrade.upgraded(stack, given.upgrade_package, place)
    lock_inputs.check_settled(wanted.lock.cutoff, where=f"stack {wanted.name}")
    resolved = lock_resolve.resolve(wanted, python=given.python)
    texts = lock_files.pinned(wanted, resolved) | lock_files.generated(wanted)
    texts |= {"sources.toml": _sources(wanted, place)}
    print(lock_diff.between(lock_diff.read(place), lock_diff.parsed(texts), resolved.sizes))
    if given.upgrade_package:
        lock_upgrade.check(stack, wanted, resolved, place)
    texts |= _sboms(wanted, resolved, place)
    if given.upgrade_package and not given.dry_run:
        lock_upgrade.write(lock_pin.stack_file(name), stack, wanted)
    _write(place, texts, dry=given.dry_run)


def _sources(stack: Stack, place: Path) -> str:
    """Give sources.toml; where GitHub and every mirror are out of reach, the one that is there, if it still fits."""
    try:
        return lock_files.sources(stack)
    except WorkError as error:
        path = place / "sources.toml"
        if path.exists() and not lock_files.source_faults(stack, path):
            print(f"sources.toml is kept, its pins are the stack file's ({error.what.splitlines()[0].rstrip(':')})")
            return path.read_text(encoding="utf-8")
        raise


def _sboms(stack: Stack, resolved: Resolved, place: Path) -> dict[str, str]:
    return {
        f"sbom-{engine}.cdx.json": sbom.document(stack, engine, resolved, known=place / f"sbom-{engine}.cdx.json")
        for engine in stack.engines
    }


def _write(place: Path, texts: dict[str, str], *, dry: bool) -> None:
    for name, text in sorted(texts.items()):
        path = place / name
        old = path.read_text(encoding="utf-8") if path.exists() else None
        if old == text:
            continue
        if not dry:
            files.write(path, text)
        print(f"{'would write' if dry else 'wrote'} {os.path.relpath(path)}")


if __name__ == "__main__":
    raise SystemExit(cli.run(main))
