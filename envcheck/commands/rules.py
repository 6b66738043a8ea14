"""``envcheck rules``: what the doctor knows, or the page of one rule."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from typing import Any

from envcheck import errors
from envcheck.commands import options
from envcheck.commands.doctor import unknown_rule
from envcheck.errors import EnvcheckError
from envcheck.model import Rule
from envcheck.report.style import Style


def configure(parser: argparse.ArgumentParser) -> None:
    """Add its options."""
    parser.add_argument("rule", nargs="?", metavar="RULE", help="show the page of this rule")
    parser.add_argument("--search", metavar="TEXT", help="find rules by words or by a line of an error")
    options.add_output(parser, ("text", "json"))


def run(args: argparse.Namespace) -> int:
    """Write the list or the page; 1 where a search finds nothing."""
    from envcheck.rules import RULES

    if args.rule is not None and args.search is not None:
        raise EnvcheckError("RULE and --search exclude each other", fix="give one of them")
    if args.rule is not None:
        options.deliver(args, _page(args.rule, RULES, args.format))
        return errors.OK
    shown = RULES if args.search is None else _found(args.search, RULES)
    options.deliver(args, _json(shown) if args.format == "json" else listed(shown, options.style(args)))
    return errors.OK if shown else errors.FINDINGS


def _page(rule_id: str, rules: Sequence[Rule], form: str) -> str:
    from envcheck.explain import load, page

    by_id = {rule.id: rule for rule in rules}
    if rule_id not in by_id and rule_id not in (logged := load().document.rules):
        raise unknown_rule(rule_id, dict.fromkeys([*by_id, *logged]))
    text = page(rule_id, by_id)
    if form == "text":
        return text
    from envcheck.report.json import dumps

    described = _described(by_id[rule_id]) if rule_id in by_id else {"rule": rule_id}
    return dumps({"version": 1, "rules": [{**described, "page": text}]})


def _found(text: str, rules: Sequence[Rule]) -> list[Rule]:
    """Give the rules whose log lines explain the text, then those whose own words hold it."""
    from envcheck.explain import search

    by_id = {rule.id: rule for rule in rules}
    words = text.lower().split()
    holding = [r.id for r in rules if words and all(w in f"{r.id} {r.claim} {r.cause}".lower() for w in words)]
    return [by_id[name] for name in dict.fromkeys([*search(text), *holding]) if name in by_id]


def _json(rules: Sequence[Rule]) -> str:
    from envcheck.report.json import dumps

    return dumps({"version": 1, "rules": [_described(rule) for rule in rules]})


def _described(rule: Rule) -> dict[str, Any]:
    return {
        "rule": rule.id,
        "group": rule.group,
        "subject": rule.subject,
        "claim": rule.claim,
        "cause": rule.cause,
        "fix": list(rule.fix),
        "stages": list(rule.stages),
        "sources": list(rule.sources),
    }


def listed(rules: Sequence[Rule], style: Style) -> str:
    """List rules by group: id, claim, stages."""
    if not rules:
        return "no rule says that\n"
    blocks = []
    for group in dict.fromkeys(rule.group for rule in rules):
        members = [rule for rule in rules if rule.group == group]
        blocks.append("\n".join([style.paint(group, "bold"), *(_entry(rule, style) for rule in members)]))
    return "\n\n".join(blocks) + "\n"


def _entry(rule: Rule, style: Style) -> str:
    stages = style.paint(f"({', '.join(rule.stages)})", "dim")
    return f"  {style.paint(rule.id, 'cyan')} {stages}\n{style.wrap(rule.claim, indent='      ')}".rstrip()
