"""``envcheck facts``: the facts document, nothing judged."""

from __future__ import annotations

import argparse

from envcheck import errors
from envcheck.commands import options
from envcheck.commands.source import facts_of


def configure(parser: argparse.ArgumentParser) -> None:
    """Add its options."""
    options.add_host(parser)
    options.add_redact(parser)
    parser.add_argument("--output", metavar="FILE", help="write there instead of standard output; whole or not at all")
    parser.set_defaults(format="json")


def run(args: argparse.Namespace) -> int:
    """Write the document."""
    from envcheck import documents

    options.deliver(args, documents.dumps(facts_of(args)))
    return errors.OK
