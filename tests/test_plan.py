"""The plan's order, environments, jobs and skips; the choices and exports it rests on."""

from __future__ import annotations

import json
import shutil
import subprocess
from dataclasses import replace

import pytest

from envcheck import exports, limits, stack
from envcheck.choices import choose, jobs, torch_cuda
from envcheck.codec import Unknown
from envcheck.facts import (
    Compiler,
    Extension,
    Facts,
    Gpu,
    LibraryCopy,
    LoaderEntry,
    Os,
    Package,
    Python,
    Resources,
    Toolkit,
)
from envcheck.model import Target
from envcheck.plan import Step, document, mermaid, plan

GIB = 1 << 30
SEED = stack.load("verl-sglang-cu124")


def toolkit(version: str = "12.4.131", **changes: object) -> Toolkit:
    home = f"/usr/local/cuda-{version[:4]}"
    base = Toolkit(path=home, version=version, nvcc=f"{home}/bin/nvcc", headers=True, source="system", gcc_max=13)
    return replace(base, **changes)  # type: ignore[arg-type]


def host(**changes: object) -> Facts:
    base = Facts(
        os=Os(id="ubuntu", version="22.04", kernel="5.15", machine="x86_64", glibc="2.35", libstdcxx="3.4.30"),
        resources=Resources(
            cpus=16,
            memory_bytes=64 * GIB,
            memory_available_bytes=60 * GIB,
            shm_bytes=32 * GIB,
            max_processes="unlimited",
            open_files=65536,
            locked_memory="unlimited",
        ),
        driver=Unknown("not asked"),
        gpus=(Gpu(name="H100", compute_capability="9.0", memory_bytes=80 * GIB),),
        toolkits=(toolkit(),),
        cudnn=(
            LibraryCopy(
                kind="header",
                path="/v/lib/python3.10/site-packages/nvidia/cudnn/include/cudnn.h",
                version="9.1.0",
                source="pip",
            ),
        ),
        compilers=(
            Compiler(role="cxx", path="/usr/bin/g++", version="11.4.0", selected=True),
            Compiler(role="cc", path="/usr/bin/gcc", version="11.4.0", selected=True),
        ),
        python=Python(
            executable="/v/bin/python", version="3.10.13", abi="cp310", include_dir="/usr/include/python3.10"
        ),
        environment={"PATH": "/usr/bin", "LD_LIBRARY_PATH": "/usr/local/cuda-12.4/lib64:/opt/mine/lib"},
    )
    return replace(base, **changes)  # type: ignore[arg-type]


def target(engine: str = "sglang", trainer: str = "megatron") -> Target:
    return Target(stack=SEED, limits=limits.Limits(tables={}), engine=engine, trainer=trainer)


def by_name(steps: tuple[Step, ...]) -> dict[str, Step]:
    return {step.name: step for step in steps}


def test_order_respects_needs() -> None:
    names = [step.name for step in plan(host(), target())]
    order = ["toolchain", "torch", "flash-attn", "sglang", "transformer-engine", "patch-megatron", "megatron", "verl"]
    assert [name for name in names if name in order] == order
    assert names[-2:] == ["check-launch", "smoke"]


def test_every_need_is_a_step_before() -> None:
    seen: set[str] = set()
    for step in plan(host(), target()):
        assert set(step.needs) <= seen
        seen.add(step.name)


def test_te_is_built_for_this_host() -> None:
    step = by_name(plan(host(), target()))["transformer-engine"]
    assert step.kind == "build"
    assert step.environment["CUDAARCHS"] == "90"
    assert step.environment["CUDA_HOME"] == "/usr/local/cuda-12.4"
    assert step.environment["CUDNN_PATH"] == "/v/lib/python3.10/site-packages/nvidia/cudnn"
    assert step.environment["CXX"] == "/usr/bin/g++"
    assert step.jobs == 14
    assert "cudnn-headers-missing" in step.preflight
    assert step.command.startswith("nox -s build-te -- --stack verl-sglang-cu124")
    assert step.skipped is None


def test_what_is_installed_is_skipped() -> None:
    packages = (Package(name="torch", version="2.5.1+cu124"), Package(name="sglang", version="0.4.3.post2"))
    steps = by_name(plan(host(packages=packages), target()))
    assert steps["torch"].skipped == "torch 2.5.1+cu124 is installed"
    assert steps["sglang"].skipped is None
    assert steps["toolchain"].skipped == "CUDA 12.4 is at /usr/local/cuda-12.4"
    assert "optional" in str(steps["apex"].skipped)


def test_an_accepted_version_is_as_good_as_the_pinned_one() -> None:
    post2 = Package(name="sglang", version="0.4.3.post2", modules=("sglang.srt.entrypoints.verl_engine",))
    assert by_name(plan(host(packages=(post2,)), target()))["sglang"].skipped == "sglang 0.4.3.post2 is installed"


def test_what_the_lock_holds_comes_with_it_optional_or_not() -> None:
    assert by_name(plan(host(), target()))["torch-memory-saver"].skipped is None


@pytest.mark.parametrize(
    ("executable", "variables", "expected"),
    [
        pytest.param(
            "/v/bin/python", {}, "~/.cache/envcheck/envs/verl-sglang-cu124-sglang-fsdp-py3.10", id="made-by-env"
        ),
        pytest.param(
            "/v/bin/python",
            {"ENVCHECK_CACHE": "/big disk/c"},
            "'/big disk/c'/envs/verl-sglang-cu124-sglang-fsdp-py3.10",
            id="in-another-cache",
        ),
        pytest.param(
            "/c/envs/verl-sglang-cu124-sglang-fsdp-py3.11/bin/python",
            {},
            "/c/envs/verl-sglang-cu124-sglang-fsdp-py3.11/bin/python",
            id="that-very-environment",
        ),
    ],
)
def test_the_environment_that_was_made_is_checked(executable: str, variables: dict[str, str], expected: str) -> None:
    python = Python(executable=executable, version="3.10.13", abi="cp310", include_dir="/usr/include/python3.10")
    steps = by_name(plan(host(python=python, environment=variables), target(trainer="fsdp")))
    assert f" --python {expected} --stage launch" in steps["check-launch"].command


def test_an_environment_in_which_nothing_is_to_do_is_checked_itself() -> None:
    there = tuple(
        Package(name=item.distribution, version=item.version)
        for item in SEED.wanted("sglang", "fsdp")
        if not item.optional
    )
    memory_saver = Package(name="torch-memory-saver", version="0.0.8")
    steps = by_name(plan(host(packages=(*there, memory_saver)), target(trainer="fsdp")))
    assert " --python /v/bin/python --stage launch" in steps["check-launch"].command


def test_a_toolkit_that_was_provisioned_is_not_provisioned_again() -> None:
    cached = toolkit(path="/home/me/.cache/envcheck/toolchains/cuda-12.4", source="cache")
    steps = by_name(plan(host(toolkits=(toolkit("13.0.88", selected=True, gcc_max=15), cached)), target()))
    assert steps["toolchain"].skipped == f"CUDA 12.4 is at {cached.path}"
    assert steps["transformer-engine"].environment["CUDA_HOME"] == cached.path


def test_a_host_without_anything() -> None:
    bare = host(
        toolkits=Unknown("no"),
        gpus=Unknown("no"),
        cudnn=Unknown("no"),
        compilers=Unknown("no"),
        packages=Unknown("no"),
        resources=Unknown("no"),
        python=Unknown("no"),
    )
    steps = by_name(plan(bare, target()))
    assert steps["toolchain"].skipped is None
    assert steps["flash-attn"].environment["CUDA_HOME"] == "~/.cache/envcheck/toolchains/cuda-12.4"
    assert steps["flash-attn"].environment["FLASH_ATTN_CUDA_ARCHS"] == "80;90"
    assert steps["flash-attn"].jobs == 1
    assert steps["smoke"].skipped == "no GPU was found on this host"


def test_fsdp_needs_no_te() -> None:
    names = [step.name for step in plan(host(), target(trainer="fsdp"))]
    assert "transformer-engine" not in names
    assert "verl" in names


@pytest.mark.parametrize(
    ("limit", "expected"),
    [
        pytest.param(4 * GIB, 1, id="container-of-4-gib"),
        pytest.param(21 * GIB, 2, id="pip-takes-of-the-third"),
        pytest.param(24 * GIB, 3, id="24"),
        pytest.param(None, 8, id="none"),
    ],
)
def test_jobs_of_flash_attn_obey_the_cgroup(limit: int | None, expected: int) -> None:
    facts = host()
    assert isinstance(facts.resources, Resources)
    limited = replace(facts, resources=replace(facts.resources, memory_limit_bytes=limit))
    recipe = SEED.component("flash-attn").recipe
    assert recipe is not None
    assert jobs(choose(limited, SEED), recipe) == expected


@pytest.mark.parametrize(
    "unfit",
    [
        pytest.param(toolkit("13.0.88"), id="cuda-13"),
        pytest.param(toolkit("11.8.89"), id="cuda-11.8"),
        pytest.param(toolkit(nvcc=None), id="no-nvcc"),
        pytest.param(toolkit(headers=False), id="no-headers"),
        pytest.param(toolkit("12.6.1"), id="cuda-12.6"),
    ],
)
def test_other_toolkits_are_not_taken(unfit: Toolkit) -> None:
    assert choose(host(toolkits=(unfit,)), SEED).cuda_home is None
    assert choose(host(toolkits=(unfit, toolkit())), SEED).cuda_home == "/usr/local/cuda-12.4"


@pytest.mark.parametrize(
    ("torch", "there", "expected"),
    [
        pytest.param("13.0", "13.0.88", "/usr/local/cuda-13.0", id="its-own"),
        pytest.param("12.1", "12.4.131", "/usr/local/cuda-12.4", id="same-major"),
        pytest.param("13.0", "12.4.131", None, id="other-major"),
    ],
)
def test_what_compiles_against_torch_is_of_its_cuda(torch: str, there: str, expected: str | None) -> None:
    facts = host(toolkits=(toolkit(there),), packages=(Package(name="torch", version="2", cuda=torch),))
    assert choose(facts, SEED, cuda=torch_cuda(facts)).cuda_home == expected


def test_without_torch_the_stack_decides() -> None:
    assert torch_cuda(host(packages=Unknown("x"))) is None
    assert torch_cuda(host(packages=(Package(name="torch", version="2+cpu"),))) is None


def test_compilers_that_nvcc_refuses_are_not_taken() -> None:
    compilers = (
        Compiler(role="cxx", path="/usr/bin/g++", version="14.2.0", selected=True),
        Compiler(role="cxx", path="/usr/bin/clang++", family="clang", version="16.0", selected=False),
        Compiler(role="other", path="/usr/bin/g++-13", version="13.3.0"),
        Compiler(role="other", path="/usr/bin/g++-12", version=Unknown("hangs")),
        Compiler(role="other", path="/usr/bin/gcc-13", version="13.3.0"),
    )
    chosen = choose(host(compilers=compilers), SEED)
    assert chosen.cxx == "/usr/bin/g++-13"
    assert chosen.cc == "/usr/bin/gcc-13"


def test_system_headers_where_no_wheel_has_them() -> None:
    copies = (LibraryCopy(kind="header", path="/usr/include/cudnn.h", version="8.9.7", source="system", selected=True),)
    assert choose(host(cudnn=copies, nccl=copies), SEED).cudnn_path == "/usr"


def test_document_has_every_key() -> None:
    steps = document(plan(host(), target()))
    assert steps["version"] == 1
    keys = {
        "name",
        "kind",
        "component",
        "version",
        "needs",
        "environment",
        "jobs",
        "command",
        "preflight",
        "reason",
        "skipped",
    }
    assert all(set(step) == keys for step in steps["steps"])
    json.dumps(steps)


def test_mermaid_draws_every_step() -> None:
    steps = plan(host(), target())
    drawing = mermaid(steps)
    assert drawing.startswith("flowchart TD\n")
    assert all(step.name.replace("-", "_") in drawing for step in steps)
    assert "class " in drawing


def test_exports_take_the_toolkit_off_the_library_path() -> None:
    values = exports.variables(host(), SEED)
    assert values["LD_LIBRARY_PATH"] == "/opt/mine/lib"
    assert values["PATH"] == "/usr/local/cuda-12.4/bin:/usr/bin"
    assert values["CUDNN_PATH"].endswith("nvidia/cudnn")
    assert values["NVTE_FLASH_ATTN"] == "0"


def test_exports_name_the_wheels_that_transformer_engine_does_not_find() -> None:
    site = "/venv/lib/python3.10/site-packages"
    home = {"libcudnn_adv.so.9": "cudnn", "libcublas.so.12": "cublas", "libnvrtc.so.12": "cuda_nvrtc"}
    loader = tuple(LoaderEntry(library=name, path=f"{site}/nvidia/{at}/lib/{name}") for name, at in home.items())
    core = Extension(path=f"{site}/x.so", needed=("libcublas.so.12", "libc.so.6"), missing=("libcudnn_adv.so.9",))
    module = Extension(path=f"{site}/y.so", needed=("libtorch.so", "libcublas.so.12"))
    packages = (
        Package(name="transformer-engine", version="1.7.0", extensions=(core,)),
        Package(name="sgl-kernel", version="0.1.0", extensions=(module,)),
    )
    python = Python(
        executable="/venv/bin/python", version="3.10.13", abi="cp310", include_dir="/x", site_packages=(site,)
    )
    facts = host(packages=packages, loader=loader, python=python, environment={"LD_LIBRARY_PATH": "/opt/mine"})
    folders = [f"{site}/nvidia/{at}/lib" for at in home.values()]
    assert exports.variables(facts, SEED)["LD_LIBRARY_PATH"].split(":") == [*folders, "/opt/mine"]
    elsewhere = replace(facts, python=replace(python, site_packages=("/other",)))
    assert exports.variables(elsewhere, SEED)["LD_LIBRARY_PATH"] == "/opt/mine"
    for unread in (replace(facts, loader=Unknown("x")), replace(facts, packages=Unknown("x"))):
        assert exports.variables(unread, SEED)["LD_LIBRARY_PATH"] == "/opt/mine"


def test_exports_of_a_bare_host_say_no_more_than_is_known() -> None:
    values = exports.variables(host(toolkits=(), cudnn=(), compilers=(), environment={}), SEED)
    assert set(values) == {"TORCH_CUDA_ARCH_LIST", "NVTE_FLASH_ATTN"}


@pytest.mark.parametrize("stubs", ["/usr/local/cuda/lib64/stubs", "/usr/local/cuda/targets/x/lib/stubs"])
def test_link_stubs_are_taken_off(stubs: str) -> None:
    facts = host(environment={"LD_LIBRARY_PATH": f"{stubs}::/a"})
    assert exports.variables(facts, SEED)["LD_LIBRARY_PATH"] == "/a"


def test_renders_json() -> None:
    assert json.loads(exports.render({"A": "b c"}, "json")) == {"A": "b c"}


def test_renders_fish() -> None:
    assert exports.render({"A": "it's", "PATH": "/a:/b"}, "fish") == "set -gx A 'it\\'s'\nset -gx PATH '/a' '/b'\n"


@pytest.mark.process
def test_sh_lines_survive_a_shell() -> None:
    shell = shutil.which("sh")
    assert shell
    lines = exports.render({"A": 'it\'s "$HOME" `x`; y'}, "sh")
    done = subprocess.run(
        [shell, "-c", f'{lines}printf %s "$A"'], capture_output=True, text=True, timeout=10, check=True
    )
    assert done.stdout == 'it\'s "$HOME" `x`; y'
