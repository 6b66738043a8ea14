"""Collect the facts of a host: one module per source, each guarded on its own, files before programs, side by side."""

from __future__ import annotations

import time
from collections.abc import Callable
from functools import cached_property
from typing import Any, TypeVar

from envcheck.codec import Unknown
from envcheck.facts import (
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

T = TypeVar("T")
NOT_ASKED = Unknown("not asked for")


def collect(host: Host, *, python: str | None = None, only: frozenset[str] | None = None) -> Facts:
    """Read the facts of a host, or only some keys of them; raise HostError where ``python`` names no interpreter."""
    return Collection(host, python, only).facts()


class Collection:
    """One run over a host; what several probes need is read once."""

    def __init__(self, host: Host, python: str | None, only: frozenset[str] | None) -> None:
        """Start what waits for programs; resolve the target interpreter."""
        self.host = host
        self.only = only
        self._docker = self._later("docker", docker.probe)
        self._compilers = self._later("compilers", compilers.probe)
        self._resources = self._later("resources", resources.probe)
        self.target = interpreters.resolve(host, python)
        directory = None if isinstance(self.target, Unknown) else self.target.executable.rpartition("/")[0]
        self._directory = directory
        self._tools = tools.start(host, directory) if self.wants("tools") else None
        self._management = (
            Later(lambda: nvml.probe(host, self._nvml_library), name="the driver")
            if self.wants("driver") or self.wants("gpus")
            else None
        )

    def wants(self, key: str) -> bool:
        """Tell whether a key was asked for."""
        return self.only is None or key in self.only

    def _later(self, key: str, probe: Callable[[Host], T]) -> Later[T] | None:
        return Later(lambda: probe(self.host), name=key) if self.wants(key) else None

    def facts(self) -> Facts:
        """Read what is left, then gather."""
        host = self.host
        facts: dict[str, Any] = {  # each value is its probe's; the tests decode the document
            "os": self.ask("os", lambda: self.system),
            "container": self.ask("container", lambda: container.probe(host), None),
            "environment": environment.probe(host.environ) if self.wants("environment") else {},
            "python": self.ask("python", self._python_with_shadows),
            "packages": self.ask("packages", lambda: self.packages),
            "toolkits": self.ask("toolkits", lambda: self.toolkits),
            "loader": self.ask("loader", lambda: self.loader),
            "cudnn": self.ask("cudnn", lambda: self._copies(libraries.CUDNN)),
            "nccl": self.ask("nccl", lambda: self._copies(libraries.NCCL)),
            "sources": self.ask("sources", lambda: sources.probe(host, self._known_packages)),
            "manifest": self.ask("manifest", lambda: manifest.probe(host), None),
            "ray": self.ask("ray", lambda: ray.probe(host), None),
            "resources": self._resources.result() if self._resources else NOT_ASKED,
            "compilers": self._compilers.result() if self._compilers else NOT_ASKED,
            "docker": self._docker.result() if self._docker else None,
            "tools": self.ask("tools", self._finished_tools),
            "driver": self.ask("driver", self._driver),
            "gpus": self.ask("gpus", self._gpus),
        }
        return Facts(
            collected=time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()),
            host=_name(host),
            **facts,
        )

    def ask(self, key: str, probe: Callable[[], T], absent: Unknown | None = NOT_ASKED) -> T | Unknown | None:
        """Run one probe, guarded; ``absent`` where its key was not asked for."""
        return guarded(probe) if self.wants(key) else absent

    @cached_property
    def system(self) -> Os:
        """The operating system."""
        return os_release.probe(self.host)

    @cached_property
    def python(self) -> Python | Unknown:
        """The target interpreter, without what shadows its packages."""
        return interpreters.probe(self.host, self.target, {})

    @cached_property
    def packages(self) -> tuple[Package, ...] | Unknown:
        """The packages of the target, with what their binaries say."""
        return dists.probe(self.host, self.python)

    @property
    def _known_packages(self) -> tuple[Package, ...]:
        found = guarded(lambda: self.packages)
        return () if isinstance(found, Unknown) else found

    @cached_property
    def toolkits(self) -> tuple[Toolkit, ...]:
        """The CUDA toolkits."""
        return nvcc.probe(self.host, () if isinstance(self.python, Unknown) else self.python.site_packages)

    @property
    def _known_toolkits(self) -> tuple[Toolkit, ...]:
        found = guarded(lambda: self.toolkits)
        return () if isinstance(found, Unknown) else found

    @cached_property
    def loader(self) -> tuple[LoaderEntry, ...] | Unknown:
        """Which file each library resolves to."""
        return NOT_ASKED

    @property
    def _known_loader(self) -> tuple[LoaderEntry, ...]:
        found = guarded(lambda: self.loader)
        return () if isinstance(found, Unknown) else found

    @cached_property
    def _driver_libraries(self) -> list[DriverLibrary]:
        from envcheck.binary import ldcache

        machine = self.system.machine
        cache = ldcache.read(self.host, machine if isinstance(machine, str) else "x86_64")
        return driver.libraries(self.host, [], cache)

    @property
    def _nvml_library(self) -> str | None:
        found = [item for item in self._driver_libraries if item.name == nvml.LIBRARY and item.kind == "driver"]
        return found[0].path if found else None

    def _managed(self) -> nvml.Management:
        found = self._management.result() if self._management else NOT_ASKED
        return found if isinstance(found, nvml.Management) else nvml.silent(found.unknown)

    def _driver(self) -> Driver:
        return driver.probe(self.host, self._driver_libraries, self._managed(), self._known_loader)

    def _gpus(self) -> tuple[Gpu, ...]:
        management = self._managed()
        if management.error is None or management.gpus:
            return management.gpus
        in_container = container.which(self.host) is not None
        return () if in_container else nvml.without_driver(self.host)

    def _copies(self, wanted: libraries.Wanted) -> tuple[LibraryCopy, ...]:
        return libraries.probe(self.host, wanted, self._known_toolkits, self._known_packages, self._known_loader)

    def _finished_tools(self) -> tuple[Tool, ...]:
        assert self._tools is not None  # noqa: S101  # started where the key is wanted
        return tools.finish(self.host, self._tools, self._known_packages, self._directory)

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
