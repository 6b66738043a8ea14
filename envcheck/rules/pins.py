"""What is installed against what the stack pins, and what is installed at all."""

from __future__ import annotations

from collections.abc import Iterator

from envcheck.choices import accepted
from envcheck.codec import Unknown
from envcheck.facts import Facts, Package
from envcheck.limits import Row, satisfies
from envcheck.model import Finding, Fix, NotApplicable, Rule, Severity, Target, known, package, rule
from envcheck.rules import remedy, subjects
from envcheck.stack import Component


@rule(
    "pin-differs",
    group="packages",
    subject="packages",
    cause="An unpinned install, or another package's dependency, took another version than the set that was tried "
    "together.",
    stages=("build", "launch", "train"),
    sources=("https://github.com/verl-project/verl/issues/2589", "https://github.com/verl-project/verl/issues/2921"),
    fix=("Install from the lock: nox -s env.",),
)
def pin_differs(facts: Facts, target: Target) -> Iterator[Finding]:
    """Every component of the stack is installed in the version that the stack pins or accepts."""
    wanted = subjects.wanted(target)
    there = {item.distribution: found for item in wanted if (found := package(facts, item.distribution))}
    if not there and target.stage == "build":
        msg = "nothing of the stack is installed in the target environment yet"
        raise NotApplicable(msg)
    for item in wanted:
        found = there.get(item.distribution)
        if found is None:
            yield from _missing(facts, target, item)
        elif known(found.version) and not accepted(item, found):
            yield _other_version(target, item, found)
        else:
            yield from _other_build(target, item, found)


def _missing(facts: Facts, target: Target, item: Component) -> Iterator[Finding]:
    if target.stage == "build" or item.optional or item.name == "megatron" or _is_imported(facts, item):
        return
    yield Finding(
        summary=f"{item.name} is not installed",
        found=f"no {item.distribution} in the target environment",
        expected=f"{item.name} {item.version}",
        fix=(_get(target, item),),
        subject=item.name,
        severity="error" if item.role != "library" else "warning",
    )


def _is_imported(facts: Facts, item: Component) -> bool:
    """A checkout on PYTHONPATH counts as installed."""
    sources = facts.sources if isinstance(facts.sources, tuple) else ()
    return any(source.importable and source.name.lower().startswith(item.name[:8]) for source in sources)


def _get(target: Target, item: Component) -> Fix:
    if item.recipe is None:
        return remedy.locked(target)
    return remedy.build(target, item.name, f"Build {item.name} {item.version}")


def _other_version(target: Target, item: Component, found: Package) -> Finding:
    decides = item.role == "base" or (item.role == "engine" and target.stage != "build")
    severity: Severity = "error" if decides else "warning"
    also = "".join(f" or {other.version}" for other in item.accepts)
    return Finding(
        summary=f"{item.name} {found.version} is installed, the stack pins {item.version}",
        found=f"{item.distribution} {found.version}",
        expected=f"{item.distribution} {item.version}{also}",
        fix=(_get(target, item),),
        subject=item.name,
        severity=severity,
    )


def _other_build(target: Target, item: Component, found: Package) -> Iterator[Finding]:
    """Compare what the version does not say: torch's CUDA, and the commit of a git install."""
    cuda = subjects.label_cuda(target) if item.name == "torch" else None
    if cuda and isinstance(found.cuda, str) and subjects.minor(found.cuda) != cuda:
        yield Finding(
            summary=f"torch {found.version} is the build for CUDA {found.cuda}, the stack pins the one for CUDA {cuda}",
            found=f"torch {found.version}, CUDA {found.cuda}",
            expected=f"torch {item.version}+{item.local}",
            fix=(remedy.locked(target),),
            subject="torch",
            sources=("https://github.com/flashinfer-ai/flashinfer/pull/4284",),
        )
    commit = found.origin.commit if found.origin else None
    if commit and item.origin.commit and commit != item.origin.commit and not item.origin.patches:
        yield Finding(
            summary=f"{item.name} is another commit than the stack pins",
            found=f"{item.distribution} {found.version} at {commit[:12]}",
            expected=item.origin.commit[:12],
            fix=(_get(target, item),),
            subject=item.name,
            severity="warning",
        )


@rule(
    "python-unsupported",
    group="packages",
    subject="python",
    cause="The wheels of the stack exist for some interpreters only.",
    stages=("build", "launch", "train"),
    sources=("https://github.com/ray-project/ray/blob/master/python/setup.py",),
    fix=("Make the environment with an interpreter that the stack supports.",),
)
def python_unsupported(facts: Facts, target: Target) -> Iterator[Finding]:
    """The target interpreter is a CPython that the stack's wheels exist for."""
    python = subjects.python(facts)
    version = known(python.version)
    fix = (
        Fix(
            text=f"Make an environment with Python {target.stack.python.default}",
            commands=(
                f"nox -s env -- --stack {target.stack.name} --engine {target.engine} --trainer {target.trainer}",
            ),
        ),
    )
    if python.implementation != "cpython":
        yield Finding(
            summary=f"{python.implementation} is no CPython",
            found=f"{python.executable} ({python.implementation} {version})",
            expected=f"CPython {target.stack.python.requires}",
            fix=fix,
        )
    elif not satisfies(version, target.stack.python.requires):
        yield Finding(
            summary=f"the stack has no wheels for Python {version}",
            found=f"{python.executable} {version}",
            expected=f"Python {target.stack.python.requires}: {target.stack.python.reason}".rstrip(": "),
            fix=fix,
        )


@rule(
    "torch-cpu-build",
    group="packages",
    subject="torch",
    cause="The package index has CPU builds of torch for aarch64 (through 2.9), and other indexes have them for x86-64 "
    "too.",
    stages=("build", "launch", "train"),
    sources=("https://github.com/pytorch/pytorch/issues/160162", "https://github.com/OpenRAL/openral/pull/99"),
    fix=("Install the CUDA build that the lock names.",),
)
def torch_cpu_build(facts: Facts, target: Target) -> Iterator[Finding]:
    """torch is, or will be, a CUDA build."""
    found = subjects.torch(facts)
    label = f"{found.version}+{found.build or ''}" if found is not None else ""
    if found is not None and ("+cpu" in label or (found.cuda is None and "+cu" not in label)):
        yield Finding(
            summary=f"torch {found.version} is a CPU build",
            found=f"torch {found.version} without CUDA",
            expected=f"torch {subjects.torch_version(facts, target)} for CUDA {target.stack.cuda.default}",
            fix=_other_index() if _cpu_only(target, _machine(facts)) else (remedy.locked(target),),
        )
    elif found is not None and "+cu" not in label:
        known(found.cuda)
    elif found is None and (row := _cpu_only(target, known(subjects.system(facts).machine))) is not None:
        version = subjects.torch_version(facts, target)
        yield Finding(
            summary=f"torch {version} for CUDA cannot be installed from the package index on aarch64",
            found=f"machine aarch64: {row.give['wheel']}",
            expected="x86_64, or torch 2.10 and newer",
            fix=_other_index(),
            sources=(row.source,),
        )


def _machine(facts: Facts) -> str:
    machine = "" if isinstance(facts.os, Unknown) else facts.os.machine
    return machine if isinstance(machine, str) else ""


def _cpu_only(target: Target, machine: str) -> Row | None:
    """Row that says that the package index, which locks are of, has only CPU builds of the stack's torch for it."""
    item = subjects.wanted_component(target, "torch")
    if item is None or machine != "aarch64":
        return None
    return target.limits.first("torch-aarch64", torch=item.version)


def _other_index() -> tuple[Fix, ...]:
    return (Fix(text="Take a stack with torch 2.10 or newer, or the CUDA index of the PyTorch project"),)


@rule(
    "metadata-damaged",
    group="packages",
    subject="packages",
    cause="An install was interrupted, a package half removed, or two tools installed over each other.",
    stages=("build", "launch", "train"),
    sources=("https://packaging.python.org/en/latest/specifications/recording-installed-packages/",),
    fix=("Uninstall the package until none is left, remove what remains, install it again.",),
)
def metadata_damaged(facts: Facts, target: Target) -> Iterator[Finding]:
    """Every installed package is whole."""
    wanted = {item.distribution for item in subjects.wanted(target)}
    for item in known(facts.packages):
        if item.damage:
            yield Finding(
                summary=f"{item.name} is damaged: {item.damage[0]}",
                found="; ".join(item.damage),
                expected=f"one whole {item.name}",
                fix=(remedy.install(facts, "Install it again", "--force-reinstall", "--no-deps", _named(item)),),
                subject=item.name,
                severity="error" if item.name in wanted else "warning",
            )


def _named(item: Package) -> str:
    return f"{item.name}=={item.version}" if isinstance(item.version, str) else item.name


@rule(
    "name-confusion",
    group="packages",
    subject="packages",
    cause="The package index has other projects under the names of projects that are not on it.",
    stages=("build", "launch", "train"),
    sources=("https://github.com/NVIDIA/apex#from-source",),
    fix=("Uninstall it and install the project that was meant.",),
)
def name_confusion(facts: Facts, target: Target) -> Iterator[Finding]:
    """No installed package only shares its name with what is meant."""
    for row in target.limits.rows("names"):
        item = package(facts, row.give["name"])
        if item is None:
            continue
        said = " ".join([item.summary or "", item.home or "", item.origin.url if item.origin else ""]).lower()
        if any(mark in said for mark in row.give["marks"].split()) or (item.name == "apex" and _is_nvidia(item)):
            continue
        yield Finding(
            summary=f"the installed {item.name} is not {row.give['meant']}: {row.why}",
            found=f"{item.name} {item.version}" + (f": {item.summary}" if item.summary else ""),
            expected=row.give["meant"],
            fix=(_meant(facts, target, row),),
            subject=item.name,
            sources=(row.source,),
        )


def _meant(facts: Facts, target: Target, row: Row) -> Fix:
    """Build the one that is meant where the stack pins it; install it where it does not."""
    if target.stack.has(row.give["name"]):
        return remedy.build(target, row.give["name"], "Build the one that is meant; nox -s env then puts it in")
    return remedy.install(facts, "Install the one that is meant", "--no-build-isolation", row.give["install"])


def _is_nvidia(item: Package) -> bool:
    """NVIDIA's apex has version 0.1, CUDA extensions and a module amp."""
    return "apex.amp" in item.modules or bool(item.extensions) or (item.version == "0.1" and item.summary is None)


@rule(
    "module-shadowed",
    group="packages",
    subject="sys.path",
    cause="A folder of the working directory or of PYTHONPATH has the name of a package and is imported instead.",
    stages=("launch", "train"),
    sources=("https://github.com/vllm-project/vllm/issues/16622",),
    fix=("Start from another directory, or rename the folder.",),
)
def module_shadowed(facts: Facts, _target: Target) -> Iterator[Finding]:
    """No folder hides an installed package."""
    for text in subjects.python(facts).shadowed:
        name, _, path = text.partition("=")
        yield Finding(
            summary=f"import {name} takes {path or 'a folder'}, not the installed package",
            found=path or text,
            expected=f"the installed {name}",
            fix=(Fix(text="Start from another directory, rename the folder, or take it off PYTHONPATH"),),
            subject=name,
        )


RULES: tuple[Rule, ...] = (
    pin_differs,
    python_unsupported,
    torch_cpu_build,
    metadata_damaged,
    name_confusion,
    module_shadowed,
)
