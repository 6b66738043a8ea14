"""Check the locks: offline in a second that they are what the stack files say; with --network that they still resolve.

Offline: generated from these inputs, not edited by hand, every line pinned and hashed, one version for each Python,
no address of any index, every component in it, every override with reason, source and end, proof not stale.
With --network: the same bytes again from scratch. With --pip: pip takes each lock. With --pip-compile: its own answer.
"""

from __future__ import annotations

import argparse
from collections.abc import Iterator, Sequence
from pathlib import Path

from envcheck import errors
from envcheck import stack as stacks
from envcheck.errors import EnvcheckError
from envcheck.stack import Stack
from scripts import cli, env, lock_check_files, lock_check_network, lock_files, lock_page, lock_tools, prove_record
from scripts.cache import ROOT
from scripts.prove_record import Proof


def parser() -> argparse.ArgumentParser:
    """Give the command line."""
    it = argparse.ArgumentParser(
        prog="python -m scripts.lock_check", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    it.add_argument("--stack", action="append", help="a stack's name or file (default: every stack and the tools)")
    it.add_argument("--network", action="store_true", help="also resolve again and compare the bytes")
    it.add_argument("--pip", action="store_true", help="also let pip take each lock (it downloads every file of it)")
    it.add_argument("--pip-compile", action="store_true", help="also compare with pip-compile (minutes)")
    it.add_argument("--python", help="interpreter for pip and pip-compile, of the stack's version (default: looked up)")
    it.add_argument("--no-proof", action="store_true", help="do not ask for a proof")
    it.add_argument("--root", type=Path, default=ROOT, help=argparse.SUPPRESS)
    return it


def main(argv: Sequence[str] | None = None) -> int:
    """Print every fault; give 1 where there is one."""
    given = parser().parse_args(argv)
    loaded = [stacks.load(name) for name in given.stack or stacks.names()]
    faults = [] if given.stack else [*tools(given.root), *filter(None, [lock_page.stale(given.root)])]
    for stack in loaded:
        found = [*offline(stack, given.root, proof=not given.no_proof), *online(stack, given)]
        faults += [f"{stack.name}: {fault}" for fault in found]
    for fault in faults:
        print(fault)
    if not faults and not given.no_proof:
        for stack in loaded:
            for line in untried(lock_files.directory(stack.name, given.root)):
                print(f"{stack.name}: {line}")
    names = ", ".join(stack.name for stack in loaded)
    print(f"{names}: {len(faults)} fault(s)" if faults else f"{names}: the locks are what the stack files say")
    return errors.FINDINGS if faults else errors.OK


def online(stack: Stack, given: argparse.Namespace) -> list[str]:
    """Say what is wrong as far as the index is needed to tell, each check only where it was asked for."""
    place = lock_files.directory(stack.name, given.root)
    found = list(lock_check_network.same_bytes(stack, place)) if given.network else []
    if given.pip or given.pip_compile:
        python = env.interpreter(given.python, stack)
        for engine in stack.engines:
            found += lock_check_network.accepted(place / f"requirements-{engine}.txt", python) if given.pip else []
            if given.pip_compile:
                lock_check_network.differences(stack, engine, place, python)
    return found


def offline(stack: Stack, root: Path = ROOT, *, proof: bool = True) -> Iterator[str]:
    """Say what is wrong with the locks of a stack, without the network."""
    place = lock_files.directory(stack.name, root)
    digest = lock_files.inputs_digest(stack)
    for engine in stack.engines:
        yield from lock_check_files.lock(stack, engine, place, digest)
    yield from lock_check_files.build(place, digest)
    yield from lock_check_files.generated(stack, place)
    yield from (
        f"{fault}: nox -s lock -- --stack {stack.name}"
        for fault in lock_files.source_faults(stack, place / "sources.toml")
    )
    yield from lock_check_files.said(stack)
    if proof:
        yield from proofs(stack, place)


def proofs(stack: Stack, place: Path) -> Iterator[str]:
    """Say which engine has no proof for the lock as it is now."""
    try:
        found = prove_record.read(place)
    except EnvcheckError as error:
        yield str(error)
        return
    for engine in stack.engines:
        path = place / f"requirements-{engine}.txt"
        rows = [row for row in found.proofs if row.engine == engine] if found else []
        command = f"nox -s lock_prove -- --stack {stack.name} --engine {engine}"
        if not rows:
            yield f"{path.name}: was never proven to run: {command}"
        elif path.exists():
            yield from _stale(stack, path, rows, command)
            yield from (f"{path.name}: failed its proof on {row.date}: {text}" for row in rows for text in row.failed)


def _stale(stack: Stack, path: Path, rows: Sequence[Proof], command: str) -> Iterator[str]:
    """Say which proofs are of other bytes than the lock and the sources have now, or of other modules."""
    now = prove_record.sha256(path)
    for row in rows:
        proof = f"{path.name}: its proof for {row.trainer} and Python {row.python} is stale"
        mend = f"{command} --trainer {row.trainer}"
        listed = stack.lock.proof_modules
        missed = {*listed.get(row.engine, ()), *listed.get(row.trainer, ())} - row.tried
        if row.lock_sha256 != now:
            yield f"{proof}, the lock has changed: {mend}"
        elif row.sources_sha256 not in {"", _sources(stack, row, path.parent)}:
            yield f"{proof}, a source that it was built from has changed: {mend}"
        elif missed:
            yield f"{proof}, it did not try {', '.join(sorted(missed))}: {mend}"


def _sources(stack: Stack, row: Proof, place: Path) -> str:
    """Give the digest of the sources as they are now; where they cannot be read, another check says so."""
    try:
        return prove_record.sources_digest(stack, row.engine, row.trainer, place)
    except (EnvcheckError, OSError):
        return row.sources_sha256


def untried(place: Path) -> Iterator[str]:
    """Say what the proofs could not try; no fault, as a lock is none the worse for it."""
    found = prove_record.read(place)
    for row in found.proofs if found else ():
        if row.waiting:
            lacking = ", ".join(sorted({prove_record.lacking(line) for line in row.waiting}))
            modules = ", ".join(line.partition(": ")[0] for line in row.waiting)
            which = f"{row.engine} + {row.trainer}, Python {row.python}"
            yield f"{which}: not proven without a wheel of {lacking}: {modules}"


def tools(root: Path = ROOT) -> Iterator[str]:
    """Say what is wrong with tools.txt and dev.txt."""
    table = lock_tools.project(root)
    cutoff = table["tool"]["envcheck"]["tools-cutoff"]
    for name, wanted in lock_tools.wanted(table).items():
        text = lock_tools.header(name, wanted, cutoff)[1]
        yield from lock_check_files.whole(
            root / "lockfiles" / name, text.removeprefix("inputs sha256:"), lock_tools.VERSIONS
        )


if __name__ == "__main__":
    raise SystemExit(cli.run(main))
