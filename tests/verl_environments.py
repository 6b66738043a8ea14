"""Interpreters with a really installed verl, named in ENVCHECK_VERL_PYTHONS (paths joined by ``:``)."""

from __future__ import annotations

import os

import pytest

GIVEN = [path for path in os.environ.get("ENVCHECK_VERL_PYTHONS", "").split(":") if path]
SKIP = pytest.mark.skip(reason="ENVCHECK_VERL_PYTHONS names no interpreter with verl, hydra-core and pyarrow")
VERL_PYTHONS = [pytest.param(path, id=str(index)) for index, path in enumerate(GIVEN)] or [
    pytest.param("", id="none", marks=SKIP)
]

GIVEN_TORCH = [path for path in os.environ.get("ENVCHECK_TORCH_PYTHONS", "").split(":") if path]
SKIP_TORCH = pytest.mark.skip(reason="ENVCHECK_TORCH_PYTHONS names no interpreter with torch and transformers")
TORCH_PYTHONS = [pytest.param(path, id=str(index)) for index, path in enumerate(GIVEN_TORCH)] or [
    pytest.param("", id="none", marks=SKIP_TORCH)
]
