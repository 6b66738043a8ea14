"""Compose verl's PPO config and look at parquet files, in the training environment's interpreter.

Started by ``scripts.ppo_compose`` as a file: the standard library, hydra, omegaconf and pyarrow; torch and verl itself
are never imported, so it takes a fraction of a second and needs no GPU.
"""

from __future__ import annotations

import importlib.metadata
import importlib.util
import json
import os
import sys
import tempfile
from typing import Any

HERE = os.path.dirname(os.path.abspath(__file__))
PACKAGES = ("verl", "sglang", "vllm", "torch", "ray", "transformers", "flash-attn", "hydra-core")


def versions() -> dict[str, str]:
    """Give the installed versions of what a run is made of."""
    found = {}
    for name in PACKAGES:
        try:
            found[name] = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            continue
    return found


def config_directory() -> str:
    """Find verl's configs without importing verl."""
    spec = importlib.util.find_spec("verl")
    if spec is None or not spec.submodule_search_locations:
        message = "verl is not installed"
        raise ModuleNotFoundError(message)
    return os.path.join(next(iter(spec.submodule_search_locations)), "trainer", "config")


def flat(value: Any, prefix: str = "") -> dict[str, Any]:  # noqa: ANN401  # any config node
    """Give every key of a nested config, tables too (as None), as ``data.train_files``."""
    found: dict[str, Any] = {}
    for key, item in value.items():
        name = f"{prefix}{key}"
        if isinstance(item, dict):
            found[name] = {"table": True}
            found.update(flat(item, f"{name}."))
        else:
            found[name] = {"type": type(item).__name__}
    return found


def composed(directory: str, name: str, overrides: list[str]) -> dict[str, Any]:
    """Compose a config with hydra; interpolations are resolved where they can be."""
    from hydra import compose, initialize_config_dir
    from omegaconf import OmegaConf
    from omegaconf.errors import OmegaConfBaseException

    with initialize_config_dir(config_dir=directory, version_base=None):
        config = compose(config_name=name, overrides=overrides)
    try:
        result = OmegaConf.to_container(config, resolve=True)
    except OmegaConfBaseException:
        result = OmegaConf.to_container(config, resolve=False)
    return dict(result)


def parsed(text: str) -> dict[str, Any]:
    """Read one override as hydra does: its key and the type and value of what it sets."""
    from hydra.core.override_parser.overrides_parser import OverridesParser
    from hydra.errors import HydraException

    try:
        item = OverridesParser.create().parse_override(text)
        value = item.value()
    except HydraException as error:
        return {"error": str(error).strip().splitlines()[0]}
    return {"key": item.key_or_group, "type": type(value).__name__, "value": json.loads(json.dumps(value, default=str))}


def looked_at(path: str) -> dict[str, Any]:
    """Read a parquet file's footer: its columns, their types and number of rows, or why it cannot be read."""
    try:
        import pyarrow.parquet

        file = pyarrow.parquet.ParquetFile(path)
        columns = {field.name: str(field.type) for field in file.schema_arrow}
        return {"rows": file.metadata.num_rows, "columns": list(columns), "types": columns}
    except Exception as error:  # noqa: BLE001  # whatever a damaged file makes pyarrow raise is the answer
        return {"error": f"{type(error).__name__}: {str(error).splitlines()[0] if str(error) else ''}"}


def unloadable(path: str) -> str | None:
    """Say why a parquet file cannot be loaded as the installed verl loads it; None where it can."""
    source = os.path.join(config_directory(), "..", "..", "utils", "dataset", "rl_dataset.py")
    with open(source, encoding="utf-8") as file:
        if "load_dataset(" not in file.read():
            return None  # verl before 0.4 reads it with pandas
    try:
        import datasets

        with tempfile.TemporaryDirectory() as place:
            datasets.load_dataset("parquet", data_files=path, cache_dir=place)
    except Exception as error:  # noqa: BLE001  # two packages that do not fit raise anything
        return f"{type(error).__name__}: {str(error).splitlines()[0] if str(error) else ''}"
    return None


def answer(request: dict[str, Any]) -> dict[str, Any]:
    """Do what was asked; every part that fails says so in its own place."""
    reply: dict[str, Any] = {"python": sys.version.split()[0], "versions": versions()}
    reply["parquet"] = {path: looked_at(path) for path in request["parquet"]}
    try:
        directory = config_directory()
        reply["directory"] = directory
        reply["base"] = flat(composed(directory, request["config"], []))
        reply["parsed"] = [parsed(text) for text in request["overrides"]]
        if request.get("load"):
            reply["load"] = unloadable(request["load"])
        if request["compose"]:
            reply["composed"] = composed(directory, request["config"], request["overrides"])
    except Exception as error:  # noqa: BLE001  # the parent turns it into its own error
        reply["error"] = f"{type(error).__name__}: {error}"
    return reply


if __name__ == "__main__":
    sys.path[:] = [
        place for place in sys.path if os.path.abspath(place or ".") != HERE
    ]  # our names hide none of theirs
    print(json.dumps(answer(json.loads(sys.argv[1])), default=str))
