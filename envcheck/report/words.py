"""Words that several forms share: the parts of an outcome, counts, the next thing to type."""

from __future__ import annotations

import shlex

from envcheck import engine
from envcheck.codec import Unknown
from envcheck.facts import Facts
from envcheck.model import Fix, Judgement, Outcome, OutcomeName

TROUBLE: tuple[OutcomeName, ...] = ("error", "crashed", "warning")
PLURALS = {
    "error": ("error", "errors"),
    "crashed": ("rule crashed", "rules crashed"),
    "warning": ("warning", "warnings"),
    "unknown": ("rule could not be judged", "rules could not be judged"),
    "ok": ("rule holds", "rules hold"),
    "not-applicable": ("does not apply", "do not apply"),
}


def details(outcome: Outcome) -> str:
    """Give found, expected, fixes and sources as plain lines."""
    lines = [f"found: {outcome.found}"] if outcome.found else []
    lines += [f"expected: {outcome.expected}"] if outcome.expected else []
    for fix in outcome.fix:
        lines += [f"fix: {fix.text}", *(f"    {command}" for command in fix.commands)]
    return "\n".join([*lines, *(f"source: {source}" for source in outcome.sources)])


def counted(judgement: Judgement) -> str:
    """Sum up the outcomes: ``2 errors, 1 warning, 40 rules hold``; names that did not occur are left out."""
    counts = engine.counts(judgement.outcomes)
    parts = [f"{count} {PLURALS[name][count != 1]}" for name, count in counts.items() if count]
    return ", ".join(parts) or "no rule matters for this stage"


def verdict_line(judgement: Judgement) -> str:
    """Say in one calm sentence where the host stands."""
    stage = judgement.target.stage
    return {
        "error": f"This host is not ready to {stage}.",
        "unknown": f"Nothing wrong was found, but not everything that matters for {stage} could be judged.",
        "warning": f"This host can {stage}; read the warnings.",
        "ok": f"This host is ready to {stage}.",
    }[engine.verdict(judgement)]


def next_command(judgement: Judgement) -> str:
    """Give the one line to type now: the first fix, its commands joined, or the next stage."""
    fixes = (fix for outcome in judgement.having("error") for fix in outcome.fix)
    command = next(filter(None, map(_line, fixes)), "")
    if command:
        return command
    if engine.verdict(judgement) == "error":
        return f"python -m envcheck rules {judgement.having('error')[0].rule}"
    return _onward(judgement)


def _line(fix: Fix) -> str:
    return " && ".join(command for command in fix.commands if not command.lstrip().startswith("#"))


def _onward(judgement: Judgement) -> str:
    target = judgement.target
    options = f"--stack {target.stack.name} --engine {target.engine} --trainer {target.trainer}"
    if target.stage == "build":
        return f"python -m envcheck plan {options}"
    python = _interpreter(judgement.facts)
    if target.stage == "launch":
        return f"python -m envcheck doctor {options}{python} --stage train"
    return f"python -m envcheck gpu{python}"


def _interpreter(facts: Facts) -> str:
    if isinstance(facts.python, Unknown) or not facts.python.executable:
        return ""
    return f" --python {shlex.quote(facts.python.executable)}"
