"""The report as JSON, for programs; ``report.schema.json`` describes it."""

from __future__ import annotations

import json
from dataclasses import asdict
from typing import Any

from envcheck import codec, engine
from envcheck.model import Judgement
from envcheck.report import Report

VERSION = 1


def render(report: Report) -> str:
    """Give the document as ASCII text: it survives every terminal and pipe."""
    return dumps(document(report.judgement))


def dumps(value: Any) -> str:  # noqa: ANN401  # any document
    """Write JSON as every document of this program is written."""
    return json.dumps(value, indent=2) + "\n"


def document(judgement: Judgement) -> dict[str, Any]:
    """Give the report as JSON data."""
    target = judgement.target
    return {
        "version": VERSION,
        "stack": target.stack.name,
        "stage": target.stage,
        "engine": target.engine,
        "trainer": target.trainer,
        "verdict": engine.verdict(judgement),
        "counts": engine.counts(judgement.outcomes),
        "outcomes": [asdict(outcome) for outcome in judgement.outcomes],
        "facts": codec.encode(judgement.facts),
    }
