"""torch itself: the device, matrix products, copies, cuDNN, triton and the compiler."""

from __future__ import annotations

import time
from typing import Any

from . import common
from .common import Result


def device() -> Result:
    """Initialise CUDA and describe every GPU."""
    import torch

    torch.cuda.init()
    gpus = []
    for index in range(torch.cuda.device_count()):
        it = torch.cuda.get_device_properties(index)
        gpus.append({"name": it.name, "memory_bytes": it.total_memory, "capability": f"{it.major}.{it.minor}"})
    if not gpus:
        message = "torch sees no GPU (is CUDA_VISIBLE_DEVICES empty?)"
        raise RuntimeError(message)
    total = float(torch.arange(1000, device="cuda").sum())
    return {
        "error": abs(total - 499500.0) / 499500.0,
        "gpus": gpus,
        "detail": f"torch {torch.__version__}, CUDA {torch.version.cuda}, cuDNN {torch.backends.cudnn.version()}",
    }


def matmul() -> Result:
    """Compare a bfloat16 matrix product with float32, and time a large one."""
    common.exact()
    a, b = common.random(2048, 2048, seed=1), common.random(2048, 2048, seed=2)
    error = common.relative(a @ b, a.float() @ b.float())
    size = 8192
    big, other = common.random(size, size, seed=3), common.random(size, size, seed=4)
    seconds = common.measured(lambda: big @ other)
    return {"error": error, "seconds": seconds, "flops": 2.0 * size**3, "detail": f"{size} x {size} x {size}"}


def memory() -> Result:
    """Copy 2 GiB on the device (read and written: 4 GiB of traffic) and compare."""
    import torch

    source = torch.arange(1 << 29, dtype=torch.float32, device="cuda")
    target = torch.empty_like(source)
    seconds = common.measured(lambda: target.copy_(source))
    same = bool(torch.equal(source, target))
    return {"error": 0.0 if same else float("inf"), "seconds": seconds, "bytes": 2.0 * source.numel() * 4}


def convolution() -> Result:
    """Compare cuDNN's bfloat16 convolution with a float32 one made without cuDNN."""
    import torch

    common.exact()
    image, weight = common.random(8, 64, 56, 56, seed=1), common.random(128, 64, 3, 3, seed=2, scale=0.1)
    found = torch.nn.functional.conv2d(image, weight, padding=1)
    with torch.backends.cudnn.flags(enabled=False):
        reference = torch.nn.functional.conv2d(image.float(), weight.float(), padding=1)
    image, weight = common.random(64, 256, 56, 56, seed=3), common.random(256, 256, 3, 3, seed=4, scale=0.1)
    image, weight = (item.contiguous(memory_format=torch.channels_last) for item in (image, weight))
    seconds = common.measured(lambda: torch.nn.functional.conv2d(image, weight, padding=1))
    flops = 2.0 * 64 * 256 * 256 * 9 * 56 * 56
    return {
        "error": common.relative(found, reference),
        "seconds": seconds,
        "flops": flops,
        "detail": f"cuDNN {torch.backends.cudnn.version()}",
    }


def triton_jit() -> Result:
    """Compile a triton kernel now and compare what it computes."""
    import torch

    triton = common.needed("triton")
    from . import triton_kernel

    x, y = (torch.randn(1 << 22, device="cuda") for _ in range(2))
    out = torch.empty_like(x)
    grid = (triton.cdiv(x.numel(), 1024),)
    start = time.perf_counter()
    triton_kernel.multiply_add[grid](x, y, out, x.numel(), block=1024)
    torch.cuda.synchronize()
    compiling = time.perf_counter() - start
    seconds = common.measured(lambda: triton_kernel.multiply_add[grid](x, y, out, x.numel(), block=1024))
    reference = x.double() * y.double() + x.double()
    return {
        "error": common.relative(out, reference),
        "seconds": seconds,
        "bytes": 3.0 * 4 * x.numel(),
        "detail": f"triton {triton.__version__}, compiled in {compiling:.1f} s",
    }


def torch_compile() -> Result:
    """Compile a small function with inductor and compare it with eager float64."""
    import torch

    def function(x: Any, weight: Any) -> Any:  # noqa: ANN401  # tensors
        return torch.nn.functional.silu(x @ weight) * x.sin() + x.mean(-1, keepdim=True)

    common.exact()
    x, weight = torch.randn(512, 512, device="cuda"), torch.randn(512, 512, device="cuda") / 22
    start = time.perf_counter()
    found = torch.compile(function)(x, weight)
    torch.cuda.synchronize()
    detail = f"compiled in {time.perf_counter() - start:.1f} s"
    return {"error": common.relative(found, function(x.double(), weight.double())), "detail": detail}
