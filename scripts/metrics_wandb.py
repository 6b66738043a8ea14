"""Read wandb's offline files without wandb, and its API with it.

A ``run-*.wandb`` file is a LevelDB log (32 KiB blocks, records of type full, first, middle, last) of protobuf records;
only the few fields that carry history and config are decoded. Formats:
https://github.com/google/leveldb/blob/main/doc/log_format.md and
https://github.com/wandb/wandb/blob/main/wandb/proto/wandb_internal.proto.
"""

from __future__ import annotations

import importlib
import json
import struct
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from envcheck.errors import WorkError
from scripts.metrics import Run, flattened
from scripts.metrics_console import add_row

MAGIC = b":W&B"
FILE_HEADER_BYTES = 7
BLOCK_BYTES = 32768
RECORD_HEADER = struct.Struct("<IHB")
FULL, FIRST, MIDDLE, LAST = 1, 2, 3, 4
HISTORY_FIELD, CONFIG_FIELD, EXIT_FIELD, RUN_FIELD = 2, 5, 18, 17
RUN_CONFIG_FIELD = 4
ITEM_KEY, ITEM_NESTED_KEY, ITEM_VALUE = 1, 2, 16
VARINT, FIXED64, BYTES, FIXED32 = 0, 1, 2, 5


def is_datastore(head: bytes) -> bool:
    """Tell whether a file begins as wandb's offline file does."""
    return head.startswith(MAGIC)


def records(data: bytes) -> Iterator[bytes]:
    """Give the records of a LevelDB log; a record that is cut off at the end (a run that was killed) is left out."""
    position = FILE_HEADER_BYTES
    parts: list[bytes] = []
    while position + RECORD_HEADER.size <= len(data):
        room = BLOCK_BYTES - position % BLOCK_BYTES
        if room < RECORD_HEADER.size:
            position += room
            continue
        _, length, kind = RECORD_HEADER.unpack_from(data, position)
        position += RECORD_HEADER.size
        if position + length > len(data):
            return
        part = data[position : position + length]
        position += length
        if kind == FULL:
            yield part
        elif kind == FIRST:
            parts = [part]
        elif kind in {MIDDLE, LAST}:
            parts.append(part)
            if kind == LAST:
                yield b"".join(parts)


def fields(data: bytes) -> Iterator[tuple[int, bytes]]:
    """Give the number and bytes of every length-delimited field of a protobuf message; other fields are passed over."""
    position = 0
    while position < len(data):
        tag, position = _varint(data, position)
        kind = tag & 7
        if kind == BYTES:
            length, position = _varint(data, position)
            yield tag >> 3, data[position : position + length]
            position += length
        elif kind == VARINT:
            _, position = _varint(data, position)
        elif kind in {FIXED64, FIXED32}:
            position += 8 if kind == FIXED64 else 4
        else:
            raise WorkError(f"a wandb record holds a field of wire type {kind}", fix="the file is damaged")


def _varint(data: bytes, position: int) -> tuple[int, int]:
    value = shift = 0
    while True:
        if position >= len(data):
            raise WorkError("a wandb record ends inside a number", fix="the file is damaged")
        byte = data[position]
        position += 1
        value |= (byte & 0x7F) << shift
        shift += 7
        if byte < 0x80:  # noqa: PLR2004  # the last byte of a number
            return value, position


def _items(message: bytes) -> Iterator[tuple[tuple[str, ...], Any]]:
    """Give key path and value of the items of a HistoryRecord or a ConfigRecord (both: field 1)."""
    for number, item in fields(message):
        if number != 1:
            continue
        key: tuple[str, ...] = ()
        value = b"null"
        for part, content in fields(item):
            if part in {ITEM_KEY, ITEM_NESTED_KEY}:
                key = (*key, content.decode(errors="replace"))
            elif part == ITEM_VALUE:
                value = content
        yield key, json.loads(value)


def from_datastore(path: Path, label: str) -> Run:
    """Read an offline run."""
    metrics: dict[str, dict[int, float]] = {}
    config: dict[str, Any] = {}
    finished = False
    try:
        for record in records(path.read_bytes()):
            for number, message in fields(record):
                if number == HISTORY_FIELD:
                    row = {".".join(key): value for key, value in _items(message)}
                    add_row(metrics, row.get("_step"), row)
                elif number in {CONFIG_FIELD, RUN_FIELD}:
                    _add_config(config, message, in_run=number == RUN_FIELD)
                finished = finished or number == EXIT_FIELD
    except (WorkError, ValueError) as error:
        if not metrics:
            raise WorkError(f"{path} is not a wandb file that can be read: {error}") from error
    flat = plain_config(config)
    return Run(label=label, source=str(path), metrics=metrics, config=flat, total_steps=_total(flat), finished=finished)


def _add_config(config: dict[str, Any], message: bytes, *, in_run: bool) -> None:
    """Take config items; a RunRecord carries the first of them in a field of its own."""
    holders = [content for number, content in fields(message) if number == RUN_CONFIG_FIELD] if in_run else [message]
    for holder in holders:
        for key, value in _items(holder):
            if key and key[0] != "_wandb":
                config[".".join(key)] = value


def plain_config(config: Mapping[str, Any]) -> dict[str, Any]:
    """Flatten wandb's config; it wraps each top value as ``{"value": …}`` in some of its forms."""
    unwrapped = {
        key: value["value"] if isinstance(value, dict) and "value" in value and len(value) <= 2 else value  # noqa: PLR2004  # value, desc
        for key, value in config.items()
    }
    return flattened(unwrapped)


def _total(config: Mapping[str, Any]) -> int | None:
    value = config.get("trainer.total_training_steps")
    return value if isinstance(value, int) else None


def from_api(path: str, label: str) -> Run:
    """Read a run from wandb's server: ``entity/project/run``."""
    try:
        wandb = importlib.import_module("wandb")
    except ImportError as error:
        fix = "pip install wandb; or copy the run's folder here: its run-*.wandb file is read without wandb"
        raise WorkError(f"wandb could not be imported: {error}", fix=fix) from error
    metrics: dict[str, dict[int, float]] = {}
    try:
        run = wandb.Api().run(path)
        for row in run.scan_history():
            add_row(metrics, row.get("_step"), row)
        config, state = plain_config(dict(run.config)), str(run.state)
    except Exception as error:  # wandb raises its own and requests' errors
        first = (str(error).splitlines() or [""])[0]
        what = f"wandb's run {path} could not be read: {type(error).__name__}: {first}"
        raise WorkError(what, fix="check the path (entity/project/run), WANDB_API_KEY and the network") from error
    return Run(
        label=label,
        source=f"wandb:{path}",
        metrics=metrics,
        config=config,
        total_steps=_total(config),
        finished=state == "finished",
    )
