"""Reports of real failures: a log and a host's facts composed from each."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from envcheck import documents
from envcheck.codec import Where, decode
from envcheck.errors import DataError
from envcheck.facts import Facts
from envcheck.model import Stage
from envcheck.stack import parse_toml

NOISE: dict[str, tuple[str, str]] = {
    "build": (
        """\
WARNING: Running pip as the 'root' user can result in broken permissions and conflicting behaviour
verl 0.2 requires vllm<=0.6.3, but you have vllm 0.6.4.post1 which is incompatible.
Building wheels for collected packages: x
  Building wheel for x (pyproject.toml): started
UserWarning: TORCH_CUDA_ARCH_LIST is not set, all archs for visible cards are included for compilation.
""",
        """
subprocess.CalledProcessError: Command '['ninja', '-v']' returned non-zero exit status 1.
  error: subprocess-exited-with-error
  ERROR: Failed building wheel for x
""",
    ),
    "run": (
        """\
(raylet) Dashboard build directory not found at '/opt/venv/lib/python3.10/site-packages/ray/dashboard/client/build'.
node1:75:75 [0] NCCL INFO NET/Plugin : libnccl-net.so: cannot open shared object file: No such file or directory
FutureWarning: The pynvml package is deprecated. Please install nvidia-ml-py instead.
Traceback (most recent call last):
  File "/opt/verl/verl/trainer/main_ppo.py", line 42, in main
""",
        """

The above exception was the direct cause of the following exception:

ray.exceptions.RayTaskError: ray::WorkerDict.actor_rollout_init_model() (pid=4711, ip=10.0.0.3)
[rank1]: torch.distributed.elastic.multiprocessing.errors.ChildFailedError
(raylet) *** SIGTERM received at time=1753264931 on cpu 15 ***
""",
    ),
}
"""What stands before and after the symptom: harmless messages and follow-ups."""

_STEP = re.compile(r"([^.\[\]]+)|\[([^\]]+)\]")
_PATH = re.compile(r"[^.\[\]]+(?:\.[^.\[\]]+|\[[^\]]+\])*")
SELECTORS = ("name", "role", "library", "kind")


@dataclass(frozen=True, kw_only=True)
class Host:
    """A recorded healthy host, and what it is judged against."""

    stack: str
    stages: tuple[Stage, ...]
    engine: str = "sglang"
    trainer: str = "fsdp"


@dataclass(frozen=True, kw_only=True)
class Report:
    """One report: what was seen, which rule explains it, how a healthy host becomes that host."""

    url: str
    component: str
    symptom: str
    phase: Literal["build", "run"]
    rule: str
    also: tuple[str, ...] = ()
    """Rules that explain it as well."""
    log: str | None = None
    """The rule that the symptom alone leads to, where only facts lead to ``rule``."""
    unseen: str | None = None
    """Why no fact of a host shows it."""
    host: str = ""
    stage: Stage = "launch"
    engine: str | None = None
    trainer: str | None = None
    set: dict[str, Any] = field(default_factory=dict)
    remove: tuple[str, ...] = ()

    @property
    def text(self) -> str:
        """Give a log that holds the symptom among harmless messages and follow-ups."""
        before, after = NOISE[self.phase]
        return f"{before}{self.symptom}{after}"

    @property
    def in_log(self) -> tuple[str, ...]:
        """Give the rules that may be named first."""
        return (self.log or self.rule, *self.also)

    @property
    def on_host(self) -> tuple[str, ...]:
        """Give the rules of which one must be found on the facts."""
        return (self.rule, *self.also)


@dataclass(frozen=True, kw_only=True)
class Corpus:
    """All reports, and the healthy hosts."""

    version: int
    hosts: dict[str, Host]
    reports: dict[str, Report]


def load(path: Path) -> Corpus:
    """Read the reports; raise DataError naming the key."""
    corpus: Corpus = decode(Corpus, parse_toml(path.read_text(encoding="utf-8"), path.name), Where(source=path.name))
    for name, report in corpus.reports.items():
        if report.unseen is None and report.host not in corpus.hosts:
            raise DataError(path.name, f"reports.{name}.host", expected="a host of the table", found=repr(report.host))
    return corpus


def facts_of(report: Report, name: str, hosts: Path) -> Facts:
    """Give the healthy host's facts with the changes of a report."""
    document = json.loads((hosts / report.host / "facts.json").read_text(encoding="utf-8"))
    return documents.of(edited(document, report, name), f"reports.{name}")


def edited(document: dict[str, Any], report: Report, name: str) -> dict[str, Any]:
    """Make the changes of a report; ``packages[torch].version`` selects by name, role, library, kind or index."""
    for path in report.remove:
        parent, last = _parent(document, path, name)
        if isinstance(parent, list):
            parent[:] = [item for index, item in enumerate(parent) if not _selected(item, index, last)]
        else:
            parent.pop(last, None)
    for path, value in report.set.items():
        parent, last = _parent(document, path, name)
        if isinstance(parent, list):
            _set_item(parent, last, value)
        else:
            parent[last] = value
    return document


def _set_item(items: list[Any], selector: str, value: object) -> None:
    places = [index for index, item in enumerate(items) if _selected(item, index, selector)]
    for index in places:
        items[index] = value
    if not places:
        items.append(value)


def _parent(document: dict[str, Any], path: str, name: str) -> tuple[Any, str]:
    """Follow a path to its last step."""
    steps = [plain or selector for plain, selector in _STEP.findall(path)]
    if not _PATH.fullmatch(path):
        raise DataError(f"reports.{name}", path, expected="a path such as packages[torch].version", found="another")
    place: Any = document
    for step in steps[:-1]:
        place = _next(place, step, path, name)
    return place, steps[-1]


def _next(place: object, step: str, path: str, name: str) -> Any:  # noqa: ANN401  # a part of a JSON document
    if isinstance(place, dict):
        return place.setdefault(step, {})
    found = (
        [item for index, item in enumerate(place) if _selected(item, index, step)] if isinstance(place, list) else []
    )
    if not found:
        raise DataError(f"reports.{name}", path, expected=f"something that [{step}] selects", found="nothing")
    return found[0]


def _selected(item: object, index: int, selector: str) -> bool:
    if selector.isdigit():
        return index == int(selector)
    return isinstance(item, Mapping) and any(item.get(key) == selector for key in SELECTORS)
