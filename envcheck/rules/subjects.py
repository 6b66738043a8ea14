"""What rules ask of the facts again and again: the selected toolkit, the installed torch, the visible GPUs."""

from __future__ import annotations

import posixpath
from collections.abc import Iterator
from functools import lru_cache

from envcheck.codec import Unknown
from envcheck.facts import STARTED_BY_OTHERS, Compiler, Disk, Facts, Gpu, Os, Package, Python, Resources, Toolkit
from envcheck.limits import Row, satisfies
from envcheck.model import Finding, Fix, NotApplicable, Same, Severity, Target, known, package
from envcheck.stack import Component

GIB = 1 << 30


def variable(facts: Facts, name: str) -> str:
    """Value of an environment variable; empty where it is not set."""
    return facts.environment.get(name, "")


def public(version: str) -> str:
    """Give a version without its local label: ``2.5.1+cu124`` is 2.5.1."""
    return version.partition("+")[0]


def minor(version: str) -> str:
    """Major and minor of a version: ``12.4.131`` is 12.4."""
    return ".".join(public(version).split(".")[:2])


def major(version: str) -> int:
    """Major number of a version; 0 where it does not start with one."""
    text = version.partition(".")[0]
    return int(text) if text.isdigit() else 0


def ordinal(version: str) -> tuple[int, ...]:
    """Numbers of a dotted version, for comparing; what is no number ends it."""
    numbers = []
    for part in public(version).split("."):
        if not part.isdigit():
            break
        numbers.append(int(part))
    return tuple(numbers)


def older(version: str, than: str) -> bool:
    """Tell whether a version is older, to the precision of the shorter one."""
    left, right = ordinal(version), ordinal(than)
    length = min(len(left), len(right))
    return left[:length] < right[:length]


def size(count: float) -> str:
    """Write a number of bytes for people: ``7.5 GiB``."""
    return f"{count / GIB:.1f} GiB" if count >= GIB / 10 else f"{count / (1 << 20):.0f} MiB"


def version(item: Package) -> str:
    """Give the version of an installed package; ends the rule as unknown where it cannot be read."""
    return known(item.version)


def installed_version(facts: Facts, name: str) -> str | None:
    """Public version of an installed package; None where it is absent."""
    found = package(facts, name)
    return None if found is None else public(version(found))


def versions(facts: Facts) -> dict[str, str]:
    """Public versions of all installed packages whose version is known."""
    return dict(_versions(Same(value=known(facts.packages))))


@lru_cache(maxsize=2)  # 80 rules ask; it keeps the value, so that no other gets its identity
def _versions(packages: Same) -> dict[str, str]:
    return {item.name: public(item.version) for item in packages.value if isinstance(item.version, str)}


def wanted(target: Target) -> tuple[Component, ...]:
    """Components that this engine and trainer need."""
    return target.stack.wanted(target.engine, target.trainer)


def wanted_component(target: Target, name: str) -> Component | None:
    """Find a wanted component by name."""
    return next((item for item in wanted(target) if item.name == name), None)


def wanted_version(facts: Facts, target: Target, name: str) -> str | None:
    """Version of a component that is installed, else the one that the stack wants; None where it has no part."""
    item = wanted_component(target, name)
    if not isinstance(facts.packages, Unknown):
        for distribution in (item.distribution if item else name, name):
            found = package(facts, distribution)
            if found is not None and isinstance(found.version, str):
                return public(found.version)
    return item.version if item else None


def torch(facts: Facts) -> Package | None:
    """Find the installed torch; None where there is none, or where the packages could not be read."""
    return None if isinstance(facts.packages, Unknown) else package(facts, "torch")


def torch_version(facts: Facts, target: Target) -> str:
    """Version of the installed torch, else of the stack's."""
    return wanted_version(facts, target, "torch") or "0"


def torch_cuda(facts: Facts, target: Target) -> str:
    """CUDA version that torch is built for; the stack's where no torch is installed; ends the rule for a CPU build."""
    found = torch(facts)
    if found is None:
        return label_cuda(target) or target.stack.cuda.default
    if found.cuda is None:
        msg = f"torch {found.version} is a CPU build"
        raise NotApplicable(msg)
    if isinstance(found.cuda, str):
        return minor(found.cuda)
    row = target.limits.first("torch-builds", torch=public(version(found)))
    return row.give["cuda"] if row else known(found.cuda)


def label_cuda(target: Target) -> str | None:
    """Read the CUDA version from the label of the stack's torch: ``cu124`` is 12.4."""
    item = wanted_component(target, "torch")
    label = (item.local if item else None) or ""
    digits = label.removeprefix("cu")
    return f"{digits[:-1]}.{digits[-1]}" if label.startswith("cu") and digits.isdigit() else None


def toolkits(facts: Facts) -> tuple[Toolkit, ...]:
    """All toolkits."""
    return known(facts.toolkits)


def selected_toolkit(facts: Facts) -> Toolkit | None:
    """Give the toolkit that a build started now would take."""
    return next((item for item in toolkits(facts) if item.selected), None)


def nvcc_toolkit(facts: Facts) -> Toolkit:
    """Give the toolkit whose nvcc a build would take, or end the rule as not applicable."""
    found = selected_toolkit(facts)
    if found is None or found.nvcc is None:
        msg = "there is no nvcc that a build would take"
        raise NotApplicable(msg)
    return found


def compilers(facts: Facts, *roles: str) -> tuple[Compiler, ...]:
    """Compilers that a build would take in these roles."""
    return tuple(item for item in known(facts.compilers) if item.selected and item.role in roles)


def gpus(facts: Facts) -> tuple[Gpu, ...]:
    """GPUs that this process may use: those that CUDA_VISIBLE_DEVICES leaves, where it lists indices."""
    found = known(facts.gpus)
    chosen = [item.strip() for item in variable(facts, "CUDA_VISIBLE_DEVICES").split(",") if item.strip()]
    if not chosen or not all(item.isdigit() and int(item) < len(found) for item in chosen):
        return found
    return tuple(found[int(item)] for item in chosen)


def capabilities(facts: Facts) -> tuple[str, ...]:
    """Compute capabilities of the visible GPUs, each once, as ``9.0``."""
    return tuple(sorted({known(gpu.compute_capability) for gpu in gpus(facts)}))


def need_gpu(facts: Facts) -> tuple[Gpu, ...]:
    """Give the visible GPUs, or end the rule as not applicable."""
    found = gpus(facts)
    if not found:
        msg = "no GPU is visible"
        raise NotApplicable(msg)
    return found


def need_start(facts: Facts, target: Target) -> None:
    """End a rule about the driver as not applicable for what is built in an image: none is there, none needed."""
    if target.stage == "build" and facts.driver == STARTED_BY_OTHERS:
        msg = "an image is built without a driver"
        raise NotApplicable(msg)


def system(facts: Facts) -> Os:
    """Give the operating system."""
    return known(facts.os)


def resources(facts: Facts) -> Resources:
    """Give the resources."""
    return known(facts.resources)


def python(facts: Facts) -> Python:
    """Give the target interpreter."""
    return known(facts.python)


def disk(facts: Facts, role: str) -> Disk | None:
    """Find the disk of a role."""
    return next((item for item in resources(facts).disks if item.role == role), None)


def memory(facts: Facts) -> tuple[int, int | None]:
    """Bytes of memory available to this process, and the cgroup's limit where there is one."""
    found = resources(facts)
    limit = found.memory_limit_bytes if isinstance(found.memory_limit_bytes, int) else None
    available = known(found.memory_available_bytes)
    return (available if limit is None else min(available, limit)), limit


def tool_version(facts: Facts, name: str) -> str | None:
    """Version of a tool on PATH or of the package of that name; None where there is neither."""
    for tool in known(facts.tools):
        if tool.name == name:
            return tool.version if isinstance(tool.version, str) else "0"
    return installed_version(facts, name) if not isinstance(facts.packages, Unknown) else None


def holds(row: Row, subject: str, value: str) -> bool:
    """Tell whether a version meets what a row asks of the subject; true where it asks nothing."""
    return subject not in row.need or satisfies(value, row.need[subject])


def broken(target: Target, table: str, found: dict[str, str]) -> Iterator[tuple[Row, str]]:
    """Rows of a table whose condition holds and whose need is not met, each with the subject that misses it."""
    for row in target.limits.rows(table, **found):
        for subject in row.need:
            if subject in found and not holds(row, subject, found[subject]):
                yield row, subject


def compiled_at_run_time(facts: Facts) -> bool:
    """Tell whether flashinfer compiles its kernels when it runs: a wheel for any platform, without a filled cache."""
    if isinstance(facts.packages, Unknown):
        return False
    names = {item.name: item for item in facts.packages}
    found = names.get("flashinfer-python")
    if found is None or "flashinfer-jit-cache" in names:
        return False
    if "torch" in (str(found.version) + (found.build or "")):
        return False
    return not isinstance(found.tag, str) or found.tag.endswith("-any")


def at_run_time(facts: Facts, target: Target) -> Severity:
    """How much a compiler's fault weighs: at launch it stops only what is compiled at run time, else it is a note."""
    if target.stage == "build":
        return "error"
    known(facts.packages)  # they say whether something compiles
    return "error" if compiled_at_run_time(facts) else "ok"


def note(
    summary: str, *, found: str, expected: str = "", fix: tuple[Fix, ...] = (), sources: tuple[str, ...] = ()
) -> Finding:
    """Make a finding of what is right but worth knowing."""
    return Finding(summary=summary, found=found, expected=expected, fix=fix, severity="ok", sources=sources)


def directory_of(path: str) -> str:
    """Parent directory of a path on the target host."""
    return posixpath.dirname(path)
