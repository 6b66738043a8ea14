"""Plots of two runs: SVG drawn here, for the HTML; PNG through matplotlib where it is installed."""

from __future__ import annotations

import importlib
import itertools
import math
from collections.abc import Iterator, Sequence
from html import escape
from pathlib import Path

from envcheck.errors import WorkError
from scripts.parity_judge import Comparison, Judged

WIDTH, HEIGHT = 560, 240
LEFT, RIGHT, TOP, BOTTOM = 62, 12, 14, 34
TICKS = 5
COLOURS = ("#1f77b4", "#d95f02")


def ticks(low: float, high: float, count: int = TICKS) -> list[float]:
    """Give round values that cover an interval: 1, 2 or 5 times a power of ten apart."""
    if not high > low:
        spread = abs(low) * 0.1 or 1.0
        low, high = low - spread, high + spread
    raw = (high - low) / count
    power = 10.0 ** math.floor(math.log10(raw))
    step = next(factor * power for factor in (1, 2, 5, 10) if factor * power >= raw * (1 - 1e-9))
    first = math.floor(low / step)
    last = math.ceil(high / step)
    return [index * step for index in range(first, last + 1)]


def svg(judged: Judged, labels: tuple[str, str]) -> str:
    """Draw both runs of one metric over the steps; a line is broken where a value is not a number."""
    xs = judged.steps
    values = [value for value in (*judged.first, *judged.second) if math.isfinite(value)]
    rows = ticks(min(values), max(values))
    bounds = (float(xs[0]), float(max(xs[-1], xs[0] + 1)), rows[0], rows[-1])
    parts = [
        f'<svg viewBox="0 0 {WIDTH} {HEIGHT}" role="img" xmlns="http://www.w3.org/2000/svg">',
        f"<title>{escape(judged.metric.title)}: {escape(labels[0])} and {escape(labels[1])}</title>",
        *_grid(rows, xs, bounds),
    ]
    for series, colour, dash in zip(
        (judged.first, judged.second), COLOURS, ("", ' stroke-dasharray="6 3"'), strict=True
    ):
        for piece in _pieces(xs, series):
            points = " ".join(f"{_x(x, bounds):.1f},{_y(value, bounds):.1f}" for x, value in piece)
            parts.append(f'<polyline fill="none" stroke="{colour}" stroke-width="2"{dash} points="{points}"/>')
        parts += [_missing(x, colour, bounds) for x, value in zip(xs, series, strict=True) if not math.isfinite(value)]
    return "\n".join([*parts, "</svg>"])


def _pieces(xs: Sequence[int], series: Sequence[float]) -> Iterator[list[tuple[int, float]]]:
    """Give the unbroken pieces of a series."""
    pairs = zip(xs, series, strict=True)
    for finite, piece in itertools.groupby(pairs, key=lambda pair: math.isfinite(pair[1])):
        if finite:
            yield list(piece)


def _missing(step: int, colour: str, bounds: tuple[float, float, float, float]) -> str:
    """Mark a step whose value is not a number."""
    x = _x(step, bounds)
    return f'<text x="{x:.1f}" y="{TOP + 10}" text-anchor="middle" style="fill: {colour}">✗</text>'


def _x(value: float, bounds: tuple[float, float, float, float]) -> float:
    return LEFT + (value - bounds[0]) / (bounds[1] - bounds[0]) * (WIDTH - LEFT - RIGHT)


def _y(value: float, bounds: tuple[float, float, float, float]) -> float:
    return HEIGHT - BOTTOM - (value - bounds[2]) / (bounds[3] - bounds[2]) * (HEIGHT - TOP - BOTTOM)


def _grid(rows: Sequence[float], xs: Sequence[int], bounds: tuple[float, float, float, float]) -> list[str]:
    parts = []
    for value in rows:
        y = _y(value, bounds)
        parts.append(f'<line class="grid" x1="{LEFT}" x2="{WIDTH - RIGHT}" y1="{y:.1f}" y2="{y:.1f}"/>')
        parts.append(f'<text x="{LEFT - 6}" y="{y + 4:.1f}" text-anchor="end">{value:.4g}</text>')
    for value in [bounds[0], *ticks(bounds[0], bounds[1])]:
        if xs[0] <= value <= bounds[1] and float(value).is_integer():
            x = _x(value, bounds)
            parts.append(f'<text x="{x:.1f}" y="{HEIGHT - BOTTOM + 16}" text-anchor="middle">{value:.0f}</text>')
    parts.append(f'<text x="{(LEFT + WIDTH - RIGHT) / 2:.0f}" y="{HEIGHT - 4}" text-anchor="middle">step</text>')
    return parts


def png(comparison: Comparison, path: Path) -> None:
    """Draw every measured metric into one PNG file."""
    try:
        matplotlib = importlib.import_module("matplotlib")
        matplotlib.use("Agg")
        pyplot = importlib.import_module("matplotlib.pyplot")
    except ImportError as error:
        raise WorkError(f"matplotlib could not be imported: {error}", fix="python -m pip install '.[plots]'") from error
    measured = [item for item in comparison.judged if item.steps]
    if not measured:
        raise WorkError("there is nothing to draw: no metric is in both runs")
    count = len(measured)
    figure, axes = pyplot.subplots(math.ceil(count / 2), 2, figsize=(11, 3 * math.ceil(count / 2)), squeeze=False)
    for place, item in zip(axes.flat, measured, strict=False):
        place.plot(item.steps, item.first, color=COLOURS[0], label=comparison.first.label)
        place.plot(item.steps, item.second, color=COLOURS[1], linestyle="--", label=comparison.second.label)
        place.set_title(f"{item.metric.title}: {item.answer}", fontsize=9)
        place.grid(visible=True, alpha=0.3)
    for place in axes.flat[count:]:
        place.axis("off")
    axes.flat[0].legend(fontsize=8)
    figure.tight_layout()
    figure.savefig(path, dpi=110)
    pyplot.close(figure)
