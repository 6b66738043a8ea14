"""Directories that .pth files and editable installs add to the search path. They are read, never executed."""

from __future__ import annotations

import re
from collections.abc import Sequence

from envcheck.facts import Package
from envcheck.host import Host
from envcheck.record import dataclass

MAPPING = re.compile(r"^MAPPING(?:: [^=]+)? = (\{.*\})$", re.MULTILINE)
PAIR = re.compile(r"'([\w.]+)': '([^']+)'")


@dataclass(frozen=True, kw_only=True)
class Links:
    """``directories`` are put on the path by .pth files; ``modules`` maps import names to directories elsewhere."""

    directories: tuple[str, ...] = ()
    modules: dict[str, str]


def read(host: Host, sites: Sequence[str]) -> Links:
    """Read the .pth files and editable finders of the site directories."""
    directories: list[str] = []
    modules: dict[str, str] = {}
    for site in sites:
        for name in host.listdir(site):
            if name.endswith((".pth", ".egg-link")):
                directories += parse_pth(_text(host, f"{site}/{name}"), site)
            elif name.startswith("__editable___") and name.endswith("_finder.py"):
                modules |= parse_finder(_text(host, f"{site}/{name}"))
    existing = [path for path in dict.fromkeys(directories) if path not in sites and host.exists(path)]
    return Links(directories=tuple(existing), modules=modules)


def _text(host: Host, path: str) -> str:
    try:
        return host.read(path, 256 << 10)
    except OSError:
        return ""


def parse_pth(text: str, site: str) -> list[str]:
    """Directories of a .pth file; a line that starts with ``import`` is code and is skipped."""
    lines = [line.strip() for line in text.splitlines()]
    names = [line for line in lines if line and line != "." and not line.startswith(("#", "import ", "import\t"))]
    return [name if name.startswith("/") else f"{site}/{name}" for name in names]


def parse_finder(text: str) -> dict[str, str]:
    """Read ``MAPPING: dict[str, str] = {'verl': '/home/me/verl/verl'}`` of a setuptools editable finder."""
    found = MAPPING.search(text)
    return dict(PAIR.findall(found[1])) if found else {}


def place(links: Links, package: Package) -> tuple[str, ...]:
    """Directories in which the modules of a package may lie: its own site, then where an editable install points."""
    if not links.modules and package.origin is None:
        return (package.location,)
    own = tuple(path.rpartition("/")[0] for name, path in links.modules.items() if _same(name, package.name))
    url = package.origin.url if package.origin and package.origin.editable else ""
    checkout = url.removeprefix("file://")
    roots = (checkout, f"{checkout}/src", f"{checkout}/python") if checkout.startswith("/") else ()
    return (package.location, *own, *roots)


def _same(module: str, name: str) -> bool:
    return module.lower().replace("_", "-").replace(".", "-") == name
