"""Intervals for the mean and the slope of a short, autocorrelated series: the circular block bootstrap.

Steps of a training run are not independent, so whole blocks of neighbouring steps are drawn (Politis and Romano, 1992,
"A circular block-resampling procedure for stationary data"). Plain Python: series have tens to hundreds of steps.
"""

from __future__ import annotations

import math
import random
from collections.abc import Sequence
from dataclasses import dataclass


@dataclass(frozen=True, kw_only=True)
class Interval:
    """An estimate and the bounds between which it lies with the level's probability."""

    value: float
    low: float
    high: float

    def beyond(self, tolerance: float) -> bool:
        """Tell whether the whole interval lies outside plus or minus the tolerance."""
        return self.low > tolerance or self.high < -tolerance

    def within(self, bound: float) -> bool:
        """Tell whether the whole interval lies inside plus or minus the bound."""
        return -bound <= self.low and self.high <= bound

    def scaled(self, factor: float) -> Interval:
        """Multiply by a positive factor."""
        return Interval(value=self.value * factor, low=self.low * factor, high=self.high * factor)


@dataclass(frozen=True, kw_only=True)
class Bootstrap:
    """How intervals are made; the same seed gives the same bounds everywhere."""

    level: float = 0.99
    resamples: int = 2000
    seed: int = 0
    block_exponent: float = 0.5
    """A block has ``n ** block_exponent`` steps."""

    def mean(self, series: Sequence[float]) -> Interval:
        """Give the mean of a series of at least one value."""
        count = len(series)
        length = self._block(count)
        sums = _block_sums(series, length)
        whole, rest = divmod(count, length)
        rests = _block_sums(series, rest) if rest else []
        draw = random.Random(self.seed)  # noqa: S311  # not for secrets
        found = []
        for _ in range(self.resamples):
            total = sum(draw.choices(sums, k=whole)) + (draw.choice(rests) if rests else 0.0)
            found.append(total / count)
        return self._interval(math.fsum(series) / count, found)

    def slope(self, steps: Sequence[float], series: Sequence[float]) -> Interval:
        """Give the least-squares slope per step; blocks of its residuals are drawn. Needs two different steps."""
        slope, start = line(steps, series)
        centre = math.fsum(steps) / len(steps)
        weights = [step - centre for step in steps]
        spread = math.fsum(weight * weight for weight in weights)
        residuals = [value - start - slope * step for step, value in zip(steps, series, strict=True)]
        length = self._block(len(series))
        draw = random.Random(self.seed)  # noqa: S311  # not for secrets
        found = []
        for _ in range(self.resamples):
            drawn = _drawn(residuals, length, draw)
            found.append(slope + sum(weight * value for weight, value in zip(weights, drawn, strict=True)) / spread)
        return self._interval(slope, found)

    def _block(self, count: int) -> int:
        return max(1, min(count, math.ceil(math.pow(count, self.block_exponent))))

    def _interval(self, value: float, found: list[float]) -> Interval:
        found.sort()
        tail = (1 - self.level) / 2
        return Interval(value=value, low=quantile(found, tail), high=quantile(found, 1 - tail))


def line(steps: Sequence[float], series: Sequence[float]) -> tuple[float, float]:
    """Fit ``value = start + slope * step`` by least squares and give slope and start."""
    count = len(steps)
    middle, mean = math.fsum(steps) / count, math.fsum(series) / count
    spread = math.fsum((step - middle) ** 2 for step in steps)
    slope = math.fsum((step - middle) * (value - mean) for step, value in zip(steps, series, strict=True)) / spread
    return slope, mean - slope * middle


def quantile(ordered: Sequence[float], share: float) -> float:
    """Give a quantile of sorted values, interpolated linearly."""
    place = share * (len(ordered) - 1)
    below = math.floor(place)
    above = min(below + 1, len(ordered) - 1)
    return ordered[below] + (ordered[above] - ordered[below]) * (place - below)


def _block_sums(series: Sequence[float], length: int) -> list[float]:
    """Sums of all blocks of a length, the series taken as a circle."""
    circle = [*series, *series[: length - 1]]
    return [math.fsum(circle[start : start + length]) for start in range(len(series))]


def _drawn(series: Sequence[float], length: int, draw: random.Random) -> list[float]:
    count = len(series)
    circle = [*series, *series[: length - 1]]
    found: list[float] = []
    while len(found) < count:
        start = draw.randrange(count)
        found += circle[start : start + length]
    return found[:count]
