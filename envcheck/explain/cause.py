"""From what a scan met to an explanation: the cause first, its consequences under it, checked against facts."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace

from envcheck import errors
from envcheck.engine import outcomes_of
from envcheck.explain.matcher import Hit, Line
from envcheck.explain.scan import Scan
from envcheck.explain.signatures import Signatures
from envcheck.facts import Facts
from envcheck.model import Fix, Outcome, Rule, Target

SHOWN = 20
"""Consequences that are listed; the rest is counted."""


@dataclass(frozen=True, kw_only=True)
class Match:
    """One rule that the log shows, with the line that shows it best."""

    rule: str
    line: int
    text: str
    summary: str
    fix: tuple[Fix, ...]
    harmless: bool = False
    rank: int = 0
    also: tuple[str, ...] = ()
    """Rules that can have the same wording."""
    again: tuple[int, ...] = ()
    """Further lines that show the same."""
    consequences: tuple[Line, ...] = ()
    """Of the root cause: what failed because of it."""
    confirmed: bool | None = None
    """True and False: the facts do, or do not, show it; None: not checked, or it cannot be seen from facts."""
    found: str = ""
    """What the facts say about it."""
    sources: tuple[str, ...] = ()


@dataclass(frozen=True, kw_only=True)
class Explanation:
    """The matches, root cause first; of a log that is not known, the lines that tell most."""

    matches: tuple[Match, ...] = ()
    telling: tuple[Line, ...] = ()
    lines: int = 0
    size: int = 0
    kind: str = ""
    interrupted: bool = False

    @property
    def root(self) -> Match | None:
        """Give the root cause; None where the log is not known or all of it is harmless."""
        return next((match for match in self.matches if not match.harmless), None)

    @property
    def exit_code(self) -> int:
        """Give 0 where all that was met is harmless, 1 where something is wrong or not known, 130 after ^C."""
        if self.interrupted:
            return errors.INTERRUPTED
        harmless = self.matches and all(match.harmless for match in self.matches)
        return errors.OK if harmless and not self.telling else errors.FINDINGS


def explanation(scan: Scan, signatures: Signatures) -> Explanation:
    """Order and group what the scan met."""
    matches = sorted(_by_rule(scan.hits, signatures), key=lambda match: (match.harmless, -match.rank, match.line))
    telling = scan.telling
    if matches and not matches[0].harmless:
        root = matches[0]
        after = [line for line in [*scan.follow, *telling] if line.line > root.line]
        after.sort(key=lambda line: line.line)
        matches[0] = replace(root, consequences=tuple(after[:SHOWN]))
    return Explanation(
        matches=tuple(matches),
        telling=_shown(matches, scan),
        lines=scan.lines,
        size=scan.size,
        kind=scan.kind,
        interrupted=scan.interrupted,
    )


def _shown(matches: Sequence[Match], scan: Scan) -> tuple[Line, ...]:
    """Give the telling lines where no cause is known; where there are none, what says that something failed."""
    if matches and not matches[0].harmless:
        return ()
    return tuple(scan.telling or scan.follow[-3:])


def _by_rule(hits: Iterable[Hit], signatures: Signatures) -> list[Match]:
    """Make one match of all hits of a rule: the one that is nearest to the cause, then the first."""
    groups: dict[tuple[str, bool], list[Hit]] = {}
    for hit in hits:
        groups.setdefault((hit.signature.rule, hit.signature.harmless), []).append(hit)
    return [_match(group, signatures) for group in groups.values()]


def _match(hits: Sequence[Hit], signatures: Signatures) -> Match:
    best = min(hits, key=lambda hit: (-hit.signature.rank, hit.line))
    values = dict(best.values)
    package = signatures.package_of(*(values.get(name, "") for name in ("file", "module", "package")))
    if package:
        values["package"] = package
    return Match(
        rule=best.signature.rule,
        line=best.line,
        text=best.text,
        summary=best.signature.summary(values),
        fix=best.signature.fixes(values),
        harmless=best.signature.harmless,
        rank=best.signature.rank,
        also=best.signature.also,
        again=tuple(dict.fromkeys(hit.line for hit in hits if hit.line != best.line)),
        sources=best.signature.texts.sources,
    )


def checked(explained: Explanation, facts: Facts, target: Target, rules: Mapping[str, Rule]) -> Explanation:
    """Check every match against the facts; what they show comes before what they contradict."""
    matches = [_checked(match, facts, target, rules) for match in explained.matches]
    root = explained.root
    matches.sort(key=lambda match: (match.harmless, match.confirmed is False, match.confirmed is None, -match.rank))
    if root and not matches[0].harmless:
        kept = tuple(match.consequences for match in matches if match.consequences)
        matches = [replace(match, consequences=()) for match in matches]
        matches[0] = replace(matches[0], consequences=kept[0] if kept else ())
    return replace(explained, matches=tuple(matches))


def _checked(match: Match, facts: Facts, target: Target, rules: Mapping[str, Rule]) -> Match:
    """Check the rule of a match, then the rules that share its wording; take the first that the facts show."""
    judged = {name: _outcomes(rules[name], facts, target) for name in (match.rule, *match.also) if name in rules}
    for name, outcomes in judged.items():
        wrong = [outcome for outcome in outcomes if outcome.outcome in {"error", "warning"}]
        if wrong:
            return _confirmed(match, name, wrong)
    names = {outcome.outcome for outcome in judged.get(match.rule, ())}
    if names == {"ok"}:
        return replace(match, confirmed=False, found="these facts do not show it: is the log from another host?")
    return match


def _confirmed(match: Match, name: str, outcomes: Sequence[Outcome]) -> Match:
    """Say it with the facts: what was found, and the fix for this host."""
    best = min(outcomes, key=lambda outcome: outcome.outcome != "error")
    fix = tuple(fix for outcome in outcomes for fix in outcome.fix)
    return replace(
        match,
        rule=name,
        summary=match.summary if name == match.rule else best.summary,
        confirmed=True,
        found=f"{best.subject}: {best.found}; expected {best.expected}",
        fix=fix or match.fix,
        harmless=match.harmless and best.outcome != "error",
        sources=best.sources or match.sources,
    )


def _outcomes(rule: Rule, facts: Facts, target: Target) -> list[Outcome]:
    """Judge by one rule at the last stage at which it matters."""
    return outcomes_of(rule, facts, replace(target, stage=rule.stages[-1]))
