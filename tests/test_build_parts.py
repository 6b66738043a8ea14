"""The parts of a build, each on its own: progress, memory, cache, key, wheel, tools, order, slim flash-attn."""

from __future__ import annotations

import hashlib
import io
import os
import time
import zipfile
from dataclasses import replace
from pathlib import Path

import pytest
from rich.console import Console

from envcheck import stack as stacks
from envcheck.codec import Unknown
from envcheck.errors import EnvcheckError, WorkError
from scripts import (
    build_cache,
    build_flash_attn,
    build_key,
    build_memory,
    build_order,
    build_progress,
    build_sdist,
    build_tools,
    build_wheel,
    index_files,
    process,
)
from scripts.build_cache import CompilerCache, Counts
from scripts.build_progress import Step
from scripts.index_files import IndexFile
from tests import build_cases, factories

STACK = stacks.load(factories.SEED)


@pytest.mark.parametrize(
    ("line", "step"),
    [
        (
            "  [3/33] Building CUDA object common/CMakeFiles/te.dir/fused_attn/fused_attn.cu.o",
            Step(done=3, total=33, what="fused_attn.cu.o"),
        ),
        (
            "[1/7] /usr/bin/nvcc -c -c /b/csrc/flash_api.cpp -o /b/temp/flash_api.o -O3",
            Step(done=1, total=7, what="flash_api.o"),
        ),
        ("[33/33] Linking CXX shared library libx.so", Step(done=33, total=33, what="libx.so")),
        ("[2/9] Generating something", Step(done=2, total=9, what="Generating something")),
        ("running build_ext", None),
        ("[half/way]", None),
    ],
)
def test_lines_of_ninja(line: str, step: Step | None) -> None:
    assert build_progress.parse(line) == step


def test_the_estimate_comes_from_the_plan_and_then_from_the_pace() -> None:
    early, late = Step(done=1, total=30, what=""), Step(done=15, total=30, what="")
    assert build_progress.remaining(early, 10, 600) == 590
    assert build_progress.remaining(early, 700, 600) == 0
    assert build_progress.remaining(late, 100, 600) == 100


@pytest.mark.parametrize(("seconds", "shown"), [(0.0, "0:00"), (75.4, "1:15"), (3671.0, "1:01:11")])
def test_durations(seconds: float, shown: str) -> None:
    assert build_progress.clock(seconds) == shown


def test_plain_lines_where_there_is_no_terminal(capsys: pytest.CaptureFixture[str]) -> None:
    console = Console(file=io.StringIO(), force_terminal=False)
    with build_progress.View("te 1.7", planned=100, memory=lambda: 3 << 30, console=console) as view:
        for number in range(1, 6):
            view.line(f"[{number}/5] Building x{number}.cu.o")
        view.line("other output")
    said = capsys.readouterr().err.splitlines()
    assert [line.split("]")[0] for line in said] == ["te 1.7 [1/5", "te 1.7 [5/5"]
    assert "3.0 GiB  x1.cu.o" in said[0]


def test_a_second_run_of_ninja_is_estimated_anew(monkeypatch: pytest.MonkeyPatch) -> None:
    clock = [0.0]
    monkeypatch.setattr(time, "monotonic", lambda: clock[0])
    view = build_progress.View("te", planned=1000, memory=lambda: 0, console=Console(file=io.StringIO()))
    for at, line in ((400.0, "[10/10] a.o"), (500.0, "[1/10] b.o"), (600.0, "[2/10] c.o")):
        clock[0] = at
        view.line(line)
    assert view.phase == 400
    assert view.step == Step(done=2, total=10, what="c.o")


def test_the_live_view_shows_objects_and_memory() -> None:
    screen = io.StringIO()
    console = Console(file=screen, force_terminal=True, width=120)
    with build_progress.View("te", planned=100, memory=lambda: 1 << 30, console=console) as view:
        view.line("[1/2] Building a.cu.o")
    assert "1/2" in screen.getvalue()
    assert "1.0 GiB" in screen.getvalue()


def fake_proc(root: Path, processes: dict[int, tuple[int, int]]) -> Path:
    """/proc with process -> (parent, resident pages)."""
    for process_id, (parent, pages) in processes.items():
        place = root / str(process_id)
        place.mkdir(parents=True)
        (place / "stat").write_text(f"{process_id} (cc (1) x) S {parent} 1 1", encoding="ascii")
        (place / "statm").write_text(f"99 {pages} 1", encoding="ascii")
    (root / "self").mkdir()
    (root / "7777").mkdir()
    return root


def test_memory_is_that_of_everything_started_below(tmp_path: Path) -> None:
    proc = fake_proc(tmp_path / "proc", {10: (1, 5), 11: (10, 100), 12: (11, 300), 13: (1, 9000)})
    assert build_memory.descendants(10, proc) == {11, 12}
    meter = build_memory.Meter(root=10, proc=proc)
    meter.sample()
    page = os.sysconf("SC_PAGESIZE")
    assert (meter.now, meter.peak_of_one) == (400 * page, 300 * page)
    (proc / "12/statm").write_text("garbage", encoding="ascii")
    meter.sample()
    assert (meter.now, meter.peak) == (100 * page, 400 * page)


def test_the_meter_samples_while_it_is_entered(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(build_memory, "PAUSE_SECONDS", 0.001)
    proc = fake_proc(tmp_path / "proc", {11: (10, 100)})
    with build_memory.Meter(root=10, proc=proc) as meter:
        deadline = time.monotonic() + 5
        while not meter.peak and time.monotonic() < deadline:
            time.sleep(0.002)
    assert meter.peak > 0


def test_ccache_is_put_before_the_compilers(tmp_path: Path) -> None:
    found = CompilerCache(kind="ccache", path="/usr/bin/ccache", directory=tmp_path / "ccache")
    given = {"CC": "/usr/bin/gcc-12", "CXX": "/usr/bin/g++-12", "CUDA_HOME": "/cuda"}
    out = build_cache.environment(found, tmp_path / "wrappers", given)
    assert Path(out["CXX"]).read_text(encoding="utf-8") == '#!/bin/sh\nexec "/usr/bin/ccache" "/usr/bin/g++-12" "$@"\n'
    assert os.access(out["PYTORCH_NVCC"], os.X_OK)
    assert out["CMAKE_CUDA_COMPILER_LAUNCHER"] == "/usr/bin/ccache"
    assert out["CCACHE_DIR"] == str(tmp_path / "ccache")


def test_without_cuda_there_is_no_nvcc_wrapper(tmp_path: Path) -> None:
    found = CompilerCache(kind="sccache", path="/usr/bin/sccache", directory=tmp_path)
    out = build_cache.environment(found, tmp_path / "wrappers", {})
    assert "PYTORCH_NVCC" not in out
    assert out["SCCACHE_DIR"] == str(tmp_path)


@pytest.mark.process
def test_the_nvcc_wrapper_says_dependencies_as_ccache_knows_them(tmp_path: Path) -> None:
    echo = tmp_path / "ccache"
    echo.write_text('#!/bin/sh\nprintf "%s|" "$@"\n', encoding="ascii")
    echo.chmod(0o755)
    found = CompilerCache(kind="ccache", path=str(echo), directory=tmp_path)
    out = build_cache.environment(found, tmp_path / "wrappers", {"CUDA_HOME": "/cuda"})
    given = ["--generate-dependencies-with-compile", "--dependency-output", "a b.o.d", "-DX='y z'", "-c", "x.cu"]
    said = process.output([out["PYTORCH_NVCC"], *given])
    assert said == "/cuda/bin/nvcc|-MD|-MF|a b.o.d|-DX='y z'|-c|x.cu|"


def test_the_cache_on_path_is_found(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("shutil.which", lambda name: "/usr/bin/sccache" if name == "sccache" else None)
    found = build_cache.find()
    assert found is not None
    assert found.kind == "sccache"
    assert build_cache.counts(found) == Counts(hits=0, misses=0)
    monkeypatch.setattr("shutil.which", lambda _: None)
    assert build_cache.find() is None
    assert build_cache.counts(None) == Counts(hits=0, misses=0)


def test_hits_and_misses(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    text = "stats_updated_timestamp\t1\ndirect_cache_hit\t30\npreprocessed_cache_hit\t3\ncache_miss\t2\n"
    assert build_cache.parse_counts(text) == Counts(hits=33, misses=2)
    assert build_cache.parse_counts("garbage") == Counts(hits=0, misses=0)
    found = CompilerCache(kind="ccache", path="ccache", directory=tmp_path)
    monkeypatch.setattr(process, "output", lambda *_, **__: text)
    assert build_cache.counts(found).hits == 33

    def old(*_: object, **__: object) -> str:
        raise WorkError("unknown option --print-stats")

    monkeypatch.setattr(process, "output", old)
    assert build_cache.counts(found) == Counts(hits=0, misses=0)


def test_the_same_inputs_give_the_same_key() -> None:
    first, second = build_key.inputs(build_cases.context()), build_key.inputs(build_cases.context())
    assert first.key == second.key
    assert len(first.key) == 64
    assert first.torch == "2.5.1+cu124"
    assert first.cxx11_abi is False
    assert first.archs == ("9.0",)


def test_paths_and_jobs_do_not_count() -> None:
    there = build_cases.context()
    moved = build_cases.healthy(python={"executable": "/other/bin/python"})
    assert build_key.inputs(build_cases.context(facts=moved)).key == build_key.inputs(there).key
    assert build_key.inputs(there.with_jobs(1)).key == build_key.inputs(there).key


def test_what_counts_changes_the_key() -> None:
    base = build_key.inputs(build_cases.context()).key
    others = [
        build_key.inputs(build_cases.context(archs=("8.0", "9.0"))).key,
        build_key.inputs(build_cases.context("transformer-engine")).key,
        build_key.inputs(build_cases.context(), {"head_dims": "64"}).key,
        build_key.inputs(build_cases.context(facts=build_cases.healthy(os={"glibc": "2.39"}))).key,
        build_key.inputs(build_cases.context(facts=build_cases.healthy(python={"abi": "cp311"}))).key,
        build_key.inputs(replace(build_cases.context(), source=replace(build_cases.SOURCE, sha256="b" * 64))).key,
    ]
    assert len({base, *others}) == 7


def test_a_pure_wheel_does_not_depend_on_torch_or_the_host() -> None:
    found = build_key.inputs(build_cases.context("verl"))
    assert (found.torch, found.cuda, found.glibc, found.archs) == ("", "", "", ())
    assert build_key.inputs(build_cases.context("megatron")).host_compiler.startswith("gcc ")
    assert build_key.inputs(build_cases.context("transformer-engine")).cudnn


def test_architectures_count_wherever_they_are_given_to_the_build() -> None:
    def sdist(*archs: str) -> build_key.Inputs:
        base = build_cases.context(archs=archs)
        return build_key.inputs(replace(base, component=replace(base.component, recipe=build_sdist.RECIPE)))

    assert sdist("9.0").archs == ("9.0",)
    assert sdist("9.0").key != sdist("8.0").key


def test_a_compiler_that_was_not_chosen_counts_too() -> None:
    def megatron(gcc: str) -> build_key.Inputs:
        facts = replace(build_cases.healthy(), compilers=factories.compilers(gcc))
        return build_key.inputs(build_cases.context("megatron", facts))

    assert megatron("7.5.0").host_compiler == "gcc 7.5.0"
    assert megatron("7.5.0").key != megatron("14.2.0").key


def test_facts_that_are_unknown_leave_a_gap_in_the_key() -> None:
    facts = replace(factories.healthy(), os=Unknown("no"), compilers=Unknown("no"), toolkits=Unknown("no"))
    found = build_key.inputs(build_cases.context(facts=facts))
    assert (found.glibc, found.host_compiler, found.cuda, found.machine) == ("", "", "", "")


def test_wheels_of_two_builds_are_made_the_same(tmp_path: Path) -> None:
    members = {"flash_attn/b.py": b"b", "flash_attn/a.py": b"a", "flash_attn/__pycache__/a.pyc": b"x"}
    back = dict(reversed(members.items()))
    first = build_wheel.normalise(build_cases.wheel(tmp_path / "1", members=members), tmp_path / "o1", epoch=1742428800)
    second = build_wheel.normalise(
        build_cases.wheel(tmp_path / "2", members=back, stamp=(2025, 5, 5, 5, 5, 6)), tmp_path / "o2", epoch=1742428800
    )
    assert first.read_bytes() == second.read_bytes()
    with zipfile.ZipFile(first) as file:
        names = file.namelist()
        record = file.read(names[-1]).decode()
        assert file.getinfo(names[0]).date_time == (2025, 3, 20, 0, 0, 0)
    assert names[:2] == ["flash_attn/a.py", "flash_attn/b.py"]
    assert "__pycache__" not in record
    assert record.endswith("flash_attn-2.7.4.post1.dist-info/RECORD,,\n")
    assert "flash_attn/a.py,sha256=ypeBEsobvcr6wjGzmiPcTaeG7_gUfE5yuYB3ha_uSLs,1\n" in record


@pytest.mark.parametrize("content", [b"", b"PK\x03\x04 cut"])
def test_something_that_is_no_wheel(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "x-1-py3-none-any.whl"
    path.write_bytes(content)
    with pytest.raises(WorkError, match="is not a wheel"):
        build_wheel.normalise(path, tmp_path / "out", epoch=1742428800)


def test_a_wheel_without_record(tmp_path: Path) -> None:
    path = tmp_path / "x-1-py3-none-any.whl"
    with zipfile.ZipFile(path, "w") as file:
        file.writestr("x.py", "")
    with pytest.raises(WorkError, match="is not a wheel"):
        build_wheel.normalise(path, tmp_path / "out", epoch=1742428800)


def test_the_name_of_a_wheel_is_that_of_the_component() -> None:
    build_wheel.check_name(
        Path("flash_attn-2.7.4.post1+slim-cp310-cp310-linux_x86_64.whl"), "flash-attn", "2.7.4.post1"
    )
    with pytest.raises(WorkError, match=r"gave flash-attn 2.8.0, asked for was flash-attn 2.7.4.post1"):
        build_wheel.check_name(Path("flash_attn-2.8.0-py3-none-any.whl"), "flash-attn", "2.7.4.post1")
    with pytest.raises(WorkError, match="is not the name of a wheel"):
        build_wheel.check_name(Path("flash.whl"), "flash-attn", "1")


def test_metadata(tmp_path: Path) -> None:
    assert build_wheel.metadata(build_cases.wheel(tmp_path)) == ("flash-attn", "2.7.4.post1")


LOCK = """\
# Generated
ninja==1.11.1.3 \\
    --hash=sha256:{a}
    # via recipes
pip==25.0.1 ; python_version >= "3.10" \\
    --hash=sha256:{b}
setuptools==70.3.0 \\
    --hash=sha256:{b}
""".format(a="a" * 64, b="b" * 64)


def test_only_the_pins_of_the_recipe_count() -> None:
    assert build_tools.pins_of(LOCK, ["ninja"]) == ["ninja==1.11.1.3", 'pip==25.0.1 ; python_version >= "3.10"']
    assert build_tools.digest(STACK, ["ninja"], "cp310") != build_tools.digest(STACK, ["ninja"], "cp311")


def test_build_tools_go_into_a_directory_of_their_own(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("ENVCHECK_CACHE", str(tmp_path))
    asked: list[list[str]] = []

    def install(argv: list[str], **_: object) -> str:
        asked.append(argv)
        (Path(argv[argv.index("--target") + 1]) / "ninja-1.11.1.3.dist-info").mkdir()
        return ""

    monkeypatch.setattr(process, "output", install)
    first = build_tools.overlay(STACK, ["ninja"], python="/venv/bin/python", abi="cp310")
    assert build_tools.overlay(STACK, ["ninja"], python="/venv/bin/python", abi="cp310") == first
    assert len(asked) == 1
    assert asked[0][-2:] == ["ninja", "pip"]
    assert build_tools.versions(first) == {"ninja": "1.11.1.3"}
    assert (first / "bin/python3").read_text(encoding="utf-8") == '#!/bin/sh\nexec "/venv/bin/python" "$@"\n'
    with pytest.raises(WorkError, match="holds no build tools"):
        build_tools.versions(tmp_path / "empty")


def test_pip_installs_where_there_is_no_uv(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr("shutil.which", lambda *_, **__: None)
    argv = build_tools._installer("/venv/bin/python", tmp_path, ["ninja"], None)
    assert argv[:4] == ["/venv/bin/python", "-m", "pip", "install"]


def test_builds_come_in_the_order_of_needs() -> None:
    names = build_order.names(STACK, "sglang", ["fsdp", "megatron"])
    assert names.index("flash-attn") < names.index("transformer-engine") < names.index("megatron")
    assert "apex" not in names
    assert "torch" not in names
    assert "megatron" not in build_order.names(STACK, "sglang", ["fsdp"])


def locked(monkeypatch: pytest.MonkeyPatch, tmp_path: Path, *hashes: str) -> Path:
    """A lock of torch-memory-saver, and a cache of its own."""
    monkeypatch.setattr(build_sdist, "ROOT", tmp_path)
    monkeypatch.setenv("ENVCHECK_CACHE", str(tmp_path / "cache"))
    lock = tmp_path / "lockfiles" / STACK.name / "requirements-sglang.txt"
    lock.parent.mkdir(parents=True)
    more = "".join(f" \\\n    --hash=sha256:{digest}" for digest in hashes)
    lock.write_text(f"torch-memory-saver==0.0.8{more}\n" if hashes else "", encoding="utf-8")
    return lock


def test_an_sdist_beside_needs_no_index(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    place = tmp_path / "archives"
    place.mkdir()
    for name, content in (("torch_memory_saver-0.0.8.tar.gz", b"it"), ("torch_memory_saver-0.0.7.tar.gz", b"old")):
        (place / name).write_bytes(content)
    digest = hashlib.sha256(b"it").hexdigest()
    lock = locked(monkeypatch, tmp_path, digest, hashlib.sha256(b"old").hexdigest())
    monkeypatch.setattr(index_files, "files", lambda *_: [])
    wheel = STACK.component("torch-memory-saver")
    source = build_sdist.from_sdist(STACK, wheel, "sglang", [place])[1]
    assert (source.file, source.sha256, source.size) == ("torch_memory_saver-0.0.8.tar.gz", digest, 2)
    lock.write_text(lock.read_text(encoding="utf-8").replace(digest, "b" * 64), encoding="utf-8")
    with pytest.raises(WorkError, match=r"the index has no sdist of torch-memory-saver 0\.0\.8"):
        build_sdist.from_sdist(STACK, wheel, "sglang", [place])


def test_the_locked_sdist_of_a_wheel(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    lock = locked(monkeypatch, tmp_path)
    lock.write_text(LOCK.replace("ninja==", "torch-memory-saver=="), encoding="utf-8")
    file = IndexFile(name="torch_memory_saver-0.0.8.tar.gz", url="u", sha256="a" * 64, size=4)
    monkeypatch.setattr(index_files, "sdist_of", lambda *_: file)
    wheel = STACK.component("torch-memory-saver")
    component, source = build_sdist.from_sdist(STACK, wheel, "sglang")
    assert (component.origin.kind, source.sha256) == ("sdist", "a" * 64)
    assert component.recipe == build_sdist.RECIPE
    monkeypatch.setattr(index_files, "sdist_of", lambda *_: replace(file, sha256="c" * 64))
    assert build_sdist.from_sdist(STACK, wheel, "sglang")[1] == source  # what the lock pins is known: nobody is asked
    lock.write_text(lock.read_text(encoding="utf-8").replace("a" * 64, "b" * 64), encoding="utf-8")
    with pytest.raises(WorkError, match=r"is not among the files that requirements-sglang.txt pins"):
        build_sdist.from_sdist(STACK, wheel, "sglang")
    assert build_sdist.locked_hashes(lock, "absent") == set()
    with pytest.raises(WorkError, match="cannot be read"):
        build_sdist.locked_hashes(tmp_path / "gone.txt", "x")


SWITCHES = """\
#pragma once
#define BOOL_SWITCH(COND, CONST_NAME, ...)      \\
  [&] {                                         \\
  }()

#define FP16_SWITCH(COND, ...)               \\
  [&] {                                      \\
    if (COND) { return __VA_ARGS__(); }      \\
  }()

#define HEADDIM_SWITCH(HEADDIM, ...)   \\
  [&] {                                    \\
    if (HEADDIM <= 32) {                   \\
    }                                      \\
  }()
"""
SETUP = """\
            sources=[
                "csrc/flash_attn/flash_api.cpp",
                "csrc/flash_attn/src/flash_fwd_hdim64_fp16_sm80.cu",
                "csrc/flash_attn/src/flash_fwd_hdim64_bf16_sm80.cu",
                "csrc/flash_attn/src/flash_bwd_hdim128_bf16_causal_sm80.cu",
                "csrc/flash_attn/src/flash_fwd_split_hdim256_bf16_sm80.cu",
            ],
"""


def test_slim_options() -> None:
    assert build_flash_attn.variant(None, None) == {}
    assert build_flash_attn.variant("128, 64,64", "bf16") == {"head_dims": "64,128", "dtypes": "bf16"}
    assert build_flash_attn.variant(None, "bf16")["head_dims"] == "32,64,96,128,160,192,256"
    assert build_flash_attn.build_tag({}) == ""
    assert build_flash_attn.build_tag({"head_dims": "64,128", "dtypes": "bf16"}) == "0slim.d64.d128.bf16"


@pytest.mark.parametrize(("dims", "dtypes", "wrong"), [("48", None, "48"), ("", None, "nothing"), (None, "fp8", "fp8")])
def test_slim_options_that_are_not_offered(dims: str | None, dtypes: str | None, wrong: str) -> None:
    with pytest.raises(EnvcheckError, match=f"{wrong} is not offered"):
        build_flash_attn.variant(dims, dtypes)


def test_a_slim_tree_compiles_what_was_chosen_and_refuses_the_rest(tmp_path: Path) -> None:
    switch = tmp_path / build_flash_attn.SWITCH
    switch.parent.mkdir(parents=True)
    switch.write_text(SWITCHES, encoding="utf-8")
    (tmp_path / "setup.py").write_text(SETUP, encoding="utf-8")
    build_flash_attn.slim(tmp_path, {"head_dims": "64,128", "dtypes": "bf16"})
    setup, text = (tmp_path / "setup.py").read_text(encoding="utf-8"), switch.read_text(encoding="utf-8")
    assert "flash_api.cpp" in setup
    assert "hdim64_fp16" not in setup
    assert "hdim256" not in setup
    assert setup.count("_sm80.cu") == 2
    assert "#define BOOL_SWITCH" in text
    assert "HEADDIM > 32 && HEADDIM <= 64" in text
    assert "HEADDIM > 96 && HEADDIM <= 128" in text
    assert "HEADDIM <= 32)" not in text
    assert "without kernels for fp16" in text
    assert text.count("TORCH_CHECK(false") == 2


def test_the_dtype_that_is_absent_is_the_one_refused() -> None:
    text = build_flash_attn.switches(SWITCHES, [64], ["fp16"])
    assert "if (!(COND))" in text
    assert "without kernels for bf16" in text
    both = build_flash_attn.switches(SWITCHES, [64], ["fp16", "bf16"])
    assert both.count("TORCH_CHECK(false") == 1


def test_another_layout_of_flash_attn_is_refused() -> None:
    with pytest.raises(WorkError, match="no FP16_SWITCH"):
        build_flash_attn.switches("#pragma once\n", [64], ["bf16"])
    with pytest.raises(WorkError, match="lists no kernel"):
        build_flash_attn.sources("sources=[]", [64], ["bf16"])
