"""Judge facts: every rule that matters for the stage, each on its own. Pure."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from envcheck import errors
from envcheck.facts import Facts
from envcheck.model import Finding, Judgement, NotApplicable, Outcome, OutcomeName, Rule, Target, UnknownFactError

ORDER: tuple[OutcomeName, ...] = ("error", "crashed", "warning", "unknown", "ok", "not-applicable")


def judge(facts: Facts, target: Target, rules: Iterable[Rule]) -> Judgement:
    """Judge the facts by each rule that matters for the target's stage; errors first."""
    outcomes = [
        outcome for rule in rules if target.stage in rule.stages for outcome in outcomes_of(rule, facts, target)
    ]
    outcomes.sort(key=lambda outcome: ORDER.index(outcome.outcome))
    return Judgement(target=target, facts=facts, outcomes=tuple(outcomes))


def outcomes_of(rule: Rule, facts: Facts, target: Target) -> list[Outcome]:
    """Judge by one rule; what it found before it met an unknown fact is kept."""
    found: list[Outcome] = []
    try:
        found.extend(_found(rule, finding) for finding in rule.check(facts, target))
    except NotApplicable as end:
        return found or [_plain(rule, "not-applicable", str(end))]
    except UnknownFactError as end:
        return [*found, _plain(rule, "unknown", f"could not be judged: {end}")]
    except Exception as error:  # noqa: BLE001  # one broken rule must not hide the others; it is reported
        return [*found, _plain(rule, "crashed", f"the rule itself failed: {type(error).__name__}: {error}")]
    return found or [_plain(rule, "ok", rule.claim)]


def _found(rule: Rule, finding: Finding) -> Outcome:
    return Outcome(
        rule=rule.id,
        subject=finding.subject or rule.subject,
        outcome=finding.severity,
        summary=finding.summary,
        found=finding.found,
        expected=finding.expected,
        fix=finding.fix,
        sources=finding.sources or rule.sources,
        stages=rule.stages,
    )


def _plain(rule: Rule, outcome: OutcomeName, summary: str) -> Outcome:
    return Outcome(
        rule=rule.id,
        subject=rule.subject,
        outcome=outcome,
        summary=summary,
        sources=rule.sources,
        stages=rule.stages,
    )


def verdict(judgement: Judgement) -> str:
    """Sum up: error, unknown (something that matters could not be judged), warning or ok."""
    names = {outcome.outcome for outcome in judgement.outcomes}
    if "error" in names:
        return "error"
    if not names or names & {"unknown", "crashed"}:
        return "unknown"
    return "warning" if "warning" in names else "ok"


def exit_code(judgement: Judgement) -> int:
    """Give 0 no error, 1 an error, 3 nothing wrong found but not all could be judged (also: no rule ran)."""
    return {"error": errors.FINDINGS, "unknown": errors.UNJUDGED}.get(verdict(judgement), errors.OK)


def counts(outcomes: Sequence[Outcome]) -> dict[str, int]:
    """Count the outcomes by name, every name present."""
    return {name: sum(outcome.outcome == name for outcome in outcomes) for name in ORDER}
