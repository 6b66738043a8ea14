"""Installed packages of the target, by reading their files: dist-info, egg-info, conda-meta. Nothing is imported."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator

from envcheck.codec import Unknown
from envcheck.facts import Origin, Package, Python
from envcheck.host import Host
from envcheck.probes import damage, details, editable
from envcheck.probes.environment import without_credentials
from envcheck.record import replace

HEAD_BYTES = 6 << 10
"""The header of METADATA nearly always ends before; the description follows and is not read."""
DISTRIBUTION = re.compile(r"^(?P<name>.+?)-(?P<version>[^-]+?)(?:-py[\d.]+)?\.(?P<kind>dist-info|egg-info)$")


def probe(
    host: Host, python: Python | Unknown, wanted: Callable[[str], bool] = lambda _: True
) -> tuple[Package, ...] | Unknown:
    """Read the installed packages; the first of a name in search order is the one that Python would import."""
    if isinstance(python, Unknown):
        return python
    links = editable.read(host, python.site_packages)
    found: dict[str, Package] = {}
    for site in (*python.site_packages, *links.directories):
        for package in _site(host, site, wanted):
            found.setdefault(package.name, package)
    for package in details.without_metadata(host, python.site_packages, set(found)):
        found[package.name] = package
    if python.conda_prefix == python.prefix:
        for package in conda(host, python.prefix):
            found.setdefault(package.name, package)
    modules = details.modules_asked()
    return tuple(
        details.complete(host, package, editable.place(links, package), modules)
        for package in sorted(found.values(), key=lambda package: package.name)
    )


def normalised(name: str) -> str:
    """Give the PEP 503 form: ``Flash_Attn`` is ``flash-attn``."""
    return re.sub(r"[-_.]+", "-", name).lower()


def _site(host: Host, site: str, wanted: Callable[[str], bool]) -> Iterator[Package]:
    """Read one site directory; two dist-infos of one name are one package with a damage."""
    names = host.listdir(site)
    entries = [name for name in names if name.endswith((".dist-info", ".egg-info"))]
    groups: dict[str, list[str]] = {}
    for entry in entries:
        stem = entry.rpartition(".")[0].split("-", 1)[0]
        groups.setdefault(normalised(stem), []).append(entry)
    for name, group in groups.items():
        if not name.startswith("~") and wanted(name):
            yield _package(host, site, name, group)
    for package in damage.leftovers(names, groups):
        yield replace(package, location=site)


def _package(host: Host, site: str, name: str, entries: list[str]) -> Package:
    entry = _best(host, site, entries)
    path = f"{site}/{entry}"
    inside = host.listdir(path)
    head = _head(host, path, inside)
    version = first(head, "Version") or _named(entry)
    installer = _line(host, f"{path}/INSTALLER") if "INSTALLER" in inside else None
    origin = read_origin(host, f"{path}/direct_url.json") if "direct_url.json" in inside else None
    tag, build = _wheel(host, path) if "WHEEL" in inside else (None, None)
    return Package(
        name=name,
        version=version or Unknown(f"{path} does not say its version"),
        installer=installer,
        origin=origin,
        tag=tag,
        build=(version or "").partition("+")[2] or build,
        location=site,
        requires=tuple(every(head, "Requires-Dist")),
        damage=damage.of_metadata(site, entries, inside, entry, installer, head),
        summary=first(head, "Summary"),
        home=_home(head),
    )


def _named(entry: str) -> str | None:
    """Version by the name of the directory."""
    found = DISTRIBUTION.match(entry)
    return found["version"] if found else None


def _best(host: Host, site: str, entries: list[str]) -> str:
    """Of several, the one whose METADATA is there, the last by name."""
    if len(entries) == 1:
        return entries[0]
    whole = [entry for entry in entries if host.exists(f"{site}/{entry}/METADATA")]
    return (whole or entries)[-1]


def _head(host: Host, path: str, inside: list[str]) -> str:
    """Header of METADATA or PKG-INFO, up to the first empty line."""
    source = next((f"{path}/{name}" for name in ("METADATA", "PKG-INFO") if name in inside), path)
    try:
        text = host.read(source, HEAD_BYTES)
        if "\n\n" not in text and "\r\n\r\n" not in text:
            text = host.read(source)
    except OSError:
        return ""
    text = text.replace("\r\n", "\n") if "\r" in text else text
    return "\n" + text.partition("\n\n")[0]


def every(head: str, key: str) -> list[str]:
    """Give the values of every line ``Requires-Dist: numpy<2``; searching beats a regular expression by far here."""
    return [part.partition("\n")[0].strip() for part in head.split(f"\n{key}: ")[1:]]


def first(head: str, key: str) -> str | None:
    """Give the value of the first line of that key."""
    at = head.find(f"\n{key}: ")
    return head[at + len(key) + 3 :].partition("\n")[0].strip() or None if at >= 0 else None


def _home(head: str) -> str | None:
    """Home page, from ``Home-page: URL`` or ``Project-URL: Homepage, URL``."""
    page = first(head, "Home-page")
    if page and page != "UNKNOWN":
        return without_credentials(page)
    for value in every(head, "Project-URL"):
        label, _, url = value.rpartition(", ")
        if label.lower() in {"homepage", "repository", "source", "source code", "github"}:
            return without_credentials(url)
    return None


def _line(host: Host, path: str) -> str | Unknown:
    try:
        return host.read(path, 4096).strip() or Unknown(f"{path} is empty")
    except OSError as error:
        return Unknown(f"{path}: {error.strerror}")


def _wheel(host: Host, path: str) -> tuple[str | Unknown, str | None]:
    """First tag of WHEEL, a line such as ``Tag: cp310-cp310-manylinux1_x86_64``, and what ``Build: 0slim`` says."""
    try:
        head = "\n" + host.read(f"{path}/WHEEL", 8192)
    except OSError as error:
        return Unknown(f"{path}/WHEEL: {error.strerror}"), None
    build = (first(head, "Build") or "").lstrip("0123456789") or None
    return first(head, "Tag") or Unknown(f"{path}/WHEEL has no Tag"), build


def read_origin(host: Host, path: str) -> Origin | None:
    """Read direct_url.json; None where it is no such document."""
    try:
        return parse_origin(host.read(path, 64 << 10))
    except OSError:
        return None


def parse_origin(text: str) -> Origin | None:
    """Read ``{"url": "https://…", "vcs_info": {"vcs": "git", "commit_id": "…"}, "dir_info": {"editable": true}}``."""
    import json

    try:
        said = json.loads(text)
        return Origin(
            url=without_credentials(str(said["url"])),
            commit=said.get("vcs_info", {}).get("commit_id"),
            editable=bool(said.get("dir_info", {}).get("editable", False)),
        )
    except (ValueError, KeyError, TypeError, AttributeError):
        return None


def conda(host: Host, prefix: str) -> Iterator[Package]:
    """Read the file names of conda-meta: ``cuda-nvcc-12.4.131-h02f8991_0.json``."""
    for entry in host.listdir(f"{prefix}/conda-meta"):
        parts = entry.removesuffix(".json").rsplit("-", 2)
        if entry.endswith(".json") and len(parts) == 3:  # noqa: PLR2004  # name, version, build
            name, version, build = parts
            yield Package(name=normalised(name), version=version, installer="conda", tag=build, location=prefix)
