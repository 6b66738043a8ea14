"""``proof.json`` beside a lock: which engine, trainer and Python was tried, when, what came out, for which bytes."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path

from envcheck.codec import Where, decode, encode
from envcheck.errors import DataError
from scripts import files

NAME = "proof.json"
sha256 = files.sha256


@dataclass(frozen=True, kw_only=True)
class Proof:
    """What one installed lock did without a GPU."""

    engine: str
    trainer: str
    python: str
    date: str
    lock_sha256: str
    packages: int
    extensions: int
    """How many shared libraries loaded with every symbol bound."""
    modules: tuple[str, ...]
    """Modules that import as the host is."""
    pretended: tuple[str, ...] = ()
    """Modules that import only where torch says that there is a GPU."""
    known_faults: tuple[str, ...] = ()
    waiting: tuple[str, ...] = ()
    """What could not be tried: it needs a compiled component that was not built."""
    failed: tuple[str, ...] = ()


@dataclass(frozen=True, kw_only=True)
class Proofs:
    """All proofs of a stack."""

    version: int
    stack: str
    proofs: tuple[Proof, ...] = ()


def read(place: Path) -> Proofs | None:
    """Give the proofs that are recorded, if any; raise DataError where the file is damaged."""
    path = place / NAME
    try:
        document = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        return None
    except ValueError as error:
        raise DataError(str(path), "", expected="JSON", found=str(error), fix="nox -s lock_prove") from error
    found: Proofs = decode(Proofs, document, Where(source=str(path)))
    return found


def add(place: Path, stack: str, proof: Proof) -> None:
    """Record a proof in the place of the earlier one of the same engine, trainer and Python minor version."""
    before = read(place)
    rows = {_key(item): item for item in before.proofs} if before else {}
    rows[_key(proof)] = proof
    document = Proofs(version=1, stack=stack, proofs=tuple(rows[key] for key in sorted(rows)))
    files.write(place / NAME, json.dumps(encode(document), indent=1, ensure_ascii=False) + "\n")


def _key(proof: Proof) -> tuple[str, str, tuple[int, ...]]:
    return proof.engine, proof.trainer, tuple(int(part) for part in proof.python.split(".")[:2])


def shown(proof: Proof) -> str:
    """Give a proof as text."""
    counted = f"{len(proof.modules)} modules import, {len(proof.pretended)} more where torch says that there is a GPU"
    head = f"{proof.engine} + {proof.trainer}, Python {proof.python}: {counted}, {proof.extensions} extensions load"
    lines = [head]
    lines += [f"  known fault  {line}" for line in proof.known_faults]
    lines += [f"  not tried    {line}" for line in proof.waiting]
    lines += [f"  FAILED       {line}" for line in proof.failed]
    return "\n".join(lines)
