from __future__ import annotations

import base64
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from envcheck import agent, data
from envcheck.errors import HostError
from envcheck.host import Completed, LocalHost, RecordedHost
from envcheck.image import ContainerHost, Entry, _Remote, entry
from envcheck.probes.collection import collect
from tests.test_host import tree

__all__ = ["tree"]

DOCKER = {"PATH": "/usr/bin"}
FILES = {"/usr/bin/docker": ""}
CONTAINER = ("/usr/bin/docker", "container", "inspect", "--format", "{{.State.Running}}")
IMAGE = ("/usr/bin/docker", "image", "inspect", "--format", "{{.Id}}")
SHELLS = [name for name in ("dash", "bash", "busybox") if LocalHost().which(name)]


def ask(*parts: str) -> tuple[int, bytes]:
    status, _, payload = agent.answer("\t".join(parts) + "\n").partition(b" ")
    return int(status), base64.b64decode(payload)


def test_the_agent_answers(tree: Path) -> None:
    file = f"{tree}/bin/data"
    assert ask("read", file, "0", "10") == (0, b"x")
    assert ask("read", file, "1", "10") == (0, b"")
    assert ask("size", file) == (0, b"1")
    assert ask("exists", file) == (0, b"1")
    assert ask("exists", f"{tree}/none") == (0, b"0")
    assert ask("program", file) == (0, b"0")
    assert ask("realpath", f"{tree}/link") == (0, f"{tree}/bin".encode())
    assert ask("listdir", str(tree)) == (0, b"bin\nlink")
    assert ask("glob", f"{tree}/b*") == (0, f"{tree}/bin".encode())
    assert ask("writable", f"{tree}/a/b") == (0, b"1")
    assert len(ask("free", f"{tree}/a/b")[1].split()) == 2
    assert b"PATH=" in ask("environ")[1]


def test_the_agent_names_errors(tree: Path) -> None:
    assert ask("read", f"{tree}/none", "0", "1") == (2, b"No such file or directory")
    assert ask("read", str(tree), "0", "1")[0] == 21
    assert ask("run", "1", "no-such-program") == (2, b"not found on PATH")
    assert ask("read", "/etc/passwd", "x", "1")[0] == 5
    assert ask("nonsense")[0] == 5


def test_the_agent_undoes_escapes() -> None:
    assert agent.unescaped("a\\tb\\nc\\\\d\\") == "a\tb\nc\\d"


@pytest.mark.process
def test_the_agent_runs_programs() -> None:
    assert ask("run", "5", "sh", "-c", "echo out; echo err >&2; exit 3") == (0, b"3 4\nout\nerr\n")
    assert ask("run", "0.1", "sleep", "9") == (110, b"did not answer within 0.1 s")


def test_the_agent_ends_with_its_input(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    (tmp_path / "in").write_bytes(b"exists\t/\n")
    with (tmp_path / "in").open() as source, (tmp_path / "out").open("w") as sink:
        monkeypatch.setattr(sys, "stdin", source)
        monkeypatch.setattr(sys, "stdout", sink)
        agent.main()
    assert (tmp_path / "out").read_bytes() == b"python base64\n0 MQ==\n"


def test_what_is_sent_is_plain_ascii() -> None:
    for name in ("agent.py", "agent.sh", "probes/interpreter.py"):
        assert data.read(name).isascii(), f"{name}: a Python 3.6 in the C locale reads it"


def commands(shell: str) -> list[str]:
    return ["busybox", "sh"] if shell == "busybox" else [shell]


@pytest.fixture(params=["python", *SHELLS])
def agents(request: pytest.FixtureRequest) -> Iterator[ContainerHost]:
    """A ContainerHost whose container is this machine, through each agent."""
    if request.param == "python":
        command = [sys.executable, "-I", "-S", "-u", "-c", data.read("agent.py")]
    else:
        command = [*commands(request.param), "-c", data.read("agent.sh")]
    host = ContainerHost(command, "here")
    yield host
    host.close()


@pytest.mark.process
def test_the_agents_see_what_the_machine_sees(agents: ContainerHost, tree: Path) -> None:
    odd = tree / "with space\tand \\n"
    odd.write_bytes(bytes(range(256)) * 3000)
    local = LocalHost()
    assert agents.environ["PATH"] == local.environ["PATH"]
    for path in (str(tree), f"{tree}/link/tool", f"{tree}/none", str(odd)):
        assert agents.exists(path) == local.exists(path)
        assert agents.realpath(path) == local.realpath(path)
        assert agents.listdir(path) == local.listdir(path)
        assert agents.writable(path) == local.writable(path)
    assert agents.glob(f"{tree}/*/t*") == local.glob(f"{tree}/*/t*")
    assert agents.which("tool", f"{tree}/bin") == f"{tree}/bin/tool"
    assert agents.which("data", f"{tree}/bin") is None
    assert agents.which("no-such-program") is None
    assert abs(agents.free(str(tree))[0] - local.free(str(tree))[0]) < 1 << 30
    with agents.open(str(odd)) as file:
        assert file.read(4) == b"\x00\x01\x02\x03"
        assert file.seek(-2, os.SEEK_END) == 767998
        assert file.read() == b"\xfe\xff"
        file.seek(255)
        assert file.read(2) == b"\xff\x00"
    assert agents.read(f"{tree}/bin/data") == "x"
    assert agents.read("/proc/self/limits").startswith("Limit")
    with pytest.raises(FileNotFoundError):
        agents.read(f"{tree}/none")
    with pytest.raises(IsADirectoryError):
        agents.read(str(tree))
    with pytest.raises(FileNotFoundError):
        agents.open(f"{tree}/none")
    done = agents.run(["sh", "-c", "echo out $LC_ALL; exit 3"])
    assert (done.returncode, done.stdout.strip()) == (3, "out C")
    assert agents.start(["no-such-program"]).result().error == "no-such-program: not found on PATH"
    assert "did not answer" in agents.run(["sleep", "9"], timeout=1).error
    with pytest.raises(FileNotFoundError):
        agents.exchange("/var/run/docker.sock", b"x")


@pytest.mark.process
def test_an_agent_that_ends_is_an_error() -> None:
    host = ContainerHost([sys.executable, "-I", "-S", "-u", "-c", data.read("agent.py")], "here")
    host._process.kill()
    host._process.wait()
    with pytest.raises(HostError, match="its agent ended"):
        host.exists("/")
    host.close()


@pytest.mark.process
@pytest.mark.parametrize(
    ("script", "said"),
    [
        ("echo garbage", "its agent answered"),
        ("echo no such image >&2; exit 125", "its agent ended: no such image"),
        ("exec sleep 60", "did not answer within 0.3 s"),
    ],
)
def test_what_is_no_agent_is_an_error(monkeypatch: pytest.MonkeyPatch, script: str, said: str) -> None:
    monkeypatch.setattr("envcheck.image.START_SECONDS", 0.3)
    monkeypatch.setattr("envcheck.image.END_SECONDS", 0.2)
    with pytest.raises(HostError, match=said):
        ContainerHost(["sh", "-c", script], "here")


def test_ranges_can_be_sought() -> None:
    remote = _Remote("/x", 10, lambda *parts: b"")
    assert (remote.readable(), remote.seekable()) == (True, True)
    assert remote.seek(4) == 4
    assert remote.seek(2, os.SEEK_CUR) == 6
    assert remote.tell() == 6
    assert remote.seek(-99, os.SEEK_END) == 0


def test_an_image_is_run_and_a_container_is_entered() -> None:
    image = RecordedHost(files=FILES, environ=DOCKER, commands={(*IMAGE, "x:1"): Completed(stdout="sha256:1")})
    way = entry(image, "x:1")
    assert way == Entry(engine="/usr/bin/docker", reference="x:1", running=False)
    assert way.command("sh", "-c", "y") == [
        "/usr/bin/docker", "run", "-i", "--rm", "--pull", "never", "--network", "none",
        "--entrypoint", "sh", "x:1", "-c", "y",
    ]  # fmt: skip
    container = RecordedHost(files=FILES, environ=DOCKER, commands={(*CONTAINER, "c"): Completed(stdout="true\n")})
    assert entry(container, "c").command("sh") == ["/usr/bin/docker", "exec", "-i", "c", "sh"]


@pytest.mark.parametrize(
    ("host", "reference", "said", "fix"),
    [
        (RecordedHost(), "x", "none of docker, podman, nerdctl is on PATH", "install Docker or Podman"),
        (RecordedHost(files=FILES, environ=DOCKER), "-v", "is no name of an image", "docker image ls"),
        (
            RecordedHost(files=FILES, environ=DOCKER, commands={(*CONTAINER, "x"): Completed(stdout="false")}),
            "x", "that container does not run", "docker start x",
        ),
        (
            RecordedHost(
                files=FILES, environ=DOCKER,
                commands={(*IMAGE, "x"): Completed(returncode=1, stderr="Error: No such image: x")},
            ),
            "x", "there is no such image or container here", "docker pull x",
        ),
        (
            RecordedHost(
                files=FILES, environ=DOCKER,
                commands={(*IMAGE, "x"): Completed(returncode=1, stderr="permission denied while trying to connect")},
            ),
            "x", "this user may not use the engine", "usermod",
        ),
        (
            RecordedHost(
                files=FILES, environ=DOCKER,
                commands={(*IMAGE, "x"): Completed(returncode=1, stderr="Cannot connect to the Docker daemon")},
            ),
            "x", "the engine does not answer", "systemctl start docker",
        ),
        (RecordedHost(files=FILES, environ=DOCKER), "x", "the engine does not answer", "systemctl"),
    ],
)  # fmt: skip
def test_what_cannot_be_entered_says_what_to_do(host: RecordedHost, reference: str, said: str, fix: str) -> None:
    with pytest.raises(HostError) as caught:
        entry(host, reference)
    assert said in caught.value.what
    assert fix in caught.value.fix
    assert caught.value.exit_code == 2


@pytest.mark.process
class TestOpening:
    """``ContainerHost.of`` with an engine that is a script on PATH."""

    @pytest.fixture(autouse=True)
    def engine(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
        program = tmp_path / "docker"
        monkeypatch.setenv("PATH", f"{tmp_path}:{os.environ['PATH']}")
        self.write(program, 'while [ "$1" != --entrypoint ]; do shift; done; p=$2; shift 3; exec "$p" "$@"')
        return program

    def write(self, program: Path, run: str) -> None:
        cases = f"container) echo No such container >&2; exit 1;;\nimage) echo id;;\nrun) {run};;"
        program.write_text(f'#!/bin/sh\ncase "$1" in\n{cases}\nesac\n')
        program.chmod(0o755)

    def test_an_image_with_a_shell_and_python(self) -> None:
        with ContainerHost.of("x:1") as host:
            assert (host.kind, host.at_rest) == ("python", True)
            assert collect(host, only=frozenset({"os"})).os == collect(LocalHost(), only=frozenset({"os"})).os

    def test_an_image_without_a_shell(self, engine: Path) -> None:
        self.write(
            engine,
            'while [ "$1" != --entrypoint ]; do shift; done; p=$2; shift 3; [ "$p" = sh ] && exit 127; exec "$p" "$@"',
        )
        with ContainerHost.of("x:1") as host:
            assert host.kind == "python"

    def test_an_image_with_neither(self, engine: Path) -> None:
        self.write(engine, "echo executable file not found >&2; exit 127")
        with pytest.raises(HostError, match="executable file not found"), ContainerHost.of("x:1"):
            pass

    def test_an_image_that_hangs(self, engine: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr("envcheck.image.START_SECONDS", 0.3)
        monkeypatch.setattr("envcheck.image.END_SECONDS", 0.2)
        self.write(engine, "exec sleep 60")
        with pytest.raises(HostError, match="did not answer"), ContainerHost.of("x:1"):
            pass


@pytest.mark.docker
class TestRealEngine:
    """Images are made here from what the engine already has, or from this machine's own files."""

    @pytest.fixture
    def image(self, tmp_path: Path) -> Iterator[str]:
        """An image of busybox or of the shell of this machine: no Python inside."""
        if LocalHost().which("docker") is None:
            pytest.skip("no docker client")
        root = tmp_path / "root"
        root.mkdir()
        copy_programs(
            root, ("sh", "cat", "head", "tail", "ls", "wc", "tr", "readlink", "base64", "df", "cut", "dirname")
        )
        (root / "etc").mkdir(exist_ok=True)
        (root / "etc" / "os-release").write_text("ID=tiny\nVERSION_ID=1\n")
        name = "envcheck-test/tiny:1"
        packed = subprocess.run(["tar", "-C", str(root), "-c", "."], check=True, capture_output=True)
        subprocess.run(["docker", "import", "-", name], input=packed.stdout, check=True, capture_output=True)
        yield name
        subprocess.run(["docker", "image", "rm", "-f", name], check=True, capture_output=True)

    def test_an_image_without_python(self, image: str) -> None:
        with ContainerHost.of(image) as host:
            facts = collect(host)
        assert host.kind == "sh"
        assert facts.os.id == "tiny"  # type: ignore[union-attr]  # a failure here shows it
        listed = subprocess.run(
            ["docker", "ps", "-a", "-q", "--filter", f"ancestor={image}"], check=True, capture_output=True
        )
        assert listed.stdout == b"", "the container that was started is gone"

    def test_an_image_that_is_not_there(self) -> None:
        with pytest.raises(HostError, match="no such image"), ContainerHost.of("envcheck-test/none:1"):
            pass


def copy_programs(root: Path, names: tuple[str, ...]) -> None:
    """Copy programs of this machine with the libraries that they load."""
    (root / "bin").mkdir()
    for name in names:
        program = LocalHost().which(name)
        assert program is not None
        loaded = subprocess.run(["ldd", program], check=True, capture_output=True, text=True).stdout.split()
        for path in [program, *(word for word in loaded if word.startswith("/"))]:
            goal = root / "bin" / name if path == program else root / path.lstrip("/")
            goal.parent.mkdir(parents=True, exist_ok=True)
            goal.write_bytes(Path(path).read_bytes())
            goal.chmod(0o755)
