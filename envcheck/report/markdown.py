"""The report as Markdown, to paste into an issue."""

from __future__ import annotations

import re

from envcheck.model import Outcome
from envcheck.report import Report
from envcheck.report.machine import described
from envcheck.report.style import one_line, safe
from envcheck.report.words import TROUBLE, counted, verdict_line

_MARKUP = re.compile(r"([\\`*_{}\[\]()<>#+!|~&$@-])")
TITLES = {"error": "Error", "crashed": "Rule crashed", "warning": "Warning"}


def render(report: Report) -> str:
    """Give the document: what was judged, each trouble in full, the rest in a folded table."""
    judgement = report.judgement
    parts = [
        f"### envcheck: {escaped(report.heading)}",
        f"Host: {escaped(described(judgement.facts))}",
        f"**{escaped(verdict_line(judgement))}** {escaped(counted(judgement))}.",
        *(_section(outcome) for outcome in judgement.having(*TROUBLE)),
        _rest(report),
    ]
    return "\n\n".join(part for part in parts if part) + "\n"


def escaped(text: str) -> str:
    """Give text of one line that Markdown shows as it stands."""
    return _MARKUP.sub(r"\\\1", one_line(text))


def code(text: str, language: str = "") -> str:
    """Give a fenced block; the fence is longer than any run of backticks inside."""
    content = safe(text)
    longest = max((len(run) for run in re.findall("`+", content)), default=0)
    fence = "`" * max(3, longest + 1)
    return f"{fence}{language}\n{content}\n{fence}"


def _section(outcome: Outcome) -> str:
    parts = [f"#### {TITLES[outcome.outcome]}: {escaped(outcome.rule)}", escaped(outcome.summary)]
    facts = [("found", outcome.found), ("expected", outcome.expected), ("subject", outcome.subject)]
    parts.append("\n".join(f"- {name}: {escaped(text)}" for name, text in facts if text))
    for fix in outcome.fix:
        parts.append(f"Fix: {escaped(fix.text)}")
        if fix.commands:
            parts.append(code("\n".join(fix.commands), "bash"))
    parts.append("\n".join(f"Source: {link(source)}" for source in outcome.sources))
    return "\n\n".join(part for part in parts if part)


def link(source: str) -> str:
    """Give a link where the source is one, else the escaped text."""
    return f"<{source}>" if re.fullmatch(r"https?://[^\s<>]+", source) else escaped(source)


def _rest(report: Report) -> str:
    rest = report.judgement.having("unknown", "ok", "not-applicable")
    if not rest:
        return ""
    rows = [f"| {escaped(o.rule)} | {o.outcome} | {escaped(o.summary)} |" for o in rest]
    head = f"<details>\n<summary>{len(rest)} other outcomes</summary>\n"
    return "\n".join([head, "| rule | outcome | |", "|---|---|---|", *rows, "", "</details>"])
