"""Write a page for every rule, and an index that holds its error texts: ``docs/rules/``."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path

from envcheck.explain import Signatures, load, page
from envcheck.model import Rule
from envcheck.rules import by_id
from scripts import cli, files

DIRECTORY = Path(__file__).resolve().parent.parent / "docs" / "rules"
INDEX = "README.md"
WIDTH = 200
"""Characters of an error text in the index."""

HEAD = """# Rules

One page for each thing that can be wrong: what must hold, why, how the doctor sees it, what a log says, the fix.
Search this page for a piece of an error message, or let the program do it:

    python -m envcheck explain build.log
    python -m envcheck rules --search "a line of the error"

Written by `python -m scripts.pages`; do not edit.
"""


def pages(rules: Mapping[str, Rule], signatures: Signatures) -> dict[str, str]:
    """Give the text of every file, by name."""
    known = signatures.document.rules
    names = sorted({*rules, *known})
    written = {f"{name}.md": page(name, rules, signatures) for name in names}
    return written | {INDEX: index(names, rules, signatures)}


def index(names: Sequence[str], rules: Mapping[str, Rule], signatures: Signatures) -> str:
    """Write the index: rules by group, then every error text with its rule."""
    groups: dict[str, list[str]] = {rule.group: [] for rule in rules.values()}
    for name in names:
        groups.setdefault(rules[name].group if name in rules else "seen in logs only", []).append(name)
    parts = [HEAD, *(_group(group, members, rules, signatures) for group, members in groups.items())]
    texts = "\n".join(
        f"- `{_line(example)}` → [{row.rule}]({row.rule}.md)" for row in signatures.rows for example in row.row.examples
    )
    return "\n".join([*parts, "## Error texts\n", texts]) + "\n"


def _group(group: str, names: Sequence[str], rules: Mapping[str, Rule], signatures: Signatures) -> str:
    lines = [f"- [{name}]({name}.md): {_says(name, rules, signatures)}" for name in names]
    return "\n".join([f"## {group}\n", *lines, ""])


def _says(name: str, rules: Mapping[str, Rule], signatures: Signatures) -> str:
    if name in rules:
        return rules[name].claim
    row = next(row for row in signatures.rows if row.rule == name)
    return row.texts.summary if "{" not in row.texts.summary else row.summary({})


def _line(example: str) -> str:
    """Give an example on one line, without the marks that end a code span."""
    return " ".join(example.split())[:WIDTH].replace("`", "'")


def stale(wanted: Mapping[str, str], directory: Path) -> list[str]:
    """Name the files that differ, are missing, or are there and should not be."""
    there = {path.name: path.read_text(encoding="utf-8") for path in directory.glob("*.md")}
    return sorted(name for name in {*wanted, *there} if wanted.get(name) != there.get(name))


def main(argv: Sequence[str] | None = None) -> int:
    """Write the pages, or with --check tell whether they are as they would be written."""
    parser = argparse.ArgumentParser(prog="python -m scripts.pages", description=__doc__)
    parser.add_argument("--check", action="store_true", help="write nothing; 1 where a page is not as it should be")
    parser.add_argument("--output", type=Path, default=DIRECTORY, metavar="DIR", help="(default: docs/rules)")
    args = parser.parse_args(argv)
    wanted = pages(by_id(), load())
    changed = stale(wanted, args.output)
    if args.check:
        print("\n".join([f"not as written: {name}" for name in changed]) or f"{len(wanted)} pages are as written")
        return 1 if changed else 0
    for name in changed:
        if name in wanted:
            files.write(args.output / name, wanted[name])
        else:
            (args.output / name).unlink()
    print(f"{len(wanted)} pages, {len(changed)} changed")
    return 0


if __name__ == "__main__":
    sys.exit(cli.run(main))
