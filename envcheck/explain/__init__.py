"""Error text to rule: what a log says went wrong, why, and what to do."""

from __future__ import annotations

from collections.abc import Mapping
from typing import BinaryIO

from envcheck.explain.cause import Explanation, Match, checked, explanation
from envcheck.explain.matcher import Line
from envcheck.explain.output import to_json, to_text
from envcheck.explain.pages import page, search
from envcheck.explain.reader import Log
from envcheck.explain.scan import scan
from envcheck.explain.signatures import Signatures, load
from envcheck.facts import Facts
from envcheck.model import Rule, Target

__all__ = [
    "Explanation", "Line", "Log", "Match", "Signatures", "explain", "load", "page", "search", "to_json", "to_text",
]  # fmt: skip


def explain(
    log: Log | BinaryIO,
    *,
    facts: Facts | None = None,
    target: Target | None = None,
    rules: Mapping[str, Rule] | None = None,
    signatures: Signatures | None = None,
) -> Explanation:
    """Explain a log; with facts, a target and the rules by id, check the cause against the facts."""
    known = signatures or load()
    explained = explanation(scan(log, known), known)
    if facts is None or target is None:
        return explained
    return checked(explained, facts, target, rules or {})
