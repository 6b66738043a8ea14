"""``envcheck stacks``: the stacks that exist, or the page of one."""

from __future__ import annotations

import argparse

from envcheck import codec, errors, stack
from envcheck.commands import options
from envcheck.report.style import Style
from envcheck.stack import Component, Stack


def configure(parser: argparse.ArgumentParser) -> None:
    """Add its options."""
    parser.add_argument("stack", nargs="?", metavar="S", help="show the page of this stack (a name or a .toml file)")
    options.add_output(parser, ("text", "json"))


def run(args: argparse.Namespace) -> int:
    """Write the list or the page."""
    stacks = [stack.load(name) for name in (stack.names() if args.stack is None else [args.stack])]
    if args.format == "json":
        from envcheck.report.json import dumps

        document = dumps({"version": 1, "stacks": [codec.encode(item) for item in stacks]})
    elif args.stack is None:
        document = listed(stacks, options.style(args))
    else:
        document = page(stacks[0], options.style(args))
    options.deliver(args, document)
    return errors.OK


def listed(stacks: list[Stack], style: Style) -> str:
    """List the stacks: name, title, summary."""
    return "\n".join(_entry(item, style) for item in stacks)


def _entry(item: Stack, style: Style) -> str:
    default = " (default)" if item.name == stack.DEFAULT_STACK else ""
    return (
        f"{style.paint(item.name, 'bold')}{default}: {item.title}\n{style.wrap(item.summary, indent='    ')}\n"
        f"    CUDA {item.cuda.requires}, Python {item.python.requires}, "
        f"{' or '.join(item.engines)}, {' or '.join(item.trainers)}\n"
    )


def page(item: Stack, style: Style) -> str:
    """Write everything that a person asks of a stack: limits, components, other versions, overrides, traps."""
    sections = [
        f"{style.paint(item.name, 'bold')}: {item.title}\n{style.wrap(item.summary, indent='    ')}",
        _limits(item, style),
        _components(item, style),
        _accepted(item, style),
        _overrides(item, style),
        _traps(item, style),
    ]
    return "\n\n".join(section for section in sections if section) + "\n"


def _titled(title: str, lines: list[str], style: Style) -> str:
    return "\n".join([style.paint(title, "bold"), *lines]) if lines else ""


def _limits(item: Stack, style: Style) -> str:
    ranges = {"Python": item.python, "CUDA": item.cuda, "cuDNN": item.cudnn, "NCCL": item.nccl, "GCC": item.gcc}
    lines = [
        style.wrap(f"{limit.requires}, take {limit.default}. {limit.reason}", indent=" " * 10, first=f"  {name:<8}")
        for name, limit in ranges.items()
    ]
    driver = f"{item.driver.minimum} or newer; {item.driver.native} runs it natively (PTX too)"
    lines.append(style.wrap(driver, indent=" " * 10, first=f"  {'driver':<8}"))
    return _titled("Limits", [*lines, f"  {'archs':<8}{', '.join(item.archs)}"], style)


def _components(item: Stack, style: Style) -> str:
    rows = [("component", "version", "from", "for", "needs"), *(_row(component) for component in item.components)]
    widths = [max(len(row[column]) for row in rows) for column in range(4)]
    lines = [
        "  " + "  ".join([*(cell.ljust(width) for cell, width in zip(row, widths, strict=False)), row[4]]).rstrip()
        for row in rows
    ]
    notes = [
        style.wrap(f"{component.name}: {component.note}", indent="    ", first="  ")
        for component in item.components
        if component.note
    ]
    return _titled("Components", [*lines, *([""] if notes else []), *notes], style)


def _row(item: Component) -> tuple[str, str, str, str, str]:
    version = f"{item.version}+{item.local}" if item.local else item.version
    used_by = ", ".join([*item.engines, *item.trainers]) or "all"
    built = f"{item.origin.kind}, built" if item.recipe and item.recipe.compiles else item.origin.kind
    return item.name, version, built, f"{used_by} (optional)" if item.optional else used_by, ", ".join(item.needs)


def _accepted(item: Stack, style: Style) -> str:
    lines = []
    for component in item.components:
        for other in component.accepts:
            text = f"{component.name} {other.version} until {other.until}: {other.reason}"
            lines += [style.wrap(text, indent="      ", first="  - "), f"      {other.source}"]
    return _titled("Other versions that are accepted", lines, style)


def _overrides(item: Stack, style: Style) -> str:
    lines = []
    for override in item.lock.overrides:
        text = f"{override.requirement} until {override.until}: {override.reason}"
        lines += [style.wrap(text, indent="      ", first="  - "), f"      {override.source}"]
    return _titled("Requirements that the lock overrides", lines, style)


def _traps(item: Stack, style: Style) -> str:
    lines = []
    for trap in item.traps:
        lines += [
            style.wrap(trap.title, indent="    ", first="  - "),
            style.wrap(trap.what, indent="      "),
            style.wrap(trap.do, indent="          ", first="      do: "),
            *([f"      rules: {', '.join(trap.rules)}"] if trap.rules else []),
            f"      {trap.source}",
        ]
    return _titled("Traps, and what to do", lines, style)
