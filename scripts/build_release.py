"""A prebuilt wheel that the stack names with its hash is taken first, and verified like one that was built here."""

from __future__ import annotations

import hashlib
import shutil
import tempfile
from dataclasses import asdict
from datetime import datetime, timezone
from pathlib import Path

from envcheck.codec import Unknown
from scripts import build_verify, download, env_plan, wheelhouse_store
from scripts.build_context import Context
from scripts.build_key import Inputs
from scripts.env_plan import Extra
from scripts.wheelhouse_store import Entry


def find(context: Context) -> Extra | None:
    """Give the release wheel of the component that fits this Python; one without a hash does not count."""
    python = context.facts.python
    if isinstance(python, Unknown) or isinstance(python.version, Unknown):
        return None
    return env_plan.release(context.stack, context.component, python.version)


def key_of(release: Extra) -> str:
    """Give the key that a release wheel is kept under: it is not the wheel that these inputs would build."""
    return hashlib.sha256(f"release {release.sha256}".encode()).hexdigest()


def take(context: Context, inputs: Inputs, release: Extra, wheelhouse: Path) -> Entry:
    """Give the release wheel from the wheelhouse, else downloaded and checked by its hash and its bytes."""
    key = key_of(release)
    found = wheelhouse_store.get(wheelhouse, key)
    if found is not None:
        return found
    stored = download.fetch([release.url or ""], digest=release.sha256)
    with tempfile.TemporaryDirectory(prefix="envcheck-release-") as name:
        wheel = Path(name) / release.file
        shutil.copyfile(stored, wheel)
        verification = build_verify.verify(context, wheel)
        receipt = {
            "version": 1,
            "stack": context.stack.name,
            "release": release.url,
            "inputs": asdict(inputs),
            "finished": datetime.now(timezone.utc).isoformat(timespec="seconds"),
            "verification": verification,
        }
        return wheelhouse_store.put(wheelhouse, key, wheel, receipt)
