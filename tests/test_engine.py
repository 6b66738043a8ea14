"""Judging: outcomes, their order, the verdict and the exit code."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from envcheck import engine
from envcheck.codec import Unknown
from envcheck.facts import Facts
from envcheck.model import Finding, Judgement, NotApplicable, OutcomeName, Rule, Target, installed, known, package, rule
from tests import factories as make

FACTS = make.healthy()
TARGET = make.target(stage="launch")


def one(name: str, body: object = None, stages: tuple[str, ...] = ("launch",)) -> Rule:
    """A rule that yields findings, or raises."""

    def check(_facts: Facts, _target: Target) -> Iterator[Finding]:
        """All is well."""
        for item in body if isinstance(body, list) else [body]:
            if isinstance(item, Exception):
                raise item
            if isinstance(item, Finding):
                yield item

    return rule(name, group="g", subject="s", cause="c", stages=stages, sources=("https://a",))(check)  # type: ignore[arg-type]


def finding(severity: str = "error", **changes: object) -> Finding:
    return Finding(summary="bad", found="f", expected="e", severity=severity, **changes)  # type: ignore[arg-type]


def names(*rules: Rule) -> list[tuple[str, str]]:
    judgement = engine.judge(FACTS, TARGET, rules)
    return [(outcome.rule, outcome.outcome) for outcome in judgement.outcomes]


UNKNOWN = Unknown("it could not be read")


@pytest.mark.parametrize(
    ("body", "expected"),
    [
        pytest.param(None, ["ok"], id="holds"),
        pytest.param(finding(), ["error"], id="error"),
        pytest.param(finding("warning"), ["warning"], id="warning"),
        pytest.param(finding("ok"), ["ok"], id="note"),
        pytest.param([finding(), finding("warning")], ["error", "warning"], id="two"),
        pytest.param(NotApplicable("nothing there"), ["not-applicable"], id="not-applicable"),
        pytest.param([finding(), NotApplicable("no more")], ["error"], id="found-before-it-ended"),
        pytest.param([finding(), ValueError("x")], ["error", "crashed"], id="found-before-it-crashed"),
        pytest.param(ValueError("x"), ["crashed"], id="crashed"),
    ],
)
def test_what_becomes_of_a_rule(body: object, expected: list[str]) -> None:
    assert [outcome for _, outcome in names(one("a-rule", body))] == expected


def test_a_fact_that_is_unknown_ends_the_rule_as_unknown_with_the_reason() -> None:
    def check(_facts: Facts, _target: Target) -> Iterator[Finding]:
        """All is well."""
        known(UNKNOWN)
        yield finding()

    made = rule("a-rule", group="g", subject="s", cause="c", stages=["launch"], sources=[])(check)
    outcome = engine.outcomes_of(made, FACTS, TARGET)[0]
    assert outcome.outcome == "unknown"
    assert outcome.summary == "could not be judged: it could not be read"


def test_a_rule_that_holds_says_its_claim() -> None:
    outcome = engine.outcomes_of(one("a-rule"), FACTS, TARGET)[0]
    assert (outcome.summary, outcome.subject, outcome.sources) == ("All is well.", "s", ("https://a",))


def test_a_finding_may_name_its_own_subject_and_sources() -> None:
    outcome = engine.outcomes_of(one("a-rule", finding(subject="mine", sources=("https://b",))), FACTS, TARGET)[0]
    assert (outcome.subject, outcome.sources) == ("mine", ("https://b",))


def test_only_the_rules_of_the_stage_are_judged() -> None:
    assert names(one("a-rule", stages=("build",)), one("b-rule")) == [("b-rule", "ok")]


def test_errors_come_first_and_one_crash_hides_nothing() -> None:
    found = names(
        one("a-rule", NotApplicable("x")),
        one("b-rule"),
        one("c-rule", finding("warning")),
        one("d-rule", ValueError("x")),
        one("e-rule", finding()),
    )
    assert [outcome for _, outcome in found] == ["error", "crashed", "warning", "ok", "not-applicable"]


@pytest.mark.parametrize(
    ("bodies", "verdict", "code"),
    [
        pytest.param([None], "ok", 0, id="ok"),
        pytest.param([None, finding("warning")], "warning", 0, id="warning"),
        pytest.param([finding("ok")], "ok", 0, id="a-note"),
        pytest.param([finding(), ValueError("x")], "error", 1, id="error"),
        pytest.param([None, ValueError("x")], "unknown", 3, id="crashed"),
        pytest.param([], "unknown", 3, id="no-rule-ran"),
    ],
)
def test_the_verdict_and_the_exit_code(bodies: list[object], verdict: str, code: int) -> None:
    judgement = engine.judge(FACTS, TARGET, [one(f"rule-{index}", body) for index, body in enumerate(bodies)])
    assert (engine.verdict(judgement), engine.exit_code(judgement)) == (verdict, code)


def test_strict_makes_an_error_of_a_warning() -> None:
    judgement = engine.judge(FACTS, TARGET, [one("a-rule", finding("warning"))]).strict()
    assert engine.exit_code(judgement) == 1


def test_outcomes_are_counted_by_name() -> None:
    judgement = engine.judge(FACTS, TARGET, [one("a-rule", finding()), one("b-rule")])
    counted = engine.counts(judgement.outcomes)
    assert set(counted) == set(engine.ORDER)
    assert {name: count for name, count in counted.items() if count} == {"error": 1, "ok": 1}


@pytest.mark.parametrize(("wanted", "count"), [(("ok",), 1), (("error", "ok"), 2), ((), 0)])
def test_outcomes_are_picked_by_name(wanted: tuple[OutcomeName, ...], count: int) -> None:
    judgement: Judgement = engine.judge(FACTS, TARGET, [one("a-rule", finding()), one("b-rule")])
    assert len(judgement.having(*wanted)) == count


def test_a_package_is_found_by_its_name() -> None:
    found = package(FACTS, "torch")
    assert found is not None
    assert found == installed(FACTS, "torch")
    assert package(FACTS, "no-such-package") is None
    with pytest.raises(NotApplicable, match="no-such-package is not installed"):
        installed(FACTS, "no-such-package")
