"""From the stack file to pins: uv resolves the project from scratch, then names every file of each pinned version."""

from __future__ import annotations

import dataclasses
import re
import tempfile
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from packaging.markers import Marker
from packaging.utils import canonicalize_name

from envcheck.stack import Stack, parse_toml
from scripts import lock_inputs, lock_text, lock_uv
from scripts.lock_text import Pin

TARGET = {
    "implementation_name": "cpython",
    "os_name": "posix",
    "platform_machine": "x86_64",
    "platform_python_implementation": "CPython",
    "platform_system": "Linux",
    "sys_platform": "linux",
}
BY_PYTHON = re.compile(r"\bpython(?:_full)?_version\b")


@dataclass(frozen=True, kw_only=True)
class Resolved:
    """Pins by file (engine name or ``build``), sizes of locked files by hash, a wheel's address by name==version."""

    pins: dict[str, list[Pin]]
    sizes: dict[str, int]
    wheels: dict[str, str] = field(default_factory=dict)


def resolve(stack: Stack, *, python: str | None = None) -> Resolved:
    """Resolve all engines in one go, from scratch; no setup.py is run and no sdist downloaded."""
    inputs = lock_inputs.make(stack)
    with tempfile.TemporaryDirectory(prefix="lock-") as name:
        work = Path(name)
        _lay(work, inputs.files)
        chosen = ["--python", python] if python else []
        lock_uv.run(["lock", "--quiet", *chosen], cwd=work, extra=lock_uv.settings(work))
        exported = {engine: _export(work, engine, inputs.left_out) for engine in stack.engines}
        pins = {engine: _with_all_files(work, stack, rows) for engine, rows in exported.items()}
        locked = list(_rows(parse_toml((work / "uv.lock").read_text(encoding="utf-8"), "uv.lock"), "package"))
        pins["build"] = _build(work, stack, pins)
    return Resolved(pins=pins, sizes=dict(_sizes(locked)), wheels=dict(_wheels(locked)))


def _lay(work: Path, texts: Mapping[str, str]) -> None:
    for path, text in texts.items():
        (work / path).parent.mkdir(exist_ok=True)
        (work / path).write_text(text, encoding="utf-8")


def _export(work: Path, engine: str, left_out: Iterable[str]) -> list[Pin]:
    argv = ["export", "--quiet", "--frozen", "--no-header", "--no-emit-project", "--extra", engine]
    argv += [word for name in left_out for word in ("--no-emit-package", name)]
    text = lock_uv.run([*argv, "--format", "requirements-txt"], cwd=work, extra=lock_uv.settings(work))
    return [_narrowed(pin) for pin in lock_text.parse(text, "uv export")]


def _narrowed(pin: Pin) -> Pin:
    via = tuple("stack file" if item.startswith(lock_inputs.PROJECT) else item for item in pin.via)
    return dataclasses.replace(pin, marker=narrow(pin.marker), via=tuple(dict.fromkeys(via)))


def narrow(marker: str) -> str:
    """Drop the parts of a marker that always hold on Linux x86_64 under CPython.

    ``python_full_version < '3.11' and sys_platform == 'linux'`` -> ``python_full_version < '3.11'``
    """
    if not marker or " or " in marker:
        return marker
    parts = [
        part for part in marker.split(" and ") if BY_PYTHON.search(part) or not Marker(part).evaluate(dict(TARGET))
    ]
    return " and ".join(parts)


def _with_all_files(work: Path, stack: Stack, pins: Sequence[Pin]) -> list[Pin]:
    """Replace the hashes of this platform's files by those of every file of the version."""
    text = "\n".join(pin.requirement for pin in pins) + "\n"
    found = {(pin.name, pin.version): pin.hashes for pin in _compile(work, stack, text, "--no-deps")}
    return [
        dataclasses.replace(pin, hashes=tuple(sorted({*found[pin.name, pin.version], *pin.hashes}))) for pin in pins
    ]


def _compile(work: Path, stack: Stack, text: str, *options: str) -> list[Pin]:
    place = work / "compile"
    place.mkdir(exist_ok=True)
    (place / "stack.in").write_text(text, encoding="utf-8")
    settings = "\n".join(
        line for line in (work / "uv.toml").read_text(encoding="utf-8").splitlines() if not line.startswith("no-b")
    )
    (place / "uv.toml").write_text(settings, encoding="utf-8")
    argv = [
        "pip",
        "compile",
        "--quiet",
        "stack.in",
        "--universal",
        "--python-version",
        _floor(stack),
        "--generate-hashes",
        "--no-header",
    ]
    return lock_text.parse(lock_uv.run([*argv, *options], cwd=place, extra=lock_uv.settings(place)), "uv pip compile")


def _floor(stack: Stack) -> str:
    found = re.search(r">=\s*(\d+\.\d+)", stack.python.requires)
    return found[1] if found else lock_inputs.PYTHONS[0]


def _build(work: Path, stack: Stack, pins: Mapping[str, Sequence[Pin]]) -> list[Pin]:
    """Resolve what compiling needs; what the locks have too gets their version unless a recipe says otherwise."""
    lines = sorted(
        {*stack.lock.build, *(line for item in stack.components if item.recipe for line in item.recipe.requires)}
    )
    named = {re.split(r"[=<>!~ ]", line)[0] for line in lines if re.search(r"[=<>!~]", line)}
    shared = [
        pin for pin in next(iter(pins.values()), []) if canonicalize_name(pin.name) not in named and not pin.marker
    ]
    same = [
        pin
        for pin in shared
        if all(pin.version in {row.version for row in rows if row.name == pin.name} for rows in pins.values())
    ]
    (work / "compile").mkdir(exist_ok=True)
    (work / "compile" / "constraints").write_text(
        "".join(f"{pin.name}=={pin.version}\n" for pin in same), encoding="utf-8"
    )
    found = _compile(work, stack, "\n".join(lines) + "\n", "-c", "constraints", "--only-binary", ":all:")
    marked = [dataclasses.replace(pin, marker=narrow(pin.marker)) for pin in found if _applies(pin)]
    return [dataclasses.replace(pin, via=_via(pin.via)) for pin in marked]


def _applies(pin: Pin) -> bool:
    return any(
        pin.applies(TARGET | {"python_version": v, "python_full_version": f"{v}.9"}) for v in lock_inputs.PYTHONS
    )


def _via(via: Sequence[str]) -> tuple[str, ...]:
    named = ["recipes" if item.startswith("-r ") else item for item in via if not item.startswith("-c ")]
    return tuple(dict.fromkeys(named))


def _sizes(packages: Iterable[Mapping[str, object]]) -> Iterator[tuple[str, int]]:
    """Read ``{ url = …, hash = "sha256:…", size = 123 }`` of uv.lock."""
    for package in packages:
        for file in [*_rows(package, "wheels"), *_rows({"sdist": [package.get("sdist")]}, "sdist")]:
            if "hash" in file and "size" in file:
                yield str(file["hash"]).removeprefix("sha256:"), int(str(file["size"]))


def _wheels(packages: Iterable[Mapping[str, object]]) -> Iterator[tuple[str, str]]:
    for package in packages:
        urls = sorted(str(file["url"]) for file in _rows(package, "wheels") if "url" in file)
        if urls:
            yield f"{package['name']}=={package['version']}", urls[0]


def _rows(table: Mapping[str, object], key: str) -> list[dict[str, object]]:
    rows = table.get(key, [])
    return [row for row in rows if isinstance(row, dict)] if isinstance(rows, list) else []
