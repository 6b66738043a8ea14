from __future__ import annotations

import json
import struct
import sys
import types
from pathlib import Path
from typing import Any

import pytest

from envcheck.errors import EnvcheckError, WorkError
from scripts import metrics_wandb
from scripts.metrics import flattened, read
from scripts.metrics_console import config_of, from_json_lines, from_lines, plain, step_line
from tests.parity_cases import Simulated

VERL_02 = (
    "\x1b[36m(main_task pid=2417)\x1b[0m step:0 - global_seqlen/min:7712.000 - global_seqlen/max:8103.000"
    " - critic/kl:0.000 - critic/kl_coeff:0.001 - critic/vf_loss:0.412"
    " - actor/entropy_loss:0.357 - actor/pg_loss:-0.002"
    " - critic/score/mean:0.031 - critic/rewards/mean:0.031 - response_length/mean:1.000 - timing_s/step:38.912"
    " - val/test_score/openai/gsm8k:0.252"
)
VERL_04 = (
    "(TaskRunner pid=2215, ip=10.0.0.7) step:3 - training/rollout_probs_diff_mean:0.011 - actor/entropy:6.798"
    " - val-core/openai/gsm8k/reward/mean@1:0.250 - perf/throughput:13291.443 - training/global_step:3.000"
)
NEWER = "step:12 - actor/grad_norm:np.float64(0.5) - critic/rewards/mean:nan - a:1e-05 - b:-inf - text:abc"


def test_step_line_of_verl_0_2() -> None:
    found = step_line(VERL_02)
    assert found is not None
    assert found.step == 0
    assert found.metrics["actor/pg_loss"] == -0.002
    assert found.metrics["val/test_score/openai/gsm8k"] == 0.252
    assert len(found.metrics) == 12


def test_step_line_of_verl_0_4() -> None:
    found = step_line(VERL_04)
    assert found is not None
    assert found.metrics["val-core/openai/gsm8k/reward/mean@1"] == 0.25
    assert found.metrics["training/rollout_probs_diff_mean"] == 0.011


def test_step_line_with_other_numbers() -> None:
    found = step_line(NEWER)
    assert found is not None
    assert found.metrics["actor/grad_norm"] == 0.5
    assert found.metrics["critic/rewards/mean"] != found.metrics["critic/rewards/mean"]
    assert found.metrics["a"] == 1e-05
    assert found.metrics["b"] == float("-inf")
    assert "text" not in found.metrics


@pytest.mark.parametrize(
    "line",
    ["", "step:1", "step:x - a:1", "first_step:1 - a:1", "(pid=1) step 1 - a:1", "step:1 - nothing", "misstep:1 - a:1"],
)
def test_other_lines(line: str) -> None:
    assert step_line(line) is None


def test_plain() -> None:
    assert plain("\x1b[36m(WorkerDict pid=9)\x1b[0m hello \n") == ("WorkerDict pid=9", "hello")
    assert plain("hello (pid=9)") == ("", "hello (pid=9)")


def test_whole_log() -> None:
    run = from_lines(Simulated(seed=1, steps=4).log().splitlines(), "x.log", "x")
    assert run.steps == (1, 2, 3, 4)
    assert (run.total_steps, run.finished, run.cut_off) == (4, True, False)
    assert run.config["actor_rollout_ref.rollout.name"] == "sglang"
    assert run.config["trainer.total_training_steps"] is None
    assert run.end() == "4 steps, last 4 of 4"


def test_log_that_was_cut_off() -> None:
    run = from_lines(Simulated(seed=1).log().splitlines()[:-15], "x.log", "x")
    assert run.cut_off
    assert run.end() == "cut off after step 16 of 30"


def test_total_from_the_progress_bar() -> None:
    lines = ["Training Progress:   3%|▎         | 1/30 [00:42<20:18, 42.0s/it]", "step:1 - a:1"]
    assert from_lines(lines, "x", "x").total_steps == 30


def test_resumed_log_counts_a_step_once() -> None:
    assert from_lines(["step:1 - a:1", "step:2 - a:2", "step:2 - a:3"], "x", "x").metrics == {"a": {1: 1.0, 2: 3.0}}


def test_log_without_steps() -> None:
    run = from_lines(["hello"], "x", "x")
    assert run.end() == "no step was logged"
    assert not run.cut_off


def test_config_between_other_workers_lines() -> None:
    lines = [
        "(Other pid=1) {'not': 'this'}",
        "(TaskRunner pid=2) {'data': {'files': ['/a',",
        "(Other pid=1) noise",
        "(TaskRunner pid=2)                     '/b']},",
        "(TaskRunner pid=2)  'trainer': {'nnodes': 1, 'dir': None}}",
    ]
    assert config_of(lines[1:]) == {"data.files": ["/a", "/b"], "trainer.nnodes": 1, "trainer.dir": None}
    assert config_of(lines[:4]) == {}
    assert config_of(["{'a': 1"] + ["x"] * 6000) == {}
    assert config_of(["{'trainer': nonsense()}"]) == {}


def test_json_lines(tmp_path: Path) -> None:
    path = tmp_path / "m.jsonl"
    path.write_text(
        '{"step": 1, "data": {"a": 0.5, "t": "x"}}\n{"_step": 2, "a": "NaN", "b": true}\nnonsense\n{"a": 1}\n[1]\n'
    )
    run = from_json_lines(path, "m")
    assert run is not None
    assert run.metrics["a"][1] == 0.5
    assert run.metrics["a"][2] != run.metrics["a"][2]
    assert set(run.metrics) == {"a"}
    assert read(str(path)).metrics["a"][1] == 0.5
    path.write_text("nothing\n")
    assert from_json_lines(path, "m") is None


def test_flattened() -> None:
    assert flattened({"a": {"b": {"c": 1}, "d": {}}, "e": [1]}) == {"a.b.c": 1, "a.d": {}, "e": [1]}


def test_read_finds_the_log_of_a_run_folder(tmp_path: Path) -> None:
    (tmp_path / "train.log").write_text(Simulated(seed=1, steps=2).log())
    (tmp_path / "other.log").write_text("")
    run = read(str(tmp_path))
    assert run.label == tmp_path.name
    assert run.steps == (1, 2)


def test_read_refuses_what_is_not_one_run(tmp_path: Path) -> None:
    with pytest.raises(EnvcheckError, match="no such file"):
        read(str(tmp_path / "no.log"))
    with pytest.raises(EnvcheckError, match="holds no log"):
        read(str(tmp_path))
    for name in ("a.log", "b.log"):
        (tmp_path / name).write_text("")
    with pytest.raises(EnvcheckError, match=r"several runs: a\.log, b\.log"):
        read(str(tmp_path))


def _varint(value: int) -> bytes:
    found = b""
    while value > 0x7F:
        found += bytes([value & 0x7F | 0x80])
        value >>= 7
    return found + bytes([value])


def _field(number: int, content: bytes) -> bytes:
    return _varint(number << 3 | 2) + _varint(len(content)) + content


def _item(key: str, value: Any, nested: str = "") -> bytes:
    names = _field(2, key.encode()) + _field(2, nested.encode()) if nested else _field(1, key.encode())
    return _field(1, names + _field(16, json.dumps(value).encode()))


def _datastore(records: list[bytes]) -> bytes:
    """Write records as wandb does: a 7 byte header, then LevelDB blocks of 32 KiB."""
    data = b":W&B" + b"\x01\x02\x00"
    for record in records:
        first, rest = True, record
        while True:
            room = 32768 - len(data) % 32768
            if room < 7:
                data += b"\x00" * room
                continue
            part, rest = rest[: room - 7], rest[room - 7 :]
            kind = (1 if first else 4) if not rest else (2 if first else 3)
            data += struct.pack("<IHB", 0, len(part), kind) + part
            first = False
            if not rest:
                break
    return data


def _history(step: int, **values: Any) -> bytes:
    items = b"".join(_item(name.replace("__", "/"), value) for name, value in {**values, "_step": step}.items())
    # Beside the item: a number, a fixed64 and a fixed32 field that are passed over.
    return (
        _varint(1 << 3)
        + _varint(step)
        + _varint(7 << 3 | 1)
        + b"8bytes__"
        + _varint(8 << 3 | 5)
        + b"4byt"
        + _field(2, items)
    )


def test_wandb_datastore(tmp_path: Path) -> None:
    config = _field(
        17, _field(1, b"id") + _field(4, _item("trainer", {"total_training_steps": 300}) + _item("_wandb", {}))
    )
    update = _field(5, _item("data", 64, nested="train_batch_size"))
    steps = [_history(step, critic__rewards__mean=step / 100, text="x" * 300) for step in range(1, 301)]
    path = tmp_path / "wandb/offline-run-1/run-a.wandb"
    path.parent.mkdir(parents=True)
    path.write_bytes(_datastore([config, update, *steps, _field(18, b"")]))
    assert path.stat().st_size > 3 * 32768
    (tmp_path / "wandb/latest-run").symlink_to("offline-run-1")
    run = read(str(tmp_path), "w")
    assert run.label == "w"
    assert run.steps == tuple(range(1, 301))
    assert run.metrics == {"critic/rewards/mean": {step: step / 100 for step in range(1, 301)}}
    assert run.config == {"trainer.total_training_steps": 300, "data.train_batch_size": 64}
    assert (run.total_steps, run.finished) == (300, True)


def test_wandb_datastore_that_was_cut_off(tmp_path: Path) -> None:
    path = tmp_path / "run-a.wandb"
    whole = _datastore([_history(step, a=1.0) for step in (1, 2, 3)])
    path.write_bytes(whole[:-4])
    run = read(str(path))
    assert run.steps == (1, 2)
    assert run.finished is False


@pytest.mark.parametrize(
    "record", [b"\x0b", b"\x08\xff", _field(2, _field(1, _field(16, b"{")))], ids=["type", "number", "json"]
)
def test_wandb_datastore_that_is_damaged(tmp_path: Path, record: bytes) -> None:
    path = tmp_path / "run-a.wandb"
    path.write_bytes(_datastore([record]))
    with pytest.raises(WorkError, match="not a wandb file that can be read"):
        read(str(path))


class _Api:
    """As wandb.Api."""

    def run(self, path: str) -> Any:
        if path == "e/p/none":
            message = "404\nsecond line"
            raise ValueError(message)
        rows = [{"_step": 1, "a": 0.5, "_runtime": 3}, {"_step": 2, "a": None}]
        config = {"trainer": {"value": {"total_training_steps": 9}, "desc": None}}
        return types.SimpleNamespace(scan_history=lambda: rows, config=config, state="crashed")


def test_wandb_api(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "wandb", types.SimpleNamespace(Api=_Api))
    run = read("wandb:e/p/r")
    assert run.metrics == {"a": {1: 0.5}}
    assert (run.source, run.total_steps, run.finished, run.cut_off) == ("wandb:e/p/r", 9, False, True)
    with pytest.raises(WorkError, match="e/p/none could not be read: ValueError: 404\n"):
        read("wandb:e/p/none")


def test_wandb_api_without_wandb(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "wandb", None)
    with pytest.raises(WorkError, match="is read without wandb"):
        metrics_wandb.from_api("e/p/r", "r")
