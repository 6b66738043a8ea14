"""Judge whether two runs agree: every metric on its own, then one verdict in words and as an exit code."""

from __future__ import annotations

import fnmatch
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from envcheck import errors
from envcheck.codec import Where, decode
from envcheck.errors import DataError, EnvcheckError
from envcheck.stack import parse_toml
from scripts.metrics import Run
from scripts.metrics_statistics import Bootstrap, Interval
from scripts.parity_config import config_differences

TOLERANCES = Path(__file__).with_name("parity_tolerances.toml")
Answer = Literal["agree", "differ", "not-enough-data", "not-measured", "shown"]
Verdict = Literal["agree", "differ", "not-enough-data"]
EXIT_CODES: dict[Verdict, int] = {
    "agree": errors.OK,
    "differ": errors.FINDINGS,
    "not-enough-data": errors.UNJUDGED,
}
SURE = 2.0
"""Agreement needs an interval within this many tolerances: a wide one says nothing."""


@dataclass(frozen=True, kw_only=True)
class Metric:
    """One metric and what counts as agreement; see the head of ``parity_tolerances.toml``."""

    name: str
    title: str
    names: tuple[str, ...]
    unit: str = ""
    absolute: float = 0.0
    relative: float = 0.0
    rise: float | None = None
    rise_relative: float = 0.0
    required: bool = False
    decides: bool = True
    skip_first: int = 0
    min_steps: int
    reason: str


@dataclass(frozen=True, kw_only=True)
class Tolerances:
    """The whole file."""

    version: int
    level: float
    resamples: int
    seed: int
    block_exponent: float
    expected_config: tuple[str, ...]
    metric: tuple[Metric, ...]

    @property
    def bootstrap(self) -> Bootstrap:
        """How intervals are made."""
        return Bootstrap(level=self.level, resamples=self.resamples, seed=self.seed, block_exponent=self.block_exponent)


@dataclass(frozen=True, kw_only=True)
class Judged:
    """What became of one metric."""

    metric: Metric
    answer: Answer
    words: str
    found: tuple[str, ...] = ()
    """Names of the metric in the two runs."""
    steps: tuple[int, ...] = ()
    first: tuple[float, ...] = ()
    second: tuple[float, ...] = ()
    difference: Interval | None = None
    tolerance: float | None = None
    rise: Interval | None = None
    rise_tolerance: float | None = None


@dataclass(frozen=True, kw_only=True)
class Comparison:
    """Two runs and everything that was found."""

    first: Run
    second: Run
    judged: tuple[Judged, ...]
    config: tuple[tuple[str, Any, Any], ...]
    """Keys that differ although they should not, with both values."""
    notes: tuple[str, ...]
    verdict: Verdict


def load(path: Path = TOLERANCES) -> Tolerances:
    """Load and validate a tolerances file."""
    found: Tolerances = decode(
        Tolerances, parse_toml(path.read_text(encoding="utf-8"), path.name), Where(source=path.name)
    )
    if found.version != 1:
        raise DataError(path.name, "version", expected="1", found=str(found.version))
    if not 0 < found.level < 1:
        raise DataError(path.name, "level", expected="a number between 0 and 1", found=str(found.level))
    return found


def compare(first: Run, second: Run, tolerances: Tolerances, *, without: Sequence[str] = ()) -> Comparison:
    """Judge two runs; metrics named in ``without`` are left out of the verdict."""
    known = [metric.name for metric in tolerances.metric]
    if unknown := sorted(set(without) - set(known)):
        raise EnvcheckError(f"there is no metric {', '.join(unknown)}", fix=f"there are {', '.join(known)}")
    metrics = [metric for metric in tolerances.metric if metric.name not in without]
    judged = tuple(judge(first, second, metric, tolerances.bootstrap) for metric in metrics)
    config = tuple(config_differences(first, second, tolerances.expected_config))
    notes = tuple(_notes(first, second, judged, tolerances.bootstrap, without))
    return Comparison(
        first=first, second=second, judged=judged, config=config, notes=notes, verdict=_verdict(first, second, judged)
    )


def _verdict(first: Run, second: Run, judged: Sequence[Judged]) -> Verdict:
    if any(item.answer == "differ" for item in judged):
        return "differ"
    if not first.steps or not second.steps:
        return "not-enough-data"
    needed = [item for item in judged if item.metric.required]
    decided = [item for item in judged if item.answer == "agree"]
    sure = all(item.answer == "agree" for item in needed) and bool(decided)
    return "agree" if sure else "not-enough-data"


def judge(first: Run, second: Run, metric: Metric, bootstrap: Bootstrap) -> Judged:
    """Judge one metric."""
    (name, before), (other, after) = _series(first, metric), _series(second, metric)
    if not before or not after:
        missing = [run.label for run, series in ((first, before), (second, after)) if not series]
        return Judged(metric=metric, answer="not-measured", words=f"not in {' nor in '.join(missing)}")
    found = (name, other)
    broken = _not_finite(first, second, before, after)
    steps = tuple(sorted(set(before) & set(after))[metric.skip_first :])
    ones, others = tuple(before[step] for step in steps), tuple(after[step] for step in steps)
    if broken:
        answer: Answer = "differ" if metric.decides else "shown"
        return Judged(metric=metric, answer=answer, words=broken, found=found, steps=steps, first=ones, second=others)
    if len(steps) < metric.min_steps:
        words = f"{len(steps)} steps in common, {metric.min_steps} are needed"
        answer = "not-enough-data" if metric.decides else "shown"
        return Judged(metric=metric, answer=answer, words=words, found=found, steps=steps, first=ones, second=others)
    return _measured(metric, bootstrap, found, steps, ones, others)


def _measured(  # noqa: PLR0913, PLR0917  # the parts of a measured metric
    metric: Metric,
    bootstrap: Bootstrap,
    found: tuple[str, str],
    steps: tuple[int, ...],
    before: tuple[float, ...],
    after: tuple[float, ...],
) -> Judged:
    differences = [b - a for a, b in zip(before, after, strict=True)]
    difference = bootstrap.mean(differences)
    scale = abs(math.fsum(before) / len(before))
    tolerance = max(metric.absolute, metric.relative * scale)
    rise = rise_tolerance = None
    if metric.rise is not None:
        rise = bootstrap.slope(steps, differences).scaled(steps[-1] - steps[0])
        rise_tolerance = max(metric.rise, metric.rise_relative * scale)
    answer, words = _answer(metric, difference, tolerance, rise, rise_tolerance)
    if not metric.decides:
        one, other = (math.fsum(series) / len(series) for series in (before, after))
        times = f" (x {other / one:.2f})" if one else ""
        words = f"mean {one:.4g} against {other:.4g}{times}; {words}"
    return Judged(
        metric=metric,
        answer=answer,
        words=words,
        found=found,
        steps=steps,
        first=before,
        second=after,
        difference=difference,
        tolerance=tolerance,
        rise=rise,
        rise_tolerance=rise_tolerance,
    )


def _answer(
    metric: Metric, difference: Interval, tolerance: float, rise: Interval | None, rise_tolerance: float | None
) -> tuple[Answer, str]:
    mean = f"mean difference {difference.value:+.4g} [{difference.low:+.4g}, {difference.high:+.4g}]"
    if not metric.decides:
        return "shown", mean
    if rise is not None and rise_tolerance is not None and rise.beyond(rise_tolerance):
        grown = f"the difference changes by {rise.value:+.4g} [{rise.low:+.4g}, {rise.high:+.4g}] over the run"
        return "differ", f"{grown}, tolerance {rise_tolerance:.4g}; {mean}"
    words = f"{mean}, tolerance {tolerance:.4g}"
    if difference.beyond(tolerance):
        return "differ", words
    sure = abs(difference.value) <= tolerance and difference.within(SURE * tolerance)
    if rise is not None and rise_tolerance is not None:
        sure = sure and rise.within(SURE * rise_tolerance)
    return ("agree", words) if sure else ("not-enough-data", f"{words}: too uncertain to tell")


def _series(run: Run, metric: Metric) -> tuple[str, Mapping[int, float]]:
    """Give the name and values of a metric in a run; a name with ``*`` is the mean of all that match."""
    for pattern in metric.names:
        if "*" not in pattern:
            if run.metrics.get(pattern):
                return pattern, run.metrics[pattern]
            continue
        matching = [series for name, series in run.metrics.items() if fnmatch.fnmatchcase(name, pattern)]
        steps = set.intersection(*(set(series) for series in matching)) if matching else set()
        if steps:
            return pattern, {
                step: math.fsum(series[step] for series in matching) / len(matching) for step in sorted(steps)
            }
    return "", {}


def _not_finite(first: Run, second: Run, before: Mapping[int, float], after: Mapping[int, float]) -> str:
    said = []
    for run, series in ((first, before), (second, after)):
        steps = sorted(step for step, value in series.items() if not math.isfinite(value))
        if steps:
            said.append(f"{run.label}: not a finite number at {_ranges(steps)}")
    return "; ".join(said)


def _ranges(steps: Sequence[int]) -> str:
    """Write steps shortly: ``steps 3, 5-9``."""
    parts: list[list[int]] = []
    for step in steps:
        if parts and step == parts[-1][1] + 1:
            parts[-1][1] = step
        else:
            parts.append([step, step])
    return "steps " + ", ".join(str(low) if low == high else f"{low}-{high}" for low, high in parts)


def _notes(
    first: Run, second: Run, judged: Sequence[Judged], bootstrap: Bootstrap, without: Sequence[str]
) -> list[str]:
    notes = [f"{run.label}: {run.end()}" for run in (first, second)]
    common = set(first.steps) & set(second.steps)
    if common and (set(first.steps) | set(second.steps)) - common:
        notes.append(f"compared over the {len(common)} steps that both have")
    notes += [f"{run.label}: its config is not known: not compared" for run in (first, second) if not run.config]
    notes += [f"{name} was left out of the verdict, as asked" for name in without]
    for item in judged:
        if item.found and item.found[0] != item.found[1]:
            notes.append(f"{item.metric.title}: logged as {item.found[0]} and as {item.found[1]}")
        notes += _growing(item, (first.label, second.label), bootstrap)
        if item.answer == "agree" and item.metric.required and not any((*item.first, *item.second)):
            notes.append(f"{item.metric.title}: 0 at every step of both, to a log's decimals: it tells little")
        if item.metric.name == "gap" and item.answer == "not-measured":
            notes.append(
                "the gap is logged by verl 0.4.1 and later, with actor_rollout_ref.rollout.calculate_log_probs=True;"
                " --without gap judges the rest"
            )
    return notes


def _growing(item: Judged, labels: tuple[str, str], bootstrap: Bootstrap) -> list[str]:
    """Say where a metric with a bound on its rise grows within a run, whatever the other one does."""
    if item.metric.rise is None or item.rise is None:
        return []
    said = []
    for label, series in zip(labels, (item.first, item.second), strict=True):
        rise = bootstrap.slope(item.steps, series).scaled(item.steps[-1] - item.steps[0])
        if rise.low > item.metric.rise:
            said.append(f"{label}: {item.metric.title} grows by {rise.value:.4g} over the run")
    return said
