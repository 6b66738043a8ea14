"""Reports: seven forms of the same outcomes. A form decides nothing; it shows a Judgement."""

from __future__ import annotations

import importlib
from collections.abc import Mapping
from typing import TYPE_CHECKING

from envcheck.model import Judgement, Outcome, Rule
from envcheck.record import dataclass, field

if TYPE_CHECKING:
    from envcheck.report.style import Style

FORMATS = ("text", "json", "junit", "sarif", "github", "markdown", "html")
OTHER_GROUP = "other"


def _plain() -> Style:
    from envcheck.report.style import Style

    return Style()


@dataclass(frozen=True, kw_only=True)
class Report:
    """A judgement, with the rules that were taken (for groups, claims and causes) and how text should look."""

    judgement: Judgement
    rules: Mapping[str, Rule]
    style: Style = field(default_factory=_plain)

    def group(self, outcome: Outcome) -> str:
        """Group of an outcome's rule."""
        found = self.rules.get(outcome.rule)
        return found.group if found else OTHER_GROUP

    @property
    def heading(self) -> str:
        """What was judged, against what."""
        target = self.judgement.target
        return f"stack {target.stack.name}, stage {target.stage}, engine {target.engine}, trainer {target.trainer}"


def render(report: Report, form: str) -> str:
    """Give the whole document; only the module of that form is imported."""
    module = importlib.import_module(f"envcheck.report.{form}")
    document: str = module.render(report)
    return document
