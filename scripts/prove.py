"""Prove that a lock runs, without a GPU: install it, import what engine and trainer import, load every extension.

nox -s lock_prove -- --stack S --engine E [--trainer T] [--python PATH] [--prefix DIR]
The result is written to lockfiles/<stack>/proof.json, which is stale as soon as the lock or a pinned source changes.
What no nvcc has to compile (verl) is built where it has no wheel. Exit code: 0 all of it runs · 1 something fails ·
3 nothing fails, but something could not be tried, as it waits for a wheel.
"""

from __future__ import annotations

import argparse
import datetime as dt
import os
import tempfile
from collections.abc import Sequence
from pathlib import Path

from envcheck import errors
from envcheck import stack as stacks
from envcheck.errors import WorkError
from scripts import cli, env, env_plan, lock_files, lock_page, prove_build, prove_record, prove_run
from scripts.cache import ROOT
from scripts.env_plan import Selection
from scripts.prove_record import Proof
from scripts.prove_run import Result


def parser() -> argparse.ArgumentParser:
    """Give the command line."""
    it = argparse.ArgumentParser(
        prog="python -m scripts.prove", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    it.add_argument("--stack", default=stacks.DEFAULT_STACK)
    it.add_argument("--engine", action="append", help="sglang or vllm (default: every engine)")
    it.add_argument("--trainer", help="also prove this trainer's modules (default: the stack's first)")
    it.add_argument("--python", action="append", help="interpreter (default: the stack's version); may be given again")
    it.add_argument("--prefix", type=Path, help="use or keep the environment here (default: a temporary one)")
    it.add_argument("--wheelhouse", type=Path, help="where built wheels are")
    it.add_argument("--root", type=Path, default=ROOT, help=argparse.SUPPRESS)
    return it


def main(argv: Sequence[str] | None = None) -> int:
    """Prove each engine under each Python; give 1 where something failed that no fault explains, 3 where it waits."""
    given = parser().parse_args(argv)
    stack = stacks.load(given.stack)
    engines, pythons = given.engine or list(stack.engines), given.python or [None]
    if given.prefix and len(engines) * len(pythons) > 1:
        raise WorkError("--prefix is for one engine and one Python")
    place = lock_files.directory(stack.name, given.root)
    prove_record.read(place)  # one that is damaged is refused now, not after the work
    proofs = []
    for engine in engines:
        for python in pythons:
            wanted = env.selection(given.stack, engine, given.trainer, python)
            proof = prove(wanted, env.interpreter(python, stack), given)
            print(prove_record.shown(proof), flush=True)
            if earlier := prove_record.add(place, stack.name, proof):
                print(f"  the proof of {earlier.date} stays: it is of the same bytes, and less was not tried")
            proofs.append(proof)
    if stack.name in stacks.names():
        lock_page.write(given.root)
    if any(proof.failed for proof in proofs):
        return errors.FINDINGS
    return errors.UNJUDGED if any(proof.waiting for proof in proofs) else errors.OK


def prove(wanted: Selection, python: str, given: argparse.Namespace) -> Proof:
    """Make the environment, try everything in it, and say what came out."""
    lock = lock_files.requirements(wanted.stack.name, wanted.engine, given.root)
    plan = env_plan.make(wanted, wheelhouse=given.wheelhouse, root=given.root)
    with tempfile.TemporaryDirectory(prefix="prove-", dir=os.environ.get("TMPDIR")) as name:
        prefix = given.prefix.absolute() if given.prefix else Path(name) / "env"
        env.make(wanted, python, prefix, wheelhouse=given.wheelhouse)
        if prove_build.build(wanted, plan.missing, prefix, given.wheelhouse):
            plan = env_plan.make(wanted, wheelhouse=given.wheelhouse, root=given.root)
            env.make(wanted, python, prefix, wheelhouse=given.wheelhouse)
        result = prove_run.run(wanted, prefix, Path(name))
    return record(wanted, lock, len(plan.pins), plan.missing, result)


def record(wanted: Selection, lock: Path, packages: int, missing: Sequence[str], result: Result) -> Proof:
    """Sort what failed into known faults, modules that wait for a wheel that is not built, and real failures."""
    known, waiting, failed = [], [], []
    for subject, text in sorted(result.faults.items()):
        fault = next((item for item in wanted.stack.lock.known_faults if prove_run.is_known(item, subject, text)), None)
        lacking = prove_run.lacks(wanted.stack, missing, text)
        if fault:
            known.append(f"{subject}: {text} ({fault.reason})")
        elif lacking:
            waiting.append(_waits(wanted, subject, lacking))
        else:
            failed.append(f"{subject}: {text}")
    named = {prove_record.lacking(line) for line in waiting}
    waiting += [_waits(wanted, prove_run.module_of(wanted.stack, name), name) for name in missing if name not in named]
    return Proof(
        engine=wanted.engine,
        trainer=wanted.trainer,
        python=wanted.version,
        date=dt.datetime.now(tz=dt.timezone.utc).date().isoformat(),
        lock_sha256=prove_record.sha256(lock),
        sources_sha256=prove_record.sources_digest(wanted.stack, wanted.engine, wanted.trainer, lock.parent),
        packages=packages,
        extensions=result.extensions,
        modules=tuple(sorted(result.modules)),
        pretended=tuple(sorted(result.pretended)),
        known_faults=tuple(known),
        waiting=tuple(waiting),
        failed=tuple(failed),
    )


def _waits(wanted: Selection, subject: str, name: str) -> str:
    why = "which is compiled and not built here" if prove_build.compiled(wanted, name) else "without a wheel"
    return f"{subject}: needs {name}, {why}"


if __name__ == "__main__":
    raise SystemExit(cli.run(main))
