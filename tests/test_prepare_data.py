from __future__ import annotations

import json
import subprocess
import sys
import textwrap
import types
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from envcheck.errors import EnvcheckError, WorkError
from scripts import prepare_data, prepare_data_read
from scripts.prepare_data_read import from_hub, inputs, rows
from scripts.prepare_data_rows import GSM8K, MATH, AnswerError, convert, faults, gsm8k_answer, math_answer, unboxed
from scripts.prepare_data_sample import KINDS, ROWS, sample
from tests.verl_environments import VERL_PYTHONS

GSM8K_ROW = {"question": "How many?", "answer": "3 + 4 = 7\n#### 7"}
MATH_ROW = {"problem": "What is x?", "level": "Level 1", "type": "Algebra", "solution": r"$x=\boxed{\frac{1}{2}}$"}


@pytest.mark.parametrize(
    ("solution", "answer"),
    [
        pytest.param("so 7\n#### 7", "7", id="plain"),
        pytest.param("#### 1,234,567", "1234567", id="thousands"),
        pytest.param("#### -3.5 apples", "-3.5", id="negative-decimal"),
        pytest.param("#### 1\n#### 2", "1", id="first-of-two"),
        pytest.param("#### 7.", "7.", id="trailing-dot-is-kept"),
    ],
)
def test_gsm8k_answer(solution: str, answer: str) -> None:
    assert gsm8k_answer(solution) == answer


@pytest.mark.parametrize("solution", ["", "7", "####7", "#### seven", "### 7"])
def test_gsm8k_answer_missing(solution: str) -> None:
    with pytest.raises(AnswerError, match="####"):
        gsm8k_answer(solution)


@pytest.mark.parametrize(
    ("solution", "answer"),
    [
        pytest.param(r"\boxed{4}", "4", id="plain"),
        pytest.param(r"$\boxed{\frac{1}{2}}$ done", r"\frac{1}{2}", id="nested"),
        pytest.param(r"\boxed{1} then \boxed{2}", "2", id="last"),
        pytest.param(r"so $\boxed 5$ ok", "5", id="spaced"),
        pytest.param(r"\boxed{1} and $\boxed 2$", "2", id="spaced-wins"),
        pytest.param(r"\boxed{}", "", id="empty"),
    ],
)
def test_math_answer(solution: str, answer: str) -> None:
    assert math_answer(solution) == answer


@pytest.mark.parametrize(
    ("solution", "word"),
    [
        pytest.param("no box", "no .boxed", id="none"),
        pytest.param(r"\boxed{1", "balanced", id="never-closed"),
        pytest.param(r"\fbox{1}", "is not", id="fbox"),
        pytest.param(r"\boxed}{1}", "balanced", id="closing-first"),
    ],
)
def test_math_answer_missing(solution: str, word: str) -> None:
    with pytest.raises(AnswerError, match=word):
        math_answer(solution)


CHECK_WITH_VERL = textwrap.dedent("""
    import importlib.util, json, sys
    root = importlib.util.find_spec("verl").submodule_search_locations[0]
    def load(name):
        spec = importlib.util.spec_from_file_location("theirs_" + name, f"{root}/utils/reward_score/{name}.py")
        module = importlib.util.module_from_spec(spec)
        spec.loader.exec_module(module)
        return module
    math, gsm8k = load("math"), load("gsm8k")
    def attempt(call, text):
        try:
            return call(text)
        except Exception as error:
            return None
    texts = json.load(open(sys.argv[1]))
    boxed = lambda text: math.remove_boxed(math.last_boxed_only_string(text))
    print(json.dumps([[attempt(boxed, t), attempt(gsm8k.extract_solution, t)] for t in texts]))
""")


def _texts() -> list[str]:
    """Every string of up to five of these pieces, which hold all that the two extractions look for."""
    pieces = ["\\boxed", "\\boxed ", "\\fbox", "{", "}", "$", "x", "#### ", "-1,2.3"]
    found = [""]
    for _ in range(5):
        found += [text + piece for text in found[-(9**4) :] for piece in pieces]
    return [*found[:40000], r"a \boxed{\frac{1}{2}} b", "#### 12,000"]


@pytest.mark.process
@pytest.mark.parametrize("python", VERL_PYTHONS)
def test_answers_are_those_of_the_installed_verl(python: str, tmp_path: Path) -> None:
    texts = _texts()
    (tmp_path / "texts.json").write_text(json.dumps(texts))
    argv = [python, "-c", CHECK_WITH_VERL, str(tmp_path / "texts.json")]
    theirs = json.loads(subprocess.run(argv, capture_output=True, check=True, timeout=120).stdout)
    assert len(theirs) == len(texts)
    assert sum(pair != [None, None] for pair in theirs) > 1000
    for text, (boxed, number) in zip(texts, theirs, strict=True):
        assert _answer(math_answer, text) == boxed, text
        assert _answer(gsm8k_answer, text) == number, text


def _answer(extract: Callable[[str], str], text: str) -> str | None:
    try:
        return extract(text)
    except AnswerError:
        return None


def test_a_box_that_is_not_the_beginning_is_refused() -> None:
    with pytest.raises(AnswerError, match="does not begin"):
        unboxed(r"so \boxed 4")


def test_gsm8k_row_is_verls() -> None:
    (row,), bad = convert(GSM8K, [GSM8K_ROW], "train")
    assert not bad
    assert row == {
        "data_source": "openai/gsm8k",
        "prompt": [
            {
                "role": "user",
                "content": 'How many? Let\'s think step by step and output the final answer after "####".',
            }
        ],
        "ability": "math",
        "reward_model": {"style": "rule", "ground_truth": "7"},
        "extra_info": {"split": "train", "index": 0, "answer": "3 + 4 = 7\n#### 7", "question": "How many?"},
    }


def test_math_row_keeps_the_other_columns() -> None:
    (row,), _ = convert(MATH, [MATH_ROW], "test")
    assert list(row) == ["level", "type", "data_source", "prompt", "ability", "reward_model", "extra_info"]
    assert row["prompt"][0]["content"].endswith("output the final answer within \\boxed{}.")
    assert row["extra_info"] == {"split": "test", "index": 0}
    assert list(faults([row])) == []


@pytest.mark.parametrize(
    ("row", "word"),
    [
        pytest.param({"question": "?"}, "no column 'answer' \\(it has none\\)", id="column-missing"),
        pytest.param({"q": "?"}, "no column 'question' \\(it has q\\)", id="other-column"),
        pytest.param({"question": None, "answer": "#### 1"}, "holds None", id="null"),
        pytest.param({"question": "?", "answer": "one"}, "####", id="no-answer"),
    ],
)
def test_bad_rows_are_refused_or_left_out(row: dict[str, Any], word: str) -> None:
    with pytest.raises(WorkError, match=f"1 of 2 rows hold no answer\n  row 1: .*{word}"):
        convert(GSM8K, [GSM8K_ROW, row], "train")
    good, bad = convert(GSM8K, [GSM8K_ROW, row, GSM8K_ROW], "train", drop_bad=True)
    assert [item["extra_info"]["index"] for item in good] == [0, 2]
    assert len(bad) == 1


def test_many_bad_rows_are_counted() -> None:
    with pytest.raises(WorkError, match="and 4 more"):
        convert(GSM8K, [{"question": "?", "answer": "none"}] * 9, "train")


def test_faults_of_the_schema() -> None:
    (row,), _ = convert(GSM8K, [GSM8K_ROW], "train")
    found = list(faults([{}, row | {"prompt": [{"role": "user"}]}, row | {"reward_model": None}]))
    assert [fault.split(": ")[1][:9] for fault in found] == ["no column", "prompt is", "reward_mo"]
    found = list(faults([row | {"prompt": "What is 3 + 4?"}, row | {"prompt": ["x"]}, row | {"reward_model": "7"}]))
    assert [fault.split(": ")[1][:9] for fault in found] == ["prompt is", "prompt is", "reward_mo"]


def test_sample_is_deterministic_and_right() -> None:
    once, again = sample(), sample()
    assert once == again
    assert {split: len(part) for split, part in once.items()} == ROWS
    questions = [row["question"] for part in once.values() for row in part]
    assert len(set(questions)) == len(questions)
    assert sample(seed=1) != once
    for row in once["train"]:
        left, right = row["answer"].split("\n")[0].rstrip(".").rsplit(" = ", 1)
        result = right.split()[0].replace(",", "")
        assert eval(left.split(", ")[-1].replace(" x ", "*")) == int(result) == int(gsm8k_answer(row["answer"]))  # noqa: S307  # our own arithmetic
    assert len(KINDS) == 5


def _write(place: Path, name: str, content: object) -> Path:
    path = place / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(content if isinstance(content, str) else json.dumps(content))
    return path


def test_inputs_of_the_original_math_archive_in_natural_order(tmp_path: Path) -> None:
    for split in ("train", "test"):
        for number in (10, 9, 1):
            _write(tmp_path, f"MATH/{split}/algebra/{number}.json", MATH_ROW | {"problem": f"{split} {number}"})
    _write(tmp_path, "MATH/train/dataset_info.json", {})
    found = inputs(MATH, tmp_path, "train")
    assert [path.stem for path in found] == ["1", "9", "10"]
    assert [row["problem"] for row in rows(found)] == ["train 1", "train 9", "train 10"]


def test_inputs_take_the_configuration_that_verl_loads(tmp_path: Path) -> None:
    for folder in ("main", "socratic"):
        _write(tmp_path, f"{folder}/train-00000-of-00001.jsonl", "")
    _write(tmp_path, "train_socratic.jsonl", "")
    assert [path.parent.name for path in inputs(GSM8K, tmp_path, "train")] == ["main"]
    for folder in ("data", "algebra"):
        _write(tmp_path, f"math/{folder}/train-00000-of-00001.parquet", "")
    assert [path.parent.name for path in inputs(MATH, tmp_path / "math", "train")] == ["data"]


def test_inputs_that_are_not_there(tmp_path: Path) -> None:
    with pytest.raises(WorkError, match="neither a file nor a folder"):
        inputs(GSM8K, tmp_path / "no", "train")
    with pytest.raises(WorkError, match="it is empty"):
        inputs(GSM8K, tmp_path, "train")
    _write(tmp_path, "a/training.txt", "")
    with pytest.raises(WorkError, match=r"a/training\.txt"):
        inputs(GSM8K, tmp_path, "train")
    _write(tmp_path, "train.json", [])
    _write(tmp_path, "train.jsonl", "")
    with pytest.raises(WorkError, match=r"more than once, as \.json, \.jsonl"):
        inputs(GSM8K, tmp_path, "train")


def test_json_layouts(tmp_path: Path) -> None:
    as_list = _write(tmp_path, "a.json", [GSM8K_ROW, GSM8K_ROW])
    as_lines = _write(tmp_path, "b.json", "\n".join([json.dumps(GSM8K_ROW)] * 3) + "\n\n")
    as_jsonl = _write(tmp_path, "c.jsonl", json.dumps(GSM8K_ROW))
    assert [len(list(rows([path]))) for path in (as_list, as_lines, as_jsonl)] == [2, 3, 1]


def test_damaged_json(tmp_path: Path) -> None:
    with pytest.raises(WorkError, match="line 2 is not JSON"):
        list(rows([_write(tmp_path, "a.jsonl", json.dumps(GSM8K_ROW) + '\n{"question": "cut')]))
    with pytest.raises(WorkError, match="row 0 is 7, not an object"):
        list(rows([_write(tmp_path, "b.json", [7])]))
    with pytest.raises(WorkError, match=r"\.csv is not read"):
        list(rows([_write(tmp_path, "c.csv", "")]))


def test_missing_pyarrow_says_where_to_get_it(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setitem(sys.modules, "pyarrow.parquet", None)
    with pytest.raises(WorkError, match=r"pyarrow.* could not be imported(.|\n)*nox -s env"):
        list(rows([_write(tmp_path, "a.parquet", "PAR1")]))


def test_sample_is_written_checked_and_found_changed(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    pytest.importorskip("pyarrow")
    assert prepare_data.main(["--sample", "--out", str(tmp_path)]) == 0
    assert prepare_data.main(["--sample", "--out", str(tmp_path / "again")]) == 0
    receipts = [(place / "sample" / "receipt.json").read_text() for place in (tmp_path, tmp_path / "again")]
    assert receipts[0] == receipts[1]
    assert json.loads(receipts[0])["files"]["train.parquet"]["rows"] == 512
    assert prepare_data.main(["--sample", "--check", "--out", str(tmp_path)]) == 0
    (tmp_path / "sample/train.parquet").write_bytes((tmp_path / "sample/test.parquet").read_bytes())
    assert prepare_data.main(["--sample", "--check", "--out", str(tmp_path)]) == 1
    assert "not the file of its receipt (128 rows, the receipt says 512)" in capsys.readouterr().err


def test_check_of_missing_damaged_and_foreign_files(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    pyarrow = pytest.importorskip("pyarrow")
    parquet = pytest.importorskip("pyarrow.parquet")
    place = tmp_path / "gsm8k"
    place.mkdir()
    assert prepare_data.main(["gsm8k", "--check", "--out", str(tmp_path)]) == 1
    assert capsys.readouterr().err.count("it is missing") == 2
    good = prepare_data.parquet_bytes(convert(GSM8K, [GSM8K_ROW], "train")[0])
    (place / "train.parquet").write_bytes(good[:-20])
    parquet.write_table(pyarrow.table({"question": ["?"]}), place / "test.parquet")
    assert prepare_data.main(["gsm8k", "--check", "--out", str(tmp_path)]) == 1
    said = capsys.readouterr().err
    assert f"train.parquet ({len(good) - 20} bytes) cannot be read: " in said
    assert "row 0: no column data_source, prompt" in said
    for split in ("train", "test"):
        (place / f"{split}.parquet").write_bytes(good)
    assert prepare_data.main(["gsm8k", "--check", "--out", str(tmp_path)]) == 0
    assert "no receipt" in capsys.readouterr().out


def test_both_sets_from_local_files_of_every_format(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    pyarrow = pytest.importorskip("pyarrow")
    parquet = pytest.importorskip("pyarrow.parquet")
    table = pyarrow.Table.from_pylist([MATH_ROW, MATH_ROW])
    for split, writer_of in (("train", pyarrow.ipc.new_stream), ("test", pyarrow.ipc.new_file)):
        (tmp_path / "math" / split).mkdir(parents=True)
        with writer_of(str(tmp_path / "math" / split / "data-00000-of-00001.arrow"), table.schema) as writer:
            writer.write_table(table)
    (tmp_path / "gsm8k").mkdir()
    parquet.write_table(pyarrow.Table.from_pylist([GSM8K_ROW] * 3), tmp_path / "gsm8k/train-00000-of-00001.parquet")
    parquet.write_table(pyarrow.Table.from_pylist([GSM8K_ROW]), tmp_path / "gsm8k/test-00000-of-00001.parquet")
    origins = [f"--from={name}={tmp_path / name}" for name in ("gsm8k", "math")]
    assert prepare_data.main([*origins, "--out", str(tmp_path / "out")]) == 0
    assert "gsm8k train: 3 rows (published: 7473: not the whole set?)" in capsys.readouterr().out
    written = prepare_data_read.read_parquet(tmp_path / "out/math/test.parquet")
    assert written == convert(MATH, [MATH_ROW, MATH_ROW], "test")[0]
    receipt = json.loads((tmp_path / "out/gsm8k/receipt.json").read_text())
    assert receipt["source"] == str(tmp_path / "gsm8k")
    assert receipt["files"]["train.parquet"]["inputs"]["files"] == 1


def test_empty_file_is_refused(tmp_path: Path) -> None:
    _write(tmp_path, "train.jsonl", "")
    _write(tmp_path, "test.jsonl", "")
    with pytest.raises(WorkError, match="no row is left"):
        prepare_data.main(["gsm8k", "--from", str(tmp_path), "--out", str(tmp_path / "out")])
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    ("argv", "word"),
    [
        pytest.param(["gsm9k"], "no set gsm9k", id="unknown-set"),
        pytest.param(["--sample", "math"], "takes no set", id="sample-with-set"),
        pytest.param(["--from", "/data"], "for which set", id="from-without-set"),
    ],
)
def test_usage_errors(argv: list[str], word: str) -> None:
    with pytest.raises(EnvcheckError, match=word):
        prepare_data.main(argv)


def test_one_file_for_both_splits_is_refused(tmp_path: Path) -> None:
    path = _write(tmp_path, "all.jsonl", json.dumps(GSM8K_ROW))
    with pytest.raises(EnvcheckError, match="both the train and the test split"):
        prepare_data.main(["gsm8k", "--from", str(path), "--out", str(tmp_path)])


class RepositoryNotFoundError(Exception):
    """As huggingface_hub's."""


def _hub(monkeypatch: pytest.MonkeyPatch, outcomes: list[Exception | str]) -> list[dict[str, Any]]:
    calls: list[dict[str, Any]] = []

    def snapshot_download(repository: str, **options: Any) -> str:
        calls.append({"repository": repository, **options})
        outcome = outcomes.pop(0)
        if isinstance(outcome, Exception):
            raise outcome
        return outcome

    monkeypatch.setitem(sys.modules, "huggingface_hub", types.SimpleNamespace(snapshot_download=snapshot_download))
    return calls


def test_hub_download_is_tried_again(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    waits: list[float] = []
    calls = _hub(monkeypatch, [ConnectionError("reset\nby peer"), TimeoutError(), str(tmp_path)])
    assert from_hub(GSM8K, revision="abc", sleep=waits.append) == tmp_path
    assert waits == [2.0, 4.0]
    assert calls[2] == {
        "repository": "openai/gsm8k",
        "repo_type": "dataset",
        "revision": "abc",
        "allow_patterns": ["main/*.parquet"],
    }


def test_hub_download_that_cannot_work_is_not_repeated(monkeypatch: pytest.MonkeyPatch) -> None:
    calls = _hub(monkeypatch, [RepositoryNotFoundError("404")])
    with pytest.raises(WorkError, match=r"RepositoryNotFoundError: 404(.|\n)*--sample"):
        from_hub(MATH, revision=None, sleep=lambda _: pytest.fail("it waited"))
    assert len(calls) == 1


def test_hub_download_gives_up(monkeypatch: pytest.MonkeyPatch) -> None:
    _hub(monkeypatch, [OSError("no route")] * 4)
    with pytest.raises(WorkError, match="OSError: no route"):
        from_hub(MATH, revision=None, sleep=lambda _: None)


def test_an_environment_that_was_made_is_taken_where_pyarrow_is_not(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("ENVCHECK_CACHE", str(tmp_path))
    monkeypatch.setattr("importlib.util.find_spec", lambda _: None)
    (tmp_path / "envs/bare/lib/python3.12/site-packages").mkdir(parents=True)
    assert prepare_data._other_python() is None
    (tmp_path / "envs/whole/lib/python3.12/site-packages/pyarrow").mkdir(parents=True)
    started: list[list[str]] = []

    def start(command: list[str], *, check: bool) -> subprocess.CompletedProcess[str]:
        started.append(command)
        return subprocess.CompletedProcess(command, 1 if check else 5)

    monkeypatch.setattr(subprocess, "run", start)
    assert prepare_data.main(["--sample", "--out", str(tmp_path)]) == 5
    python = str(tmp_path / "envs/whole/bin/python")
    assert started == [[python, "-m", "scripts.prepare_data", "--sample", "--out", str(tmp_path)]]
    assert capsys.readouterr().err == f"pyarrow is in {python}: run there\n"
