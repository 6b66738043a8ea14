"""What must hold before a run is started: the doctor, GPUs, memory, disk, model, data, ports, the logger's key."""

from __future__ import annotations

import contextlib
import json
import netrc
import os
import re
import socket
import subprocess
import sys
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from envcheck.codec import Unknown, Where, decode
from envcheck.errors import WorkError
from envcheck.facts import Facts
from envcheck.host import Host
from envcheck.limits import satisfies
from scripts.ppo_compose import Composed
from scripts.ppo_profiles import Needs, Profile

DOCTOR_SECONDS = 300.0
DASHBOARD_PORT = 8265
MEMORY_TOLERANCE = 0.97
"""A GPU sold with 80 GB reports 79.1 GiB less what the driver keeps."""
BUSY_SHARE = 0.05
WEIGHTS = ("*.safetensors", "*.bin", "*.pt")


@dataclass(frozen=True, kw_only=True)
class Problem:
    """One thing that stands in the way of the run; a warning does not stop it."""

    text: str
    fix: str = ""
    warning: bool = False

    def __str__(self) -> str:
        """Write it as it is shown."""
        return f"{self.text}\n      → {self.fix}" if self.fix else self.text


@dataclass(frozen=True, kw_only=True)
class Diagnosis:
    """What the doctor said: its exit code, its errors, the facts it read."""

    exit_code: int
    problems: tuple[Problem, ...]
    facts: Facts


def doctor(python: str, stack: str, engine: str, trainer: str, environ: Mapping[str, str] | None = None) -> Diagnosis:
    """Run ``envcheck doctor --stage train`` for the target interpreter, in the variables of the run where given."""
    argv = [sys.executable, "-m", "envcheck", "doctor", "--stage", "train", "--python", python, "--stack", stack]
    argv += ["--engine", engine, "--trainer", trainer, "--format", "json"]
    try:
        done = subprocess.run(
            argv,
            capture_output=True,
            text=True,
            stdin=subprocess.DEVNULL,
            timeout=DOCTOR_SECONDS,
            env=None if environ is None else dict(environ),
            check=False,
        )
    except subprocess.TimeoutExpired as error:
        raise WorkError(f"the doctor did not end within {DOCTOR_SECONDS:g} s", fix="--skip-doctor") from error
    try:
        return diagnosis(json.loads(done.stdout), done.returncode)
    except ValueError as error:
        end = "\n".join((done.stderr or done.stdout).strip().splitlines()[-5:])
        raise WorkError(f"the doctor gave no verdict (exit code {done.returncode}):\n{end}") from error


def diagnosis(document: Mapping[str, Any], exit_code: int) -> Diagnosis:
    """Read the doctor's JSON: its errors, as problems, and its facts."""
    problems = []
    for outcome in document["outcomes"]:
        if outcome["outcome"] in {"error", "crashed", "unknown"}:
            fix = "; ".join(command for item in outcome.get("fix", []) for command in item.get("commands", []))
            text = f"{outcome['rule']}: {outcome['summary']}"
            problems.append(Problem(text=text, fix=fix, warning=outcome["outcome"] != "error"))
    facts: Facts = decode(Facts, document["facts"], Where(source="the doctor's facts"))
    return Diagnosis(exit_code=exit_code, problems=tuple(problems), facts=facts)


def visible(facts: Facts, environ: Mapping[str, str]) -> int:
    """Count the GPUs that a run started now would see."""
    if isinstance(facts.gpus, Unknown):
        return 0
    chosen = environ.get("CUDA_VISIBLE_DEVICES")
    if chosen is None:
        return len(facts.gpus)
    entries = [entry.strip() for entry in chosen.split(",") if entry.strip()]
    return min(len(entries), len(facts.gpus)) if "-1" not in entries else 0


def gpu_problems(facts: Facts, config: Composed, needs: Needs, environ: Mapping[str, str]) -> Iterator[Problem]:
    """Say which GPUs are missing or too small."""
    wanted = int(config.get("trainer.n_gpus_per_node", 0))
    have = visible(facts, environ)
    limited = f" (CUDA_VISIBLE_DEVICES={environ['CUDA_VISIBLE_DEVICES']})" if "CUDA_VISIBLE_DEVICES" in environ else ""
    if have < wanted:
        smaller = (
            "take --profile one-gpu, or set trainer.n_gpus_per_node and tensor_model_parallel_size to what is there"
        )
        fix = smaller if have else "run it on a host with GPUs; nvidia-smi lists them"
        count = f"{wanted} GPU{'s' * (wanted > 1)}"
        yield Problem(text=f"the run needs {count}, this host shows {have}{limited}", fix=fix)
    for gpu in () if isinstance(facts.gpus, Unknown) else facts.gpus[:wanted]:
        size = gpu.memory_bytes
        if not isinstance(size, Unknown) and size < needs.gpu_memory_bytes * MEMORY_TOLERANCE:
            text = f"{gpu.name} has {_gb(size)}, the run needs {_gb(needs.gpu_memory_bytes)}: {needs.reason}"
            yield Problem(text=text, fix="take a smaller model or another profile")


def busy_problems(host: Host) -> Iterator[Problem]:
    """Warn of GPUs that other processes are using."""
    argv = ["nvidia-smi", "--query-gpu=index,memory.used,memory.total", "--format=csv,noheader,nounits"]
    for line in host.run(argv).stdout.splitlines():
        found = re.fullmatch(r"(\d+), (\d+), (\d+)", line.strip())
        if found and int(found[2]) > BUSY_SHARE * int(found[3]):
            text = f"GPU {found[1]}: {found[2]} of {found[3]} MiB are in use already"
            yield Problem(text=text, fix="nvidia-smi names the processes", warning=True)


def memory_problems(facts: Facts, needs: Needs) -> Iterator[Problem]:
    """Say where the host's memory (or the limit of its cgroup) is too small."""
    if isinstance(facts.resources, Unknown):
        return
    sizes = [facts.resources.memory_bytes, facts.resources.memory_limit_bytes]
    known = [size for size in sizes if isinstance(size, int)]
    if known and min(known) < needs.host_memory_bytes * MEMORY_TOLERANCE:
        text = f"the host has {_gb(min(known))} of memory, the run needs {_gb(needs.host_memory_bytes)}: {needs.reason}"
        yield Problem(text=text, fix="raise the container's limit, or take a smaller model or another profile")


def disk_problems(host: Host, place: Path, config: Composed, needs: Needs) -> Iterator[Problem]:
    """Say where the disk has no room for the logs, or for two checkpoints where they are saved."""
    saves = int(config.get("trainer.save_freq", -1)) > 0
    wanted = needs.disk_bytes + (2 * needs.checkpoint_bytes if saves else 0)
    free, _ = host.free(str(place))
    if not host.writable(str(place)):
        yield Problem(text=f"{place} is not writable", fix="name another folder with --out")
    if free < wanted:
        why = f"two checkpoints of {_gb(needs.checkpoint_bytes)} each, and logs" if saves else "logs and caches"
        yield Problem(text=f"{place} has {_gb(free)} free, the run needs {_gb(wanted)}: {why}", fix="--out FOLDER")


def model_problems(model: str, environ: Mapping[str, str]) -> Iterator[Problem]:
    """Say where the model is not on the disk and cannot be fetched either."""
    path = Path(model).expanduser()
    if path.is_absolute() or model.startswith((".", "~")):
        if not (path / "config.json").is_file():
            yield Problem(text=f"{path} holds no model (no config.json)", fix="name the folder with --model")
        elif not any(True for pattern in WEIGHTS for _ in path.glob(pattern)):
            yield Problem(text=f"{path} holds no weights ({', '.join(WEIGHTS)})", fix="fetch them")
        return
    offline = environ.get("HF_HUB_OFFLINE", "").upper() in {"1", "ON", "YES", "TRUE"}
    if not cached(model, environ):
        fix = f"huggingface-cli download {model}; or --model FOLDER"
        if offline:
            yield Problem(text=f"{model} is not in the hub's cache, and HF_HUB_OFFLINE is set", fix=fix)
        else:
            yield Problem(text=f"{model} is not in the hub's cache: the run will download it", fix=fix, warning=True)


def cached(model: str, environ: Mapping[str, str]) -> bool:
    """Tell whether a whole snapshot (with its config) of a model lies in the hub's cache."""
    home = environ.get("HF_HOME") or os.path.join(environ.get("XDG_CACHE_HOME") or "~/.cache", "huggingface")
    hub = Path(environ.get("HF_HUB_CACHE") or os.path.join(home, "hub")).expanduser()
    return any((hub / f"models--{model.replace('/', '--')}" / "snapshots").glob("*/config.json"))


def port_problems(environ: Mapping[str, str], proc: Path = Path("/proc")) -> Iterator[Problem]:
    """Say which ports that the run was told to take are in use, and by which process."""
    named = {name: environ[name] for name in ("MASTER_PORT", "RAY_PORT") if environ.get(name, "").isdigit()}
    for name, text in named.items():
        if in_use(int(text)):
            yield Problem(
                text=f"port {text} ({name}) is in use{owner(int(text), proc)}", fix=f"unset {name}, or end that process"
            )
    if in_use(DASHBOARD_PORT):
        text = f"port {DASHBOARD_PORT} is in use{owner(DASHBOARD_PORT, proc)}: ray's dashboard takes the next free one"
        yield Problem(text=text, fix="another ray cluster may be running here", warning=True)


def in_use(port: int) -> bool:
    """Tell whether something listens on a TCP port of this host."""
    with socket.socket(socket.AF_INET, socket.SOCK_STREAM) as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind(("", port))
        except OSError:
            return True
    return False


def owner(port: int, proc: Path) -> str:
    """Name the process that listens: `` by 71 (python3)``; empty where it belongs to somebody else."""
    sockets: set[str] = set()
    for table in ("tcp", "tcp6"):
        with contextlib.suppress(OSError):
            for line in (proc / "net" / table).read_text().splitlines()[1:]:
                parts = line.split()
                if int(parts[1].rpartition(":")[2], 16) == port and parts[3] == "0A":
                    sockets.add(f"socket:[{parts[9]}]")
    for process in sorted(proc.glob("[0-9]*")):
        with contextlib.suppress(OSError):
            if any(os.readlink(link) in sockets for link in (process / "fd").iterdir()):
                return f" by {process.name} ({(process / 'comm').read_text().strip()})"
    return ""


def wandb_key(environ: Mapping[str, str]) -> bool:
    """Tell whether wandb can log in, or has been told not to."""
    if environ.get("WANDB_API_KEY") or environ.get("WANDB_MODE") in {"offline", "disabled", "dryrun"}:
        return True
    with contextlib.suppress(OSError, netrc.NetrcParseError):
        return netrc.netrc().authenticators("api.wandb.ai") is not None
    return False


def refusals(profile: Profile, engine: str, versions: Mapping[str, str]) -> Iterator[Problem]:
    """Say why the installed verl and engine cannot run the profile at all."""
    verl, version = versions["verl"], versions.get(engine, "")
    if not version:
        fix = "name the environment that has it with --python, or the engine that is here with --engine"
        yield Problem(text=f"{engine} is not installed in this environment", fix=fix)
        return
    for row in profile.refuses:
        if row.engine != engine or not satisfies(verl, row.verl):
            continue
        if not row.engine_version or satisfies(version, row.engine_version):
            yield Problem(
                text=f"verl {verl} cannot run {profile.name} with {engine} {version}: {row.why}", fix=row.source
            )


def _gb(size: float) -> str:
    return f"{size / 1e9:.1f} GB"
