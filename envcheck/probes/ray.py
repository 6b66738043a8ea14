"""Ray: the address that a new run would join, and the cluster that runs on this host."""

from __future__ import annotations

import re

from envcheck.codec import Unknown
from envcheck.facts import Flag, Ray
from envcheck.host import Host


def probe(host: Host) -> Ray | None:
    """Read Ray's traces; None where there are none. Processes are only looked through where Ray has left a folder."""
    folder = (host.environ.get("RAY_TMPDIR") or "/tmp").rstrip("/") + "/ray"  # noqa: S108  # read only
    address = host.environ.get("RAY_ADDRESS") or current(host, folder)
    if not address and not host.exists(folder):
        return None
    raylet = find_raylet(host)
    running: Flag = raylet is not None
    session = host.realpath(f"{folder}/session_latest") if host.exists(f"{folder}/session_latest") else None
    return Ray(
        address=address,
        running=running,
        version=_version(host, raylet) if raylet else None,
        python=_python(raylet) if raylet else None,
        session_dir=session,
    )


def current(host: Host, folder: str) -> str | None:
    """Give the address in ``ray_current_cluster``, as ``10.0.0.5:6379``."""
    try:
        return host.read(f"{folder}/ray_current_cluster", 1024).strip() or None
    except OSError:
        return None


def find_raylet(host: Host) -> str | None:
    """Command line of a running raylet."""
    for name in host.listdir("/proc"):
        if not name.isdigit():
            continue
        try:
            if host.read(f"/proc/{name}/comm", 64).strip() == "raylet":
                return host.read(f"/proc/{name}/cmdline", 64 << 10).replace("\0", " ")
        except OSError:
            continue
    return None


def _version(host: Host, command: str) -> str | Unknown:
    """Version by the folder of the raylet, ``…/site-packages/ray/core/src/ray/raylet/raylet``."""
    found = re.match(r"(\S+)/ray/core/src/ray/raylet/raylet\b", command)
    names = host.glob(f"{found[1]}/ray-*.dist-info") if found else []
    if not names:
        return Unknown("the running raylet lies in no site-packages that holds ray's dist-info")
    return names[-1].rpartition("/ray-")[2].removesuffix(".dist-info")


def _python(command: str) -> str | Unknown:
    found = re.search(r"/python(3\.\d+)/", command)
    return found[1] if found else Unknown("the raylet's command line names no Python")
