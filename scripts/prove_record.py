"""``proof.json`` beside a lock: which engine, trainer and Python was tried, when, what came out, for which bytes."""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass
from pathlib import Path

from envcheck.codec import Where, decode, encode
from envcheck.errors import DataError
from envcheck.stack import Stack
from scripts import files, sources, sources_lock

NAME = "proof.json"
MEND = "git restore it, or remove it and run nox -s lock_prove"
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
    sources_sha256: str = ""
    """Of the pinned sources that engine and trainer are built from; empty in proofs from before it was recorded."""

    @property
    def tried(self) -> set[str]:
        """Modules that the proof has something to say about."""
        faults = (*self.known_faults, *self.waiting, *self.failed)
        return {*self.modules, *self.pretended, *(line.partition(": ")[0] for line in faults)}


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
        raise DataError(str(path), "", expected="JSON", found=str(error), fix=MEND) from error
    found: Proofs = decode(Proofs, document, Where(source=str(path)))
    return found


def add(place: Path, stack: str, proof: Proof) -> Proof | None:
    """Record a proof in the place of the earlier one of the same engine, trainer and Python minor version.

    An earlier one of the same bytes that had more to try stays, and is given: a missing wheel takes nothing away.
    """
    before = read(place)
    rows = {_key(item): item for item in before.proofs} if before else {}
    earlier = rows.get(_key(proof))
    if earlier and not proof.failed and _says_more(earlier, proof):
        return earlier
    rows[_key(proof)] = proof
    document = Proofs(version=1, stack=stack, proofs=tuple(rows[key] for key in sorted(rows)))
    files.write(place / NAME, json.dumps(encode(document), indent=1, ensure_ascii=False) + "\n")
    return None


def _says_more(earlier: Proof, proof: Proof) -> bool:
    same = earlier.lock_sha256 == proof.lock_sha256 and earlier.sources_sha256 in {"", proof.sources_sha256}
    lost = {*proof.modules, *proof.pretended} - {*earlier.modules, *earlier.pretended}
    return same and not lost and len(earlier.waiting) < len(proof.waiting)


def sources_digest(stack: Stack, engine: str, trainer: str, place: Path) -> str:
    """Hash what pins the sources that an engine and a trainer are built from: commits, archives, patches."""
    pinned = sources_lock.parse((place / "sources.toml").read_text(encoding="utf-8"), str(place / "sources.toml"))
    wanted = {item.name for item in stack.wanted(engine, trainer) if not item.optional}
    lines = sorted(sources.digest_of(item) for item in pinned.source if item.name in wanted)
    return hashlib.sha256("\n".join(lines).encode()).hexdigest()


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


def lacking(line: str) -> str:
    """Read the component in ``verl.workers.actor.dp_actor: needs flash-attn, which is compiled and not built here``."""
    return line.partition(": needs ")[2].partition(",")[0]
