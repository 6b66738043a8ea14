"""What is no log and no library, through the real command line: a clear word, never a traceback."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from scripts.cache import ROOT
from tests import staged
from tests.staged import SUFFIX, Staged
from tests.tiny_elf import shared

pytestmark = pytest.mark.process
EXPLAIN = (sys.executable, "-m", "envcheck", "explain")
RULES = ("undefined-symbol", "cxx11-abi-differs", "glibc-too-old", "extension-built-for-other-torch")


def explained(log: Path | str, given: bytes = b"") -> subprocess.CompletedProcess[bytes]:
    done = subprocess.run(
        (*EXPLAIN, str(log)), input=given, capture_output=True, timeout=120, check=False, cwd=ROOT
    )  # fmt: skip
    assert b"Traceback" not in done.stdout + done.stderr
    return done


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (b"", b"the log is empty"),
        (b"\x7fELF\x02\x01\x01" + bytes(4096), b"no text"),
        (b"\x1f\x8b\x08\x00" + bytes(range(256)) * 20, b"no text"),
        (b"PK\x03\x04" + bytes(range(256)) * 20, b"no text"),
        (os.urandom(300_000), b"not known"),
        (bytes(5_000_000), b"not known"),
        (b"\xff\xfe" + "boom\n".encode("utf-16-le"), b"not known"),
    ],
    ids=["empty", "elf", "gzip", "zip", "random", "zeros", "utf-16"],
)
def test_what_is_no_log(tmp_path: Path, content: bytes, said: bytes) -> None:
    log = tmp_path / "a.log"
    log.write_bytes(content)
    done = explained(log)
    assert done.returncode == 1
    assert said in done.stdout
    assert explained("-", content).stdout == done.stdout


def test_what_cannot_be_opened(tmp_path: Path) -> None:
    loop = tmp_path / "loop"
    loop.symlink_to(loop)
    for log, said in (
        (tmp_path, b"is a directory"),
        (tmp_path / "gone", b"No such file"),
        (loop, b"symbolic links"),
    ):
        done = explained(log)
        assert (done.returncode, done.stdout) == (2, b"")
        assert said in done.stderr


def test_a_stream_that_never_ends_is_interrupted() -> None:
    child = subprocess.Popen(
        (*EXPLAIN, "-"), stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE, cwd=ROOT
    )
    assert child.stdin is not None
    child.stdin.write(b"ImportError: libnvrtc.so.12: cannot open shared object file: No such file or directory\n" * 9)
    child.stdin.flush()
    time.sleep(2)
    child.send_signal(signal.SIGINT)
    out, err = child.communicate(timeout=60)
    assert child.returncode == 130
    assert b"libnvrtc-not-found" in out
    assert b"interrupted" in out
    assert b"Traceback" not in out + err


def big_endian() -> bytes:
    data = bytearray(shared())
    data[5] = 2
    return bytes(data)


def narrow() -> bytes:
    data = bytearray(shared())
    data[4] = 1
    return bytes(data)


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> Staged:
    made = staged.environment(tmp_path_factory.mktemp("bad"))
    staged.dist(made.site, "torch", "2.6.0+cu124")
    staged.dist(made.site, "flash-attn", "2.7.4.post1")
    (made.site / "vllm").mkdir()
    (made.site / "vllm" / "__init__.py").touch()  # a package directory without metadata
    return made


def sparse(path: Path) -> None:
    path.write_bytes(shared(undefined=["_ZN3c105ErrorC2ENS_14SourceLocationESs"]))
    os.truncate(path, 2 << 30)


@pytest.mark.parametrize(
    "content",
    [b"", b"not a library", shared()[:100], shared()[:-40], big_endian(), narrow(), None, "loop", "directory", "fifo"],
    ids=["empty", "text", "header", "truncated", "big-endian", "32-bit", "2-gb", "loop", "directory", "fifo"],
)
def test_what_is_no_library(base: Staged, content: bytes | str | None) -> None:
    module = base.site / f"flash_attn_2_cuda{SUFFIX}"
    if content is None:
        sparse(module)
    elif content == "loop":
        module.symlink_to(module)
    elif content == "directory":
        module.mkdir()
    elif content == "fifo":
        os.mkfifo(module)
    else:
        assert isinstance(content, bytes)
        module.write_bytes(content)
    try:
        begin = time.monotonic()
        argv = ("--python", base.python, "--stage", "launch", "--only", *RULES)
        done = staged.ran(sys.executable, "-m", "envcheck", *argv)
        assert time.monotonic() - begin < 30
    finally:
        module.rmdir() if content == "directory" else module.unlink()
    assert done.returncode in {0, 1, 3}
    assert "Traceback" not in done.stdout + done.stderr
    assert "crashed" not in done.stdout
