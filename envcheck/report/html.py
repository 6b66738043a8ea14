"""The report as one HTML file: no script, no resource from elsewhere, light and dark."""

from __future__ import annotations

from collections import defaultdict

import jinja2

from envcheck import data, engine
from envcheck.model import Outcome
from envcheck.report import Report
from envcheck.report.machine import described
from envcheck.report.style import safe
from envcheck.report.words import counted, next_command, verdict_line

TEMPLATE = "report/report.html.j2"
TITLES = {
    "error": "Errors",
    "crashed": "Rules that crashed",
    "warning": "Warnings",
    "unknown": "Could not be judged",
    "ok": "What holds",
    "not-applicable": "Does not apply here",
}


def render(report: Report) -> str:
    """Give the document; every text of the host is escaped by the template engine."""
    judgement = report.judgement
    environment = jinja2.Environment(
        autoescape=True,
        keep_trailing_newline=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        finalize=_shown,
    )
    environment.tests["link"] = _is_link
    return environment.from_string(data.read(TEMPLATE)).render(
        heading=report.heading,
        host=described(judgement.facts),
        collected=judgement.facts.collected,
        verdict=engine.verdict(judgement),
        sentence=verdict_line(judgement),
        counted=counted(judgement),
        next=next_command(judgement),
        sections=[(name, TITLES[name], _grouped(report, judgement.having(name))) for name in engine.ORDER],
        rules=report.rules,
    )


def _shown(value: object) -> object:
    return safe(value) if isinstance(value, str) and not hasattr(value, "__html__") else value


def _is_link(text: str) -> bool:
    return text.startswith(("https://", "http://"))


def _grouped(report: Report, outcomes: tuple[Outcome, ...]) -> dict[str, list[Outcome]]:
    groups: dict[str, list[Outcome]] = defaultdict(list)
    for outcome in outcomes:
        groups[report.group(outcome)].append(outcome)
    return dict(groups)
