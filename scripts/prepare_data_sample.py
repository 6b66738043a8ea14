"""A small arithmetic set of the project's own, generated, in GSM8K's layout: for machines without network."""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator

SEED = 20250317
ROWS = {"train": 512, "test": 128}
"""512 rows are eight batches of the smallest profile."""


def _addition(draw: random.Random) -> tuple[str, str, int]:
    a, b = draw.randint(2, 99), draw.randint(2, 99)
    return f"What is {a} plus {b}?", f"{a} + {b} = {a + b}", a + b


def _difference(draw: random.Random) -> tuple[str, str, int]:
    a, b = draw.randint(2, 99), draw.randint(2, 99)
    return f"What is {a} minus {b}?", f"{a} - {b} = {a - b}", a - b


def _boxes(draw: random.Random) -> tuple[str, str, int]:
    a, b = draw.randint(2, 12), draw.randint(2, 12)
    question = f"There are {a} boxes with {b} pens each. How many pens are there?"
    return question, f"{a} x {b} = {a * b} pens.", a * b


def _shared(draw: random.Random) -> tuple[str, str, int]:
    each, people, left = draw.randint(2, 20), draw.randint(2, 9), draw.randint(0, 9)
    total = each * people + left
    question = f"{total} coins are shared by {people} people until {left} are left. How many does each get?"
    return question, f"{total} - {left} = {total - left}, {total - left} / {people} = {each}", each


def _large(draw: random.Random) -> tuple[str, str, int]:
    a, b = draw.randint(500, 9999), draw.randint(500, 9999)
    return f"A town has {a} houses and builds {b} more. How many now?", f"{a} + {b} = {a + b:,} houses.", a + b


KINDS: tuple[Callable[[random.Random], tuple[str, str, int]], ...] = (_addition, _difference, _boxes, _shared, _large)


def _questions(draw: random.Random) -> Iterator[dict[str, str]]:
    seen: set[str] = set()
    while True:
        question, steps, answer = draw.choice(KINDS)(draw)
        if question not in seen:
            seen.add(question)
            yield {"question": question, "answer": f"{steps}\n#### {answer:,}"}


def sample(seed: int = SEED) -> dict[str, list[dict[str, str]]]:
    """Give both splits; the same seed gives the same rows everywhere, and no question is in both splits."""
    found = _questions(random.Random(seed))  # noqa: S311  # not for secrets
    return {split: [next(found) for _ in range(count)] for split, count in ROWS.items()}
