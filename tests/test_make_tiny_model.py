from __future__ import annotations

import json
import subprocess
import textwrap
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

from envcheck.errors import EnvcheckError, WorkError
from scripts import make_tiny_model, process
from scripts.make_tiny_model import SIZES, made, main
from scripts.prepare_data_rows import GSM8K, convert
from scripts.prepare_data_sample import sample
from tests.verl_environments import TORCH_PYTHONS

SEEN = {"round_trip": True, "finite": True, "prompt_tokens": 19}


def _child(monkeypatch: pytest.MonkeyPatch, **seen: Any) -> list[dict[str, Any]]:
    """Stand in for the child process: write two files and say what was seen."""
    requests: list[dict[str, Any]] = []

    def output(argv: Sequence[str], **_: Any) -> str:
        request = json.loads(argv[2])
        requests.append(request)
        (Path(request["out"]) / "config.json").write_text("{}")
        (Path(request["out"]) / "model.safetensors").write_bytes(b"weights")
        return "a warning\n" + json.dumps({"tokens": 896, "parameters": 10, "seen": SEEN | seen}) + "\n"

    monkeypatch.setattr(process, "output", output)
    return requests


def test_model_is_made_once(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    requests = _child(monkeypatch)
    argv = ["--python", "/target/python", "--out", str(tmp_path / "m")]
    assert main(argv) == 0
    assert main(argv) == 0
    assert len(requests) == 1
    assert {key: requests[0][key] for key in SIZES} == SIZES
    assert "is there already" in capsys.readouterr().out
    assert main([*argv, "--force"]) == 0
    assert main([*argv, "--seed", "1"]) == 0
    assert [request["seed"] for request in requests] == [20250317, 20250317, 1]


def test_damaged_model_is_made_again(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    requests = _child(monkeypatch)
    main(["--out", str(tmp_path / "m")])
    (tmp_path / "m/model.safetensors").write_bytes(b"cut")
    assert made(tmp_path / "m") is None
    main(["--out", str(tmp_path / "m")])
    assert len(requests) == 2


def test_default_place_is_in_the_cache(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    _child(monkeypatch)
    monkeypatch.setenv("ENVCHECK_CACHE", str(tmp_path))
    assert main([]) == 0
    assert (tmp_path / "models/tiny-qwen2/receipt.json").is_file()


def test_wrong_model_is_not_kept(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    _child(monkeypatch, finite=False)
    with pytest.raises(WorkError, match="not right: finite"):
        main(["--out", str(tmp_path / "m")])
    assert not (tmp_path / "m").exists()


@pytest.mark.parametrize(
    ("argv", "word"),
    [
        pytest.param(["--heads", "7"], "do not divide", id="heads"),
        pytest.param(["--kv-heads", "3"], "do not divide", id="kv-heads"),
        pytest.param(["--vocabulary", "200"], "too small", id="vocabulary"),
    ],
)
def test_impossible_sizes(argv: list[str], word: str) -> None:
    with pytest.raises(EnvcheckError, match=word):
        make_tiny_model.main(argv)


TOKENS = textwrap.dedent("""
    import json, sys
    from transformers import AutoTokenizer
    tokenizer = AutoTokenizer.from_pretrained(sys.argv[1])
    chats = json.load(open(sys.argv[2]))
    texts = [tokenizer.apply_chat_template(c, add_generation_prompt=True, tokenize=False) for c in chats]
    print(max(len(tokenizer(text, add_special_tokens=False)["input_ids"]) for text in texts))
""")


@pytest.mark.torch
@pytest.mark.parametrize("python", TORCH_PYTHONS)
def test_real_model_takes_the_sample_prompts(python: str, tmp_path: Path) -> None:
    assert main(["--python", python, "--out", str(tmp_path / "m")]) == 0
    receipt = json.loads((tmp_path / "m/receipt.json").read_text())
    assert receipt["made"]["parameters"] == 10_363_392
    assert receipt["made"]["tokens"] == 896
    rows = convert(GSM8K, sample()["train"], "train")[0]
    (tmp_path / "chats.json").write_text(json.dumps([row["prompt"] for row in rows]))
    argv = [python, "-c", TOKENS, str(tmp_path / "m"), str(tmp_path / "chats.json")]
    longest = int(subprocess.run(argv, capture_output=True, check=True, timeout=120).stdout)
    assert 20 < longest <= 128, "the one-gpu profile allows prompts of 128 tokens"
