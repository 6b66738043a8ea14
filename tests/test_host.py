from __future__ import annotations

import os
import socket
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from envcheck.host import FIRST_READ_BYTES, Completed, LocalHost, RecordedHost
from envcheck.running import Running


@pytest.fixture
def tree(tmp_path: Path) -> Path:
    (tmp_path / "bin").mkdir()
    program = tmp_path / "bin" / "tool"
    program.write_text("#!/bin/sh\necho hi\n")
    program.chmod(0o755)
    (tmp_path / "bin" / "data").write_text("x")
    (tmp_path / "link").symlink_to("bin")
    return tmp_path


def test_local_files(tree: Path) -> None:
    host = LocalHost(environ={"PATH": f":{tree}/none:{tree}/bin"})
    assert host.read(f"{tree}/bin/data") == "x"
    assert host.exists(f"{tree}/link/tool")
    assert host.realpath(f"{tree}/link") == f"{tree}/bin"
    assert host.listdir(str(tree)) == ["bin", "link"]
    assert host.listdir("/nonexistent") == []
    assert host.glob(f"{tree}/*/t*") == [f"{tree}/bin/tool", f"{tree}/link/tool"]
    assert host.which("tool") == f"{tree}/bin/tool"
    assert host.which("data") is None
    assert host.which("tool", f"{tree}/link") == f"{tree}/link/tool"
    assert host.writable(f"{tree}/not/yet/there")
    assert host.free(f"{tree}/not/yet")[0] > 0
    with host.open(f"{tree}/bin/data") as file:
        assert file.read() == b"x"


def test_reading_is_limited_and_whole(tree: Path) -> None:
    big = tree / "big"
    big.write_bytes(b"a" * (FIRST_READ_BYTES * 3))
    host = LocalHost(environ={})
    assert len(host.read(str(big))) == FIRST_READ_BYTES * 3
    assert len(host.read(str(big), 10)) == 10
    assert len(host.read(str(big), FIRST_READ_BYTES + 5)) == FIRST_READ_BYTES + 5
    assert "Max open files" in host.read("/proc/self/limits")
    with pytest.raises(FileNotFoundError):
        host.read(f"{tree}/nothing")
    with pytest.raises(IsADirectoryError):
        host.read(str(tree))


def test_undecodable_bytes_are_replaced(tree: Path) -> None:
    (tree / "latin").write_bytes(b"caf\xe9")
    assert LocalHost(environ={}).read(f"{tree}/latin") == "caf\ufffd"


def test_a_program_that_is_not_there() -> None:
    assert (
        LocalHost(environ={"PATH": "/usr/bin"}).run(["no-such-program"]).error == "no-such-program: not found on PATH"
    )


@pytest.mark.process
class TestPrograms:
    def test_output_exit_code_and_locale(self) -> None:
        host = LocalHost(environ={"PATH": os.environ["PATH"], "LC_ALL": "de_DE.UTF-8"})
        done = host.run(["sh", "-c", "echo $LC_ALL; echo no >&2; exit 3"])
        assert (done.returncode, done.stdout, done.stderr, done.ok) == (3, "C\n", "no\n", False)
        assert done.why() == "no"

    def test_programs_run_side_by_side(self) -> None:
        host = LocalHost()
        started = [host.start(["sh", "-c", f"sleep 0.2; echo {n}"]) for n in range(3)]
        assert [one.result().stdout for one in started] == ["0\n", "1\n", "2\n"]
        assert started[0].result().stdout == "0\n"

    def test_output_between_the_last_poll_and_the_end_is_read(self, monkeypatch: pytest.MonkeyPatch) -> None:
        ended = Running._ended

        def late(running: Running) -> int | None:
            time.sleep(0.5)
            return ended(running)

        monkeypatch.setattr(Running, "_ended", late)
        assert LocalHost().run(["sh", "-c", "sleep 0.2; echo x; sleep 0.01 & exit 4"]).stdout == "x\n"

    def test_a_program_that_hangs_is_killed_with_its_children(self, tmp_path: Path) -> None:
        done = LocalHost().run(["sh", "-c", f"(sleep 1; touch {tmp_path}/late) & sleep 60"], timeout=0.2)
        assert done.error == "sh did not answer within 0.2 s"
        threading.Event().wait(1.3)
        assert not (tmp_path / "late").exists()

    def test_a_program_that_closes_its_output_and_hangs_is_killed(self) -> None:
        done = LocalHost().run(["sh", "-c", "exec >&- 2>&-; sleep 60"], timeout=0.2)
        assert done.error == "sh did not answer within 0.2 s"

    def test_a_child_that_keeps_the_output_open_is_not_waited_for(self) -> None:
        done = LocalHost().run(["sh", "-c", "echo x; sleep 2 & exit 4"], timeout=5)
        assert (done.returncode, done.stdout) == (4, "x\n")

    def test_much_output_is_read(self) -> None:
        done = LocalHost().run([sys.executable, "-c", "import sys; sys.stdout.write('x' * 300000)"])
        assert len(done.stdout) == 300000

    def test_what_cannot_be_started(self, tmp_path: Path) -> None:
        plain = tmp_path / "plain"
        plain.write_text("x")
        assert "Permission denied" in LocalHost().run([str(plain)]).error
        assert LocalHost().run(["/bin/echo", "a\0b"]).error.startswith("/bin/echo: ")

    def test_a_program_killed_by_a_signal(self) -> None:
        assert LocalHost().run(["sh", "-c", "kill -9 $$"]).returncode == -9

    def test_a_program_nobody_asks_for_is_ended(self) -> None:
        running = LocalHost().start(["sleep", "60"])
        assert isinstance(running, Running)
        pid = running._pid
        del running
        with pytest.raises(ProcessLookupError):
            os.kill(pid, 0)

    def test_an_interruption_ends_the_program(self, monkeypatch: pytest.MonkeyPatch) -> None:
        running = LocalHost().start(["sleep", "60"])
        assert isinstance(running, Running)
        pid = running._pid

        def interrupted() -> None:
            raise KeyboardInterrupt

        monkeypatch.setattr(running, "_wait", interrupted)
        with pytest.raises(KeyboardInterrupt):
            running.result()
        with pytest.raises(ProcessLookupError):
            os.kill(pid, 0)


@pytest.fixture
def server(tmp_path: Path) -> Iterator[str]:
    path = str(tmp_path / "s.sock")
    with socket.socket(socket.AF_UNIX) as listening:
        listening.bind(path)
        listening.listen()

        def answer() -> None:
            link, _ = listening.accept()
            with link:
                link.sendall(b"got " + link.recv(100))

        thread = threading.Thread(target=answer, daemon=True)
        thread.start()
        yield path
        thread.join(5)


@pytest.mark.process
def test_a_socket_is_asked(server: str) -> None:
    wait = LocalHost().exchange(server, b"GET /info")
    assert wait() == b"got GET /info"


@pytest.mark.process
def test_a_socket_that_is_not_there(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError):
        LocalHost().exchange(f"{tmp_path}/none", b"x")


def test_a_recorded_host() -> None:
    host = RecordedHost(
        files={"/a/b/c": "text", "/a/b/d": b"bytes"},
        links={"/l": "/a/b", "/loop": "/loop"},
        commands={("x",): Completed(stdout="y")},
        environ={"PATH": ":/none:/a/b"},
        readonly=("/a",),
        answers={("/s", "/info"): b"yes"},
    )
    assert host.read("/l/c") == "text"
    assert host.read("/l/c", 2) == "te"
    assert host.open("/a/b/d").read() == b"bytes"
    assert host.exists("/a")
    assert not host.exists("/ab")
    assert host.listdir("/l") == ["c", "d"]
    assert host.glob("/a/*") == ["/a/b"]
    assert host.glob("/*/b/c") == ["/a/b/c"]
    assert host.realpath("/loop") == "/loop"
    assert host.which("c") == "/a/b/c"
    assert host.which("c", "/x") is None
    assert not host.writable("/a/b")
    assert host.writable("/b")
    assert RecordedHost().writable("/b")
    assert host.free("/")[0] > 0
    assert host.run(["x"]).ok
    assert host.start(["z"]).result().error == "z: No such file or directory"
    assert host.exchange("/s", b"GET /info HTTP/1.0")() == b"yes"
    with pytest.raises(FileNotFoundError):
        host.exchange("/s", b"GET /other")
    with pytest.raises(FileNotFoundError):
        host.read("/nothing")


def test_why_a_command_failed() -> None:
    assert Completed(error="late").why() == "late"
    assert Completed(returncode=2, stdout="out").why() == "out"
    assert Completed(returncode=2).why() == "exit code 2"


@pytest.mark.process
def test_a_program_that_writes_without_an_end_is_ended() -> None:
    """Neither memory nor time is spent on it."""
    begin = time.monotonic()
    done = LocalHost().run(["yes"], timeout=60)
    assert done.error == "yes wrote without an end"
    assert not done.ok
    assert time.monotonic() - begin < 20
