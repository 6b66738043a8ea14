"""GSM8K and MATH rows in verl's schema, and the answers in them, found exactly as verl's own scripts find them.

The behaviour is that of verl's ``examples/data_preprocess/gsm8k.py``, ``math_dataset.py`` and
``verl/utils/reward_score/math.py``, faults included: a reward is right only where the data set and the reward
function cut the answer out of the text in the same way.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from envcheck.errors import WorkError

Row = dict[str, Any]

COLUMNS = ("data_source", "prompt", "ability", "reward_model", "extra_info")
"""The columns that verl reads."""
SHOWN_ROWS = 5
_FINAL = re.compile("#### (\\-?[0-9\\.\\,]+)")
_SPACED = "\\boxed "
_BRACED = "\\boxed{"


class AnswerError(ValueError):
    """A solution holds no answer that verl's own extraction would find."""


def gsm8k_answer(solution: str) -> str:
    """Give the number after ``#### ``, thousands separators removed: ``… 1,234 apples. #### 1,234`` → ``1234``."""
    found = _FINAL.search(solution)
    if found is None:
        raise AnswerError("there is no '#### <number>'")
    return found.group(1).replace(",", "")


def math_answer(solution: str) -> str:
    r"""Give what stands in the last box: ``… so $x=\boxed{\frac{1}{2}}$.`` → ``\frac{1}{2}``."""
    boxed = last_boxed(solution)
    if boxed is None:
        raise AnswerError("there is no \\boxed{…} with balanced braces")
    return unboxed(boxed)


def last_boxed(text: str) -> str | None:
    r"""Give the last ``\boxed{…}`` (or ``\boxed x``, or ``\fbox{…}``) of a text; None where its braces never close."""
    if _SPACED in text:
        return _SPACED + text.rpartition(_SPACED)[2].partition("$")[0]
    start = text.rfind("\\boxed")
    if start < 0:
        start = text.rfind("\\fbox")
    if start < 0:
        return None
    end = _closing_brace(text, start)
    return None if end is None else text[start : end + 1]


def _closing_brace(text: str, start: int) -> int | None:
    """Position of the brace that brings the count of open ones back to zero.

    A closing brace before any opening one makes the count negative, as in verl; the search goes on.
    """
    depth = 0
    for index in range(start, len(text)):
        if text[index] == "{":
            depth += 1
        elif text[index] == "}":
            depth -= 1
            if depth == 0:
                return index
    return None


def unboxed(boxed: str) -> str:
    r"""Take the box away: ``\boxed{4}`` and ``\boxed 4`` → ``4``; ``\fbox{4}`` has no rule in verl and is refused."""
    if _SPACED in boxed:
        if not boxed.startswith(_SPACED):
            raise AnswerError(f"{boxed[:40]!r} does not begin with \\boxed")
        return boxed[len(_SPACED) :]
    if not boxed.startswith(_BRACED) or not boxed.endswith("}"):
        raise AnswerError(f"{boxed[:40]!r} is not \\boxed{{…}}")
    return boxed[len(_BRACED) : -1]


@dataclass(frozen=True, kw_only=True)
class Layout:
    """How one published set is laid out, and what becomes of a row."""

    name: str
    source: str
    """``data_source`` of its rows: verl chooses the reward function by it."""
    question: str
    solution: str
    """Names of the two columns that are taken; the others are kept as they are, as verl's ``map`` keeps them."""
    instruction: str
    keeps_solution: bool
    """GSM8K rows carry question and solution in ``extra_info``; MATH rows do not."""
    answer: Callable[[str], str]
    expected: Mapping[str, int]
    """Rows per split, as published."""


GSM8K = Layout(
    name="gsm8k",
    source="openai/gsm8k",
    question="question",
    solution="answer",
    instruction='Let\'s think step by step and output the final answer after "####".',
    keeps_solution=True,
    answer=gsm8k_answer,
    expected={"train": 7473, "test": 1319},
)
MATH = Layout(
    name="math",
    source="DigitalLearningGmbH/MATH-lighteval",
    question="problem",
    solution="solution",
    instruction="Let's think step by step and output the final answer within \\boxed{}.",
    keeps_solution=False,
    answer=math_answer,
    expected={"train": 7500, "test": 5000},
)
LAYOUTS = {layout.name: layout for layout in (GSM8K, MATH)}


def converted(layout: Layout, row: Mapping[str, Any], split: str, index: int) -> Row:
    """Give one row in verl's schema; raise AnswerError where it holds no question, no solution or no answer."""
    rest = dict(row)
    question, solution = (_text(rest, key) for key in (layout.question, layout.solution))
    extra: Row = {
        "index": index,
        "split": split,
    }  # fields in the order of their names, as in the files of verl's scripts
    if layout.keeps_solution:
        extra = {"answer": solution, "index": index, "question": question, "split": split}
    return rest | {
        "data_source": layout.source,
        "prompt": [{"content": f"{question} {layout.instruction}", "role": "user"}],
        "ability": "math",
        "reward_model": {"ground_truth": layout.answer(solution), "style": "rule"},
        "extra_info": extra,
    }


def _text(row: Row, key: str) -> str:
    if key not in row:
        raise AnswerError(f"there is no column {key!r} (it has {', '.join(sorted(row)) or 'none'})")
    value = row.pop(key)
    if not isinstance(value, str) or not value.strip():
        raise AnswerError(f"column {key!r} holds {value!r:.40}")
    return value


def convert(
    layout: Layout, rows: Iterable[Mapping[str, Any]], split: str, *, drop_bad: bool = False
) -> tuple[list[Row], list[str]]:
    """Give rows in verl's schema and what was wrong with those left out; without ``drop_bad`` a fault is raised."""
    good: list[Row] = []
    bad: list[str] = []
    for index, row in enumerate(rows):
        try:
            good.append(converted(layout, row, split, index))
        except AnswerError as error:
            bad.append(f"row {index}: {error}")
    if bad and not drop_bad:
        raise WorkError(
            f"{layout.name} {split}: {len(bad)} of {len(bad) + len(good)} rows hold no answer\n{_some(bad)}",
            fix="check that the file is the set that was named; --drop-bad leaves such rows out",
        )
    return good, bad


def faults(rows: Iterable[Mapping[str, Any]]) -> Iterator[str]:
    """Say what is wrong with rows that claim verl's schema."""
    for index, row in enumerate(rows):
        missing = [name for name in COLUMNS if name not in row]
        if missing:
            yield f"row {index}: no column {', '.join(missing)}"
        elif not _is_chat(row["prompt"]):
            yield f"row {index}: prompt is not a list of turns with role and content"
        elif not (isinstance(row["reward_model"], dict) and row["reward_model"].get("ground_truth")):
            yield f"row {index}: reward_model has no ground_truth"


def _is_chat(prompt: object) -> bool:
    """Tell whether a value is ``[{"role": "user", "content": "…"}, …]``."""
    turns = prompt if isinstance(prompt, list) else []
    return bool(turns) and all(isinstance(turn, dict) and {"role", "content"} <= set(turn) for turn in turns)


def _some(lines: list[str]) -> str:
    more = len(lines) - SHOWN_ROWS
    return "\n".join(f"  {line}" for line in [*lines[:SHOWN_ROWS], *([f"… and {more} more"] if more > 0 else [])])
