"""Whole processes, measured side by side: wall time and peak memory, in interleaved rounds."""

from __future__ import annotations

import os
import statistics
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from envcheck.errors import WorkError
from scripts import process
from scripts.bench_plan import Bench, Budget, Program
from scripts.bootstrap import keeping_compiled
from scripts.cache import ROOT

KIBIBYTE = 1024
LAST_CHARACTERS = 300
PREPARE_SECONDS = 600.0


@dataclass(frozen=True, kw_only=True)
class Sample:
    """One run: seconds, and the peak resident bytes of its largest process (never below those of this program)."""

    seconds: float
    memory_bytes: int


@dataclass(frozen=True, kw_only=True)
class Measured:
    """All samples of one program; ``why`` says why there are none."""

    program: Program
    argv: tuple[str, ...]
    samples: tuple[Sample, ...] = ()
    why: str = ""

    @property
    def seconds(self) -> float:
        """Median wall time."""
        return statistics.median(sample.seconds for sample in self.samples)

    @property
    def memory_bytes(self) -> int:
        """Highest peak of all rounds."""
        return max(sample.memory_bytes for sample in self.samples)


@dataclass(frozen=True, kw_only=True)
class Verdict:
    """A budget and what was measured for it; ``value`` None: not measured, ``reason`` says why."""

    budget: Budget
    value: float | None
    reason: str = ""

    @property
    def met(self) -> bool | None:
        """True and False where it was measured, else None."""
        return None if self.value is None else self.value <= self.budget.at_most


@dataclass(kw_only=True)
class Runner:
    """Fills the placeholders of commands and runs them."""

    values: Mapping[str, str]
    clock: Callable[[], float] = time.perf_counter
    environ: Mapping[str, str] = field(default_factory=keeping_compiled)

    def argv(self, command: Sequence[str]) -> tuple[str, ...]:
        """Fill {python}, {target}, {work}, {root}."""
        return tuple(part.format_map(self.values) for part in command)

    def once(self, program: Program) -> Sample:
        """Run a program to its end; raise WorkError where its exit code is not one that counts as done."""
        argv = self.argv(program.argv)
        if program.before:
            process.output(self.argv(program.before), timeout=PREPARE_SECONDS)
        environ = {**self.environ, **{k: v.format_map(self.values) for k, v in program.environment.items()}}
        errors = Path(self.values["work"], "stderr")
        with errors.open("wb") as sink:
            begin = self.clock()
            child = subprocess.Popen(
                argv, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=sink, env=environ, cwd=ROOT
            )
            timer = threading.Timer(program.timeout_seconds, child.kill)
            timer.start()
            try:
                _, status, usage = os.wait4(child.pid, 0)
            finally:
                timer.cancel()
            seconds = self.clock() - begin
        child.returncode = os.waitstatus_to_exitcode(status)
        if child.returncode not in program.exit_codes:
            end = errors.read_text(errors="replace")[-LAST_CHARACTERS:].strip()
            raise WorkError(f"{process.shown(argv)} ended with exit code {child.returncode}: {end}")
        return Sample(seconds=seconds, memory_bytes=usage.ru_maxrss * KIBIBYTE)

    def lacks(self, program: Program) -> str:
        """Say what a program lacks: a kit, or modules of the target interpreter; empty where nothing."""
        if program.kit and not self.values.get("kit"):
            return "no kit was named: nox -s kit -- --output DIR, then --kit DIR"
        for module in program.needs:
            asked = f"import importlib.util, sys; sys.exit(importlib.util.find_spec({module!r}) is None)"
            done = subprocess.run([self.values["target"], "-c", asked], capture_output=True, timeout=60, check=False)
            if done.returncode:
                return f"{self.values['target']} has no {module}; name one that has with --python"
        return ""


def measure(bench: Bench, runner: Runner, rounds: int, say: Callable[[str], None]) -> dict[str, Measured]:
    """Run every program ``rounds`` times, one after the other in each round, after one round that warms caches."""
    samples: dict[str, list[Sample]] = {item.name: [] for item in bench.program}
    why: dict[str, str] = {}
    for item in bench.program:
        if reason := _prepared(item, runner):
            why[item.name] = reason
    for number in range(rounds + 1):
        say(f"round {number} of {rounds}" if number else "warming up")
        for item in _turned(bench.program, number):
            if item.name in why or number > (item.rounds or rounds):
                continue
            try:
                sample = runner.once(item)
            except (WorkError, OSError) as error:
                why[item.name] = str(error)
                continue
            if number:
                samples[item.name].append(sample)
    return {item.name: _measured(item, runner, samples[item.name], why.get(item.name, "")) for item in bench.program}


def _measured(item: Program, runner: Runner, samples: Sequence[Sample], why: str) -> Measured:
    return Measured(program=item, argv=runner.argv(item.argv), samples=() if why else tuple(samples), why=why)


def _prepared(item: Program, runner: Runner) -> str:
    """Prepare a program; give the reason where it cannot be run."""
    try:
        if reason := runner.lacks(item):
            return reason
        if item.prepare:
            process.output(runner.argv(item.prepare), timeout=PREPARE_SECONDS)
    except (WorkError, OSError, subprocess.TimeoutExpired) as error:
        return str(error)
    return ""


def _turned(programs: Sequence[Program], number: int) -> Iterator[Program]:
    """Start each round with another program, so that none is always the one after a long one."""
    start = number % max(len(programs), 1)
    yield from programs[start:]
    yield from programs[:start]


def judge(bench: Bench, measured: Mapping[str, Measured]) -> list[Verdict]:
    """Hold every budget against what was measured."""
    return [_judged(budget, measured) for budget in bench.budget]


def _judged(budget: Budget, measured: Mapping[str, Measured]) -> Verdict:
    subject = measured[budget.program]
    other = measured[budget.against] if budget.against else None
    for item in (subject, other):
        if item is not None and not item.samples:
            return Verdict(budget=budget, value=None, reason=item.why or f"{item.program.name} was not run")
    if budget.measure == "memory":
        return Verdict(budget=budget, value=float(subject.memory_bytes))
    if other is None:
        return Verdict(budget=budget, value=subject.seconds)
    return Verdict(budget=budget, value=ratio(subject, other))


def ratio(subject: Measured, other: Measured) -> float:
    """Give the median of the ratios of runs in the same round: noise that lasts longer than a round cancels out."""
    pairs = zip(subject.samples, other.samples, strict=False)  # a slow program may have fewer rounds
    return statistics.median(mine.seconds / theirs.seconds for mine, theirs in pairs)


def interpreter() -> str:
    """Path of the interpreter of this run."""
    return sys.executable
