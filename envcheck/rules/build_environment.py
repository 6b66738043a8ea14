"""What a build needs beside compilers: headers, tools, a pip that is new enough, no isolation."""

from __future__ import annotations

import re
from collections.abc import Iterator

from envcheck.codec import Unknown
from envcheck.facts import Facts
from envcheck.model import Finding, Fix, NotApplicable, Rule, Target, known, package, rule
from envcheck.rules import remedy, subjects
from envcheck.stack import Component

KNOWN_ABSENT = re.compile(r"Python\.h|not found|not installed|no headers|missing", re.IGNORECASE)
"""How a reason reads where it is known that an interpreter has no headers: ``there is no Python.h in …``."""

NAMES_OF_TOOLS = {"cmake", "ninja"}
STOPPING = {"ninja", "packaging", "psutil"}
"""Without these flash-attn's build stops or is serial; the recipes' own environments bring the others."""
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
    if not KNOWN_ABSENT.search(python.include_dir.unknown):
        known(python.include_dir)
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
            severity="warning" if STOPPING & set(missing) else "ok",
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
    for item in known(facts.compilers):
        if item.selected and isinstance(item.version, Unknown) and "not found" in item.version.unknown:
            yield Finding(
                summary=f"the compiler that {item.why} names is not there",
                found=item.version.unknown,
                expected="a compiler that exists",
                fix=remedy.compiler(facts, target),
                subject=item.role,
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
    found = re.match(r"[A-Za-z0-9._-]+", text)
    return found[0].lower().replace("_", "-") if found else text


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
            summary=f"PIP_NO_BUILD_ISOLATION={said} keeps isolation on: pip reads it the other way round",
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


RULES: tuple[Rule, ...] = (
    python_headers_missing,
    build_tool_missing,
    build_isolation_hides_torch,
    pip_too_old,
)
