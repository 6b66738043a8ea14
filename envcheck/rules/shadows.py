"""Libraries that hide the ones that torch brought: through LD_LIBRARY_PATH, LD_PRELOAD or another wheel."""

from __future__ import annotations

import posixpath
import re
from collections.abc import Iterator

from envcheck import cuda_wheels
from envcheck.facts import Facts, LoaderEntry
from envcheck.model import Finding, Fix, NotApplicable, Rule, Severity, Target, known, rule
from envcheck.rules import remedy, subjects
from envcheck.rules.cudnn import copies

CUDA_LIBRARIES = (
    "libcudart", "libcublas", "libcublasLt", "libnvJitLink", "libcusparse", "libcusolver", "libcufft", "libcurand",
    "libcupti", "libnvrtc",
)  # fmt: skip
TOOLKIT_DIRECTORY = re.compile(r"/cuda(?:-toolkit)?[-/](\d+\.\d+)")


def entries(facts: Facts, *names: str) -> tuple[LoaderEntry, ...]:
    """Loader entries of libraries, by name without number: ``libcudnn`` is libcudnn.so.9."""
    return tuple(item for item in known(facts.loader) if item.library.partition(".so")[0] in names)


def hidden(entry: LoaderEntry) -> bool:
    """Tell whether another file wins over the one that torch brought."""
    return entry.wanted is not None and isinstance(entry.path, str) and entry.wanted != entry.path


def wheel_version(facts: Facts, entry: LoaderEntry) -> str | None:
    """Version of the file that torch brought, by cuDNN's and NCCL's copies or by the wheel's own."""
    for copy in (*known(facts.cudnn), *known(facts.nccl)):
        if copy.path == entry.wanted and isinstance(copy.version, str):
            return copy.version
    part = {"libcudart": "cuda-runtime", "libnvrtc": "cuda-nvrtc"}.get(
        name := entry.library.partition(".so")[0], name.removeprefix("lib").lower().removesuffix("lt")
    )
    installed = subjects.versions(facts)
    return next((installed[n] for n in (f"nvidia-{part}-cu12", f"nvidia-{part}-cu13") if n in installed), None)


def taken_version(facts: Facts, entry: LoaderEntry) -> str | None:
    """Version of the file that wins: as read, of its copy, or of the toolkit that it lies in."""
    if entry.version:
        return entry.version
    for copy in (*known(facts.cudnn), *known(facts.nccl)):
        if copy.path == entry.path and isinstance(copy.version, str):
            return copy.version
    return directory_version(facts, posixpath.dirname(str(entry.path)))


def directory_version(facts: Facts, directory: str) -> str | None:
    """CUDA version of the toolkit that a directory belongs to: as read, or by its name."""
    for toolkit in facts.toolkits if isinstance(facts.toolkits, tuple) else ():
        inside = toolkit.path != "/usr" and f"{directory.rstrip('/')}/".startswith(f"{toolkit.path.rstrip('/')}/")
        if inside and isinstance(toolkit.version, str):
            return toolkit.version
    named = TOOLKIT_DIRECTORY.search(directory)
    return named[1] if named else None


def weigh(taken: str | None, wanted: str | None) -> Severity:
    """An older library lacks symbols; a newer one of the same major has all, but is not what was tested."""
    if taken is None or wanted is None:
        return "warning"
    if subjects.major(taken) != subjects.major(wanted) or subjects.older(taken, wanted):
        return "error"
    return "ok" if subjects.ordinal(taken)[:3] == subjects.ordinal(wanted)[:3] else "warning"


def shadow(facts: Facts, entry: LoaderEntry) -> Finding:
    """Describe a library that hides the one that torch brought."""
    taken, wanted = taken_version(facts, entry), wheel_version(facts, entry)
    severity = weigh(taken, wanted)
    variable = entry.through.split()[0] if entry.through.startswith("LD_") else ""
    return Finding(
        summary=f"{entry.library} is taken from {posixpath.dirname(str(entry.path))}, not from torch's wheel",
        found=f"{entry.path} {taken or ''} (through {entry.through or 'the loader'})".replace("  ", " "),
        expected=f"{entry.wanted} {wanted or ''}".rstrip(),
        fix=(without_directory(facts, posixpath.dirname(str(entry.path)), variable or "LD_LIBRARY_PATH"),),
        subject=entry.library,
        severity=severity,
    )


def without_directory(facts: Facts, directory: str, variable: str) -> Fix:
    """Take a directory out of a search path."""
    if variable == "LD_PRELOAD":
        return remedy.unset("LD_PRELOAD")
    rest = [item for item in subjects.variable(facts, variable).split(":") if item and item.rstrip("/") != directory]
    text = f"Take {directory} out of {variable}"
    return (
        remedy.exports(text, **{variable: ":".join(rest)}) if rest else Fix(text=text, commands=(f"unset {variable}",))
    )


@rule(
    "ld-library-path-shadows-torch",
    group="run time",
    subject="LD_LIBRARY_PATH",
    cause="LD_LIBRARY_PATH is searched before the RUNPATH of torch's libraries: a toolkit's or conda's older libraries "
    "win over the wheels that torch was built with.",
    stages=("build", "launch", "train"),
    sources=("https://github.com/infiniflow/ragflow/issues/4466", "https://github.com/pytorch/pytorch/issues/134929"),
    fix=("Take the directory out of LD_LIBRARY_PATH; torch finds its own libraries.",),
)
def ld_library_path_shadows_torch(facts: Facts, target: Target) -> Iterator[Finding]:
    """torch's own CUDA libraries are the ones that load."""
    if isinstance(facts.loader, tuple):
        found = [shadow(facts, item) for item in entries(facts, *CUDA_LIBRARIES) if hidden(item) and _wins(item)]
        yield from (item for item in found if item.severity != "ok")
        if found or any(isinstance(item.path, str) for item in entries(facts, "libcublas", "libnvJitLink")):
            return
    if subjects.torch(facts) is None:
        msg = "torch is not installed"
        raise NotApplicable(msg)
    yield from _older_directories(facts, target)


def _wins(entry: LoaderEntry) -> bool:
    """torch opens libnvrtc through the RPATH of its own libraries: the system's copy does not win there."""
    return entry.through.startswith("LD_") or not entry.library.startswith("libnvrtc")


def _older_directories(facts: Facts, target: Target) -> Iterator[Finding]:
    """Where the loader was not followed, judge LD_LIBRARY_PATH by the toolkits that its directories belong to."""
    cuda = subjects.torch_cuda(facts, target)
    for directory in filter(None, subjects.variable(facts, "LD_LIBRARY_PATH").split(":")):
        version = directory_version(facts, directory)
        conda = bool(re.search(r"/(ana|mini)?conda\d?/(envs/[^/]+/)?lib/?$", directory))
        if version is None and not conda:
            continue
        if version is not None and (subjects.major(version) != subjects.major(cuda) or subjects.minor(version) == cuda):
            continue
        yield Finding(
            summary=f"{directory} on LD_LIBRARY_PATH hides the CUDA {cuda} libraries that torch brought",
            found=f"LD_LIBRARY_PATH has {directory}" + (f" (CUDA {version})" if version else ""),
            expected=f"torch's own libraries of CUDA {cuda}",
            fix=(without_directory(facts, directory.rstrip("/"), "LD_LIBRARY_PATH"),),
            subject=directory,
            severity="error" if version and subjects.older(version, cuda) else "warning",
        )


@rule(
    "cudnn-shadowed",
    group="cudnn",
    subject="libcudnn",
    cause="Another cuDNN lies before the wheel's on the loader's path.",
    stages=("launch", "train"),
    sources=("https://github.com/NVIDIA/TransformerEngine/issues/1407",),
    fix=("Take its directory out of LD_LIBRARY_PATH, or install the same version.",),
)
def cudnn_shadowed(facts: Facts, _target: Target) -> Iterator[Finding]:
    """The cuDNN that torch brought is the one that loads."""
    found = [shadow(facts, item) for item in entries(facts, "libcudnn") if hidden(item)]
    yield from (item for item in found if item.severity != "ok")


@rule(
    "nccl-shadowed",
    group="nccl",
    subject="libnccl",
    cause="A system NCCL, LD_PRELOAD or VLLM_NCCL_SO_PATH comes before the wheel that torch was linked with.",
    stages=("launch", "train"),
    sources=("https://github.com/pytorch/pytorch/issues/186591",),
    fix=("Take the other NCCL off the loader's path.",),
)
def nccl_shadowed(facts: Facts, target: Target) -> Iterator[Finding]:
    """The NCCL that torch brought is the one that loads."""
    found = [shadow(facts, item) for item in entries(facts, "libnccl") if hidden(item)]
    yield from (item for item in found if item.severity != "ok")
    yield from _lacks_symbols(facts, target)
    yield from _two_wheels(facts, target)
    preloaded = [item for item in re.split(r"[:\s]", subjects.variable(facts, "LD_PRELOAD")) if "libnccl" in item]
    named = subjects.variable(facts, "VLLM_NCCL_SO_PATH") if target.engine == "vllm" else ""
    for name, path in (
        *(("LD_PRELOAD", item) for item in preloaded),
        *((("VLLM_NCCL_SO_PATH", named),) if named else ()),
    ):
        if "/nvidia/nccl/" in path or found:
            continue
        yield Finding(
            summary=f"{name} names an NCCL that torch did not bring",
            found=f"{name}={path}",
            expected="torch's own NCCL",
            fix=(remedy.unset(name),),
            severity="warning",
        )


def _two_wheels(facts: Facts, target: Target) -> Iterator[Finding]:
    """The NCCL wheels of all CUDA majors hold one file: the last that was installed is what torch gets."""
    wheels = [f"nvidia-nccl-cu{major}" for major in (11, 12, 13)]
    have = {name: version for name in wheels if (version := subjects.installed_version(facts, name))}
    if len(set(have.values())) > 1:
        yield Finding(
            summary="the NCCL wheels of two CUDA majors overwrite each other's libnccl.so.2",
            found=", ".join(f"{name} {version}" for name, version in have.items()),
            expected=f"the one of CUDA {subjects.torch_cuda(facts, target)}",
            fix=(remedy.locked(target, "Uninstall both, then install the one that torch pins"),),
        )


def _lacks_symbols(facts: Facts, target: Target) -> Iterator[Finding]:
    """The NCCL that loads, hidden or not, may be older than the functions that torch links."""
    torch = subjects.torch(facts)
    for entry in entries(facts, "libnccl") if torch is not None else ():
        have = {"torch": subjects.torch_version(facts, target), "nccl": taken_version(facts, entry) or "999"}
        for row, _ in subjects.broken(target, "nccl-symbols", have):
            yield Finding(
                summary=f"NCCL {have['nccl']} is too old for torch {have['torch']}: {row.why}",
                found=f"{entry.path} {have['nccl']}",
                expected=f"NCCL {row.need['nccl']}",
                fix=(remedy.locked(target, "Install the NCCL wheel that torch pins"),),
                subject=entry.library,
                sources=(row.source,),
            )


@rule(
    "cudnn-mixed",
    group="cudnn",
    subject="libcudnn_*",
    cause="libcudnn opens its parts by name: where one is missing beside it, another release's is taken; and the "
    "wheels of two CUDA majors install into the same folder.",
    stages=("launch", "train"),
    sources=("https://github.com/pytorch/pytorch/issues/188892", "https://github.com/pytorch/pytorch/issues/185512"),
    fix=("Keep one cuDNN: uninstall the system's, or install a wheel that has every part.",),
)
def cudnn_mixed(facts: Facts, target: Target) -> Iterator[Finding]:
    """All parts of cuDNN come from one version."""
    yield from _parts_from_two_places(facts)
    yield from _part_of_another_copy(facts, target)
    both = [subjects.installed_version(facts, f"nvidia-cudnn-cu{major}") for major in (12, 13)]
    if both[0] and both[1] and both[0] != both[1]:
        yield Finding(
            summary="the cuDNN wheels of CUDA 12 and CUDA 13 lie in one folder and overwrite each other",
            found=f"nvidia-cudnn-cu12 {both[0]}, nvidia-cudnn-cu13 {both[1]}",
            expected=f"the one of CUDA {subjects.torch_cuda(facts, target)}",
            fix=(remedy.locked(target),),
        )


def _parts_from_two_places(facts: Facts) -> Iterator[Finding]:
    names = {item.library.partition(".so")[0] for item in known(facts.loader) if item.library.startswith("libcudnn")}
    found = [item for item in entries(facts, *names) if isinstance(item.path, str)]
    main = next((item for item in found if item.library.startswith("libcudnn.")), found[0] if found else None)
    strange = [
        item for item in found if main and posixpath.dirname(str(item.path)) != posixpath.dirname(str(main.path))
    ]
    versions = [_cudnn_version(facts, item) for item in found]
    releases = {subjects.minor(version) for version in versions if version}
    if main is None or not strange or (all(versions) and len(releases) == 1):
        return
    place = posixpath.dirname(str(strange[0].path))
    by_variable = strange[0].through.startswith("LD_")
    yield Finding(
        summary="parts of cuDNN come from two places",
        found=", ".join(f"{item.path} {_cudnn_version(facts, item) or ''}".strip() for item in (main, *strange)),
        expected="all parts from one directory",
        fix=(without_directory(facts, place, strange[0].through.split()[0]),)
        if by_variable
        else _one_cudnn(facts, strange[0].library, place),
        severity="error" if len(releases) > 1 else "warning",
    )


def _one_cudnn(facts: Facts, library: str, place: str) -> tuple[Fix, ...]:
    """Ways to one cuDNN where a part comes from the system: the wheel's folder first, where it has the part."""
    wheel = cuda_wheels.folder(facts, library)
    off = Fix(text=f"Uninstall the cuDNN of {place}, or take it off the path")
    return (remedy.wheel_folder(wheel), off) if wheel and wheel != place else (off,)


def _cudnn_version(facts: Facts, entry: LoaderEntry) -> str | None:
    """Version of a part: as read, or of the copy of cuDNN that lies in its directory."""
    if entry.version:
        return entry.version
    place = posixpath.dirname(str(entry.path))
    beside = (item for item in copies(facts, "library") if posixpath.dirname(item.path) == place)
    return next((item.version for item in beside if isinstance(item.version, str)), None)


def _part_of_another_copy(facts: Facts, target: Target) -> Iterator[Finding]:
    """Find a part that the loaded release opens, that is not beside it, and that another copy has."""
    libraries = copies(facts, "library")
    for item in (copy for copy in libraries if copy.source == "pip" and isinstance(copy.version, str)):
        for row in target.limits.rows("cudnn-sublibraries", cudnn=known(item.version)):
            part = row.give["library"]
            if not item.sublibraries or any(name.startswith(part) for name in item.sublibraries):
                continue
            for other in libraries:
                if other.source != "pip" and any(name.startswith(part) for name in other.sublibraries):
                    yield Finding(
                        summary=f"cuDNN {item.version} of the wheel lacks {part}: the one of {other.path} is taken",
                        found=f"{item.path} {item.version}, {other.path} {other.version}",
                        expected="all parts from one version",
                        fix=(Fix(text=f"Uninstall the cuDNN of {posixpath.dirname(other.path)}"),),
                        sources=(row.source,),
                    )


RULES: tuple[Rule, ...] = (ld_library_path_shadows_torch, cudnn_shadowed, nccl_shadowed, cudnn_mixed)
