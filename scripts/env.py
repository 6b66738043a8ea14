"""Make the environment of a stack from its lock: uv, every file checked by hash, then the wheels of the wheelhouse.

It is made beside its place and renamed: an interrupted or failed run leaves the old one. Run again, it changes nothing.
The doctor's verdict ends it, and its exit code is this command's.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path

from envcheck import choices, errors
from envcheck import stack as stacks
from envcheck.errors import EnvcheckError, HostError, WorkError
from scripts import cli, download, env_place, env_plan, files, lock_text, lock_uv, process
from scripts.cache import locked
from scripts.env_plan import Extra, Plan, Selection

MARK = ".envcheck-env.json"
INSTALL_SECONDS = 3600.0
VERDICT_SECONDS = 300.0


def parser() -> argparse.ArgumentParser:
    """Give the command line."""
    it = argparse.ArgumentParser(prog="python -m scripts.env", description=__doc__.splitlines()[0])
    it.add_argument("--stack", default=stacks.DEFAULT_STACK)
    it.add_argument("--engine", help="sglang or vllm (the stack's first)")
    it.add_argument("--trainer", help="fsdp or megatron (the stack's first)")
    it.add_argument(
        "--python", help="interpreter to make it with (default: the stack's version, looked up on this machine)"
    )
    it.add_argument("--prefix", type=Path, help="where to make it (default: in the project's cache)")
    it.add_argument("--wheelhouse", type=Path, help="where built wheels are (default: in the project's cache)")
    it.add_argument("--find-links", type=Path, help="take packages from this directory only, no index (a kit's wheels)")
    it.add_argument("--stage", choices=("build", "launch", "train"), help="of the verdict")
    it.add_argument("--no-verdict", action="store_true", help="only make it")
    return it


def main(argv: Sequence[str] | None = None) -> int:
    """Make the environment, then let the doctor judge it."""
    given = parser().parse_args(argv)
    python = interpreter(given.python, stacks.load(given.stack))
    wanted = selection(given.stack, given.engine, given.trainer, python)
    prefix = given.prefix or default_prefix(wanted)
    made = make(wanted, python, prefix.absolute(), wheelhouse=given.wheelhouse, find_links=given.find_links)
    print(made, flush=True)
    return errors.OK if given.no_verdict else verdict(wanted, prefix.absolute(), given.stage)


def selection(stack_name: str, engine: str | None, trainer: str | None, python: str | None) -> Selection:
    """Read what is asked for; raise EnvcheckError naming what there is."""
    stack = stacks.load(stack_name)
    chosen_engine, chosen_trainer = engine or stack.engines[0], trainer or stack.trainers[0]
    for what, value, known in (("engine", chosen_engine, stack.engines), ("trainer", chosen_trainer, stack.trainers)):
        if value not in known:
            raise EnvcheckError(f"stack {stack.name} has no {what} {value!r}", fix=f"it has: {', '.join(known)}")
    version = version_of(interpreter(python, stack))
    if ".".join(version.split(".")[:2]) not in env_plan.covered():
        raise EnvcheckError(
            f"the locks are for Python {', '.join(env_plan.covered())}, not {version}", fix="name one with --python"
        )
    return Selection(stack=stack, engine=chosen_engine, trainer=chosen_trainer, version=version)


def interpreter(named: str | None, stack: stacks.Stack) -> str:
    """Find the interpreter: the stack's default version, else another of its range; none is ever downloaded."""
    if named:
        place = Path(named)
        inside = place / "bin" / "python" if place.is_dir() else place
        program = str(inside) if inside.exists() else shutil.which(named)
        if program is None:
            raise HostError(f"there is no interpreter {named}", fix="give the path of a python3.10, 3.11 or 3.12")
        return program
    wanted = (stack.python.default, *reversed(env_plan.covered()))
    for version in dict.fromkeys(wanted):
        if path := found(version):
            return path
    fix = f"install python{stack.python.default}, or name another with --python; none is downloaded"
    raise HostError(f"no Python {stack.python.requires} was found on this machine", fix=fix)


def found(version: str) -> str | None:
    """Path of an interpreter of a version as 3.10: one that uv finds, else pyenv's newest, of which PATH has a shim."""
    with contextlib.suppress(WorkError):
        return lock_uv.run(["python", "find", "--no-project", version]).strip()
    base = Path(os.environ.get("PYENV_ROOT") or Path.home() / ".pyenv")
    paths = base.glob(f"versions/{version}.*/bin/python")
    return max((str(path) for path in paths), key=lambda path: [len(path), path], default=None)


def version_of(python: str) -> str:
    """Ask an interpreter for its version, as 3.10.13."""
    code = "import platform; print(platform.python_version())"
    return process.output([python, "-c", code], timeout=30).strip()


def default_prefix(wanted: Selection) -> Path:
    """Where the environment goes unless it is said."""
    short = ".".join(wanted.version.split(".")[:2])
    return env_place.place(wanted.stack, wanted.engine, wanted.trainer, short)


def make(
    wanted: Selection, python: str, prefix: Path, *, wheelhouse: Path | None = None, find_links: Path | None = None
) -> str:
    """Make the environment where it is not there already; say what was done."""
    plan = env_plan.make(wanted, wheelhouse=wheelhouse)
    digest = plan.digest(f"{wanted.version} {wanted.engine} {wanted.trainer}")
    with locked(prefix.with_name(f".{prefix.name}.lock"), what=f"the environment {prefix}"):
        _sweep(prefix)
        if is_current(prefix, digest):
            return _said("is there already", prefix, plan, wanted)
        _refuse_foreign(prefix)
        with files.replacing(prefix) as work:
            install(plan, python, work, find_links=find_links)
            files.write(work / MARK, json.dumps(_mark(digest, wanted, work), indent=1, sort_keys=True) + "\n")
    return _said("made", prefix, plan, wanted)


def _said(what: str, prefix: Path, plan: Plan, wanted: Selection) -> str:
    lines = [f"{prefix}: {what}, {len(plan.pins)} packages of the lock, {len(plan.extras)} wheels beside it"]
    builds = {name: choices.command(wanted.stack, wanted.engine, name) for name in plan.missing}
    lines += [f"  no wheel of {name} yet: {command}, then this again" for name, command in builds.items()]
    return "\n".join([*lines, f"  . {prefix}/bin/activate"])


def _mark(digest: str, wanted: Selection, work: Path) -> dict[str, object]:
    return {
        "version": 1,
        "digest": digest,
        "stack": wanted.stack.name,
        "engine": wanted.engine,
        "trainer": wanted.trainer,
        "python": wanted.version,
        "installed": installed(work),
    }


def installed(prefix: Path) -> list[str]:
    """Names of the dist-info directories: what an outsider's install or uninstall changes."""
    return sorted(path.name for path in prefix.glob("lib/python3*/site-packages/*.dist-info"))


def is_current(prefix: Path, digest: str) -> bool:
    """Tell whether the environment is there as it was made."""
    try:
        mark = json.loads((prefix / MARK).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return False
    same = isinstance(mark, dict) and mark.get("digest") == digest
    return same and (prefix / "bin" / "python").exists() and mark.get("installed") == installed(prefix)


def _refuse_foreign(prefix: Path) -> None:
    if prefix.exists() and not (prefix / MARK).exists() and (not prefix.is_dir() or any(prefix.iterdir())):
        raise WorkError(
            f"{prefix} is there and was not made by this command", fix="name another --prefix, or remove it"
        )


def _sweep(prefix: Path) -> None:
    """Remove what killed runs left beside the place, whole or not; the lock is held, so none of it is in use."""
    for path in prefix.parent.glob(f".{prefix.name}.????????"):
        if any((path / name).exists() for name in ("pyvenv.cfg", "bin", "lib")):
            shutil.rmtree(path, ignore_errors=True)


def install(plan: Plan, python: str, work: Path, *, find_links: Path | None = None) -> None:
    """Make a virtual environment in ``work`` and install the plan into it; uv refuses a file of another hash."""
    lock_uv.run(["venv", "--quiet", "--clear", "--relocatable", "--no-project", "--python", python, str(work)])
    target = str(work / "bin" / "python")
    with tempfile.TemporaryDirectory(prefix="env-") as name:
        lock = Path(name) / "requirements.txt"
        lock.write_text(lock_text.render(plan.pins, ["of what applies here"]), encoding="utf-8")
        argv = ["pip", "install", "--quiet", "--no-deps", "--require-hashes", "--python", target]
        argv += ["--only-binary", ":all:", *(word for sdist in plan.sdists for word in ("--no-binary", sdist))]
        argv += ["--build-constraints", str(plan.constraints), "-r", str(lock)]
        argv += ["--no-index", "--find-links", str(find_links)] if find_links else []
        lock_uv.run(argv, timeout=INSTALL_SECONDS)
        if plan.extras:
            wheels = Path(name) / "wheels.txt"
            wheels.write_text(
                "".join(f"{_place(item).as_uri()} --hash=sha256:{item.sha256}\n" for item in plan.extras),
                encoding="utf-8",
            )
            lock_uv.run(
                [
                    "pip",
                    "install",
                    "--quiet",
                    "--no-deps",
                    "--require-hashes",
                    "--offline",
                    "--python",
                    target,
                    "-r",
                    str(wheels),
                ],
                timeout=INSTALL_SECONDS,
            )


def _place(item: Extra) -> Path:
    """Path of the wheel, under its own name; one that is named by URL is downloaded by hash first."""
    if item.path is not None:
        return item.path
    stored = download.fetch([item.url or ""], digest=item.sha256)
    named = stored.parent / f"{item.sha256}.d" / item.file
    named.parent.mkdir(exist_ok=True)
    if not named.exists():
        os.link(stored, named)
    return named


def verdict(wanted: Selection, prefix: Path, stage: str | None) -> int:
    """Let the doctor judge the environment; its output and exit code are passed on."""
    return ask("doctor", wanted, prefix, *(["--stage", stage] if stage else []))


def ask(command: str, wanted: Selection, prefix: Path, *more: str) -> int:
    """Run a command of envcheck on the environment; its output and exit code are passed on."""
    argv = [sys.executable, "-m", "envcheck", command, "--python", str(prefix / "bin" / "python")]
    argv += ["--stack", wanted.stack.name, "--engine", wanted.engine, "--trainer", wanted.trainer, *more]
    try:
        return subprocess.run(argv, check=False, timeout=VERDICT_SECONDS).returncode
    except subprocess.TimeoutExpired as error:
        raise WorkError(f"the doctor did not end within {VERDICT_SECONDS:g} s", fix=process.shown(argv)) from error


if __name__ == "__main__":
    raise SystemExit(cli.run(main))
