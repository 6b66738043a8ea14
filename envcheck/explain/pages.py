"""The page of one rule, and the search for rules by raw error text."""

from __future__ import annotations

import io
from collections.abc import Mapping

from envcheck.errors import EnvcheckError
from envcheck.explain.cause import explanation
from envcheck.explain.scan import scan
from envcheck.explain.signatures import RuleTexts, Signatures, fill, load
from envcheck.model import Fix, Rule


def search(text: str, signatures: Signatures | None = None) -> list[str]:
    """Give the ids of the rules that explain a text, best first; then those whose own words hold it."""
    known = signatures or load()
    explained = explanation(scan(io.BytesIO(text.encode()), known), known)
    found = [rule for match in explained.matches for rule in (match.rule, *match.also)]
    words = text.lower().split()
    for name, texts in known.document.rules.items():
        said = " ".join([name, texts.summary, *(item for row in texts.row for item in (*row.find, *row.examples))])
        if words and all(word in said.lower() for word in words):
            found.append(name)
    return list(dict.fromkeys(found))


def page(rule_id: str, rules: Mapping[str, Rule], signatures: Signatures | None = None) -> str:
    """Write the page of a rule as Markdown: claim, cause, how it is seen, what a log says, fix, sources."""
    known = signatures or load()
    rule, texts = rules.get(rule_id), known.document.rules.get(rule_id)
    if rule is None and texts is None:
        close = [name for name in {*rules, *known.document.rules} if rule_id in name or name in rule_id]
        raise EnvcheckError(f"no rule {rule_id}", fix=f"did you mean {', '.join(sorted(close))}?" if close else "")
    parts = [f"# {rule_id}", *_rule(rule), *_texts(texts), *_fix(rule, texts), *_sources(rule, texts)]
    return "\n\n".join(parts) + "\n"


def _rule(rule: Rule | None) -> list[str]:
    if rule is None:
        return ["Seen in logs only: no fact of a host shows it before it happens."]
    stages = ", ".join(rule.stages)
    return [
        f"**What must hold.** {rule.claim}",
        f"**Why.** {rule.cause}",
        f"**How the doctor sees it.** Group {rule.group}, subject {rule.subject}; judged at: {stages}.",
        f"    python -m envcheck --only {rule.id} --stage {rule.stages[0]}",
    ]


def _texts(texts: RuleTexts | None) -> list[str]:
    if texts is None:
        return []
    kind = " These messages are harmless." if texts.harmless else ""
    shown = "\n\n".join(f"```text\n{row.examples[0].strip()}\n```" for row in texts.row)
    return [f"**What a log says.**{kind} {_plain(texts.summary)}", shown]


def _fix(rule: Rule | None, texts: RuleTexts | None) -> list[str]:
    """Give the fixes that logs lead to, which hold commands; else what the rule says."""
    fixes = list(texts.fix) if texts and texts.fix else [Fix(text=text) for text in (rule.fix if rule else ())]
    return ["**Fix.**", "\n".join(_item(fix) for fix in fixes)] if fixes else []


def _item(fix: Fix) -> str:
    commands = "".join(f"\n      {_plain(command)}" for command in fix.commands)
    return f"- {_plain(fix.text)}" + (f"\n{commands}" if commands else "")


def _plain(text: str) -> str:
    """Show the places of names without their braces."""
    return fill(text, {})


def _sources(rule: Rule | None, texts: RuleTexts | None) -> list[str]:
    sources = dict.fromkeys([*(rule.sources if rule else ()), *(texts.sources if texts else ())])
    return ["**Sources.**", "\n".join(f"- {source}" for source in sources)] if sources else []
