"""Score the doctor and ``explain`` on real failure reports: what is found on facts and in logs, and false alarms."""

from __future__ import annotations

import argparse
import io
import json
import sys
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from functools import cache
from pathlib import Path

from envcheck import documents, limits, stack
from envcheck.engine import judge
from envcheck.errors import FINDINGS, OK
from envcheck.explain import explain
from envcheck.facts import Facts
from envcheck.model import STAGES, Stage, Target
from envcheck.rules import RULES
from scripts import cli, corpus_peers
from scripts.corpus_reports import NOISE, Corpus, Host, Report, facts_of, load

TESTS = Path(__file__).resolve().parent.parent / "tests"
MINIMUM = 0.97


@dataclass(frozen=True, kw_only=True)
class Score:
    """What became of one report."""

    name: str
    component: str
    logged: str
    """The rule that was named first in the log."""
    log_right: bool
    seen: Stage | None
    """The earliest stage at which the rule was found on the facts."""
    facts_right: bool | None
    """None: the report cannot be seen from facts."""
    wrong: tuple[str, ...] = ()
    """Rules that were found instead."""


@cache
def _target(host: Host) -> Target:
    return Target(stack=stack.load(host.stack), limits=limits.load(), engine=host.engine, trainer=host.trainer)


def found(facts: Facts, host: Host, stage: Stage) -> set[str]:
    """Give the rules that are broken on a host at a stage."""
    judgement = judge(facts, replace(_target(host), stage=stage), RULES)
    return {outcome.rule for outcome in judgement.having("error", "warning", "crashed")}


def scored(name: str, report: Report, corpus: Corpus, hosts: Path) -> Score:
    """Compose the log and the facts of a report and see what is found."""
    matches = explain(io.BytesIO(report.text.encode())).matches
    first = matches[0].rule if matches else ""
    score = Score(
        name=name,
        component=report.component,
        logged=first,
        log_right=first in report.in_log and not matches[0].harmless,
        seen=None,
        facts_right=None,
    )
    return (
        score if report.unseen else _on_facts(score, report, corpus.hosts[report.host], facts_of(report, name, hosts))
    )


def _on_facts(score: Score, report: Report, host: Host, facts: Facts) -> Score:
    host = replace(host, engine=report.engine or host.engine, trainer=report.trainer or host.trainer)
    at = {stage: found(facts, host, stage) for stage in STAGES}
    seen = next((stage for stage in STAGES if at[stage] & set(report.on_host)), None)
    right = seen is not None and STAGES.index(seen) <= STAGES.index(report.stage)
    return replace(score, seen=seen, facts_right=right, wrong=tuple(sorted(at[report.stage])))


def false_alarms(corpus: Corpus, hosts: Path) -> list[str]:
    """Name what is found on healthy hosts, and in a log that holds nothing but harmless messages."""
    alarms = [
        f"{name} at {stage}: {rule}"
        for name, host in corpus.hosts.items()
        for stage in host.stages
        for rule in sorted(found(documents.load(str(hosts / name / "facts.json")), host, stage))
    ]
    for phase, parts in NOISE.items():
        matches = explain(io.BytesIO("".join(parts).encode())).matches
        alarms.extend(f"the {phase} log: {match.rule}" for match in matches if not match.harmless)
    return alarms


def table(scores: Sequence[Score], alarms: Sequence[str]) -> str:
    """Write the scoreboard."""
    names = sorted({score.component for score in scores})
    rows = [_row(name, [score for score in scores if score.component == name]) for name in names]
    lines = [f"{'component':<20} {'facts':>9} {'logs':>9}", *rows]
    lines += [_row("all", scores), "", f"false alarms on healthy hosts: {len(alarms)}", *(f"  {a}" for a in alarms)]
    unseen = sum(score.facts_right is None for score in scores)
    lines += [f"not to be seen from facts: {unseen}"]
    misses = [score for score in scores if score.facts_right is False or not score.log_right]
    return "\n".join([*lines, *(f"missed {_missed(score)}" for score in misses)])


def _row(name: str, scores: Sequence[Score]) -> str:
    facts = [score.facts_right for score in scores if score.facts_right is not None]
    return f"{name:<20} {_share(facts):>9} {_share([score.log_right for score in scores]):>9}"


def _share(right: Sequence[bool]) -> str:
    return f"{sum(right)}/{len(right)}"


def _missed(score: Score) -> str:
    parts = [score.name]
    if not score.log_right:
        parts.append(f"log: {score.logged or 'nothing'}")
    if score.facts_right is False:
        parts.append(f"facts: seen {score.seen or 'never'}; found {', '.join(score.wrong) or 'nothing'}")
    return "; ".join(parts)


def recall(right: Iterable[bool]) -> float:
    """Give the share that is right; 1 of nothing."""
    values = list(right)
    return sum(values) / len(values) if values else 1.0


def _peers(python: str, verl: str) -> dict[str, dict[str, str]]:
    """Run the peers; every case is told on standard error when it is done."""
    return corpus_peers.compare(
        corpus_peers.stage(python, verl=verl), lambda text: print(text, file=sys.stderr, flush=True)
    )


def main(argv: Sequence[str] | None = None) -> int:
    """Score all reports; 1 where less is found than asked for, or a healthy host gets an alarm."""
    parser = argparse.ArgumentParser(prog="python -m scripts.corpus", description=__doc__)
    parser.add_argument("--reports", type=Path, default=TESTS / "corpus.toml", metavar="FILE")
    parser.add_argument("--hosts", type=Path, default=TESTS / "hosts", metavar="DIR", help="recorded healthy hosts")
    parser.add_argument(
        "--minimum", type=float, default=MINIMUM, help="recall that is asked for (default: %(default)s)"
    )
    parser.add_argument("--format", choices=("text", "json"), default="text")
    parser.add_argument(
        "--peers", metavar="PYTHON", help="also run other programs on faults staged in a copy of this environment"
    )
    parser.add_argument("--verl", default="", metavar="DIR", help="a checkout of verl, whose diagnose.py is a peer")
    args = parser.parse_args(argv)
    peers = _peers(args.peers, args.verl) if args.peers else {}
    corpus = load(args.reports)
    scores = [scored(name, report, corpus, args.hosts) for name, report in corpus.reports.items()]
    alarms = false_alarms(corpus, args.hosts)
    on_facts = recall(score.facts_right for score in scores if score.facts_right is not None)
    in_logs = recall(score.log_right for score in scores)
    if args.format == "json":
        summary = {"facts": on_facts, "logs": in_logs, "false_alarms": alarms, "peers": peers}
        print(json.dumps({"version": 1, **summary, "reports": [vars(score) for score in scores]}, indent=1))
    else:
        print(table(scores, alarms))
        print(f"\n{corpus_peers.table(peers)}" if peers else "\nother programs: not run; --peers PYTHON runs them")
    return OK if min(on_facts, in_logs) >= args.minimum and not alarms else FINDINGS


if __name__ == "__main__":
    sys.exit(cli.run(main))
