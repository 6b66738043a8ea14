"""The NVIDIA driver: there, new enough, in one piece, and the one that loads."""

from __future__ import annotations

import re
from collections.abc import Iterator

from envcheck.codec import Unknown
from envcheck.facts import Driver, DriverLibrary, Facts
from envcheck.model import Finding, Fix, NotApplicable, Rule, Target, known, rule
from envcheck.rules import remedy, subjects
from envcheck.rules.driver_parts import LIBCUDA, leave_to_container, no_libcuda, without_compute

CONSUMER = re.compile(r"GeForce|TITAN|\bRTX [2-5]0[5-9]0\b|\bGTX\b", re.IGNORECASE)


def need_driver(facts: Facts) -> Driver:
    """Give the driver, or end the rule as not applicable."""
    found = known(facts.driver)
    if not known(found.present):
        msg = "there is no NVIDIA driver on this host"
        raise NotApplicable(msg)
    return found


def loading(driver: Driver) -> DriverLibrary | None:
    """Find the libcuda.so.1 that the loader takes."""
    return next((item for item in driver.libraries if item.name == LIBCUDA and item.loads), None)


@rule(
    "driver-missing",
    group="driver",
    subject="NVIDIA driver",
    cause="There is no driver, the container was started without the GPUs, or only link stubs of a toolkit are found.",
    stages=("build", "launch", "train"),
    sources=("https://github.com/sgl-project/sglang/issues/4778",),
    fix=("Install the driver, or start the container with --gpus all.",),
)
def driver_missing(facts: Facts, target: Target) -> Iterator[Finding]:
    """The NVIDIA driver is there."""
    if target.stage == "build":
        msg = "building needs no GPU"
        raise NotApplicable(msg)
    leave_to_container(facts)
    driver = known(facts.driver)
    stubs = [item.path for item in driver.libraries if item.name == LIBCUDA and item.kind != "driver"]
    own = any(item.name == LIBCUDA and item.kind == "driver" for item in driver.libraries)
    if not known(driver.present) or (stubs and not own and not isinstance(driver.version, str)):
        yield Finding(
            summary="there is no NVIDIA driver",
            found=f"libcuda.so.1 only as {', '.join(stubs)}" if stubs else "neither libcuda.so.1 nor a kernel module",
            expected=f"driver {target.stack.driver.minimum} or newer",
            fix=remedy.gpus(facts, target),
        )
    elif without_compute(driver):
        yield no_libcuda(facts, target)


@rule(
    "no-gpu-visible",
    group="driver",
    subject="GPUs",
    cause="The driver is there, and this process sees no GPU: CUDA_VISIBLE_DEVICES hides them, the container was given "
    "none, or NVML fails.",
    stages=("launch", "train"),
    sources=("https://github.com/NVIDIA/nvidia-container-toolkit/issues/48",),
    fix=("Unset CUDA_VISIBLE_DEVICES, or start the container with --gpus all.",),
)
def no_gpu_visible(facts: Facts, target: Target) -> Iterator[Finding]:
    """At least one GPU is visible."""
    leave_to_container(facts)
    driver = need_driver(facts)
    if not known(facts.gpus):
        nodes = ", ".join(driver.device_nodes) or "none"
        yield Finding(
            summary="the driver is there, and no GPU is visible",
            found=driver.nvml_error or f"driver {driver.version}, device nodes: {nodes}",
            expected="at least one GPU",
            fix=remedy.gpus(facts, target),
        )


@rule(
    "driver-too-old",
    group="driver",
    subject="NVIDIA driver",
    cause="torch was built for a CUDA major that this driver does not run: an unpinned torch follows the newest CUDA.",
    stages=("build", "launch", "train"),
    sources=(
        "https://docs.nvidia.com/deploy/cuda-compatibility/minor-version-compatibility.html",
        "https://github.com/modelscope/FunASR/issues/2973",
    ),
    fix=("Update the driver, or install the torch that the stack pins.",),
)
def driver_too_old(facts: Facts, target: Target) -> Iterator[Finding]:
    """The driver runs the CUDA that torch is built for."""
    subjects.need_start(facts, target)
    driver = need_driver(facts)
    cuda = subjects.torch_cuda(facts, target)
    row = target.limits.first("cuda-driver-minimum", cuda=cuda)
    if row is None:
        msg = f"no limit is known for CUDA {cuda}"
        raise NotApplicable(msg)
    if isinstance(driver.version, str):
        enough = subjects.holds(row, "driver", driver.version)
    else:
        enough = subjects.major(known(driver.cuda or driver.version or Unknown("no version"))) >= subjects.major(cuda)
    helper = loading(driver)
    forward = helper is not None and helper.kind == "compat" and subjects.holds(row, "driver", str(helper.version))
    if not enough and not forward:
        yield Finding(
            summary=f"driver {_shown(driver)} does not run CUDA {cuda}, which torch is built for",
            found=f"driver {_shown(driver)}",
            expected=f"driver {row.need['driver']}",
            fix=(*_own_torch(facts, target, cuda), *remedy.driver(facts, target, row.need["driver"].lstrip(">="))),
            sources=(row.source,),
        )
    else:
        yield from _not_native(facts, target, driver, cuda)
    yield from _kernels_need_newer(facts, target, driver)


def _shown(driver: Driver) -> str:
    text = driver.version if isinstance(driver.version, str) else "of unknown version"
    return f"{text} (CUDA {driver.cuda})" if isinstance(driver.cuda, str) else text


def _own_torch(facts: Facts, target: Target, cuda: str) -> tuple[Fix, ...]:
    """Offer the stack's torch where the one that is installed is built for another CUDA."""
    if subjects.torch(facts) is None or subjects.major(cuda) == subjects.major(target.stack.cuda.default):
        return ()
    return (remedy.locked(target, f"Install the stack's torch, which is built for CUDA {target.stack.cuda.default}"),)


def _not_native(facts: Facts, target: Target, driver: Driver, cuda: str) -> Iterator[Finding]:
    """Note that PTX will not run; that is a fault only where an extension has nothing else for a GPU."""
    row = target.limits.first("cuda-driver-native", cuda=cuda)
    if row is None or not isinstance(driver.version, str) or subjects.holds(row, "driver", driver.version):
        return
    if isinstance(driver.cuda, str) and not subjects.older(subjects.minor(driver.cuda), subjects.minor(cuda)):
        return  # Tegra's drivers are numbered apart: 540.4.0 is one of CUDA 12.6
    only_ptx = _only_ptx(facts)
    native = row.give["driver"]
    yield Finding(
        summary=f"driver {driver.version} runs CUDA {cuda} by minor-version compatibility: machine code runs, "
        f"PTX of CUDA {cuda} does not"
        + (f", and {', '.join(only_ptx)} has nothing else for this GPU" if only_ptx else ""),
        found=f"driver {driver.version}",
        expected=f"driver {native} for everything; {target.stack.driver.minimum} is enough for machine code",
        fix=remedy.driver(facts, target, native) if only_ptx else (),
        severity="warning" if only_ptx else "ok",
        sources=(row.source,),
    )


def _only_ptx(facts: Facts) -> list[str]:
    """Packages with CUDA code of which only PTX fits a visible GPU."""
    from envcheck.rules.gpu import runs_machine_code, runs_ptx

    if not isinstance(facts.gpus, tuple) or not isinstance(facts.packages, tuple):
        return []
    found = []
    for item in facts.packages:
        archs = tuple({arch for extension in item.extensions for arch in extension.archs})
        gpus = subjects.capabilities(facts) if archs else ()
        if any(not runs_machine_code(archs, gpu) and runs_ptx(archs, gpu) for gpu in gpus):
            found.append(item.name)
    return found


def _kernels_need_newer(facts: Facts, target: Target, driver: Driver) -> Iterator[Finding]:
    if not isinstance(facts.packages, tuple) or not isinstance(driver.version, str):
        return
    found = subjects.versions(facts) | {"driver": driver.version}
    for row, subject in subjects.broken(target, "sgl-kernel", found):
        if subject == "driver":
            yield Finding(
                summary=f"driver {driver.version} lacks what sgl-kernel links: {row.why}",
                found=f"driver {driver.version}",
                expected=f"driver {row.need['driver']}",
                fix=(remedy.locked(target), *remedy.driver(facts, target, row.need["driver"].lstrip(">="))),
                subject="sgl-kernel",
                sources=(row.source,),
            )
            return


@rule(
    "driver-library-differs",
    group="driver",
    subject="NVIDIA driver",
    cause="An update (often unattended) replaced the driver's libraries while the old kernel module is still loaded.",
    stages=("launch", "train"),
    sources=("https://github.com/lyulyul/shine-cluster/issues/30",),
    fix=("Reboot, or reload the kernel modules; hold the driver packages back from unattended upgrades.",),
)
def driver_library_differs(facts: Facts, _target: Target) -> Iterator[Finding]:
    """The driver's libraries and its kernel module have one version."""
    driver = need_driver(facts)
    said = driver.nvml_error or ""
    module = known(driver.kernel_module) if driver.kernel_module is not None else None
    helper = loading(driver)
    own = [item.version for item in driver.libraries if item.kind == "driver" and isinstance(item.version, str)]
    library = driver.version if isinstance(driver.version, str) else next(iter(own), None)
    if helper is not None and helper.kind == "compat" and not own:
        library = module
    if helper is not None and helper.kind == "driver" and isinstance(helper.version, str) and library == module:
        library = helper.version
    differs = module is not None and library is not None and module != library
    if differs or re.search("mismatch|function not found", said, re.IGNORECASE):
        yield Finding(
            summary="the driver's libraries and the loaded kernel module have different versions",
            found=f"libraries {library}, kernel module {module}" + (f"; {said}" if said else ""),
            expected="one version",
            fix=(
                Fix(text="Reboot, or reload the modules", commands=remedy.as_root(facts, "reboot")),
                Fix(
                    text="Hold the driver back",
                    commands=remedy.as_root(facts, "apt-mark hold 'nvidia-*' 'libnvidia-*'"),
                )
                if remedy.manager(facts) == "apt"
                else Fix(text="Exclude the driver from automatic updates"),
            )
            if facts.container is None
            else (Fix(text="Restart the container after the machine below it was rebooted"),),
        )


@rule(
    "cuda-compat-shadows-driver",
    group="driver",
    subject="libcuda.so.1",
    cause="An image puts the libcuda.so.1 of cuda-compat, or a toolkit's link stub, before the driver's own.",
    stages=("launch", "train"),
    sources=(
        "https://github.com/gpustack/gpustack/issues/4678",
        "https://github.com/sgl-project/sglang/issues/3065",
        "https://github.com/mistralai/mistral-inference/issues/144",
    ),
    fix=("Take compat and stubs directories out of LD_LIBRARY_PATH and /etc/ld.so.conf.d.",),
)
def cuda_compat_shadows_driver(facts: Facts, _target: Target) -> Iterator[Finding]:
    """The libcuda.so.1 that loads is the driver's own, or a compatibility library that this GPU and driver allow."""
    driver = need_driver(facts)
    path = _libcuda_path(facts, driver)
    if not path:
        return
    helper = loading(driver)
    fault = _fault(facts, driver, path, helper.version if helper else None)
    if fault:
        yield Finding(
            summary=fault,
            found=f"{path} {helper.version if helper and isinstance(helper.version, str) else ''}".rstrip(),
            expected=f"the driver's own libcuda.so.1 ({driver.kernel_module or driver.version})",
            fix=(_without(facts, path),),
        )


def _libcuda_path(facts: Facts, driver: Driver) -> str:
    """Path of a compat or stub libcuda that loads: by the libraries, the loader, or LD_LIBRARY_PATH."""
    helper = loading(driver)
    if helper is not None:
        return helper.path if helper.kind != "driver" else ""
    entries = facts.loader if isinstance(facts.loader, tuple) else ()
    loaded = next((str(item.path) for item in entries if item.library == LIBCUDA and isinstance(item.path, str)), None)
    if loaded:
        return loaded if "/compat" in loaded or "/stubs" in loaded else ""
    places = subjects.variable(facts, "LD_LIBRARY_PATH").split(":")
    return next((f"{place.rstrip('/')}/{LIBCUDA}" for place in places if re.search(r"/(compat|stubs)/?$", place)), "")


def _fault(facts: Facts, driver: Driver, path: str, version: str | Unknown | None) -> str:
    if "/stubs" in path:
        return "a link stub is taken as driver: it has none of the driver's functions"
    names = [gpu.name for gpu in facts.gpus if isinstance(gpu.name, str)] if isinstance(facts.gpus, tuple) else []
    consumer = next((name for name in names if CONSUMER.search(name)), None)
    if consumer:
        return f"cuda-compat does not work on a {consumer} (error 804): it is for data-center GPUs"
    own = driver.kernel_module if isinstance(driver.kernel_module, str) else driver.version
    if isinstance(version, str) and isinstance(own, str) and subjects.older(version, own):
        return f"cuda-compat {version} is older than the driver {own} and hides it (error 803)"
    return ""


def _without(facts: Facts, path: str) -> Fix:
    from envcheck.rules.shadows import without_directory

    directory = subjects.directory_of(path)
    if directory in [item.rstrip("/") for item in subjects.variable(facts, "LD_LIBRARY_PATH").split(":")]:
        return without_directory(facts, directory, "LD_LIBRARY_PATH")
    commands = remedy.as_root(facts, f"sh -c 'rm -f $(grep -l {directory} /etc/ld.so.conf.d/*) && ldconfig'")
    return Fix(text=f"Take {directory} out of the loader's configuration", commands=commands)


RULES: tuple[Rule, ...] = (
    driver_missing,
    no_gpu_visible,
    driver_too_old,
    driver_library_differs,
    cuda_compat_shadows_driver,
)
