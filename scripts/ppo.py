"""Run PPO with verl and say whether it trains: ``nox -s ppo-smoke``.

Runs in this project's interpreter; the training runs in the one that --python names.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
import time
from collections.abc import Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

from envcheck import errors
from envcheck.errors import EnvcheckError, WorkError
from envcheck.facts import Facts
from envcheck.host import LocalHost
from envcheck.stack import DEFAULT_STACK
from scripts import (
    cli,
    env_place,
    files,
    make_tiny_model,
    ppo_compose,
    ppo_environment,
    ppo_preflight,
    ppo_profiles,
    process,
)
from scripts.cache import ROOT
from scripts.ppo_compose import Composed
from scripts.ppo_plan import Plan, Request, checkpoints, plan, resumed
from scripts.ppo_preflight import Problem
from scripts.ppo_run import RECORD, Launch, run

DATA_SECONDS = 120.0
INSTALL = "nox -s env -- --stack STACK --engine ENGINE installs what fits"


def parser() -> argparse.ArgumentParser:
    """Describe the command line."""
    it = argparse.ArgumentParser(prog="python -m scripts.ppo", description=__doc__)
    it.add_argument("overrides", nargs="*", metavar="KEY=VALUE", help="overrides of verl's config, after the profile's")
    listed = ", ".join(ppo_profiles.names())
    it.add_argument("--profile", default="one-gpu", help=f"{listed}, or a .toml file (default: one-gpu)")
    it.add_argument("--python", help="interpreter of the training environment (the one that nox -s env made)")
    it.add_argument("--stack", help=f"what is run, and what the doctor judges by ({DEFAULT_STACK})")
    it.add_argument("--engine", help="rollout engine: sglang or vllm (the profile's first)")
    it.add_argument("--model", help="folder or hub name, instead of the profile's")
    it.add_argument("--data", type=Path, default=Path("~/data"), help="folder that prepare_data filled (%(default)s)")
    it.add_argument("--out", type=Path, help="folder of the run (default: runs/PROFILE-ENGINE-TIME)")
    it.add_argument("--resume", type=Path, metavar="RUN", help="go on with the run in this folder")
    it.add_argument("--steps", type=int, help="trainer.total_training_steps")
    it.add_argument("--seed", type=int, help="of the order of the prompts (data.seed)")
    it.add_argument("--cuda-home", help="CUDA toolkit for kernels that are compiled on first use")
    it.add_argument("--ray-address", help="join this ray cluster instead of starting one")
    it.add_argument("--dry-run", action="store_true", help="print the command and the composed config, start nothing")
    it.add_argument("--skip-doctor", action="store_true", help="do not judge the host first")
    it.add_argument("--force", action="store_true", help="start although something stands in the way")
    it.add_argument("--quiet", action="store_true", help="only one line a step on the screen; all goes to the log")
    return it


def main(argv: Sequence[str] | None = None) -> int:
    """Prepare, check and run."""
    args = parser().parse_args(argv)
    request, place = _request(args)
    ready = plan(request)
    _say(ready)
    if args.dry_run:
        _show(ready)
        return errors.OK
    _make_missing(ready)
    environment = _check(ready, args, place)
    _list("environment", environment.said)
    place.mkdir(parents=True, exist_ok=True)
    files.write(place / "config.json", json.dumps(ready.composed.config, indent=2, sort_keys=True) + "\n")
    started = time.monotonic()
    watch = run(_launch(ready, args, place, environment.variables))
    print(f"{ready.profile.name}: {len(watch.steps)} steps in {time.monotonic() - started:.1f} s; {place}")
    return errors.OK


def _request(args: argparse.Namespace) -> tuple[Request, Path]:
    if args.resume and args.out:
        raise EnvcheckError("--resume and --out exclude each other", fix="--resume names the folder already")
    name = f"{Path(args.profile).stem}-{args.engine or 'default'}-{time.strftime('%Y-%m-%d-%H-%M-%S')}"
    place: Path = (args.resume or args.out or Path("runs") / name).expanduser().absolute()
    record = _record_of(place) if args.resume else {}
    args.stack = args.stack or record.get("stack", DEFAULT_STACK)
    request = Request(
        profile=args.profile,
        python=args.python or "",
        engine=args.engine,
        model=args.model,
        data=str(args.data.expanduser().absolute()),
        overrides=tuple(args.overrides),
        steps=args.steps,
        seed=args.seed,
    )
    request = resumed(request, record) if record else request
    return replace(request, python=_interpreter(request, args.stack)), place


def _interpreter(request: Request, stack: str) -> str:
    """Interpreter that was named, else the one of the environment made for the stack and the profile."""
    profile = ppo_profiles.load(request.profile)
    return env_place.interpreter(
        request.python or None, stack=stack, engine=request.engine or profile.engines[0], trainer=profile.trainer
    )


def _record_of(place: Path) -> dict[str, Any]:
    try:
        record: dict[str, Any] = json.loads((place / RECORD).read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise EnvcheckError(
            f"{place} is not the folder of a run: {error}", fix="name a folder with a run.json"
        ) from error
    if not checkpoints(place):
        what = f"{place} holds no checkpoint to go on from"
        raise EnvcheckError(what, fix="a run saves them where trainer.save_freq is above 0 (trainer.save_freq=10)")
    return record


def _say(ready: Plan) -> None:
    versions = ", ".join(f"{name} {version}" for name, version in ready.found.versions.items())
    print(f"{ready.profile.name}: {ready.profile.title}\n{versions}")
    _list("overrides", ready.said)


def _list(title: str, lines: Sequence[str]) -> None:
    for line in lines:
        print(f"{title}: {line}")


def _show(ready: Plan) -> None:
    print(f"\n{process.shown(ready.argv)}\n\n{json.dumps(ready.composed.config, indent=2, sort_keys=True)}")
    for problem in ppo_preflight.refusals(ready.profile, ready.engine, ready.found.versions):
        print(f"\nwarning: {problem}")


def _make_missing(ready: Plan) -> None:
    """Make what the toolkit can make itself: the tiny model and the sample data."""
    request = ready.request
    if ready.profile.model == "tiny" and not request.model and make_tiny_model.made(Path(ready.model)) is None:
        make_tiny_model.main(["--python", request.python, "--out", ready.model])
    if ready.profile.data == ("sample",) and not Path(request.data, "sample", "test.parquet").is_file():
        argv = [request.python, "-m", "scripts.prepare_data", "--sample", "--out", request.data]
        print(process.output(argv, timeout=DATA_SECONDS, cwd=ROOT), end="")


def _environment(ready: Plan, args: argparse.Namespace, facts: Facts | None) -> ppo_environment.Environment:
    return ppo_environment.build(
        stack=args.stack,
        python=ready.request.python,
        facts=facts,
        profile=ready.profile.environment,
        cuda_home=args.cuda_home,
        ray_address=args.ray_address,
    )


def _check(ready: Plan, args: argparse.Namespace, place: Path) -> ppo_environment.Environment:
    """Look at everything that must hold and give the run's variables; raise WorkError where something stops the run."""
    problems = [*ppo_preflight.refusals(ready.profile, ready.engine, ready.found.versions)]
    needs = ready.profile.needs
    environ = {**os.environ, **ready.profile.environment}
    environment = None
    if not args.skip_doctor:
        asked = (ready.request.python, args.stack, ready.engine, ready.profile.trainer)
        environment = _environment(ready, args, ppo_preflight.doctor(*asked).facts)
        # Judged as it will run: the run's LD_LIBRARY_PATH puts the wheels' libraries before the system's.
        seen = ppo_preflight.doctor(*asked, environ=environment.variables)
        facts = seen.facts
        problems += seen.problems
        problems += ppo_preflight.gpu_problems(facts, ready.composed, needs, environ)
        problems += ppo_preflight.memory_problems(facts, needs)
    host = LocalHost()
    problems += ppo_preflight.busy_problems(host)
    problems += ppo_preflight.disk_problems(host, place, ready.composed, needs)
    problems += ppo_preflight.model_problems(ready.model, environ)
    problems += ppo_preflight.port_problems(environ)
    problems += _data_problems(ready)
    _report(problems, force=args.force)
    return environment or _environment(ready, args, None)


def _data_problems(ready: Plan) -> list[Problem]:
    paths = ppo_compose.files_of(ready.composed)
    reply = ppo_compose.ask(ready.request.python, ready.profile.config, parquet=paths)
    config = Composed(config=ready.composed.config, parquet=reply["parquet"])
    found = [Problem(text=text, fix=fix) for text, fix in ppo_compose.data_faults(config)]
    return found or _load_problems(ready, paths[0])


def _load_problems(ready: Plan, path: str) -> list[Problem]:
    """Load one file as the installed verl will: its packages may not fit each other."""
    reply = ppo_compose.ask(ready.request.python, ready.profile.config, load=path)
    if not (why := reply.get("load")):
        return []
    text = f"the training environment cannot load {path}: {why}"
    return [Problem(text=text, fix=f"python -m envcheck explain names the cause; {INSTALL}")]


def _report(problems: Sequence[Problem], *, force: bool) -> None:
    stopping = [problem for problem in problems if not problem.warning]
    for problem in problems:
        print(f"{'warning' if problem.warning else 'problem'}: {problem}", file=sys.stderr)
    if stopping and not force:
        count = f"{len(stopping)} thing{'s' * (len(stopping) > 1)}"
        raise WorkError(f"{count} must be mended before this run can start (listed above)", fix="--force starts anyway")


def _launch(ready: Plan, args: argparse.Namespace, place: Path, environ: dict[str, str]) -> Launch:
    steps = ready.composed.get("trainer.total_training_steps")
    asked = asdict(ready.request) | {"engine": ready.engine}
    record: dict[str, Any] = {
        "profile": ready.profile.name,
        "engine": ready.engine,
        "stack": args.stack,
        "model": ready.model,
        "versions": ready.found.versions,
        "moved": list(ready.said),
        "request": {name: value for name, value in asked.items() if value is not None},
    }
    return Launch(
        argv=ready.argv,
        environ=environ,
        place=place,
        stack=args.stack,
        timeout=ready.profile.timeout_seconds,
        wanted_steps=steps if isinstance(steps, int) else None,
        quiet=args.quiet,
        record=record,
    )


if __name__ == "__main__":
    sys.exit(cli.run(main))
