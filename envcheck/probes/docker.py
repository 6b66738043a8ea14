"""The Docker engine: its version, runtimes and cgroup driver, and the NVIDIA container toolkit beside it."""

from __future__ import annotations

import re
from collections.abc import Callable

from envcheck.codec import Unknown
from envcheck.facts import Docker, Text
from envcheck.host import Completed, Host, Pending
from envcheck.record import dataclass

SOCKETS = ("/var/run/docker.sock", "/run/docker.sock")
REQUEST = b"GET /info HTTP/1.0\r\nHost: docker\r\n\r\n"
PLUGINS = ("/usr/local/lib/docker", "/usr/lib/docker", "/usr/libexec/docker")


@dataclass(frozen=True, kw_only=True)
class Started:
    """The client, and the engine's answer, which is waited for by calling it; None: there is no engine to ask."""

    client: str | None
    answer: Callable[[], dict[str, object] | Unknown] | None
    nvidia_ctk: Pending | None


def start(host: Host) -> Started | None:
    """Ask the engine; None where neither a client nor a socket is there. The socket is asked: a client takes 50 ms."""
    client = host.which("docker")
    answer = ask(host, client)
    if client is None and answer is None:
        return None
    ctk = host.which("nvidia-ctk")
    return Started(client=client, answer=answer, nvidia_ctk=host.start([ctk, "--version"]) if ctk else None)


def finish(host: Host, started: Started | None) -> Docker | None:
    """Read what the engine answered."""
    if started is None:
        return None
    engine = started.answer() if started.answer else Unknown(f"no engine: {SOCKETS[0]} does not exist")
    runtimes = {} if isinstance(engine, Unknown) else engine.get("Runtimes")
    return Docker(
        engine=_value(engine, "ServerVersion"),
        runtimes=tuple(sorted(runtimes)) if isinstance(runtimes, dict) else (),
        cgroup_driver=_value(engine, "CgroupDriver"),
        snap=(started.client or "").startswith("/snap/") or host.exists("/snap/bin/docker"),
        nvidia_ctk=parse_ctk(started.nvidia_ctk.result()) if started.nvidia_ctk else None,
        buildx=buildx(host),
        cdi=tuple(host.glob("/etc/cdi/nvidia*") + host.glob("/var/run/cdi/nvidia*")),
    )


def ask(host: Host, client: str | None) -> Callable[[], dict[str, object] | Unknown] | None:
    """Ask the engine that DOCKER_HOST names through the client, else the one at the usual socket; None: no engine."""
    remote = host.environ.get("DOCKER_HOST", "")
    if remote and client and not remote.startswith("unix://"):
        pending = host.start([client, "info", "--format", "{{json .}}"], timeout=8)
        return lambda: _of_client(pending.result())
    for path in (remote.removeprefix("unix://"), *SOCKETS):
        if path and host.exists(path):
            return _of_socket(host, path)
    return None


def _of_client(done: Completed) -> dict[str, object] | Unknown:
    return parse(done.stdout) if done.ok else Unknown(f"docker info: {done.why()}")


def _of_socket(host: Host, path: str) -> Callable[[], dict[str, object] | Unknown]:
    def failed(error: OSError) -> Unknown:
        return Unknown(f"{path}: {error.strerror or error}")

    try:
        wait = host.exchange(path, REQUEST, timeout=5)
    except OSError as error:
        fault = failed(error)
        return lambda: fault

    def answer() -> dict[str, object] | Unknown:
        try:
            return parse(wait().decode(errors="replace").partition("\r\n\r\n")[2])
        except OSError as error:
            return failed(error)

    return answer


def parse(text: str) -> dict[str, object] | Unknown:
    """Read ``{"ServerVersion": "26.1.5", "CgroupDriver": "systemd", "Runtimes": {"runc": {…}}, …}``."""
    import json

    try:
        said = json.loads(text)
    except ValueError:
        return Unknown(f"the engine answered {text.strip()[:60]!r}")
    if not isinstance(said, dict):
        return Unknown("the engine answered no object")
    errors = said.get("ServerErrors")
    return Unknown(f"docker info: {errors[0]}") if isinstance(errors, list) and errors else said


def _value(said: dict[str, object] | Unknown, key: str) -> Text:
    if isinstance(said, Unknown):
        return said
    return str(said[key]) if said.get(key) else Unknown(f"the engine says no {key}")


def parse_ctk(done: Completed) -> Text:
    """Read ``NVIDIA Container Toolkit CLI version 1.14.6``."""
    found = re.search(r"version (\d+\.\d+\.\d+)", done.stdout)
    return found[1] if found else Unknown(f"nvidia-ctk --version: {done.why()}")


def buildx(host: Host) -> str | Unknown | None:
    """Tell of the buildx plugin; None: not installed. Its version is not asked: that takes 20 ms."""
    places = (f"{host.environ.get('HOME', '/root')}/.docker", *PLUGINS)
    program = next((path for place in places if host.exists(path := f"{place}/cli-plugins/docker-buildx")), None)
    return Unknown(f"its version was not asked for: {program}") if program else None
