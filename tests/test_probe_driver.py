from __future__ import annotations

import sys
import types
from typing import Any

import pytest

from envcheck.codec import Unknown
from envcheck.facts import DriverLibrary, LoaderEntry, Toolkit
from envcheck.host import Completed, LocalHost, RecordedHost
from envcheck.probes import driver, nvml

PLACE = "/usr/lib/x86_64-linux-gnu"
PROPRIETARY = (
    "NVRM version: NVIDIA UNIX x86_64 Kernel Module  550.54.15  Tue Mar  5 22:23:56 UTC 2024\nGCC version: x\n"
)
OPEN = "NVRM version: NVIDIA UNIX Open Kernel Module for x86_64  580.159.04  Release Build  (root@x)  Tue\n"
QUERY = ("/usr/bin/nvidia-smi", f"--query-gpu={nvml.QUERY}", "--format=csv,noheader,nounits")
ROW = "NVIDIA H100 80GB HBM3, 9.0, 81559, Disabled, GPU-5d0e1f00-0000-0000-0000-000000000000, 550.54.15\n"
HEAD = "| NVIDIA-SMI 550.54.15    Driver Version: 550.54.15    CUDA Version: 12.4     |"
SILENT = nvml.silent("NVML: none")
GIB = 1 << 30


def library(name: str, version: str, place: str = PLACE) -> tuple[dict[str, str], dict[str, str]]:
    stem = name.removesuffix(".1")
    return {f"{place}/{stem}.{version}": ""}, {f"{place}/{name}": f"{place}/{stem}.{version}"}


def host_with_driver(version: str = "550.54.15", **changes: Any) -> RecordedHost:
    files, links = library("libcuda.so.1", version)
    more, other = library("libnvidia-ml.so.1", version)
    given: dict[str, Any] = {
        "files": {
            **files,
            **more,
            "/proc/driver/nvidia/version": PROPRIETARY,
            "/dev/nvidia0": "",
            "/dev/nvidiactl": "",
            "/dev/nvidia-caps/x": "",
            "/dev/char/195:0": "",
            **changes.pop("files", {}),
        },
        "links": {**links, **other, **changes.pop("links", {})},
    }
    return RecordedHost(**given, **changes)


def found_in(host: RecordedHost, *toolkits: Toolkit) -> list[DriverLibrary]:
    cache = {"libcuda.so.1": f"{PLACE}/libcuda.so.1"} if host.exists(f"{PLACE}/libcuda.so.1") else {}
    return driver.libraries(host, toolkits, cache)


def test_a_whole_driver() -> None:
    host = host_with_driver()
    found = driver.probe(host, found_in(host), SILENT)
    assert (found.present, found.version, found.kernel_module) == (True, "550.54.15", "550.54.15")
    assert found.cuda == Unknown("NVML: none")
    assert found.nvml_error == "NVML: none"
    assert found.device_nodes == ("/dev/nvidia0", "/dev/nvidiactl")
    assert found.char_symlinks
    assert not found.libcuda_symlink
    assert [(item.name, item.kind, item.loads) for item in found.libraries] == [
        ("libcuda.so.1", "driver", True),
        ("libnvidia-ml.so.1", "driver", False),
    ]


def test_no_driver_at_all() -> None:
    found = driver.probe(RecordedHost(), [], SILENT)
    assert (found.present, found.version, found.cuda, found.kernel_module, found.nvml_error) == (
        False,
        None,
        None,
        None,
        None,
    )
    assert found.char_symlinks


def test_a_driver_whose_library_names_no_version_is_known_by_nvml() -> None:
    host = RecordedHost(files={"/usr/lib/wsl/lib/libcuda.so.1": ""})
    management = nvml.Management(driver="552.22", cuda="12.4", gpus=())
    assert driver.probe(host, found_in(host), management).version == "552.22"


def test_compat_and_stubs_are_told_apart_and_the_first_in_order_loads() -> None:
    files, links = library("libcuda.so.1", "560.35.03", "/usr/local/cuda/compat")
    stub = "/opt/cuda/lib64/stubs/libcuda.so.1"
    host = host_with_driver(
        files={**files, stub: "", "/opt/cuda/lib64/stubs/libcuda.so": ""},
        links=links,
        environ={"LD_LIBRARY_PATH": "/usr/local/cuda/compat", "LIBRARY_PATH": "/opt/cuda/lib64/stubs"},
    )
    toolkit = Toolkit(path="/opt/cuda", version="12.4", headers=True, source="env")
    found = {item.path: item for item in found_in(host, toolkit) if item.name == "libcuda.so.1"}
    assert found["/usr/local/cuda/compat/libcuda.so.1"].kind == "compat"
    assert found["/usr/local/cuda/compat/libcuda.so.1"].loads
    assert not found[f"{PLACE}/libcuda.so.1"].loads
    assert found[stub].kind == "stub"
    assert isinstance(found[stub].version, Unknown)
    assert driver.symlink(host, list(found.values()))


def test_the_loader_corrects_which_library_loads() -> None:
    host = host_with_driver()
    entry = LoaderEntry(library="libcuda.so.1", path=f"{PLACE}/libcuda.so.1")
    files = [
        DriverLibrary(name="libcuda.so.1", path="/x/libcuda.so.1", version="1.1", kind="driver", loads=True),
        DriverLibrary(name="libcuda.so.1", path=f"{PLACE}/libcuda.so.1", version="1.2", kind="driver"),
        DriverLibrary(name="libnvidia-ml.so.1", path="/m", version="1.2", kind="driver", loads=True),
    ]
    found = driver.loaded_by(host, files, (entry,))
    assert [item.loads for item in found] == [False, True, True]
    unknown = LoaderEntry(library="libcuda.so.1", path=Unknown("no"))
    assert driver.loaded_by(host, files, (unknown,)) == files


@pytest.mark.parametrize(
    ("text", "expected"),
    [(PROPRIETARY, "550.54.15"), (OPEN, "580.159.04"), ("535.183.01\n", "535.183.01"), ("garbage", None)],
)
def test_kernel_module(text: str, expected: str | None) -> None:
    found = driver.parse_module(text)
    assert found == expected if expected else isinstance(found, Unknown)


def test_kernel_module_by_sys() -> None:
    assert driver.kernel_module(RecordedHost(files={"/sys/module/nvidia/version": "535.183.01\n"})) == "535.183.01"


def test_fabric_manager_only_where_there_is_an_nvswitch() -> None:
    assert driver.fabric_manager(RecordedHost(), SILENT) is None
    files = {
        "/dev/nvidia-nvswitch0": "",
        "/run/nvidia-fabricmanager/nv-fabricmanager.pid": "77\n",
        "/proc/77/comm": "nv-fabricmanager",
        "/usr/bin/nv-fabricmanager": "",
    }
    said = {("/usr/bin/nv-fabricmanager", "--version"): Completed(stdout="Fabric Manager version is : 550.54.15\n")}
    found = driver.fabric_manager(RecordedHost(files=files, commands=said), SILENT)
    assert found is not None
    assert (found.active, found.version, found.state) == (True, "550.54.15", "not reported")


def test_a_fabric_manager_that_does_not_run_and_one_out_of_sight() -> None:
    dead = driver.fabric_manager(RecordedHost(files={"/dev/nvidia-nvswitch0": ""}), SILENT)
    assert dead is not None
    assert dead.active is False
    assert isinstance(dead.version, Unknown)
    management = nvml.Management(driver="550", cuda="12.4", gpus=(), fabric="completed")
    outside = driver.fabric_manager(RecordedHost(files={"/.dockerenv": ""}), management)
    assert outside is not None
    assert isinstance(outside.active, Unknown)
    assert outside.state == "completed"
    silent = RecordedHost(files={"/dev/nvidia-nvswitch0": "", "/usr/bin/nv-fabricmanager": ""})
    manager = driver.fabric_manager(silent, SILENT)
    assert manager is not None
    assert isinstance(manager.version, Unknown)


def test_nvidia_smi_is_asked_where_nvml_is_not() -> None:
    host = RecordedHost(
        files={"/usr/bin/nvidia-smi": ""},
        environ={"PATH": "/usr/bin"},
        commands={QUERY: Completed(stdout=ROW * 2), ("/usr/bin/nvidia-smi",): Completed(stdout=HEAD)},
    )
    found = nvml.probe(host, None)
    assert (found.driver, found.cuda, len(found.gpus), found.error) == ("550.54.15", "12.4", 2, None)
    gpu = found.gpus[0]
    assert (gpu.name, gpu.compute_capability, gpu.mig) == ("NVIDIA H100 80GB HBM3", "9.0", "disabled")
    assert gpu.memory_bytes == 81559 << 20


def test_nvidia_smi_that_answers_badly() -> None:
    row = "NVIDIA A100, [N/A], [N/A], Enabled, x, 535.1\nnoise\n"
    gpus, version = nvml.parse_query(row)
    assert version == "535.1"
    assert isinstance(gpus[0].compute_capability, Unknown)
    assert isinstance(gpus[0].memory_bytes, Unknown)
    assert (gpus[0].mig, gpus[0].uuid) == ("enabled", None)
    assert isinstance(nvml.parse_query("")[1], Unknown)
    host = RecordedHost(
        files={"/usr/bin/nvidia-smi": ""},
        environ={"PATH": "/usr/bin"},
        commands={QUERY: Completed(returncode=9, stdout="NVIDIA-SMI has failed because it couldn't communicate")},
    )
    assert "couldn't communicate" in str(nvml.probe(host, None).error)
    mute = RecordedHost(
        files={"/usr/bin/nvidia-smi": ""}, environ={"PATH": "/usr/bin"}, commands={QUERY: Completed(stdout=ROW)}
    )
    assert isinstance(nvml.probe(mute, None).cuda, Unknown)


def test_neither_nvml_nor_smi() -> None:
    found = nvml.probe(RecordedHost(), None)
    assert found.error == "libnvidia-ml.so.1 was not found"
    assert isinstance(found.driver, Unknown)


class FakeNvml(types.ModuleType):
    """Answers as NVML of a node with one H100 does; names in ``broken`` fail."""

    class NVMLError(Exception):
        pass

    class c_nvmlGpuFabricInfo_t:  # noqa: N801  # NVML's name
        state = 0

    def __init__(self, *broken: str, fabric: int = 3) -> None:
        super().__init__("pynvml")
        self._broken = broken
        self._fabric = fabric
        self.ended = False

    def __getattribute__(self, name: str) -> Any:
        broken = object.__getattribute__(self, "__dict__").get("_broken", ())
        if name in broken:
            message = f"{name} is broken"
            raise FakeNvml.NVMLError(message)
        return object.__getattribute__(self, name)

    def nvmlInit(self) -> None:  # noqa: N802
        pass

    def nvmlShutdown(self) -> None:  # noqa: N802
        self.ended = True

    def nvmlDeviceGetCount(self) -> int:  # noqa: N802
        return 1

    def nvmlDeviceGetHandleByIndex(self, index: int) -> int:  # noqa: N802
        return index

    def nvmlSystemGetCudaDriverVersion_v2(self) -> int:  # noqa: N802
        return 12040

    def nvmlSystemGetDriverVersion(self) -> bytes:  # noqa: N802
        return b"550.54.15"

    def nvmlDeviceGetCudaComputeCapability(self, handle: int) -> tuple[int, int]:  # noqa: N802
        return 9, 0

    def nvmlDeviceGetMigMode(self, handle: int) -> tuple[int, int]:  # noqa: N802
        return 1, 1

    def nvmlDeviceGetUUID(self, handle: int) -> str:  # noqa: N802
        return "GPU-1"

    def nvmlDeviceGetName(self, handle: int) -> str:  # noqa: N802
        return "NVIDIA H100 80GB HBM3"

    def nvmlDeviceGetMemoryInfo(self, handle: int) -> Any:  # noqa: N802
        return types.SimpleNamespace(total=80 * GIB)

    def byref(self, value: Any) -> Any:
        return value

    def nvmlDeviceGetGpuFabricInfo(self, handle: int, info: Any) -> None:  # noqa: N802
        info.state = self._fabric


def test_nvml_answers() -> None:
    found = nvml.read_nvml(FakeNvml())
    assert (found.driver, found.cuda, found.fabric, found.error) == ("550.54.15", "12.4", "completed", None)
    (gpu,) = found.gpus
    assert (gpu.name, gpu.compute_capability, gpu.memory_bytes) == ("NVIDIA H100 80GB HBM3", "9.0", 80 * GIB)
    assert (gpu.mig, gpu.uuid) == ("enabled", "GPU-1")
    assert nvml.read_nvml(FakeNvml(fabric=9)).fabric == "state 9"


def test_what_nvml_does_not_answer_is_unknown_on_its_own() -> None:
    names = ("nvmlDeviceGetMigMode", "nvmlDeviceGetUUID", "nvmlDeviceGetMemoryInfo", "nvmlDeviceGetGpuFabricInfo")
    found = nvml.read_nvml(FakeNvml(*names, "nvmlSystemGetCudaDriverVersion_v2", "nvmlSystemGetDriverVersion"))
    (gpu,) = found.gpus
    assert (gpu.mig, gpu.uuid, found.fabric) == ("disabled", None, None)
    assert isinstance(gpu.memory_bytes, Unknown)
    assert isinstance(found.driver, Unknown)
    assert gpu.compute_capability == "9.0"


def test_an_nvml_without_fabric_info_and_without_gpus(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delattr(FakeNvml, "c_nvmlGpuFabricInfo_t")
    assert nvml.read_nvml(FakeNvml()).fabric is None
    none = FakeNvml()
    none.nvmlDeviceGetCount = lambda: 0  # type: ignore[method-assign]
    assert nvml.read_nvml(none).fabric is None


def test_nvml_is_loaded_by_the_path_of_its_library(monkeypatch: pytest.MonkeyPatch) -> None:
    fake = FakeNvml()
    monkeypatch.setitem(sys.modules, "pynvml", fake)
    monkeypatch.setattr("ctypes.CDLL", lambda path, mode: path)
    found = nvml.probe(LocalHost(environ={}), "/x/libnvidia-ml.so.1")
    assert found.driver == "550.54.15"
    assert fake.ended


@pytest.mark.parametrize("broken", ["nvmlInit", "nvmlDeviceGetCount"])
def test_an_nvml_that_fails_says_why(monkeypatch: pytest.MonkeyPatch, broken: str) -> None:
    monkeypatch.setitem(sys.modules, "pynvml", FakeNvml(broken))
    monkeypatch.setattr("ctypes.CDLL", lambda path, mode: path)
    assert nvml.probe(LocalHost(environ={}), "/x").error == f"NVML: {broken} is broken"


def test_gpus_without_a_driver() -> None:
    named = RecordedHost(
        files={
            "/proc/driver/nvidia/gpus/0000:1/information": "Model: \t\t NVIDIA A100-SXM4-80GB\nIRQ: 3\n",
            "/proc/driver/nvidia/gpus/0000:2/information": "garbage",
        }
    )
    found = nvml.without_driver(named)
    assert found[0].name == "NVIDIA A100-SXM4-80GB"
    assert isinstance(found[1].name, Unknown)
    bus = "/sys/bus/pci/devices"
    pci = RecordedHost(
        files={
            f"{bus}/1/vendor": "0x10de\n", f"{bus}/1/device": "0x2330\n", f"{bus}/1/class": "0x030200\n",
            f"{bus}/2/vendor": "0x10de\n", f"{bus}/2/device": "0x22a3\n", f"{bus}/2/class": "0x068000\n",
            f"{bus}/3/vendor": "0x8086\n", f"{bus}/3/device": "0x1\n", f"{bus}/3/class": "0x030000\n",
            f"{bus}/4/vendor": "0x10de\n",
        }
    )  # fmt: skip
    assert [gpu.name for gpu in nvml.without_driver(pci)] == [Unknown("PCI device 10de:2330")]
    assert nvml.without_driver(RecordedHost()) == ()
