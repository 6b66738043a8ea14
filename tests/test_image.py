"""The image commands: what is asked of Docker, what is read from it, what stops before it starts."""

from __future__ import annotations

import json
import re
import shutil
import tarfile
from collections.abc import Callable, Sequence
from pathlib import Path

import pytest

from envcheck import stack as stacks
from envcheck.errors import EnvcheckError, WorkError
from scripts import (
    base_image,
    image,
    image_check,
    image_defaults,
    image_options,
    image_result,
    manifest,
    process,
    toolchain,
    wheelhouse_store,
)
from scripts.cache import ROOT
from scripts.wheelhouse_store import Entry

SEED = stacks.load("verl-sglang-cu124")
BUILDX = image.Engine(version="26.1.5", buildx=True, root="/")
PLAIN = image.Engine(version="20.10.24", buildx=False, root="/")


def parse(*argv: str) -> object:
    return image.parser().parse_args(list(argv))


class Docker:
    """Answers of a Docker engine; a command that has none fails as Docker's would."""

    def __init__(self, answers: dict[str, str]) -> None:
        self.answers = answers
        self.asked: list[str] = []

    def output(self, argv: Sequence[str], **_: object) -> str:
        line = " ".join(argv)
        self.asked.append(line)
        for start, answer in self.answers.items():
            if start in line:
                return answer
        raise WorkError(f"{line}: no such thing")


@pytest.fixture
def docker(monkeypatch: pytest.MonkeyPatch) -> Docker:
    fake = Docker({})
    monkeypatch.setattr(process, "output", fake.output)
    return fake


def test_engine_with_and_without_buildx(docker: Docker) -> None:
    docker.answers["docker info"] = json.dumps({"ServerVersion": "20.10.24", "DockerRootDir": "/var/lib/docker"})
    docker.answers["docker version"] = "20.10.24+dfsg1\n"
    assert image.engine() == image.Engine(version="20.10.24", buildx=False, root="/var/lib/docker")
    docker.answers["buildx version"] = "v0.13"
    assert image.engine().buildx


@pytest.mark.parametrize(
    ("answer", "words"),
    [
        pytest.param(None, "no Docker engine answers", id="no-engine"),
        pytest.param('{"ServerErrors": ["Cannot connect"]}', "Cannot connect", id="client-only"),
        pytest.param('{"ServerVersion": "17.03.2", "DockerRootDir": "/"}', "has no BuildKit", id="no-buildkit"),
        pytest.param('{"ServerVersion": "28.2.2", "DockerRootDir": "/"}', "builds through buildx", id="no-buildx"),
    ],
)
def test_engine_that_cannot(answer: str | None, words: str, docker: Docker) -> None:
    if answer:
        docker.answers |= {"docker info": answer, "docker version": "28.2.2"}
    with pytest.raises(EnvcheckError, match=words):
        image.engine()


def test_preflight_stops_without_room(monkeypatch: pytest.MonkeyPatch) -> None:
    usage = shutil.disk_usage("/")._replace(free=100 << 30)
    monkeypatch.setattr(shutil, "disk_usage", lambda _: usage)
    with pytest.raises(EnvcheckError, match="of memory are available"):
        image.preflight("doctor", "/", available=1 << 30)
    monkeypatch.setitem(image.DISK_BYTES, "doctor", 1 << 60)
    with pytest.raises(EnvcheckError, match="are free"):
        image.preflight("doctor", "/no/such/place", available=64 << 30)


def test_command_of_buildx(docker: Docker) -> None:
    docker.answers["image inspect"] = '[{"Id": "sha256:abc", "Config": {"Env": ["PATH=/bin", "CUDA_VERSION=12.4.1"]}}]'
    given = parse("--base-image", "envcheck/cuda:12.4-devel-bookworm", "--prebuilt", "w", "--ca", "c.pem", "--no-cache")
    values = image.arguments(given, SEED)  # type: ignore[arg-type]
    line = " ".join(image.command(given, values, BUILDX))  # type: ignore[arg-type]
    assert line.startswith("docker buildx build --progress=plain -f docker/Dockerfile --target train")
    assert "--build-arg BASE_IMAGE=envcheck/cuda:12.4-devel-bookworm" in line
    assert "--build-context prebuilt=w" in line
    assert "--secret id=ca,src=c.pem" in line
    assert "--build-arg BASE_DIGEST=sha256:abc" in line
    assert "--no-cache" in line
    assert line.endswith("--load .")


def test_push_attests(docker: Docker) -> None:
    given = parse("--push")
    line = image.command(given, image.arguments(given, SEED), BUILDX)  # type: ignore[arg-type]
    assert "--sbom=true" in line
    assert "--push" in line


def test_default_base_is_a_digest(docker: Docker) -> None:
    values = image.arguments(parse(), SEED)  # type: ignore[arg-type]
    assert re.search(r"@sha256:[0-9a-f]{64}$", values["BASE_IMAGE"])


def test_without_buildx_nothing_is_injected(docker: Docker) -> None:
    given = parse("--prebuilt", "w")
    with pytest.raises(EnvcheckError, match="need docker buildx"):
        image.command(given, image.arguments(given, SEED), PLAIN)  # type: ignore[arg-type]
    given = parse()
    assert image.command(given, image.arguments(given, SEED), PLAIN)[:2] == ["docker", "build"]  # type: ignore[arg-type]


def test_a_base_of_another_cuda_is_refused(docker: Docker) -> None:
    with pytest.raises(EnvcheckError, match=r"is CUDA 12\.8"):
        image.arguments(parse("--base-image", "nvidia/cuda:12.8.1-devel-ubuntu22.04"), SEED)  # type: ignore[arg-type]


def test_a_local_base_of_another_cuda_is_refused_whatever_its_name(docker: Docker) -> None:
    docker.answers["image inspect"] = '[{"Id": "sha256:abc", "Config": {"Env": ["CUDA_VERSION=13.0.2"]}}]'
    with pytest.raises(EnvcheckError, match=r"mine:1 is CUDA 13\.0\.2"):
        image.arguments(parse("--base-image", "mine:1"), SEED)  # type: ignore[arg-type]


@pytest.mark.parametrize("wrong", [["--stack", "no-such"], ["--engine", "tgi"], ["--trainer", "deepspeed"]])
def test_wrong_names_list_the_right_ones(wrong: list[str]) -> None:
    with pytest.raises(EnvcheckError, match="take one of"):
        image.main(wrong)


@pytest.mark.parametrize(
    ("wrong", "words"),
    [
        pytest.param(["--prebuilt", "/no/such/house"], "is not a directory", id="wheelhouse"),
        pytest.param(["--mirrors", "/no/such/mirrors"], "is not a directory", id="mirrors"),
        pytest.param(["--ca", "/no/such.pem"], "--ca .* is not a file", id="ca"),
        pytest.param(["--pip-conf", "/no/such.conf"], "--pip-conf .* is not a file", id="pip-conf"),
        pytest.param(["--push"], "needs the registry's name", id="push-to-nowhere"),
    ],
)
def test_what_is_not_there_is_said_before_the_engine_is_asked(wrong: list[str], words: str, docker: Docker) -> None:
    with pytest.raises(EnvcheckError, match=words):
        image.main([*wrong, "--dry-run", "--force"])
    assert not docker.asked


@pytest.mark.parametrize("option", ["--allow-missing", "--from-sdist", "--compile"])
def test_a_component_that_no_stage_builds_is_refused(option: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit, match="2"):
        parse(option, "flash-atn")
    assert "flash-attn" in capsys.readouterr().err


def test_times_are_read_from_progress_lines() -> None:
    times = image_result.Times()
    for line in (
        "#7 [base 2/2] RUN --mount=type=bind sh /run/x",
        "#7 0.288 (Reading database ...",
        "#7 DONE 3.5s",
        "#8 [stage-1 jit 1/1] RUN y",
        "#8 CACHED",
        "#9 exporting to image",
        "#9 DONE 9.0s",
        "garbage",
    ):
        times.read(line)
    assert times.stages == {"base": 3.5}
    assert times.cached == 1


def test_summary_and_its_words(docker: Docker) -> None:
    docker.answers |= {
        "image inspect": json.dumps([{"Id": "sha256:abc"}]),
        "docker history": "1073741824\tRUN one\n0\tENV x\n2048\tCOPY y\n<missing>\n",
    }
    times = image_result.Times(stages={"train": 2.0})
    result = image_result.summary("ref", times, 12.34)
    assert result["bytes"] == 1073741824 + 2048
    words = image_result.show(result)
    assert "1.00 GiB" in words
    assert "stage train" in words


def test_dry_run_prints_the_command(docker: Docker, capsys: pytest.CaptureFixture[str]) -> None:
    docker.answers |= {"docker info": '{"ServerVersion": "26.1.5", "DockerRootDir": "/"}', "buildx version": "x"}
    assert image.main(["--dry-run", "--target", "doctor"]) == 0
    assert "--target doctor" in capsys.readouterr().out


def test_dry_run_does_not_ask_for_the_space_of_a_build(docker: Docker, monkeypatch: pytest.MonkeyPatch) -> None:
    docker.answers |= {"docker info": '{"ServerVersion": "26.1.5", "DockerRootDir": "/"}', "buildx version": "x"}
    monkeypatch.setitem(image.DISK_BYTES, "doctor", 1 << 60)
    assert image.main(["--dry-run", "--target", "doctor"]) == 0
    with pytest.raises(EnvcheckError, match="needs about"):
        image.main(["--target", "doctor"])


@pytest.mark.parametrize("code", [0, 1])
def test_build_explains_a_failure(code: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def stream(argv: Sequence[str], *, each_line: object, log: Path, **_: object) -> process.Done:
        assert callable(each_line)
        each_line("#1 [train 1/2] RUN x")
        return process.Done(argv=tuple(argv), returncode=code, tail=("boom",), log=log)

    monkeypatch.setattr(process, "stream", stream)
    log = tmp_path / "deep" / "log"
    if code:
        with pytest.raises(WorkError, match=r"boom(?s:.*)envcheck explain"):
            image.build(["docker"], log)
    else:
        assert image.build(["docker"], log).stages == {}
    assert log.read_text().startswith("+ docker")


def picture(**config: object) -> image_check.Image:
    labels = dict.fromkeys(image_check.LABELS, "x")
    return image_check.Image(
        reference="ref",
        config={"User": "1000:0", "Labels": labels, **config},
        history="0\tCMD\n100\tRUN install-lock\n20\tCOPY / /",
        sizes=(100, 20),
    )


def test_healthy_image_passes_every_check(docker: Docker, monkeypatch: pytest.MonkeyPatch) -> None:
    docker.answers |= {
        "manifest.json": '{"stack": "s", "packages": {"a_b": "1"}, "values": {"missing": "flash-attn"}}',
        "sbom.cdx.json": '{"components": [{"name": "a-b", "version": "1"}, {"name": "other"}]}',
        "importlib.metadata": "100\n",
        "docker run": "",
    }
    monkeypatch.setattr(process, "stream", lambda argv, **_: process.Done(argv=tuple(argv), returncode=0, tail=("ok",)))
    results = list(image_check.check(picture()))
    assert [row.name for row in results if not row.ok] == []
    assert "flash-attn" in next(row.found for row in results if row.name == "manifest")


@pytest.mark.parametrize(
    ("name", "config", "answers"),
    [
        pytest.param("non-root", {"User": ""}, {}, id="root"),
        pytest.param("non-root", {"User": "00:0"}, {}, id="root-by-number"),
        pytest.param("setuid", {}, {"-perm -4000": "/usr/bin/su\n/opt/evil\n"}, id="setuid"),
        pytest.param("world-writable", {}, {"-perm -0002": "/opt/x\n"}, id="world-writable"),
        pytest.param("secrets", {"Env": ["HTTPS_PROXY=http://me:pass@proxy:1"]}, {"-prune": ""}, id="proxy-password"),
        pytest.param("secrets", {}, {"-prune": "/root/.netrc"}, id="netrc"),
        pytest.param("caches", {}, {"du -sk": "/root/.cache\n"}, id="cache"),
        pytest.param("labels", {"Labels": None}, {}, id="labels"),
        pytest.param("manifest", {}, {"manifest.json": "{"}, id="manifest"),
        pytest.param("sbom", {}, {}, id="no-sbom"),
        pytest.param(
            "sbom",
            {},
            {"manifest.json": '{"packages": {"a": "2"}}', "sbom": '{"components": [{"name": "a", "version": "1"}]}'},
            id="sbom-of-another-version",
        ),
        pytest.param("size", {}, {"importlib.metadata": "5"}, id="more-than-it-holds"),
        pytest.param("any-uid", {}, {}, id="home-not-writable"),
        pytest.param("offline-start", {}, {}, id="does-not-start"),
    ],
)
def test_broken_image_fails_its_check(
    name: str, config: dict[str, object], answers: dict[str, str], docker: Docker, monkeypatch: pytest.MonkeyPatch
) -> None:
    docker.answers |= answers
    monkeypatch.setattr(process, "stream", lambda argv, **_: process.Done(argv=tuple(argv), returncode=1, tail=()))
    results = {row.name: row for row in image_check.check(picture(**config))}
    assert not results[name].ok


def test_an_image_without_a_lock_has_no_size_to_compare() -> None:
    plain = image_check.Image(reference="r", config={}, history="5\tCOPY x", sizes=(5,))
    assert "nothing was installed" in image_check.fits_contents(plain).found


def test_a_layer_beyond_the_budget() -> None:
    large = image_check.Image(reference="r", config={}, history="", sizes=(13 << 30,))
    assert not image_check.fits_budget(large).ok


def test_a_secret_is_not_repeated_in_full(docker: Docker) -> None:
    docker.answers["-prune"] = ""
    found = image_check.has_no_secrets(picture(Env=["HF_TOKEN=hf_" + "a" * 30])).found
    assert "a" * 30 not in found


def test_inspect_of_an_absent_image(docker: Docker) -> None:
    with pytest.raises(EnvcheckError, match="there is no image nope"):
        image_check.inspect("nope")
    docker.answers |= {"image inspect": '[{"Config": {"User": "1"}}]', "docker history": "5\tRUN x\n?\tmissing\n"}
    assert image_check.inspect("ref").sizes == (5,)


@pytest.mark.parametrize("form", ["text", "json"])
def test_image_check_main(
    form: str, docker: Docker, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(image_check, "CHECKS", (image_check.runs_as_user,))
    docker.answers |= {"image inspect": '[{"Config": {"User": "root"}}]', "docker history": ""}
    assert image_check.main(["ref", "--format", form]) == 1
    assert "non-root" in capsys.readouterr().out


def base(tmp_path: Path, role: str = "devel") -> base_image.Base:
    kit = tmp_path / "cuda"
    for name in ("bin/nvcc", "targets/x86_64-linux/lib/libcudart.so.12.4", "targets/x86_64-linux/lib/stubs/libcuda.so"):
        (kit / name).parent.mkdir(parents=True, exist_ok=True)
        (kit / name).write_text(name)
    (kit / "bin/nvcc").chmod(0o700)
    (kit / "targets/x86_64-linux/lib/libcudart.so.12").symlink_to("libcudart.so.12.4")
    (kit / "lib64").symlink_to("targets/x86_64-linux/lib")
    return base_image.Base(role=role, stack=SEED, toolkit=kit)


def fake_root(path: Path) -> Path:
    tree = path.parent / "tree"
    (tree / "var/cache/apt").mkdir(parents=True, exist_ok=True)
    (tree / "var/cache/apt/pkgcache.bin").write_text("x")
    (tree / "etc").mkdir(exist_ok=True)
    (tree / "etc/os-release").write_text("ID=debian")
    with tarfile.open(path, "w") as archive:
        archive.add(tree, ".")
    return path


def test_composed_base_is_whole_and_the_same_twice(tmp_path: Path) -> None:
    root, made = fake_root(tmp_path / "root.tar"), base(tmp_path)
    outs = [tmp_path / "a.tar", tmp_path / "b.tar"]
    for out in outs:
        base_image.compose(made, root, out)
    assert outs[0].read_bytes() == outs[1].read_bytes()
    with tarfile.open(outs[0]) as archive:
        names = {member.name: member for member in archive}
    assert names["usr/local/cuda-12.4/bin/nvcc"].mode == 0o755
    assert names["usr/local/cuda-12.4/bin/nvcc"].mtime == base_image.epoch()
    assert names["usr/local/cuda"].linkname == "cuda-12.4"
    assert "./etc/os-release" in names
    assert "./var/cache/apt/pkgcache.bin" not in names


def test_runtime_base_has_libraries_only(tmp_path: Path) -> None:
    out = tmp_path / "a.tar"
    base_image.compose(base(tmp_path, "runtime"), fake_root(tmp_path / "root.tar"), out)
    with tarfile.open(out) as archive:
        names = archive.getnames()
    assert "usr/local/cuda-12.4/targets/x86_64-linux/lib/libcudart.so.12" in names
    assert not any("nvcc" in name or "stubs" in name for name in names)
    assert "usr/local/cuda-12.4/lib64" in names


def test_bootstrap_needs_mmdebstrap(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("shutil.which", lambda _: None)
    with pytest.raises(WorkError, match="mmdebstrap was not found"):
        base_image.bootstrap(base(tmp_path), tmp_path / "x", None)


@pytest.mark.parametrize("code", [0, 25])
def test_bootstrap_reports_its_end(code: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[str] = []

    def stream(argv: Sequence[str], **_: object) -> process.Done:
        asked.extend(argv)
        return process.Done(argv=tuple(argv), returncode=code, tail=("E: unable to locate package",))

    monkeypatch.setattr("shutil.which", lambda name: f"/usr/bin/{name}")
    monkeypatch.setattr(process, "stream", stream)
    if code:
        with pytest.raises(WorkError, match="unable to locate"):
            base_image.bootstrap(base(tmp_path), tmp_path / "x", None)
    else:
        base_image.bootstrap(base(tmp_path), tmp_path / "x", "mirror")
        assert asked[-1] == "mirror"
        assert any(item.startswith("--include=") and "python3-dev" in item for item in asked)


def test_base_image_main(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, docker: Docker, capsys: pytest.CaptureFixture[str]
) -> None:
    docker.answers["docker import"] = "sha256:new\n"
    toolkit = base(tmp_path).toolkit
    monkeypatch.setattr(toolchain, "provisioned", lambda _: toolkit)
    monkeypatch.setattr(base_image, "bootstrap", lambda _base, out, _mirror: fake_root(out))
    assert base_image.main(["--directory", str(tmp_path / "out"), "--role", "devel"]) == 0
    assert "envcheck/cuda:12.4-devel-bookworm  sha256:new" in capsys.readouterr().out
    assert [path.name for path in (tmp_path / "out").iterdir()] == ["envcheck-cuda-12.4-devel-bookworm.tar"]
    monkeypatch.setattr(toolchain, "provisioned", lambda _: None)
    with pytest.raises(EnvcheckError, match="nox -s toolchain"):
        base_image.main(["--no-load"])


def test_dockerfile_pulls_nothing_but_the_base() -> None:
    text = (ROOT / "docker/Dockerfile").read_text(encoding="utf-8")
    assert not text.startswith("# syntax")
    stages = set(re.findall(r"^FROM \S+ AS (\S+)$", text, re.MULTILINE))
    bases = re.findall(r"^FROM (\S+)", text, re.MULTILINE)
    assert {name for name in bases if name not in stages} == {
        "scratch",
        "${BASE_IMAGE}",
        "${RUNTIME_IMAGE}",
        "wheels-${TRAINER}",
        "wheel-${COMPONENT}",
    }
    assert {f"wheel-{name}" for name in image_options.WHEELS} <= stages
    assert {"wheels-fsdp", "wheels-megatron", "slim"} <= stages
    copied = set(re.findall(r"from=([\w-]+)", text))
    assert copied <= stages


@pytest.mark.parametrize(
    ("path", "put"),
    [
        pytest.param(image_defaults.DOCKERFILE, image_defaults.in_dockerfile, id="Dockerfile"),
        pytest.param(image_defaults.BAKE, image_defaults.in_bake, id="bake"),
    ],
)
def test_committed_defaults_are_the_stack_s(path: Path, put: Callable[[str, dict[str, str]], str]) -> None:
    text = path.read_text(encoding="utf-8")
    assert put(text, image_defaults.defaults(SEED)) == text, "run nox -s image -- --write-defaults"
    other = {"BASE_IMAGE": "other/base:1", "ARCHS": "9.0"}
    assert put(put(text, other), image_defaults.defaults(SEED)) == text
    assert "other/base:1" in put(text, other)
    if path == image_defaults.BAKE:
        assert all(f'"{name}"' in text for name in stacks.names()), "add the stack to SNAPSHOTS"
        assert put(text.replace("20250628T", "20200101T"), {}) == text


def test_every_default_stands_in_the_dockerfile() -> None:
    head = image_defaults.DOCKERFILE.read_text(encoding="utf-8").partition("\nFROM ")[0]
    assert set(image_defaults.defaults(SEED)) <= set(re.findall(r"^ARG (\w+)=", head, re.MULTILINE))


def test_write_defaults(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    copy = tmp_path / "Dockerfile"
    copy.write_text("ARG STACK=old\nARG ARCHS=\nFROM x\nARG STACK=kept\n", encoding="ascii")
    monkeypatch.setattr(image_defaults, "DOCKERFILE", copy)
    assert image.main(["--write-defaults"]) == 0
    assert capsys.readouterr().out.strip() == str(copy)
    assert copy.read_text() == f'ARG STACK={SEED.name}\nARG ARCHS="8.0;9.0"\nFROM x\nARG STACK=kept\n'
    assert image.main(["--write-defaults"]) == 0
    assert "nothing to change" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("before", "after", "asked"),
    [
        pytest.param("", "sha256:half", "docker rmi ref", id="a-new-name-goes"),
        pytest.param("sha256:old", "sha256:half", "docker tag sha256:old ref", id="the-old-image-keeps-it"),
        pytest.param("sha256:old", "sha256:old", "", id="nothing-was-named"),
        pytest.param("", "", "", id="nothing-was-made"),
    ],
)
def test_a_failed_build_leaves_no_half_image_named(before: str, after: str, asked: str, docker: Docker) -> None:
    docker.answers |= {"docker rmi": "", "docker tag": "", **({"image inspect": before} if before else {})}

    def fail() -> None:
        if after:
            docker.answers["image inspect"] = after
        raise WorkError("no space left on device")

    with pytest.raises(WorkError, match="no space"), image.keeping("ref"):
        fail()
    assert [line for line in docker.asked if " inspect " not in line] == ([asked] if asked else [])


def test_the_sbom_of_an_image_holds_what_was_built(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    lock = tmp_path / "sbom.json"
    lock.write_text('{"components": [{"name": "a", "version": "1"}, {"name": "verl", "version": "2"}]}')
    receipt = {"wheel": {"name": "verl", "version": "2", "sha256": "b" * 64}}
    entry = Entry(key="k", wheel=tmp_path / "verl.whl", receipt=receipt)
    monkeypatch.setattr(wheelhouse_store, "entries", lambda _: iter([entry]))
    parts = json.loads(manifest.sbom(lock, [tmp_path]))["components"]
    assert [part["name"] for part in parts] == ["a", "verl"]
    assert parts[1]["hashes"] == [{"alg": "SHA-256", "content": "b" * 64}]
