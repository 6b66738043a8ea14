"""Read GSM8K and MATH from the layouts in which they are published: parquet, arrow, json, jsonl; and from the hub."""

from __future__ import annotations

import importlib
import json
import re
import time
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any

from envcheck.errors import WorkError
from scripts.prepare_data_rows import Layout

SUFFIXES = (".parquet", ".arrow", ".jsonl", ".json")
NOT_ROWS = {"dataset_info.json", "dataset_dict.json", "state.json", "dataset_infos.json", "receipt.json"}
PREFERRED = {"gsm8k": ("main",), "math": ("data", "default")}
"""Folder of the configuration that verl's scripts load, where a copy of the hub's repository holds several."""
OTHER_CONFIGURATIONS = ("socratic",)
HUB_PATTERNS = {"gsm8k": ["main/*.parquet"], "math": ["data/*.parquet", "default/*.parquet"]}
ATTEMPTS = 4
FIRST_WAIT_SECONDS = 2.0
LACKS_PYARROW = (
    "nox -s env makes an environment that has it, which is then taken; or here: python -m pip install '.[data]'"
)


def module(name: str, fix: str) -> Any:  # noqa: ANN401  # an optional package without types
    """Import an optional package, or say how to get it."""
    try:
        return importlib.import_module(name)
    except ImportError as error:
        raise WorkError(f"{name} could not be imported: {error}", fix=fix) from error


def inputs(layout: Layout, place: Path, split: str) -> list[Path]:
    """Files of one split below a folder, in the order of their names; one file stands for itself."""
    if place.is_file():
        return [place]
    if not place.is_dir():
        raise WorkError(f"{place} is neither a file nor a folder", fix="name the folder that holds the set's files")
    found = [path for path in _candidates(place) if split in _words(path.relative_to(place))]
    found = _of_one_configuration(layout, place, found)
    formats = sorted({path.suffix for path in found})
    if not found:
        raise WorkError(
            f"{place} holds no file of the {split} split of {layout.name}: {_listing(place)}",
            fix=f"expected for example train-00000-of-00001.parquet, {split}.jsonl or {split}/algebra/1.json",
        )
    if len(formats) > 1:
        raise WorkError(
            f"{place} holds the {split} split of {layout.name} more than once, as {', '.join(formats)}",
            fix="name the folder or the file of one of them",
        )
    return sorted(found, key=_natural)


def _candidates(place: Path) -> Iterator[Path]:
    for path in place.rglob("*"):
        if path.suffix in SUFFIXES and path.name not in NOT_ROWS and not path.name.startswith("."):
            yield path


def _words(path: Path) -> set[str]:
    """Words of a relative path: ``main/train-00000-of-00001.parquet`` → main, train, 00000, of, 00001, parquet."""
    return {word.lower() for word in re.split(r"[^A-Za-z0-9]+", str(path)) if word}


def _of_one_configuration(layout: Layout, place: Path, found: list[Path]) -> list[Path]:
    found = [path for path in found if not _words(path.relative_to(place)) & set(OTHER_CONFIGURATIONS)]
    for name in PREFERRED[layout.name]:
        inside = [path for path in found if name in path.relative_to(place).parts[:-1]]
        if inside and len(inside) < len(found):
            return inside
    return found


def _natural(path: Path) -> list[tuple[int, str]]:
    """Order ``2.json`` before ``10.json``."""
    return [(int(part), "") if part.isdigit() else (-1, part) for part in re.split(r"(\d+)", str(path))]


def _listing(place: Path) -> str:
    names = sorted(str(path.relative_to(place)) for path in place.rglob("*") if path.is_file())[:6]
    return ", ".join(names) or "it is empty"


def rows(paths: Iterable[Path]) -> Iterator[dict[str, Any]]:
    """Give the rows of all files, one after the other."""
    for path in paths:
        yield from _READERS[path.suffix](path) if path.suffix in _READERS else _unreadable(path)


def _unreadable(path: Path) -> list[dict[str, Any]]:
    raise WorkError(f"{path}: {path.suffix or 'no suffix'} is not read", fix=f"give one of {', '.join(SUFFIXES)}")


def _json(path: Path) -> list[dict[str, Any]]:
    """Read a list of rows, one row (a file of the original MATH archive), or one row a line."""
    text = path.read_text(encoding="utf-8")
    try:
        document = json.loads(text)
    except ValueError:
        return _lines(path, text)
    found = document if isinstance(document, list) else [document]
    return _only_tables(path, found)


def _jsonl(path: Path) -> list[dict[str, Any]]:
    return _lines(path, path.read_text(encoding="utf-8"))


def _lines(path: Path, text: str) -> list[dict[str, Any]]:
    found: list[Any] = []
    for number, line in enumerate(text.splitlines(), start=1):
        if not line.strip():
            continue
        try:
            found.append(json.loads(line))
        except ValueError as error:
            what = f"{path}, line {number} is not JSON ({error})"
            raise WorkError(what, fix="the file is cut off or damaged: fetch it again") from error
    return _only_tables(path, found)


def _only_tables(path: Path, found: list[Any]) -> list[dict[str, Any]]:
    for index, item in enumerate(found):
        if not isinstance(item, dict):
            raise WorkError(f"{path}: row {index} is {item!r:.60}, not an object with columns")
    return found


def read_parquet(path: Path) -> list[dict[str, Any]]:
    """Rows of a parquet file; a damaged one is an error that says so."""
    parquet = module("pyarrow.parquet", LACKS_PYARROW)
    return _arrow_rows(path, lambda: parquet.read_table(path))


def _arrow(path: Path) -> list[dict[str, Any]]:
    """Read an arrow stream (what the datasets library writes) or an arrow file."""
    pyarrow = module("pyarrow", LACKS_PYARROW)
    importlib.import_module("pyarrow.ipc")

    def table() -> Any:  # noqa: ANN401
        with pyarrow.memory_map(str(path)) as source:
            try:
                return pyarrow.ipc.open_stream(source).read_all()
            except pyarrow.ArrowInvalid:
                return pyarrow.ipc.open_file(source).read_all()

    return _arrow_rows(path, table)


def _arrow_rows(path: Path, table: Callable[[], Any]) -> list[dict[str, Any]]:
    pyarrow = module("pyarrow", LACKS_PYARROW)
    try:
        found: list[dict[str, Any]] = table().to_pylist()
    except (pyarrow.ArrowException, OSError) as error:
        size = path.stat().st_size if path.exists() else 0
        what = f"{path} ({size} bytes) cannot be read: {str(error).splitlines()[0]}"
        raise WorkError(what, fix="the file is cut off or damaged: fetch or make it again") from error
    return found


_READERS: dict[str, Callable[[Path], list[dict[str, Any]]]] = {
    ".json": _json,
    ".jsonl": _jsonl,
    ".parquet": read_parquet,
    ".arrow": _arrow,
}


def from_hub(layout: Layout, *, revision: str | None, sleep: Callable[[float], None] = time.sleep) -> Path:
    """Fetch a set's files from the hub and give their folder; a broken download goes on where it stopped."""
    hub = module("huggingface_hub", "pip install huggingface_hub, or give local files with --from")
    wait = FIRST_WAIT_SECONDS
    last: Exception | None = None
    for attempt in range(ATTEMPTS):
        if attempt:
            print(f"{layout.source}: {type(last).__name__}: {_first_line(last)}; again in {wait:g} s")
            sleep(wait)
            wait *= 2
        try:
            return Path(
                hub.snapshot_download(
                    layout.source, repo_type="dataset", revision=revision, allow_patterns=HUB_PATTERNS[layout.name]
                )
            )
        except Exception as error:  # noqa: BLE001  # requests' and httpx' errors, by the hub's version; raised below
            last = error
            if _final(error):
                break
    raise WorkError(
        f"{layout.source} could not be fetched from the hub: {type(last).__name__}: {_first_line(last)}",
        fix="check the network and HF_ENDPOINT; or copy the set here and give --from FOLDER; or take --sample",
    ) from last


def _final(error: Exception) -> bool:
    """Tell whether trying again cannot help: no such set, no right to read it, off-line by choice."""
    names = {kind.__name__ for kind in type(error).__mro__}
    return bool(names & {"RepositoryNotFoundError", "GatedRepoError", "RevisionNotFoundError", "OfflineModeIsEnabled"})


def _first_line(error: Exception | None) -> str:
    return (str(error).strip().splitlines() or ["no message"])[0]
