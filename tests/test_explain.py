"""Logs as they come: long, coloured, cut off, in any encoding and language, or not logs at all."""

from __future__ import annotations

import io
import tracemalloc
from collections.abc import Iterator
from pathlib import Path
from typing import Any, cast

import pytest

from envcheck.explain import explain, to_json, to_text
from envcheck.explain.finder import Finder
from envcheck.explain.matcher import Matcher
from envcheck.explain.reader import LONGEST, Reader
from envcheck.explain.telling import MANY, TAIL
from envcheck.stack import parse_toml

LOGS = Path(__file__).parent / "logs"
EXPECTED: dict[str, dict[str, Any]] = cast(
    "Any", parse_toml((LOGS / "expected.toml").read_text(encoding="utf-8"), "expected.toml")["logs"]
)
ERROR = "ImportError: libnvrtc.so.12: cannot open shared object file: No such file or directory"
NOISE = [f"[{number}/180] Compiling kernel_{number}.cu with -Werror --threads 4" for number in range(180)]


def first(text: str | bytes) -> tuple[str, int]:
    data = text.encode() if isinstance(text, str) else text
    match = explain(io.BytesIO(data)).matches[0]
    return match.rule, match.line


@pytest.mark.parametrize("name", sorted(EXPECTED))
def test_a_whole_log(name: str) -> None:
    expected = EXPECTED[name]
    with (LOGS / name).open("rb") as log:
        explained = explain(log)
    harmless = [match.rule for match in explained.matches if match.harmless]
    if "rule" in expected:
        assert explained.matches[0].rule == expected["rule"]
        assert explained.matches[0].line == expected.get("line", explained.matches[0].line)
        assert expected.get("says", "") in explained.matches[0].summary
    else:
        assert explained.root is None
        assert explained.telling[-1].line == expected["line"]
    assert explained.exit_code == expected.get("exit", 1)
    assert set(expected.get("harmless", [])) <= set(harmless)


def test_every_log_has_an_expectation() -> None:
    assert {path.name for path in LOGS.glob("*.log")} == set(EXPECTED)


@pytest.mark.parametrize("end", ["\n", "\r\n", "\r"])
def test_line_ends(end: str) -> None:
    assert first(end.join([*NOISE, ERROR, "Cleaning up"])) == ("libnvrtc-not-found", 1 if end == "\r" else 181)


def test_a_progress_bar_is_one_line() -> None:
    bar = "\r".join(f"Downloading {done}%" for done in range(100))
    assert first(f"start\n{bar}\n{ERROR}\n") == ("libnvrtc-not-found", 3)


def test_a_line_end_between_two_chunks() -> None:
    class Slow(io.RawIOBase):
        def __init__(self) -> None:
            self.chunks = [b"a\r", b"\nb\r", b"", b""]

        def read(self, _size: int = -1) -> bytes:
            return self.chunks.pop(0)

    lines = [line for part in Reader(stream=Slow()) for line in part]
    assert lines == [b"a", b"b\r"]


def test_colours_and_quotes() -> None:
    link = "\x1b]8;;http://x\x07link\x1b]8;;\x07"
    text = f"\x1b[31;1mE: \x1b[0mmodule {link} \u2018x\u2019: No mod\x1b[Kule named \u2018pkg_resources\u2019"
    match = explain(io.BytesIO(text.encode())).matches[0]
    assert match.rule == "setuptools-too-new"
    assert "\x1b" not in match.text


def test_nuls_and_other_encodings() -> None:
    assert first(b"\0\0" + ERROR.encode() + b"\0\0\n")[0] == "libnvrtc-not-found"
    for encoding in ("utf-16", "utf-16-be"):
        mark = b"\xfe\xff" if encoding == "utf-16-be" else b""
        assert first(mark + "\n".join([*NOISE, ERROR]).encode(encoding)) == ("libnvrtc-not-found", 181)
    assert first("b\xe4h\n".encode("latin-1") + ERROR.encode())[0] == "libnvrtc-not-found"


@pytest.mark.parametrize("cut", [slice(None, -20), slice(7, None)])
def test_a_log_that_is_cut_off(cut: slice) -> None:
    assert first("\n".join([*NOISE, ERROR])[cut]) == ("libnvrtc-not-found", 181)


def test_a_line_without_end() -> None:
    text = b"x" * (3 * LONGEST) + b" " + ERROR.encode() + b" " + b"y" * (2 * LONGEST)
    explained = explain(io.BytesIO(text))
    assert (explained.matches[0].rule, explained.matches[0].line, explained.lines) == ("libnvrtc-not-found", 1, 1)
    assert len(explained.matches[0].text) <= 500
    assert first(text + b"\nmore\n")[0] == "libnvrtc-not-found"


def test_a_json_log_on_one_line() -> None:
    text = '{"level": "error", "message": "Traceback\\n  File x\\n' + ERROR + '"}'
    assert first(text)[0] == "libnvrtc-not-found"


def test_a_message_that_is_wrapped_and_prefixed() -> None:
    text = (
        "#12 3.1       RuntimeError:\n#12 3.1       The detected CUDA version (13.0) mismatches the version that was\n"
        "#12 3.1       used to compile\n#12 3.1       PyTorch (12.4). Please make sure to use the same CUDA versions.\n"
    )
    match = explain(io.BytesIO(text.encode())).matches[0]
    assert (match.rule, match.line) == ("nvcc-differs-from-torch", 2)
    assert match.summary == "nvcc is CUDA 13.0, torch was built for CUDA 12.4."


@pytest.mark.parametrize(
    ("before", "behind"),
    [
        ("2025-03-01T10:00:00.123456789Z stderr F ", ""),
        ("2025-10-09T04:13:06.6371779Z ", ""),
        ("(EngineCore_0 pid=9492) ERROR 09-06 23:28:45 [core.py:714] ", ""),
        ("[rank3]: ", ""),
        ("│ ", "        │"),
    ],
    ids=["kubernetes", "actions", "vllm", "rank", "box"],
)
def test_a_message_that_goes_on_behind_the_same_prefix(before: str, behind: str) -> None:
    parts = (
        "The detected CUDA version (11.8) mismatches the version that was used to compile",
        "PyTorch (12.4). Please make sure to use the same CUDA versions.",
    )
    assert first("\n".join(before + part + behind for part in parts))[0] == "nvcc-differs-from-torch"


HEADER = "python-headers-missing"
DISK = "OSError: [Errno 28] Auf dem Gerät ist kein Speicherplatz mehr verfügbar"
JAPANESE = "共有オブジェクトファイルを開けません: そのようなファイルやディレクトリはありません"


@pytest.mark.parametrize(
    ("line", "rule"),
    [
        ("main.c:5:10: schwerwiegender Fehler: Python.h: Datei oder Verzeichnis nicht gefunden", HEADER),
        ("main.c:5:10: fatal error: Python.h: 没有那个文件或目录", HEADER),
        ("main.c:5:10: erreur fatale\u00a0: Python.h\u00a0: Aucun fichier ou dossier de ce type", HEADER),
        ("main.c:5:10: 致命的エラー: Python.h: そのようなファイルやディレクトリはありません", HEADER),
        ("main.c:5:10: error fatal: Python.h: No existe el fichero o el directorio", HEADER),
        ("main.c:5:10: фатальная ошибка: Python.h: Нет такого файла или каталога", HEADER),
        (DISK, "disk-full"),
        (f"ImportError: libcuda.so.1: {JAPANESE}", "driver-missing"),
        ("bash: fork: retry: 资源暂时不可用", "process-limit-low"),
        ("OSError: [Errno 98] La dirección ya se está usando", "port-in-use"),
        ("rtc.cpp:3:5: Fehler: »filesystem« ist kein Element von »std«", "gcc-too-old"),
        ("rtc.cpp:3:5: erreur: « filesystem » n'est pas un membre de « std »", "gcc-too-old"),
        ("ld: -lcuda が見つかりません", "libcuda-symlink-missing"),
    ],
)
def test_other_languages(line: str, rule: str) -> None:
    assert first("make: Entering\n" + line) == (rule, 2)


def test_nothing_is_guessed() -> None:
    explained = explain(io.BytesIO(b"ZeroDivisionError: division by zero\nall is well\nnothing happened\n"))
    assert explained.matches == ()
    assert [line.text for line in explained.telling] == ["ZeroDivisionError: division by zero"]
    assert explained.exit_code == 1
    assert to_text(explained).startswith("not known; the lines that tell most:")


@pytest.mark.parametrize(
    ("data", "said"),
    [
        (b"", "the log is empty"),
        (b"\n \n", "no line of 2 looks like an error"),
        (b"all is well\n", "no line of 1 looks like an error"),
        (b"\x1f\x8b\x08\0 a packed log", "no text but gzip"),
        (b"\x7fELF\x02\x01\x01" + bytes(range(256)) * 400, "no text but ELF"),
    ],
)
def test_what_is_no_log(data: bytes, said: str) -> None:
    explained = explain(io.BytesIO(data))
    assert said in to_text(explained)
    assert explained.exit_code == 1
    assert '"matches": []' in to_json(explained)


def test_the_same_line_again_and_again_is_kept_a_few_times() -> None:
    explained = explain(io.BytesIO("\n".join([ERROR] * 5000).encode()))
    assert explained.matches[0].line == 1
    assert 0 < len(explained.matches[0].again) < 20


def test_an_unknown_log_shows_its_beginning_and_its_end() -> None:
    words = [
        f"{chr(97 + a)}{chr(97 + b)}{chr(97 + c)}Error: odd" for a in range(8) for b in range(10) for c in range(10)
    ]
    text = "\n".join([*words, *["all is well"] * TAIL, "LastError: the end"])
    assert len(words) > MANY
    shown = [line.text for line in explain(io.BytesIO(text.encode())).telling]
    assert shown[0] == words[0]
    assert shown[-1] == "LastError: the end"


class Endless(io.RawIOBase):
    """A stream that a person ends with ^C."""

    def __init__(self, chunks: list[bytes]) -> None:
        self.chunks: Iterator[bytes] = iter(chunks)

    def read(self, _size: int = -1) -> bytes:
        try:
            return next(self.chunks)
        except StopIteration:
            raise KeyboardInterrupt from None


def test_a_stream_that_never_ends() -> None:
    explained = explain(Endless([b"waiting\n", ERROR.encode()]))
    assert explained.matches[0].rule == "libnvrtc-not-found"
    assert explained.interrupted
    assert explained.exit_code == 130
    assert "interrupted: this is what was found" in to_text(explained)


def test_surroundings_reach_across_chunks() -> None:
    far = "\n".join(["x" * 1000] * 3000)
    text = (
        f"{far}\n      Getting requirements to build wheel\n"
        + "y\n" * 20
        + "ModuleNotFoundError: No module named 'torch'\n"
    )
    assert first(text + far)[0] == "build-isolation-hides-torch"
    assert first("ModuleNotFoundError: No module named 'torch'\n")[0] == "dependency-unsatisfied"


class Long(io.RawIOBase):
    """A build log of so many megabytes, then an error."""

    def __init__(self, megabytes: int) -> None:
        lines = (f"[{number}/9] /usr/bin/nvcc -c kernel_{number}.cu -I/opt -O3 -Werror" for number in range(20_000))
        self.chunk = "\n".join([*lines, ""]).encode()[: 1 << 20]
        self.left = [self.chunk] * megabytes + [b"\n" + ERROR.encode(), b""]

    def read(self, _size: int = -1) -> bytes:
        return self.left.pop(0)


def test_fifty_megabytes_are_read_to_the_end() -> None:
    log = Long(50)
    explained = explain(log)
    assert explained.matches[0].rule == "libnvrtc-not-found"
    assert explained.size > 50_000_000


def test_memory_does_not_grow_with_the_log() -> None:
    def peak(megabytes: int) -> int:
        log = Long(megabytes)
        tracemalloc.start()
        try:
            explain(log)
            return tracemalloc.get_traced_memory()[1]
        finally:
            tracemalloc.stop()

    explain(Long(1))  # compiles what is compiled once
    assert peak(6) < 1.2 * peak(3)
    assert peak(3) < 40_000_000


def test_a_text_that_leads_to_nothing_is_not_searched_for_ever(monkeypatch: pytest.MonkeyPatch) -> None:
    """Thousands of lines hold ``manylinux2014`` and mean nothing by it; what comes after them is found all the same."""
    left_out: list[frozenset[str]] = []
    whole = Matcher.finder_without

    def without(matcher: Matcher, texts: frozenset[str]) -> Finder:
        left_out.append(texts)
        return whole(matcher, texts)

    monkeypatch.setattr(Matcher, "finder_without", without)
    names = (f"Downloading {chr(97 + n % 26)}{n * 7919:x}-manylinux2014_x86_64.whl {'ab ' * 300}" for n in range(8_000))
    assert first("\n".join([*names, ERROR])) == ("libnvrtc-not-found", 8_001)
    assert len(left_out) == 1
    assert {"manylinux2014"} <= left_out[0] <= {"manylinux2014", "manylinux_2_", "glibc"}


@pytest.mark.parametrize(
    "error",
    ["TypeError: load() got an unexpected keyword argument 'x'", "AttributeError: module 'foo' has no attribute 'b'"],
)
def test_a_call_that_fails_in_ones_own_file_is_no_matter_of_releases(error: str) -> None:
    frame = 'Traceback (most recent call last):\n  File "{}", line 7, in main\n    load(x)\n    ^^^^^^^\n'
    own = (frame.format("/home/me/train/mine.py") + error).encode()
    assert explain(io.BytesIO(own)).root is None
    for path in ("/venv/lib/python3.10/site-packages/foo/bar.py", "/workspace/verl/verl/trainer/main_ppo.py"):
        assert first(frame.format(path) + error) == ("pin-differs", 5)
