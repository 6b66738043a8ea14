"""Run kernels, each in a process of its own: a crash or a hang of one is its own outcome.

torch is imported once; every kernel runs in a fork made before CUDA is initialised. One line of JSON goes to stdout for
each kernel; what a kernel itself prints is kept and handed over with its failure.
"""

from __future__ import annotations

import contextlib
import ctypes
import json
import os
import signal
import sys
import tempfile
import time
import traceback
from collections.abc import Callable
from pathlib import Path
from typing import Any

TAIL_CHARACTERS = 6000
POLL_SECONDS = 0.02
GRACE_SECONDS = 5.0


def kernels(gpus: int) -> dict[str, Callable[[], dict[str, Any]]]:
    """Name every kernel."""
    from . import attention, basic, cluster, layers

    return {
        "gpu-device": basic.device,
        "gpu-matmul-bf16": basic.matmul,
        "gpu-memory-bandwidth": basic.memory,
        "gpu-cudnn-convolution": basic.convolution,
        "gpu-triton-jit": basic.triton_jit,
        "gpu-torch-compile": basic.torch_compile,
        "gpu-flash-attn-forward": attention.flash_forward,
        "gpu-flash-attn-head128": attention.flash_forward_128,
        "gpu-flash-attn-backward": attention.flash_backward,
        "gpu-flash-attn-varlen": attention.flash_varlen,
        "gpu-flashinfer-decode": attention.flashinfer_decode,
        "gpu-flashinfer-prefill": attention.flashinfer_prefill,
        "gpu-sgl-kernel-rmsnorm": layers.sgl_rmsnorm,
        "gpu-te-linear-bf16": layers.te_linear,
        "gpu-te-linear-fp8": layers.te_linear_fp8,
        "gpu-te-layernorm": layers.te_layernorm,
        "gpu-apex-layernorm": layers.apex_layernorm,
        "gpu-nccl-all-reduce": lambda: cluster.nccl_all_reduce(gpus),
        "gpu-ray-actor": cluster.ray_actor,
    }


class Job:
    """One kernel that is running."""

    def __init__(self, name: str, timeout: float, gpus: int, folder: str) -> None:
        """Fork it into a session of its own."""
        self.name = name
        self.timeout = timeout
        self.started = time.monotonic()
        self.result = Path(folder, f"{name}.json")
        self.output = Path(folder, f"{name}.txt")
        self.process = os.fork()
        if self.process == 0:
            self._run(gpus)

    def _run(self, gpus: int) -> None:
        """Run the kernel in the child and leave for good."""
        from .common import AbsentError

        os.setsid()
        signal.signal(signal.SIGINT, signal.default_int_handler)
        handle = os.open(self.output, os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
        os.dup2(handle, 1)
        os.dup2(handle, 2)
        code = 0
        try:
            found = kernels(gpus)[self.name]()
        except AbsentError as error:
            found = {"absent": str(error)}
        except BaseException as error:  # noqa: BLE001  # the failure is the result
            traceback.print_exc()
            found = {"failed": f"{type(error).__name__}: {error}"}
            code = 1
        with contextlib.suppress(BaseException):
            sys.stdout.flush()
            self.result.write_text(json.dumps(found))
        os._exit(code)

    def done(self) -> dict[str, Any] | None:
        """Give the result where there is one; a kernel past its time is ended."""
        ended, status = os.waitpid(self.process, os.WNOHANG)
        late = time.monotonic() - self.started > self.timeout
        if not ended and not late:
            return None
        found: dict[str, Any] = {"kernel": self.name}
        if not ended:
            self._end()
            found["timed_out"] = self.timeout
        elif os.WIFSIGNALED(status):
            found["signal"] = os.WTERMSIG(status)
        with contextlib.suppress(OSError, ValueError):
            found |= json.loads(self.result.read_text())
        self._end_group()
        if "error" not in found and "absent" not in found:
            with contextlib.suppress(OSError):
                found["output"] = self.output.read_text(errors="replace")[-TAIL_CHARACTERS:]
        return found | {"wall": round(time.monotonic() - self.started, 2)}

    def _end(self) -> None:
        """Interrupt it, so that compilers' lock files are removed; then kill it."""
        with contextlib.suppress(ProcessLookupError):
            os.kill(self.process, signal.SIGINT)
        deadline = time.monotonic() + GRACE_SECONDS
        while time.monotonic() < deadline:
            if os.waitpid(self.process, os.WNOHANG)[0]:
                return
            time.sleep(POLL_SECONDS)
        with contextlib.suppress(ProcessLookupError, ChildProcessError):
            os.kill(self.process, signal.SIGKILL)
            os.waitpid(self.process, 0)

    def _end_group(self) -> None:
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.killpg(self.process, signal.SIGKILL)


def say(result: dict[str, Any]) -> None:
    """Hand one result over."""
    sys.stdout.write(json.dumps(result) + "\n")
    sys.stdout.flush()


def main(text: str) -> None:
    """Run what the request names: first the device, then one lane after the other beside the other lane."""
    request = json.loads(text)
    with tempfile.TemporaryDirectory(prefix="envcheck-gpu-") as folder:
        provide_libcuda(folder)
        started = time.monotonic()
        try:
            import torch  # noqa: F401  # once, for all that are forked from here
        except BaseException as error:  # noqa: BLE001  # a broken torch is the answer
            failed = f"{type(error).__name__}: {error}"
            say({"kernel": "gpu-device", "failed": failed, "output": traceback.format_exc()})
            return
        importing = round(time.monotonic() - started, 2)
        device = finished(Job("gpu-device", request["timeouts"]["gpu-device"], 0, folder))
        say(device | {"importing": importing})
        if "gpus" in device:
            run_all(request, len(device["gpus"]), folder)


def run_all(request: dict[str, Any], gpus: int, folder: str) -> None:
    """Run the serial lane one by one, and beside it the kernels that mostly compile or wait."""
    timeouts: dict[str, float] = request["timeouts"]
    waiting: list[str] = list(request["serial"])
    beside = [Job(name, timeouts[name], gpus, folder) for name in request["beside"]]
    current: Job | None = None
    while waiting or current or beside:
        if current is None and waiting:
            name = waiting.pop(0)
            current = Job(name, timeouts[name], gpus, folder)
        if current and (found := current.done()) is not None:
            say(found)
            current = None
        for job in list(beside):
            if (found := job.done()) is not None:
                say(found)
                beside.remove(job)
        time.sleep(POLL_SECONDS)


def finished(job: Job) -> dict[str, Any]:
    """Wait for one kernel."""
    while (found := job.done()) is None:
        time.sleep(POLL_SECONDS)
    return found


def provide_libcuda(folder: str) -> None:
    """Give triton and linkers an unversioned libcuda.so: many containers have libcuda.so.1 alone."""
    if "TRITON_LIBCUDA_PATH" in os.environ:
        return
    try:
        ctypes.CDLL("libcuda.so.1")
        maps = Path("/proc/self/maps").read_text(encoding="utf-8")
    except OSError:
        return
    path = next((line.split()[-1] for line in maps.splitlines() if "/libcuda.so" in line), None)
    if path is None or Path(path).with_name("libcuda.so").exists():
        return
    for name in ("libcuda.so", "libcuda.so.1"):
        Path(folder, name).symlink_to(path)
    os.environ["TRITON_LIBCUDA_PATH"] = folder
    os.environ["LIBRARY_PATH"] = ":".join(item for item in (folder, os.environ.get("LIBRARY_PATH", "")) if item)
