"""Libraries that have to be found: of the system, of the CUDA run time, of the driver, and the headers of NCCL."""

from __future__ import annotations

import posixpath
import re
from collections.abc import Iterator

from envcheck.codec import Unknown
from envcheck.facts import Facts
from envcheck.model import Finding, Fix, NotApplicable, Rule, Target, known, package, rule
from envcheck.rules import remedy, subjects
from envcheck.rules.shadows import entries

USUAL_LIBCUDA = "/usr/lib/x86_64-linux-gnu/libcuda.so.1"
NVRTC_USERS = ("sgl-kernel", "sglang-kernel", "transformer-engine", "transformer-engine-torch")


@rule(
    "nccl-headers-missing",
    group="nccl",
    subject="nccl.h",
    cause="TransformerEngine 2.8 and newer includes nccl.h and, before 2.18, does not look into the NCCL wheel.",
    stages=("build",),
    sources=(
        "https://github.com/NVIDIA/TransformerEngine/issues/2331",
        "https://github.com/NVIDIA-NeMo/RL/issues/2711",
    ),
    fix=("export CPATH=<site-packages>/nvidia/nccl/include, or install libnccl-dev.",),
)
def nccl_headers_missing(facts: Facts, target: Target) -> Iterator[Finding]:
    """Builds that include nccl.h find it."""
    version = subjects.wanted_version(facts, target, "transformer-engine")
    row = target.limits.first("te-nccl", **{"transformer-engine": version}) if version else None
    if row is None:
        msg = "nothing in this selection is compiled against NCCL"
        raise NotApplicable(msg)
    headers = [item for item in known(facts.nccl) if item.kind == "header"]
    if any(item.selected for item in headers):
        return
    pip = [item.path for item in headers if item.source == "pip"]
    if pip and row.give["header"] == "wheel":
        return
    where = posixpath.dirname(pip[0]) if pip else ""
    named = {"apt": "libnccl-dev", "dnf": "libnccl-devel", "conda": "nccl"}
    yield Finding(
        summary=f"no build of TransformerEngine {version} will find nccl.h",
        found=f"{pip[0]}, where builds do not look" if pip else "no nccl.h on this host",
        expected="nccl.h below CPATH, CUDA_HOME or /usr/include",
        fix=(Fix(text="Name the wheel's headers", commands=(f"export CPATH={where}:$CPATH",)),)
        if pip
        else remedy.system_packages(facts, "the headers of NCCL", named),
        sources=(row.source,),
    )


@rule(
    "system-library-missing",
    group="toolkit",
    subject="system libraries",
    cause="Extensions link libraries of the distribution that no wheel brings, and slim images leave out.",
    stages=("launch", "train"),
    sources=("https://github.com/odysseus-dev/odysseus/pull/6257",),
    fix=("Install the package that has the library.",),
)
def system_library_missing(facts: Facts, target: Target) -> Iterator[Finding]:
    """Every library of the distribution that an installed extension needs is there."""
    rows = {row.give["library"]: row for row in target.limits.rows("system-libraries")}
    users: dict[str, list[str]] = {}
    for item in known(facts.packages):
        for name in sorted({name for extension in item.extensions for name in extension.missing if name in rows}):
            users.setdefault(name, []).append(item.name)
    for entry in known(facts.loader) if isinstance(facts.loader, tuple) else ():
        kernel = next((name for name in ("sgl-kernel", "sglang-kernel") if package(facts, name)), None)
        if entry.library == "libnuma.so.1" and isinstance(entry.path, Unknown) and kernel:
            users.setdefault(entry.library, [kernel])
    for name, packages in sorted(users.items()):
        row = rows[name]
        yield Finding(
            summary=f"{name} is not there, and {', '.join(packages)} cannot load without it",
            found=f"{name} is on no path of the loader",
            expected=name,
            fix=remedy.system_packages(facts, name, row.give),
            subject=name,
            severity="error" if set(packages) & _wanted_names(target) else "warning",
            sources=(row.source,),
        )


def _wanted_names(target: Target) -> set[str]:
    return {item.distribution for item in subjects.wanted(target)} | {"sglang-kernel", "numpy", "tensordict"}


@rule(
    "libnvrtc-not-found",
    group="run time",
    subject="libnvrtc",
    cause="libnvrtc lies in its wheel's folder only, which the loader does not search, and there is no toolkit.",
    stages=("launch", "train"),
    sources=("https://github.com/sgl-project/sglang/issues/5002",),
    fix=("Put the wheel's folder nvidia/cuda_nvrtc/lib on LD_LIBRARY_PATH.",),
)
def libnvrtc_not_found(facts: Facts, target: Target) -> Iterator[Finding]:
    """Whatever links libnvrtc finds it."""
    users = [name for name in NVRTC_USERS if package(facts, name)]
    if not users:
        msg = "nothing that links libnvrtc is installed"
        raise NotApplicable(msg)
    if preloaded(facts, target, "libnvrtc", "cuda-nvrtc"):
        return
    for name in sorted(_missing_nvrtc(facts, users)):
        wanted = next((item.wanted for item in entries(facts, "libnvrtc") if item.wanted), None)
        sites = subjects.python(facts).site_packages
        site = sites[0] if sites else "<site-packages>"
        folder = posixpath.dirname(wanted) if wanted else f"{site}/nvidia/cuda_nvrtc/lib"
        yield Finding(
            summary=f"{name} is not on the loader's path, and {', '.join(users)} needs it",
            found=f"{name} is found in {wanted or 'no directory that is searched'}",
            expected=f"{name} on the loader's path",
            fix=(remedy.wheel_folder(folder),),
        )


def preloaded(facts: Facts, target: Target, library: str, wheel: str) -> bool:
    """Tell whether importing torch loads a library from its wheel before anything else needs it."""
    torch = subjects.installed_version(facts, "torch")
    row = target.limits.first("torch-preload", torch=torch) if torch else None
    have = subjects.versions(facts)
    in_wheel = any(f"nvidia-{wheel}{ending}" in have for ending in ("-cu12", "-cu13", ""))
    return row is not None and library in row.give["libraries"].split() and in_wheel


def _missing_nvrtc(facts: Facts, users: list[str]) -> set[str]:
    """What the users' extensions do not find; where their bytes were not read, what the loader does not find."""
    extensions = [item for name in users if (found := package(facts, name)) for item in found.extensions]
    if any(item.needed for item in extensions):
        return {name for item in extensions for name in item.missing if name.startswith("libnvrtc.so")}
    return {item.library for item in entries(facts, "libnvrtc") if isinstance(item.path, Unknown)}


@rule(
    "libcuda-symlink-missing",
    group="toolkit",
    subject="libcuda.so",
    cause="triton links its launcher with -lcuda when a model starts; containers often have libcuda.so.1 alone.",
    stages=("launch", "train"),
    sources=("https://github.com/vllm-project/vllm/issues/11643",),
    fix=("Link libcuda.so to libcuda.so.1, or set TRITON_LIBCUDA_PATH to a directory that has the link.",),
)
def libcuda_symlink_missing(facts: Facts, target: Target) -> Iterator[Finding]:
    """The linker finds libcuda.so for triton."""
    driver = known(facts.driver)
    if not known(driver.present):
        msg = "there is no driver on this host"
        raise NotApplicable(msg)
    triton = subjects.installed_version(facts, "triton")
    row = target.limits.first("triton", triton=triton) if triton else None
    if row is None or "link" not in row.give:
        msg = "no triton that links -lcuda is installed"
        raise NotApplicable(msg)
    if known(driver.libcuda_symlink) or subjects.variable(facts, "TRITON_LIBCUDA_PATH"):
        return
    library = next((item.path for item in driver.libraries if item.name == "libcuda.so.1" and item.loads), None)
    place = "~/.cache/envcheck/libcuda"
    yield Finding(
        summary=f"triton {triton} cannot link: {row.why}",
        found=f"{library or 'libcuda.so.1'} without libcuda.so beside it",
        expected="libcuda.so, or TRITON_LIBCUDA_PATH",
        fix=(
            Fix(
                text="Make the link in a folder of your own",
                commands=(
                    f"mkdir -p {place} && ln -sf {library or USUAL_LIBCUDA} {place}/libcuda.so",
                    f"export TRITON_LIBCUDA_PATH={place}",
                ),
            ),
        ),
        sources=(row.source,),
    )


@rule(
    "memory-saver-preload-missing",
    group="run time",
    subject="torch-memory-saver",
    cause="torch_memory_saver works through LD_PRELOAD: it has to name its hook, the one of torch's CUDA major, and "
    "the hook's own libcudart has to be on the loader's path of a fresh process.",
    stages=("launch", "train"),
    sources=(
        "https://github.com/fzyzcjy/torch_memory_saver/issues/33",
        "https://github.com/sgl-project/sglang/issues/36533",
        "https://github.com/THUDM/slime/pull/2187",
    ),
    fix=("Leave LD_PRELOAD to sglang, or name the hook of the installed torch's CUDA major.",),
)
def memory_saver_preload_missing(facts: Facts, target: Target) -> Iterator[Finding]:
    """What LD_PRELOAD says lets torch-memory-saver work."""
    preload = facts.environment.get("LD_PRELOAD")
    hooks = [item for item in re.split(r"[:\s]+", preload or "") if "torch_memory_saver" in item]
    if package(facts, "torch-memory-saver") is None:
        if not hooks and facts.wish is not None and facts.wish.memory_saver:
            yield _not_installed(target)
            return
        if not hooks:
            msg = "torch-memory-saver is not installed"
            raise NotApplicable(msg)
        yield _preload(
            "LD_PRELOAD names the hook of torch-memory-saver, which is not installed", hooks[0], "this torch"
        )
        return
    cuda = subjects.torch_cuda(facts, target)
    made_for = f"CUDA {subjects.major(cuda)}"
    asked = facts.wish is not None and facts.wish.memory_saver
    for hook in hooks:
        found = re.search(r"cu(\d\d)", posixpath.basename(hook))
        if found and int(found[1]) != subjects.major(cuda):
            yield _preload(f"LD_PRELOAD names the hook of CUDA {found[1]}, torch is CUDA {cuda}", hook, made_for)
    if preload is not None and not hooks and (asked or not preload.strip()):
        yield _preload("LD_PRELOAD is set without torch-memory-saver's hook", f"LD_PRELOAD={preload!r}", made_for)
    if subjects.major(cuda) >= 13 and not _runtime_is_found(facts, cuda):  # noqa: PLR2004  # the hook of CUDA 13
        place = "<site-packages>/nvidia/cu13/lib"
        yield Finding(
            summary="the hook of torch-memory-saver will not find libcudart.so.13 in a fresh process",
            found="libcudart.so.13 lies in torch's wheels only",
            expected="libcudart.so.13 on the loader's path",
            fix=(remedy.wheel_folder(place),),
            severity="error" if asked else "warning",
        )


def _not_installed(target: Target) -> Finding:
    return Finding(
        summary="the run asks for the memory saver, and torch-memory-saver is not installed",
        found="not installed",
        expected="torch-memory-saver",
        fix=(remedy.locked(target),),
    )


def _preload(summary: str, found: str, torch: str) -> Finding:
    return Finding(
        summary=summary,
        found=found,
        expected=f"LD_PRELOAD not set, or the hook of {torch}",
        fix=(remedy.unset("LD_PRELOAD"),),
    )


def _runtime_is_found(facts: Facts, cuda: str) -> bool:
    path = subjects.variable(facts, "LD_LIBRARY_PATH")
    if "/nvidia/cu13/lib" in path or f"cuda-{cuda}" in path:
        return True
    found = [item for item in entries(facts, "libcudart") if isinstance(item.path, str)]
    return any(item.through in {"cache", "default", "LD_LIBRARY_PATH"} for item in found)


RULES: tuple[Rule, ...] = (
    nccl_headers_missing,
    system_library_missing,
    libnvrtc_not_found,
    libcuda_symlink_missing,
    memory_saver_preload_missing,
)
