"""One line about the host that was judged."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator

from envcheck.codec import Unknown
from envcheck.facts import Facts, Gpu


def described(facts: Facts) -> str:
    """Say what host it is: ``node-3, Ubuntu 22.04, driver 550.54.15, 8 x NVIDIA H100, Python 3.10.12 (/venv)``."""
    return ", ".join(part for part in _parts(facts) if part)


def _parts(facts: Facts) -> Iterator[str]:
    yield facts.host
    if not isinstance(facts.os, Unknown):
        yield " ".join(part for part in (_text(facts.os.id).capitalize(), _text(facts.os.version)) if part)
    if facts.container is not None and not isinstance(facts.container, Unknown):
        yield f"in a container ({facts.container.runtime})"
    if not isinstance(facts.driver, Unknown) and isinstance(facts.driver.version, str):
        yield f"driver {facts.driver.version}"
    yield _gpus(facts)
    if not isinstance(facts.python, Unknown):
        yield f"Python {_text(facts.python.version) or '?'} ({facts.python.executable})"


def _gpus(facts: Facts) -> str:
    if isinstance(facts.gpus, Unknown):
        return ""
    if not facts.gpus:
        return "no GPU"
    counted = Counter(_name(gpu) for gpu in facts.gpus)
    return ", ".join(f"{number} x {name}" for name, number in counted.items())


def _name(gpu: Gpu) -> str:
    """Name a GPU, and say where it is split: ``NVIDIA H100 80GB HBM3 (MIG)``."""
    name = _text(gpu.name) or "GPU"
    return name if _text(gpu.mig) in {"", "disabled"} else f"{name} (MIG)"


def _text(value: str | Unknown) -> str:
    return "" if isinstance(value, Unknown) else value
