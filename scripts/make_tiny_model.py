"""Make a tiny Qwen2 with random weights and a tokenizer, without network: the model of the one-GPU smoke test."""

from __future__ import annotations

import argparse
import json
import os
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from envcheck import errors
from envcheck.errors import EnvcheckError, WorkError
from scripts import cli, files, process
from scripts.cache import cache

CHILD = Path(__file__).with_name("make_tiny_model_child.py")
TIMEOUT_SECONDS = 300
RECEIPT = "receipt.json"
SIZES = {"vocabulary": 896, "hidden": 512, "layers": 4, "heads": 8, "kv_heads": 4, "positions": 2048}
"""Head size 64, 10.4 million parameters: every kernel of a real Qwen2 runs, and it trains in seconds."""


def default_place() -> Path:
    """Folder of the model that the ``one-gpu`` profile takes."""
    return cache("models", "tiny-qwen2")


def parser() -> argparse.ArgumentParser:
    """Describe the command line."""
    it = argparse.ArgumentParser(prog="python -m scripts.make_tiny_model", description=__doc__)
    it.add_argument("--python", default=sys.executable, help="interpreter with torch and transformers (%(default)s)")
    it.add_argument("--out", type=Path, help="folder of the model (default: in the project's cache)")
    it.add_argument("--seed", type=int, default=20250317, help="of the weights and of the tokenizer's text")
    for name, size in SIZES.items():
        it.add_argument(f"--{name.replace('_', '-')}", type=int, default=size, help=f"{size}")
    it.add_argument("--force", action="store_true", help="make it again where it is there already")
    return it


def main(argv: Sequence[str] | None = None) -> int:
    """Make the model, or say that it is there."""
    args = parser().parse_args(argv)
    out = (args.out or default_place()).expanduser().absolute()
    wanted = {name: getattr(args, name) for name in SIZES} | {"seed": args.seed}
    _check_sizes(wanted)
    if not args.force and made(out) == wanted:
        print(f"{out} is there already (--force makes it again)")
        return errors.OK
    make(args.python, out, wanted)
    return errors.OK


def _check_sizes(wanted: dict[str, int]) -> None:
    if wanted["hidden"] % wanted["heads"] or wanted["heads"] % wanted["kv_heads"]:
        raise EnvcheckError(
            f"hidden {wanted['hidden']}, heads {wanted['heads']} and kv heads {wanted['kv_heads']} do not divide",
            fix="heads must divide hidden, and kv heads must divide heads",
        )
    if wanted["vocabulary"] < 300:  # noqa: PLR2004  # 256 bytes, the special tokens, some merges
        raise EnvcheckError(f"a vocabulary of {wanted['vocabulary']} is too small", fix="take 300 or more")


def made(out: Path) -> dict[str, int] | None:
    """Give the request that a folder was made from, where all its files are still as they were made."""
    try:
        receipt = json.loads((out / RECEIPT).read_text(encoding="utf-8"))
        whole = all(files.sha256(out / name) == digest for name, digest in receipt["files"].items())
    except (OSError, ValueError, KeyError):
        return None
    wanted: dict[str, int] = receipt["wanted"]
    return wanted if whole else None


def make(python: str, out: Path, wanted: dict[str, int]) -> None:
    """Make the model in a child process of ``python``; the folder appears whole or not at all."""
    environ = {**os.environ, "HF_HUB_OFFLINE": "1", "TRANSFORMERS_OFFLINE": "1", "CUDA_VISIBLE_DEVICES": ""}
    files.check_ours(out, RECEIPT)
    with files.replacing(out) as work:
        request = json.dumps(wanted | {"out": str(work)})
        text = process.output([python, str(CHILD), request], timeout=TIMEOUT_SECONDS, environ=environ)
        said: dict[str, Any] = json.loads(text.strip().splitlines()[-1])
        wrong = [name for name, value in said["seen"].items() if value is False]
        if wrong:
            raise WorkError(f"the model that was made is not right: {', '.join(wrong)}: {said}")
        hashes = {path.name: files.sha256(path) for path in sorted(work.iterdir())}
        receipt = {"version": 1, "wanted": wanted, "made": said, "files": hashes}
        files.write(work / RECEIPT, json.dumps(receipt, indent=2) + "\n")
    print(f"{out}: Qwen2, {said['parameters']:,} parameters, {said['tokens']} tokens")


if __name__ == "__main__":
    sys.exit(cli.run(main))
