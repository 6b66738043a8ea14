"""What this process may use: CPUs, memory and its cgroup limits, shared memory, disks, ulimits. Files only."""

from __future__ import annotations

import re

from envcheck.codec import Unknown
from envcheck.facts import Disk, Number, Resources, Text
from envcheck.host import Host, Pending
from envcheck.record import dataclass

NO_LIMIT_BYTES = 1 << 60
"""cgroup v1 writes "no limit" as the highest page-aligned 64-bit number."""
OUTER_LIMIT = 64
PASSING = re.compile(r"veth|cali|lxc|tap|vnet|tunl|bonding_masters")
"""Interfaces that come and go with containers, and what is none."""
SHM = "/dev/shm"  # noqa: S108  # only read about


@dataclass(frozen=True, kw_only=True)
class Mount:
    """One line of /proc/self/mountinfo."""

    root: str
    point: str
    kind: str
    options: str


def probe(host: Host, named: Text | Pending) -> Resources:
    """Read what this process may use; ``named`` is what ``start_hostname`` gave."""
    memory = meminfo(host)
    mounts = read_mounts(host)
    limits, hard = read_ulimits(host), read_ulimits(host, hard=True)
    return Resources(
        cpus=cpus(host, mounts),
        memory_bytes=memory.get("MemTotal", Unknown("/proc/meminfo has no MemTotal")),
        memory_available_bytes=memory.get("MemAvailable", Unknown("/proc/meminfo has no MemAvailable")),
        memory_limit_bytes=memory_limit(host, mounts),
        swap_bytes=memory.get("SwapTotal", Unknown("/proc/meminfo has no SwapTotal")),
        shm_bytes=shm(host, mounts, memory),
        shm_free_bytes=shm_free(host, mounts),
        disks=disks(host),
        max_processes=limits.get("Max processes", Unknown("/proc/self/limits has no Max processes")),
        open_files=limits.get("Max open files", Unknown("/proc/self/limits has no Max open files")),
        open_files_hard=hard.get("Max open files", Unknown("/proc/self/limits has no Max open files")),
        locked_memory=limits.get("Max locked memory", Unknown("/proc/self/limits has no Max locked memory")),
        tasks_limit=tasks_limit(host, mounts),
        interfaces=tuple(sorted(name for name in host.listdir("/sys/class/net") if not PASSING.match(name))),
        hostname_resolves=resolved(named),
        jit_locks=jit_locks(host),
    )


def _text(host: Host, path: str) -> str:
    try:
        return host.read(path, 1 << 20)
    except OSError:
        return ""


def meminfo(host: Host) -> dict[str, int]:
    """Read /proc/meminfo, lines such as ``MemTotal:       25279864 kB``, into bytes."""
    found = re.findall(r"^(\w+):\s+(\d+) kB$", _text(host, "/proc/meminfo"), re.MULTILINE)
    return {name: int(size) << 10 for name, size in found}


def read_mounts(host: Host) -> list[Mount]:
    """Read /proc/self/mountinfo.

    ``35 31 0:32 /docker/1cd3 /sys/fs/cgroup/memory rw,relatime - cgroup cgroup rw,memory``
    """
    mounts = []
    for line in _text(host, "/proc/self/mountinfo").splitlines():
        left, _, right = line.partition(" - ")
        fields, after = left.split(" "), right.split(" ")
        if len(fields) > 5 and len(after) > 2:  # noqa: PLR2004  # fixed fields of proc(5)
            options = f"{fields[5]},{after[2]}"
            mounts.append(Mount(root=fields[3], point=fields[4].replace("\\040", " "), kind=after[0], options=options))
    return mounts


def cgroup_directories(host: Host, mounts: list[Mount], controller: str) -> list[str]:
    """Directories of this process's cgroup and of those around it, innermost first, for v1 or v2.

    /proc/self/cgroup has ``4:memory:/docker/1cd3`` for v1 and ``0::/user.slice`` for v2.
    """
    for line in _text(host, "/proc/self/cgroup").splitlines():
        number, _, rest = line.partition(":")
        names, _, path = rest.partition(":")
        version2 = number == "0" and not names
        if not version2 and controller not in names.split(","):
            continue
        for mount in mounts:
            if mount.kind == "cgroup2" if version2 else _is_v1(mount, controller):
                found = _ancestors(mount, path)
                if any(host.exists(f"{place}/cgroup.controllers" if version2 else place) for place in found):
                    return found
    return []


def _is_v1(mount: Mount, controller: str) -> bool:
    return mount.kind == "cgroup" and controller in mount.options.split(",")


def _ancestors(mount: Mount, path: str) -> list[str]:
    """Inside a container the mount's root is the container's own cgroup: it is cut from the front of the path."""
    root = mount.root.rstrip("/")
    inner = path[len(root) :] if root and (path + "/").startswith(root + "/") else path
    parts = [part for part in inner.split("/") if part and part != ".."]
    return ["/".join([mount.point, *parts[:depth]]) for depth in range(len(parts), -1, -1)][:OUTER_LIMIT]


def memory_limit(host: Host, mounts: list[Mount]) -> int | Unknown | None:
    """Lowest memory limit of this cgroup and those around it; None: none; Unknown: no cgroup can be read."""
    return _lowest(host, mounts, "memory", ("memory.max", "memory.limit_in_bytes"))


def tasks_limit(host: Host, mounts: list[Mount]) -> int | Unknown | None:
    """Lowest limit of processes and threads (``pids.max``) of this cgroup and those around it, likewise."""
    return _lowest(host, mounts, "pids", ("pids.max",))


def _lowest(host: Host, mounts: list[Mount], controller: str, files: tuple[str, ...]) -> int | Unknown | None:
    places = cgroup_directories(host, mounts, controller)
    if not places:
        return Unknown(f"no cgroup of the {controller} controller can be read") if not mounts else None
    texts = [_text(host, f"{place}/{name}").strip() for place in places for name in files]
    return min((int(text) for text in texts if text.isdigit() and int(text) < NO_LIMIT_BYTES), default=None)


def cpus(host: Host, mounts: list[Mount]) -> Number:
    """CPUs of the affinity mask, or fewer where a cgroup quota says so (rounded up)."""
    found = re.search(r"^Cpus_allowed_list:\s+(\S+)$", _text(host, "/proc/self/status"), re.MULTILINE)
    if not found:
        return Unknown("/proc/self/status has no Cpus_allowed_list")
    count = count_list(found[1])
    quotas = [quota for place in cgroup_directories(host, mounts, "cpu") for quota in _quota(host, place)]
    return max(1, min([count, *quotas]))


def count_list(text: str) -> int:
    """Count a list such as ``0-3,8``: 5."""
    spans = [part.split("-") for part in text.split(",")]
    return sum(int(span[-1]) - int(span[0]) + 1 for span in spans)


def _quota(host: Host, place: str) -> list[int]:
    """Read cpu.max (``200000 100000`` or ``max 100000``), or v1's cpu.cfs_quota_us (-1: none) and cpu.cfs_period_us."""
    pair = _text(host, f"{place}/cpu.max").split()
    if not pair:
        pair = [_text(host, f"{place}/cpu.cfs_{name}_us").strip() for name in ("quota", "period")]
    if len(pair) == 2 and pair[0].isdigit() and pair[1].isdigit() and int(pair[1]):  # noqa: PLR2004  # quota, period
        return [-(-int(pair[0]) // int(pair[1]))]
    return []


def shm(host: Host, mounts: list[Mount], memory: dict[str, int]) -> Number:
    """Size of /dev/shm, from ``size=65536k`` of its mount; a tmpfs without a size has half of the memory.

    0 where there is none: shm_open fails there.
    """
    mount = next((item for item in reversed(mounts) if item.point == SHM), None)
    if mount is None:
        return 0 if mounts and not host.exists(SHM) else Unknown(f"{SHM} is not mounted")
    size = re.search(r"(?:^|,)size=(\d+)([kmgKMG]?)", mount.options)
    if size:
        return int(size[1]) << {"": 0, "k": 10, "m": 20, "g": 30}[size[2].lower()]
    if mount.kind == "tmpfs" and "MemTotal" in memory:
        return memory["MemTotal"] // 2
    return Unknown(f"{SHM} is a {mount.kind} without a size")


def shm_free(host: Host, mounts: list[Mount]) -> int | Unknown | None:
    """Free bytes of /dev/shm: what runs that were killed left there is not free."""
    if not any(mount.point == SHM for mount in mounts):
        return None
    try:
        return host.free(SHM)[0]
    except OSError as error:
        return Unknown(f"{SHM}: {error.strerror}")


def read_ulimits(host: Host, *, hard: bool = False) -> dict[str, int | str]:
    """Read the soft or the hard limits of /proc/self/limits, ``Max open files      1024           524288   files``."""
    line = r"^(Max [a-z ]+?)\s{2,}(\d+|unlimited)\s+(\d+|unlimited)\s"
    found = re.findall(line, _text(host, "/proc/self/limits"), re.MULTILINE)
    values = {name: most if hard else now for name, now, most in found}
    return {name: int(value) if value.isdigit() else value for name, value in values.items()}


def disks(host: Host) -> tuple[Disk, ...]:
    """Free space where builds, caches, the home directory and the work lie."""
    home = host.environ.get("HOME", "")
    work = host.realpath(".")
    places = {
        "tmp": host.environ.get("TMPDIR") or "/tmp",  # noqa: S108  # only asked about
        "cache": host.environ.get("XDG_CACHE_HOME") or (f"{home}/.cache" if home else ""),
        "home": home,
        "work": work if work.startswith("/") else host.environ.get("PWD", ""),
        "docker": "/var/lib/docker" if host.exists("/var/lib/docker") else "",
    }
    return tuple(_disk(host, role, path) for role, path in places.items() if path)


def _disk(host: Host, role: str, path: str) -> Disk:
    space: Number
    inodes: Number
    try:
        space, inodes = host.free(path)
    except OSError as error:
        space = inodes = Unknown(f"{path}: {error.strerror}")
    return Disk(role=role, path=path, free_bytes=space, free_inodes=inodes, writable=host.writable(path))


def start_hostname(host: Host) -> Text | Pending:
    """Address that the host's own name has in /etc/hosts, else getent, started."""
    name = _text(host, "/proc/sys/kernel/hostname").strip()
    if not name:
        return Unknown("/proc/sys/kernel/hostname cannot be read")
    for line in _text(host, "/etc/hosts").splitlines():
        address, *names = line.split("#", 1)[0].split() or [""]
        if name in names:
            return address
    return host.start(["getent", "ahosts", name], timeout=3)


def resolved(named: Text | Pending) -> Text:
    """Read getent's answer, ``10.0.0.5       STREAM node1``; an address stands as it is."""
    if isinstance(named, (str, Unknown)):
        return named
    done = named.result()
    found = done.stdout.split()
    return found[0] if done.ok and found else Unknown(f"the host's own name resolves to nothing: {done.why()}")


def jit_locks(host: Host) -> tuple[str, ...]:
    """Lock files of flashinfer's just-in-time builds, whose ninja is dead: a new run would wait for them for ever."""
    base = host.environ.get("FLASHINFER_WORKSPACE_BASE") or host.environ.get("HOME", "")
    found = host.glob(f"{base}/.cache/flashinfer/*/cached_ops/*/lock") if base else []
    found += host.glob(f"{base}/.cache/flashinfer/*/*/cached_ops/*/lock") if base else []
    return tuple(found) if found and not building(host) else ()


def building(host: Host) -> bool:
    """Tell whether a ninja or nvcc runs."""
    names = (name for name in host.listdir("/proc") if name.isdigit())
    return any(_text(host, f"/proc/{name}/comm").strip() in {"ninja", "nvcc", "cicc", "ptxas"} for name in names)
