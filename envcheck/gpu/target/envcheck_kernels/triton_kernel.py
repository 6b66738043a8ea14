"""A triton kernel; triton reads its source from this file."""

import triton
import triton.language as tl


@triton.jit  # type: ignore[untyped-decorator]  # triton has no types
def multiply_add(x, y, out, count, block: tl.constexpr):  # type: ignore[no-untyped-def]  # noqa: ANN001, ANN201  # triton reads annotations
    """Write ``x * y + x``."""
    offsets = tl.program_id(0) * block + tl.arange(0, block)
    inside = offsets < count
    first = tl.load(x + offsets, mask=inside)
    second = tl.load(y + offsets, mask=inside)
    tl.store(out + offsets, first * second + first, mask=inside)
