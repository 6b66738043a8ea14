"""Options that several subcommands share, and what they stand for."""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Sequence
from typing import TYPE_CHECKING

from envcheck import data, output
from envcheck.stack import DEFAULT_STACK

if TYPE_CHECKING:
    from envcheck.report.style import Style

ENGINES = ("sglang", "vllm")
TRAINERS = ("fsdp", "megatron")


def add_stack(parser: argparse.ArgumentParser) -> None:
    """Add ``--stack``."""
    words = f"name or .toml file ({DEFAULT_STACK}; an image's own)"
    parser.add_argument("--stack", metavar="S", help=words)


def add_variant(parser: argparse.ArgumentParser) -> None:
    """Add ``--engine`` and ``--trainer``."""
    parser.add_argument("--engine", choices=ENGINES, help="rollout engine (the stack's first)")
    parser.add_argument("--trainer", choices=TRAINERS, help="training engine (the stack's first)")


def add_host(parser: argparse.ArgumentParser) -> None:
    """Add where facts come from: ``--python``, ``--image``, ``--facts``."""
    parser.add_argument("--python", metavar="PATH", help="judge this interpreter or environment, not the current one")
    parser.add_argument("--image", metavar="REF", help="read a Docker image or a running container")
    parser.add_argument("--facts", metavar="FILE|-", help="take a recorded facts document")


def add_redact(parser: argparse.ArgumentParser) -> None:
    """Add ``--redact``."""
    parser.add_argument("--redact", action="store_true", help="hide names of users, hosts, paths and addresses")


def add_output(parser: argparse.ArgumentParser, formats: Sequence[str] = ()) -> None:
    """Add ``--format``, ``--output`` and ``--color``."""
    if formats:
        parser.add_argument("--format", choices=formats, default=formats[0], help=f"{formats[0]} where not given")
    parser.add_argument("--output", metavar="FILE", help="write there instead of standard output; whole or not at all")
    parser.add_argument("--color", choices=("auto", "always", "never"), default="auto", help="auto: on a terminal")


def style(args: argparse.Namespace) -> Style:
    """Choose how text looks where it goes; a file gets neither colour nor ASCII unless ``--color always``."""
    from envcheck.report.style import Style, style_for

    if args.output in {None, output.STANDARD_OUTPUT}:
        return style_for(sys.stdout, os.environ, args.color, output.encoding_of(sys.stdout))
    return Style(color=args.color == "always")


def deliver(args: argparse.Namespace, document: str) -> None:
    """Hand the document over; text in the terminal's encoding, everything else in UTF-8.

    Commands of this program in it are written as it was started.
    """
    is_text = getattr(args, "format", "text") == "text"
    output.deliver(data.as_started(document), args.output, encoding=output.encoding_of(sys.stdout) if is_text else None)
