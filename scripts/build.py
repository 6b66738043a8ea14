"""Build a component of the stack as a verified wheel: preflight first, in a clean tree, never twice the same."""

from __future__ import annotations

import argparse
import importlib.util
import json
import os
import re
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from envcheck import stack as stacks
from envcheck.commands.source import one_of
from envcheck.errors import EnvcheckError
from envcheck.stack import Stack
from scripts import build_context, build_flash_attn, build_order, build_steps, cli, env_place, sources, wheelhouse_store
from scripts.build_context import Wishes
from scripts.build_steps import Order


def parser() -> argparse.ArgumentParser:
    """Describe the command line."""
    out = argparse.ArgumentParser(prog="python -m scripts.build", description=__doc__)
    out.add_argument("name", help="a component of the stack, or `all` for those that the plan has to build")
    out.add_argument("--stack", default=stacks.DEFAULT_STACK)
    out.add_argument("--engine", help="rollout engine (the stack's first)")
    out.add_argument("--trainer", help="training engine; for `all` (every trainer of the stack)")
    out.add_argument("--python", help="what to build for, with its torch (an environment made by `nox -s env`)")
    out.add_argument("--archs", help="GPU architectures, as 9.0 or 8.0;9.0 (the GPUs present, else the stack's)")
    out.add_argument("--jobs", default="auto", help="compilers side by side: auto (by cores and memory) or a number")
    out.add_argument("--wheelhouse", type=Path, help="where wheels go (default: in the project's cache)")
    out.add_argument("--pull", metavar="URL", help="a wheelhouse to look in before building")
    out.add_argument("--source", action="append", default=[], metavar="DIR|mirror", help="local mirrors and archives")
    out.add_argument("--force", action="append", default=[], metavar="RULE", help="build although this rule objects")
    out.add_argument("--from-sdist", action="store_true", help="compile what the lock takes as a wheel")
    out.add_argument("--rebuild", action="store_true", help="build although the wheelhouse has it")
    out.add_argument("--keep", action="store_true", help="keep the tree that was built in")
    out.add_argument("--dry-run", action="store_true", help="only say what would be done")
    out.add_argument("--format", choices=("text", "json"), default="text", help="of --dry-run")
    group = out.add_argument_group("flash-attn only")
    group.add_argument("--head-dims", help="kernels of these head dimensions only, as 64,128")
    group.add_argument("--dtypes", help="kernels of these dtypes only: bf16, fp16")
    return out


def jobs_of(text: str) -> int | None:
    """Read ``--jobs``: None for auto."""
    if text == "auto":
        return None
    if not text.isdecimal() or int(text) < 1:
        raise EnvcheckError(f"--jobs {text} is not a number of jobs", fix="give auto, or a number from 1")
    return int(text)


def archs_of(text: str | None) -> tuple[str, ...]:
    """Read ``--archs``: ``9.0``, ``8.0;9.0``, ``8.0,9.0`` or ``80 90a``."""
    out = []
    for part in (text or "").replace(";", " ").replace(",", " ").split():
        match = re.fullmatch(r"(\d+)\.?(\d)([af]?)", part)
        if match is None:
            raise EnvcheckError(f"--archs {text}: {part!r} is no architecture", fix="give them as 9.0 or 8.0;9.0")
        out.append(f"{match[1]}.{match[2]}{match[3]}")
    return tuple(dict.fromkeys(out))


def order_of(options: argparse.Namespace) -> Order:
    """Read where things come from and go to."""
    return Order(
        wheelhouse=(options.wheelhouse or wheelhouse_store.default()).absolute(),
        pull=options.pull,
        places=tuple(sources.directories(options.source)),
        mirrors_first="mirror" in options.source,
        force=tuple(options.force),
        variant=_variant(options),
        keep=options.keep,
        rebuild=options.rebuild,
    )


def _variant(options: argparse.Namespace) -> dict[str, str]:
    found = build_flash_attn.variant(options.head_dims, options.dtypes)
    if found and options.name != "flash-attn":
        raise EnvcheckError(f"--head-dims and --dtypes are for flash-attn, not for {options.name}")
    return found


def wishes_of(options: argparse.Namespace, stack: Stack) -> Wishes:
    """Read what to build for."""
    engine = one_of("engine", options.engine, stack.engines, stack)
    trainer = one_of("trainer", options.trainer, stack.trainers, stack)
    return Wishes(
        engine=engine,
        trainer=trainer,
        python=options.python or _made(stack, engine, trainer),
        archs=archs_of(options.archs),
        jobs=jobs_of(options.jobs),
        from_sdist=options.from_sdist,
        places=tuple(sources.directories(options.source)),
    )


def _made(stack: Stack, engine: str, trainer: str) -> str | None:
    """Path of the environment that `nox -s env` made for the stack; None where none is, or this one has torch."""
    if os.environ.get("VIRTUAL_ENV") or importlib.util.find_spec("torch"):
        return None
    found = env_place.made(stack, engine, trainer) or env_place.made(stack, engine, "*")
    return str(found) if found else None


def main(argv: Sequence[str] | None = None) -> int:
    """Build the named component, or all."""
    options = parser().parse_args(argv)
    stack = stacks.load(options.stack)
    wishes, order = wishes_of(options, stack), order_of(options)
    if options.name == "all":
        trainers = [options.trainer] if options.trainer else list(stack.trainers)
        names = build_order.names(stack, wishes.engine, trainers)
    else:
        names = [options.name]
    for name in names:
        try:
            context = build_context.context(stack, name, wishes)
        except build_context.NothingToBuildError as wheel:
            print(wheel)
            continue
        if options.dry_run:
            _show(build_steps.dry_run(context, order), options.format)
        else:
            build_steps.build(context, order)
    return 0


def _show(document: dict[str, Any], form: str) -> None:
    if form == "json":
        print(json.dumps(document, indent=2))
        return
    print(f"{document['component']} {document['version']}  key {document['key'][:12]}")
    print(f"  wheel     {document['wheel'] or 'not there yet'}")
    print(f"  jobs      {document['jobs']} of {document['memory_per_job_bytes'] / 2**30:.1f} GiB each")
    for name, value in document["environment"].items():
        print(f"  {name}={value}")
    print(f"  command   {document['command']}")
    print(f"  preflight {', '.join(f'{rule}: {outcome}' for rule, outcome in document['preflight'].items()) or 'none'}")
    if document["refusal"]:
        print(f"would stop here:\n{document['refusal']}")
    sys.stdout.flush()


if __name__ == "__main__":
    raise SystemExit(cli.run(main))
