"""Where the facts of a command come from: this host, an interpreter of it, an image, or a document."""

from __future__ import annotations

import argparse
from collections.abc import Callable
from functools import partial

from envcheck.codec import Unknown
from envcheck.errors import EnvcheckError
from envcheck.facts import Facts, Manifest
from envcheck.model import Stage, Target
from envcheck.stack import DEFAULT_STACK, Stack, load


def facts_of(args: argparse.Namespace) -> Facts:
    """Read or collect the facts that the options name; raise EnvcheckError where they exclude each other."""
    return begin(args)()


def begin(args: argparse.Namespace, meanwhile: Callable[[], object] = lambda: None) -> Callable[[], Facts]:
    """Start to collect, and give what ends it: this host's programs run while the caller does something else.

    ``meanwhile`` is called while the binaries are read beside this process, where they are.
    """
    _check(args)
    end = _begin(args, meanwhile)
    if not getattr(args, "redact", False):
        return end
    from envcheck.redact import redact

    return lambda: redact(end())


def _check(args: argparse.Namespace) -> None:
    if args.facts is not None and (args.image is not None or args.python is not None):
        other = "--image" if args.image is not None else "--python"
        raise EnvcheckError(f"--facts and {other} exclude each other", fix="a document is judged as it was recorded")


def _begin(args: argparse.Namespace, meanwhile: Callable[[], object]) -> Callable[[], Facts]:
    if args.facts is not None:
        from envcheck import documents

        return partial(documents.load, args.facts)
    if args.image is not None:
        return partial(_inside, args.image, args.python)
    from envcheck.host import LocalHost
    from envcheck.probes import python

    host = LocalHost()
    target = python.start(host, args.python)
    from envcheck.probes import binaries  # while the target's interpreter starts

    begun = binaries.of_target(host, target)
    from envcheck.probes.collection import Collection  # while the binaries are read beside this process

    return Collection(host, target, None, meanwhile, begun).facts


def _inside(image: str, python: str | None) -> Facts:
    from envcheck.image import ContainerHost
    from envcheck.probes.collection import collect

    with ContainerHost.of(image) as host:
        return collect(host, python=python)


def named(args: argparse.Namespace) -> Stack:
    """Give the stack that ``--stack`` names, else the default one."""
    return load(args.stack or DEFAULT_STACK)


def built_for(args: argparse.Namespace, facts: Facts, otherwise: Stack) -> Stack:
    """Give the stack of an image of ours where no option names one; its engine and trainer go into the options."""
    if args.stack is not None or not isinstance(facts.manifest, Manifest):
        return otherwise
    if hasattr(args, "engine"):
        args.engine = args.engine or facts.manifest.values.get("engine")
        args.trainer = args.trainer or facts.manifest.values.get("trainer")
    return load(facts.manifest.stack)


def target_of(args: argparse.Namespace, stack: Stack, facts: Facts) -> Target:
    """Say what the facts are judged against; raise EnvcheckError where the stack has no such engine or trainer."""
    from envcheck import limits

    stack = built_for(args, facts, stack)
    engine = one_of("engine", args.engine, stack.engines, stack)
    return Target(
        stack=stack,
        limits=limits.load(),
        stage=getattr(args, "stage", None) or default_stage(facts, stack, engine),
        engine=engine,
        trainer=one_of("trainer", args.trainer, stack.trainers, stack),
    )


def one_of(kind: str, wanted: str | None, offered: tuple[str, ...], stack: Stack) -> str:
    """Give the engine or trainer that was asked for, or the stack's first; raise EnvcheckError for another."""
    if wanted is None:
        return offered[0]
    if wanted not in offered:
        raise EnvcheckError(f"the stack {stack.name} has no {kind} {wanted}", fix=f"take {' or '.join(offered)}")
    return wanted


def default_stage(facts: Facts, stack: Stack, engine: str) -> Stage:
    """Give ``build`` where the target environment does not hold the engine yet, else ``launch``."""
    if isinstance(facts.packages, Unknown):
        return "build"
    names = {item.distribution for item in stack.components if item.role == "engine" and engine in item.engines}
    held = {package.name for package in facts.packages}
    return "launch" if held & (names or {engine}) else "build"
