"""The report as SARIF 2.1.0, for code-scanning pages; the place of a finding is the stack file."""

from __future__ import annotations

from typing import Any

from envcheck.model import Outcome
from envcheck.report import Report
from envcheck.report.json import dumps
from envcheck.report.words import details
from envcheck.version import version

SCHEMA = "https://docs.oasis-open.org/sarif/sarif/v2.1.0/errata01/os/schemas/sarif-schema-2.1.0.json"
LEVELS = {"error": ("fail", "error"), "warning": ("fail", "warning"), "ok": ("pass", "none")}
KINDS = {"unknown": ("review", "none"), "not-applicable": ("notApplicable", "none"), "crashed": ("fail", "error")}


def render(report: Report) -> str:
    """Give the document."""
    ids = sorted({outcome.rule for outcome in report.judgement.outcomes})
    run = {
        "tool": {"driver": _driver(report, ids)},
        "results": [_result(report, outcome, ids) for outcome in report.judgement.outcomes],
        "properties": {"host": report.judgement.facts.host, "target": report.heading},
    }
    return dumps({"$schema": SCHEMA, "version": "2.1.0", "runs": [run]})


def _driver(report: Report, ids: list[str]) -> dict[str, Any]:
    return {"name": "envcheck", "semanticVersion": version(), "rules": [_rule(report, rule) for rule in ids]}


def _rule(report: Report, rule_id: str) -> dict[str, Any]:
    rule = report.rules.get(rule_id)
    if rule is None:
        return {"id": rule_id}
    described = {
        "id": rule.id,
        "shortDescription": {"text": rule.claim or rule.id},
        "fullDescription": {"text": rule.cause or rule.claim or rule.id},
        "help": {"text": "\n".join(rule.fix) or rule.cause or rule.id},
        "properties": {"tags": [rule.group, *rule.stages]},
    }
    links = [source for source in rule.sources if source.startswith("https://")]
    return described | ({"helpUri": links[0]} if links else {})


def _result(report: Report, outcome: Outcome, ids: list[str]) -> dict[str, Any]:
    kind, level = (LEVELS | KINDS)[outcome.outcome]
    words = "\n".join(part for part in (outcome.summary, details(outcome)) if part)
    return {
        "ruleId": outcome.rule,
        "ruleIndex": ids.index(outcome.rule),
        "kind": kind,
        "level": level,
        "message": {"text": words},
        "locations": [_location(report, outcome)],
        "partialFingerprints": {"subject/v1": f"{outcome.rule}/{outcome.subject}"},
    }


def _location(report: Report, outcome: Outcome) -> dict[str, Any]:
    # A code-scanning page drops a result without a file; the stack file is what the host is measured by.
    stack = report.judgement.target.stack.name
    return {
        "physicalLocation": {
            "artifactLocation": {"uri": f"envcheck/stacks/{stack}.toml"},
            "region": {"startLine": 1},
        },
        "logicalLocations": [{"name": outcome.subject, "kind": "resource"}],
    }
