"""The report for people: grouped, errors first, each with what was found, what was expected and what to type."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator, Sequence

from envcheck import engine
from envcheck.model import Fix, Outcome, OutcomeName
from envcheck.report import Report
from envcheck.report.machine import described
from envcheck.report.style import Style, safe
from envcheck.report.words import TROUBLE, counted, next_command, verdict_line

MARKS: dict[OutcomeName, tuple[str, tuple[str, ...]]] = {
    "error": ("✗", ("red", "bold")),
    "crashed": ("✗", ("red", "bold")),
    "warning": ("!", ("yellow", "bold")),
    "unknown": ("?", ("magenta", "bold")),
    "ok": ("✓", ("green",)),
}
VERDICT_COLORS = {"error": ("red", "bold"), "warning": ("yellow",), "unknown": ("magenta",), "ok": ("green", "bold")}
LABEL_WIDTH = 10
INDENT = "      "


def render(report: Report) -> str:
    """Give the report; the last line is the command to type next."""
    parts = [_heading(report), *_troubles(report), _unknown(report), _notes(report), _calm(report), _end(report)]
    return "\n\n".join(part for part in parts if part) + "\n"


def _heading(report: Report) -> str:
    style = report.style
    first = style.paint("envcheck", "bold")
    lines = style.wrap(f"envcheck: {report.heading}").replace("envcheck", first, 1)
    host = described(report.judgement.facts)
    return f"{lines}\n{style.wrap(host)}" if host else lines


def _troubles(report: Report) -> Iterator[str]:
    """Give one block per group, those with errors first; inside a group the outcomes keep their order."""
    groups: dict[str, list[Outcome]] = defaultdict(list)
    for outcome in report.judgement.having(*TROUBLE):
        groups[report.group(outcome)].append(outcome)
    for group in sorted(groups, key=lambda name: engine.ORDER.index(groups[name][0].outcome)):
        outcomes = groups[group]
        blocks = [_trouble(o, after, report.style) for o, after in zip(outcomes, [*outcomes[1:], None], strict=True)]
        yield "\n\n".join([report.style.paint(safe(group), "bold"), *blocks])


def _trouble(outcome: Outcome, after: Outcome | None, style: Style) -> str:
    """Give one outcome; a fix or sources that the next one of the same rule shares stand below that one only."""
    mark, colors = MARKS[outcome.outcome]
    lines = [_titled(style.symbol(mark), colors, outcome.rule, outcome.summary, style)]
    said = (("found", outcome.found), ("expected", outcome.expected))
    lines += [_labelled(name, text, style) for name, text in said if text]
    again = after if after is not None and after.rule == outcome.rule else None
    if again is None or again.fix != outcome.fix:
        lines += [line for fix in outcome.fix for line in _fix(fix, style)]
    if again is None or again.sources != outcome.sources:
        lines += [_labelled("source", source, style, "dim") for source in outcome.sources]
    return "\n".join(lines)


def _titled(mark: str, colors: Sequence[str], rule: str, summary: str, style: Style) -> str:
    start = f"  {mark} {safe(rule)}: "
    folded = style.wrap(summary, indent="    ", first=start)
    return folded.replace(f"{mark} {safe(rule)}", style.paint(f"{mark} {safe(rule)}", *colors), 1)


def _labelled(label: str, text: str, style: Style, *colors: str) -> str:
    start = f"{INDENT}{label:<{LABEL_WIDTH}}"
    folded = style.wrap(text, indent=" " * len(start), first=start)
    if colors:
        return "\n".join(style.paint(line, *colors) for line in folded.split("\n"))
    return folded.replace(label, style.paint(label, "dim"), 1)


def _fix(fix: Fix, style: Style) -> Iterator[str]:
    yield _labelled("fix", fix.text, style)
    for command in fix.commands:  # never folded: commands are copied
        for line in safe(command).split("\n"):
            yield f"{INDENT}{'':<{LABEL_WIDTH}}{style.paint(line, 'cyan')}"


def _unknown(report: Report) -> str:
    """Group what could not be judged by its reason: one reason often silences many rules."""
    reasons: dict[str, list[str]] = defaultdict(list)
    for outcome in report.judgement.having("unknown"):
        reasons[outcome.summary].append(outcome.rule)
    mark, colors = MARKS["unknown"]
    style = report.style
    return "\n".join(
        _titled(mark, colors, ", ".join(dict.fromkeys(rules)), reason, style) for reason, rules in reasons.items()
    )


def _notes(report: Report) -> str:
    """Show what is right and yet worth knowing: an ok outcome that carries what was found."""
    style = report.style
    noted = [outcome for outcome in report.judgement.having("ok") if outcome.found]
    return "\n".join(_titled(style.symbol("·"), ("dim",), note.rule, note.summary, style) for note in noted)


def _calm(report: Report) -> str:
    """Say in one line what holds, by group."""
    holding = report.judgement.having("ok")
    if not holding:
        return ""
    groups: dict[str, int] = defaultdict(int)
    for outcome in holding:
        groups[report.group(outcome)] += 1
    mark = report.style.symbol(MARKS["ok"][0])
    shown = ", ".join(f"{name} {count}" for name, count in groups.items())
    folded = report.style.wrap(shown, indent="    ", first=f"  {mark} what holds: ")
    return folded.replace(mark, report.style.paint(mark, *MARKS["ok"][1]), 1)


def _end(report: Report) -> str:
    style, judgement = report.style, report.judgement
    sentence = style.wrap(f"{verdict_line(judgement)} {counted(judgement)}.")
    colors = VERDICT_COLORS[engine.verdict(judgement)]
    painted = "\n".join(style.paint(line, *colors) for line in sentence.split("\n"))
    command = safe(next_command(judgement)).split("\n")[0]
    return f"{painted}\n{style.paint('Next:', 'bold')} {style.paint(command, 'cyan')}"
