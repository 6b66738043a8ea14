"""Check locks against a vulnerability database (OSV; a file, a directory or an address) and for confusable names.

What is built from source stands in no lock; it is checked by the stack file's versions.

nox -s audit -- --database FILE|DIR|URL [--stack S] [--engine E] [--ignore ID=REASON]
The database holds OSV records: one, a list, or an archive of them (as PyPI/all.zip). Nothing is sent anywhere.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path

from envcheck import errors, limits
from envcheck import stack as stacks
from envcheck.errors import EnvcheckError
from envcheck.stack import Stack
from scripts import audit_database, cli, env_plan, lock_files, sources_lock
from scripts.audit_database import Hit
from scripts.cache import ROOT
from scripts.lock_text import Pin


def parser() -> argparse.ArgumentParser:
    """Give the command line."""
    it = argparse.ArgumentParser(
        prog="python -m scripts.audit", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    it.add_argument("--stack", action="append", help="a stack's name or file (default: every stack)")
    it.add_argument("--engine", help="sglang or vllm (default: every engine)")
    it.add_argument("--database", help="OSV records: a .json or .zip file, a directory, or an address of one")
    it.add_argument(
        "--ignore", action="append", default=[], metavar="ID=REASON", help="a vulnerability that is accepted"
    )
    it.add_argument("--format", choices=("text", "json"), default="text")
    it.add_argument("--root", type=Path, default=ROOT, help=argparse.SUPPRESS)
    return it


def main(argv: Sequence[str] | None = None) -> int:
    """Print what was found; give 1 where something was that is not ignored."""
    given = parser().parse_args(argv)
    ignored = dict(_accepted(text) for text in given.ignore)
    locks: dict[str, tuple[Stack, list[Pin]]] = {}
    built: dict[str, list[Pin]] = {}
    for name in given.stack or stacks.names():
        stack = stacks.load(name)
        if given.engine and given.engine not in stack.engines:
            fix = f"it has: {', '.join(stack.engines)}"
            raise EnvcheckError(f"stack {stack.name} has no engine {given.engine!r}", fix=fix)
        for engine in [given.engine] if given.engine else stack.engines:
            path = lock_files.requirements(stack.name, engine, given.root)
            locks[f"{stack.name}/{path.name}"] = (stack, env_plan.read(path))
            built[f"{stack.name}/sources.toml"] = from_source(stack, given.engine)
    rows: list[dict[str, str]] = []
    for label, (stack, pins) in locks.items():
        rows += [
            {"lock": label, "kind": "name", "package": name, "text": text} for name, text in confusions(stack, pins)
        ]
    if given.database:
        checked = {label: pins for label, (_, pins) in locks.items()} | built
        wanted = {pin.name for pins in checked.values() for pin in pins}
        records = audit_database.load(given.database, wanted)
        for label, pins in checked.items():
            rows += [_row(label, hit, ignored) for hit in audit_database.hits(records, pins)]
    _show(rows, len(locks), given.format, with_database=bool(given.database))
    return errors.FINDINGS if any(row["kind"] != "ignored" for row in rows) else errors.OK


def from_source(stack: Stack, engine: str | None) -> list[Pin]:
    """Give what is built from source, for one engine or all, as pins without hashes.

    Records under a name that is another project's on the index (apex) are not about what is built here.
    """
    others = {row.give["name"] for row in limits.load().tables["names"].row}
    return [
        Pin(name=item.distribution, version=item.version)
        for item in sources_lock.buildable(stack)
        if (not item.engines or engine is None or engine in item.engines) and item.distribution not in others
    ]


def _accepted(text: str) -> tuple[str, str]:
    name, mark, reason = text.partition("=")
    if not mark or not reason.strip():
        raise EnvcheckError(
            f"--ignore {text}: says no reason",
            fix="as in --ignore 'PYSEC-2024-1=not reachable: no HTTP server is started'",
        )
    return name, reason.strip()


def _row(label: str, hit: Hit, ignored: dict[str, str]) -> dict[str, str]:
    accepted = next((ignored[name] for name in (hit.id, *hit.aliases) if name in ignored), "")
    fixed = f"; fixed in {', '.join(hit.fixed)}" if hit.fixed else "; no fixed version is known"
    kind = "ignored" if accepted else "vulnerability"
    text = f"{hit.id}{''.join(f' ({name})' for name in hit.aliases[:1])}: {hit.summary}{fixed}"
    return {
        "lock": label,
        "kind": kind,
        "package": f"{hit.name}=={hit.version}",
        "text": text + (f"; accepted: {accepted}" if accepted else ""),
    }


def confusions(stack: Stack, pins: Sequence[Pin]) -> Iterator[tuple[str, str]]:
    """Name the locked packages that are not what their name suggests."""
    known = {row.give["name"]: row for row in limits.load().tables["names"].row}
    outside = {item.distribution: item for item in stack.components if item.origin.kind in {"git", "wheel"}}
    for pin in pins:
        if pin.name in known:
            row = known[pin.name]
            yield f"{pin.name}=={pin.version}", f"{row.why}; meant is {row.give['meant']}: {row.give['install']}"
        elif pin.name in outside:
            item = outside[pin.name]
            yield (
                f"{pin.name}=={pin.version}",
                f"the stack takes {item.name} from {item.origin.url}, this line would take it from the index",
            )


def _show(rows: Sequence[dict[str, str]], locks: int, form: str, *, with_database: bool) -> None:
    if form == "json":
        json.dump(
            {"version": 1, "locks": locks, "database": with_database, "findings": list(rows)}, sys.stdout, indent=1
        )
        print()
        return
    for row in rows:
        print(f"{row['lock']}: {row['package']}: {row['text']}")
    ignored = sum(row["kind"] == "ignored" for row in rows)
    database = "" if with_database else "; no vulnerability database was given (--database)"
    print(f"{locks} locks: {len(rows) - ignored} findings, {ignored} ignored{database}")


if __name__ == "__main__":
    raise SystemExit(cli.run(main))
