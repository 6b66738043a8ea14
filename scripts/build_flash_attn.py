"""flash-attn with chosen head dimensions and dtypes: minutes instead of hours, and an error where a kernel is absent.

Upstream dispatches over all head dimensions and both dtypes at run time. In a slim tree the dispatch keeps the chosen
ones; every other head dimension that a chosen one would not cover, and every other dtype, ends in a clear error.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path

from envcheck.errors import EnvcheckError, WorkError

HEAD_DIMS = (32, 64, 96, 128, 160, 192, 256)
DTYPES = {"fp16": "cutlass::half_t", "bf16": "cutlass::bfloat16_t"}
SWITCH = Path("csrc/flash_attn/src/static_switch.h")
KERNEL = re.compile(r"flash_(?:fwd|bwd|fwd_split)_hdim(\d+)_(fp16|bf16)_(?:causal_)?sm80\.cu")


def variant(head_dims: str | None, dtypes: str | None) -> dict[str, str]:
    """Read ``--head-dims 64,128 --dtypes bf16``; empty where neither was given."""
    if head_dims is None and dtypes is None:
        return {}
    dims = _chosen(head_dims, tuple(map(str, HEAD_DIMS)), "--head-dims")
    kinds = _chosen(dtypes, tuple(DTYPES), "--dtypes")
    return {"head_dims": ",".join(sorted(dims, key=int)), "dtypes": ",".join(sorted(kinds))}


def build_tag(wanted: Mapping[str, str]) -> str:
    """Give the build tag that marks a slim wheel, ``0slim.d64.d128.bf16``; empty for the whole one.

    Not a local version: TransformerEngine takes no flash-attn above 2.7.4.post1, and ``2.7.4.post1+slim`` is above it.
    """
    if not wanted:
        return ""
    parts = ["0slim", *(f"d{dim}" for dim in wanted["head_dims"].split(",")), *wanted["dtypes"].split(",")]
    return ".".join(parts)


def _chosen(text: str | None, offered: tuple[str, ...], option: str) -> list[str]:
    if text is None:
        return list(offered)
    chosen = [part.strip() for part in text.split(",") if part.strip()]
    wrong = [part for part in chosen if part not in offered]
    if wrong or not chosen:
        raise EnvcheckError(f"{option} {text}: {', '.join(wrong) or 'nothing'} is not offered", fix=f"take {offered}")
    return list(dict.fromkeys(chosen))


def slim(tree: Path, wanted: Mapping[str, str]) -> None:
    """Change a source tree so that only the wanted kernels are compiled, and the others are an error when called."""
    dims = [int(dim) for dim in wanted["head_dims"].split(",")]
    kinds = wanted["dtypes"].split(",")
    switch, setup = tree / SWITCH, tree / "setup.py"
    switch.write_text(switches(switch.read_text(encoding="utf-8"), dims, kinds), encoding="utf-8")
    setup.write_text(sources(setup.read_text(encoding="utf-8"), dims, kinds), encoding="utf-8")


def switches(text: str, dims: list[int], kinds: list[str]) -> str:
    """Replace FP16_SWITCH and HEADDIM_SWITCH by ones that hold the chosen kernels only."""
    text = _replaced(text, "FP16_SWITCH", _dtype_switch(kinds))
    return _replaced(text, "HEADDIM_SWITCH", _dim_switch(dims))


def _replaced(text: str, name: str, body: str) -> str:
    pattern = re.compile(rf"#define {name}\((.*?)\)(?:[^\n]*\\\n)+[^\n]*\n")
    if not pattern.search(text):
        raise WorkError(f"static_switch.h has no {name}: this flash-attn is laid out in another way")
    return pattern.sub(lambda match: f"#define {name}({match[1]}) {body}\n", text, count=1)


def _macro(lines: list[str]) -> str:
    return " \\\n".join(["[&] {", *lines, "}()"])


def _error(what: str) -> str:
    return (
        f'    TORCH_CHECK(false, "this slim flash-attn was built without kernels for {what}; nox -s build-flash-attn");'
    )


def _dtype_switch(kinds: list[str]) -> str:
    if len(kinds) == len(DTYPES):
        return _macro(
            [
                f"  if (COND) {{ using elem_type = {DTYPES['fp16']}; return __VA_ARGS__(); }}",
                f"  else {{ using elem_type = {DTYPES['bf16']}; return __VA_ARGS__(); }}",
            ]
        )
    absent = next(kind for kind in DTYPES if kind not in kinds)
    condition = "(COND)" if absent == "fp16" else "!(COND)"
    return _macro(
        [
            f"  if ({condition}) {{",
            _error(absent),
            "  }",
            f"  using elem_type = {DTYPES[kinds[0]]};",
            "  return __VA_ARGS__();",
        ]
    )


def _dim_switch(dims: list[int]) -> str:
    """A head dimension runs in the next larger kernel, so it is covered only if that very kernel is there."""
    lines, below = [], 0
    for dim in HEAD_DIMS:
        if dim in dims:
            lines.append(
                f"  if (HEADDIM > {below} && HEADDIM <= {dim}) {{ constexpr static int kHeadDim = {dim}; "
                "return __VA_ARGS__(); }"
            )
        below = dim
    shown = ", ".join(map(str, dims))
    what = f'head dimension ", HEADDIM, " (there are: {shown})'
    # Every path of the lambda returns the same type as the calls above: void.
    return _macro([*lines, _error(what)])


def sources(setup: str, dims: list[int], kinds: list[str]) -> str:
    """Take the kernel files that are not wanted out of setup.py's list."""
    kept = []
    for line in setup.splitlines(keepends=True):
        match = KERNEL.search(line)
        if match is None or (int(match[1]) in dims and match[2] in kinds):
            kept.append(line)
    left = sum(KERNEL.search(line) is not None for line in kept)
    if not left:
        raise WorkError("setup.py lists no kernel of the wanted head dimensions: this flash-attn is laid out otherwise")
    return "".join(kept)
