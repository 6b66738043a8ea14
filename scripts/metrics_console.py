"""Read what verl prints: one line of metrics a step, the config at the start, the progress bar, the end."""

from __future__ import annotations

import ast
import json
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from scripts.metrics import Run, flattened

_COLOUR = re.compile(r"\x1b\[[0-9;]*[A-Za-z]")
_PREFIX = re.compile(r"^\((?P<who>[\w.:<>-]+ pid=\d+)(?:, ip=[\d.]+)?\) ?")
_STEP = re.compile(r"(?:^|\s)step:(?P<step>\d+) - (?P<rest>.+)$")
_NUMBER = re.compile(r"(?:np\.\w+\()?(?P<number>[-+]?(?:\d+\.?\d*(?:e[-+]?\d+)?|\.\d+|nan|inf))\)?", re.IGNORECASE)
_TOTAL = re.compile(r"Total training steps: (\d+)")
_PROGRESS = re.compile(r"Training Progress:.*?(\d+)/(\d+)")
END = "Final validation metrics"
LONGEST_CONFIG_LINES = 5000


@dataclass(frozen=True, kw_only=True)
class StepLine:
    """The metrics that one step printed."""

    step: int
    metrics: Mapping[str, float]


def plain(line: str) -> tuple[str, str]:
    """Split colours and ray's prefix off: ``(Runner pid=7) step:1 - …`` → (``Runner pid=7``, ``step:1 - …``)."""
    text = _COLOUR.sub("", line).rstrip()
    found = _PREFIX.match(text)
    return (found["who"], text[found.end() :]) if found else ("", text)


def step_line(line: str) -> StepLine | None:
    """Read ``step:3 - critic/rewards/mean:0.016 - actor/entropy:np.float64(6.79) - …``; None for any other line."""
    found = _STEP.search(plain(line)[1])
    if found is None:
        return None
    metrics: dict[str, float] = {}
    for item in found["rest"].split(" - "):
        name, _, value = item.strip().rpartition(":")
        number = _NUMBER.fullmatch(value)
        if name and number:
            metrics[name] = float(number["number"])
    return StepLine(step=int(found["step"]), metrics=metrics) if metrics else None


def from_lines(lines: Sequence[str], source: str, label: str) -> Run:
    """Read a whole console log; a step that was logged twice (a resumed run) counts as it was logged last."""
    metrics: dict[str, dict[int, float]] = {}
    total: int | None = None
    finished = False
    for line in lines:
        if (step := step_line(line)) is not None:
            for name, value in step.metrics.items():
                metrics.setdefault(name, {})[step.step] = value
        elif found := _TOTAL.search(line):
            total = int(found[1])
        elif total is None and (found := _PROGRESS.search(line)):
            total = int(found[2])
        finished = finished or END in line
    return Run(
        label=label,
        source=source,
        metrics=metrics,
        config=config_of(lines),
        total_steps=total,
        finished=finished,
    )


def config_of(lines: Iterable[str]) -> dict[str, Any]:
    """Read the config that verl prints with pprint at its start; empty where there is none (or it is cut off)."""
    speaker: str | None = None
    block: list[str] = []
    for line in lines:
        who, text = plain(line)
        if speaker is None:
            if not re.match(r"\{'\w+': ", text):
                continue
            speaker, block = who, []
        if who != speaker or not text:
            continue
        block.append(text)
        if text.endswith("}") and (found := _dictionary(block)) is not None:
            return flattened(found)
        if len(block) > LONGEST_CONFIG_LINES:
            break
    return {}


def _dictionary(block: Sequence[str]) -> dict[str, Any] | None:
    text = "\n".join(block)
    if text.count("{") != text.count("}"):
        return None
    try:
        found = ast.literal_eval(text)
    except (ValueError, SyntaxError):
        return None
    return found if isinstance(found, dict) and "trainer" in found else None


def from_json_lines(path: Path, label: str) -> Run | None:
    """Read verl's file logger (``{"step": 1, "data": {…}}``) or wandb's history lines (``{"_step": 1, …}``)."""
    metrics: dict[str, dict[int, float]] = {}
    for line in path.read_text(encoding="utf-8", errors="replace").splitlines():
        try:
            row = json.loads(line)
        except ValueError:
            continue  # a line that is cut off, or no JSON at all
        if isinstance(row, dict):
            add_row(metrics, row.get("step", row.get("_step")), row.get("data", row))
    return Run(label=label, source=str(path), metrics=metrics) if metrics else None


def add_row(metrics: dict[str, dict[int, float]], step: object, row: Mapping[str, Any]) -> None:
    """Add the numbers of one step; wandb writes NaN and infinities as text."""
    if isinstance(step, bool) or not isinstance(step, (int, float)):
        return
    for name, value in row.items():
        if name in {"step", "_step", "_runtime", "_timestamp"}:
            continue
        if (number := _number(value)) is not None:
            metrics.setdefault(name, {})[int(step)] = number


def _number(value: object) -> float | None:
    if isinstance(value, str):
        return float(value) if value in {"NaN", "Infinity", "-Infinity"} else None
    return float(value) if isinstance(value, (int, float)) and not isinstance(value, bool) else None
