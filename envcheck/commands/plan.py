"""``envcheck plan``: the ordered steps from this host to a working stack."""

from __future__ import annotations

import argparse

from envcheck import errors
from envcheck.commands import options
from envcheck.commands.source import facts_of, named, target_of


def configure(parser: argparse.ArgumentParser) -> None:
    """Add its options."""
    options.add_stack(parser)
    options.add_variant(parser)
    options.add_host(parser)
    options.add_output(parser, ("text", "json", "mermaid"))


def run(args: argparse.Namespace) -> int:
    """Plan and write the steps."""
    from envcheck import plan

    wanted = named(args)
    facts = facts_of(args)
    target = target_of(args, wanted, facts)
    steps = plan.plan(facts, target)
    if args.format == "json":
        from envcheck.report.json import dumps

        document = dumps(plan.document(steps))
    elif args.format == "mermaid":
        document = plan.mermaid(steps)
    else:
        from envcheck.report.steps import render

        document = render(steps, target, facts, options.style(args))
    options.deliver(args, document)
    return errors.OK
