"""Make an air-gap kit: one directory with every wheel and source of a lock, the doctor, uv, checksums and an installer.

nox -s kit -- --stack S --engine E --output DIR [--python-version 3.10]   make it, where the index is reachable
DIR/install --prefix DIR [--python PATH]                                  install it, with no network and no uv
nox -s kit -- --verify DIR                                                every file is there and has its hash
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Sequence
from pathlib import Path

from envcheck import choices, errors
from envcheck import stack as stacks
from envcheck.errors import EnvcheckError
from envcheck.stack import Stack
from scripts import cli, env_plan, kit_check, kit_files, lock_remote, sources, wheelhouse_store
from scripts.cache import ROOT, cache, locked
from scripts.files import check_ours, replacing, write
from scripts.kit_files import Job


def parser() -> argparse.ArgumentParser:
    """Give the command line."""
    it = argparse.ArgumentParser(
        prog="python -m scripts.kit", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    it.add_argument("--verify", type=Path, metavar="DIR", help="check a kit that is there")
    it.add_argument("--output", type=Path, metavar="DIR", help="where to make it (default: dist/kit-STACK)")
    it.add_argument("--stack", default=stacks.DEFAULT_STACK)
    it.add_argument("--engine", action="append", help="sglang or vllm (default: the stack's first); may be given again")
    it.add_argument(
        "--python-version", action="append", help="3.10, 3.11 or 3.12 (default: the stack's); may be given again"
    )
    it.add_argument(
        "--from", dest="older", type=Path, action="append", default=[], help="take files from an earlier kit first"
    )
    it.add_argument("--wheelhouse", type=Path, help="where built wheels are")
    it.add_argument("--source", action="append", default=[], help="local mirrors and archives of sources")
    it.add_argument("--no-sources", action="store_true", help="leave out the git sources and sdists of what is built")
    it.add_argument("--root", type=Path, default=ROOT, help=argparse.SUPPRESS)
    return it


def main(argv: Sequence[str] | None = None) -> int:
    """Make or verify a kit."""
    given = parser().parse_args(argv)
    if given.verify:
        return kit_check.verify(given.verify)
    stack = stacks.load(given.stack)
    engines, versions = given.engine or [stack.engines[0]], given.python_version or [stack.python.default]
    for what, values, known in (("engine", engines, stack.engines), ("Python", versions, env_plan.covered())):
        for value in values:
            if value not in known:
                raise EnvcheckError(f"stack {stack.name} has no {what} {value!r}", fix=f"it has: {', '.join(known)}")
    output = (given.output or ROOT / "dist" / f"kit-{stack.name}").absolute()
    check_ours(output, "kit.json")
    with locked(cache("kit.lock"), what="making a kit"), replacing(output) as work:
        missing = fill(work, stack, engines, versions, given)
    for engine, name in missing:
        command = choices.command(stack, engine, name)
        print(f"no wheel of {name} is in the kit: {command} first, then make the kit again")
    print(f"{output}: {kit_check.summary(output)}; install it with {output}/install --prefix DIR")
    return errors.OK


def fill(
    work: Path, stack: Stack, engines: Sequence[str], versions: Sequence[str], given: argparse.Namespace
) -> list[tuple[str, str]]:
    """Put everything into the kit; give the components that have no wheel yet, each with its engine."""
    house = list(wheelhouse_store.entries(given.wheelhouse or wheelhouse_store.default()))
    jobs = [kit_files.job(stack, engine, version, house, given.root) for engine in engines for version in versions]
    listed = lock_remote.index()
    if not given.no_sources:
        kit_files.sources(work / "sources", stack, sources.directories(given.source))
    kit_files.wheels(work / "wheels", jobs, kit_files.shared(stack, given.root), given.older, listed)
    kit_files.programs(work, stack, given.root)
    kit_files.locks(work, jobs)
    write(work / "kit.json", json.dumps(manifest(stack, jobs), indent=1, sort_keys=True) + "\n")
    write(work / "SHA256SUMS", kit_check.sums(work))
    return sorted({(job.engine, name) for job in jobs for name in job.missing})


def manifest(stack: Stack, jobs: Sequence[Job]) -> dict[str, object]:
    """Say what the kit holds: for each engine and Python its lock, the wheels beside it, and what is to be built."""
    rows = [
        {
            "engine": job.engine,
            "python": job.version,
            "lock": f"locks/{job.engine}-py{job.version}.txt",
            "build": f"lockfiles/{stack.name}/build.txt",
            "wheels": [
                {"file": f"built/{extra.sha256[:12]}/{extra.file}", "sha256": extra.sha256} for extra in job.extras
            ],
            "sdists": list(job.sdists),
            "missing": list(job.missing),
        }
        for job in jobs
    ]
    return {"version": 1, "stack": stack.name, "environments": rows}


if __name__ == "__main__":
    raise SystemExit(cli.run(main))
