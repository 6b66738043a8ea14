"""What a build needs beside compilers: headers, tools, memory, disk, a complete source tree, no isolation."""

from __future__ import annotations

from collections.abc import Iterator

from envcheck.codec import Unknown
from envcheck.facts import Facts
from envcheck.model import Finding, Fix, NotApplicable, Rule, Target, known, package, rule
from envcheck.rules import remedy, subjects
from envcheck.stack import Component

NAMES_OF_TOOLS = {"cmake", "ninja"}
TRUE = {"1", "true", "yes", "on", "t", "y"}


def to_build(facts: Facts, target: Target) -> tuple[Component, ...]:
    """Components that are compiled from source and not installed yet; all of those where none is missing."""
    compiled = tuple(
        item for item in subjects.wanted(target) if item.recipe and item.recipe.compiles and not item.optional
    )
    if isinstance(facts.packages, Unknown):
        return compiled
    return tuple(item for item in compiled if package(facts, item.distribution) is None) or compiled


@rule(
    "python-headers-missing",
    group="toolkit",
    subject="Python.h",
    cause="The distribution ships the interpreter's headers apart; extensions need them, and triton compiles a C stub "
    "with them when a model starts.",
    stages=("build", "launch"),
    sources=("https://github.com/sgl-project/sglang/issues/1117",),
    fix=("Install the development package of the interpreter in use, or take an interpreter that has its headers.",),
)
def python_headers_missing(facts: Facts, target: Target) -> Iterator[Finding]:
    """The headers of the target interpreter are there."""
    python = subjects.python(facts)
    if not isinstance(python.include_dir, Unknown):
        return
    release = subjects.minor(known(python.version))
    named = {"apt": f"python{release}-dev", "dnf": f"python{release}-devel", "zypper": _suse_headers(release)}
    fixes = remedy.system_packages(facts, f"the headers of Python {release}", named)
    yield Finding(
        summary=f"Python.h of {python.executable} is not there",
        found=python.include_dir.unknown,
        expected=f"Python.h of Python {release}",
        fix=(
            *fixes,
            Fix(text="Or take an interpreter that brings its headers", commands=(f"uv python install {release}",)),
        )
        if target.stage == "build"
        else fixes,
    )


def _suse_headers(release: str) -> str:
    return f"python{release.replace('.', '')}-devel"


@rule(
    "build-tool-missing",
    group="toolkit",
    subject="build tools",
    cause="A build without isolation takes its tools from the environment that it runs in: there they have to be.",
    stages=("build",),
    sources=(
        "https://github.com/Dao-AILab/flash-attention/issues/945",
        "https://github.com/OpenRLHF/OpenRLHF/issues/243",
    ),
    fix=("Install wheel, packaging, ninja and psutil first; install a C++ compiler and git from the distribution.",),
)
def build_tool_missing(facts: Facts, target: Target) -> Iterator[Finding]:
    """Every tool that the builds call is there and works."""
    yield from _programs(facts, target)
    for tool in known(facts.tools):
        if tool.name in NAMES_OF_TOOLS and tool.works is False:
            yield Finding(
                summary=f"{tool.name} does not run: without it builds are serial or stop",
                found=tool.path,
                expected=f"a {tool.name} that answers --version",
                fix=(remedy.install(facts, f"Install {tool.name} anew", "--force-reinstall", tool.name),),
                subject=tool.name,
                severity="warning",
            )
    missing = _python_tools(facts, target)
    if missing:
        yield Finding(
            summary=f"builds without isolation will miss {', '.join(missing)}",
            found=f"{', '.join(missing)} not installed beside torch",
            expected="the build tools of the stack's recipes in the environment that has torch",
            fix=(remedy.install(facts, "Install them", *missing),),
            severity="warning",
        )


def _programs(facts: Facts, target: Target) -> Iterator[Finding]:
    if known(facts.compilers) == () or not any(
        "cxx" in item.role or "+" in item.path for item in known(facts.compilers)
    ):
        yield Finding(
            summary="there is no C++ compiler on this host",
            found="neither g++ nor c++ on PATH",
            expected=f"GCC {target.stack.gcc.requires}",
            fix=remedy.compiler(facts, target),
            subject="g++",
        )
    from_git = [item.name for item in to_build(facts, target) if item.origin.kind == "git"]
    if from_git and not any(tool.name == "git" for tool in known(facts.tools)):
        yield Finding(
            summary=f"git is not there, which the sources of {', '.join(from_git)} need",
            found="no git on PATH",
            expected="git",
            fix=remedy.system_packages(facts, "git", {"apt": "git", "dnf": "git", "zypper": "git", "conda": "git"}),
            subject="git",
        )


def _python_tools(facts: Facts, target: Target) -> list[str]:
    """Build requirements that the environment with torch lacks; none are asked for before torch is there."""
    if subjects.torch(facts) is None:
        return []
    have = set(subjects.versions(facts)) | {tool.name for tool in known(facts.tools) if tool.works is not False}
    asked = {
        _requirement_name(text)
        for item in to_build(facts, target)
        for text in (item.recipe.requires if item.recipe else ())
    }
    return sorted(asked - have)


def _requirement_name(text: str) -> str:
    return text.split(";")[0].split("[")[0].split("=")[0].split("<")[0].split(">")[0].split("!")[0].strip().lower()


@rule(
    "build-isolation-hides-torch",
    group="toolkit",
    subject="pip, uv",
    cause="An isolated build sees only what the sources declare: torch is missing there, or another torch than the "
    "installed one is downloaded. pip reads PIP_NO_BUILD_ISOLATION=1 as the contrary of what it says.",
    stages=("build",),
    sources=(
        "https://github.com/Dao-AILab/flash-attention/issues/219",
        "https://github.com/GeeeekExplorer/nano-vllm/issues/96",
        "https://github.com/pypa/pip/issues/5735",
    ),
    fix=("Install torch first, then build with --no-build-isolation.",),
)
def build_isolation_hides_torch(facts: Facts, target: Target) -> Iterator[Finding]:
    """Builds see the torch that is installed."""
    said = subjects.variable(facts, "PIP_NO_BUILD_ISOLATION").lower()
    if said in TRUE:
        yield Finding(
            summary=f"PIP_NO_BUILD_ISOLATION={said} keeps build isolation on: pip reads the variable the other way round",
            found=f"PIP_NO_BUILD_ISOLATION={said}",
            expected="PIP_NO_BUILD_ISOLATION=0, or the option --no-build-isolation",
            fix=(remedy.exports("Turn isolation off", PIP_NO_BUILD_ISOLATION="0"),),
        )
    elif said not in {"0", "false", "no", "off"}:
        names = [item.name for item in to_build(facts, target)]
        if names:
            yield subjects.note(
                f"build {', '.join(names)} with --no-build-isolation: isolated builds do not see torch",
                found="isolation is the default of pip and uv; the commands of the plan turn it off",
            )


@rule(
    "pip-too-old",
    group="toolkit",
    subject="pip",
    cause="A virtual environment starts with the pip of its interpreter, which may be years old.",
    stages=("build",),
    sources=("https://github.com/NVIDIA-NeMo/Speech/issues/8814",),
    fix=("python -m pip install --upgrade pip",),
)
def pip_too_old(facts: Facts, target: Target) -> Iterator[Finding]:
    """The pip that installs is new enough for --config-settings and today's wheel tags."""
    pip = subjects.installed_version(facts, "pip") or subjects.tool_version(facts, "pip")
    if pip is None:
        msg = "there is no pip (uv installs)"
        raise NotApplicable(msg)
    rows = target.limits.rows("pip", pip=pip)
    if not rows:
        return
    has_uv = any(tool.name == "uv" for tool in known(facts.tools))
    executable = "python" if isinstance(facts.python, Unknown) else facts.python.executable
    yield Finding(
        summary=f"pip {pip} lacks {rows[-1].give['lacks']}",
        found=f"pip {pip}",
        expected="pip 22.1 or newer (23.1 for apex)",
        fix=(Fix(text="Update pip", commands=(f"{executable} -m pip install --upgrade pip",)),),
        severity="ok" if has_uv and len(rows) == 1 else "warning",
        sources=(rows[-1].source,),
    )


@rule(
    "build-needs-more-memory",
    group="toolkit",
    subject="memory",
    cause="Each parallel nvcc takes gigabytes; when memory ends the kernel kills a compiler and the build says Killed.",
    stages=("build",),
    sources=(
        "https://github.com/Dao-AILab/flash-attention/issues/347",
        "https://github.com/Dao-AILab/flash-attention/issues/389",
    ),
    fix=("Set MAX_JOBS to the available memory divided by the memory of one job.",),
)
def build_needs_more_memory(facts: Facts, target: Target) -> Iterator[Finding]:
    """The memory holds as many compilers as will run side by side."""
    building = [item for item in to_build(facts, target) if item.recipe]
    if not building:
        msg = "nothing has to be compiled"
        raise NotApplicable(msg)
    available, limit = subjects.memory(facts)
    place = f"{subjects.size(available)} available" + (f", cgroup limit {subjects.size(limit)}" if limit else "")
    worst = max(building, key=lambda item: item.recipe.memory_per_job_bytes if item.recipe else 0)
    need = worst.recipe.memory_per_job_bytes if worst.recipe else 0
    fitting = available // need if need else 0
    said = subjects.variable(facts, "MAX_JOBS")
    jobs = int(said) if said.isdigit() else 0
    if fitting < 1 or jobs > fitting:
        yield Finding(
            summary=f"{worst.name} needs {subjects.size(need)} for each compiler job"
            + (f", MAX_JOBS={jobs} asks for {subjects.size(need * jobs)}" if jobs > max(fitting, 1) else ""),
            found=place,
            expected=f"{subjects.size(need * max(jobs, 1))}, or MAX_JOBS={max(fitting, 1)}",
            fix=(remedy.exports("Run fewer compilers side by side", MAX_JOBS=str(max(fitting, 1)), NVCC_THREADS="1"),)
            if fitting
            else (Fix(text=f"Free memory, raise the limit, or take a prebuilt wheel of {worst.name}"),),
        )
    elif not jobs and fitting < known(subjects.resources(facts).cpus):
        yield subjects.note(
            f"build {worst.name} with MAX_JOBS={fitting}: one job per core would need more memory than is there",
            found=place,
            fix=(remedy.exports("Outside the plan's commands, set", MAX_JOBS=str(fitting)),),
        )


@rule(
    "build-needs-more-disk",
    group="toolkit",
    subject="disk",
    cause="Object files and unpacked sources go to the work directory and to TMPDIR, which may be a small file system.",
    stages=("build",),
    sources=("https://github.com/vllm-project/vllm/issues/7025",),
    fix=("Point TMPDIR, PIP_CACHE_DIR and UV_CACHE_DIR at a file system with space.",),
)
def build_needs_more_disk(facts: Facts, target: Target) -> Iterator[Finding]:
    """The file systems that builds write to have the space that they take."""
    needs = {"work": max((item.recipe.disk_bytes for item in to_build(facts, target) if item.recipe), default=0)}
    needs["tmp"] = int(threshold(target, "temporary_bytes"))
    for role, need in needs.items():
        place = subjects.disk(facts, role)
        if place is None or known(place.free_bytes) >= need:
            continue
        roomy = max(subjects.resources(facts).disks, key=lambda item: _free(item.free_bytes)).path
        yield Finding(
            summary=f"{place.path} has {subjects.size(known(place.free_bytes))} free, a build takes up to {subjects.size(need)}",
            found=f"{subjects.size(known(place.free_bytes))} free in {place.path} ({role})",
            expected=subjects.size(need),
            fix=(remedy.exports("Work where there is space", TMPDIR=roomy),),
            subject=place.path,
            severity="error" if role == "work" else "warning",
        )


def _free(value: int | Unknown) -> int:
    return value if isinstance(value, int) else 0


def threshold(target: Target, name: str) -> float:
    """Read one number of the host table."""
    return next(float(row.give[name]) for row in target.limits.rows("host") if name in row.give)


@rule(
    "submodule-missing",
    group="toolkit",
    subject="sources",
    cause="The repository was cloned without --recursive, or downloaded as an archive: its third-party folders are empty.",
    stages=("build",),
    sources=("https://github.com/NVIDIA/TransformerEngine/pull/307",),
    fix=("git submodule update --init --recursive",),
)
def submodule_missing(facts: Facts, _target: Target) -> Iterator[Finding]:
    """Every checkout has the files of its submodules."""
    if not known(facts.sources):
        msg = "there is no checkout of a component"
        raise NotApplicable(msg)
    for source in known(facts.sources):
        empty = [path for path, there in source.submodules.items() if not there]
        if empty:
            yield Finding(
                summary=f"{source.name} was cloned without its submodules",
                found=f"{', '.join(empty)} in {source.path}: empty",
                expected="the files of every submodule",
                fix=(Fix(text="Fetch them", commands=(f"git -C {source.path} submodule update --init --recursive",)),),
                subject=source.name,
            )


RULES: tuple[Rule, ...] = (
    python_headers_missing,
    build_tool_missing,
    build_isolation_hides_torch,
    pip_too_old,
    build_needs_more_memory,
    build_needs_more_disk,
    submodule_missing,
)
