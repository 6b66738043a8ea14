"""Judge whether runs that exist already agree: the first against each other one."""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Sequence
from pathlib import Path

from envcheck.errors import EnvcheckError
from scripts import cli, metrics, parity_judge, parity_report
from scripts.metrics import Run
from scripts.parity_judge import Comparison, Tolerances

EPILOG = "exit codes: 0 agree, 1 differ, 3 not enough data, 2 usage or runs of different configs"


def add_options(it: argparse.ArgumentParser) -> None:
    """Add the options that judging needs, wherever the runs come from."""
    it.add_argument("--tolerances", type=Path, default=parity_judge.TOLERANCES, help="another tolerances file (TOML)")
    it.add_argument(
        "--without", action="append", default=[], metavar="METRIC", help="leave a metric out of the verdict"
    )
    it.add_argument("--different-configs", action="store_true", help="compare although the configs differ")
    it.add_argument("--report", type=Path, metavar="FOLDER", help="write parity.json and parity.html there")
    it.add_argument("--png", action="store_true", help="with --report: a PNG too (needs matplotlib)")
    it.add_argument("--format", choices=("text", "json"), default="text", help="on standard output (%(default)s)")


def parser() -> argparse.ArgumentParser:
    """Describe the command line."""
    it = argparse.ArgumentParser(prog="python -m scripts.compare_runs", description=__doc__, epilog=EPILOG)
    source = "log, jsonl, .wandb file, run folder, or wandb:ENTITY/PROJECT/RUN; NAME=SOURCE gives it a name"
    it.add_argument("runs", nargs="+", metavar="RUN", help=source)
    add_options(it)
    return it


def main(argv: Sequence[str] | None = None) -> int:
    """Read, compare, report."""
    args = parser().parse_args(argv)
    if len(args.runs) < 2:  # noqa: PLR2004  # a comparison needs two
        raise EnvcheckError("one run cannot be compared", fix="name two or more")
    return judge([_read(source) for source in args.runs], args)


def _read(source: str) -> Run:
    label, equals, rest = source.partition("=")
    if equals and "/" not in label and not Path(source).exists():
        return metrics.read(rest, label)
    return metrics.read(source)


def judge(runs: Sequence[Run], args: argparse.Namespace) -> int:
    """Compare the first run with each other one, write what was asked for, give the exit code."""
    tolerances = parity_judge.load(args.tolerances)
    first, *others = _labelled(runs)
    comparisons = [parity_judge.compare(first, other, tolerances, without=args.without) for other in others]
    if not args.different_configs:
        _refuse_other_configs(comparisons)
    _deliver(comparisons, tolerances, args)
    return parity_report.exit_code(comparisons)


def _labelled(runs: Sequence[Run]) -> list[Run]:
    """Give runs of one name different ones."""
    from dataclasses import replace

    labels = [run.label for run in runs]
    return [
        replace(run, label=f"{run.label} ({number})") if labels.count(run.label) > 1 else run
        for number, run in enumerate(runs, start=1)
    ]


def _refuse_other_configs(comparisons: Sequence[Comparison]) -> None:
    for comparison in comparisons:
        if comparison.config:
            listed = "\n".join(f"  {key}: {one!r} against {other!r}" for key, one, other in comparison.config)
            what = f"{comparison.first.label} and {comparison.second.label} are runs of different configs:\n{listed}"
            raise EnvcheckError(what, fix="--different-configs compares them all the same")


def _deliver(comparisons: Sequence[Comparison], tolerances: Tolerances, args: argparse.Namespace) -> None:
    if args.report:
        for path in parity_report.write(comparisons, tolerances, args.report.expanduser(), png=args.png):
            print(f"written: {path}", file=sys.stderr)
    if args.format == "json":
        print(json.dumps(parity_report.document(comparisons, tolerances), indent=2, allow_nan=False, default=str))
    else:
        print(parity_report.text(comparisons), end="")


if __name__ == "__main__":
    sys.exit(cli.run(main))
