"""The plan for people: numbered steps, each with its reason and its command; what is skipped, and why."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from typing import TYPE_CHECKING

from envcheck.report.machine import described
from envcheck.report.style import Style, safe

if TYPE_CHECKING:
    from envcheck.facts import Facts
    from envcheck.model import Target
    from envcheck.plan import Step


def render(steps: Sequence[Step], target: Target, facts: Facts, style: Style) -> str:
    """Give the plan; the last line is the command to type next."""
    todo = [step for step in steps if step.skipped is None]
    heading = f"plan: stack {target.stack.name}, engine {target.engine}, trainer {target.trainer}"
    done_by = _first_of_command(todo)
    parts = [
        style.paint(heading, "bold") + "\n" + style.wrap(described(facts)),
        *(_step(number, step, style, done_by[number]) for number, step in enumerate(todo, 1)),
        _skipped(steps, style),
        _end(todo, target, style),
    ]
    return "\n\n".join(part for part in parts if part) + "\n"


def _first_of_command(todo: Sequence[Step]) -> dict[int, int]:
    """Number of the step that a step's command was typed for: one command installs all that the lock holds.

    Wheels that were built since are put in by the same command, typed once more.
    """
    first: dict[str, int] = {}
    return {
        number: number if step.component == "environment" else first.setdefault(step.command, number)
        for number, step in enumerate(todo, 1)
    }


def _step(number: int, step: Step, style: Style, done_by: int) -> str:
    start = f"{number:>3}. "
    jobs = f", {step.jobs} jobs" if step.kind == "build" else ""
    lines = [style.paint(f"{start}{step.kind} {safe(step.component)} {safe(step.version)}", "bold") + jobs]
    rows = {"why": step.reason, "needs": ", ".join(step.needs), "checks": ", ".join(step.preflight)}
    lines += [style.wrap(text, indent=" " * 13, first=f"     {name:<8}") for name, text in rows.items() if text]
    lines += [f"     {'':<8}{safe(name)}={safe(value)}" for name, value in step.environment.items()]
    command = style.paint("$ " + safe(step.command), "cyan") if done_by == number else f"with step {done_by}"
    return "\n".join([*lines, f"     {command}"])


def _skipped(steps: Sequence[Step], style: Style) -> str:
    """Group what is skipped by its reason."""
    reasons: dict[str, list[str]] = defaultdict(list)
    for step in steps:
        if step.skipped is not None:
            reasons[step.skipped].append(step.name)
    if not reasons:
        return ""
    lines = [
        style.wrap(f"{', '.join(names)}: {reason}", indent="      ", first="  - ") for reason, names in reasons.items()
    ]
    return "\n".join([style.paint("Skipped", "bold"), *lines])


def _end(todo: Sequence[Step], target: Target, style: Style) -> str:
    if not todo:
        return "Nothing is left to do."
    count = "1 step is" if len(todo) == 1 else f"{len(todo)} steps are"
    everything = f"nox -s up -- --stack {target.stack.name} --engine {target.engine} --trainer {target.trainer}"
    at_once = f"\nAll at once: {style.paint(everything, 'cyan')}" if len(todo) > 1 else ""
    return f"{count} to do.{at_once}\n{style.paint('Next:', 'bold')} {style.paint(safe(todo[0].command), 'cyan')}"
