from __future__ import annotations

import json
from collections.abc import Callable

import pytest

from envcheck.codec import Unknown
from envcheck.facts import Docker, Manifest, Origin, Package, Ray
from envcheck.host import Completed, RecordedHost
from envcheck.probes import docker, manifest, ray, sources

SOCKET = "/var/run/docker.sock"
INFO = {"ServerVersion": "26.1.5", "CgroupDriver": "systemd", "Runtimes": {"runc": {}, "nvidia": {}}}
CLIENT = {"/usr/bin/docker": ""}
PATH = {"PATH": "/usr/bin"}
COMMIT = "333e6d624a11cd971b6e1ce32eb7d48fa36890fd"


def answer(value: object) -> dict[tuple[str, str], bytes]:
    text = value if isinstance(value, str) else json.dumps(value)
    return {(SOCKET, "/info"): b"HTTP/1.0 200 OK\r\nServer: Docker\r\n\r\n" + text.encode()}


def probe(host: RecordedHost) -> Docker | None:
    return docker.finish(host, docker.start(host))


def test_the_engine_answers_at_its_socket() -> None:
    files = {
        **CLIENT, SOCKET: "", "/usr/bin/nvidia-ctk": "", "/etc/cdi/nvidia.yaml": "",
        "/usr/libexec/docker/cli-plugins/docker-buildx": "",
    }  # fmt: skip
    said = {("/usr/bin/nvidia-ctk", "--version"): Completed(stdout="NVIDIA Container Toolkit CLI version 1.14.6\n")}
    found = probe(RecordedHost(files=files, environ=PATH, answers=answer(INFO), commands=said))
    assert found is not None
    assert (found.engine, found.cgroup_driver, found.runtimes) == ("26.1.5", "systemd", ("nvidia", "runc"))
    assert (found.nvidia_ctk, found.cdi, found.snap) == ("1.14.6", ("/etc/cdi/nvidia.yaml",), False)
    assert isinstance(found.buildx, Unknown)


def test_a_client_without_an_engine() -> None:
    found = probe(RecordedHost(files=CLIENT, environ=PATH))
    assert found is not None
    assert found.engine == Unknown("no engine: /var/run/docker.sock does not exist")
    assert found.runtimes == ()
    assert found.nvidia_ctk is None


def test_no_docker_at_all() -> None:
    assert probe(RecordedHost()) is None


def test_an_engine_that_refuses_the_user() -> None:
    class Refusing(RecordedHost):
        def exchange(self, socket: str, request: bytes, *, timeout: float = 1) -> Callable[[], bytes]:
            raise PermissionError(13, "Permission denied", socket)

    found = probe(Refusing(files={**CLIENT, SOCKET: ""}, environ=PATH))
    assert found is not None
    assert found.engine == Unknown("/var/run/docker.sock: Permission denied")


def test_an_engine_that_hangs() -> None:
    class Hanging(RecordedHost):
        def exchange(self, socket: str, request: bytes, *, timeout: float = 1) -> Callable[[], bytes]:
            def wait() -> bytes:
                raise TimeoutError("timed out")

            return wait

    found = probe(Hanging(files={SOCKET: ""}))
    assert found is not None
    assert found.engine == Unknown("/var/run/docker.sock: timed out")


@pytest.mark.parametrize("said", ["garbage", "[]", '{"ServerErrors": ["Cannot connect"]}', "{}"])
def test_answers_that_are_none(said: str) -> None:
    found = probe(RecordedHost(files={SOCKET: ""}, answers=answer(said)))
    assert found is not None
    assert isinstance(found.engine, Unknown)


def test_a_remote_engine_is_asked_through_the_client() -> None:
    remote = {**PATH, "DOCKER_HOST": "ssh://builder"}
    command = ("/usr/bin/docker", "info", "--format", "{{json .}}")
    found = probe(RecordedHost(files=CLIENT, environ=remote, commands={command: Completed(stdout=json.dumps(INFO))}))
    assert found is not None
    assert found.engine == "26.1.5"
    silent = probe(RecordedHost(files=CLIENT, environ=remote))
    assert silent is not None
    assert isinstance(silent.engine, Unknown)


def test_a_rootless_engine_by_its_socket() -> None:
    place = "/run/user/1000/docker.sock"
    answers = {(place, "/info"): answer(INFO)[SOCKET, "/info"]}
    found = probe(RecordedHost(files={place: ""}, environ={"DOCKER_HOST": f"unix://{place}"}, answers=answers))
    assert found is not None
    assert found.engine == "26.1.5"


def test_snap_and_a_toolkit_that_says_nothing() -> None:
    files = {"/snap/bin/docker": "", "/usr/bin/nvidia-ctk": ""}
    found = probe(RecordedHost(files=files, environ={"PATH": "/snap/bin:/usr/bin"}))
    assert found is not None
    assert found.snap
    assert isinstance(found.nvidia_ctk, Unknown)


def test_no_ray() -> None:
    assert ray.probe(RecordedHost()) is None


def test_a_running_ray() -> None:
    site = "/venv/lib/python3.10/site-packages"
    files = {
        "/tmp/ray/ray_current_cluster": "10.0.0.5:6379",
        "/tmp/ray/session_2026/x": "",
        "/proc/1/comm": "systemd\n",
        "/proc/55/comm": "raylet\n",
        "/proc/55/cmdline": f"{site}/ray/core/src/ray/raylet/raylet\0--node_manager_port=0\0",
        f"{site}/ray-2.42.1.dist-info/METADATA": "",
        "/proc/self/comm": "x",
        "/proc/66/other": "",
    }
    found = ray.probe(RecordedHost(files=files, links={"/tmp/ray/session_latest": "/tmp/ray/session_2026"}))
    assert found == Ray(
        address="10.0.0.5:6379", running=True, version="2.42.1", python="3.10", session_dir="/tmp/ray/session_2026"
    )


def test_an_address_without_a_cluster() -> None:
    found = ray.probe(RecordedHost(environ={"RAY_ADDRESS": "10.0.0.9:6379"}))
    assert found == Ray(address="10.0.0.9:6379")


def test_a_raylet_of_nowhere() -> None:
    files = {"/tmp/ray/x": "", "/proc/5/comm": "raylet", "/proc/5/cmdline": "/opt/raylet"}
    found = ray.probe(RecordedHost(files=files))
    assert found is not None
    assert isinstance(found.version, Unknown)
    assert isinstance(found.python, Unknown)


TE = {
    "/src/TransformerEngine/transformer_engine/x": "",
    "/src/TransformerEngine/setup.py": "",
    "/src/TransformerEngine/.git/HEAD": "4e7caa1c35e301c31e563e19a75bd51e220b0b2c\n",
    "/src/TransformerEngine/.gitmodules": (
        '[submodule "a"]\n\tpath = 3rdparty/cudnn-frontend\n\turl = x\n[submodule "b"]\n\tpath = 3rdparty/googletest\n'
    ),
    "/src/TransformerEngine/3rdparty/googletest/CMakeLists.txt": "",
}


def test_checkouts_on_pythonpath() -> None:
    files = {**TE, "/src/Megatron-LM/megatron/core/__init__.py": ""}
    environ = {"PYTHONPATH": "/src/Megatron-LM:/src/TransformerEngine:/src/other"}
    megatron, engine = sources.probe(RecordedHost(files=files, environ=environ), ())
    assert (megatron.name, megatron.importable) == ("Megatron-LM", True)
    assert isinstance(megatron.commit, Unknown)
    assert engine.commit == "4e7caa1c35e301c31e563e19a75bd51e220b0b2c"
    assert engine.submodules == {"3rdparty/cudnn-frontend": False, "3rdparty/googletest": True}


def test_checkouts_of_editable_installs_and_around_the_working_directory() -> None:
    class At(RecordedHost):
        def realpath(self, path: str) -> str:
            return "/src/verl" if path == "." else super().realpath(path)

    files = {
        **TE,
        "/src/sglang/python/sglang/x": "",
        "/src/verl/verl/trainer/x": "",
        "/src/verl/setup.py": "",
        "/src/verl/.git/HEAD": "ref: refs/heads/main\n",
        "/src/verl/.git/refs/heads/main": f"{COMMIT}\n",
        "/src/vllm-fork/README": "",
        "/src/unrelated/x": "",
    }
    package = Package(name="sglang", version="1", origin=Origin(url="file:///src/sglang/python", editable=True))
    found = {item.name: item for item in sources.probe(At(files=files), (package,))}
    assert set(found) == {"sglang", "verl", "TransformerEngine"}
    assert found["sglang"].importable
    assert found["verl"].commit == COMMIT
    assert not found["TransformerEngine"].importable


@pytest.mark.parametrize(
    ("files", "expected"),
    [
        ({"/r/.git/HEAD": "ref: refs/heads/x\n", "/r/.git/packed-refs": f"# pack\n{COMMIT} refs/heads/x\n"}, COMMIT),
        ({"/r/.git/HEAD": "ref: refs/heads/x\n", "/r/.git/packed-refs": ""}, None),
        ({"/r/.git/HEAD": "ref: refs/heads/x\n"}, None),
        ({"/r/.git": "gitdir: ../m/r\n", "/r/../m/r/HEAD": COMMIT}, COMMIT),
        (
            {
                "/r/.git": "gitdir: /m/worktrees/r\n",
                "/m/worktrees/r/HEAD": "ref: refs/heads/x",
                "/m/worktrees/r/commondir": "../..\n",
                "/m/worktrees/r/../../refs/heads/x": COMMIT,
            },
            COMMIT,
        ),
    ],
)
def test_commits(files: dict[str, str], expected: str | None) -> None:
    found = sources.commit(RecordedHost(files=files), "/r")
    assert found == expected if expected else isinstance(found, Unknown)


def test_the_manifest_of_an_image() -> None:
    assert manifest.probe(RecordedHost()) is None
    text = '{"stack": "verl-lts-cu124", "packages": {"torch": "2.6.0"}}'
    found = manifest.probe(RecordedHost(files={manifest.PATH: text}))
    assert found == Manifest(stack="verl-lts-cu124", packages={"torch": "2.6.0"})


@pytest.mark.parametrize("text", ["", "{}", '{"stack": 1}', '{"stack": "a", "more": 1}'])
def test_a_manifest_of_garbage_is_unknown(text: str) -> None:
    assert isinstance(manifest.probe(RecordedHost(files={manifest.PATH: text})), Unknown)
