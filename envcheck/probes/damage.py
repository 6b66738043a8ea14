"""What is wrong with the metadata of an installed package: parts that are gone, or that an old version left behind."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from envcheck.codec import Unknown
from envcheck.facts import Package
from envcheck.host import Host

MANAGED = ("/usr/lib/python3",)
"""Debian strips RECORD from what its own packages install."""
SHOWN = 3


def of_metadata(  # noqa: PLR0913, PLR0917  # the parts of one dist-info
    site: str, entries: list[str], inside: list[str], entry: str, installer: str | Unknown | None, head: str
) -> tuple[str, ...]:
    """List the faults of one package's metadata directory."""
    found = []
    if len(entries) > 1:
        found.append(f"{len(entries)} of one name: {', '.join(entries)}")
    if entry.endswith(".dist-info"):
        if "METADATA" not in inside:
            found.append("METADATA is missing")
        elif not head.strip():
            found.append("METADATA is empty or cannot be read")
        if "RECORD" not in inside and not site.startswith(MANAGED) and installer not in {"debian", "conda", "rpm"}:
            found.append("RECORD is missing")
    return tuple(found)


def leftovers(names: list[str], groups: Iterable[str]) -> Iterator[Package]:
    """Find what an interrupted pip left behind: it renames ``torch`` to ``~orch`` before it removes it."""
    for stem in dict.fromkeys(name.split("-", 1)[0] for name in names if name.startswith("~")):
        rest = stem[1:].lower().replace("_", "-")
        known = next((group for group in groups if not group.startswith("~") and group[1:] == rest), None)
        text = f"{stem} is left of an interrupted uninstall" + (f" of {known}" if known else "")
        yield Package(name=stem, version=Unknown("a rest of an uninstall has no version"), damage=(text,))


def of_files(host: Host, package: Package, record: str) -> tuple[str, ...]:
    """Say which libraries and top-level modules that RECORD lists are gone.

    A line of RECORD is ``torch/lib/libc10.so,sha256=…,1234567``.
    """
    # 12,000 lines for torch: a search finds the few that matter without making a list of all.
    lines = dict.fromkeys([*_with(record, ".so"), *_with(record, "/__init__.py,")])
    wanted = [path for line in sorted(lines) if (path := _watched(line))]
    gone = [path for path in wanted if not host.exists(f"{package.location}/{path}")]
    if not gone:
        return ()
    more = f" and {len(gone) - SHOWN} more" if len(gone) > SHOWN else ""
    return (f"files that RECORD lists are gone: {', '.join(gone[:SHOWN])}{more}",)


def _with(text: str, part: str) -> Iterator[str]:
    """Give every line that holds a part."""
    at = text.find(part)
    while at >= 0:
        end = text.find("\n", at)
        end = len(text) if end < 0 else end
        yield text[text.rfind("\n", 0, at) + 1 : end]
        at = text.find(part, end)


def _watched(line: str) -> str | None:
    """Path of a shared library, or of the __init__.py of a top-level package."""
    path = line.partition(",")[0].strip('"')
    top = path.endswith("/__init__.py") and path.count("/") == 1
    library = path.endswith(".so") or ".so." in path.rpartition("/")[2]
    return path if top or library else None
