"""Fused layers: sgl-kernel, TransformerEngine in bfloat16 and fp8, apex."""

from __future__ import annotations

from typing import Any

from . import common
from .common import AbsentError, Result

FP8_CAPABILITY = (8, 9)
SIZES = (1024, 4096)
"""Of the layer that is compared and of the one that is timed."""
ROWS = 512


def _rms_norm(x: Any, weight: Any, epsilon: float = 1e-6) -> Any:  # noqa: ANN401  # tensors
    x = x.float()
    return x * (x.square().mean(-1, keepdim=True) + epsilon).rsqrt() * weight.float()


def sgl_rmsnorm() -> Result:
    """Compare sgl-kernel's rmsnorm with float32."""
    kernel = common.needed("sgl_kernel")
    x, weight = common.random(4096, 4096, seed=1), common.random(4096, seed=2)
    found = kernel.rmsnorm(x, weight, 1e-6)
    seconds = common.measured(lambda: kernel.rmsnorm(x, weight, 1e-6))
    error = common.relative(found, _rms_norm(x, weight))
    version = f"sgl-kernel {getattr(kernel, '__version__', 'of unknown version')}"
    return {"error": error, "seconds": seconds, "bytes": 2.0 * 2 * x.numel(), "detail": version}


def te_linear() -> Result:
    """Compare TransformerEngine's Linear in bfloat16 with float32, forward and backward."""
    import torch

    te = common.needed("transformer_engine.pytorch")
    common.exact()
    layer, large = (te.Linear(size, size, bias=True, params_dtype=torch.bfloat16, device="cuda") for size in SIZES)
    return _linear(layer, layer) | _timed(large) | {"detail": _te_version()}


def te_linear_fp8() -> Result:
    """Compare TransformerEngine's Linear in fp8 with float32: the error is that of 3 bits of mantissa."""
    import torch

    te = common.needed("transformer_engine.pytorch")
    if torch.cuda.get_device_capability() < FP8_CAPABILITY:
        message = "this GPU has no fp8 (compute capability 8.9 or higher has)"
        raise AbsentError(message)
    from transformer_engine.common.recipe import DelayedScaling, Format

    common.exact()
    layer, large = (te.Linear(size, size, bias=True, params_dtype=torch.bfloat16, device="cuda") for size in SIZES)
    recipe = DelayedScaling(fp8_format=Format.HYBRID, amax_history_len=16, amax_compute_algo="max")

    def call(x: Any, module: Any = layer) -> Any:  # noqa: ANN401  # a tensor and a module
        with te.fp8_autocast(enabled=True, fp8_recipe=recipe):
            return module(x)

    for _ in range(3):  # the scales are learned from what was seen before
        call(common.random(ROWS, SIZES[0], seed=1)).backward(common.random(ROWS, SIZES[0], seed=2))
    layer.zero_grad(set_to_none=True)
    return _linear(layer, call) | _timed(lambda x: call(x, large)) | {"detail": _te_version()}


def _timed(call: Any) -> Result:  # noqa: ANN401  # a module or a function
    import torch

    rows, size = 8192, SIZES[1]
    x = common.random(rows, size, seed=3)
    with torch.no_grad():
        return {"seconds": common.measured(lambda: call(x)), "flops": 2.0 * rows * size * size}


def _linear(layer: Any, call: Any) -> Result:  # noqa: ANN401  # a module and how it is called
    import torch

    size = SIZES[0]
    x = common.random(ROWS, size, seed=1).requires_grad_()
    found = call(x)
    weights = common.random(ROWS, size, seed=2)
    found.backward(weights)
    exact = x.detach().float().requires_grad_()
    parameters = [item.detach().float().requires_grad_() for item in (layer.weight, layer.bias)]
    reference = torch.nn.functional.linear(exact, *parameters)
    reference.backward(weights.float())
    parts = {
        "forward": common.relative(found, reference),
        "gradient of input": common.relative(x.grad, exact.grad),
        "gradient of weight": common.relative(layer.weight.grad, parameters[0].grad),
    }
    return {"error": max(parts.values()), "parts": parts}


def te_layernorm() -> Result:
    """Compare TransformerEngine's LayerNorm in bfloat16 with float32, forward and backward."""
    import torch

    te = common.needed("transformer_engine.pytorch")
    layer = te.LayerNorm(1024, params_dtype=torch.bfloat16, device="cuda")
    with torch.no_grad():
        layer.weight.copy_(1 + common.random(1024, seed=5, scale=0.1))
        layer.bias.copy_(common.random(1024, seed=6, scale=0.1))
    return _layer_norm(layer, _te_version())


def apex_layernorm() -> Result:
    """Compare NVIDIA apex's fused layer norm with float32, forward and backward."""
    import torch

    common.needed("apex")
    try:
        from apex.normalization import FusedLayerNorm
    except ImportError as error:
        message = f"the apex that is installed is not NVIDIA's, or was built without its extensions: {error}"
        raise RuntimeError(message) from error
    return _layer_norm(FusedLayerNorm(1024).to("cuda", torch.bfloat16), "")


def _layer_norm(layer: Any, detail: str) -> Result:  # noqa: ANN401  # a module
    import torch

    x = common.random(2048, 1024, seed=1).requires_grad_()
    found = layer(x)
    weights = common.random(2048, 1024, seed=2)
    found.backward(weights)
    exact = x.detach().float().requires_grad_()
    parameters = [item.detach().float() for item in (layer.weight, layer.bias)]
    reference = torch.nn.functional.layer_norm(exact, (1024,), *parameters, eps=1e-5)
    reference.backward(weights.float())
    parts = {
        "forward": common.relative(found, reference),
        "gradient of input": common.relative(x.grad, exact.grad),
    }
    return {"error": max(parts.values()), "parts": parts, "detail": detail}


def _te_version() -> str:
    from importlib import metadata

    for name in ("transformer-engine", "transformer_engine"):
        try:
            return f"TransformerEngine {metadata.version(name)}"
        except metadata.PackageNotFoundError:
            continue
    return "TransformerEngine of unknown version"
