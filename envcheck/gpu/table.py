"""The kernels as a table for people."""

from __future__ import annotations

from collections.abc import Iterator

from envcheck.engine import ORDER
from envcheck.gpu.judge import GIGA, TERA, Measured, Report
from envcheck.model import Outcome
from envcheck.report.style import Style, safe

MARKS = {"ok": "✓", "error": "✗", "warning": "!", "not-applicable": "-"}
COLOURS = {"ok": ("green",), "error": ("red", "bold"), "warning": ("yellow", "bold"), "not-applicable": ("dim",)}
HEAD = ("", "kernel", "error", "tolerance", "time", "speed", "of ceiling", "in all")


def render(found: Report, style: Style, seconds: float) -> str:
    """Give the table, then what is wrong, then one sentence."""
    parts = [_host(found), _table(found, style), *_troubles(found, style), _absent(found), _end(found, seconds)]
    return "\n\n".join(part for part in parts if part) + "\n"


def _host(found: Report) -> str:
    names = [str(gpu["name"]) for gpu in found.gpus]
    counted = ", ".join(f"{names.count(name)} x {name}" for name in dict.fromkeys(names)) or "no GPU"
    return f"{counted}; {found.detail}" if found.detail else counted


def _table(found: Report, style: Style) -> str:
    rows = [row for row in found.measured if row.outcome not in {"not-applicable", "unknown"}]
    cells = [HEAD, *(_cells(row) for row in rows)]
    widths = [max(len(line[column]) for line in cells) for column in range(len(HEAD))]
    lines = [style.paint(_line(HEAD, widths).rstrip(), "dim")]
    for row, line in zip(rows, cells[1:], strict=True):
        mark = style.symbol(MARKS[row.outcome])
        lines.append(style.paint(mark, *COLOURS[row.outcome]) + _line(line, widths)[1:].rstrip())
    return "\n".join(lines)


def _line(cells: tuple[str, ...], widths: list[int]) -> str:
    left = f"{cells[0] or ' ':<1} {cells[1]:<{widths[1]}}"
    return left + "".join(f"  {cell:>{width}}" for cell, width in zip(cells[2:], widths[2:], strict=True))


def _cells(row: Measured) -> tuple[str, ...]:
    speeds = [f"{row.flops_per_second / TERA:,.0f} TFLOP/s"] if row.flops_per_second else []
    speeds += [f"{row.bytes_per_second / GIGA:,.0f} GB/s"] if row.bytes_per_second else []
    return (
        " ",
        row.kernel.title,
        "" if row.error is None else "exact" if row.error == 0 else f"{row.error:.1e}",
        "exact" if row.kernel.tolerance == 0 else f"{row.kernel.tolerance:.1e}",
        "" if row.seconds is None else f"{row.seconds * 1000:.3g} ms",
        ", ".join(speeds),
        "" if row.share is None else f"{row.share:.0%}",
        "" if row.wall is None else f"{row.wall:.1f} s",
    )


def _troubles(found: Report, style: Style) -> Iterator[str]:
    wrong = [item for item in found.outcomes if item.outcome in {"error", "warning"}]
    for item in sorted(wrong, key=lambda one: ORDER.index(one.outcome)):
        yield _trouble(item, style)


def _trouble(item: Outcome, style: Style) -> str:
    mark = style.paint(style.symbol(MARKS[item.outcome]), *COLOURS[item.outcome])
    lines = [f"{mark} {item.rule}: {safe(item.summary)}"]
    for word, text in (("found", item.found), ("expected", item.expected)):
        lines += [f"    {word if not number else '':<9} {safe(line)}" for number, line in enumerate(text.splitlines())]
    for fix in item.fix:
        lines += [f"    fix       {safe(fix.text)}", *(f"              {safe(command)}" for command in fix.commands)]
    return "\n".join(lines)


def _absent(found: Report) -> str:
    lines = [f"- {safe(item.summary)}" for item in found.outcomes if item.outcome == "not-applicable"]
    not_run = [item for item in found.outcomes if item.outcome == "unknown"]
    lines += [f"- {len(not_run)} more kernels were not run: CUDA does not start"] if not_run else []
    return "\n".join(["not applicable:", *lines] if len(lines) > bool(not_run) else lines)


def _end(found: Report, seconds: float) -> str:
    count = {name: sum(item.outcome == name for item in found.outcomes) for name in MARKS}
    words = f"{count['ok']} kernels right"
    if count["error"]:
        words += f", {count['error']} wrong or failed"
    if count["warning"]:
        words += f", {count['warning']} with a warning"
    return f"{words}, {count['not-applicable']} not applicable; {seconds:.0f} s"
