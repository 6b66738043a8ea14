"""What is measured: programs and budgets, read from bench.toml."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

from envcheck.codec import Where, decode
from envcheck.errors import DataError
from envcheck.stack import parse_toml

FILE = Path(__file__).with_suffix("").with_name("bench.toml")


@dataclass(frozen=True, kw_only=True)
class Program:
    """One command; ``prepare`` runs once before it, unmeasured."""

    name: str
    title: str
    argv: tuple[str, ...]
    exit_codes: tuple[int, ...] = (0,)
    needs: tuple[str, ...] = ()
    """Modules that the target interpreter must have."""
    kit: bool = False
    """It needs a kit of the stack, named with ``--kit``."""
    prepare: tuple[str, ...] = ()
    before: tuple[str, ...] = ()
    """Runs before each run, unmeasured."""
    environment: dict[str, str] = field(default_factory=dict)
    rounds: int | None = None
    """Fewer than ``--rounds``, for what takes long."""
    timeout_seconds: float = 120.0


@dataclass(frozen=True, kw_only=True)
class Budget:
    """``wall``: seconds, or with ``against`` the ratio to that program in the same round; ``memory``: peak bytes."""

    name: str
    program: str
    against: str | None = None
    measure: Literal["wall", "memory"] = "wall"
    at_most: float
    why: str


@dataclass(frozen=True, kw_only=True)
class Bench:
    """Everything in bench.toml."""

    version: int
    program: tuple[Program, ...]
    budget: tuple[Budget, ...]

    def only(self, names: tuple[str, ...]) -> Bench:
        """Keep the named programs or budgets, with what they are compared with; raise DataError for another name."""
        if not names:
            return self
        known = {item.name for item in self.program} | {item.name for item in self.budget}
        for name in names:
            if name not in known:
                raise DataError(FILE.name, name, expected=f"one of {', '.join(sorted(known))}", found="no such name")
        budgets = tuple(item for item in self.budget if item.name in names or item.program in names)
        wanted = {*names, *(item.program for item in budgets), *(item.against for item in budgets)}
        return Bench(version=1, program=tuple(p for p in self.program if p.name in wanted), budget=budgets)


def load(text: str | None = None) -> Bench:
    """Read and validate bench.toml."""
    content = FILE.read_text(encoding="utf-8") if text is None else text
    bench: Bench = decode(Bench, parse_toml(content, FILE.name), Where(source=FILE.name))
    if bench.version != 1:
        raise DataError(FILE.name, "version", expected="1", found=str(bench.version))
    names = [item.name for item in bench.program]
    if len(set(names)) < len(names):
        raise DataError(FILE.name, "program", expected="a name of its own for each", found=str(sorted(names)))
    for index, budget in enumerate(bench.budget):
        for key, name in (("program", budget.program), ("against", budget.against)):
            if name is not None and name not in names:
                raise DataError(FILE.name, f"budget[{index}].{key}", expected=f"one of {names}", found=repr(name))
    return bench
