from __future__ import annotations

from pathlib import Path

from envcheck.explain import explain
from scripts import bench_log


def test_a_log_is_as_big_as_asked_for_and_its_last_line_is_the_cause(tmp_path: Path) -> None:
    file = tmp_path / "a.log"
    assert bench_log.main([str(file), "--megabytes", "1"]) == 0
    assert 1_000_000 < file.stat().st_size < 1_002_000
    with file.open("rb") as log:
        explained = explain(log)
    assert [match.rule for match in explained.matches if not match.harmless] == ["cxx11-abi-differs"]
    assert explained.matches[0].line == explained.lines


def test_the_same_log_is_written_again() -> None:
    assert list(bench_log.lines(5_000)) == list(bench_log.lines(5_000))
    numbers = list(bench_log.lines(50_000))
    assert len(set(numbers)) > 0.95 * len(numbers)
