"""``envcheck gpu``: kernels run in the target interpreter and compared with a reference."""

from __future__ import annotations

import argparse
import sys
import time
from dataclasses import replace

from envcheck import engine, stack
from envcheck.codec import Unknown
from envcheck.commands import options
from envcheck.commands.source import facts_of, named, target_of
from envcheck.facts import Facts
from envcheck.gpu.judge import SOURCE, Report
from envcheck.model import Judgement, Outcome, Rule
from envcheck.report import FORMATS, render
from envcheck.report import Report as Rendered


def configure(parser: argparse.ArgumentParser) -> None:
    """Add its options."""
    options.add_stack(parser)
    options.add_variant(parser)
    parser.add_argument("--python", metavar="PATH", help="run them with this interpreter or environment")
    parser.add_argument("--only", nargs="+", action="extend", default=[], metavar="KERNEL", help="these kernels only")
    parser.add_argument("--skip", nargs="+", action="extend", default=[], metavar="KERNEL", help="leave these out")
    options.add_redact(parser)
    options.add_output(parser, FORMATS)
    parser.set_defaults(facts=None, image=None)


def run(args: argparse.Namespace) -> int:
    """Run the kernels, report, and give the exit code of the verdict."""
    from envcheck import gpu
    from envcheck.host import LocalHost

    wanted = named(args)
    facts = facts_of(args)
    target = replace(target_of(args, wanted, facts), stage="train")
    tables = gpu.load()
    host = LocalHost()
    host = replace(host, environ={**host.environ, **_environment(facts, target.stack)})
    started = time.monotonic()
    found = gpu.measure(host, _interpreter(args, facts), tables, only=args.only, skip=args.skip)
    seconds = time.monotonic() - started
    judgement = Judgement(target=target, facts=facts, outcomes=_ordered(found))
    _deliver(args, judgement, found, seconds)
    return engine.exit_code(judgement)


def _environment(facts: Facts, wanted: stack.Stack) -> dict[str, str]:
    """Give what a run would be started with, and no NVLink SHARP where nobody asked for it."""
    from envcheck import exports

    return {"NCCL_NVLS_ENABLE": "0"} | exports.variables(facts, wanted)


def _interpreter(args: argparse.Namespace, facts: Facts) -> str:
    if not isinstance(facts.python, Unknown) and facts.python.executable:
        return facts.python.executable
    return str(args.python or sys.executable)


def _ordered(found: Report) -> tuple[Outcome, ...]:
    return tuple(sorted(found.outcomes, key=lambda outcome: engine.ORDER.index(outcome.outcome)))


def _deliver(args: argparse.Namespace, judgement: Judgement, found: Report, seconds: float) -> None:
    if args.format == "text":
        from envcheck.gpu import table

        options.deliver(args, table.render(found, options.style(args), seconds))
        return
    options.deliver(args, render(Rendered(judgement=judgement, rules=_rules(found)), args.format))


def _rules(found: Report) -> dict[str, Rule]:
    """Make a rule of every kernel, for the groups and claims of a report."""
    return {
        item.kernel.id: Rule(
            id=item.kernel.id,
            group="gpu",
            claim=f"{item.kernel.title}: the result is that of the reference",
            cause="a build for another GPU, torch, CUDA or compiler than those at hand",
            stages=("launch", "train"),
            sources=(SOURCE,),
            check=lambda _facts, _target: (),
            subject=item.kernel.subject,
        )
        for item in found.measured
    }
