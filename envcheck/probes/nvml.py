"""GPUs and driver through NVML (loaded only where its library is), else through nvidia-smi, else /proc and PCI."""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Any, TypeVar

from envcheck.codec import Unknown
from envcheck.facts import Gpu, Number, Text
from envcheck.host import Host, LocalHost
from envcheck.record import dataclass

T = TypeVar("T")
SMI_SECONDS = 10
LIBRARY = "libnvidia-ml.so.1"
QUERY = "name,compute_cap,memory.total,mig.mode.current,uuid,driver_version"
FABRIC_STATES = {0: "not supported", 1: "not started", 2: "in progress", 3: "completed"}
NVIDIA_PCI = "0x10de"
DISPLAY_CLASSES = ("0x0300", "0x0302")


@dataclass(frozen=True, kw_only=True)
class Management:
    """What the driver's management interface says."""

    driver: str | Unknown
    cuda: str | Unknown
    gpus: tuple[Gpu, ...]
    fabric: str | None = None
    error: str | None = None


def probe(host: Host, library: str | None) -> Management:
    """Ask NVML where its library is (on this machine), else nvidia-smi; ``error`` says why neither answered."""
    if isinstance(host, LocalHost) and library:
        found = ask_nvml(library)
        if isinstance(found, Management):
            return found
        why = found
    else:
        why = f"{LIBRARY} was not found"
    program = host.which("nvidia-smi")
    if program is None:
        return silent(why)
    return ask_smi(host, program)


def silent(why: str) -> Management:
    """Stand for a driver that did not answer."""
    missing = Unknown(why)
    return Management(driver=missing, cuda=missing, gpus=(), error=why)


def ask_nvml(library: str) -> Management | str:
    """Ask through pynvml; give the reason where it fails."""
    import ctypes

    import pynvml

    try:
        # The library is not on the loader's path of every container that has it: opened by its path, pynvml finds it.
        ctypes.CDLL(library, mode=ctypes.RTLD_GLOBAL)
        pynvml.nvmlInit()
    except (OSError, pynvml.NVMLError) as error:
        return f"NVML: {error}"
    try:
        return read_nvml(pynvml)
    except pynvml.NVMLError as error:
        return f"NVML: {error}"
    finally:
        pynvml.nvmlShutdown()


def read_nvml(nvml: Any) -> Management:  # noqa: ANN401  # the module, which has no types
    """Read the driver and every GPU; what one GPU does not answer is unknown for that GPU alone."""
    handles = [nvml.nvmlDeviceGetHandleByIndex(index) for index in range(nvml.nvmlDeviceGetCount())]
    cuda = _asked(nvml, lambda: int(nvml.nvmlSystemGetCudaDriverVersion_v2()))
    return Management(
        driver=_asked(nvml, lambda: _text(nvml.nvmlSystemGetDriverVersion())),
        cuda=cuda if isinstance(cuda, Unknown) else f"{cuda // 1000}.{cuda % 1000 // 10}",
        gpus=tuple(_gpu(nvml, handle) for handle in handles),
        fabric=_fabric(nvml, handles[0]) if handles else None,
    )


def _text(value: str | bytes) -> str:
    return value.decode() if isinstance(value, bytes) else value


def _asked(nvml: Any, question: Callable[[], T]) -> T | Unknown:  # noqa: ANN401
    try:
        return question()
    except (nvml.NVMLError, AttributeError) as error:
        return Unknown(f"NVML: {error}")


def _gpu(nvml: Any, handle: object) -> Gpu:  # noqa: ANN401
    def capability() -> str:
        major, minor = nvml.nvmlDeviceGetCudaComputeCapability(handle)
        return f"{major}.{minor}"

    def mig() -> str:
        return "enabled" if nvml.nvmlDeviceGetMigMode(handle)[0] else "disabled"

    mode = _asked(nvml, mig)
    uuid = _asked(nvml, lambda: _text(nvml.nvmlDeviceGetUUID(handle)))
    memory: Number = _asked(nvml, lambda: int(nvml.nvmlDeviceGetMemoryInfo(handle).total))
    return Gpu(
        name=_asked(nvml, lambda: _text(nvml.nvmlDeviceGetName(handle))),
        compute_capability=_asked(nvml, capability),
        memory_bytes=memory,
        mig="disabled" if isinstance(mode, Unknown) else mode,
        uuid=None if isinstance(uuid, Unknown) else uuid,
    )


def _fabric(nvml: Any, handle: object) -> str | None:  # noqa: ANN401
    """State of the NVSwitch fabric; None where NVML is too old to say it."""
    if not hasattr(nvml, "c_nvmlGpuFabricInfo_t"):
        return None

    def state() -> int:
        info = nvml.c_nvmlGpuFabricInfo_t()
        nvml.nvmlDeviceGetGpuFabricInfo(handle, nvml.byref(info))
        return int(info.state)

    found = _asked(nvml, state)
    return None if isinstance(found, Unknown) else FABRIC_STATES.get(found, f"state {found}")


def ask_smi(host: Host, program: str) -> Management:
    """Ask nvidia-smi, whose head line names the CUDA version and whose query lists the GPUs."""
    done = host.run([program, f"--query-gpu={QUERY}", "--format=csv,noheader,nounits"], timeout=SMI_SECONDS)
    if not done.ok:
        return silent(f"nvidia-smi: {done.why()}")
    head = host.run([program], timeout=SMI_SECONDS)
    cuda = re.search(r"CUDA Version: (\d+\.\d+)", head.stdout)
    gpus, driver = parse_query(done.stdout)
    return Management(
        driver=driver,
        cuda=cuda[1] if cuda else Unknown("nvidia-smi does not name a CUDA version"),
        gpus=gpus,
    )


def parse_query(text: str) -> tuple[tuple[Gpu, ...], Text]:
    """Read ``NVIDIA H100 80GB HBM3, 9.0, 81559, Disabled, GPU-5d0e…, 550.54.15``, one line a GPU."""
    gpus = []
    driver: Text = Unknown("nvidia-smi lists no GPU")
    for line in text.splitlines():
        fields = [field.strip() for field in line.split(",")]
        if len(fields) == len(QUERY.split(",")):
            name, capability, memory, mig, uuid, version = fields
            driver = version
            gpus.append(_from_query(name, capability, memory, mig, uuid))
    return tuple(gpus), driver


def _from_query(name: str, capability: str, memory: str, mig: str, uuid: str) -> Gpu:
    return Gpu(
        name=name,
        compute_capability=capability
        if re.fullmatch(r"\d+\.\d+", capability)
        else Unknown(f"nvidia-smi: {capability}"),
        memory_bytes=int(memory) << 20 if memory.isdigit() else Unknown(f"nvidia-smi: {memory}"),
        mig="enabled" if mig == "Enabled" else "disabled",
        uuid=uuid if uuid.startswith("GPU-") else None,
    )


def without_driver(host: Host) -> tuple[Gpu, ...]:
    """List the GPUs that the kernel module names in /proc, else those on the PCI bus, where no driver answers."""
    named = [_model(host, path) for path in host.glob("/proc/driver/nvidia/gpus/*/information")]
    names = named or [Unknown(f"PCI device {device}") for device in pci_devices(host)]
    silent = Unknown("no driver answers")
    return tuple(Gpu(name=name, compute_capability=silent, memory_bytes=silent) for name in names)


def _model(host: Host, path: str) -> Text:
    """Read the line ``Model: NVIDIA H100 80GB HBM3``, blanks after the colon."""
    try:
        found = re.search(r"^Model:\s*(\S.*?)\s*$", host.read(path, 4096), re.MULTILINE)
    except OSError as error:
        return Unknown(f"{path}: {error.strerror}")
    return found[1] if found else Unknown(f"{path} names no model")


def pci_devices(host: Host) -> list[str]:
    """List the identifiers of NVIDIA's display controllers on the PCI bus, as ``10de:2330``."""
    found = []
    for path in host.glob("/sys/bus/pci/devices/*/vendor"):
        place = path.removesuffix("/vendor")
        try:
            vendor, device, kind = (host.read(f"{place}/{name}", 64).strip() for name in ("vendor", "device", "class"))
        except OSError:
            continue
        if vendor == NVIDIA_PCI and kind.startswith(DISPLAY_CLASSES):
            found.append(f"10de:{device.removeprefix('0x')}")
    return found
