"""The report as annotations of a GitHub Actions run: ``::error title=…::message``."""

from __future__ import annotations

from envcheck.model import Outcome, OutcomeName
from envcheck.report import Report
from envcheck.report.style import safe
from envcheck.report.words import counted, details

COMMANDS: dict[OutcomeName, str] = {"error": "error", "crashed": "error", "warning": "warning", "unknown": "notice"}


def render(report: Report) -> str:
    """Give one workflow command per outcome that a person should see, and a closing notice with the counts."""
    lines = [_line(COMMANDS[o.outcome], _title(o), _message(o)) for o in report.judgement.having(*COMMANDS)]
    closing = _line("notice", "envcheck", f"{report.heading}: {counted(report.judgement)}")
    return "\n".join([*lines, closing]) + "\n"


def _line(command: str, title: str, message: str) -> str:
    return f"::{command} title={_property(title)}::{_data(message)}"


def _title(outcome: Outcome) -> str:
    return f"{outcome.rule} ({outcome.subject})"


def _message(outcome: Outcome) -> str:
    return "\n".join(part for part in (outcome.summary, details(outcome)) if part)


def _data(text: str) -> str:
    """Escape as the runner reads it: https://github.com/actions/toolkit/blob/main/packages/core/src/command.ts."""
    return safe(text).replace("%", "%25").replace("\r", "%0D").replace("\n", "%0A")


def _property(text: str) -> str:
    return _data(text).replace(":", "%3A").replace(",", "%2C")
