"""Collect the facts of a host: one module per source, each guarded on its own; programs run while files are read."""

from __future__ import annotations

import time
from collections.abc import Callable
from functools import cached_property
from typing import TYPE_CHECKING, Any, TypeVar

from envcheck.codec import Unknown
from envcheck.facts import (
    STARTED_BY_OTHERS,
    Driver,
    DriverLibrary,
    Facts,
    Gpu,
    LibraryCopy,
    LoaderEntry,
    Os,
    Package,
    Python,
    Tool,
    Toolkit,
)
from envcheck.host import Host
from envcheck.probes import (
    compilers,
    container,
    details,
    dists,
    docker,
    driver,
    environment,
    libraries,
    manifest,
    nvcc,
    nvml,
    os_release,
    ray,
    resources,
    sources,
    tools,
)
from envcheck.probes import python as interpreters
from envcheck.probes.together import Later, guarded
from envcheck.record import replace

if TYPE_CHECKING:
    from envcheck.probes import binaries

T = TypeVar("T")
NOT_ASKED = Unknown("not asked for")


def collect(host: Host, *, python: str | None = None, only: frozenset[str] | None = None) -> Facts:
    """Read the facts of a host, or only some keys of them; raise HostError where ``python`` names no interpreter."""
    facts = Collection(host, interpreters.start(host, python), only).facts()
    # Of an image, what its start decides is not known: how much shared memory, which limits, whether GPUs are given.
    return started_by_others(facts) if getattr(host, "at_rest", False) else facts


def started_by_others(facts: Facts) -> Facts:
    """Make unknown what depends on how a container of this image is started."""
    why = STARTED_BY_OTHERS
    found = facts.resources
    if not isinstance(found, Unknown):
        found = replace(found, shm_bytes=why, hostname_resolves=why, memory_limit_bytes=why)
        found = replace(found, max_processes=why, open_files=why, locked_memory=why)
        found = replace(found, shm_free_bytes=None, tasks_limit=None, interfaces=())
    held = facts.container
    if held is not None and not isinstance(held, Unknown):
        held = replace(held, start=())
    return replace(facts, resources=found, container=held, driver=why)


class Collection:
    """One run over a host; what several probes need is read once."""

    def __init__(
        self,
        host: Host,
        target: Callable[[], interpreters.Target | Unknown],
        only: frozenset[str] | None,
        meanwhile: Callable[[], object] = lambda: None,
        begun: binaries.Begun | Unknown | None = None,
    ) -> None:
        """Take a target interpreter that was asked what it is, and its binaries where somebody reads them already."""
        self.host = host
        self.only = only
        self._target = target
        self._toolkits: nvcc.Started | Unknown = NOT_ASKED
        self._tools: tools.Started | Unknown = NOT_ASKED
        self._management: Later[nvml.Management] | None = None
        self._meanwhile = meanwhile
        self._begun = begun

    @cached_property
    def target(self) -> interpreters.Target | Unknown:
        """The target interpreter; raises HostError where the one that was named is none."""
        return self._target()

    def _start_rest(self) -> None:
        """Start what needs the target; binaries first: copies of this process, which has no threads yet, read them."""
        directory = self._directory
        if self.wants("packages") or self.wants("loader"):
            _ = self._binaries
        self._docker = self._start("docker", lambda: docker.start(self.host))
        self._hostname = self._start("resources", lambda: resources.start_hostname(self.host))
        self._compilers = self._start("compilers", lambda: compilers.start(self.host))
        self._tools = self._start("tools", lambda: tools.start(self.host, directory))
        self._toolkits = guarded(lambda: nvcc.start(self.host, self._sites))
        if self.wants("driver") or self.wants("gpus"):
            self._management = self._start_management()
        self._meanwhile()

    @cached_property
    def _directory(self) -> str | None:
        return None if isinstance(self.target, Unknown) else self.target.executable.rpartition("/")[0]

    def wants(self, key: str) -> bool:
        """Tell whether a key was asked for."""
        return self.only is None or key in self.only

    def _start(self, key: str, start: Callable[[], T]) -> T | Unknown:
        return guarded(start) if self.wants(key) else NOT_ASKED

    def _start_management(self) -> Later[nvml.Management] | None:
        """Ask the driver in a thread, where there is one to ask."""
        found = guarded(lambda: self._driver_libraries)
        names = [] if isinstance(found, Unknown) else found
        library = next((item.path for item in names if item.name == nvml.LIBRARY and item.kind == "driver"), None)
        if library is None and self.host.which("nvidia-smi") is None:
            return None
        return Later(lambda: nvml.probe(self.host, library), name="the driver")

    def facts(self) -> Facts:
        """Read the files, then gather what the programs said."""
        self._start_rest()
        host = self.host
        facts: dict[str, Any] = {  # each value is its probe's; the tests decode the document
            "os": self._ask("os", lambda: self.system),
            "container": self._ask("container", lambda: container.probe(host), None),
            "environment": environment.probe(host.environ) if self.wants("environment") else {},
            "resources": self._ask("resources", lambda: resources.probe(host, self._hostname)),
            "python": self._ask("python", self._python_with_shadows),
            "sources": self._ask("sources", lambda: sources.probe(host, self._known_packages)),
            "manifest": self._ask("manifest", lambda: manifest.probe(host), None),
            "ray": self._ask("ray", lambda: ray.probe(host), None),
            "docker": self._finish("docker", self._docker, lambda it: docker.finish(host, it), None),
            "toolkits": self._finish("toolkits", self._toolkits, nvcc.finish),
            "compilers": self._finish("compilers", self._compilers, lambda it: compilers.finish(host, it)),
            "tools": self._finish("tools", self._tools, self._finished_tools),
            "gpus": self._ask("gpus", self._gpus),
            # From here on, what waits for the binaries.
            "packages": self._ask("packages", lambda: self.packages_with_binaries),
            "loader": self._ask("loader", lambda: self.loader),
            "cudnn": self._ask("cudnn", lambda: self._copies(libraries.CUDNN)),
            "nccl": self._ask("nccl", lambda: self._copies(libraries.NCCL)),
            "driver": self._ask("driver", self._driver),
        }
        return Facts(collected=time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()), host=_name(host), **facts)

    def _ask(self, key: str, probe: Callable[[], T], absent: Unknown | None = NOT_ASKED) -> T | Unknown | None:
        return guarded(probe) if self.wants(key) else absent

    def _finish(
        self, key: str, started: T | Unknown, finish: Callable[[T], object], absent: Unknown | None = NOT_ASKED
    ) -> object:
        """End a probe that was started; where its start failed, that is the fact."""
        if not self.wants(key):
            return absent
        return started if isinstance(started, Unknown) else guarded(lambda: finish(started))

    @cached_property
    def system(self) -> Os:
        """The operating system."""
        return os_release.probe(self.host)

    @cached_property
    def python(self) -> Python | Unknown:
        """The target interpreter, without what shadows its packages."""
        return interpreters.probe(self.host, self.target, {})

    @property
    def _sites(self) -> tuple[str, ...]:
        return () if isinstance(self.python, Unknown) else self.python.site_packages

    @cached_property
    def packages(self) -> tuple[Package, ...] | Unknown:
        """The packages of the target by their metadata."""
        return guarded(lambda: dists.probe(self.host, self.python))

    @property
    def _known_packages(self) -> tuple[Package, ...]:
        return () if isinstance(self.packages, Unknown) else self.packages

    @cached_property
    def _binaries(self) -> binaries.Begun | Unknown:
        """Begin to read the binaries; where that is not possible, why."""
        if self._begun is not None:
            return self._begun
        from envcheck.probes import binaries

        return binaries.of_target(self.host, lambda: self.target)

    @cached_property
    def _found(self) -> binaries.Found | Unknown:
        """What the binaries said; unknown where they or the packages cannot be read."""
        begun = self._binaries
        found = begun if isinstance(begun, Unknown) else guarded(lambda: begun(lambda: self._known_packages))
        return self.packages if isinstance(self.packages, Unknown) else found

    @cached_property
    def packages_with_binaries(self) -> tuple[Package, ...] | Unknown:
        """The packages of the target; where their binaries cannot be read at all, by their metadata."""
        packages, found = self.packages, self._found
        if isinstance(packages, Unknown) or isinstance(found, Unknown):
            return packages
        return tuple(found.packages.get(item.name, item) for item in packages)

    @property
    def loader(self) -> tuple[LoaderEntry, ...] | Unknown:
        """Which file each library resolves to."""
        return self._found if isinstance(self._found, Unknown) else self._found.loader

    @property
    def _known_loader(self) -> tuple[LoaderEntry, ...]:
        found = guarded(lambda: self.loader)
        return () if isinstance(found, Unknown) else found

    @property
    def _known_toolkits(self) -> tuple[Toolkit, ...]:
        return () if isinstance(self._toolkits, Unknown) else self._toolkits.toolkits

    @cached_property
    def _driver_libraries(self) -> list[DriverLibrary]:
        from envcheck.binary import ldcache

        machine = self.system.machine
        cache = ldcache.read(self.host, machine if isinstance(machine, str) else "x86_64")
        return driver.libraries(self.host, self._known_toolkits, cache)

    @cached_property
    def _managed(self) -> nvml.Management:
        if self._management is None:
            return nvml.silent("neither libnvidia-ml.so.1 nor nvidia-smi was found")
        found = self._management.result()
        return nvml.silent(found.unknown) if isinstance(found, Unknown) else found

    def _driver(self) -> Driver:
        return driver.probe(self.host, self._driver_libraries, self._managed, self._known_loader)

    def _gpus(self) -> tuple[Gpu, ...]:
        if self._managed.error is None or self._managed.gpus:
            return self._managed.gpus
        in_container = container.which(self.host) is not None
        return () if in_container else nvml.without_driver(self.host)

    def _copies(self, wanted: libraries.Wanted) -> tuple[LibraryCopy, ...]:
        return libraries.probe(self.host, wanted, self._known_toolkits, self._known_packages, self._known_loader)

    def _finished_tools(self, started: tools.Started) -> tuple[Tool, ...]:
        return tools.finish(started, self._known_packages, self._directory)

    def _python_with_shadows(self) -> Python | Unknown:
        names = interpreters.SHADOWABLE
        site_of = {name: item.location for item in self._known_packages for name in names if _imports(item, name)}
        installed = {name: f"{site}/{name}" for name, site in site_of.items()}
        return interpreters.probe(self.host, self.target, installed)


def _imports(package: Package, name: str) -> bool:
    """Tell whether a package that is not editable gives an import name."""
    own = details.IMPORT_NAMES.get(name, name.replace("_", "-"))
    return package.name == own and not (package.origin and package.origin.editable)


def _name(host: Host) -> str:
    try:
        return host.read("/proc/sys/kernel/hostname", 256).strip()
    except OSError:
        return ""
