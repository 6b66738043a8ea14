"""Attention kernels: flash-attn (forward, backward, varlen) and flashinfer (decode, prefill)."""

from __future__ import annotations

from typing import Any

from . import common
from .common import Result

HEADS, KV_HEADS = 8, 4


def _inputs(
    batch: int, length: int, size: int, *, heads: int = HEADS, kv_heads: int = KV_HEADS
) -> tuple[Any, Any, Any]:
    query = common.random(batch, length, heads, size, seed=1)
    return query, *(common.random(batch, length, kv_heads, size, seed=seed) for seed in (2, 3))


def flash_forward(size: int = 64) -> Result:
    """Compare flash-attn's forward pass with float32, causal and not, and time it."""
    flash = common.needed("flash_attn")
    common.exact()
    query, key, value = _inputs(2, 777, size)
    parts = {}
    for causal in (False, True):
        found = flash.flash_attn_func(query, key, value, causal=causal)
        reference = common.attention(query, key, value, causal=causal)
        parts["causal" if causal else "full"] = common.relative(found, reference)
    batch, length, heads = 4, 4096, 16
    big = _inputs(batch, length, size, heads=heads, kv_heads=heads)
    seconds = common.measured(lambda: flash.flash_attn_func(*big, causal=True))
    flops = 4.0 * batch * heads * length**2 * size / 2
    version = f"flash-attn {flash.__version__}, head size {size}"
    return {"error": max(parts.values()), "parts": parts, "seconds": seconds, "flops": flops, "detail": version}


def flash_forward_128() -> Result:
    """Do the same for heads of 128, as Qwen2-7B has them."""
    return flash_forward(128)


def flash_backward() -> Result:
    """Compare flash-attn's gradients with those of float32."""
    import torch

    flash = common.needed("flash_attn")
    common.exact()
    inputs = [item.requires_grad_() for item in _inputs(2, 512, 64)]
    exact = [item.detach().float().requires_grad_() for item in inputs]
    found = flash.flash_attn_func(*inputs, causal=True)
    reference = common.attention(*exact, causal=True)
    weights = torch.randn_like(reference)
    found.backward(weights.to(found.dtype))
    reference.backward(weights)
    names = ("query", "key", "value")
    parts = {name: common.relative(one.grad, other.grad) for name, one, other in zip(names, inputs, exact, strict=True)}
    big = [item.requires_grad_() for item in _inputs(4, 2048, 64, heads=16, kv_heads=16)]
    out = flash.flash_attn_func(*big, causal=True)
    gradient = torch.randn_like(out)
    seconds = common.measured(lambda: torch.autograd.grad(out, big, gradient, retain_graph=True))
    flops = 2.5 * 4 * 4 * 16 * 2048**2 * 64 / 2
    return {"error": max(parts.values()), "parts": parts, "seconds": seconds, "flops": flops}


def flash_varlen() -> Result:
    """Compare sequences of several lengths, packed without padding, each with its own reference; both directions."""
    import torch

    flash = common.needed("flash_attn")
    common.exact()
    lengths = (17, 1, 300, 128)
    starts = torch.tensor([0, *torch.tensor(lengths).cumsum(0).tolist()], dtype=torch.int32, device="cuda")
    packed = [item[0].requires_grad_() for item in _inputs(1, sum(lengths), 64)]
    found = flash.flash_attn_varlen_func(*packed, starts, starts, max(lengths), max(lengths), causal=True)
    exact = [item.detach().float().requires_grad_() for item in packed]
    parts = [
        common.attention(*(item[first:last].unsqueeze(0) for item in exact), causal=True)[0]
        for first, last in zip(starts[:-1].tolist(), starts[1:].tolist(), strict=True)
    ]
    reference = torch.cat(parts)
    weights = torch.randn_like(reference)
    found.backward(weights.to(found.dtype))
    reference.backward(weights)
    errors = {"forward": common.relative(found, reference)}
    for name, one, other in zip(("query", "key", "value"), packed, exact, strict=True):
        errors[f"gradient of {name}"] = common.relative(one.grad, other.grad)
    return {"error": max(errors.values()), "parts": errors}


def flashinfer_decode() -> Result:
    """Compare one query against a cache of 4096 keys with float32; compiled now where no kernel is prebuilt."""
    flashinfer = common.needed("flashinfer")
    common.exact()
    query = common.random(32, 128, seed=1)
    key, value = (common.random(4096, 8, 128, seed=seed) for seed in (2, 3))
    found = flashinfer.single_decode_with_kv_cache(query, key, value)
    reference = common.attention(query[None, None], key[None], value[None], causal=False)[0, 0]
    seconds = common.measured(lambda: flashinfer.single_decode_with_kv_cache(query, key, value))
    version = f"flashinfer {flashinfer.__version__}"
    read = 2.0 * 2 * key.numel()
    return {"error": common.relative(found, reference), "seconds": seconds, "bytes": read, "detail": version}


def flashinfer_prefill() -> Result:
    """Compare causal attention over 512 tokens with float32; compiled now where no kernel is prebuilt."""
    flashinfer = common.needed("flashinfer")
    common.exact()
    query = common.random(512, 32, 128, seed=1)
    key, value = (common.random(512, 8, 128, seed=seed) for seed in (2, 3))
    # The fa2 backend runs on every architecture; the default would compile fa3 as well on Hopper.
    found = flashinfer.single_prefill_with_kv_cache(query, key, value, causal=True, backend="fa2")
    reference = common.attention(query[None], key[None], value[None], causal=True)[0]
    return {"error": common.relative(found, reference), "detail": f"flashinfer {flashinfer.__version__}"}
