"""Write /etc/envcheck/manifest.json: what an image was built from, against which its entry point looks for drift."""

from __future__ import annotations

import argparse
import hashlib
import json
import sys
from collections.abc import Iterable, Sequence
from pathlib import Path

from envcheck import stack as stacks
from envcheck.codec import Unknown
from envcheck.errors import WorkError
from envcheck.host import LocalHost
from envcheck.probes.collection import collect
from scripts import cli, files, wheelhouse_store
from scripts.cache import ROOT

LOCKS = ROOT / "lockfiles"


def lock_sha256(stack: str, engine: str) -> str:
    """Give the hash of the lock that the image's environment was installed from."""
    path = LOCKS / stack / f"requirements-{engine}.txt"
    return hashlib.sha256(path.read_bytes()).hexdigest()


def packages(python: str) -> dict[str, str]:
    """Name -> version of every distribution of the interpreter's environment."""
    facts = collect(LocalHost(), python=python)
    if isinstance(facts.packages, Unknown):
        raise WorkError(f"the packages of {python} could not be read: {facts.packages.unknown}")
    return {item.name: item.version for item in facts.packages if isinstance(item.version, str)}


def receipts(houses: Iterable[Path]) -> dict[str, str]:
    """Component -> wheel key, from the receipts beside the wheels."""
    found = (entry for house in houses for entry in wheelhouse_store.entries(house))
    return {f"wheel:{entry.receipt['inputs']['component']}": entry.key for entry in found}


def sbom(lock: Path, houses: Iterable[Path]) -> str:
    """Give the lock's CycloneDX document with the wheels that were built: their hash, and the key of their inputs."""
    document = json.loads(lock.read_text(encoding="utf-8"))
    for entry in (entry for house in houses for entry in wheelhouse_store.entries(house)):
        name, version = entry.receipt["wheel"]["name"], entry.receipt["wheel"]["version"]
        known = [row for row in document["components"] if (row["name"], row.get("version")) != (name, version)]
        purl = f"pkg:pypi/{name}@{version}"
        built = {
            "bom-ref": purl,
            "hashes": [{"alg": "SHA-256", "content": entry.sha256}],
            "name": name,
            "properties": [{"name": "envcheck:wheel-key", "value": entry.key}],
            "purl": purl,
            "type": "library",
            "version": version,
        }
        document["components"] = [*known, built]
    return json.dumps(document, indent=1, sort_keys=True) + "\n"


def sources(stack: stacks.Stack, engine: str, trainer: str) -> dict[str, str]:
    """Component -> commit of those that come from git."""
    wanted = stack.wanted(engine, trainer)
    return {f"commit:{item.name}": item.origin.commit for item in wanted if item.origin.commit}


def parser() -> argparse.ArgumentParser:
    """Give the command line."""
    it = argparse.ArgumentParser(prog="python -m scripts.manifest", description=__doc__)
    it.add_argument("--stack", default=stacks.DEFAULT_STACK)
    it.add_argument("--engine", default="sglang")
    it.add_argument("--trainer", default="fsdp")
    it.add_argument("--base", required=True, help="reference of the base image, by digest")
    it.add_argument("--missing", default="", help="components that the image may lack, separated by blanks")
    it.add_argument("--python", required=True, help="interpreter of the image's environment")
    it.add_argument("--wheelhouse", type=Path, action="append", default=[])
    it.add_argument("--output", type=Path, required=True)
    it.add_argument("--sbom", type=Path, help="where the CycloneDX document goes, the built wheels in it")
    return it


def main(argv: Sequence[str] | None = None) -> int:
    """Write the manifest."""
    given = parser().parse_args(argv)
    stack = stacks.load(given.stack)
    values = {
        "engine": given.engine,
        "trainer": given.trainer,
        "base": given.base,
        "lock_sha256": lock_sha256(given.stack, given.engine),
        "missing": given.missing,
        **receipts(given.wheelhouse),
        **sources(stack, given.engine, given.trainer),
    }
    document = {
        "stack": stack.name,
        "packages": packages(given.python),
        "environment": {"CUDA_HOME": "/usr/local/cuda"},
        "values": dict(sorted(values.items())),
    }
    if given.sbom:
        lock = LOCKS / given.stack / f"sbom-{given.engine}.cdx.json"
        files.write(given.sbom, sbom(lock, given.wheelhouse))
    files.write(given.output, json.dumps(document, indent=1, sort_keys=True) + "\n")
    return 0


if __name__ == "__main__":
    sys.exit(cli.run(main))
