"""``envcheck explain``: the cause of a log, and the fix."""

from __future__ import annotations

import argparse
import os
import sys
from contextlib import nullcontext
from typing import TYPE_CHECKING, BinaryIO, cast

from envcheck.commands import options
from envcheck.commands.source import facts_of, named, target_of
from envcheck.errors import EnvcheckError

if TYPE_CHECKING:
    from contextlib import AbstractContextManager

    from envcheck.explain import Explanation


def configure(parser: argparse.ArgumentParser) -> None:
    """Add its options."""
    parser.add_argument("log", metavar="LOG|-", help="a file, or - for standard input")
    options.add_stack(parser)
    options.add_variant(parser)
    options.add_host(parser)
    parser.add_argument("--here", action="store_true", help="the log is of this host: check causes against its facts")
    options.add_output(parser, ("text", "json"))


def run(args: argparse.Namespace) -> int:
    """Explain the log; the exit code is the explanation's."""
    from envcheck.explain import to_json, to_text

    explained = _explained(args)
    options.deliver(args, to_json(explained) if args.format == "json" else to_text(explained))
    return explained.exit_code


def _explained(args: argparse.Namespace) -> Explanation:
    from envcheck.explain import explain

    if args.log == "-" and args.facts == "-":
        raise EnvcheckError("the log and the facts cannot both be standard input", fix="name a file for one of them")
    wanted = named(args)
    checks = args.here or any(value is not None for value in (args.facts, args.python, args.image))
    with _opened(args.log) as log:
        if not checks:
            return explain(log)
        from envcheck.rules import RULES

        facts = facts_of(args)
        return explain(log, facts=facts, target=target_of(args, wanted, facts), rules={r.id: r for r in RULES})


def _opened(path: str) -> AbstractContextManager[BinaryIO]:
    if path == "-":
        return nullcontext(cast("BinaryIO", sys.stdin.buffer))
    if os.path.isdir(path):
        raise EnvcheckError(f"the log {path!r} is a directory", fix="name a file, or - for standard input")
    try:
        return open(path, "rb")
    except OSError as error:
        what = f"the log {path!r} could not be read: {error.strerror}"
        raise EnvcheckError(what, fix="name a file, or - for standard input") from error
