from __future__ import annotations

import json
import os
import re
import signal
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

from envcheck import cli, gpu
from envcheck.commands import gpu as command
from envcheck.errors import DataError, EnvcheckError, HostError
from envcheck.gpu import judge, table, tables
from envcheck.gpu.target.envcheck_kernels import common, server
from envcheck.host import Completed, LocalHost, RecordedHost
from envcheck.report.style import Style
from tests.ppo_cases import facts
from tests.verl_environments import TORCH_PYTHONS

TABLES = gpu.load()
H100 = {"name": "NVIDIA H100 80GB HBM3", "memory_bytes": 85_000_000_000, "capability": "9.0"}
DEVICE = {"kernel": "gpu-device", "error": 0.0, "gpus": [H100], "detail": "torch 2.6.0+cu124", "wall": 0.8}


def _kernel(name: str) -> tables.Kernel:
    return next(kernel for kernel in TABLES.kernels if kernel.id == name)


def _outcome(name: str, **result: Any) -> Any:
    return judge.outcome(_kernel(name), {"kernel": name, **result} if result else {}, TABLES.ceiling(str(H100["name"])))


def test_tables_name_the_kernels_that_the_target_side_has() -> None:
    ids = [kernel.id for kernel in TABLES.kernels]
    assert ids[0] == "gpu-device"
    assert set(ids) == set(server.kernels(1))
    assert all(re.fullmatch(r"gpu(-[a-z0-9]+)+", name) for name in ids)
    assert all(kernel.measured for kernel in TABLES.kernels)
    assert all(row.source.startswith("https://") for row in TABLES.ceilings)


@pytest.mark.parametrize(
    ("name", "tflops"),
    [
        pytest.param("NVIDIA H200", 989.4, id="h200"),
        pytest.param("NVIDIA H100 80GB HBM3", 989.4, id="h100-sxm"),
        pytest.param("NVIDIA H100 PCIe", 756.5, id="h100-pcie"),
        pytest.param("NVIDIA H20", 148, id="h20"),
        pytest.param("NVIDIA A100-SXM4-80GB", 312, id="a100"),
        pytest.param("NVIDIA L40S", 362, id="l40s"),
        pytest.param("NVIDIA L4", 121, id="l4"),
    ],
)
def test_ceilings(name: str, tflops: float) -> None:
    row = TABLES.ceiling(name)
    assert row is not None
    assert row.bf16_tflops == tflops


def test_unknown_gpu_has_no_ceiling() -> None:
    assert TABLES.ceiling("NVIDIA Something Else") is None
    row = TABLES.ceiling("NVIDIA A100-SXM4-80GB")
    assert row is not None
    assert row.of("fp8") is None
    assert row.of(None) is None
    assert row.of("memory") == 2039e9


def test_table_of_another_version(monkeypatch: pytest.MonkeyPatch) -> None:
    texts = {"gpu/kernels.toml": "version = 1\nkernel = []\n", "gpu/ceilings.toml": "version = 2\ngpu = []\n"}
    monkeypatch.setattr("envcheck.data.read", texts.__getitem__)
    with pytest.raises(DataError, match=r"ceilings\.toml: version: expected 1, found 2"):
        gpu.load()


def test_a_right_kernel_says_how_fast_it_was() -> None:
    found = _outcome("gpu-matmul-bf16", error=0.0017, seconds=0.00148, flops=2 * 8192.0**3, detail="8192 x 8192 x 8192")
    assert found.outcome == "ok"
    assert found.summary == (
        "bfloat16 matrix product: error 0.0017; 743 TFLOP/s, 75% of what the device can do; 8192 x 8192 x 8192"
    )
    assert (found.rule, found.subject, found.stages) == ("gpu-matmul-bf16", "torch", ("launch", "train"))


def test_an_exact_kernel() -> None:
    found = _outcome("gpu-memory-bandwidth", error=0.0, seconds=0.002, bytes=4.0 * (1 << 30))
    assert found.summary == "copy on the device: exact; 2,147 GB/s, 64% of what the device can do"
    assert found.expected == "no error at all"


def test_all_reduce_is_on_the_bus() -> None:
    found = _outcome("gpu-nccl-all-reduce", error=0.0, seconds=0.001, bytes=3e8, detail="NCCL 2.21.5, 4 GPUs")
    assert "300 GB/s on the bus, 67% of what" in found.summary


def test_a_wrong_kernel_is_an_error() -> None:
    found = _outcome(
        "gpu-flash-attn-backward", error=0.4, parts={"query": 0.4, "key": 0.003}, detail="flash-attn 2.7.4"
    )
    assert found.outcome == "error"
    assert found.summary == "flash-attn backward: the result is wrong"
    assert found.found == "relative error 0.4 (query 0.4; key 0.003); flash-attn 2.7.4"
    assert "at most 0.02" in found.expected
    assert found.fix


def test_not_a_number_is_wrong() -> None:
    assert _outcome("gpu-matmul-bf16", error=float("inf")).outcome == "error"


def test_head_size_128_is_a_warning() -> None:
    found = _outcome("gpu-flash-attn-head128", error=1.0)
    assert found.outcome == "warning"
    assert "Qwen2-7B" in found.summary


def test_absent_and_not_run() -> None:
    absent = _outcome("gpu-apex-layernorm", absent="apex is not installed")
    assert (absent.outcome, absent.summary) == ("not-applicable", "apex fused layer norm: apex is not installed")
    assert _outcome("gpu-apex-layernorm").outcome == "unknown"


def test_a_failure_names_the_rule_that_explains_it() -> None:
    output = (
        'Traceback (most recent call last):\n  File "x.py", line 1, in <module>\n'
        "ImportError: /e/flash_attn_2_cuda.cpython-310-x86_64-linux-gnu.so: undefined symbol: "
        "_ZN3c105ErrorC2ENS_14SourceLocationENSt7__cxx1112basic_stringIcSt11char_traitsIcESaIcEEE\n"
    )
    found = _outcome("gpu-flash-attn-forward", failed="ImportError: …", output=output)
    assert found.outcome == "error"
    rule = re.search(r"it failed: ([a-z0-9-]+): ", found.summary)
    assert rule is not None
    assert rule[1] in {"undefined-symbol", "cxx11-abi-differs", "extension-built-for-other-torch"}
    assert found.fix
    assert "undefined symbol" in found.found


@pytest.mark.parametrize(
    ("result", "word"),
    [
        pytest.param({"signal": 11}, "crashed with SIGSEGV", id="segfault"),
        pytest.param({"signal": 250}, "crashed with 250", id="unknown-signal"),
        pytest.param({"failed": "ValueError: x"}, "it failed", id="exception"),
        pytest.param({"timed_out": 300.0}, "did not end within 300 s (compiled on first use", id="hang"),
    ],
)
def test_how_a_kernel_failed(result: dict[str, Any], word: str) -> None:
    found = _outcome("gpu-flashinfer-decode", **result)
    assert found.outcome == "error"
    assert word in found.summary
    assert found.found


def test_a_hang_of_flashinfer_may_be_its_lock() -> None:
    found = _outcome("gpu-flashinfer-prefill", timed_out=300.0)
    assert found.fix[0].commands == ("find ~/.cache/flashinfer -name lock -delete",)
    assert not _outcome("gpu-torch-compile", timed_out=180.0).fix[0].commands


def _host(lines: Sequence[Any], **completed: Any) -> Any:
    text = "".join((line if isinstance(line, str) else json.dumps(line)) + "\n" for line in lines)

    class Host(RecordedHost):
        def run(self, argv: Sequence[str], *, timeout: float = 10.0) -> Completed:
            calls.append((list(argv), timeout))
            return Completed(**({"stdout": text} | completed))

    calls: list[tuple[list[str], float]] = []
    host = Host()
    object.__setattr__(host, "calls", calls)
    return host


def test_run_judges_all_kernels() -> None:
    host = _host([DEVICE, "noise", "[1]", {"kernel": "gpu-apex-layernorm", "absent": "apex is not installed"}])
    found = {item.rule: item.outcome for item in gpu.run(host, "/t/python")}
    assert found["gpu-device"] == "ok"
    assert found["gpu-apex-layernorm"] == "not-applicable"
    assert found["gpu-matmul-bf16"] == "unknown"
    ((argv, timeout),) = host.calls
    assert argv[:2] == ["/t/python", "-c"]
    assert Path(argv[3], "envcheck_kernels", "server.py").is_file()
    request = json.loads(argv[4])
    assert request["serial"][0] == "gpu-matmul-bf16"
    assert request["serial"][-1] == "gpu-nccl-all-reduce"
    assert "gpu-flashinfer-decode" in request["beside"]
    assert timeout > sum(request["timeouts"].values())


def test_interpreter_that_cannot_be_started_or_dies() -> None:
    with pytest.raises(HostError, match="no such file"):
        gpu.run(_host([], error="no such file"), "/t/python")
    with pytest.raises(HostError, match="exit code 1 before any kernel ran:\nImportError: x"):
        gpu.run(_host([], returncode=1, stderr="ImportError: x"), "/t/python")


def test_choose() -> None:
    def ids(**options: Sequence[str]) -> list[str]:
        return [kernel.id for kernel in gpu.choose(TABLES.kernels, options.get("only", ()), options.get("skip", ()))]

    assert ids(only=["gpu-ray-actor"]) == ["gpu-device", "gpu-ray-actor"]
    assert ids(only=["transformer-engine"], skip=["gpu-te-layernorm"]) == [
        "gpu-device",
        "gpu-te-linear-bf16",
        "gpu-te-linear-fp8",
    ]
    with pytest.raises(EnvcheckError, match="gpu-ray-actor"):
        ids(only=["gpu-ray-actors"])


def test_table_shows_numbers_and_troubles() -> None:
    results: list[dict[str, Any]] = [
        DEVICE,
        {"kernel": "gpu-matmul-bf16", "error": 0.0017, "seconds": 0.00148, "flops": 2 * 8192.0**3, "wall": 1.2},
        {"kernel": "gpu-flash-attn-forward", "signal": 11, "output": "Fatal Python error\n", "wall": 2.0},
        {"kernel": "gpu-apex-layernorm", "absent": "apex is not installed"},
        {"kernel": "gpu-flash-attn-head128", "error": 0.5},
    ]
    found = judge.report(TABLES.kernels, results, TABLES)
    text = table.render(found, Style(), 12.3)
    assert text.startswith("1 x NVIDIA H100 80GB HBM3; torch 2.6.0+cu124\n")
    assert re.search(r"✓ bfloat16 matrix product +1\.7e-03 +4\.0e-03 +1\.48 ms +743 TFLOP/s +75% +1\.2 s", text)
    assert "✗ gpu-flash-attn-forward: flash-attn forward: it crashed with SIGSEGV" in text
    assert text.index("✗ gpu-flash-attn-forward") < text.index("! gpu-flash-attn-head128")
    assert "- apex fused layer norm: apex is not installed" in text
    assert text.endswith("2 kernels right, 1 wrong or failed, 1 with a warning, 1 not applicable; 12 s\n")


def test_table_of_a_host_without_gpu() -> None:
    found = judge.report(TABLES.kernels, [{"kernel": "gpu-device", "failed": "RuntimeError: no GPU"}], TABLES)
    text = table.render(found, Style(), 1)
    assert text.startswith("no GPU\n")
    assert f"- {len(TABLES.kernels) - 1} more kernels were not run: CUDA does not start" in text


@pytest.fixture
def target(monkeypatch: pytest.MonkeyPatch) -> list[dict[str, str]]:
    """Stand in for the host and the kernels; give the environments that kernels were run with."""
    environments: list[dict[str, str]] = []

    def measure(host: LocalHost, _python: str, _tables: Any, **_: Any) -> judge.Report:
        environments.append(dict(host.environ))
        return judge.report(TABLES.kernels[:1], [DEVICE], TABLES)

    monkeypatch.setattr(gpu, "measure", measure)
    monkeypatch.setattr(command, "facts_of", lambda _: facts())
    return environments


@pytest.mark.parametrize("form", ["text", "json", "junit", "sarif", "github", "markdown", "html"])
def test_command(target: list[dict[str, str]], capsys: pytest.CaptureFixture[str], form: str) -> None:
    assert cli.main(["gpu", "--format", form, "--stack", "verl-lts-cu124"]) == 0
    out = capsys.readouterr().out
    if form == "json":
        document = json.loads(out)
        assert (document["stage"], document["verdict"]) == ("train", "ok")
        assert document["outcomes"][0]["rule"] == "gpu-device"
    assert target[0]["NCCL_NVLS_ENABLE"] == "0"
    assert target[0]["TORCH_CUDA_ARCH_LIST"] == "9.0"


def test_command_uses_the_interpreter_that_was_read() -> None:
    args = type("Args", (), {"python": "/x"})()
    assert command._interpreter(args, facts()) == "/t/bin/python"


BOOT_ON_FAKES = """
import sys, types
sys.path[0] = sys.argv[1]
sys.modules["torch"] = types.ModuleType("torch")
from envcheck_kernels import server
from envcheck_kernels.common import AbsentError
import os, time

def raises():
    print("on stdout", flush=True)
    raise ValueError("wrong shape")

def absent():
    raise AbsentError("x is not installed")

def sleeps():
    try:
        time.sleep(300)
    finally:
        print("cleaned up", flush=True)

def daemon():
    if os.fork() == 0:
        time.sleep(300)
    return {"error": 0.0}

table = {
    "gpu-device": lambda: {"error": 0.0, "gpus": [{"name": "fake"}]},
    "right": lambda: {"error": 0.001},
    "raises": raises,
    "crashes": lambda: os.kill(os.getpid(), 11),
    "absent": absent,
    "sleeps": sleeps,
    "exits": lambda: os._exit(3),
    "daemon": daemon,
}
server.kernels = lambda gpus: table
server.main(sys.argv[2])
"""


@pytest.mark.process
def test_server_isolates_every_kernel() -> None:
    names = ["right", "raises", "crashes", "absent", "exits", "daemon"]
    request = {
        "timeouts": dict.fromkeys([*names, "gpu-device"], 30.0) | {"sleeps": 0.5},
        "serial": names,
        "beside": ["sleeps"],
    }
    place = str(Path(server.__file__).parent.parent)
    started = time.monotonic()
    done = LocalHost().run([sys.executable, "-c", BOOT_ON_FAKES, place, json.dumps(request)], timeout=60)
    assert time.monotonic() - started < 30
    assert done.returncode == 0, done.stderr
    found = {item["kernel"]: item for item in gpu.lines(done.stdout)}
    assert found["right"]["error"] == 0.001
    assert found["raises"]["failed"] == "ValueError: wrong shape"
    assert "on stdout" in found["raises"]["output"]
    assert found["crashes"]["signal"] == signal.SIGSEGV
    assert found["absent"]["absent"] == "x is not installed"
    assert found["sleeps"]["timed_out"] == 0.5
    assert "cleaned up" in found["sleeps"]["output"]
    assert "error" not in found["exits"]
    assert found["daemon"]["error"] == 0.0
    assert found["gpu-device"]["importing"] >= 0


@pytest.mark.process
def test_server_without_torch() -> None:
    script = 'import sys; sys.modules["torch"] = None; ' + gpu.BOOT.removeprefix("import sys; ")
    place = str(Path(server.__file__).parent.parent)
    done = LocalHost().run([sys.executable, "-c", script, place, json.dumps({"timeouts": {}})], timeout=60)
    (only,) = gpu.lines(done.stdout)
    assert "torch" in only["failed"]
    assert "Traceback" in only["output"]


def test_libcuda_is_provided_where_only_the_versioned_one_is(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.delenv("TRITON_LIBCUDA_PATH", raising=False)
    monkeypatch.setenv("LIBRARY_PATH", "/l")
    driver = tmp_path / "driver"
    driver.mkdir()
    (driver / "libcuda.so.1").touch()
    monkeypatch.setattr("ctypes.CDLL", lambda _: None)
    maps = f"7f00-7f01 r-xp 00000000 00:00 1 {driver / 'libcuda.so.1'}\n"
    monkeypatch.setattr(Path, "read_text", lambda _self, **_: maps)
    folder = tmp_path / "folder"
    folder.mkdir()
    server.provide_libcuda(str(folder))
    assert os.readlink(folder / "libcuda.so") == str(driver / "libcuda.so.1")
    assert os.environ["TRITON_LIBCUDA_PATH"] == str(folder)
    assert os.environ["LIBRARY_PATH"] == f"{folder}:/l"
    other = tmp_path / "other"
    server.provide_libcuda(str(other))  # it is set already
    assert not other.exists()
    monkeypatch.delenv("TRITON_LIBCUDA_PATH")


def test_no_libcuda_at_all(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.delenv("TRITON_LIBCUDA_PATH", raising=False)

    def missing(name: str) -> None:
        raise OSError(name)

    monkeypatch.setattr("ctypes.CDLL", missing)
    server.provide_libcuda(str(tmp_path))
    assert "TRITON_LIBCUDA_PATH" not in os.environ


def test_needed() -> None:
    assert common.needed("json.decoder").__name__ == "json.decoder"
    with pytest.raises(common.AbsentError, match="no_such_package is not installed"):
        common.needed("no_such_package.part")


REFERENCES = """
import json, sys
sys.path[0] = sys.argv[1]
import torch
from envcheck_kernels import common, layers

found = {}
q, k, v = (torch.randn(2, length, heads, 16, dtype=torch.float64) for length, heads in ((7, 8), (11, 4), (11, 4)))
for causal in (False, True):
    mask = torch.ones(7, 11, dtype=torch.bool).tril(4) if causal else None
    theirs = torch.nn.functional.scaled_dot_product_attention(
        *(t.transpose(1, 2).repeat_interleave(8 // t.shape[2], 1) for t in (q, k, v)), attn_mask=mask
    ).transpose(1, 2)
    found[f"attention {causal}"] = common.relative(common.attention(q, k, v, causal=causal), theirs)
x, w = torch.randn(4, 8), torch.randn(8)
found["rms"] = common.relative(layers._rms_norm(x, w), torch.nn.functional.rms_norm(x, (8,), w, 1e-6))
values = torch.randn(100000)
found["rounding"] = common.relative(values.to(torch.bfloat16), values)
found["nan"] = common.relative(torch.tensor([float("nan")]), torch.tensor([1.0]))
common.random = lambda *shape, seed=0, scale=1.0: (
    torch.randn(*shape, generator=torch.Generator().manual_seed(seed)) * scale
).to(torch.bfloat16)
layer = torch.nn.Linear(1024, 1024).to(torch.bfloat16)
found["linear"] = layers._linear(layer, layer)["error"]
found["layernorm"] = layers._layer_norm(torch.nn.LayerNorm(1024).to(torch.bfloat16), "")["error"]
print(json.dumps(found))
"""


@pytest.mark.torch
@pytest.mark.parametrize("python", TORCH_PYTHONS)
def test_references_on_the_cpu(python: str) -> None:
    """The references are right (against torch's own operators), and the tolerances lie above bfloat16's rounding."""
    place = str(Path(server.__file__).parent.parent)
    done = LocalHost().run([python, "-c", REFERENCES, place], timeout=120)
    assert done.ok, done.why()
    found = json.loads(done.stdout.splitlines()[-1])
    assert found["attention False"] < 1e-6
    assert found["attention True"] < 1e-6
    assert found["rms"] < 1e-6
    assert found["rounding"] == pytest.approx(1.67e-3, rel=0.02)
    assert found["nan"] == float("inf")
    assert found["linear"] < _kernel("gpu-te-linear-bf16").tolerance
    assert found["layernorm"] < _kernel("gpu-te-layernorm").tolerance
    assert found["rounding"] * 2 < _kernel("gpu-matmul-bf16").tolerance
