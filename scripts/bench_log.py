"""Write a log as big as wanted, of what builds and runs print: hardly a line twice, the cause at the end."""

from __future__ import annotations

import argparse
import random
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path

from scripts import cli

MEGABYTE = 1_000_000
LINES = (
    (
        "/usr/local/cuda/bin/nvcc --dependency-output /tmp/pip-{hash}/build/temp.linux-x86_64/flash_bwd_{small}.o.d"
        " -isystem /opt/venv/lib/python3.10/site-packages/torch/include -c -c /tmp/x/csrc/flash_bwd_{small}.cu"
        " -D__CUDA_NO_HALF_OPERATORS__ -O3 -std=c++17 --expt-relaxed-constexpr -gencode arch=compute_90,code=sm_90"
    ),
    "ptxas info    : Compiling entry function '_ZN5flash{large}flash_bwd_dq_dk_dv_{hash}ILi{small}EEv' for 'sm_90'",
    "    {small} bytes stack frame, {large} bytes spill stores, {small} bytes spill loads",
    "(WorkerDict pid={large}, ip=10.0.0.{small}) INFO step:{large} - actor/pg_loss:{real:.5f} - prompt: {words}",
    "node{small}:{large}:{large} [{small}] NCCL INFO Channel {small}/0 : 0[{small}] -> 1[{small}] via P2P/CUMEM/read",
    "  Downloading nvidia_cublas_cu12-12.4.5.8-{hash}-py3-none-manylinux2014_x86_64.whl (363.4 MB)",
)
WEIGHTS = (1, 2, 2, 4, 3, 1)
WORDS = (
    "the ducks eggs how many each friend total price answer step first equals left dollars "
    "failed error cannot find killed not found memory file version"
)
CAUSE = "ImportError: /opt/venv/flash_attn_2_cuda.so: undefined symbol: _ZN3c105ErrorC2ENS_14SourceLocationESs\n"


def lines(size: int, seed: int = 1) -> Iterator[str]:
    """Give lines until ``size`` bytes are reached, then the cause."""
    chance = random.Random(seed)  # noqa: S311  # a log for measuring, no secret
    written = 0
    while written < size:
        line = _line(chance)
        written += len(line)
        yield line
    yield CAUSE


def _line(chance: random.Random) -> str:
    text = chance.choices(LINES, WEIGHTS)[0]
    values = {"hash": f"{chance.getrandbits(64):016x}", "small": chance.randint(0, 255), "real": chance.random()}
    words = " ".join(chance.choices(WORDS.split(), k=25)) if "{words}" in text else ""
    return text.format(large=chance.randint(0, 99_999), words=words, **values) + "\n"


def main(argv: Sequence[str] | None = None) -> int:
    """Write the log."""
    parser = argparse.ArgumentParser(prog="python -m scripts.bench_log", description=__doc__)
    parser.add_argument("file", type=Path)
    parser.add_argument("--megabytes", type=int, default=50, help="(default: %(default)s)")
    args = parser.parse_args(argv)
    with args.file.open("w", encoding="ascii") as log:
        log.writelines(lines(args.megabytes * MEGABYTE))
    return 0


if __name__ == "__main__":
    sys.exit(cli.run(main))
