"""What a rule is, what it finds, and the outcome that is reported."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from functools import lru_cache
from typing import TYPE_CHECKING, Literal, NamedTuple, TypeVar

from envcheck.codec import Unknown
from envcheck.record import dataclass, field, replace

if TYPE_CHECKING:
    from envcheck.facts import Facts, Package
    from envcheck.limits import Limits
    from envcheck.stack import Stack

T = TypeVar("T")
Stage = Literal["build", "launch", "train"]
STAGES: tuple[Stage, ...] = ("build", "launch", "train")
Severity = Literal["error", "warning", "ok"]
OutcomeName = Literal["ok", "warning", "error", "unknown", "not-applicable", "crashed"]


class UnknownFactError(Exception):
    """A rule asked for a fact that could not be read; the engine makes it the outcome ``unknown``."""


class NotApplicable(Exception):  # noqa: N818  # a way to end a rule, not an error
    """A rule has nothing to judge on this host; the engine makes it the outcome ``not-applicable``."""


def known(value: T | Unknown) -> T:
    """Give the value of a fact, or end the rule as ``unknown`` with the reason."""
    if isinstance(value, Unknown):
        raise UnknownFactError(value.unknown)
    return value


@dataclass(frozen=True, kw_only=True)
class Fix:
    """One way out: a sentence, and the commands to type, in order."""

    text: str
    commands: tuple[str, ...] = ()


@dataclass(frozen=True, kw_only=True)
class Finding:
    """What is wrong: what was found, what was expected, how to mend it."""

    summary: str
    found: str
    expected: str
    fix: tuple[Fix, ...] = ()
    subject: str | None = None
    severity: Severity = "error"
    """``ok``: nothing is wrong, and there is something to know about it (a note)."""
    sources: tuple[str, ...] = ()


@dataclass(frozen=True, kw_only=True)
class Target:
    """What the facts are judged against."""

    stack: Stack
    limits: Limits
    stage: Stage = "build"
    engine: str = "sglang"
    trainer: str = "fsdp"


Check = Callable[["Facts", Target], Iterable[Finding]]


@dataclass(frozen=True, kw_only=True)
class Rule:
    """A claim about a host that can be wrong, with its cause and sources."""

    id: str
    group: str
    claim: str
    cause: str
    stages: tuple[Stage, ...]
    sources: tuple[str, ...]
    check: Check
    subject: str
    fix: tuple[str, ...] = ()
    """General way out, for the rule's page; a finding carries the one for the host at hand."""


def rule(  # noqa: PLR0913  # the parts of a rule, by keyword
    rule_id: str,
    *,
    group: str,
    subject: str,
    cause: str,
    stages: Sequence[Stage],
    sources: Sequence[str],
    fix: Sequence[str] = (),
) -> Callable[[Check], Rule]:
    """Make a Rule of a check function; its docstring is the claim, a sentence that is true on a healthy host."""

    def make(check: Check) -> Rule:
        return Rule(
            id=rule_id,
            group=group,
            claim=(check.__doc__ or "").strip(),
            cause=cause,
            stages=tuple(stages),
            sources=tuple(sources),
            check=check,
            subject=subject,
            fix=tuple(fix),
        )

    return make


@dataclass(frozen=True, kw_only=True)
class Outcome:
    """What became of one rule on one subject; the unit of every report."""

    rule: str
    subject: str
    outcome: OutcomeName
    summary: str
    found: str = ""
    expected: str = ""
    fix: tuple[Fix, ...] = ()
    sources: tuple[str, ...] = ()
    stages: tuple[Stage, ...] = ()


@dataclass(frozen=True, kw_only=True)
class Judgement:
    """All outcomes of one run, with what they were judged against."""

    target: Target
    facts: Facts
    outcomes: tuple[Outcome, ...] = field(default=())

    def having(self, *names: OutcomeName) -> tuple[Outcome, ...]:
        """Pick the outcomes of these names, in order."""
        return tuple(outcome for outcome in self.outcomes if outcome.outcome in names)

    def strict(self) -> Judgement:
        """Make an error of every warning."""
        return replace(
            self,
            outcomes=tuple(replace(o, outcome="error") if o.outcome == "warning" else o for o in self.outcomes),
        )


class Same(NamedTuple):
    """A value that equals itself alone: a look-up by it does not compare 200 packages field by field."""

    value: tuple[Package, ...]

    def __eq__(self, other: object) -> bool:
        """Tell whether it is the very same value."""
        return isinstance(other, Same) and self.value is other.value

    def __hash__(self) -> int:
        """Hash by identity."""
        return id(self.value)


@lru_cache(maxsize=2)  # rules ask 500 times; it keeps the value, so that no other gets its identity
def _by_name(packages: Same) -> dict[str, Package]:
    return {item.name: item for item in reversed(packages.value)}


def package(facts: Facts, name: str) -> Package | None:
    """Find an installed package by its normalised name; None where it is absent."""
    return _by_name(Same(value=known(facts.packages))).get(name)


def installed(facts: Facts, name: str) -> Package:
    """Give an installed package, or end the rule as ``not-applicable``."""
    found = package(facts, name)
    if found is None:
        msg = f"{name} is not installed"
        raise NotApplicable(msg)
    return found
