"""Run the training: log to a file and the screen, a live line a step, the log explained where it fails, all ended."""

from __future__ import annotations

import contextlib
import json
import math
import os
import shutil
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from envcheck.errors import WorkError
from envcheck.host import Host, LocalHost
from scripts import files, process
from scripts.metrics_console import END, StepLine, step_line
from scripts.ppo_processes import become_subreaper, end_descendants

LOG = "train.log"
RECORD = "run.json"
DAEMONS = ("raylet.err", "gcs_server.err")
EXPLAIN_SECONDS = 120.0
SAMPLE_SECONDS = 2.0
REWARDS = ("critic/rewards/mean", "critic/score/mean")
LIVE = (
    ("reward", ("critic/rewards/mean",), "{:.3f}"),
    ("score", ("critic/score/mean",), "{:.3f}"),
    ("tokens/s/GPU", ("perf/throughput",), "{:,.0f}"),
    ("s", ("perf/time_per_step", "timing_s/step"), "{:.1f}"),
    ("GB allocated", ("perf/max_memory_allocated_gb",), "{:.1f}"),
)


@dataclass
class Watch:
    """What was seen while the run went on."""

    started: float = field(default_factory=time.monotonic)
    steps: list[StepLine] = field(default_factory=list)
    first_step_seconds: float | None = None
    peak_mib: int = 0
    finished: bool = False
    """True where verl has said that it is at its end."""

    def line(self, text: str) -> str | None:
        """Take one line of the log; give the live line where it is the line of a step."""
        self.finished = self.finished or END in text
        step = step_line(text)
        if step is None:
            return None
        if not self.steps:
            self.first_step_seconds = round(time.monotonic() - self.started, 1)
        self.steps.append(step)
        return live(step, self.peak_mib)

    def not_finite(self) -> list[str]:
        """Rewards that are NaN or infinite, with their steps."""
        return [
            f"{name} is {step.metrics[name]} at step {step.step}"
            for step in self.steps
            for name in REWARDS
            if name in step.metrics and not math.isfinite(step.metrics[name])
        ]


def live(step: StepLine, peak_mib: int) -> str:
    """Write the live line: ``step 3 · reward 0.016 · … · peak 34,700 MiB``."""
    parts = [f"step {step.step}"]
    for word, names, form in LIVE:
        value = next((step.metrics[name] for name in names if name in step.metrics), None)
        if value is not None:
            shown = form.format(value)
            parts.append(f"{word} {shown}" if word in {"reward", "score"} else f"{shown} {word}")
    if peak_mib:
        parts.append(f"GPU peak {peak_mib:,} MiB")
    return " · ".join(parts)


def gpu_memory(host: Host, chosen: str | None) -> int | None:
    """Largest memory in use of one of the chosen GPUs in MiB, from nvidia-smi; None where it cannot be read."""
    argv = ["nvidia-smi", "--query-gpu=memory.used", "--format=csv,noheader,nounits"]
    if chosen:
        argv.append(f"--id={chosen}")
    values = [line.strip() for line in host.run(argv, timeout=5).stdout.splitlines()]
    return max((int(value) for value in values if value.isdigit()), default=None)


@contextlib.contextmanager
def sampling(watch: Watch, host: Host, chosen: str | None, every: float = SAMPLE_SECONDS) -> Iterator[None]:
    """Note the peak of the GPU memory in use while the block runs; not at all where nvidia-smi does not answer."""
    stop = threading.Event()
    first = gpu_memory(host, chosen)

    def sample() -> None:
        while not stop.wait(every):
            watch.peak_mib = max(watch.peak_mib, gpu_memory(host, chosen) or 0)

    thread = threading.Thread(target=sample, daemon=True)
    if first is not None:  # 0 is what an idle GPU has in use
        watch.peak_mib = first
        thread.start()
    try:
        yield
    finally:
        stop.set()
        if first is not None:
            thread.join(timeout=10)


@dataclass(frozen=True, kw_only=True)
class Launch:
    """All that a run needs."""

    argv: tuple[str, ...]
    environ: Mapping[str, str]
    place: Path
    stack: str
    timeout: float
    wanted_steps: int | None = None
    quiet: bool = False
    record: Mapping[str, Any] = field(default_factory=dict)
    """What ``run.json`` says beside the result: profile, engine, versions …"""


def run(launch: Launch, host: Host | None = None) -> Watch:
    """Run it to its end; raise WorkError, the log explained, where it fails."""
    watch = Watch()
    log = launch.place / LOG
    become_subreaper()
    temporary = Path(tempfile.mkdtemp(prefix="ec-", dir="/tmp"))  # short: ray's sockets allow 107 bytes
    environ = {**launch.environ, "RAY_TMPDIR": str(temporary)}
    _head(log, launch.argv)
    _write_record(launch, watch, None, ())
    print(f"log: {log}")
    returncode: int | None = None
    fault: str | None = None
    ended: list[int] = []
    try:
        with sampling(watch, host or LocalHost(), launch.environ.get("CUDA_VISIBLE_DEVICES")):
            returncode = _train(launch, environ, log, watch)
    except WorkError as error:  # it could not be started, or did not end in time: its log may say why
        fault = error.what
    finally:
        ended = end_descendants()
        _write_record(launch, watch, returncode, ended)
        fault = fault or failure(watch, returncode, launch.wanted_steps)
        if fault:
            _keep_ray_logs(temporary, launch.place, log)
        shutil.rmtree(temporary, ignore_errors=True)
    if fault:
        raise _explained(fault, log, launch.stack)
    return watch


def _train(launch: Launch, environ: Mapping[str, str], log: Path, watch: Watch) -> int:
    done = process.stream(
        launch.argv,
        timeout=launch.timeout,
        environ=environ,
        cwd=launch.place,
        log=log,
        each_line=_screen(watch, quiet=launch.quiet),
    )
    return done.returncode


def failure(watch: Watch, returncode: int | None, wanted_steps: int | None) -> str | None:
    """Say what is wrong with a run that has ended; None where nothing is."""
    if returncode is None:
        return "the run was stopped"
    if returncode:
        hint = " (signal 9: nearly always the kernel's out-of-memory killer)" if returncode in {-9, 137} else ""
        return f"the run ended with exit code {returncode}{hint}"
    if not watch.steps:
        return "the run ended with exit code 0, but logged no step"
    least = (wanted_steps or 0) - watch.finished  # verl up to 0.2.0.post2 ends, and says so, before the last step
    if watch.steps[-1].step < least:
        return f"the run ended after step {watch.steps[-1].step} of {wanted_steps}"
    if wrong := watch.not_finite():
        return f"the run is not healthy: {'; '.join(wrong[:3])}"
    return None


def _head(log: Path, argv: Sequence[str]) -> None:
    """Begin the log with the command, as one would type it."""
    log.parent.mkdir(parents=True, exist_ok=True)
    with log.open("a", encoding="utf-8") as file:
        file.write(f"# {process.shown(argv)}\n")


def _screen(watch: Watch, *, quiet: bool) -> Callable[[str], None]:
    def show(text: str) -> None:
        found = watch.line(text)
        if found:
            print(f"── {found}", flush=True)
        elif not quiet:
            print(text, flush=True)

    return show


def _write_record(launch: Launch, watch: Watch, returncode: int | None, ended: Sequence[int]) -> None:
    last = watch.steps[-1] if watch.steps else None
    record = {
        "version": 1,
        **launch.record,
        "command": list(launch.argv),
        "returncode": returncode,
        "seconds": round(time.monotonic() - watch.started, 1),
        "seconds_to_first_step": watch.first_step_seconds,
        "steps": len({step.step for step in watch.steps}),
        "last_step": last.step if last else None,
        "last_metrics": {k: v for k, v in sorted(last.metrics.items()) if math.isfinite(v)} if last else {},
        "not_finite": watch.not_finite(),
        "gpu_peak_mib": watch.peak_mib,
        "processes_ended_afterwards": len(ended),
    }
    files.write(launch.place / RECORD, json.dumps(record, indent=2) + "\n")


def _keep_ray_logs(temporary: Path, place: Path, log: Path) -> None:
    """Copy ray's own logs beside the run's; what its daemons died of ends the run's log, to be explained with it."""
    for logs in temporary.glob("ray/session_2*/logs"):
        with contextlib.suppress(OSError, shutil.Error):
            shutil.copytree(logs, place / "ray-logs", dirs_exist_ok=True)
    with log.open("a", encoding="utf-8") as file:
        for name in DAEMONS:
            with contextlib.suppress(OSError):
                said = (place / "ray-logs" / name).read_text(encoding="utf-8", errors="replace").splitlines()
                file.writelines(f"{line}\n" for line in ([f"# ray-logs/{name}", *said[-20:]] if said else []))


def _explained(fault: str, log: Path, stack: str) -> WorkError:
    argv = [sys.executable, "-m", "envcheck", "explain", str(log), "--stack", stack]
    try:
        done = subprocess.run(
            argv, capture_output=True, text=True, timeout=EXPLAIN_SECONDS, check=False, env=dict(os.environ)
        )
        cause = done.stdout.strip() or done.stderr.strip() or "no known cause was found in it"
    except (OSError, subprocess.TimeoutExpired) as error:
        cause = f"it could not be explained: {error}"
    return WorkError(f"{fault}\n\n{cause}\n", fix=f"the whole log: {log}")
