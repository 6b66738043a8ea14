"""Several processes: an all-reduce over every GPU through NCCL, and a ray actor that owns a GPU."""

from __future__ import annotations

import json
import os
import shutil
import signal
import sys
import tempfile
import time
import traceback
from pathlib import Path

from . import common
from .common import AbsentError, Result

MESSAGE_BYTES = 256 << 20


def nccl_all_reduce(gpus: int) -> Result:
    """All-reduce over all GPUs, a process each: the sum must be exact; bus bandwidth as nccl-tests defines it."""
    import torch
    from torch import distributed

    if not distributed.is_available() or not distributed.is_nccl_available():
        message = "this torch was built without NCCL"
        raise AbsentError(message)
    with tempfile.TemporaryDirectory(prefix="ec-") as folder:
        children = []
        for rank in range(gpus):  # before CUDA is initialised here: a fork may not inherit it
            child = os.fork()
            if child == 0:
                _rank(rank, gpus, folder)
            children.append(child)
        codes = _ended(children)
        if any(codes):
            message = f"ranks ended with exit codes {codes}:\n{_tails(folder)}"
            raise RuntimeError(message)
        results = [json.loads(Path(folder, f"{rank}.json").read_text()) for rank in range(gpus)]
    version = ".".join(map(str, torch.cuda.nccl.version()))
    found: Result = {
        "error": max(item["error"] for item in results),
        "detail": f"NCCL {version}, {gpus} GPU{'s' * (gpus > 1)}",
    }
    if gpus > 1:
        seconds = max(item["seconds"] for item in results)
        found |= {"seconds": seconds, "bytes": 2.0 * (gpus - 1) / gpus * MESSAGE_BYTES, "bus": True}
    return found


def _ended(children: list[int]) -> list[int]:
    """Exit codes of all ranks; where one fails the others, which would wait for it for ever, are killed."""
    codes: dict[int, int] = {}
    while len(codes) < len(children):
        child, status = os.wait()
        codes[child] = os.waitstatus_to_exitcode(status)
        if codes[child]:
            for other in set(children) - set(codes):
                os.kill(other, signal.SIGKILL)
    return [codes[child] for child in children]


def _rank(rank: int, gpus: int, folder: str) -> None:
    code = 1
    try:
        Path(folder, f"{rank}.json").write_text(json.dumps(_reduced(rank, gpus, folder)))
        code = 0
    except BaseException:  # noqa: BLE001  # whatever it was is written down; the process ends here
        Path(folder, f"{rank}.txt").write_text(traceback.format_exc())
    finally:
        os._exit(code)


def _reduced(rank: int, gpus: int, folder: str) -> dict[str, float]:
    import torch
    from torch import distributed

    torch.cuda.set_device(rank)
    distributed.init_process_group("nccl", init_method=f"file://{folder}/meeting", rank=rank, world_size=gpus)
    values = torch.arange(4096, dtype=torch.float32, device="cuda") * (rank + 1)
    distributed.all_reduce(values)
    expected = torch.arange(4096, dtype=torch.float32, device="cuda") * (gpus * (gpus + 1) // 2)
    message = torch.ones(MESSAGE_BYTES // 4, dtype=torch.float32, device="cuda")
    seconds = common.measured(lambda: distributed.all_reduce(message), repeat=5, warm=2)
    error = common.relative(values, expected)
    distributed.destroy_process_group()
    return {"error": error, "seconds": seconds}


def _tails(folder: str) -> str:
    return "\n".join(path.read_text()[-1500:] for path in sorted(Path(folder).glob("*.txt")))


def ray_actor() -> Result:
    """Start a local ray with one GPU; an actor multiplies on it."""
    ray = common.needed("ray")
    for name in ("RAY_ADDRESS", "ROCR_VISIBLE_DEVICES"):
        os.environ.pop(name, None)
    temporary = tempfile.mkdtemp(prefix="ec-", dir="/tmp")  # short: ray's sockets allow 107 bytes
    start = time.perf_counter()
    try:
        ray.init(
            address="local", num_cpus=2, num_gpus=1, include_dashboard=False, _temp_dir=temporary, log_to_driver=False
        )

        class Multiplier:  # inside the function: it is pickled by value, the worker cannot import this module
            def product(self) -> tuple[float, str]:
                import torch as theirs

                values = theirs.eye(256, device="cuda") * 2
                return float((values @ values).sum()), theirs.cuda.get_device_name()

        actor = ray.remote(num_gpus=1)(Multiplier).remote()
        total, name = ray.get(actor.product.remote(), timeout=90)
    finally:
        ray.shutdown()
        shutil.rmtree(temporary, ignore_errors=True)
    seconds = time.perf_counter() - start
    return {
        "error": abs(total - 1024.0) / 1024.0,
        "detail": f"ray {ray.__version__}, python {sys.version.split()[0]}, on {name}, {seconds:.1f} s",
    }
