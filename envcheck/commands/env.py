"""``envcheck env``: the lines that set up a shell, for ``eval "$(python -m envcheck env)"``."""

from __future__ import annotations

import argparse

from envcheck import errors
from envcheck.commands import options
from envcheck.commands.source import built_for, facts_of, named


def configure(parser: argparse.ArgumentParser) -> None:
    """Add its options."""
    options.add_stack(parser)
    options.add_host(parser)
    parser.add_argument("--shell", choices=("sh", "fish", "json"), default="sh", help="sh where not given")
    parser.add_argument("--output", metavar="FILE", help="write there instead of standard output; whole or not at all")
    parser.set_defaults(format="env")


def run(args: argparse.Namespace) -> int:
    """Write the export lines."""
    from envcheck import exports

    wanted = named(args)
    facts = facts_of(args)
    options.deliver(args, exports.render(exports.variables(facts, built_for(args, facts, wanted)), args.shell))
    return errors.OK
