"""From a profile to a command: filled, written for the installed verl, every key checked, composed."""

from __future__ import annotations

import json
import os
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from envcheck.errors import EnvcheckError
from scripts import make_tiny_model, ppo_compose, ppo_preflight, ppo_profiles, ppo_sizes
from scripts.ppo_compose import Composed, Installed
from scripts.ppo_profiles import Override, Profile


@dataclass(frozen=True, kw_only=True)
class Request:
    """What a person asked for."""

    profile: str
    python: str
    engine: str | None = None
    model: str | None = None
    data: str
    overrides: tuple[str, ...] = ()
    steps: int | None = None
    seed: int | None = None
    resume: bool = False
    time: str = field(default_factory=lambda: time.strftime("%Y-%m-%d-%H-%M"))
    """Stands in the name of the experiment, and so in the folder of its checkpoints."""


@dataclass(frozen=True, kw_only=True)
class Plan:
    """A run that is ready but for its host: the command and the config it composes to."""

    request: Request
    profile: Profile
    engine: str
    model: str
    found: Installed
    overrides: tuple[Override, ...]
    composed: Composed
    said: tuple[str, ...]

    @property
    def argv(self) -> tuple[str, ...]:
        """The command."""
        config: tuple[str, ...] = ()
        if self.profile.config != "ppo_trainer":
            config = ("--config-path=config", f"--config-name={self.profile.config}")
        return (self.request.python, "-m", "verl.trainer.main_ppo", *config, *map(str, self.overrides))


def resumed(request: Request, record: Mapping[str, Any]) -> Request:
    """Ask for the run of a record again: same profile, engine, model, data and name, for its checkpoints' sake.

    Its interpreter and its number of steps are taken where no other is asked for.
    """
    asked = record.get("request", {})
    known = {name: asked[name] for name in ("profile", "engine", "model", "data", "time", "seed") if name in asked}
    left = {name: asked[name] for name in ("python", "steps") if name in asked and not getattr(request, name)}
    earlier = tuple(asked.get("overrides", ()))
    return replace(request, **known, **left, overrides=(*earlier, *request.overrides), resume=True)


def plan(request: Request, environ: Mapping[str, str] | None = None) -> Plan:
    """Make the plan; raise EnvcheckError naming every key, value or size that cannot be right."""
    profile = ppo_profiles.load(request.profile)
    engine = request.engine or profile.engines[0]
    if engine not in profile.engines:
        raise EnvcheckError(f"{profile.name} does not run {engine}", fix=f"take {' or '.join(profile.engines)}")
    found = ppo_compose.installed(request.python, profile.config)
    model = request.model or (str(make_tiny_model.default_place()) if profile.model == "tiny" else profile.model)
    overrides, said = _overrides(request, profile, found, _values(request, engine, model, found))
    composed = ppo_compose.compose(request.python, profile.config, overrides, found)
    logger = _logger_without_wandb(composed, os.environ if environ is None else environ)
    if logger is not None:
        overrides = ppo_profiles.merged(overrides, [logger])
        composed = ppo_compose.compose(request.python, profile.config, overrides, found)
        said = (*said, f"{logger}: wandb is left out, WANDB_API_KEY is not set (WANDB_MODE=offline needs none)")
    faults = list(ppo_sizes.faults(composed))
    if faults:
        raise EnvcheckError("the config contradicts itself:\n" + "\n".join(f"  {fault}" for fault in faults))
    return Plan(
        request=request,
        profile=profile,
        engine=engine,
        model=model,
        found=found,
        overrides=overrides,
        composed=composed,
        said=said,
    )


def _values(request: Request, engine: str, model: str, found: Installed) -> dict[str, str]:
    return {
        "data": request.data,
        "model": model,
        "engine": engine,
        "engine_version": found.versions.get(engine, "not-installed"),
        "time": request.time,
    }


def _overrides(
    request: Request, profile: Profile, found: Installed, values: Mapping[str, str]
) -> tuple[tuple[Override, ...], tuple[str, ...]]:
    base = ppo_profiles.fill(profile.overrides, values)
    overrides, said = ppo_profiles.moved(ppo_profiles.merged(base, _given(request, found)), found.verl)
    keys = {item.key for item in overrides}
    extra = [
        item for item in ppo_profiles.fill(profile.if_known, values) if item.key in found.base and item.key not in keys
    ]
    return (*overrides, *extra), (*said, *(f"{item} is added: {profile.if_known_reason}" for item in extra))


def _given(request: Request, found: Installed) -> Sequence[Override]:
    given = [ppo_profiles.parse_override(text) for text in request.overrides]
    if request.steps is not None:
        given.append(ppo_compose.as_override("trainer.total_training_steps", str(request.steps), found))
    if request.seed is not None:
        given.append(ppo_compose.as_override("data.seed", str(request.seed), found))
    if request.resume:
        given.append(ppo_compose.as_override("trainer.resume_mode", "auto", found))
    return list({item.key: item for item in given}.values())


def _logger_without_wandb(composed: Composed, environ: Mapping[str, str]) -> Override | None:
    """Reduce the logger to what needs no key, where it asks for wandb and there is none."""
    loggers = composed.get("trainer.logger", [])
    if "wandb" not in loggers or ppo_preflight.wandb_key(environ):
        return None
    rest = [name for name in loggers if name != "wandb"] or ["console"]
    return ppo_profiles.parse_override("trainer.logger=" + json.dumps(rest, separators=(",", ":")).replace('"', "'"))


def checkpoints(place: Path) -> list[Path]:
    """Give the files by which verl finds the last checkpoint below a run's folder."""
    return sorted(place.glob("checkpoints/**/latest_checkpointed_iteration.txt"))
