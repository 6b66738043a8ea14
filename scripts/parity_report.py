"""Write what a comparison found: as text, as JSON, as one HTML file that needs nothing else."""

from __future__ import annotations

import json
import math
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from envcheck import errors
from envcheck.errors import WorkError
from scripts import files, parity_plots
from scripts.metrics import Run
from scripts.metrics_statistics import Interval
from scripts.parity_judge import EXIT_CODES, Comparison, Judged, Tolerances, Verdict

VERDICTS = {
    "agree": "The runs agree.",
    "differ": "The runs differ.",
    "not-enough-data": "There is not enough data to tell whether the runs agree.",
}
MARKS = {"agree": "✓", "differ": "✗", "not-enough-data": "?", "not-measured": "-", "shown": " "}
TEMPLATE = "parity_report.html.j2"
SHOWN_VALUE = 60


def verdict(comparisons: Sequence[Comparison]) -> Verdict:
    """Sum up: one difference decides, then one that could not be told."""
    found = {item.verdict for item in comparisons}
    if "differ" in found:
        return "differ"
    return "not-enough-data" if "not-enough-data" in found or not found else "agree"


def exit_code(comparisons: Sequence[Comparison]) -> int:
    """Give 0 agree, 1 differ, 3 not enough data."""
    return EXIT_CODES[verdict(comparisons)] if comparisons else errors.UNJUDGED


def text(comparisons: Sequence[Comparison]) -> str:
    """Write the comparison for a terminal."""
    lines: list[str] = []
    for comparison in comparisons:
        lines.append(f"{comparison.first.label} against {comparison.second.label}")
        lines += [
            f"  {MARKS[item.answer]} {item.metric.title}: {item.answer}: {item.words}" for item in comparison.judged
        ]
        lines += [f"  config: {key}: {_short(one)} against {_short(other)}" for key, one, other in comparison.config]
        lines += [f"  note: {note}" for note in comparison.notes]
        lines += [f"  {sentence(comparison)}", ""]
    return "\n".join(lines)


def sentence(comparison: Comparison) -> str:
    """Sum a comparison up and name the metrics that decided: ``The runs differ: score, entropy.``."""
    deciding = [item for item in comparison.judged if item.answer == comparison.verdict != "agree"]
    names = ", ".join(item.metric.title for item in deciding)
    whole = VERDICTS[comparison.verdict][:-1] + _limits(comparison)
    return f"{whole}: {names}." if names else f"{whole}."


def _limits(comparison: Comparison) -> str:
    """Say how far an agreement reaches where a run was cut off: `` over the 18 steps that both have …``."""
    runs = (comparison.first, comparison.second)
    cut = " and ".join(run.label for run in runs if run.cut_off)
    if not cut or comparison.verdict != "agree":
        return ""
    return f" over the {len(set(runs[0].steps) & set(runs[1].steps))} steps that both have ({cut} was cut off)"


def document(comparisons: Sequence[Comparison], tolerances: Tolerances) -> dict[str, Any]:
    """Give everything as plain data."""
    return {
        "version": 1,
        "verdict": verdict(comparisons),
        "exit_code": exit_code(comparisons),
        "level": tolerances.level,
        "resamples": tolerances.resamples,
        "seed": tolerances.seed,
        "comparisons": [_comparison(item) for item in comparisons],
    }


def _comparison(comparison: Comparison) -> dict[str, Any]:
    return {
        "verdict": comparison.verdict,
        "runs": [_run(comparison.first), _run(comparison.second)],
        "metrics": [_metric(item) for item in comparison.judged],
        "config_differences": [{"key": key, "first": one, "second": other} for key, one, other in comparison.config],
        "notes": list(comparison.notes),
    }


def _run(run: Run) -> dict[str, Any]:
    return {
        "label": run.label,
        "source": run.source,
        "steps": len(run.steps),
        "first_step": run.steps[0] if run.steps else None,
        "last_step": run.steps[-1] if run.steps else None,
        "total_steps": run.total_steps,
        "cut_off": run.cut_off,
    }


def _metric(item: Judged) -> dict[str, Any]:
    return {
        "name": item.metric.name,
        "answer": item.answer,
        "words": item.words,
        "required": item.metric.required,
        "decides": item.metric.decides,
        "logged_as": list(item.found),
        "steps": list(item.steps),
        "first": [_number(value) for value in item.first],
        "second": [_number(value) for value in item.second],
        "difference": _interval(item.difference),
        "tolerance": item.tolerance,
        "rise": _interval(item.rise),
        "rise_tolerance": item.rise_tolerance,
        "reason": item.metric.reason,
    }


def _interval(value: Interval | None) -> dict[str, float] | None:
    return None if value is None else {"value": value.value, "low": value.low, "high": value.high}


def _number(value: float) -> float | str:
    """JSON knows no NaN."""
    return value if math.isfinite(value) else str(value)


def html(comparisons: Sequence[Comparison]) -> str:
    """Give one page with tables and plots."""
    import jinja2

    loader = jinja2.FileSystemLoader(Path(__file__).parent)
    environment = jinja2.Environment(loader=loader, autoescape=True, trim_blocks=True, lstrip_blocks=True)
    return environment.get_template(TEMPLATE).render(
        verdict=verdict(comparisons),
        sentence=VERDICTS[verdict(comparisons)],
        comparisons=comparisons,
        marks=MARKS,
        short=_short,
        colours=parity_plots.COLOURS,
        plot=_plot,
        sum_up=sentence,
    )


def _plot(item: Judged, comparison: Comparison) -> str:
    if len(item.steps) < 2 or not any(map(math.isfinite, (*item.first, *item.second))):  # noqa: PLR2004  # a line
        return ""
    return parity_plots.svg(item, (comparison.first.label, comparison.second.label))


def _short(value: object) -> str:
    shown = str(value)
    return shown if len(shown) <= SHOWN_VALUE else f"{shown[:SHOWN_VALUE]}…"


def write(comparisons: Sequence[Comparison], tolerances: Tolerances, folder: Path, *, png: bool) -> list[Path]:
    """Write parity.json and parity.html (and a PNG a comparison) into a folder; give their paths."""
    data = json.dumps(document(comparisons, tolerances), indent=2, allow_nan=False, default=str) + "\n"
    files.write(folder / "parity.json", data)
    files.write(folder / "parity.html", html(comparisons))
    written = [folder / "parity.json", folder / "parity.html"]
    if png:
        for index, comparison in enumerate(comparisons, start=1):
            path = folder / (f"parity-{index}.png" if len(comparisons) > 1 else "parity.png")
            try:
                parity_plots.png(comparison, path)
            except WorkError as error:  # the verdict does not hang on a picture
                print(f"warning: no PNG: {error}", file=sys.stderr)
                continue
            written.append(path)
    return written
