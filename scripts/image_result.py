"""What a build of an image gave: digest, layers and their sizes, seconds per stage."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass, field

from scripts import process

STEP = re.compile(r"^#(\d+) \[(?:[\w./-]+ )?([\w-]+) +\d+/\d+\]")
DONE = re.compile(r"^#(\d+) DONE ([\d.]+)s")


@dataclass(kw_only=True)
class Times:
    """Seconds per stage, read from BuildKit's plain progress lines: ``#12 [train 3/5] RUN …``, ``#12 DONE 8.1s``."""

    stages: dict[str, float] = field(default_factory=dict)
    cached: int = 0
    _names: dict[str, str] = field(default_factory=dict)

    def read(self, line: str) -> None:
        """Take one line in."""
        if step := STEP.match(line):
            self._names[step[1]] = step[2]
        elif (done := DONE.match(line)) and done[1] in self._names:
            name = self._names[done[1]]
            self.stages[name] = self.stages.get(name, 0.0) + float(done[2])
        elif line.startswith("#") and line.endswith(" CACHED"):
            self.cached += 1


@dataclass(frozen=True, kw_only=True)
class Layer:
    """One layer: its size and the instruction that made it."""

    bytes: int
    made_by: str


def layers(ref: str) -> list[Layer]:
    """Sizes per layer, as `docker history` tells them, largest last instruction first."""
    text = process.output(
        ["docker", "history", "--no-trunc", "--human=false", "--format", "{{.Size}}\t{{.CreatedBy}}", ref]
    )
    rows = (line.split("\t", 1) for line in text.splitlines() if "\t" in line)
    return [Layer(bytes=int(size), made_by=made) for size, made in rows if size.isdigit() and int(size)]


def summary(ref: str, times: Times, seconds: float) -> dict[str, object]:
    """Give what a person or a pipeline wants to know of the result."""
    found = json.loads(process.output(["docker", "image", "inspect", ref]))[0]
    sizes = layers(ref)
    return {
        "version": 1,
        "reference": ref,
        "digest": found["Id"],
        "bytes": sum(layer.bytes for layer in sizes),
        "layers": [{"bytes": layer.bytes, "made_by": layer.made_by[:120]} for layer in sizes],
        "seconds": round(seconds, 1),
        "stages": {name: round(value, 1) for name, value in sorted(times.stages.items())},
        "cached_steps": times.cached,
    }


def show(result: Mapping[str, object]) -> str:
    """Write the summary for people."""
    lines = [f"{result['reference']}  {result['digest']}  {_gib(result['bytes'])} in {result['seconds']} s"]
    layers_found = result["layers"]
    assert isinstance(layers_found, list)  # noqa: S101  # summary() made it
    lines += [f"  {_gib(layer['bytes']):>10}  {layer['made_by'][:90]}" for layer in layers_found]
    stages_found = result["stages"]
    assert isinstance(stages_found, dict)  # noqa: S101
    lines += [f"  {seconds:>8.1f} s  stage {name}" for name, seconds in stages_found.items()]
    lines.append(f"  {result['cached_steps']} steps came from the cache")
    return "\n".join(lines)


def _gib(size: object) -> str:
    assert isinstance(size, int)  # noqa: S101
    return f"{size / (1 << 20):.1f} MiB" if size < 1 << 30 else f"{size / (1 << 30):.2f} GiB"
