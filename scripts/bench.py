"""Measure whole programs against each other in one run, and hold them against the budgets of bench.toml."""

from __future__ import annotations

import argparse
import json
import os
import platform
import shutil
import sys
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from envcheck import errors
from envcheck.errors import EnvcheckError
from scripts import bench_kit, bench_plan, cli, files
from scripts.bench_measure import Measured, Runner, Verdict, interpreter, judge, measure
from scripts.cache import ROOT

ROUNDS = 15
MARKS = {True: "met", False: "MISSED", None: "not measured"}


def main(argv: Sequence[str] | None = None) -> int:
    """Measure, print a table, write JSON; with ``--check`` 1 where a budget is missed."""
    args = _parser().parse_args(argv)
    if args.rounds < 1:
        raise EnvcheckError(f"--rounds {args.rounds} measures nothing", fix="give 1 or more")
    bench = bench_plan.load()
    if args.list:
        print(listed(bench))
        return errors.OK
    bench = bench.only(tuple(args.names))
    with tempfile.TemporaryDirectory(prefix="envcheck-bench-") as work:
        places = {"python": interpreter(), "target": _target(args.python), "work": work, "root": str(ROOT)}
        runner = Runner(values=places | bench_kit.values(args.kit))
        measured = measure(bench, runner, args.rounds, _say)
    verdicts = judge(bench, measured)
    print(table(measured, verdicts))
    files.write(args.json, json.dumps(document(measured, verdicts, args.rounds), indent=2) + "\n")
    print(f"written: {args.json}")
    missed = any(verdict.met is False for verdict in verdicts)
    return errors.FINDINGS if args.check and missed else errors.OK


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="bench", description=__doc__, allow_abbrev=False)
    parser.add_argument("names", nargs="*", metavar="NAME", help="programs or budgets (all)")
    parser.add_argument("--python", metavar="PATH", help="target interpreter or environment, one with torch")
    parser.add_argument("--kit", type=Path, metavar="DIR", help="a kit, whose wheels pip installs (minutes, 12 GB)")
    parser.add_argument("--rounds", type=int, default=ROUNDS, help=f"runs of each program ({ROUNDS})")
    parser.add_argument("--check", action="store_true", help="exit 1 where a budget is missed")
    parser.add_argument("--json", type=Path, default=ROOT / "outputs" / "bench.json", metavar="FILE")
    parser.add_argument("--list", action="store_true", help="list programs and budgets, run nothing")
    return parser


def _target(given: str | None) -> str:
    """Give the target interpreter: a program, or the bin/python of an environment's directory."""
    if given is None:
        return interpreter()
    inside = Path(given, "bin", "python")
    found = str(inside) if inside.exists() else shutil.which(given)
    if found is None:
        raise EnvcheckError(
            f"--python {given}: there is no such interpreter", fix="name a python, or a virtual environment"
        )
    return found


def _say(text: str) -> None:
    if sys.stderr.isatty():
        sys.stderr.write(f"\r{text}\x1b[K" + ("\n" if text.startswith("done") else ""))


def listed(bench: bench_plan.Bench) -> str:
    """List programs and budgets."""
    programs = [f"{item.name:<22}{item.title}" for item in bench.program]
    budgets = [
        f"{item.name:<22}{item.program} against {item.against or item.measure}: {item.why}" for item in bench.budget
    ]
    return "\n".join(["programs", *programs, "", "budgets", *budgets])


def table(measured: Mapping[str, Measured], verdicts: Sequence[Verdict]) -> str:
    """Give one line per program, then one per budget."""
    base = measured.get("bare")
    lines = [f"{'program':<30}{'median':>10}{'slowest':>10}{'x bare':>8}{'peak MB':>9}"]
    lines += [_program_line(item, base) for item in measured.values()]
    lines += ["", *(_budget_line(verdict) for verdict in verdicts)]
    return "\n".join(lines)


def _program_line(item: Measured, base: Measured | None) -> str:
    if not item.samples:
        return f"{item.program.title:<30}not measured: {item.why}"
    slowest = max(sample.seconds for sample in item.samples)
    times = f"{item.seconds / base.seconds:8.1f}" if base and base.samples else f"{'':>8}"
    milliseconds = f"{item.seconds * 1e3:7.1f} ms{slowest * 1e3:7.1f} ms"
    return f"{item.program.title:<30}{milliseconds}{times}{item.memory_bytes / 1e6:9.1f}"


def _budget_line(verdict: Verdict) -> str:
    budget = verdict.budget
    mark = MARKS[verdict.met]
    if verdict.value is None:
        return f"{mark}: {budget.name} ({verdict.reason.splitlines()[0]})"
    if budget.measure == "memory":
        return f"{mark}: {budget.name} {verdict.value / 1e6:.1f} MB, at most {budget.at_most / 1e6:.0f} MB"
    unit = f" x {budget.against}" if budget.against else " s"
    return f"{mark}: {budget.name} {verdict.value:.3f}{unit}, at most {budget.at_most:g}{unit}"


def document(measured: Mapping[str, Measured], verdicts: Sequence[Verdict], rounds: int) -> dict[str, Any]:
    """Give everything as JSON data."""
    return {
        "version": 1,
        "rounds": rounds,
        "machine": {"cpus": os.cpu_count(), "machine": platform.machine(), "python": platform.python_version()},
        "programs": [_program(item) for item in measured.values()],
        "budgets": [_budget(verdict) for verdict in verdicts],
    }


def _program(item: Measured) -> dict[str, Any]:
    names = {"name": item.program.name, "title": item.program.title}
    if not item.samples:
        return {**names, "unknown": item.why}
    return {
        **names,
        "median_seconds": item.seconds,
        "seconds": [sample.seconds for sample in item.samples],
        "peak_memory_bytes": item.memory_bytes,
    }


def _budget(verdict: Verdict) -> dict[str, Any]:
    budget = verdict.budget
    against = {"against": budget.against} if budget.against else {}
    said = {"name": budget.name, "program": budget.program, **against, "measure": budget.measure, "why": budget.why}
    found = {"unknown": verdict.reason} if verdict.value is None else {"value": verdict.value, "met": verdict.met}
    return {**said, "at_most": budget.at_most, **found}


if __name__ == "__main__":
    sys.exit(cli.run(main))
