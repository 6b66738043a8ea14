"""Work on the wheels that were built: list them, verify their bytes, prune old ones, push and pull."""

from __future__ import annotations

import argparse
import json
from collections.abc import Callable, Sequence
from pathlib import Path

from envcheck.errors import EnvcheckError, WorkError
from scripts import cli, files, wheelhouse_remote, wheelhouse_store
from scripts.wheelhouse_store import Entry


def _row(entry: Entry) -> str:
    inputs = entry.receipt.get("inputs", {})
    built = " ".join(filter(None, (inputs.get("torch", ""), f"CUDA {inputs['cuda']}" if inputs.get("cuda") else "")))
    return f"{entry.key[:12]}  {files.size(entry.size):>9}  {entry.wheel.name}  {built}".rstrip()


def listing(root: Path, options: argparse.Namespace) -> int:
    """Print what is there."""
    found = list(wheelhouse_store.entries(root))
    if options.format == "json":
        print(json.dumps({"version": 1, "wheels": [entry.receipt for entry in found]}, indent=2))
        return 0
    print("\n".join(map(_row, found)) or f"{root} holds no wheels")
    return 0


def verify(root: Path, options: argparse.Namespace) -> int:  # noqa: ARG001  # all commands alike
    """Check every wheel against its receipt; raise WorkError naming those that differ."""
    count, faults = 0, list[str]()
    for entry in wheelhouse_store.entries(root, faults):
        count += 1
        fault = wheelhouse_store.damage(entry)
        if fault:
            faults.append(f"{entry.wheel}: {fault}")
    if faults:
        raise WorkError("\n".join(faults), fix="remove them; the next build makes them anew")
    print(f"{count} wheels are as their receipts say")
    return 0


def prune(root: Path, options: argparse.Namespace) -> int:
    """Remove all but the newest wheels of each file name."""
    old = wheelhouse_store.prune(root, keep=options.keep, dry_run=options.dry_run)
    verb = "would be removed" if options.dry_run else "removed"
    for entry in old:
        print(f"{verb}: {_row(entry)}")
    print(f"{len(old)} wheels {verb}, {files.size(sum(entry.size for entry in old))}")
    return 0


def push(root: Path, options: argparse.Namespace) -> int:
    """Send what the other side lacks."""
    sent = wheelhouse_remote.push(root, _url(options))
    for entry in sent:
        print(f"sent {_row(entry)}")
    print(f"{len(sent)} wheels sent")
    return 0


def pull(root: Path, options: argparse.Namespace) -> int:
    """Take what this side lacks."""
    taken = wheelhouse_remote.pull(root, _url(options))
    for entry in taken:
        print(f"taken {_row(entry)}")
    print(f"{len(taken)} wheels taken")
    return 0


def _url(options: argparse.Namespace) -> str:
    if not options.url:
        raise EnvcheckError(
            f"{options.command} needs the address of the other wheelhouse",
            fix=f"nox -s wheelhouse -- {options.command} URL",
        )
    return str(options.url)


COMMANDS: dict[str, Callable[[Path, argparse.Namespace], int]] = {
    "list": listing,
    "verify": verify,
    "prune": prune,
    "push": push,
    "pull": pull,
}


def parser() -> argparse.ArgumentParser:
    """Describe the command line."""
    out = argparse.ArgumentParser(prog="python -m scripts.wheelhouse", description=__doc__)
    out.add_argument("command", choices=COMMANDS, nargs="?", default="list")
    out.add_argument("url", nargs="?", help="push, pull: a directory, s3://bucket/path, https://host/path")
    out.add_argument("--wheelhouse", type=Path, help="the wheelhouse (default: in the project's cache)")
    out.add_argument("--keep", type=int, default=1, help="prune: how many of each file name stay")
    out.add_argument("--dry-run", action="store_true", help="prune: only say what would go")
    out.add_argument("--format", choices=("text", "json"), default="text")
    return out


def main(argv: Sequence[str] | None = None) -> int:
    """Do what the command says."""
    options = parser().parse_args(argv)
    root = options.wheelhouse or wheelhouse_store.default()
    return COMMANDS[options.command](root, options)


if __name__ == "__main__":
    raise SystemExit(cli.run(main))
