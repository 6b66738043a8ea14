"""Train the same profile with SGLang and with vLLM and judge whether both agree: ``nox -s parity``.

Same prompts, weights and order of prompts; two environments of one stack, one after the other or side by side.
"""

from __future__ import annotations

import argparse
import os
import sys
import time
from collections.abc import Mapping, Sequence
from concurrent.futures import FIRST_EXCEPTION, ThreadPoolExecutor, wait
from dataclasses import dataclass
from pathlib import Path

from envcheck.errors import EnvcheckError, WorkError
from envcheck.stack import DEFAULT_STACK
from scripts import cli, compare_runs, env_place, metrics, ppo_profiles, process
from scripts.cache import ROOT
from scripts.ppo_processes import become_subreaper, end_descendants
from scripts.ppo_run import LOG

EXTRA_SECONDS = 1800.0
"""For the doctor and the model, beside the profile's own time."""

REHEARSAL_SECONDS = 300.0
GRACE_SECONDS = 30.0
"""A run that is asked to end ends its ray cluster first."""


@dataclass(frozen=True, kw_only=True)
class Side:
    """One of the two runs."""

    engine: str
    argv: tuple[str, ...]
    place: Path
    environ: Mapping[str, str]


def parser() -> argparse.ArgumentParser:
    """Describe the command line."""
    it = argparse.ArgumentParser(prog="python -m scripts.parity", description=__doc__, epilog=compare_runs.EPILOG)
    it.add_argument("overrides", nargs="*", metavar="KEY=VALUE", help="overrides of verl's config, for both runs")
    it.add_argument("--profile", default="parity-8gpu", help="profile of both runs (%(default)s)")
    it.add_argument("--sglang-python", help="interpreter with SGLang (the one that nox -s env made for the stack)")
    it.add_argument("--vllm-python", help="interpreter with vLLM (the one that nox -s env made for the stack)")
    it.add_argument("--stack", default=DEFAULT_STACK, help="what both are of, and the doctor judges by (%(default)s)")
    it.add_argument("--model", help="folder or hub name, instead of the profile's")
    it.add_argument("--data", default="~/data", help="folder that prepare_data filled (%(default)s)")
    it.add_argument("--out", type=Path, help="folder of both runs (default: runs/parity-PROFILE-TIME)")
    it.add_argument("--steps", type=int, help="trainer.total_training_steps")
    it.add_argument("--seed", type=int, default=1, help="of the order of the prompts (%(default)s)")
    it.add_argument("--cuda-home", help="CUDA toolkit for kernels that are compiled on first use")
    it.add_argument("--side-by-side", metavar="GPUS/GPUS", help="both at once, as 0,1/2,3: sglang's GPUs, vllm's GPUs")
    it.add_argument("--skip-doctor", action="store_true", help="do not judge the host first")
    it.add_argument("--force", action="store_true", help="start although something stands in the way")
    it.add_argument("--dry-run", action="store_true", help="print both commands and configs, start nothing")
    compare_runs.add_options(it)
    return it


def main(argv: Sequence[str] | None = None) -> int:
    """Run both sides, then judge."""
    args = parser().parse_args(argv)
    profile = ppo_profiles.load(args.profile)
    name = f"parity-{profile.name}-{time.strftime('%Y-%m-%d-%H-%M-%S')}"
    place = (args.out or Path("runs") / name).expanduser().absolute()
    sides = _sides(args, place, profile.trainer)
    if not args.dry_run:
        rehearse(sides)
    run_sides(sides, profile.timeout_seconds + EXTRA_SECONDS, together=bool(args.side_by_side), pause=_between(args))
    if args.dry_run:
        return 0
    args.report = args.report or place
    return compare_runs.judge([metrics.read(str(side.place / LOG), side.engine) for side in sides], args)


def _between(args: argparse.Namespace) -> float:
    """Seconds between two runs on the same GPUs, until the first one's memory is given back."""
    return 0.0 if args.dry_run or args.side_by_side else 5.0


def _sides(args: argparse.Namespace, place: Path, trainer: str) -> list[Side]:
    chosen = _gpus(args.side_by_side) if args.side_by_side else (None, None)
    pythons = {"sglang": args.sglang_python, "vllm": args.vllm_python}
    sides = []
    for (engine, named), gpus in zip(pythons.items(), chosen, strict=True):
        python = env_place.interpreter(named, stack=args.stack, engine=engine, trainer=trainer)
        own = {} if gpus is None else {"CUDA_VISIBLE_DEVICES": gpus}
        sides.append(
            Side(
                engine=engine,
                argv=_command(args, engine, python, place / engine),
                place=place / engine,
                environ={**os.environ, **own},
            )
        )
    return sides


def _gpus(text: str) -> tuple[str, str]:
    """Read ``0,1/2,3``; raise EnvcheckError where the two sides share a GPU or are not of one size."""
    first, slash, second = text.partition("/")
    one, two = ([item for item in part.split(",") if item] for part in (first, second))
    if not slash or not one or len(one) != len(two):
        raise EnvcheckError(f"--side-by-side {text}: two lists of the same length are needed", fix="as 0,1/2,3")
    if shared := sorted(set(one) & set(two)):
        raise EnvcheckError(f"--side-by-side {text}: both sides name GPU {', '.join(shared)}", fix="as 0,1/2,3")
    return first, second


def _command(args: argparse.Namespace, engine: str, python: str, place: Path) -> tuple[str, ...]:
    profile = os.path.abspath(args.profile) if args.profile.endswith(".toml") else args.profile
    options = ["--profile", profile, "--engine", engine, "--python", python]
    options += ["--stack", args.stack, "--data", os.path.abspath(os.path.expanduser(args.data)), "--out", str(place)]
    options += ["--seed", str(args.seed)]
    for name in ("model", "steps", "cuda_home"):
        value = getattr(args, name)
        options += [f"--{name.replace('_', '-')}", str(value)] if value is not None else []
    for name in ("skip_doctor", "force", "dry_run"):
        options += [f"--{name.replace('_', '-')}"] if getattr(args, name) else []
    return (sys.executable, "-m", "scripts.ppo", *options, *args.overrides)


def rehearse(sides: Sequence[Side]) -> None:
    """Compose both runs first: what is wrong with the second is not to be found when the first has run for hours."""
    for side in sides:
        print(f"{side.engine:>6} │ composed with {side.argv[side.argv.index('--python') + 1]}", flush=True)
        process.output((*side.argv, "--dry-run"), timeout=REHEARSAL_SECONDS, environ=side.environ, cwd=ROOT)


def run_sides(sides: Sequence[Side], timeout: float, *, together: bool, pause: float = 0.0) -> None:
    """Run both, one after the other or at once; raise WorkError where one of them fails."""
    if together:
        _run_together(sides, timeout)
        return
    for number, side in enumerate(sides):
        if number:
            time.sleep(pause)
        _run(side, timeout)


def _run_together(sides: Sequence[Side], timeout: float) -> None:
    """Run all at once; where one fails (or on ^C) the others are ended."""
    become_subreaper()
    with ThreadPoolExecutor(len(sides)) as pool:
        running = [pool.submit(_run, side, timeout) for side in sides]
        try:
            for done in wait(running, return_when=FIRST_EXCEPTION).done:
                done.result()
        except BaseException:
            end_descendants(grace=GRACE_SECONDS)
            raise


def _run(side: Side, timeout: float) -> None:
    def show(text: str) -> None:
        print(f"{side.engine:>6} │ {text}", flush=True)

    done = process.stream(side.argv, timeout=timeout, environ=side.environ, cwd=ROOT, each_line=show)
    if done.returncode:
        raise WorkError(f"the run with {side.engine} ended with exit code {done.returncode}", fix=f"see {side.place}")


if __name__ == "__main__":
    sys.exit(cli.run(main))
