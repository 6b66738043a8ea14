"""Write ``lockfiles/README.md``: what each lock was proven to do, what needs a GPU, what it holds instead of what."""

from __future__ import annotations

import argparse
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path

from envcheck import errors
from envcheck import stack as stacks
from envcheck.stack import Stack
from scripts import cli, files, prove_record
from scripts.cache import ROOT
from scripts.prove_record import Proof

NAME = "README.md"
HEAD = """# The locks, and what they were proven to do

Written by `nox -s lock` and `nox -s lock_prove`, from the stack files and `proof.json`; do not edit.

A proof installs a lock and, on a host without a GPU, imports every module that engine and trainer import and loads
every extension with all of its symbols bound, against a stand-in for the driver library. What it cannot show without a
GPU: that kernels compute what they should, that an engine serves, that PPO trains.
"""


def main(argv: Sequence[str] | None = None) -> int:
    """Write the page."""
    argparse.ArgumentParser(prog="python -m scripts.lock_page", description=__doc__).parse_args(argv)
    write()
    return errors.OK


def write(root: Path = ROOT) -> None:
    """Write the page where it is not as it would be written."""
    if fault := stale(root):
        files.write(root / "lockfiles" / NAME, render([stacks.load(name) for name in stacks.names()], root))
        print(f"wrote {fault.partition(':')[0]}")


def stale(root: Path = ROOT) -> str:
    """Say that the page is not what proofs and stack files tell; empty where it is."""
    place = root / "lockfiles" / NAME
    text = place.read_text(encoding="utf-8") if place.exists() else ""
    same = text == render([stacks.load(name) for name in stacks.names()], root)
    return "" if same else f"lockfiles/{NAME}: is not what proofs and stack files tell: python -m scripts.lock_page"


def render(loaded: Sequence[Stack], root: Path = ROOT) -> str:
    """Give the page."""
    return "\n".join([HEAD, *(section(stack, root) for stack in loaded)])


def section(stack: Stack, root: Path) -> str:
    """Give what is to be said of one stack."""
    found = prove_record.read(root / "lockfiles" / stack.name)
    proofs = found.proofs if found else ()
    parts = [f"## {stack.name}\n", *_proven(proofs), *_listed(proofs), *_known(stack, proofs), *_instead(stack)]
    return "\n".join(parts)


def table(head: Sequence[str], rows: Iterable[Sequence[object]]) -> list[str]:
    """Give a Markdown table, with an empty line below."""
    lines = [head, ["---"] * len(head), *rows]
    return [*("| " + " | ".join(str(cell).replace("|", "\\|") for cell in row) + " |" for row in lines), ""]


def _proven(proofs: Sequence[Proof]) -> list[str]:
    head = (
        "engine",
        "trainer",
        "Python",
        "packages",
        "modules import",
        "only with a GPU",
        "extensions load",
        "wait for",
    )
    rows = [
        (
            item.engine, item.trainer, item.python, item.packages, len(item.modules), len(item.pretended),
            item.extensions, ", ".join(sorted({prove_record.lacking(line) for line in item.waiting})) or "nothing",
        )
        for item in proofs
    ]  # fmt: skip
    return table(head, rows) if rows else ["Not proven yet: `nox -s lock_prove`.\n"]


def _listed(proofs: Sequence[Proof]) -> Iterator[str]:
    for engine in dict.fromkeys(item.engine for item in proofs):
        rows = [item for item in proofs if item.engine == engine]
        for what, names in (
            ("imports", {name for item in rows for name in item.modules}),
            ("imports only where torch says that there is a GPU", {name for item in rows for name in item.pretended}),
            ("waits for a wheel", {line for item in rows for line in item.waiting}),
            ("FAILS", {line for item in rows for line in item.failed}),
        ):
            if names:
                yield f"- {engine} {what}: {', '.join(f'`{name}`' for name in sorted(names))}"
    yield ""


def _known(stack: Stack, proofs: Sequence[Proof]) -> list[str]:
    """List the tolerated faults that were met."""
    met = {line for item in proofs for line in item.known_faults}
    rows = [
        (fault.package, f"`{fault.text}`", fault.reason)
        for fault in stack.lock.known_faults
        if any(f"({fault.reason})" in line for line in met)
    ]
    return table(("does not load", "says", "which is tolerated because"), rows) if rows else []


def _instead(stack: Stack) -> list[str]:
    """List what the lock holds where upstream's words cannot be followed, and why."""
    rows = [(f"`{row.requirement}`", row.reason, row.until) for row in stack.lock.overrides]
    rows += [
        (f"{item.name} {item.version}, built from its pinned source", item.origin.reason, "the stack is retired")
        for item in stack.components
        if item.origin.kind == "git" and item.origin.reason
    ]
    rows += [
        (f"{row.name} {row.version}, with dependencies corrected", row.reason, "the stack is retired")
        for row in stack.lock.metadata
        if row.wheel
    ]
    rows += [
        (f"{row.component}, built here", f"its release wheel is not taken: {row.reason}", "its hash is pinned")
        for row in stack.lock.wheels
        if not row.sha256
    ]
    traps = [(item.title, item.do, item.source) for item in stack.traps]
    return [
        *(table(("the lock holds", "why", "until"), rows) if rows else []),
        *(table(("where upstream's words fail", "here", "source"), traps) if traps else []),
    ]


if __name__ == "__main__":
    raise SystemExit(cli.run(main))
