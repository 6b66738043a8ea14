"""Stack files: a named, pinned set of components. The TOML in ``stacks/`` is the sole owner of every version number."""

from __future__ import annotations

import sys
from typing import Literal

from envcheck import data
from envcheck.codec import Where, decode
from envcheck.errors import DataError, EnvcheckError
from envcheck.record import dataclass, field

DEFAULT_STACK = "verl-sglang-cu124"


@dataclass(frozen=True, kw_only=True)
class Range:
    """A version range: ``requires`` is a PEP 440 specifier, ``default`` or ``recommended`` the one to take."""

    requires: str
    default: str
    reason: str = ""


@dataclass(frozen=True, kw_only=True)
class Drivers:
    """``minimum`` runs the stack by CUDA minor-version compatibility, ``native`` with everything (PTX too)."""

    minimum: str
    native: str


@dataclass(frozen=True, kw_only=True)
class Accepted:
    """Another version that is accepted, why, until when, and who says so."""

    version: str
    reason: str
    source: str
    until: str
    needs_module: str | None = None
    """Accepted only where this module exists in the installed package."""


@dataclass(frozen=True, kw_only=True)
class Origin:
    """Where a component comes from. ``index``: a wheel of the package index; ``wheel``: a URL outside it."""

    kind: Literal["index", "sdist", "wheel", "git"]
    url: str | None = None
    mirrors: tuple[str, ...] = ()
    tag: str | None = None
    commit: str | None = None
    tree: str | None = None
    sha256: str | None = None
    submodules: dict[str, str] = field(default_factory=dict)
    """Submodule path -> commit."""
    patches: tuple[str, ...] = ()
    licence: str | None = None
    reason: str | None = None


@dataclass(frozen=True, kw_only=True)
class Recipe:
    """How a component is built from source."""

    requires: tuple[str, ...] = ()
    """Build environment beside torch, as requirements."""
    environment: dict[str, str] = field(default_factory=dict)
    """Values may use {cuda_home}, {cudnn_path}, {nccl_path}, {archs_dotted}, {archs_cmake}, {jobs}, {cxx}, {cc}."""
    preflight: tuple[str, ...] = ()
    """Rule ids that must not be errors before a compiler starts."""
    compiles: bool = True
    """With nvcc: the toolkit and the compilers count."""
    cxx: bool = False
    """With a C++ compiler only, where nvcc is not needed."""
    memory_per_job_bytes: int = 1 << 30
    threads_per_job: int = 1
    disk_bytes: int = 2 << 30
    cpu_seconds: int = 60
    """Measured, one arch, one core; for the ETA and the plan."""
    archs_variable: str | None = None
    archs: tuple[str, ...] = ()
    """Architectures that the sources can be compiled for; empty: all that nvcc knows."""
    verify_import: str | None = None

    def takes(self, value: str) -> bool:
        """Tell whether a variable of the build is filled with a value, named as ``cudnn_path`` or as ``archs_``."""
        return any(f"{{{value}" in text for text in self.environment.values())


@dataclass(frozen=True, kw_only=True)
class Component:
    """One thing in the stack."""

    name: str
    distribution: str
    """Name of the installed distribution (PEP 503 normalised)."""
    version: str
    local: str | None = None
    """Local version label the installed one carries, as ``cu124``."""
    role: Literal["base", "engine", "trainer", "kernel", "framework", "library", "tool"] = "library"
    engines: tuple[str, ...] = ()
    """Engines that need it; empty: all."""
    trainers: tuple[str, ...] = ()
    optional: bool = False
    needs: tuple[str, ...] = ()
    origin: Origin
    recipe: Recipe | None = None
    accepts: tuple[Accepted, ...] = ()
    note: str = ""
    modules: tuple[str, ...] = ()
    """Modules that must be in the installed package."""


@dataclass(frozen=True, kw_only=True)
class Trap:
    """Something in the stack that goes wrong when upstream's words are followed, and what to do instead."""

    title: str
    what: str
    do: str
    source: str
    rules: tuple[str, ...] = ()


@dataclass(frozen=True, kw_only=True)
class Exempt:
    """A package that may be newer than the cut-off date."""

    package: str
    until: str
    reason: str


@dataclass(frozen=True, kw_only=True)
class Override:
    """A requirement that replaces what packages themselves ask for, with reason, source and end."""

    requirement: str
    reason: str
    source: str
    until: str
    engines: tuple[str, ...] = ()


@dataclass(frozen=True, kw_only=True)
class Metadata:
    """Dependencies of a package that has only an sdist (or wrong metadata), stated so that no setup.py runs."""

    name: str
    version: str
    requires: tuple[str, ...] = ()
    reason: str = ""
    licence: str = ""
    """Where no wheel tells it."""
    wheel: bool = False
    """True where the index has wheels and only what they declare is corrected."""


@dataclass(frozen=True, kw_only=True)
class ReleaseWheel:
    """A prebuilt wheel outside the index; without ``sha256`` it is refused and the source is built."""

    component: str
    url: str
    reason: str
    sha256: str | None = None


@dataclass(frozen=True, kw_only=True)
class Fault:
    """A known fault of the locked set that is tolerated, with its reason."""

    package: str
    text: str
    reason: str


@dataclass(frozen=True, kw_only=True)
class Lock:
    """What the locks are resolved from, beside the components."""

    cutoff: str
    direct: tuple[str, ...] = ()
    """Requirements beside the components, all engines."""
    engine_direct: dict[str, tuple[str, ...]] = field(default_factory=dict)
    exempt: tuple[Exempt, ...] = ()
    overrides: tuple[Override, ...] = ()
    metadata: tuple[Metadata, ...] = ()
    wheels: tuple[ReleaseWheel, ...] = ()
    known_faults: tuple[Fault, ...] = ()
    allow_unsatisfied: tuple[str, ...] = ()
    """Edges ``dependent -> requirement name`` that are known to be unsatisfied and harmless."""
    proof_modules: dict[str, tuple[str, ...]] = field(default_factory=dict)
    """engine or trainer -> modules which must import without a GPU."""
    build: tuple[str, ...] = ()
    """Requirements of build.txt."""


@dataclass(frozen=True, kw_only=True)
class Image:
    """One base image: a digest is what is used, the tag is for people."""

    role: Literal["devel", "runtime"]
    tag: str
    digest: str
    platforms: dict[str, str] = field(default_factory=dict)
    packages: tuple[str, ...] = ()


@dataclass(frozen=True, kw_only=True)
class Stack:
    """Everything that one stack file says."""

    version: int
    name: str
    title: str
    summary: str
    python: Range
    cuda: Range
    cudnn: Range
    nccl: Range
    gcc: Range
    driver: Drivers
    archs: tuple[str, ...]
    engines: tuple[str, ...]
    trainers: tuple[str, ...]
    components: tuple[Component, ...]
    traps: tuple[Trap, ...] = ()
    lock: Lock
    images: tuple[Image, ...] = ()
    apt: dict[str, tuple[str, ...]] = field(default_factory=dict)

    def component(self, name: str, engine: str | None = None) -> Component:
        """Find a component by its name; where engines have one each, that of ``engine`` (else the first)."""
        for item in self.components:
            if item.name == name and (engine is None or not item.engines or engine in item.engines):
                return item
        raise KeyError(name)

    def has(self, name: str) -> bool:
        """Tell whether the stack has a component of that name."""
        return any(item.name == name for item in self.components)

    def wanted(self, engine: str, trainer: str) -> tuple[Component, ...]:
        """List the components that this engine and trainer need, optional ones too."""
        return tuple(
            item
            for item in self.components
            if (not item.engines or engine in item.engines) and (not item.trainers or trainer in item.trainers)
        )


def parse_toml(text: str, source: str) -> dict[str, object]:
    """Parse TOML, or raise DataError naming the file and the line."""
    if sys.version_info >= (3, 11):  # imported here: the shipped files are mostly parsed already
        import tomllib
    else:
        import tomli as tomllib
    try:
        return tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        raise DataError(source, "", expected="TOML", found=f"{error}") from error


def names() -> list[str]:
    """Names of the stacks that are shipped."""
    return [name.removesuffix(".toml") for name in data.names("stacks", ".toml")]


def load(name: str = DEFAULT_STACK) -> Stack:
    """Load a shipped stack by name, or a stack file by path; raise EnvcheckError naming what exists."""
    source = name if name.endswith(".toml") else f"{name}.toml"
    try:
        document = _read(name, source)
    except (OSError, UnicodeDecodeError) as error:
        import difflib  # 1 ms that only an error needs

        known = names()
        near = difflib.get_close_matches(name, known, n=max(len(known), 1), cutoff=0.0)
        reason = getattr(error, "strerror", None) or error
        is_file = name.endswith(".toml")
        what = f"the stack file {name!r} could not be read: {reason}" if is_file else f"there is no stack {name!r}"
        raise EnvcheckError(what, fix=f"take one of: {', '.join(near)}; or the path of a .toml file") from error
    return _of(document, source)


def _read(name: str, source: str) -> dict[str, object]:
    if name.endswith(".toml"):
        with open(name, encoding="utf-8") as file:
            return parse_toml(file.read(), source)
    if name not in names():  # a name is never a path
        raise FileNotFoundError(2, "not shipped")
    return data.parsed(f"stacks/{name}.toml", lambda text: parse_toml(text, source))


def parse(text: str, source: str) -> Stack:
    """Read and validate a stack file."""
    return _of(parse_toml(text, source), source)


def _of(document: dict[str, object], source: str) -> Stack:
    stack: Stack = decode(Stack, document, Where(source=source))
    _validate(stack, source)
    return stack


def _validate(stack: Stack, source: str) -> None:
    if stack.version != 1:
        raise DataError(source, "version", expected="1", found=str(stack.version))
    known = {item.name for item in stack.components}
    for index, item in enumerate(stack.components):
        place = f"components[{index}] ({item.name})"
        for need in item.needs:
            if need not in known:
                raise DataError(source, f"{place}.needs", expected=f"one of {sorted(known)}", found=repr(need))
        for engine in item.engines:
            if engine not in stack.engines:
                raise DataError(source, f"{place}.engines", expected=f"one of {stack.engines}", found=repr(engine))
        if item.origin.kind == "git" and not item.origin.commit:
            raise DataError(source, f"{place}.origin.commit", expected="a commit hash", found="no such key")
