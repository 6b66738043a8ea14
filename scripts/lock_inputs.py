"""What uv resolves: a project made from the stack file, one extra per engine, and stubs for what no index has."""

from __future__ import annotations

import datetime as dt
import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

from envcheck.errors import DataError, WorkError
from envcheck.stack import Component, Metadata, Stack

ENVIRONMENT = "sys_platform == 'linux' and platform_machine == 'x86_64' and implementation_name == 'cpython'"
PYTHONS = ("3.10", "3.11", "3.12")
PROJECT = "stack-lock"
"""Name of the project that uv resolves."""
OUTSIDE = frozenset({"git", "wheel"})
"""Origins which the index does not have: a stub with the stack file's metadata stands for them."""
SETTLED = dt.timedelta(days=14)
"""Age from which a cut-off is final. Mirrors and quarantines show a release days after its upload time: one of
2026-11-18 was first seen through a mirror on 2026-11-24, and a lock with the cut-off 2026-11-20 changed with it."""


@dataclass(frozen=True, kw_only=True)
class Inputs:
    """The files of the project that uv resolves, path -> text, and which packages its export leaves out."""

    files: dict[str, str]
    left_out: tuple[str, ...]


def make(stack: Stack) -> Inputs:
    """Give the project, its settings, and a stub for each component that has metadata but is on no index."""
    stubs = {
        item.distribution: item for item in stack.components if item.origin.kind in OUTSIDE and _metadata(stack, item)
    }
    texts = {f"{name}/pyproject.toml": _stub(stack, item) for name, item in sorted(stubs.items())}
    texts |= {"pyproject.toml": _project(stack, stubs), "uv.toml": _settings(stack)}
    outside = {item.distribution for item in stack.components if item.origin.kind != "index"}
    return Inputs(files=texts, left_out=tuple(sorted(outside)))


def cutoff(date: str) -> str:
    """Give a date as the instant that uv wants: 2025-03-20 is its first second."""
    return date if "T" in date else f"{date}T00:00:00Z"


def check_settled(date: str, *, where: str, now: dt.datetime | None = None) -> None:
    """Refuse a cut-off so recent that an index may still add releases from before it.

    Raises:
        WorkError: if the cut-off is younger than SETTLED.
    """
    latest = (now or dt.datetime.now(tz=dt.timezone.utc)) - SETTLED
    if dt.datetime.fromisoformat(cutoff(date).replace("Z", "+00:00")) > latest:
        raise WorkError(
            f"the cut-off {date} of {where} is less than {SETTLED.days} days old: an index or its mirror may "
            "still show releases from before it later, and the lock would have other bytes then; "
            f"take {latest.date()} or earlier"
        )


def requirements(stack: Stack, engine: str | None) -> list[str]:
    """Give what is asked for directly: for one engine, or (None) for all of them."""
    direct = [
        Requirement(line)
        for line in (stack.lock.direct if engine is None else stack.lock.engine_direct.get(engine, ()))
    ]
    extras: dict[str, Requirement] = {canonicalize_name(item.name): item for item in direct if not item.specifier}
    chosen = [item for item in stack.components if _belongs(item, engine) and _resolvable(stack, item)]
    lines = [_pin(item, extras.pop(item.distribution, None)) for item in chosen]
    lines += [str(item) for item in direct if item.specifier or canonicalize_name(item.name) in extras]
    return sorted(set(lines))


def _belongs(item: Component, engine: str | None) -> bool:
    return not item.engines if engine is None else engine in item.engines


def _resolvable(stack: Stack, item: Component) -> bool:
    return item.origin.kind == "index" or _metadata(stack, item) is not None


def _pin(item: Component, extras: Requirement | None) -> str:
    names = f"[{','.join(sorted(extras.extras))}]" if extras and extras.extras else ""
    return f"{item.distribution}{names}=={item.version}"


def _metadata(stack: Stack, item: Component) -> Metadata | None:
    for row in stack.lock.metadata:
        if (canonicalize_name(row.name), row.version) == (item.distribution, item.version):
            return row
    if item.origin.kind == "sdist":
        place = f"stack {stack.name}: lock.metadata"
        raise DataError(
            place,
            "",
            expected=f"a row for {item.distribution} {item.version}",
            found="none",
            fix="write its dependencies there: no setup.py is run to learn them",
        )
    return None


def _stub(stack: Stack, item: Component) -> str:
    row = _metadata(stack, item)
    assert row is not None  # noqa: S101  # stubs are made only where there is a row
    return f"[project]\n{_toml(name=item.distribution, version=item.version)}\ndependencies = {_list(row.requires)}\n"


def _project(stack: Stack, stubs: Mapping[str, Component]) -> str:
    extras = "\n".join(f"{engine} = {_list(requirements(stack, engine))}" for engine in stack.engines)
    conflicts = ", ".join(f'{{ extra = "{engine}" }}' for engine in stack.engines)
    sources = "\n".join(f'{name} = {{ path = "{name}" }}' for name in sorted(stubs))
    overrides = _list(row.requirement for row in stack.lock.overrides)
    return f"""[project]
name = "{PROJECT}"
version = "0"
requires-python = "{stack.python.requires}"
dependencies = {_list(requirements(stack, None))}

[project.optional-dependencies]
{extras}

[tool.uv]
package = false
conflicts = [[{conflicts}]]
environments = [{json.dumps(ENVIRONMENT)}]
override-dependencies = {overrides}

[tool.uv.sources]
{sources}
"""


def _settings(stack: Stack) -> str:
    """Give uv.toml: dates, no build ever, and the metadata that stands in for what a build would tell."""
    rows = [row for row in stack.lock.metadata if not _is_outside(stack, row)]
    bare = sorted({canonicalize_name(row.name) for row in rows if not row.wheel})
    exempt = ", ".join(f"{json.dumps(row.package)} = {json.dumps(cutoff(row.until))}" for row in stack.lock.exempt)
    text = f"""exclude-newer = "{cutoff(stack.lock.cutoff)}"
exclude-newer-package = {{ {exempt} }}
no-build = true
no-binary-package = {_list(bare)}
"""
    for row in rows:
        text += f"\n[[dependency-metadata]]\n{_toml(name=row.name, version=row.version)}\n"
        text += f"requires-dist = {_list(row.requires)}\n"
    return text


def _is_outside(stack: Stack, row: Metadata) -> bool:
    name = canonicalize_name(row.name)
    return any(item.distribution == name and item.origin.kind in OUTSIDE for item in stack.components)


def _list(lines: Iterable[str]) -> str:
    return json.dumps(list(lines))


def _toml(**values: str) -> str:
    return "\n".join(f"{key} = {json.dumps(value)}" for key, value in values.items())
