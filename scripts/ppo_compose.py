"""Check every override against the config of the verl that is installed, and compose it there."""

from __future__ import annotations

import difflib
import json
import os
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, cast

from envcheck.errors import EnvcheckError, HostError, WorkError
from scripts import process
from scripts.ppo_profiles import Override, parse_override

CHILD = Path(__file__).with_name("ppo_child.py")
TIMEOUT_SECONDS = 60.0
LOAD_SECONDS = 300.0
"""To import datasets, which imports torch: more than a minute from a cold or shared disk."""
NUMBERS = {"int", "float"}
COLUMNS = ("prompt", "data_source", "reward_model")
NESTED = {"prompt": ("list<", "large_list<"), "reward_model": ("struct<",)}
"""How arrow writes the types that verl unpacks: turns of a chat, and a ground truth with its style."""


@dataclass(frozen=True, kw_only=True)
class Installed:
    """What the target interpreter holds: versions and the keys of verl's config."""

    python: str
    versions: dict[str, str]
    base: dict[str, dict[str, Any]]
    directory: str

    @property
    def verl(self) -> str:
        """Version of verl."""
        return self.versions["verl"]


@dataclass(frozen=True, kw_only=True)
class Composed:
    """A composed config, and what was seen in its parquet files."""

    config: dict[str, Any]
    parquet: dict[str, dict[str, Any]] = field(default_factory=dict)

    def get(self, key: str, default: Any = None) -> Any:  # noqa: ANN401  # any config value
        """Give the value of a dotted key."""
        value: Any = self.config
        for part in key.split("."):
            if not isinstance(value, dict) or part not in value:
                return default
            value = value[part]
        return value


def ask(  # noqa: PLR0913  # by keyword, each its own question
    python: str,
    config: str,
    *,
    overrides: Sequence[str] = (),
    parquet: Sequence[str] = (),
    load: str = "",
    compose: bool = False,
) -> dict[str, Any]:
    """Ask the target interpreter; raise EnvcheckError where it has no verl or hydra refuses."""
    request = {"config": config, "overrides": list(overrides), "parquet": list(parquet), "compose": compose}
    request["load"] = load
    timeout = LOAD_SECONDS if load else TIMEOUT_SECONDS
    text = process.output([python, str(CHILD), json.dumps(request)], timeout=timeout)
    reply = cast("dict[str, Any]", json.loads(text.strip().splitlines()[-1]))
    if "verl" not in reply["versions"]:
        fix = "nox -s up -- --stack STACK --engine ENGINE builds and installs it; --python names another environment"
        raise HostError(f"{python} has no verl", fix=fix)
    if error := reply.get("error"):
        raise WorkError(f"verl {reply['versions']['verl']} does not take this config: {error}")
    return reply


def installed(python: str, config: str) -> Installed:
    """Read what is installed and the keys of the config."""
    reply = ask(python, config)
    return Installed(
        python=reply["python"], versions=reply["versions"], base=reply["base"], directory=reply["directory"]
    )


def compose(python: str, config: str, overrides: Sequence[Override], found: Installed) -> Composed:
    """Check the overrides one by one, then compose; raise EnvcheckError that names every fault at once."""
    texts = [str(item) for item in overrides]
    parsed = ask(python, config, overrides=texts)["parsed"]
    faults = list(key_faults(overrides, parsed, found.base))
    if faults:
        listed = "\n".join(f"  {fault}" for fault in faults)
        raise EnvcheckError(f"verl {found.verl} does not take {len(faults)} of the overrides:\n{listed}")
    return Composed(config=ask(python, config, overrides=texts, compose=True)["composed"])


def key_faults(
    overrides: Sequence[Override], parsed: Sequence[Mapping[str, Any]], base: Mapping[str, Mapping[str, Any]]
) -> Iterator[str]:
    """Say which overrides name a key that does not exist, exists already, or set a value of another type."""
    for item, read in zip(overrides, parsed, strict=True):
        if "error" in read:
            yield f"{item}: hydra cannot read it: {read['error']}"
            continue
        known = item.key in base
        if item.operator == "" and not known:
            yield f"{item}: no such key{nearest(item.key, base)}; +{item.key} would add it"
        elif item.operator == "~" and not known:
            yield f"{item}: no such key{nearest(item.key, base)}"
        elif item.operator == "+" and known:
            yield f"{item}: the key is in the config already; leave the + out"
        elif item.operator in {"+", "++"} and not known and not _table(item.key, base):
            yield f"{item}: a value stands where the key needs a table{nearest(item.key, base)}"
        elif known and item.operator != "~" and (wanted := _other_type(base[item.key], read)):
            yield f"{item}: {wanted} is expected"


def nearest(key: str, base: Mapping[str, Any]) -> str:
    """Name the keys that were probably meant: like the whole key, or of the same last part."""
    last = key.rpartition(".")[2]
    near = difflib.get_close_matches(key, base, n=3, cutoff=0.75)
    same = [name for name in base if name.rpartition(".")[2] == last]
    same.sort(key=lambda name: -difflib.SequenceMatcher(None, name, key).ratio())
    found = list(dict.fromkeys([*near, *same]))[:3]
    return f" (nearest: {', '.join(found)})" if found else ""


def _table(key: str, base: Mapping[str, Mapping[str, Any]]) -> bool:
    """Tell whether a key may be added: none of its parents is a plain value."""
    parts = key.split(".")
    parents = [".".join(parts[:count]) for count in range(1, len(parts))]
    return all(
        base[parent].get("table") or base[parent].get("type") == "NoneType" for parent in parents if parent in base
    )


def _other_type(wanted: Mapping[str, Any], read: Mapping[str, Any]) -> str | None:
    """Name the type that the config has, where the override's is another; None fits everywhere, and everything None."""
    if wanted.get("table"):
        return None if read["type"] in {"dict", "NoneType"} else "a table"
    have, given = wanted["type"], read["type"]
    if "NoneType" in {have, given} or _interpolation(read) or have == given:
        return None
    if have in NUMBERS:
        return None if given in NUMBERS and (have == "float" or given == "int") else f"a number ({have})"
    if have == "bool":
        return "true or false"
    if have == "list":
        return None if given in {"list", "ListConfig", "str"} else "a list"  # verl takes one name for a list of one
    return None  # text: hydra reads 7 or [a,b] where a path is meant, and verl takes both


def _interpolation(read: Mapping[str, Any]) -> bool:
    return str(read["value"]).startswith("${")


def as_override(key: str, value: str, found: Installed) -> Override:
    """Write an override of this verl: with ``+`` where the config does not have the key."""
    return parse_override(f"{'' if key in found.base else '+'}{key}={value}")


def files_of(config: Composed) -> list[str]:
    """Parquet files that the config names, ``~`` expanded."""
    found: list[str] = []
    for key in ("data.train_files", "data.val_files"):
        value = config.get(key)
        found += [str(item) for item in value] if isinstance(value, list) else [str(value)]
    return [os.path.expanduser(path) for path in found]


def data_faults(config: Composed) -> Iterator[tuple[str, str]]:
    """Say what is wrong with the parquet files that the config names, and what to do."""
    train = config.get("data.train_files")
    wanted = [os.path.expanduser(str(path)) for path in (train if isinstance(train, list) else [train])]
    again = "python -m scripts.prepare_data makes it"
    for path, seen in config.parquet.items():
        if not os.path.exists(path):
            yield f"{path} is missing", again
        elif "error" in seen:
            yield f"{path} ({os.path.getsize(path)} bytes) is not a whole parquet file: {seen['error']}", again
        elif missing := [name for name in COLUMNS if name not in seen["columns"]]:
            has = ", ".join(seen["columns"])
            yield f"{path} has no column {', '.join(missing)} (it has {has})", f"it is not in verl's schema: {again}"
        elif other := [name for name in NESTED if not seen["types"][name].startswith(NESTED[name])]:
            has = ", ".join(f"{name} ({seen['types'][name]})" for name in other)
            yield f"{path} has columns of other types than verl unpacks: {has}", f"it is not in verl's schema: {again}"
    rows = sum(config.parquet.get(path, {}).get("rows", 0) for path in wanted)
    batch = int(config.get("data.train_batch_size", 0))
    if 0 < rows < batch:
        yield f"{rows} rows are less than one batch of {batch}: no step would be made", "lower data.train_batch_size"
    elif rows and batch:
        yield from _too_few_epochs(config, rows // batch)


def _too_few_epochs(config: Composed, batches: int) -> Iterator[tuple[str, str]]:
    """Say where the epochs end before the steps that were asked for; verl ends there too, and calls it success."""
    epochs, steps = (config.get(f"trainer.{name}") for name in ("total_epochs", "total_training_steps"))
    if isinstance(epochs, int) and isinstance(steps, int) and batches * epochs < steps:
        text = f"{epochs} epochs of {batches} batches make {batches * epochs} steps, not the {steps} asked for"
        yield text, f"trainer.total_epochs={-(-steps // batches)}"
