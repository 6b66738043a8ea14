"""Facts that cannot be read end as ``unknown``: no rule crashes on them, and none calls a broken host sound."""

from __future__ import annotations

import copy
import json
import random
from collections import defaultdict
from functools import cache
from pathlib import Path
from typing import Any

import pytest

from envcheck import codec, engine, limits, plan, stack
from envcheck.errors import DataError
from envcheck.facts import Facts
from envcheck.model import Stage, Target
from envcheck.rules import RULES

HOSTS = {path.parent.name: path for path in sorted((Path(__file__).parent / "hosts").glob("*/facts.json"))}
PLAIN = {"version", "collected", "host", "environment", "wish"}
WHY = {"unknown": "it cannot be read"}
ROUNDS = 40


def document(host: str) -> dict[str, Any]:
    """Read a recorded host."""
    found: dict[str, Any] = json.loads(HOSTS[host].read_text(encoding="utf-8"))
    return found


def facts(content: dict[str, Any]) -> Facts:
    """Decode a document."""
    found: Facts = codec.decode(Facts, content, codec.Where(source="x"))
    return found


@cache
def target(name: str, stage: Stage) -> Target:
    """Take the last engine and trainer: they have the most rules."""
    wanted = stack.load(name)
    return Target(
        stack=wanted, limits=limits.load(), stage=stage, engine=wanted.engines[-1], trainer=wanted.trainers[-1]
    )


def judged(content: dict[str, Any], aim: Target) -> dict[str, set[str]]:
    """Give the outcomes of each rule."""
    found: defaultdict[str, set[str]] = defaultdict(set)
    for outcome in engine.judge(facts(content), aim, RULES).outcomes:
        found[outcome.rule].add(outcome.outcome)
    return found


@pytest.mark.parametrize("host", HOSTS)
def test_an_unknown_key_is_never_a_false_ok(host: str) -> None:
    """What was wrong is not right because it cannot be seen, and nothing becomes wrong by it."""
    content = document(host)
    for aim in (target("verl-sglang-cu124", "build"), target("verl-lts-cu124", "launch")):
        before = judged(content, aim)
        for key in content.keys() - PLAIN:
            after = judged({**content, key: WHY}, aim)
            for rule, outcomes in after.items():
                assert "crashed" not in outcomes, (rule, key)
                assert not (before[rule] & {"error", "warning"} and outcomes <= {"ok", "not-applicable"}), (rule, key)
                assert "error" not in outcomes or "error" in before[rule], (rule, key)


def places(value: Any, path: tuple[Any, ...] = ()) -> list[tuple[Any, ...]]:
    """Paths of everything inside a document."""
    if isinstance(value, dict) and value.keys() != {"unknown"}:
        pairs: list[tuple[Any, Any]] = list(value.items())
    elif isinstance(value, list):
        pairs = list(enumerate(value))
    else:
        return []
    return [found for key, item in pairs for found in [(*path, key), *places(item, (*path, key))]]


@pytest.mark.parametrize("host", HOSTS)
def test_no_loss_of_facts_makes_a_rule_or_the_plan_crash(host: str) -> None:
    """Anything that may be absent or unknown is made so, one at a time."""
    chance = random.Random(host)  # noqa: S311  # a seeded choice of cases
    content = document(host)
    everything = places(content)
    judgements = 0
    for path in chance.sample(everything, ROUNDS):
        changed = copy.deepcopy(content)
        parent = changed
        for key in path[:-1]:
            parent = parent[key]
        if chance.random() < 0.5:
            parent[path[-1]] = WHY
        else:
            del parent[path[-1]]
        try:
            found = facts(changed)
        except DataError:
            continue  # this key may not be absent or unknown
        judgements += 1
        aim = target(chance.choice(stack.names()), chance.choice(["build", "launch", "train"]))
        crashed = [item.summary for item in engine.judge(found, aim, RULES).outcomes if item.outcome == "crashed"]
        assert not crashed
        assert plan.plan(found, aim)
    assert judgements
