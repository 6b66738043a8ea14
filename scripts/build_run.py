"""Run one build: a clean tree, the recipe's environment, pip's own wheel command, its log, its failures explained."""

from __future__ import annotations

import contextlib
import os
import re
import shutil
import subprocess
import time
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import datetime, timezone
from pathlib import Path

from envcheck.errors import WorkError
from scripts import build_cache, build_context, build_memory, build_tools, process
from scripts.build_context import Context
from scripts.build_memory import Meter
from scripts.build_progress import View
from scripts.cache import cache
from scripts.files import write

CANONICAL = Path("/tmp/envcheck-build")  # noqa: S108  # a name for a mount of its own, nothing is written there
BUILD_SECONDS = 24 * 3600
MARK = ".envcheck-build"
LAST_LINES = 15
LINE_WIDTH = 300
COMMAND_FAILED = re.compile(r"\s*error: command '[^'\n]+' (failed with exit code|terminated by signal) ")
DROPPED = [
    "CPATH",
    "C_INCLUDE_PATH",
    "CPLUS_INCLUDE_PATH",
    "LIBRARY_PATH",
    "LD_PRELOAD",
    "NVCC_APPEND_FLAGS",
    "NVCC_PREPEND_FLAGS",
    "CFLAGS",
    "CXXFLAGS",
    "CPPFLAGS",
    "LDFLAGS",
    "PYTHONPATH",
    "PYTHONHOME",
    "MAKEFLAGS",
    "CMAKE_GENERATOR",
    "CMAKE_PREFIX_PATH",
    "CUDA_PATH",
    "VIRTUAL_ENV",
    "CONDA_PREFIX",
]


@dataclass(frozen=True, kw_only=True)
class Made:
    """A wheel as the build left it, with what the build took."""

    wheel: Path
    seconds: float
    peak_bytes: int
    peak_of_one_bytes: int
    jobs: int
    log: Path
    environment: dict[str, str]
    canonical: bool
    hits: int
    misses: int


class KilledError(WorkError):
    """The kernel ended a compiler: the memory was used up."""


def epoch_of(context: Context) -> int:
    """Give SOURCE_DATE_EPOCH: the cut-off date of the stack's lock."""
    day = datetime.strptime(context.stack.lock.cutoff, "%Y-%m-%d").replace(tzinfo=timezone.utc)
    return int(day.timestamp())


def tree_of(name: str, root: Path | None = None) -> Path:
    """Path of the tree that a component is built in."""
    return (root or cache("builds")) / name


def native(context: Context) -> bool:
    """Tell whether the build starts a compiler."""
    return context.recipe.compiles or context.recipe.cxx


def prepare_tree(context: Context, key: str, tree: Path, source: Path) -> bool:
    """Copy the source to the tree; keep what an interrupted build of the same key left. True where it goes on."""
    mark = tree / MARK
    # Its makefiles name the interpreter's paths, which the key leaves out.
    what = f"{key} {context.python}\n"
    if mark.exists() and mark.read_text(encoding="utf-8") == what:
        return True
    shutil.rmtree(tree, ignore_errors=True)
    shutil.copytree(source, tree, symlinks=True)
    epoch = epoch_of(context)
    for path in tree.rglob("*"):
        if not path.is_symlink():
            os.utime(path, (epoch, epoch))
    write(mark, what)
    return False


def can_mount() -> bool:
    """Tell whether this user may have a mount namespace of its own (containers and some systems refuse it)."""
    argv = ["unshare", "--user", "--map-root-user", "--mount", "true"]
    try:
        return subprocess.run(argv, check=False, capture_output=True, timeout=20).returncode == 0
    except (OSError, subprocess.TimeoutExpired):
        return False


def at_canonical_place(argv: list[str], tree: Path) -> list[str]:
    """Give the command that runs ``argv`` with the tree seen at one fixed path.

    nvcc hashes the working directory into the names of internal symbols, so that two places give two binaries.
    """
    place = CANONICAL / tree.name
    place.mkdir(parents=True, exist_ok=True)
    script = 'mount --bind "$1" "$2" && cd "$2" && shift 2 && exec "$@"'
    head = ["unshare", "--user", "--map-root-user", "--mount", "sh", "-c", script, "sh"]
    return [*head, str(tree), str(place), *argv]


def maps(context: Context, overlay: Path, seen: Path) -> list[str]:
    """List the options that keep this host's paths out of the binaries; headers of build tools name themselves too."""
    pairs = [(str(seen), "."), (str(overlay), "build-tools")]
    pairs += [(str(path), "site-packages") for path in build_context.site_packages(context)]
    headers = getattr(context.facts.python, "include_dir", None)
    if isinstance(headers, str):
        pairs.append((headers, "python"))
    if context.choices.cuda_home:
        pairs.append((context.choices.cuda_home, "cuda"))
    return [f"-ffile-prefix-map={old}={new}" for old, new in pairs]


def environment(
    context: Context, overlay: Path, seen: Path, cached: build_cache.CompilerCache | None
) -> dict[str, str]:
    """Give everything that the build sets beside the host's own environment."""
    recipe = build_context.environment(context)
    home = context.choices.cuda_home
    path = [str(overlay / "bin"), *([f"{home}/bin"] if home else []), os.environ.get("PATH", os.defpath)]
    flags = maps(context, overlay, seen)
    out = {
        **recipe,
        "PATH": os.pathsep.join(path),
        "PYTHONPATH": str(overlay),
        "PYTHONHASHSEED": "0",
        "PYTHONDONTWRITEBYTECODE": "1",
        "PYTHONUNBUFFERED": "1",
        "SOURCE_DATE_EPOCH": str(epoch_of(context)),
        "LC_ALL": "C.UTF-8",
        "TZ": "UTC",
        "PIP_NO_INDEX": "1",
        "PIP_ROOT_USER_ACTION": "ignore",
        "PIP_DISABLE_PIP_VERSION_CHECK": "1",
    }
    if native(context):
        common = " ".join(["-g0", *flags])
        out |= {"CFLAGS": common, "CXXFLAGS": common, "LDFLAGS": "-Wl,-s -Wl,--build-id=sha1"}
        out["NVCC_APPEND_FLAGS"] = " ".join(f"-Xcompiler {flag}" for flag in flags)
    if cached and native(context):
        wrappers = cache("wrappers", context.component.name)
        out |= build_cache.environment(cached, wrappers, out)
    return out


def command(context: Context, out: Path) -> list[str]:
    """Give the command that builds the wheel from the tree it runs in."""
    options = ["-v", "--no-build-isolation", "--no-deps", "--no-index", "--no-cache-dir"]
    return [context.python, "-m", "pip", "wheel", *options, "--wheel-dir", str(out), "."]


def run(context: Context, *, tree: Path, log: Path) -> Made:
    """Build; when the kernel kills a compiler, say so and try once more with half the jobs."""
    try:
        return _once(context, tree=tree, log=log)
    except KilledError as error:
        if context.jobs == 1:
            raise
        half = max(1, context.jobs // 2)
        print(f"{error.what}\ntrying once more with {half} instead of {context.jobs} jobs", flush=True)
        return _once(context.with_jobs(half), tree=tree, log=log)


def _once(context: Context, *, tree: Path, log: Path) -> Made:
    recipe = context.recipe
    abi = getattr(context.facts.python, "abi", "")
    overlay = build_tools.overlay(context.stack, recipe.requires, python=context.python, abi=str(abi))
    canonical = native(context) and can_mount()
    seen = CANONICAL / tree.name if canonical else tree
    cached = build_cache.find()
    variables = environment(context, overlay, seen, cached)
    environ = {name: value for name, value in os.environ.items() if name not in DROPPED} | variables
    out = tree.with_name(f"{tree.name}.wheels")
    shutil.rmtree(out, ignore_errors=True)
    argv = command(context, out)
    before = build_cache.counts(cached)
    log.parent.mkdir(parents=True, exist_ok=True)
    with log.open("a", encoding="utf-8") as file:
        file.write(f"+ {process.shown(argv)}\n" + "".join(f"+   {name}={value}\n" for name, value in variables.items()))
    began, kills = log.stat().st_size, build_memory.kills()
    started = time.monotonic()
    with Meter() as meter, _view(context, meter) as view:
        done = process.stream(
            at_canonical_place(argv, tree) if canonical else argv,
            timeout=BUILD_SECONDS,
            environ=environ,
            cwd=tree,
            log=log,
            each_line=view.line,
        )
    if done.returncode:
        raise failure(context, done, log, began=began, kills=build_memory.kills() - kills)
    after = build_cache.counts(cached)
    return Made(
        wheel=_only_wheel(out),
        seconds=time.monotonic() - started,
        peak_bytes=meter.peak,
        peak_of_one_bytes=meter.peak_of_one,
        jobs=context.jobs,
        log=log,
        environment=variables,
        canonical=canonical,
        hits=after.hits - before.hits,
        misses=after.misses - before.misses,
    )


@contextlib.contextmanager
def _view(context: Context, meter: Meter) -> Iterator[View]:
    archs = max(1, len(context.choices.archs)) if context.recipe.archs_variable else 1
    planned = context.recipe.cpu_seconds * archs / context.jobs
    title = f"{context.component.name} {context.component.version}"
    with View(title, planned=planned, memory=lambda: meter.now) as view:
        yield view


def _only_wheel(directory: Path) -> Path:
    wheels = sorted(directory.glob("*.whl"))
    if len(wheels) != 1:
        raise WorkError(f"the build left {len(wheels)} wheels in {directory}, one was expected")
    return wheels[0]


def failure(context: Context, done: process.Done, log: Path, *, began: int = 0, kills: int = 0) -> WorkError:
    """Say why a build failed: killed for memory, or the cause that its log names, the last lines and the log's path.

    ``began`` is where this attempt starts in the log, ``kills`` what the kernel killed meanwhile, on the whole host.
    """
    with log.open("rb") as file:
        file.seek(began)
        text = file.read().decode(errors="replace")
    what = f"building {context.component.name} {context.component.version} ended with exit code {done.returncode}"
    cause = _explained(log, began)
    if done.killed or build_memory.says_killed(text) or (kills and not cause):
        gib = context.recipe.memory_per_job_bytes / 2**30
        who = "the kernel killed a compiler" if kills else "a compiler was killed, as the kernel does it,"
        memory = f"{who} for want of memory ({context.jobs} jobs, {gib:.0f} GiB planned for each)"
        less = ", or --jobs 1" if context.jobs > 1 else ""
        return KilledError(f"{what}: {memory}", fix=f"give it more memory{less}; the log is {log}")
    last = "\n".join(f"    {line}" for line in telling(text))
    return WorkError(f"{what}\n{cause}{last}", fix=f"the whole log is {log}")


def telling(text: str) -> list[str]:
    """Give the lines that tell most: from the first object that failed on, else the last ones; long lines cut.

    Of setuptools' own compiling, ``error: command '/usr/bin/g++' failed with exit code 1`` ends what counts.
    """
    lines = text.splitlines()
    first = next((index for index, line in enumerate(lines) if line.lstrip().startswith("FAILED: ")), None)
    if first is None:
        last = next((index for index, line in enumerate(lines, 1) if COMMAND_FAILED.match(line)), len(lines))
        some = lines[max(0, last - LAST_LINES) : last]
    else:
        some = lines[first : first + LAST_LINES]
    return [line if len(line) <= LINE_WIDTH else f"{line[:LINE_WIDTH]} …" for line in some]


def _explained(log: Path, began: int) -> str:
    """Give the cause as ``envcheck explain`` names it; empty where it knows none."""
    from envcheck.explain import explain  # only after a failure

    with log.open("rb") as file:
        file.seek(began)
        matches = explain(file).matches
    first = next((match for match in matches if not match.harmless), None)
    return f"cause: {first.summary} ({first.rule})\n" if first else ""
