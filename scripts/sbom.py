"""CycloneDX documents beside the locks: every locked package, the digest of its files, its licence."""

from __future__ import annotations

import datetime as dt
import email.parser
import hashlib
import json
import re
import uuid
from collections.abc import Iterable, Mapping
from concurrent.futures import ThreadPoolExecutor
from email.message import Message
from pathlib import Path
from typing import Any

from cyclonedx.contrib.license.factories import LicenseFactory
from cyclonedx.model import Property
from cyclonedx.model.bom import Bom
from cyclonedx.model.component import Component, ComponentType
from cyclonedx.model.license import License
from cyclonedx.output.json import JsonV1Dot6
from packageurl import PackageURL

from envcheck.stack import Stack
from scripts import lock_inputs, sbom_remote
from scripts.lock_resolve import Resolved
from scripts.lock_text import Pin

FILES = "envcheck:files-sha256"
WORKERS = 16
LONGEST_NAME = 64
"""A ``License:`` field longer than this is the licence's whole text."""


def files_digest(pin: Pin) -> str:
    """One digest for all files of a pinned version."""
    return hashlib.sha256("\n".join(sorted(pin.hashes)).encode()).hexdigest()


def document(stack: Stack, engine: str, resolved: Resolved, *, known: Path | None = None) -> str:
    """Give the document of an engine's lock; the same lock gives the same bytes."""
    pins = resolved.pins[engine]
    licences = licences_of(stack, pins, resolved.wheels, recorded(known))
    parts = [_component(pin, licences.get(f"{pin.name}=={pin.version}", "")) for pin in pins]
    bom = Bom(components=parts)
    name = f"{stack.name}-{engine}"
    root = Component(name=name, version=stack.lock.cutoff, type=ComponentType.APPLICATION, bom_ref=name)
    bom.metadata.component = root
    for asking in {root.name, *(part.name for part in parts)}:
        needed = [part for pin, part in zip(pins, parts, strict=True) if asking in _askers(pin, root.name)]
        for part in [root] if asking == root.name else [part for part in parts if part.name == asking]:
            bom.register_dependency(part, needed)
    bom.metadata.timestamp = dt.datetime.fromisoformat(lock_inputs.cutoff(stack.lock.cutoff).replace("Z", "+00:00"))
    bom.metadata.tools.components.clear()
    lines = "\n".join(sorted(f"{pin.name}=={pin.version};{files_digest(pin)}" for pin in pins))
    bom.serial_number = uuid.uuid5(uuid.NAMESPACE_URL, f"{name}\n{lines}")
    return str(JsonV1Dot6(bom).output_as_string(indent=1)) + "\n"


def _askers(pin: Pin, root: str) -> set[str]:
    return {root if name == "stack file" else re.split(r"[\[ ;]", name)[0] for name in pin.via}


def _component(pin: Pin, licence: str) -> Component:
    purl = PackageURL(type="pypi", name=pin.name, version=pin.version)
    return Component(
        name=pin.name,
        version=pin.version,
        type=ComponentType.LIBRARY,
        purl=purl,
        bom_ref=purl.to_string(),
        licenses=[_licence(licence)] if licence else None,
        properties=[Property(name=FILES, value=files_digest(pin))],
    )


def _licence(text: str) -> License:
    return LicenseFactory().make_from_string(text)


def recorded(path: Path | None) -> dict[str, str]:
    """Licences that an earlier document tells: a released version's never change."""
    if path is None or not path.exists():
        return {}
    try:
        rows = json.loads(path.read_text(encoding="utf-8"))["components"]
        return {f"{row['name']}=={row['version']}": text for row in rows if (text := _stated(row))}
    except (ValueError, KeyError, TypeError):
        return {}


def _stated(row: Mapping[str, Any]) -> str:
    for item in row.get("licenses", []):
        licence = item.get("license", {})
        return str(item.get("expression") or licence.get("id") or licence.get("name") or "")
    return ""


def licences_of(
    stack: Stack, pins: Iterable[Pin], wheels: Mapping[str, str], known: Mapping[str, str]
) -> dict[str, str]:
    """Licence of each pin: stated in the stack file, recorded earlier, or read from the wheel's metadata."""
    found = {f"{row.name}=={row.version}": row.licence for row in stack.lock.metadata if row.licence} | dict(known)
    missing = sorted({f"{pin.name}=={pin.version}" for pin in pins} - found.keys())
    urls = {key: wheels[key] for key in missing if key in wheels}
    with ThreadPoolExecutor(WORKERS) as pool:
        for key, text in zip(urls, pool.map(sbom_remote.metadata, urls.values()), strict=True):
            found[key] = licence_in(text)
    return found


def licence_in(text: str) -> str:
    """Read the licence from METADATA: an expression, else the classifiers, else a short field; nothing where none.

    ``License-Expression: Apache-2.0`` · ``Classifier: License :: OSI Approved :: MIT License`` · ``License: BSD``
    """
    message = email.parser.HeaderParser().parsestr(text)
    if expression := message.get("License-Expression"):
        return str(expression).strip()
    field = str(message.get("License", "")).strip()
    short = field if len(field) <= LONGEST_NAME and "\n" not in field else ""
    return SPDX.get(short.lower(), "") or _classified(message) or short or _first_line(field)


def _first_line(text: str) -> str:
    r"""Name a licence whose whole text stands in the field: ``Apache License\n  Version 2.0, January 2004``."""
    lines = [line.strip() for line in text.splitlines() if line.strip()]
    name = " ".join(lines[:2])
    return next((known for start, known in TEXTS.items() if name.lower().startswith(start)), "")


def _classified(message: Message) -> str:
    names = [
        str(line).split(" :: ")[-1] for line in message.get_all("Classifier", []) if str(line).startswith("License :: ")
    ]
    ids = sorted({SPDX.get(name.lower(), name) for name in names if name != "OSI Approved"})
    return " OR ".join(ids) if all(name in SPDX.values() for name in ids) else ", ".join(ids)


SPDX = {
    "apache 2.0": "Apache-2.0",
    "apache license 2.0": "Apache-2.0",
    "apache license, version 2.0": "Apache-2.0",
    "apache software license": "Apache-2.0",
    "apache-2.0": "Apache-2.0",
    "apache license": "Apache-2.0",
    "apache2": "Apache-2.0",
    "apache": "Apache-2.0",
    "3-clause bsd license": "BSD-3-Clause",
    "new bsd": "BSD-3-Clause",
    "bsd 3-clause": "BSD-3-Clause",
    "bsd-2-clause": "BSD-2-Clause",
    "bsd-3-clause": "BSD-3-Clause",
    "gnu lesser general public license v3 (lgplv3)": "LGPL-3.0-only",
    "isc": "ISC",
    "isc license (iscl)": "ISC",
    "mit": "MIT",
    "mit license": "MIT",
    "mozilla public license 2.0 (mpl 2.0)": "MPL-2.0",
    "mpl-2.0": "MPL-2.0",
    "python software foundation license": "PSF-2.0",
    "the unlicense (unlicense)": "Unlicense",
}

TEXTS = {"apache license version 2.0": "Apache-2.0", "mit license": "MIT", "the mit license": "MIT"}
