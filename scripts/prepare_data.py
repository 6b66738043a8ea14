"""Prepare GSM8K and MATH (or a generated sample) as parquet files in verl's schema: ``nox -s data``.

Needs only the standard library and pyarrow: where that is not here, an environment that ``nox -s env`` made is taken.
"""

from __future__ import annotations

import argparse
import hashlib
import importlib.util
import io
import json
import subprocess
import sys
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from envcheck import errors
from envcheck.errors import EnvcheckError, WorkError
from scripts import cli, files
from scripts.prepare_data_read import LACKS_PYARROW, from_hub, inputs, module, read_parquet
from scripts.prepare_data_read import rows as read_rows
from scripts.prepare_data_rows import GSM8K, LAYOUTS, Layout, Row, convert, faults
from scripts.prepare_data_sample import sample

SPLITS = ("train", "test")
RECEIPT = "receipt.json"


def parser() -> argparse.ArgumentParser:
    """Describe the command line."""
    it = argparse.ArgumentParser(prog="python -m scripts.prepare_data", description=__doc__)
    it.add_argument("sets", nargs="*", metavar="SET", help="gsm8k, math; default: both")
    it.add_argument("--out", type=Path, default=Path("~/data"), help="folder that gets SET/train.parquet (%(default)s)")
    local = "local folder or file (json, jsonl, parquet, arrow) instead of the hub; may be repeated"
    it.add_argument("--from", dest="origins", action="append", default=[], metavar="[SET=]PATH", help=local)
    it.add_argument("--revision", help="commit or branch of the hub's repository")
    it.add_argument("--sample", action="store_true", help="a generated arithmetic set, no network: OUT/sample")
    it.add_argument("--drop-bad", action="store_true", help="leave rows without an answer out instead of refusing")
    it.add_argument("--check", action="store_true", help="only check the parquet files that are in OUT")
    return it


def main(argv: Sequence[str] | None = None) -> int:
    """Prepare or check the sets that were asked for."""
    args = parser().parse_args(argv)
    out = args.out.expanduser()
    if args.sample and args.sets:
        raise EnvcheckError("--sample takes no set", fix="leave the names out")
    names = ["sample"] if args.sample else args.sets or list(LAYOUTS)
    if unknown := sorted(set(names) - {*LAYOUTS, "sample"}):
        raise EnvcheckError(f"there is no set {', '.join(unknown)}", fix=f"take one of {', '.join(LAYOUTS)}")
    if importlib.util.find_spec("pyarrow") is None and (python := _other_python()):
        command = [python, "-m", "scripts.prepare_data", *(sys.argv[1:] if argv is None else argv)]
        return subprocess.run(command, check=False).returncode
    if args.check:
        return max(_check(out / name) for name in names)
    origins = _origins(args.origins, names)
    for name in names:
        _prepare(name, out / name, origins.get(name), args)
    return errors.OK


def _other_python() -> str | None:
    """Interpreter of a made environment that has pyarrow, said where there is one."""
    from scripts import env_place  # not needed, and more than pyarrow, in that environment

    found = env_place.holding("pyarrow")
    if found:
        print(f"pyarrow is in {found}: run there", file=sys.stderr)
    return str(found) if found else None


def _origins(given: Sequence[str], names: Sequence[str]) -> dict[str, Path]:
    found: dict[str, Path] = {}
    for text in given:
        name, _, path = text.rpartition("=") if text.split("=")[0] in LAYOUTS else ("", "", text)
        if not name and len(names) != 1:
            raise EnvcheckError(f"--from {text}: for which set?", fix=f"write --from {names[0]}={text}")
        found[name or names[0]] = Path(path).expanduser()
    return found


def _prepare(name: str, out: Path, origin: Path | None, args: argparse.Namespace) -> None:
    if name == "sample":
        parts: Mapping[str, Iterable[Mapping[str, Any]]] = sample()
        layout, taken = GSM8K, {}
    else:
        layout = LAYOUTS[name]
        place = origin or from_hub(layout, revision=args.revision)
        taken = {split: inputs(layout, place, split) for split in SPLITS}
        _refuse_same(taken)
        parts = {split: read_rows(taken[split]) for split in SPLITS}
    made: dict[str, Any] = {}
    content: dict[str, bytes] = {}
    for split in SPLITS:
        rows, dropped = convert(layout, parts[split], split, drop_bad=args.drop_bad)
        made[f"{split}.parquet"], content[split] = _file(rows, dropped, taken.get(split, []))
        _say_count(name, layout, split, len(rows), len(dropped))
    for split in SPLITS:
        files.write(out / f"{split}.parquet", content[split])
    origin_text = "generated" if name == "sample" else str(origin or f"hub:{layout.source}@{args.revision or 'main'}")
    receipt = {"version": 1, "set": name, "source": origin_text, "files": made}
    files.write(out / RECEIPT, json.dumps(receipt, indent=2) + "\n")
    print(f"{name}: written to {out}")


def _refuse_same(taken: Mapping[str, Sequence[Path]]) -> None:
    """Refuse one file for both splits."""
    if set(taken["train"]) & set(taken["test"]):
        raise EnvcheckError(
            f"{taken['train'][0]} would be both the train and the test split",
            fix="give the folder that holds a file for each of them",
        )


def _file(rows: Sequence[Row], dropped: Sequence[str], taken: Sequence[Path]) -> tuple[dict[str, Any], bytes]:
    if not rows:
        raise WorkError("no row is left to write", fix="check the file that was given")
    content = parquet_bytes(rows)
    facts: dict[str, Any] = {
        "rows": len(rows),
        "bytes": len(content),
        "sha256": hashlib.sha256(content).hexdigest(),
        "rows_sha256": rows_hash(rows),
        "dropped": list(dropped),
        "inputs": _inputs(taken),
    }
    return facts, content


def _inputs(taken: Sequence[Path]) -> dict[str, Any]:
    digest = hashlib.sha256()
    for path in taken:
        digest.update(f"{files.sha256(path)}\n".encode())
    return {"files": len(taken), "sha256": digest.hexdigest()}


def parquet_bytes(rows: Sequence[Row]) -> bytes:
    """Write rows as parquet."""
    pyarrow = module("pyarrow", LACKS_PYARROW)
    buffer = io.BytesIO()
    module("pyarrow.parquet", LACKS_PYARROW).write_table(pyarrow.Table.from_pylist(list(rows)), buffer)
    return buffer.getvalue()


def rows_hash(rows: Iterable[Row]) -> str:
    """SHA-256 of the rows themselves, whatever wrote the parquet file."""
    digest = hashlib.sha256()
    for row in rows:
        digest.update(json.dumps(row, sort_keys=True, ensure_ascii=False).encode() + b"\n")
    return digest.hexdigest()


def _say_count(name: str, layout: Layout, split: str, count: int, dropped: int) -> None:
    left_out = f", {dropped} without an answer left out" if dropped else ""
    wanted = layout.expected[split]
    differs = "" if name == "sample" or count + dropped == wanted else f" (published: {wanted}: not the whole set?)"
    print(f"{name} {split}: {count} rows{left_out}{differs}")


def _check(place: Path) -> int:
    """Compare files with their receipt and their rows with the schema; give 1 where something is wrong."""
    try:
        receipt = json.loads((place / RECEIPT).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        receipt = {}
    wrong: list[str] = []
    for split in SPLITS:
        path = place / f"{split}.parquet"
        wanted = receipt.get("files", {}).get(path.name, {})
        wrong += [f"{path}: {fault}" for fault in _file_faults(path, wanted)]
    for fault in wrong:
        print(f"error: {fault}", file=sys.stderr)
    if not wrong:
        print(f"{place}: {'as its receipt says' if receipt else 'right, but it has no receipt'}")
    return errors.FINDINGS if wrong else errors.OK


def _file_faults(path: Path, wanted: Mapping[str, Any]) -> list[str]:
    if not path.is_file():
        return ["it is missing → python -m scripts.prepare_data"]
    try:
        rows = read_parquet(path)
    except WorkError as error:
        return [error.what]
    found = [*faults(rows)][:5]
    if wanted and wanted["sha256"] != files.sha256(path):
        found.append(f"it is not the file of its receipt ({len(rows)} rows, the receipt says {wanted['rows']})")
    return found


if __name__ == "__main__":
    sys.exit(cli.run(main))
