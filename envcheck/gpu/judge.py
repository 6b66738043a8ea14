"""From what the kernels reported to outcomes: right, wrong, crashed, absent; with its speed."""

from __future__ import annotations

import io
import signal
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from envcheck.gpu.tables import Ceiling, Kernel, Tables
from envcheck.model import Fix, Outcome, OutcomeName

TERA, GIGA = 1e12, 1e9
NOT_RUN = "it was not run: CUDA does not start"
LINK_KERNEL = "gpu-nccl-all-reduce"
SOURCE = "https://github.com/volcengine/verl/blob/v0.4.1/docs/start/install.rst"


@dataclass(frozen=True, kw_only=True)
class Measured:
    """One kernel's numbers, for the table; None where they make no sense."""

    kernel: Kernel
    outcome: OutcomeName
    error: float | None = None
    seconds: float | None = None
    flops_per_second: float | None = None
    bytes_per_second: float | None = None
    share: float | None = None
    """Of the device's ceiling, 0 to 1."""
    wall: float | None = None
    detail: str = ""


@dataclass(frozen=True, kw_only=True)
class Report:
    """All kernels of one run."""

    outcomes: tuple[Outcome, ...]
    measured: tuple[Measured, ...]
    gpus: tuple[Mapping[str, Any], ...] = ()
    detail: str = ""
    """Versions of torch, CUDA and cuDNN."""


def report(kernels: Sequence[Kernel], results: Sequence[Mapping[str, Any]], tables: Tables) -> Report:
    """Judge every kernel; one without a result did not come to run."""
    by_name = {str(result["kernel"]): result for result in results}
    device = by_name.get("gpu-device", {})
    gpus = tuple(device.get("gpus", ()))
    ceiling = tables.ceiling(str(gpus[0]["name"])) if gpus else None
    outcomes, measured = [], []
    for kernel in kernels:
        result = by_name.get(kernel.id, {})
        outcomes.append(outcome(kernel, result, ceiling))
        measured.append(numbers(kernel, result, ceiling, outcomes[-1].outcome))
    return Report(outcomes=tuple(outcomes), measured=tuple(measured), gpus=gpus, detail=str(device.get("detail", "")))


def outcome(kernel: Kernel, result: Mapping[str, Any], ceiling: Ceiling | None) -> Outcome:
    """Judge one kernel."""
    if "absent" in result:
        return _plain(kernel, "not-applicable", str(result["absent"]))
    if not result:
        return _plain(kernel, "unknown", NOT_RUN)
    error = result.get("error")
    if error is None:
        return _failed(kernel, result)
    if float(error) <= kernel.tolerance:
        return _plain(kernel, "ok", _sentence(numbers(kernel, result, ceiling, "ok")), expected=_expected(kernel))
    return _wrong(kernel, result)


def _plain(kernel: Kernel, name: OutcomeName, summary: str, expected: str = "") -> Outcome:
    return Outcome(
        rule=kernel.id,
        subject=kernel.subject,
        outcome=name,
        summary=f"{kernel.title}: {summary}",
        expected=expected,
        sources=(SOURCE,),
        stages=("launch", "train"),
    )


def _expected(kernel: Kernel) -> str:
    if not kernel.tolerance:
        return "no error at all"
    return f"a relative error of at most {kernel.tolerance:g} (measured elsewhere: {kernel.measured})"


def _wrong(kernel: Kernel, result: Mapping[str, Any]) -> Outcome:
    parts = "; ".join(f"{name} {value:.3g}" for name, value in result.get("parts", {}).items())
    found = f"relative error {float(result['error']):.3g}" + (f" ({parts})" if parts else "")
    fix = Fix(text=f"this build of {kernel.subject} computes wrong results here: install the one that the stack locks")
    return Outcome(
        rule=kernel.id,
        subject=kernel.subject,
        outcome=kernel.severity,
        summary=_noted(kernel, f"{kernel.title}: the result is wrong"),
        found=f"{found}; {result['detail']}" if result.get("detail") else found,
        expected=_expected(kernel),
        fix=(fix,),
        sources=(SOURCE,),
        stages=("launch", "train"),
    )


def _failed(kernel: Kernel, result: Mapping[str, Any]) -> Outcome:
    """Report a kernel that raised, crashed or hung, with the rule that explains its output."""
    said = how(kernel, result)
    cause = _cause(str(result.get("output", "")))
    summary = f"{kernel.title}: {said}"
    if cause:
        summary += f": {cause.rule}: {cause.summary}"
    return Outcome(
        rule=kernel.id,
        subject=kernel.subject,
        outcome=kernel.severity,
        summary=_noted(kernel, summary),
        found=_end(result) or said,
        expected=f"it runs; {_expected(kernel)}",
        fix=cause.fix if cause else _fix(kernel, result),
        sources=(*cause.sources, SOURCE) if cause else (SOURCE,),
        stages=("launch", "train"),
    )


def how(kernel: Kernel, result: Mapping[str, Any]) -> str:
    """Say how a kernel failed."""
    if "timed_out" in result:
        cold = f" ({kernel.cold})" if kernel.cold else ""
        return f"it did not end within {result['timed_out']:g} s{cold}"
    if "signal" in result:
        number = int(result["signal"])
        name = signal.Signals(number).name if number in set(signal.Signals) else str(number)
        return f"it crashed with {name}"
    return "it failed"


def _fix(kernel: Kernel, result: Mapping[str, Any]) -> tuple[Fix, ...]:
    if "timed_out" in result and kernel.subject == "flashinfer-python":
        text = "a compilation that was killed earlier leaves a lock that is waited for without end: delete it"
        return (Fix(text=text, commands=("find ~/.cache/flashinfer -name lock -delete",)),)
    return (Fix(text="the end of its output is above; the whole of it appears when the kernel is run alone"),)


def _noted(kernel: Kernel, summary: str) -> str:
    return f"{summary}; {kernel.note}" if kernel.note else summary


def _end(result: Mapping[str, Any]) -> str:
    lines = [line for line in str(result.get("output", "")).splitlines() if line.strip()]
    return "\n".join(lines[-4:]) or str(result.get("failed", ""))


def _cause(output: str) -> Any:  # noqa: ANN401  # a Match of explain, or None
    if not output.strip():
        return None
    from envcheck.explain import explain

    return explain(io.BytesIO(output.encode())).root


def numbers(kernel: Kernel, result: Mapping[str, Any], ceiling: Ceiling | None, name: OutcomeName) -> Measured:
    """Work out speeds and their share of the ceiling."""
    seconds = result.get("seconds")
    flops = result["flops"] / seconds if seconds and "flops" in result else None
    rate = result["bytes"] / seconds if seconds and "bytes" in result else None
    top = ceiling.of(kernel.ceiling) if ceiling else None
    reached = flops if kernel.ceiling in {"bf16", "fp8"} else rate
    return Measured(
        kernel=kernel,
        outcome=name,
        error=result.get("error"),
        seconds=seconds,
        flops_per_second=flops,
        bytes_per_second=rate,
        share=reached / top if reached and top else None,
        wall=result.get("wall"),
        detail=str(result.get("detail", "")),
    )


def speed(measured: Measured) -> str:
    """Write the speed: ``742 TFLOP/s, 75 % of what the device can do``."""
    parts = []
    if measured.flops_per_second:
        parts.append(f"{measured.flops_per_second / TERA:,.0f} TFLOP/s")
    if measured.bytes_per_second:
        bus = " on the bus" if measured.kernel.id == LINK_KERNEL else ""
        parts.append(f"{measured.bytes_per_second / GIGA:,.0f} GB/s{bus}")
    if measured.share:
        parts.append(f"{measured.share:.0%} of what the device can do")
    return ", ".join(parts)


def _sentence(measured: Measured) -> str:
    parts = ["exact" if not measured.error else f"error {measured.error:.2g}", speed(measured), measured.detail]
    return "; ".join(part for part in parts if part)
