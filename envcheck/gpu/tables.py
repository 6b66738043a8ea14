"""What is known of the kernels and of the GPUs: data in TOML."""

from __future__ import annotations

import fnmatch
from dataclasses import dataclass
from typing import Any, Literal

from envcheck import data
from envcheck.codec import Where, decode
from envcheck.errors import DataError
from envcheck.stack import parse_toml


@dataclass(frozen=True, kw_only=True)
class Kernel:
    """One kernel; see the head of ``kernels.toml``."""

    id: str
    title: str
    subject: str
    tolerance: float
    lane: Literal["first", "serial", "beside", "last"]
    seconds: float
    measured: str
    ceiling: Literal["bf16", "fp8", "memory", "link"] | None = None
    severity: Literal["error", "warning"] = "error"
    note: str = ""
    cold: str = ""


@dataclass(frozen=True, kw_only=True)
class Ceiling:
    """What a GPU can do at most; see the head of ``ceilings.toml``."""

    name: str
    bf16_tflops: float
    fp8_tflops: float
    memory_gbs: float
    link_gbs: float
    source: str

    def of(self, kind: str | None) -> float | None:
        """Give the ceiling of a kind, in FLOP/s or bytes/s; None where there is none."""
        value = {
            "bf16": self.bf16_tflops * 1e12,
            "fp8": self.fp8_tflops * 1e12,
            "memory": self.memory_gbs * 1e9,
            "link": self.link_gbs * 1e9,
        }.get(kind or "")
        return value or None


@dataclass(frozen=True, kw_only=True)
class _Kernels:
    version: int
    kernel: tuple[Kernel, ...]


@dataclass(frozen=True, kw_only=True)
class _Ceilings:
    version: int
    gpu: tuple[Ceiling, ...]


@dataclass(frozen=True, kw_only=True)
class Tables:
    """Both tables."""

    kernels: tuple[Kernel, ...]
    ceilings: tuple[Ceiling, ...]

    def ceiling(self, gpu: str) -> Ceiling | None:
        """Give the row of a GPU by the name that the driver reports; None for one that is not known."""
        return next((row for row in self.ceilings if fnmatch.fnmatchcase(gpu, row.name)), None)


def load() -> Tables:
    """Load the shipped tables."""
    kernels: _Kernels = _read("kernels.toml", _Kernels)
    ceilings: _Ceilings = _read("ceilings.toml", _Ceilings)
    for version, source in ((kernels.version, "kernels.toml"), (ceilings.version, "ceilings.toml")):
        if version != 1:
            raise DataError(source, "version", expected="1", found=str(version))
    return Tables(kernels=kernels.kernel, ceilings=ceilings.gpu)


def _read(name: str, kind: type) -> Any:  # noqa: ANN401  # of the kind that was asked for
    return decode(kind, parse_toml(data.read(f"gpu/{name}"), name), Where(source=name))
