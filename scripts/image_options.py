"""The command line of `nox -s image`, and what of it is refused before Docker is asked for anything."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path

from envcheck import stack as stacks
from envcheck.errors import EnvcheckError
from scripts import image_defaults

WHEELS = ("torch-memory-saver", "flashinfer", "flash-attn", "transformer-engine", "megatron", "apex", "verl")
PER_COMPONENT = {
    "--allow-missing": "leave it out, and label it",
    "--from-sdist": "compile what the lock takes as a wheel",
    "--compile": "do so although --prebuilt has other builds of it",
}


def parser(description: str | None, targets: Sequence[str]) -> argparse.ArgumentParser:
    """Give the command line."""
    it = argparse.ArgumentParser(prog="nox -s image --", description=description)
    it.add_argument("--stack", default=stacks.DEFAULT_STACK)
    it.add_argument("--engine", default="sglang")
    it.add_argument("--trainer", default="fsdp")
    it.add_argument("--target", choices=targets, default="train")
    it.add_argument("--component", choices=WHEELS, default=WHEELS[0], help="what --target wheel builds (%(default)s)")
    it.add_argument("--tag", help="name of the result (default: envcheck/TARGET:STACK-ENGINE-TRAINER)")
    it.add_argument("--base-image", help="devel base, as `nox -s base-image` makes one (default: the stack's digest)")
    it.add_argument("--archs", help="compute capabilities, as 8.0;9.0 (default: the stack's)")
    it.add_argument("--prebuilt", type=Path, help="wheelhouse to take wheels from instead of compiling")
    it.add_argument("--mirrors", type=Path, help="directory of git mirrors and sdists, for sites without GitHub")
    for option, words in PER_COMPONENT.items():
        it.add_argument(option, action="append", default=[], choices=WHEELS, metavar="COMPONENT", help=words)
    it.add_argument(
        "--python", default=image_defaults.PYTHON, help="interpreter of the base, for the environment (%(default)s)"
    )
    it.add_argument("--ca", type=Path, help="the site's CA bundle, given to the build as a secret")
    it.add_argument("--pip-conf", type=Path, help="pip.conf with the site's index, given to the build as a secret")
    it.add_argument("--network", default="default", help="network of the build's steps (%(default)s)")
    result = it.add_mutually_exclusive_group()
    result.add_argument("--push", action="store_true", help="push, with SBOM and provenance; needs --tag")
    result.add_argument("--load", action="store_true", help="load into the engine (the default)")
    result.add_argument("--output", help="buildx output, as type=oci,dest=x.tar,rewrite-timestamp=true")
    it.add_argument("--no-cache", action="store_true")
    it.add_argument("--force", action="store_true", help="build although disk or memory look too small")
    it.add_argument("--dry-run", action="store_true", help="print the command")
    it.add_argument(
        "--write-defaults",
        action="store_true",
        help="only write the stack's values into docker/Dockerfile and the bake file",
    )
    it.add_argument("--format", choices=("text", "json"), default="text")
    return it


def check(given: argparse.Namespace) -> None:
    """Refuse paths that are not there, and a push under the default name: that would go to a stranger's registry."""
    for option in ("prebuilt", "mirrors"):
        path = getattr(given, option)
        if path and not path.is_dir():
            raise EnvcheckError(f"--{option} {path} is not a directory", fix="name one that is there, or leave it out")
    for option in ("ca", "pip_conf"):
        path = getattr(given, option)
        if path and not path.is_file():
            raise EnvcheckError(f"--{option.replace('_', '-')} {path} is not a file", fix="name one that is there")
    if given.push and not given.tag:
        raise EnvcheckError("--push needs the registry's name of the image", fix="pass --tag REGISTRY/NAME:TAG")
