"""The Docker engine: its version, runtimes and cgroup driver, and the NVIDIA container toolkit beside it."""

from __future__ import annotations

import re

from envcheck.codec import Unknown
from envcheck.facts import Docker, Text
from envcheck.host import Host

SOCKETS = ("/var/run/docker.sock", "/run/docker.sock")


def probe(host: Host) -> Docker | None:
    """Read the engine; None where neither a client nor a socket is there. Without a socket no program is started."""
    client = host.which("docker")
    remote = host.environ.get("DOCKER_HOST")
    reachable = bool(remote) or any(host.exists(path) for path in SOCKETS)
    if client is None and not reachable:
        return None
    silent = Unknown("no engine: /var/run/docker.sock does not exist" if not reachable else "there is no docker client")
    said = ask(host, client) if client and reachable else silent
    values = {} if isinstance(said, Unknown) else said
    return Docker(
        engine=_value(said, "ServerVersion"),
        runtimes=tuple(sorted(runtimes)) if isinstance(runtimes := values.get("Runtimes"), dict) else (),
        cgroup_driver=_value(said, "CgroupDriver"),
        snap=(client or "").startswith("/snap/") or host.exists("/snap/bin/docker"),
        nvidia_ctk=nvidia_ctk(host),
        buildx=buildx(host),
        cdi=tuple(host.glob("/etc/cdi/nvidia*") + host.glob("/var/run/cdi/nvidia*")),
    )


def ask(host: Host, client: str) -> dict[str, object] | Unknown:
    """Ask the engine once; its answer is one JSON object."""
    done = host.run([client, "info", "--format", "{{json .}}"], timeout=8)
    return parse(done.stdout) if done.ok else Unknown(f"docker info: {done.why()}")


def parse(text: str) -> dict[str, object] | Unknown:
    """Read ``{"ServerVersion": "26.1.5", "CgroupDriver": "systemd", "Runtimes": {"runc": {…}}, …}``."""
    import json

    try:
        said = json.loads(text)
    except ValueError:
        return Unknown(f"docker info answered {text.strip()[:60]!r}")
    if not isinstance(said, dict):
        return Unknown("docker info answered no object")
    errors = said.get("ServerErrors")
    return Unknown(f"docker info: {errors[0]}") if isinstance(errors, list) and errors else said


def _value(said: dict[str, object] | Unknown, key: str) -> Text:
    if isinstance(said, Unknown):
        return said
    return str(said[key]) if said.get(key) else Unknown(f"docker info has no {key}")


def nvidia_ctk(host: Host) -> str | Unknown | None:
    """Version of the NVIDIA container toolkit, ``NVIDIA Container Toolkit CLI version 1.14.6``; None: not installed."""
    program = host.which("nvidia-ctk")
    if program is None:
        return None
    done = host.run([program, "--version"], timeout=5)
    found = re.search(r"version (\d+\.\d+\.\d+)", done.stdout)
    return found[1] if found else Unknown(f"nvidia-ctk --version: {done.why()}")


def buildx(host: Host) -> str | Unknown | None:
    """Version of the buildx plugin, ``github.com/docker/buildx v0.13.1 788433953af1``; None: not installed."""
    home = host.environ.get("HOME", "/root")
    places = (f"{home}/.docker", "/usr/local/lib/docker", "/usr/lib/docker", "/usr/libexec/docker")
    program = next(
        (f"{p}/cli-plugins/docker-buildx" for p in places if host.exists(f"{p}/cli-plugins/docker-buildx")), None
    )
    if program is None:
        return None
    done = host.run([program, "version"], timeout=5)
    found = re.search(r"\bv?(\d+\.\d+\.\d+\S*)", done.stdout)
    return found[1] if found else Unknown(f"docker-buildx version: {done.why()}")
