"""``envcheck diff``: where hosts differ whose facts were recorded."""

from __future__ import annotations

import argparse
import os
import re
from collections.abc import Iterator, Sequence
from typing import Any

from envcheck import diff, errors
from envcheck.commands import options
from envcheck.errors import EnvcheckError
from envcheck.facts import Facts
from envcheck.record import replace
from envcheck.report.style import Style, one_line

LISTED = 6
"""Hosts that are named beside a value; the rest is counted."""
LONGEST_VALUE = 200
GPU_KEY = re.compile(r"gpus\.(?P<number>\d+)\.(?P<field>.+)")


def configure(parser: argparse.ArgumentParser) -> None:
    """Add its options."""
    parser.add_argument(
        "facts", nargs="+", metavar="FACTS.json", help="two or more facts documents; - is standard input"
    )
    parser.add_argument("--all", action="store_true", help="also what differs at any reading: free space, UUIDs")
    options.add_output(parser, ("text", "json"))


def run(args: argparse.Namespace) -> int:
    """Compare; 0 where the hosts are the same, 1 where they differ."""
    comparison = diff.compare(_named(args.facts), volatile=args.all)
    if args.format == "json":
        from envcheck.report.json import dumps

        text = dumps(diff.document(comparison))
    else:
        text = render(comparison, options.style(args))
    options.deliver(args, text)
    return errors.FINDINGS if comparison.differences else errors.OK


def _named(paths: Sequence[str]) -> dict[str, Facts]:
    """Read the documents; a host is named as it calls itself, by its file where that is not unique."""
    from envcheck import documents

    if len(paths) < 2:  # noqa: PLR2004  # a comparison takes two
        raise EnvcheckError("diff compares two or more facts documents, and was given one", fix="name another one")
    if paths.count("-") > 1:
        raise EnvcheckError("standard input was named twice", fix="name a file for one of them")
    read = [(path, documents.load(path)) for path in paths]
    calls = [facts.host for _, facts in read]
    names = [facts.host if facts.host and calls.count(facts.host) == 1 else path for path, facts in read]
    if len(set(names)) < len(names):
        twice = next(name for name in names if names.count(name) > 1)
        raise EnvcheckError(f"{os.path.basename(twice)} was named twice", fix="name each document once")
    return dict(zip(names, (facts for _, facts in read), strict=True))


def render(comparison: diff.Comparison, style: Style) -> str:
    """Give one block per key that differs, the value of most hosts first, and who is odd."""
    blocks = [_block(difference, style) for difference in _folded(comparison.differences)]
    return "\n\n".join([*blocks, _end(comparison, style)]) + "\n"


def _folded(differences: Sequence[diff.Difference]) -> Iterator[diff.Difference]:
    """Give what differs alike for several GPUs once: ``gpus.0-7.name``."""
    alike: dict[tuple[str, str], list[str]] = {}
    keys = [(item, GPU_KEY.match(item.key)) for item in differences]
    for item, found in keys:
        if found:
            alike.setdefault((found["field"], repr(item.values)), []).append(found["number"])
    for item, found in keys:
        if found is None:
            yield item
        elif numbers := alike.pop((found["field"], repr(item.values)), None):
            yield replace(item, key=f"gpus.{_span(numbers)}.{found['field']}")


def _span(numbers: Sequence[str]) -> str:
    first, last = int(numbers[0]), int(numbers[-1])
    unbroken = list(range(first, last + 1)) == [int(number) for number in numbers]
    return f"{first}-{last}" if unbroken and first != last else ",".join(numbers)


def _block(difference: diff.Difference, style: Style) -> str:
    lines = [style.paint(one_line(difference.key), "bold")]
    for value in difference.values:
        is_odd = set(value.hosts) <= set(difference.odd) and bool(difference.odd)
        mark = style.paint(style.symbol("✗"), "red") if is_odd else " "
        folded = style.wrap(f"{shown(value.value)}  [{_hosts(value.hosts)}]", indent="      ", first="    ")
        lines.append(f"  {mark}{folded[3:]}")
    return "\n".join(lines)


def shown(value: Any) -> str:  # noqa: ANN401  # JSON data
    """Show a value in one line, cut where it is long."""
    if isinstance(value, dict) and set(value) == {"unknown"}:
        return f"unknown: {one_line(str(value['unknown']))}"
    if isinstance(value, list):
        value = ", ".join(map(str, value)) or "none"
    text = one_line(str(value)) or "(empty)"
    return text if len(text) <= LONGEST_VALUE else f"{text[:LONGEST_VALUE]}..."


def _hosts(hosts: Sequence[str]) -> str:
    named = ", ".join(map(one_line, hosts[:LISTED]))
    return named if len(hosts) <= LISTED else f"{named} and {len(hosts) - LISTED} more"


def _end(comparison: diff.Comparison, style: Style) -> str:
    keys = len(comparison.differences)
    if not keys:
        return f"{len(comparison.hosts)} hosts, no difference in {comparison.same} facts."
    said = f"{len(comparison.hosts)} hosts differ in {keys} of {comparison.same + keys} facts."
    if comparison.odd:
        most = ", ".join(f"{one_line(host)} ({count})" for host, count in list(comparison.odd.items())[:LISTED])
        said += f" Most often odd: {most}."
    return style.wrap(said)
