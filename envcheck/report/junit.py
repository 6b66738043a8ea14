"""The report as JUnit XML: one test suite per group, one test case per outcome."""

from __future__ import annotations

import xml.etree.ElementTree as ET
from itertools import groupby

from envcheck.model import Outcome
from envcheck.report import Report
from envcheck.report.style import safe
from envcheck.report.words import details

ELEMENTS = {"error": "failure", "crashed": "error", "unknown": "skipped", "not-applicable": "skipped"}


def render(report: Report) -> str:
    """Give the document; warnings pass, with their words in ``system-out``."""
    root = ET.Element("testsuites", name=safe(f"envcheck: {report.heading}"))
    ordered = sorted(report.judgement.outcomes, key=report.group)
    for group, outcomes in groupby(ordered, key=report.group):
        root.append(_suite(group, list(outcomes)))
    ET.indent(root)
    body = ET.tostring(root, encoding="unicode")
    return f'<?xml version="1.0" encoding="UTF-8"?>\n{body}\n'


def _suite(group: str, outcomes: list[Outcome]) -> ET.Element:
    kinds = [ELEMENTS.get(outcome.outcome) for outcome in outcomes]
    suite = ET.Element(
        "testsuite",
        name=safe(group),
        tests=str(len(outcomes)),
        failures=str(kinds.count("failure")),
        errors=str(kinds.count("error")),
        skipped=str(kinds.count("skipped")),
        time="0",
    )
    suite.extend(_case(group, outcome) for outcome in outcomes)
    return suite


def _case(group: str, outcome: Outcome) -> ET.Element:
    case = ET.Element("testcase", classname=safe(f"envcheck.{group}.{outcome.rule}"), name=_name(outcome), time="0")
    kind = ELEMENTS.get(outcome.outcome)
    if kind:
        ET.SubElement(case, kind, message=safe(outcome.summary), type=outcome.outcome).text = safe(details(outcome))
    elif outcome.outcome == "warning":
        ET.SubElement(case, "system-out").text = safe(f"warning: {outcome.summary}\n{details(outcome)}")
    return case


def _name(outcome: Outcome) -> str:
    return safe(f"{outcome.rule}: {outcome.subject}")
