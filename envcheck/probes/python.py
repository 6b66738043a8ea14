"""The target interpreter: the one that was named, else the one that runs this program (on this machine)."""

from __future__ import annotations

import os
from collections.abc import Callable

from envcheck.codec import Unknown
from envcheck.errors import HostError
from envcheck.facts import NO_HEADERS, Python
from envcheck.host import Completed, Host, LocalHost, Pending
from envcheck.record import dataclass

TIMEOUT_SECONDS = 15.0
SHADOWABLE = (
    "apex", "deepspeed", "flash_attn", "flashinfer", "megatron", "numpy", "ray", "sgl_kernel", "sglang", "tensordict",
    "torch", "transformer_engine", "transformers", "triton", "verl", "vllm", "xformers",
)  # fmt: skip
"""Import names whose packages a folder of the same name hides."""


@dataclass(frozen=True, kw_only=True)
class Target:
    """What the interpreter said of itself."""

    executable: str
    version: str
    implementation: str
    abi: str
    prefix: str
    base_prefix: str
    venv: bool
    include: str
    sites: tuple[str, ...]


def resolve(host: Host, named: str | None) -> Target | Unknown:
    """Find the target interpreter; raise HostError where the one that was named is none."""
    return start(host, named)()


def start(host: Host, named: str | None) -> Callable[[], Target | Unknown]:
    """Begin to find the target interpreter; raise HostError, here or at the end, where the one named is none."""
    if named is None and isinstance(host, LocalHost):
        from envcheck.probes.interpreter import describe

        return lambda: _target(describe())
    executable = _executable(host, named) if named else _default(host)
    if executable is None:
        return lambda: Unknown("there is no python3 or python on PATH")
    asked = ask(host, executable)

    def finish() -> Target | Unknown:
        found = parse(asked.result(), executable)
        if isinstance(found, Unknown) and named:
            raise HostError(f"--python {named}: {found.unknown}", fix="name an interpreter or a virtual environment")
        return found

    return finish


def _executable(host: Host, named: str) -> str:
    """Path of the interpreter that was named by its path, its environment's directory or its name on PATH."""
    place = os.path.expanduser(named)
    if "/" not in place and not host.exists(place):
        found = host.which(place)
        if found:
            return found
    path = (place if place.startswith("/") else os.path.join(host.realpath("."), place)).rstrip("/")
    for candidate in (f"{path}/bin/python", f"{path}/bin/python3"):
        if host.exists(candidate):
            return candidate
    if not host.exists(path):
        raise HostError(f"--python {named}: there is no such file or directory", fix="name one that exists")
    if host.listdir(path):
        raise HostError(f"--python {named}: the directory holds no bin/python", fix="name a virtual environment")
    return path


def _default(host: Host) -> str | None:
    """On another host: the active environment's interpreter, then python3 and python on PATH, then the usual places."""
    environ = host.environ
    places = [f"{environ[name]}/bin/python" for name in ("VIRTUAL_ENV", "CONDA_PREFIX") if environ.get(name)]
    found = [place for place in places if host.exists(place)]
    usual = ["/usr/local/bin/python3", "/opt/conda/bin/python", "/usr/bin/python3"]
    return next(
        (path for path in [*found, host.which("python3"), host.which("python")] if path),
        next((path for path in usual if host.exists(path)), None),
    )


CODE = "describe()"
"""Of interpreter.py: a program that repeats it in its complaint took the code for the name of a file."""


def ask(host: Host, executable: str) -> Pending:
    """Run interpreter.py there, once, without site and without imports from its packages."""
    from envcheck import data

    source = data.read("probes/interpreter.py")
    return host.start([executable, "-I", "-S", "-c", source], timeout=TIMEOUT_SECONDS)


def parse(done: Completed, executable: str) -> Target | Unknown:
    """Read the JSON line ``{"executable": "/usr/bin/python3", "version": "3.10.12", …}`` at the end of the output."""
    import json

    if not done.ok:
        why = "it does not run Python" if CODE in done.why() else done.why()
        return Unknown(f"{executable} could not say what it is: {why}")
    lines = done.stdout.strip().splitlines() or [""]
    try:
        return _target(json.loads(lines[-1]))
    except (ValueError, KeyError, TypeError, AttributeError):
        return Unknown(f"{executable} is not a Python interpreter: it answered {lines[-1][:80]!r}")


def _target(said: dict[str, object]) -> Target:
    texts = {name: str(said[name]) for name in Target.__annotations__ if name not in {"venv", "sites"}}
    sites = said["sites"]
    if not isinstance(sites, list):
        msg = "sites is not a list"
        raise TypeError(msg)
    return Target(**texts, venv=bool(said["venv"]), sites=tuple(map(str, sites)))


def probe(host: Host, target: Target | Unknown, installed: dict[str, str]) -> Python | Unknown:
    """Say what the target is; ``installed`` maps import names to the directories that hold them."""
    if isinstance(target, Unknown):
        return target
    conda = host.exists(f"{target.prefix}/conda-meta")
    has_headers = host.exists(f"{target.include}/Python.h")
    return Python(
        executable=target.executable,
        version=target.version,
        abi=target.abi,
        implementation=target.implementation,
        environment="venv" if target.venv else "conda" if conda else "system",
        prefix=target.prefix,
        conda_prefix=target.prefix if conda else host.environ.get("CONDA_PREFIX") or None,
        include_dir=target.include if has_headers else Unknown(f"{NO_HEADERS} {target.include}"),
        site_packages=sites(host, target),
        shadowed=shadowed(host, installed),
        paths=python_path(host),
    )


def sites(host: Host, target: Target) -> tuple[str, ...]:
    """Site directories that exist, each once, also where lib64 is a link to lib."""
    found: dict[str, str] = {}
    for path in target.sites:
        if host.exists(path):
            found.setdefault(host.realpath(path), path)
    return tuple(found.values())


def python_path(host: Host) -> tuple[str, ...]:
    """Entries of PYTHONPATH; an empty one stands for the working directory."""
    text = host.environ.get("PYTHONPATH", "")
    return tuple(part or "." for part in text.split(":")) if text else ()


def shadowed(host: Host, installed: dict[str, str]) -> tuple[str, ...]:
    """List what a folder of the working directory or of PYTHONPATH hides, as ``ray=/home/me/ray``."""
    found: dict[str, str] = {}
    for place in (host.realpath("."), *python_path(host)):
        names = set(host.listdir(place))
        for name in SHADOWABLE:
            path = _module(host, place, name, names)
            if path and name in installed and host.realpath(installed[name]) != host.realpath(path):
                found.setdefault(name, path)
    return tuple(f"{name}={path}" for name, path in found.items())


def _module(host: Host, place: str, name: str, names: set[str]) -> str | None:
    if name in names and host.exists(f"{place}/{name}/__init__.py"):
        return f"{place}/{name}"
    return f"{place}/{name}.py" if f"{name}.py" in names else None
