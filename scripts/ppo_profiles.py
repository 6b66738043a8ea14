"""PPO profiles and the keys that moved between verl versions: data in TOML, made into a command's overrides."""

from __future__ import annotations

import difflib
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import Literal

from envcheck.codec import Where, decode
from envcheck.errors import DataError, EnvcheckError
from envcheck.limits import satisfies
from envcheck.stack import parse_toml

DIRECTORY = Path(__file__).with_name("profiles")
MOVED = Path(__file__).with_name("ppo_moved_keys.toml")
PLACEHOLDERS = ("data", "model", "engine", "engine_version", "time")
_OVERRIDE = re.compile(r"(?P<operator>\+\+|\+|~)?(?P<key>[A-Za-z0-9_.@/-]+)(?:=(?P<value>.*))?", re.DOTALL)


@dataclass(frozen=True, kw_only=True)
class Needs:
    """What one node must have for the profile, and why."""

    gpu_memory_bytes: int
    host_memory_bytes: int
    disk_bytes: int
    checkpoint_bytes: int
    """Of one saved step."""
    reason: str


@dataclass(frozen=True, kw_only=True)
class Refusal:
    """Versions that cannot run the profile: of verl, and of the engine where one is named."""

    verl: str
    engine: str
    engine_version: str = ""
    """A specifier; empty: every version."""
    why: str
    source: str


@dataclass(frozen=True, kw_only=True)
class Profile:
    """One PPO run, its engine, model and data still open."""

    version: int
    name: str
    title: str
    source: str
    config: str
    trainer: Literal["fsdp", "megatron"]
    engines: tuple[str, ...]
    model: str
    """Name on the hub, path, or ``tiny``: the one that ``scripts.make_tiny_model`` makes."""
    data: tuple[str, ...]
    timeout_seconds: int
    overrides: tuple[str, ...]
    if_known: tuple[str, ...] = ()
    """Overrides that are added where the installed verl has the key."""
    if_known_reason: str = ""
    environment: dict[str, str] = field(default_factory=dict)
    needs: Needs
    refuses: tuple[Refusal, ...] = ()


@dataclass(frozen=True, kw_only=True)
class Move:
    """One key that moved; see the head of ``ppo_moved_keys.toml``."""

    key: str
    verl: str
    kind: Literal["plain", "renamed", "removed", "needs", "deprecated", "note"]
    to: str | None = None
    reason: str
    source: str


@dataclass(frozen=True, kw_only=True)
class Moves:
    """The whole table."""

    version: int
    move: tuple[Move, ...]


@dataclass(frozen=True, kw_only=True)
class Override:
    """One override as hydra reads it: ``+trainer.x=False`` is operator ``+``, key ``trainer.x``, value ``False``."""

    operator: str
    key: str
    value: str

    def __str__(self) -> str:
        """Write it as it is typed."""
        return f"~{self.key}" if self.operator == "~" and not self.value else f"{self.operator}{self.key}={self.value}"


def parse_override(text: str) -> Override:
    """Read ``key=value``, ``+key=value``, ``++key=value`` or ``~key``; raise EnvcheckError where it is neither."""
    found = _OVERRIDE.fullmatch(text)
    if found is None or (found["value"] is None and found["operator"] != "~"):
        raise EnvcheckError(f"{text!r} is not an override", fix="write key=value, +key=value or ~key")
    return Override(operator=found["operator"] or "", key=found["key"], value=found["value"] or "")


def names() -> list[str]:
    """Names of the shipped profiles."""
    return sorted(path.stem for path in DIRECTORY.glob("*.toml"))


def load(name: str) -> Profile:
    """Load a shipped profile by name, or a profile file by path."""
    path = Path(name) if name.endswith(".toml") else DIRECTORY / f"{name}.toml"
    try:
        text = path.read_text(encoding="utf-8")
    except OSError as error:
        near = difflib.get_close_matches(name, names(), n=len(names()), cutoff=0.0)
        what = f"there is no profile {name!r} ({error.strerror})"
        raise EnvcheckError(what, fix=f"take one of {', '.join(near)}; or the path of a .toml file") from error
    return parse(text, path.name)


def parse(text: str, source: str) -> Profile:
    """Read and validate a profile."""
    profile: Profile = decode(Profile, parse_toml(text, source), Where(source=source))
    if profile.version != 1:
        raise DataError(source, "version", expected="1", found=str(profile.version))
    for index, item in enumerate((*profile.overrides, *profile.if_known)):
        try:
            parse_override(item)
        except EnvcheckError as error:
            raise DataError(source, f"overrides[{index}]", expected="key=value", found=repr(item)) from error
        for name in re.findall(r"(?<!\$)\{(\w+)\}", item):
            if name not in PLACEHOLDERS:
                expected = f"one of {', '.join(PLACEHOLDERS)}"
                raise DataError(source, f"overrides[{index}]", expected=expected, found=f"{{{name}}}")
    return profile


@cache
def moves() -> tuple[Move, ...]:
    """Load the table of keys that moved."""
    table: Moves = decode(Moves, parse_toml(MOVED.read_text(encoding="utf-8"), MOVED.name), Where(source=MOVED.name))
    return table.move


def fill(overrides: Iterable[str], values: Mapping[str, str]) -> tuple[Override, ...]:
    """Put values in the place of ``{data}``, ``{model}`` …; a ``${…}`` of OmegaConf is left alone."""

    def filled(text: str) -> str:
        return re.sub(r"(?<!\$)\{(\w+)\}", lambda match: values[match[1]], text)

    return tuple(parse_override(filled(text)) for text in overrides)


def merged(base: Sequence[Override], given: Sequence[Override]) -> tuple[Override, ...]:
    """Let what was given on the command line take the place of the profile's override of the same key."""
    keys = {item.key for item in given}
    return (*(item for item in base if item.key not in keys), *given)


def moved(
    overrides: Sequence[Override], verl: str, table: Sequence[Move] | None = None
) -> tuple[tuple[Override, ...], tuple[str, ...]]:
    """Write overrides for the installed verl; give them and one line for each key that the table speaks of."""
    result = list(overrides)
    said: list[str] = []
    for move in moves() if table is None else table:
        if not satisfies(verl, move.verl):
            continue
        for item in [item for item in result if item.key == move.key]:
            _apply(move, item, result, said)
    return tuple(result), tuple(said)


def _apply(move: Move, item: Override, result: list[Override], said: list[str]) -> None:
    place = result.index(item)
    if move.kind == "plain" and item.operator == "+":
        result[place] = Override(operator="", key=item.key, value=item.value)
        said.append(f"{item} → {result[place]}: {move.reason}")
    elif move.kind == "renamed" and move.to:
        result[place] = Override(operator=item.operator, key=move.to, value=item.value)
        said.append(f"{item} → {result[place]}: {move.reason}")
    elif move.kind == "removed":
        del result[place]
        said.append(f"{item} is left out: {move.reason}")
    elif move.kind == "needs" and move.to:
        extra = parse_override(move.to)
        if all(other.key != extra.key for other in result):
            result.append(extra)
            said.append(f"{extra} is added for {item.key}: {move.reason}")
    elif move.kind in {"deprecated", "note"}:
        said.append(f"{item}: {move.reason}")
