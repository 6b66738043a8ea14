"""The files of ``lockfiles/<stack>/``, as texts made from the stack file and the resolved pins."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator, Sequence
from pathlib import Path

from envcheck.errors import EnvcheckError
from envcheck.stack import Component, Stack
from scripts import files, lock_inputs, lock_text, sources_lock
from scripts.cache import ROOT
from scripts.lock_resolve import Resolved
from scripts.lock_text import Pin
from scripts.sources_lock import Source

FIRST = lock_text.FIRST


def directory(stack: str, root: Path = ROOT) -> Path:
    """Where the locks of a stack are."""
    return root / "lockfiles" / stack


def requirements(stack: str, engine: str, root: Path = ROOT) -> Path:
    """Path of the lock of an engine."""
    return directory(stack, root) / f"requirements-{engine}.txt"


def inputs_digest(stack: Stack) -> str:
    """Hash everything of the stack file that the pins are resolved from."""
    built = sorted(
        {*stack.lock.build, *(line for item in stack.components if item.recipe for line in item.recipe.requires)}
    )
    texts = sorted(lock_inputs.make(stack).files.items())
    return hashlib.sha256(json.dumps([texts, built]).encode()).hexdigest()


def header(stack: Stack, what: str) -> list[str]:
    """Lines that say what a file is made from."""
    pythons = f"CPython {lock_inputs.PYTHONS[0]} to {lock_inputs.PYTHONS[-1]}, Linux x86_64"
    first = f"from the stack file {stack.name}: {what}, {pythons}, cut-off {stack.lock.cutoff}"
    return [first, f"inputs sha256:{inputs_digest(stack)}"]


def pinned(stack: Stack, resolved: Resolved) -> dict[str, str]:
    """Give the requirement files."""
    texts = {
        f"requirements-{engine}.txt": _text(stack, f"engine {engine}", resolved.pins[engine])
        for engine in stack.engines
    }
    return texts | {
        "build.txt": _text(stack, "what compiling needs; also the build constraints", resolved.pins["build"])
    }


def _text(stack: Stack, what: str, pins: Sequence[Pin]) -> str:
    return lock_text.render(pins, header(stack, what))


def generated(stack: Stack) -> dict[str, str]:
    """Give the files that the stack file alone tells: apt.txt, image.toml, wheels.toml."""
    return {"apt.txt": apt(stack), "image.toml": images(stack), "wheels.toml": wheels(stack)}


def apt(stack: Stack) -> str:
    """Give the system packages, ``BASE NAME[=VERSION]`` a line; without a version the snapshot date fixes it."""
    lines = [f"{FIRST} from the stack file {stack.name}: BASE NAME[=VERSION]"]
    for base, names in sorted(stack.apt.items()):
        if any("=" not in name for name in names):
            lines.append(f"# {base}: of the archive's snapshot {snapshot(stack)} (build argument APT_SNAPSHOT)")
        lines += [f"{base} {name}" for name in sorted(names)]
    return "\n".join(lines) + "\n"


def snapshot(stack: Stack) -> str:
    """Give the cut-off date as an archive snapshot is named: 20250320T000000Z."""
    return lock_inputs.cutoff(stack.lock.cutoff).replace("-", "").replace(":", "")


def images(stack: Stack) -> str:
    """Give the base images by digest, the human tag beside it."""
    lines = [f"{FIRST} from the stack file {stack.name}", "version = 1", f'stack = "{stack.name}"']
    for item in stack.images:
        lines += ["", "[[images]]", *_pairs(role=item.role, tag=item.tag, digest=item.digest)]
        lines += [
            "[images.platforms]",
            *(f"{json.dumps(name)} = {json.dumps(digest)}" for name, digest in sorted(item.platforms.items())),
        ]
    return "\n".join(lines) + "\n"


def wheels(stack: Stack) -> str:
    """Give the prebuilt wheels outside the index; one without a hash is refused."""
    lines = [
        f"{FIRST} from the stack file {stack.name}: wheels outside the index",
        "version = 1",
        f'stack = "{stack.name}"',
    ]
    for item in stack.lock.wheels:
        known = (
            {"sha256": item.sha256}
            if item.sha256
            else {"refused": f"no hash is known here: nox -s lock -- --stack {stack.name} --pin-url {item.component}"}
        )
        lines += ["", "[[wheels]]", *_pairs(component=item.component, url=item.url, **known, reason=item.reason)]
    return "\n".join(lines) + "\n"


def _pairs(**values: str) -> list[str]:
    return [f"{key} = {json.dumps(value, ensure_ascii=False)}" for key, value in values.items()]


def sources(stack: Stack) -> str:
    """Give sources.toml: every source that is built, pinned to its bytes."""
    return sources_lock.render(sources_lock.make(stack))


def source_faults(stack: Stack, path: Path) -> list[str]:
    """Say where sources.toml is not what the stack file and the patches beside it say, or was edited."""
    try:
        text = lock_text.exact(path)
        found = {item.name: item for item in sources_lock.parse(text, str(path)).source}
    except (OSError, EnvcheckError) as error:
        return [f"sources.toml: {error}"]
    wanted = {item.name: item for item in sources_lock.buildable(stack)}
    faults = [] if lock_text.is_whole(text) else ["sources.toml: was edited by hand"]
    faults += [f"sources.toml: {name} is missing" for name in wanted if name not in found]
    faults += [f"sources.toml: {name} is not in the stack file" for name in found if name not in wanted]
    for name in sorted(wanted.keys() & found.keys()):
        faults += [
            f"sources.toml: {name}: {key} is {there!r}, {who} {said!r}"
            for key, said, there, who in _pinned(wanted[name], found[name], path.parent)
            if said != there
        ]
    return faults


def _pinned(item: Component, row: Source, place: Path) -> Iterator[tuple[str, object, object, str]]:
    """Give what a source must be and what it is: key, wanted, found, who says so."""
    says = "the stack file says"
    yield "version", item.version, row.version, says
    yield "commit", item.origin.commit, row.commit, says
    yield "tree", item.origin.tree, row.tree, says
    yield "submodules", dict(item.origin.submodules), row.submodules, says
    yield "patches", item.origin.patches, tuple(patch.name for patch in row.patch), says
    if row.kind == "git":
        yield "url", item.origin.url, row.url, says
        yield "mirrors", item.origin.mirrors, row.mirrors, says
    for patch in row.patch:
        if ":" not in patch.name:
            file = place / "patches" / patch.name
            yield (
                f"sha256 of {patch.name}",
                files.sha256(file) if file.exists() else None,
                patch.sha256,
                "the file's is",
            )
