"""An explanation as text for a person, or as the JSON document."""

from __future__ import annotations

import json
import textwrap
from collections.abc import Iterable
from typing import Any

from envcheck.codec import encode
from envcheck.explain.cause import Explanation, Match
from envcheck.explain.matcher import Line

WIDTH = 110


def to_json(explained: Explanation) -> str:
    """Write the document: ``{"version": 1, "matches": […], "telling": […], …}``."""
    document = {
        "version": 1,
        "known": bool(explained.matches),
        "matches": [_match(match) for match in explained.matches],
        "telling": [_line(line) for line in explained.telling],
        "lines": explained.lines,
        "bytes": explained.size,
        "interrupted": explained.interrupted,
    }
    return json.dumps(document, indent=2, ensure_ascii=False) + "\n"


def _match(match: Match) -> dict[str, Any]:
    data: dict[str, Any] = {
        "rule": match.rule,
        "line": match.line,
        "text": match.text,
        "summary": match.summary,
        "fix": [{"text": fix.text, "commands": list(fix.commands)} for fix in match.fix],
        "harmless": match.harmless,
        "also": list(match.also),
        "again": list(match.again),
        "consequences": [_line(line) for line in match.consequences],
        "sources": list(match.sources),
    }
    if match.confirmed is not None:
        data |= {"confirmed": match.confirmed, "found": match.found}
    return data


def _line(line: Line) -> dict[str, Any]:
    return {key: value for key, value in encode(line).items() if value != ""}


def to_text(explained: Explanation) -> str:
    """Write what a person reads: the cause, why, what to do; then the rest in one line each."""
    blocks = [_block(match, explained) for match in explained.matches]
    if not any(not match.harmless for match in explained.matches):
        blocks.insert(0, _unknown(explained))
    if explained.interrupted:
        blocks.append("interrupted: this is what was found up to there")
    return "\n\n".join(block for block in blocks if block) + "\n"


def _block(match: Match, explained: Explanation) -> str:
    root = match is explained.root
    kind = "cause" if root else "harmless" if match.harmless else "also seen"
    lines = [
        f"{kind}: {match.rule} (line {match.line})",
        f"    {match.text[: WIDTH * 2]}",
        *_wrapped("  ", match.summary),
    ]
    if match.confirmed is not None:
        lines += _wrapped("  facts: ", match.found)
    if root or match.harmless:
        lines += [line for fix in match.fix for line in (*_wrapped("  → ", fix.text), *_commands(fix.commands))]
    if match.consequences:
        lines += ["  failed because of it:", *_listed(match.consequences)]
    if root and match.sources:
        lines.append(f"  see: {match.sources[0]}")
    return "\n".join(lines)


def _wrapped(mark: str, text: str) -> list[str]:
    return textwrap.wrap(text, WIDTH, initial_indent=mark, subsequent_indent=" " * len(mark), break_long_words=False)


def _commands(commands: Iterable[str]) -> list[str]:
    return [f"      $ {command}" for command in commands]


def _listed(lines: Iterable[Line]) -> list[str]:
    return [f"    {line.line}: {line.text[:WIDTH]}" + (f"  ({line.why})" if line.why else "") for line in lines]


def _unknown(explained: Explanation) -> str:
    if explained.size == 0:
        return "not known: the log is empty"
    if explained.kind:
        return f"not known: this is no text but {explained.kind}; unpack it first"
    if explained.telling:
        return "\n".join(["not known; the lines that tell most:", *_listed(explained.telling)])
    if explained.matches:
        return ""
    return f"not known: no line of {explained.lines} looks like an error"
