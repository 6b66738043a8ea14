"""Metrics of a training run, read from whatever it left behind: console log, JSON lines, wandb's files or its API."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from envcheck.errors import EnvcheckError

API_PREFIX = "wandb:"


@dataclass(frozen=True, kw_only=True)
class Run:
    """One run: its metrics by name and step, and what is known of its config and its end."""

    label: str
    source: str
    metrics: Mapping[str, Mapping[int, float]]
    config: Mapping[str, Any] = field(default_factory=dict)
    """Dotted key -> value; empty where the source holds none."""
    total_steps: int | None = None
    finished: bool | None = None
    """None: the source does not say."""

    @property
    def steps(self) -> tuple[int, ...]:
        """Steps that carry training metrics, in order."""
        found = {step for name, series in self.metrics.items() if not name.startswith("val") for step in series}
        return tuple(sorted(found))

    def end(self) -> str:
        """Say how the run ended, in words."""
        last = self.steps[-1] if self.steps else None
        if last is None:
            return "no step was logged"
        wanted = f" of {self.total_steps}" if self.total_steps else ""
        if self.cut_off:
            return f"cut off after step {last}{wanted}"
        return f"{len(self.steps)} steps, last {last}{wanted}"

    @property
    def cut_off(self) -> bool:
        """True where the run is known not to have reached its end."""
        last = self.steps[-1] if self.steps else 0
        return self.total_steps is not None and last < self.total_steps and self.finished is not True


def flattened(value: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """Give a nested config as dotted keys."""
    found: dict[str, Any] = {}
    for key, item in value.items():
        if isinstance(item, dict) and item:
            found |= flattened(item, f"{prefix}{key}.")
        else:
            found[f"{prefix}{key}"] = item
    return found


def read(source: str, label: str | None = None) -> Run:
    """Read a run from a path (log, jsonl, .wandb, a folder of one of them) or from ``wandb:entity/project/run``."""
    if source.startswith(API_PREFIX):
        from scripts.metrics_wandb import from_api

        return from_api(source.removeprefix(API_PREFIX), label or source)
    path = Path(source).expanduser()
    name = label or path.stem
    if path.is_dir():
        name = label or path.name
        path = _in_folder(path)
    if not path.is_file():
        raise EnvcheckError(
            f"{source}: there is no such file", fix="name a log, a run folder, or wandb:ENTITY/PROJECT/RUN"
        )
    return _read_file(path, name)


def _read_file(path: Path, label: str) -> Run:
    from scripts import metrics_console, metrics_wandb

    with path.open("rb") as file:
        head = file.read(7)
    if metrics_wandb.is_datastore(head):
        return metrics_wandb.from_datastore(path, label)
    run = metrics_console.from_lines(path.read_text(encoding="utf-8", errors="replace").splitlines(), str(path), label)
    if run.metrics:
        return run
    return metrics_console.from_json_lines(path, label) or run


def _in_folder(folder: Path) -> Path:
    """Find the one source in a run folder: our own train.log, else wandb's file, else the only log."""
    for pattern in ("train.log", "*.wandb", "wandb/*/*.wandb", "*.log", "*.jsonl"):
        found = sorted({path.resolve() for path in folder.glob(pattern)})  # wandb/latest-run is a link
        if len(found) == 1:
            return found[0]
        if found:
            listed = ", ".join(path.name for path in found[:5])
            raise EnvcheckError(f"{folder} holds several runs: {listed}", fix="name one of them")
    raise EnvcheckError(f"{folder} holds no log and no wandb file", fix="name the file")
