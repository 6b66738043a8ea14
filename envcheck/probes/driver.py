"""The NVIDIA driver: the kernel module, its user-space libraries and which one loads, device nodes, fabric manager."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from typing import Literal

from envcheck.codec import Unknown
from envcheck.facts import Driver, DriverLibrary, FabricManager, LoaderEntry, Text, Toolkit
from envcheck.host import Host
from envcheck.probes.nvml import Management
from envcheck.probes.places import LIBRARY_DIRECTORIES, split

VERSION = re.compile(r"\.so\.(\d+\.\d+(?:\.\d+)?)$")
NAMES = ("libcuda.so.1", "libnvidia-ml.so.1")
SWITCHES = ("/dev/nvidia-nvswitch[0-9]*", "/proc/driver/nvidia-nvswitch/devices/*")
MANAGER_PIDS = ("/run/nvidia-fabricmanager/nv-fabricmanager.pid", "/var/run/nvidia-fabricmanager/nv-fabricmanager.pid")


def probe(
    host: Host, found: Sequence[DriverLibrary], management: Management, loader: Sequence[LoaderEntry] = ()
) -> Driver:
    """Put together what the files and the management interface say."""
    module = kernel_module(host)
    found = loaded_by(host, found, loader)
    own = next((item for item in found if item.kind == "driver" and item.name == NAMES[0]), None)
    nodes = tuple(path for path in host.glob("/dev/nvidia*") if re.search(r"/nvidia(\d+|ctl|-uvm)$", path))
    present = own is not None or module is not None or not isinstance(management.driver, Unknown)
    return Driver(
        present=present,
        version=_version(own, management) if present else None,
        cuda=management.cuda if present else None,
        kernel_module=module,
        libraries=tuple(found),
        libcuda_symlink=symlink(host, found),
        fabric_manager=fabric_manager(host, management),
        nvml_error=management.error if present else None,
        device_nodes=nodes,
        char_symlinks=bool(host.glob("/dev/char/195:*")) if nodes else True,
    )


def _version(own: DriverLibrary | None, management: Management) -> Text:
    """Version of the user-space driver: the library's file name, else what NVML says."""
    if own is not None and isinstance(own.version, str):
        return own.version
    return management.driver


def kernel_module(host: Host) -> str | Unknown | None:
    """Version of the loaded kernel module; None where none is loaded."""
    for path in ("/proc/driver/nvidia/version", "/sys/module/nvidia/version"):
        try:
            return parse_module(host.read(path, 4096))
        except OSError:
            continue
    return None


def parse_module(text: str) -> Text:
    """Read ``NVRM version: NVIDIA UNIX x86_64 Kernel Module  550.54.15  Tue Mar …``, or the bare version of /sys."""
    found = re.search(r"Kernel Module(?: for \S+)?\s+(\d+\.\d+(?:\.\d+)?)", text) or re.fullmatch(
        r"(\d+\.\d+(?:\.\d+)?)", text.strip()
    )
    return found[1] if found else Unknown(f"the kernel module's version is not in {text.strip()[:80]!r}")


def libraries(host: Host, toolkits: Sequence[Toolkit], cache: dict[str, str]) -> list[DriverLibrary]:
    """Every libcuda.so.1 and libnvidia-ml.so.1; the first in the loader's order loads."""
    found: list[DriverLibrary] = []
    for name in NAMES:
        seen: set[str] = set()
        order = [*split(host.environ.get("LD_LIBRARY_PATH"))]
        in_order = [f"{place}/{name}" for place in order] + ([cache[name]] if name in cache else [])
        in_order += [f"{place}/{name}" for place in ("/lib64", "/usr/lib64", "/lib", "/usr/lib")]
        first = next((path for path in in_order if host.exists(path)), None)
        for path in [*in_order, *_elsewhere(name, toolkits)]:
            if host.exists(path) and host.realpath(path) not in seen:
                seen.add(host.realpath(path))
                found.append(_library(host, name, path, loads=path == first))
    return found


def _elsewhere(name: str, toolkits: Sequence[Toolkit]) -> Iterator[str]:
    for place in LIBRARY_DIRECTORIES:
        yield f"{place}/{name}"
    for root in dict.fromkeys(["/usr/local/cuda", *(item.path for item in toolkits)]):
        yield f"{root}/compat/{name}"
        for inner in ("lib64/stubs", "targets/x86_64-linux/lib/stubs"):
            yield f"{root}/{inner}/{name}"


def _library(host: Host, name: str, path: str, *, loads: bool) -> DriverLibrary:
    real = host.realpath(path)
    kind: Literal["driver", "compat", "stub"] = "driver"
    if "/compat" in path or "/compat" in real:
        kind = "compat"
    elif "/stubs" in path or "/stubs" in real:
        kind = "stub"
    named = VERSION.search(real)
    version: Text = named[1] if named else Unknown(f"the name of {real} holds no version")
    return DriverLibrary(name=name, path=path, version=version, kind=kind, loads=loads)


def loaded_by(host: Host, found: Sequence[DriverLibrary], loader: Sequence[LoaderEntry]) -> list[DriverLibrary]:
    """Correct which libcuda loads, where the loader's own order was followed for the target's process."""
    from envcheck.record import replace

    entry = next((item for item in loader if item.library == NAMES[0]), None)
    if entry is None or isinstance(entry.path, Unknown):
        return list(found)
    real = host.realpath(entry.path)
    return [replace(item, loads=host.realpath(item.path) == real) if item.name == NAMES[0] else item for item in found]


def symlink(host: Host, found: Sequence[DriverLibrary]) -> bool:
    """Tell whether a linker's -lcuda finds a libcuda.so: beside the library, in LIBRARY_PATH or a usual directory."""
    loads = next((item.path for item in found if item.loads and item.name == NAMES[0]), None)
    beside = [loads.rpartition("/")[0]] if loads else []
    places = [*beside, *split(host.environ.get("LIBRARY_PATH")), *LIBRARY_DIRECTORIES[:4]]
    return any(host.exists(f"{place}/libcuda.so") for place in places)


def fabric_manager(host: Host, management: Management) -> FabricManager | None:
    """State of the fabric manager on an NVSwitch system; None where there is no NVSwitch."""
    switches = any(host.glob(pattern) for pattern in SWITCHES)
    in_fabric = management.fabric in {"not started", "in progress", "completed"}
    if not switches and not in_fabric:
        return None
    return FabricManager(
        nvswitch=True,
        active=_running(host, in_sight=switches),
        version=manager_version(host),
        state=management.fabric or "not reported",
    )


def _running(host: Host, *, in_sight: bool) -> bool | Unknown:
    for path in MANAGER_PIDS:
        try:
            number = host.read(path, 64).strip()
        except OSError:
            continue
        return number.isdigit() and host.exists(f"/proc/{number}")
    return False if in_sight and not host.exists("/.dockerenv") else Unknown("it runs outside this container")


def manager_version(host: Host) -> Text:
    """Read ``Fabric Manager version is : 550.54.15``."""
    program = host.which("nv-fabricmanager") or "/usr/bin/nv-fabricmanager"
    if not host.exists(program):
        return Unknown("nv-fabricmanager is not installed here")
    done = host.run([program, "--version"], timeout=5)
    found = re.search(r"(\d+\.\d+(?:\.\d+)?)", done.stdout)
    return found[1] if found else Unknown(f"nv-fabricmanager --version: {done.why()}")
