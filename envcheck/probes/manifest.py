"""/etc/envcheck/manifest.json: what an image of this project was built from."""

from __future__ import annotations

from envcheck.codec import Unknown, Where, decode
from envcheck.errors import DataError
from envcheck.facts import Manifest
from envcheck.host import Host

PATH = "/etc/envcheck/manifest.json"


def probe(host: Host) -> Manifest | Unknown | None:
    """Read the manifest; None outside such an image."""
    if not host.exists(PATH):
        return None
    import json

    try:
        manifest: Manifest = decode(Manifest, json.loads(host.read(PATH)), Where(source=PATH))
    except (OSError, ValueError, DataError) as error:
        return Unknown(f"{PATH}: {error}")
    return manifest
