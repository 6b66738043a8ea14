"""Programs end, are ended, and say what went wrong."""

from __future__ import annotations

import os
import sys
import time
from pathlib import Path

import pytest

from envcheck.errors import WorkError
from scripts import process

pytestmark = pytest.mark.process


def python(code: str) -> list[str]:
    return [sys.executable, "-c", code]


def test_output() -> None:
    assert process.output(python("print('x')")) == "x\n"


def test_output_of_a_failure_shows_its_end() -> None:
    with pytest.raises(WorkError, match=r"(?s)exit code 3.*boom"):
        process.output(python("import sys; print('boom', file=sys.stderr); sys.exit(3)"))


def test_output_of_nothing() -> None:
    with pytest.raises(WorkError, match="no-such-program was not found"):
        process.output(["no-such-program"])


def test_output_time_out() -> None:
    with pytest.raises(WorkError, match="did not end within"):
        process.output(python("import time; time.sleep(60)"), timeout=0.2)


def test_stream_gives_lines_and_keeps_a_log(tmp_path: Path) -> None:
    seen: list[str] = []
    log = tmp_path / "log"
    done = process.stream(
        python("import sys; print('a'); print('b', file=sys.stderr); sys.exit(4)"),
        timeout=30,
        log=log,
        each_line=seen.append,
    )
    assert done.returncode == 4
    assert sorted(seen) == ["a", "b"]
    assert sorted(log.read_text().split()) == ["a", "b"]
    assert not done.killed


def test_stream_of_nothing() -> None:
    with pytest.raises(WorkError, match="could not be started"):
        process.stream(["/no/such/program"], timeout=1)


def test_stream_time_out_ends_grandchildren(tmp_path: Path) -> None:
    mark = tmp_path / "pid"
    code = (
        "import subprocess, sys, time\n"
        f"child = subprocess.Popen([sys.executable, '-c', 'import time; time.sleep(60)'])\n"
        f"open({str(mark)!r}, 'w').write(str(child.pid))\n"
        "time.sleep(60)"
    )
    with pytest.raises(WorkError, match="was stopped"):
        process.stream(python(code), timeout=2)
    pid = int(mark.read_text())
    for _ in range(50):
        if not _is_alive(pid):
            return
        time.sleep(0.1)
    pytest.fail("the grandchild lives on")


def _is_alive(pid: int) -> bool:
    try:
        state = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
    except OSError:
        return False
    return state != "Z"


def test_killed_is_told() -> None:
    done = process.stream(python(f"import os; os.kill(os.getpid(), {9})"), timeout=30)
    assert done.killed


def test_an_interrupted_reader_ends_the_program(tmp_path: Path) -> None:
    mark = tmp_path / "pid"

    def interrupt(_: str) -> None:
        raise KeyboardInterrupt

    code = f"import os, time; open({str(mark)!r}, 'w').write(str(os.getpid())); print('x', flush=True); time.sleep(60)"
    with pytest.raises(KeyboardInterrupt):
        process.stream(python(code), timeout=30, each_line=interrupt)
    assert not _is_alive(int(mark.read_text()))


@pytest.mark.parametrize("group", [False, True], ids=["of-the-group", "of-a-group-of-its-own"])
def test_what_does_not_listen_is_ended_too(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, *, group: bool) -> None:
    """ninja starts compilers in groups of their own; nothing runs any more when `stream` has returned."""
    monkeypatch.setattr(process, "GRACE_SECONDS", 0.5)
    mark = tmp_path / "pid"
    deaf = "import os, signal, time; signal.signal(15, signal.SIG_IGN); " + ("os.setpgid(0, 0); " if group else "")
    deaf += f"open({str(mark)!r}, 'w').write(str(os.getpid())); print('x', flush=True); time.sleep(60)"
    code = f"import subprocess, sys; subprocess.run([sys.executable, '-c', {deaf!r}])"

    def interrupt(_: str) -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        process.stream(python(code), timeout=30, each_line=interrupt)
    assert not _is_alive(int(mark.read_text()))


def test_members_of_a_session(tmp_path: Path) -> None:
    stats = {5: "(sh) S 1 5 5 0", 6: "(a) b) R 5 6 5 0", 7: "(gone) Z 5 7 5 0", 8: "(other) S 1 8 8 0"}
    for pid, text in stats.items():
        (tmp_path / str(pid)).mkdir()
        (tmp_path / str(pid) / "stat").write_text(f"{pid} {text}")
    (tmp_path / "9").mkdir()  # ended while it was read
    (tmp_path / "meminfo").touch()
    assert sorted(process.session(5, tmp_path)) == [5, 6]


def test_environ_and_cwd(tmp_path: Path) -> None:
    environ = {**os.environ, "X": "1"}
    seen: list[str] = []
    process.stream(
        python("import os; print(os.environ['X'], os.getcwd())"),
        timeout=30,
        environ=environ,
        cwd=tmp_path,
        each_line=seen.append,
    )
    assert seen == [f"1 {tmp_path}"]
