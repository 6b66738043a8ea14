"""The command line as a process: terminals, pipes, signals, locales, a browser."""

from __future__ import annotations

import json
import os
import pty
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from envcheck.report import Report, render
from scripts.cache import ROOT
from tests.report_cases import BY_ID, hostile

pytestmark = pytest.mark.process
COMMAND = [sys.executable, "-m", "envcheck"]
PLAIN = {name: value for name, value in os.environ.items() if name not in {"NO_COLOR", "FORCE_COLOR", "COLUMNS"}}


def run(*argv: str, given: bytes = b"", **environ: str) -> subprocess.CompletedProcess[bytes]:
    return subprocess.run(
        [*COMMAND, *argv], input=given, capture_output=True, timeout=60, check=False, cwd=ROOT, env=PLAIN | environ
    )


def on_terminal(argv: list[str], **environ: str) -> str:
    """Run on a pseudo-terminal and give what it would show."""
    ours, theirs = pty.openpty()
    child = subprocess.Popen(argv, stdin=theirs, stdout=theirs, stderr=theirs, cwd=ROOT, env=PLAIN | environ)
    os.close(theirs)
    shown = b""
    while True:
        try:
            part = os.read(ours, 4096)
        except OSError:  # the terminal is gone when the last writer has ended
            break
        if not part:
            break
        shown += part
    os.close(ours)
    child.wait(timeout=30)
    return shown.decode()


def test_this_host_is_judged() -> None:
    done = run("--format", "json")
    assert done.stderr == b""
    report = json.loads(done.stdout)
    assert done.returncode == {"ok": 0, "warning": 0, "error": 1, "unknown": 3}[report["verdict"]]
    assert report["counts"]["crashed"] == 0


def test_colour_on_a_terminal_and_none_in_a_pipe() -> None:
    assert "\x1b[" in on_terminal([*COMMAND, "stacks"], TERM="xterm")
    assert "\x1b[" not in on_terminal([*COMMAND, "stacks"], TERM="dumb")
    assert "\x1b[" not in on_terminal([*COMMAND, "stacks"], TERM="xterm", NO_COLOR="1")
    assert b"\x1b[" not in run("stacks").stdout


def test_an_ascii_terminal_gets_ascii() -> None:
    done = run(PYTHONIOENCODING="ascii")
    assert done.stdout.isascii()
    assert b"what holds" in done.stdout
    refused = run("--stack", "zürich", PYTHONIOENCODING="ascii")
    assert refused.returncode == 2
    assert refused.stderr.isascii()


@pytest.mark.parametrize("argv", [["rules"], ["--format", "json"], ["--help"], ["doctor", "--help"]])
def test_a_closed_pipe_is_quiet(argv: list[str]) -> None:
    reader, writer = os.pipe()
    os.close(reader)
    with os.fdopen(writer, "wb") as closed:
        done = subprocess.run(
            [*COMMAND, *argv], stdout=closed, stderr=subprocess.PIPE, timeout=60, check=False, cwd=ROOT
        )
    assert done.stderr == b""
    assert done.returncode in {0, 1, 3}


@pytest.mark.parametrize("closed", [">&-", "2>&-", ">&- 2>&-"])
def test_a_stream_that_was_closed_before_the_start_is_no_fault(closed: str) -> None:
    shell = ["/bin/sh", "-c", f'exec "$@" {closed}', "sh", *COMMAND, "rules"]
    done = subprocess.run(shell, capture_output=True, timeout=60, check=False, cwd=ROOT)
    assert done.returncode == 0
    assert b"Traceback" not in done.stderr


def test_interrupt_ends_a_hanging_interpreter_too(tmp_path: Path) -> None:
    hanging = tmp_path / "python"
    pid = tmp_path / "pid"
    hanging.write_text(f"#!/bin/sh\necho $$ > {pid}\nexec sleep 600\n")
    hanging.chmod(0o755)
    child = subprocess.Popen([*COMMAND, "--python", str(hanging)], stderr=subprocess.PIPE, cwd=ROOT)
    deadline = time.monotonic() + 20
    while (not pid.exists() or not pid.read_text()) and time.monotonic() < deadline:
        time.sleep(0.05)
    time.sleep(0.3)
    child.send_signal(signal.SIGINT)
    _, said = child.communicate(timeout=30)
    assert child.returncode == 130
    assert said == b"interrupted\n"
    with pytest.raises(ProcessLookupError):
        os.kill(int(pid.read_text()), 0)


def test_interrupt_ends_with_130_and_one_word(tmp_path: Path) -> None:
    fifo = tmp_path / "log"
    os.mkfifo(fifo)
    output = tmp_path / "out.json"
    child = subprocess.Popen(
        [*COMMAND, "facts", "--facts", str(fifo), "--output", str(output)], stderr=subprocess.PIPE, cwd=ROOT
    )
    with fifo.open("w"):  # returns when the child has begun to read
        time.sleep(0.2)
        child.send_signal(signal.SIGINT)
        _, said = child.communicate(timeout=30)
    assert child.returncode == 130
    assert said == b"interrupted\n"
    assert not output.exists()


def test_a_device_is_written_to_and_not_replaced() -> None:
    assert run("--output", "/dev/null").returncode in {0, 1, 3}
    assert Path("/dev/null").is_char_device()


def test_a_full_disk_leaves_nothing_behind(tmp_path: Path) -> None:
    done = run("facts", "--output", "/dev/full")
    assert done.returncode == 2
    assert b"could not be written: No space left on device" in done.stderr


def test_facts_pass_through_a_pipe() -> None:
    facts = run("facts").stdout
    done = run("--facts", "-", "--format", "json", given=facts)
    assert json.loads(done.stdout)["facts"] == json.loads(facts)


def test_only_what_a_command_needs_is_imported() -> None:
    heavy = ("rich", "jinja2", "pynvml", "packaging", "dataclasses", "importlib.resources", "xml", "subprocess")
    code = (
        "import sys, envcheck.cli\n"
        "try: envcheck.cli.main(['--help'])\n"
        f"finally: sys.stderr.write(' '.join(n for n in {heavy!r} if n in sys.modules))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, check=False, cwd=ROOT, timeout=60)
    assert done.stderr == b""


@pytest.mark.browser
@pytest.mark.skipif(shutil.which("chromium") is None, reason="no chromium")
def test_a_browser_shows_the_page(tmp_path: Path) -> None:
    page, picture = tmp_path / "report.html", tmp_path / "report.png"
    page.write_text(render(Report(judgement=hostile(), rules=BY_ID), "html"), encoding="utf-8")
    quiet = ["--disable-background-networking", "--disable-component-update", "--disable-sync", "--no-first-run"]
    browser = ["chromium", "--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", *quiet]
    shots = [f"--user-data-dir={tmp_path / 'profile'}", "--window-size=1000,900", f"--screenshot={picture}"]
    done = subprocess.run(
        [*browser, *shots, "--enable-logging=stderr", page.as_uri()], capture_output=True, timeout=120, check=False
    )
    assert picture.read_bytes().startswith(b"\x89PNG")
    assert b"CONSOLE" not in done.stderr
