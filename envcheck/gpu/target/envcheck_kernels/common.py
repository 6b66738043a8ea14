"""What every kernel shares: how an error is measured, how a time, and how absence is said."""

from __future__ import annotations

import importlib
import importlib.util
from collections.abc import Callable
from typing import Any

Result = dict[str, Any]
"""error, and where they make sense: seconds, flops, bytes, parts (name -> error), detail."""


class AbsentError(Exception):
    """The package that a kernel needs is not installed, or the device cannot do it: nothing to test."""


def needed(name: str) -> Any:  # noqa: ANN401  # any module
    """Import a module, or end the kernel as absent; a module that is there and fails to import is an error."""
    top = name.partition(".")[0]
    if importlib.util.find_spec(top) is None:
        message = f"{top} is not installed"
        raise AbsentError(message)
    return importlib.import_module(name)


def relative(found: Any, reference: Any) -> float:  # noqa: ANN401  # tensors
    """Give the relative Frobenius error; infinite where a value is not finite."""
    import torch

    found, reference = found.detach().to(torch.float64), reference.detach().to(torch.float64)
    if found.shape != reference.shape:
        message = f"the shape is {tuple(found.shape)}, expected {tuple(reference.shape)}"
        raise ValueError(message)
    error = float((found - reference).norm() / reference.norm())
    return error if error == error else float("inf")  # noqa: PLR0124  # NaN is what differs from itself


def measured(call: Callable[[], object], *, repeat: int = 10, warm: int = 3) -> float:
    """Seconds of one call on the GPU, the mean of ``repeat`` after ``warm`` untimed ones."""
    import torch

    for _ in range(warm):
        call()
    start, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))
    start.record()
    for _ in range(repeat):
        call()
    end.record()
    torch.cuda.synchronize()
    return float(start.elapsed_time(end)) / 1000 / repeat


def exact() -> None:
    """Compute float32 in float32: no TF32 in a reference."""
    import torch

    torch.backends.cuda.matmul.allow_tf32 = False
    torch.backends.cudnn.allow_tf32 = False


def random(*shape: int, seed: int = 0, scale: float = 1.0) -> Any:  # noqa: ANN401  # a tensor
    """Give bfloat16 normal values on the GPU, the same for the same seed."""
    import torch

    generator = torch.Generator(device="cuda").manual_seed(seed)
    values = torch.randn(*shape, generator=generator, device="cuda", dtype=torch.float32)
    return (values * scale).to(torch.bfloat16)


def attention(query: Any, key: Any, value: Any, *, causal: bool) -> Any:  # noqa: ANN401  # tensors
    """Reference attention in float32 for (batch, length, heads, size); grouped heads are repeated."""
    import torch

    query, key, value = (item.to(torch.float32).transpose(1, 2) for item in (query, key, value))
    groups = query.shape[1] // key.shape[1]
    key, value = (item.repeat_interleave(groups, dim=1) for item in (key, value))
    scores = query @ key.transpose(-1, -2) / query.shape[-1] ** 0.5
    if causal:
        rows, columns = scores.shape[-2:]
        seen = torch.ones(rows, columns, dtype=torch.bool, device=scores.device).tril(columns - rows)
        scores = scores.masked_fill(~seen, float("-inf"))
    return (scores.softmax(-1) @ value).transpose(1, 2)
