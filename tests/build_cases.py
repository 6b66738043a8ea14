"""What tests of builds share: a context on a healthy host, and wheels made in memory."""

from __future__ import annotations

import zipfile
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from envcheck import choices, stack
from envcheck.facts import Facts
from scripts.build_context import Context, Wishes
from scripts.sources_lock import Source
from tests import factories

SOURCE = Source(
    name="flash-attn", version="2.7.4.post1", kind="sdist", distribution="flash-attn", file="f.tar.gz", sha256="a" * 64
)
WISHES = Wishes(engine="sglang", trainer="fsdp")


def healthy(**changes: Any) -> Facts:
    """A healthy host, with fields of some facts changed, as ``os={"glibc": "2.39"}``."""
    facts = factories.changed(factories.healthy(), "torch", build="cu124")
    return replace(facts, **{key: replace(getattr(facts, key), **fields) for key, fields in changes.items()})


def context(name: str = "flash-attn", facts: Facts | None = None, *, archs: tuple[str, ...] = ("9.0",)) -> Context:
    """A context of one component on a healthy host."""
    seen = facts or healthy()
    wanted = stack.load(factories.SEED)
    chosen = replace(choices.choose(seen, wanted), archs=archs, cpus=8, memory_bytes=64 << 30)
    return Context(
        stack=wanted,
        component=wanted.component(name, "sglang"),
        source=replace(SOURCE, name=name),
        wishes=WISHES,
        facts=seen,
        choices=chosen,
    )


def wheel(
    directory: Path,
    name: str = "flash_attn-2.7.4.post1-py3-none-any.whl",
    members: Mapping[str, bytes] | None = None,
    *,
    stamp: tuple[int, int, int, int, int, int] = (2024, 1, 2, 3, 4, 6),
) -> Path:
    """A wheel with METADATA, WHEEL and a RECORD that says nothing."""
    directory.mkdir(parents=True, exist_ok=True)
    path = directory / name
    distribution, version = name.split("-")[:2]
    info = f"{distribution}-{version}.dist-info"
    content: dict[str, bytes] = {
        f"{info}/RECORD": b"",
        f"{info}/METADATA": f"Metadata-Version: 2.1\nName: {distribution}\nVersion: {version}\n\nText\n".encode(),
        f"{info}/WHEEL": b"Wheel-Version: 1.0\n",
        **(members or {f"{distribution}/__init__.py": b"x = 1\n"}),
    }
    with zipfile.ZipFile(path, "w") as file:
        for member, data in content.items():
            file.writestr(zipfile.ZipInfo(member, date_time=stamp), data)
    return path


def receipt(**changes: Any) -> dict[str, Any]:
    """A receipt as a build gives it to the wheelhouse."""
    return {"version": 1, "inputs": {"torch": "2.5.1+cu124", "cuda": "12.4.131"}, "finished": "2026-01-01", **changes}
