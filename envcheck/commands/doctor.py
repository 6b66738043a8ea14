"""``envcheck doctor``: judge a host and say what to type next."""

from __future__ import annotations

import argparse
import importlib
import sys
from collections.abc import Iterable, Mapping, Sequence

from envcheck.commands import options
from envcheck.commands.source import begin, named, target_of
from envcheck.errors import EnvcheckError
from envcheck.model import STAGES, Judgement, Rule, Target
from envcheck.report import FORMATS, Report, render


def configure(parser: argparse.ArgumentParser) -> None:
    """Add the options of the doctor."""
    options.add_stack(parser)
    parser.add_argument("--stage", choices=STAGES, help="what to be ready for (build until the engine is there)")
    options.add_variant(parser)
    options.add_host(parser)
    parser.add_argument("--only", nargs="+", action="extend", metavar="RULE", help="judge by these rules only")
    parser.add_argument("--skip", nargs="+", action="extend", metavar="RULE", help="leave these rules out")
    parser.add_argument("--strict", action="store_true", help="a warning counts as an error")
    options.add_redact(parser)
    options.add_output(parser, FORMATS)


def run(args: argparse.Namespace) -> int:
    """Judge, report, and give the exit code of the verdict."""
    # What is imported before this delays the target's interpreter, for which all else waits; the rules come later,
    # while the binaries are read.
    collected = begin(args, meanwhile=_prepare)
    from envcheck import engine

    wanted = named(args)
    if args.only or args.skip:
        chosen(_rules(), args.only, args.skip)  # a wrong id is said before anything is read
    facts = collected()
    rules = chosen(_rules(), args.only, args.skip)
    target = target_of(args, wanted, facts)
    _hint(rules, target, args.only)
    judgement = engine.judge(facts, target, rules)
    if args.strict:
        judgement = judgement.strict()
    _deliver(args, judgement, {rule.id: rule for rule in _rules()})
    return engine.exit_code(judgement)


def _prepare() -> None:
    """Import the rules and read the tables that they ask."""
    from envcheck import limits

    importlib.import_module("envcheck.rules")
    dict(limits.load().tables)


def _rules() -> Sequence[Rule]:
    from envcheck.rules import RULES

    return RULES


def _deliver(args: argparse.Namespace, judgement: Judgement, rules: Mapping[str, Rule]) -> None:
    options.deliver(args, render(Report(judgement=judgement, rules=rules, style=options.style(args)), args.format))


def chosen(rules: Sequence[Rule], only: Sequence[str] | None, skip: Sequence[str] | None) -> list[Rule]:
    """Pick rules by id; raise EnvcheckError naming the nearest ids where one is not known."""
    wanted, left_out = _ids(only), _ids(skip)
    known = [rule.id for rule in rules]
    for rule_id in [*wanted, *left_out]:
        if rule_id not in known:
            raise unknown_rule(rule_id, known)
    return [rule for rule in rules if (not wanted or rule.id in wanted) and rule.id not in left_out]


def _ids(given: Sequence[str] | None) -> list[str]:
    """Split ``a,b c`` as people write it."""
    return [rule_id for text in given or () for rule_id in text.split(",") if rule_id]


def unknown_rule(rule_id: str, known: Iterable[str]) -> EnvcheckError:
    """Build the error for an id that no rule has."""
    import difflib

    ids = list(known)
    near = difflib.get_close_matches(rule_id, ids, n=3, cutoff=0.5) or [name for name in ids if rule_id in name][:3]
    nearest = f"nearest: {', '.join(near)}; " if near else ""
    return EnvcheckError(f"there is no rule {rule_id!r}", fix=f"{nearest}`python -m envcheck rules` lists them")


def _hint(rules: Iterable[Rule], target: Target, only: Sequence[str] | None) -> None:
    if not only:
        return
    for rule in rules:
        if target.stage not in rule.stages:
            stages = " or ".join(rule.stages)
            sys.stderr.write(f"note: {rule.id} does not matter for {target.stage}; add --stage {stages}\n")
